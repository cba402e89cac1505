//! Where to compute. The binary is not linked to CUDA: where its library is found, it is loaded at start.

use std::sync::OnceLock;
use tch::Device;

/// The CUDA half of the tensor library.
#[cfg(target_os = "linux")]
const LIBRARY: &str = "libtorch_cuda.so";

/// A CUDA device where the library, its driver and a device are found; else the CPU.
pub fn select() -> Device {
    static LOADED: OnceLock<bool> = OnceLock::new();
    if *LOADED.get_or_init(load) && tch::Cuda::is_available() { Device::Cuda(0) } else { Device::Cpu }
}

/// Loads the CUDA library for the life of the process, so that it registers itself with the tensor library.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "loading a library runs its initialisers")]
fn load() -> bool {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the library is the other half of the tensor library, found by the loader's usual rules; its initialisers
    // register kernels and have no other preconditions. It is never unloaded.
    match unsafe { Library::open(Some(LIBRARY), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            std::mem::forget(library);
            true
        }
        Err(_) => false,
    }
}

#[cfg(not(target_os = "linux"))]
fn load() -> bool {
    false
}

/// Whether bfloat16 products are faster than float32 ones on `device`: on CUDA, and on CPUs with instructions for them.
pub fn multiplies_bfloat16_fast(device: Device) -> bool {
    if device.is_cuda() {
        return true;
    }
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    ["avx512_bf16", "amx_bf16"].iter().any(|flag| flags.contains(flag))
}

//! AMX: 16 rows of activations times 16 columns of weights, 64 summands at once.
//!
//! The compiler has no stable intrinsics for it. Each assembly block below starts from empty tiles and stores what it computed,
//! so that no tile lives between two blocks; only the configuration does.
#![allow(unsafe_code, reason = "instructions without intrinsics, over operands whose lengths were checked")]

use super::{Operands, PANEL, STRIDE};
use std::arch::asm;
use std::sync::OnceLock;

/// Rows of a tile.
const TILE_ROWS: usize = 16;
/// Bytes between the rows of a tile of sums.
const SUMS_STRIDE: usize = STRIDE * size_of::<i32>();

/// The tile configuration: palette 1, eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Whether the processor has AMX for integers and the system lets this process use it.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| processor_has() && system_permits())
}

fn processor_has() -> bool {
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    let (tiles, integers) = (leaf.edx & (1 << 24) != 0, leaf.edx & (1 << 25) != 0);
    tiles && integers
}

/// Asks Linux for the tile registers: they are not part of a thread's state until a process asks.
#[cfg(target_os = "linux")]
fn system_permits() -> bool {
    const REQUEST_PERMISSION: libc::c_long = 0x1023;
    const TILE_DATA: libc::c_long = 18;
    // SAFETY: the call reads two numbers and changes which registers this process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn system_permits() -> bool {
    false
}

/// Configures this thread's tiles.
pub(super) fn begin() {
    // SAFETY: the tile is available: see `available`. The configuration is 64 valid bytes.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, preserves_flags, readonly));
    }
}

/// Empties this thread's tiles, so that switching threads costs nothing more.
pub(super) fn end() {
    // SAFETY: the tile is available: see `available`.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
}

/// See [`super::Tile::sums`], which has checked the lengths.
pub(super) fn sums(operands: &Operands<'_>, sums: &mut [i32]) {
    let depth = operands.depth;
    let panel = depth * PANEL;
    let panels = operands.panels();
    // SAFETY: weights hold `panels` panels, activations whole groups of 16 rows, and the sums 32 rows of 64 columns.
    unsafe {
        let weights = operands.weights.as_ptr();
        let values = operands.activations.as_ptr();
        let out = sums.as_mut_ptr();
        if operands.rows <= TILE_ROWS {
            if panels == 4 {
                return one_by_four(weights, values, depth, out);
            }
            for index in 0..panels {
                one_by_one(weights.add(index * panel), values, depth, out.add(index * PANEL));
            }
            return;
        }
        let mut index = 0;
        while index + 1 < panels {
            two_by_two(weights.add(index * panel), values, depth, out.add(index * PANEL));
            index += 2;
        }
        if index < panels {
            let (weights, out) = (weights.add(index * panel), out.add(index * PANEL));
            one_by_one(weights, values, depth, out);
            one_by_one(weights, values.add(TILE_ROWS * depth), depth, out.add(TILE_ROWS * STRIDE));
        }
    }
}

/// Asks for 1,024 bytes of weights at a register's address plus `{ahead}`, to be in the second cache when they are read.
macro_rules! ask {
    ($register:literal, $($line:literal)*) => {
        concat!($("prefetcht1 [{", $register, "} + {ahead} + ", $line, "]\n"),*)
    };
    ($register:literal) => {
        ask!($register, 0 64 128 192 256 320 384 448 512 576 640 704 768 832 896 960)
    };
}

/// 32 rows times two panels.
///
/// # Safety
/// Two panels, 32 rows of values and of sums; the thread's tiles are configured.
unsafe fn two_by_two(weights: *const u8, values: *const u8, depth: usize, out: *mut i32) {
    // SAFETY: each round reads 64 summands of two panels and 32 rows; there are `depth / 64` rounds.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm6, [{first} + {line}]",
            "tileloadd tmm4, [{upper} + {depth}]",
            "tdpbusd tmm0, tmm4, tmm6",
            ask!("first"),
            "tileloadd tmm7, [{second} + {line}]",
            "tdpbusd tmm1, tmm4, tmm7",
            ask!("second"),
            "tileloadd tmm5, [{lower} + {depth}]",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {first}, 1024",
            "add {second}, 1024",
            "add {upper}, 64",
            "add {lower}, 64",
            "dec {rounds}",
            "jnz 2b",
            "tilestored [{out} + {stride}], tmm0",
            "tilestored [{out} + {stride} + 64], tmm1",
            "tilestored [{below} + {stride}], tmm2",
            "tilestored [{below} + {stride} + 64], tmm3",
            first = inout(reg) weights => _,
            second = inout(reg) weights.add(depth * PANEL) => _,
            upper = inout(reg) values => _,
            lower = inout(reg) values.add(TILE_ROWS * depth) => _,
            rounds = inout(reg) depth / 64 => _,
            line = in(reg) 64_usize,
            ahead = in(reg) 2 * depth * PANEL,
            depth = in(reg) depth,
            out = in(reg) out,
            below = in(reg) out.add(TILE_ROWS * STRIDE),
            stride = in(reg) SUMS_STRIDE,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// 16 rows times four panels.
///
/// # Safety
/// Four panels, 16 rows of values and of sums; the thread's tiles are configured.
unsafe fn one_by_four(weights: *const u8, values: *const u8, depth: usize, out: *mut i32) {
    // SAFETY: each round reads 64 summands of four panels and 16 rows; there are `depth / 64` rounds. The
    // panels behind these are asked for, which is harmless where there are none.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{values} + {depth}]",
            "tileloadd tmm5, [{first} + {line}]",
            "tdpbusd tmm0, tmm4, tmm5",
            ask!("first"),
            "tileloadd tmm6, [{second} + {line}]",
            "tdpbusd tmm1, tmm4, tmm6",
            ask!("second"),
            "tileloadd tmm7, [{third} + {line}]",
            "tdpbusd tmm2, tmm4, tmm7",
            ask!("third"),
            "tileloadd tmm5, [{fourth} + {line}]",
            "tdpbusd tmm3, tmm4, tmm5",
            ask!("fourth"),
            "add {first}, 1024",
            "add {second}, 1024",
            "add {third}, 1024",
            "add {fourth}, 1024",
            "add {values}, 64",
            "dec {rounds}",
            "jnz 2b",
            "tilestored [{out} + {stride}], tmm0",
            "tilestored [{out} + {stride} + 64], tmm1",
            "tilestored [{out} + {stride} + 128], tmm2",
            "tilestored [{out} + {stride} + 192], tmm3",
            first = inout(reg) weights => _,
            second = inout(reg) weights.add(depth * PANEL) => _,
            third = inout(reg) weights.add(2 * depth * PANEL) => _,
            fourth = inout(reg) weights.add(3 * depth * PANEL) => _,
            values = inout(reg) values => _,
            rounds = inout(reg) depth / 64 => _,
            line = in(reg) 64_usize,
            ahead = in(reg) 4 * depth * PANEL,
            depth = in(reg) depth,
            out = in(reg) out,
            stride = in(reg) SUMS_STRIDE,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// 16 rows times one panel.
///
/// # Safety
/// One panel, 16 rows of values and of sums; the thread's tiles are configured.
unsafe fn one_by_one(weights: *const u8, values: *const u8, depth: usize, out: *mut i32) {
    // SAFETY: each round reads 64 summands of one panel and 16 rows; there are `depth / 64` rounds.
    unsafe {
        asm!(
            "tilezero tmm0",
            "2:",
            "tileloadd tmm4, [{values} + {depth}]",
            "tileloadd tmm5, [{weights} + {line}]",
            "tdpbusd tmm0, tmm4, tmm5",
            "add {weights}, 1024",
            "add {values}, 64",
            "dec {rounds}",
            "jnz 2b",
            "tilestored [{out} + {stride}], tmm0",
            weights = inout(reg) weights => _,
            values = inout(reg) values => _,
            rounds = inout(reg) depth / 64 => _,
            line = in(reg) 64_usize,
            depth = in(reg) depth,
            out = in(reg) out,
            stride = in(reg) SUMS_STRIDE,
            out("tmm0") _, out("tmm4") _, out("tmm5") _,
            options(nostack),
        );
    }
}

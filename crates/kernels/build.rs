//! Compiles the C++ in `src` against the headers of the libtorch that the bindings link.

use std::path::Path;

const SOURCES: [&str; 9] =
    ["attention", "dropout", "gate", "loss", "memory", "norm", "optimiser", "place", "rows"];

#[allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a build script fails loudly, and talks to cargo by its environment and its output"
)]
fn main() {
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    // torch-sys tells its direct dependents where it found the libraries; the headers stand beside them.
    let libraries = std::env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where libtorch is");
    let beside = Path::new(&libraries).parent().expect("libtorch's libraries are in a folder").to_owned();
    let include = std::env::var_os("LIBTORCH_INCLUDE").map_or(beside, Into::into).join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        // Whatever the profile: without optimisation a step would take several times as long.
        .opt_level(3)
        .flag("-fopenmp")
        // The same bits for every instruction set, and square roots and comparisons that can be vectors.
        .flag("-ffp-contract=off")
        .flag("-fno-math-errno")
        .flag("-fno-trapping-math")
        .flag("-isystem")
        .flag(&include)
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include"))
        .files(SOURCES.map(|name| Path::new("src").join(name).with_extension("cpp")))
        .compile("distillery_step");
    // After this crate's own objects, so that the linker still looks for what they need.
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");
    println!("cargo:rustc-link-lib=dylib=gomp");
}

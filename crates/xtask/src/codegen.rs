//! `cargo xtask codegen [--check]`: the gRPC code of `proto/`, checked in, so that nobody needs protoc.

use anyhow::{Context, bail};
use prost::Message;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the generated code lies.
const OUT: &str = "crates/wire/src/gen";

/// Writes the generated code, or checks that it is what `proto/` says.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let check = match arguments.next().as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("codegen takes --check or nothing, not `{other}`"),
    };
    let root = crate::root()?;
    let generated = generate(&root)?;
    let out = root.join(OUT);
    for (name, bytes) in &generated {
        let path = out.join(name);
        if check {
            let present = fs::read(&path).with_context(|| format!("{} is missing", path.display()))?;
            if present != *bytes {
                bail!("{} is stale: run `cargo xtask codegen` and commit what it writes", path.display());
            }
        } else {
            fs::create_dir_all(&out)?;
            fs::write(&path, bytes)?;
        }
    }
    Ok(())
}

/// The generated files by name.
fn generate(root: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let proto = root.join("proto");
    let mut files: Vec<PathBuf> = fs::read_dir(proto.join("distillery/v1"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let descriptors = protox::compile(&files, [&proto])?;
    let folder = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .out_dir(folder.path())
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors.clone())?;
    let mut generated = BTreeMap::new();
    for entry in fs::read_dir(folder.path())? {
        let entry = entry?;
        generated.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
    }
    generated.insert("distillery.v1.bin".to_owned(), descriptors.encode_to_vec());
    Ok(generated)
}

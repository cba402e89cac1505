//! `cargo xtask codegen [--check]`: the gRPC code of `proto/`, checked in, so that builds need no protoc.

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the generated code lies.
const OUT: &str = "crates/wire/src/gen";

/// The folders of definitions in `proto/`: our own, and standard protocols.
const FOLDERS: &[&str] = &["distillery/v1", "third_party/open_inference"];

/// Definitions that ours import and nothing is generated from: what a method is called by over HTTP.
const IMPORTED: &str = "third_party/googleapis";
/// The package of those.
const IMPORTED_PACKAGE: &str = "google.api";

/// Writes the generated code, or checks that it is what `proto/` says.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let check = match arguments.next().as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("codegen takes --check or nothing, not `{other}`"),
    };
    let root = crate::repository::root()?;
    let generated = generate(&root.join("proto"))?;
    let out = root.join(OUT);
    if check {
        return check_fresh(&generated, &out);
    }
    fs::create_dir_all(&out)?;
    for (name, bytes) in &generated {
        fs::write(out.join(name), bytes)?;
    }
    Ok(())
}

fn check_fresh(generated: &BTreeMap<String, Vec<u8>>, out: &Path) -> anyhow::Result<()> {
    for (name, bytes) in generated {
        let path = out.join(name);
        let present = fs::read(&path).with_context(|| format!("{} is missing", path.display()))?;
        if present != *bytes {
            bail!("{} is stale: run `cargo xtask codegen` and commit what it writes", path.display());
        }
    }
    Ok(())
}

/// The generated files by name, of the definitions under `proto`.
fn generate(proto: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(proto.join(folder))? {
            files.push(entry?.path());
        }
    }
    files.sort();
    let mut compiler = protox::Compiler::new([proto, &proto.join(IMPORTED)])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let folder = tempfile::tempdir()?;
    let mut descriptors = compiler.file_descriptor_set();
    descriptors.file.retain(|file| file.package() != IMPORTED_PACKAGE);
    tonic_prost_build::configure()
        .out_dir(folder.path())
        .emit_rerun_if_changed(false)
        .codec_path("crate::Codec")
        .compile_fds(descriptors)?;
    let mut generated = BTreeMap::new();
    for entry in fs::read_dir(folder.path())? {
        let entry = entry?;
        generated.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
    }
    // Encoded by the compiler: options of other packages, such as `google.api.http`, are kept.
    generated.insert("distillery.v1.bin".to_owned(), compiler.encode_file_descriptor_set());
    Ok(generated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_code_is_what_proto_says() {
        let root = crate::repository::root().unwrap();
        check_fresh(&generate(&root.join("proto")).unwrap(), &root.join(OUT)).unwrap();
    }

    #[test]
    fn a_changed_definition_is_noticed() {
        let root = crate::repository::root().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let imported = ["third_party/googleapis/google/api"];
        for below in FOLDERS.iter().chain(&imported) {
            let out = folder.path().join(below);
            fs::create_dir_all(&out).unwrap();
            for entry in fs::read_dir(root.join("proto").join(below)).unwrap() {
                let path = entry.unwrap().path();
                fs::copy(&path, out.join(path.file_name().unwrap())).unwrap();
            }
        }
        let models = folder.path().join("distillery/v1/models.proto");
        let changed = fs::read_to_string(&models).unwrap() + "\nmessage Added { string name = 1; }\n";
        fs::write(&models, changed).unwrap();
        let error = check_fresh(&generate(folder.path()).unwrap(), &root.join(OUT)).unwrap_err().to_string();
        assert!(error.contains("is stale: run `cargo xtask codegen`"), "{error}");
    }
}

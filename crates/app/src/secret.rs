//! Secrets, read from the environment or from files.

use anyhow::Context;
use domain::Secret;
use std::path::Path;

/// The content of `file`, else of the variable `env`; empty where neither is named, or the variable is not set.
///
/// # Errors
/// The file cannot be read.
#[allow(clippy::disallowed_methods, reason = "the composition root is where the environment is read")]
pub(crate) fn read(env: &str, file: &Path) -> anyhow::Result<Secret> {
    let text = if !file.as_os_str().is_empty() {
        std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?
    } else if env.is_empty() {
        String::new()
    } else {
        std::env::var(env).unwrap_or_default()
    };
    Ok(Secret::new(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_before_a_variable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "  s3cret\n").unwrap();
        let secret = read("PATH", &file).unwrap();
        assert_eq!(secret.expose(), "s3cret");
        assert!(!read("PATH", Path::new("")).unwrap().is_empty());
        assert!(read("", Path::new("")).unwrap().is_empty());
        assert!(read("", &folder.path().join("absent")).is_err());
    }
}

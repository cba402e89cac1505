//! Secrets: from the environment or a file, in no print.

use anyhow::Context;
use std::fmt;
use std::path::Path;

/// Words that are never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

impl Secret {
    /// The words themselves, for the one place they belong in.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What `file` holds, else what the variable `env` does; empty where neither is named, or the variable is not set.
    ///
    /// # Errors
    /// The file cannot be read.
    #[allow(clippy::disallowed_methods, reason = "the composition root is where the environment is read")]
    pub(crate) fn read(env: &str, file: &Path) -> anyhow::Result<Self> {
        let text = if !file.as_os_str().is_empty() {
            std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?
        } else if env.is_empty() {
            String::new()
        } else {
            std::env::var(env).unwrap_or_default()
        };
        Ok(Self(text.trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_before_a_variable_and_nothing_prints() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "  s3cret\n").unwrap();
        let secret = Secret::read("PATH", &file).unwrap();
        assert_eq!(secret.expose(), "s3cret");
        assert!(!format!("{secret:?}").contains("s3cret"));
        assert!(!Secret::read("PATH", Path::new("")).unwrap().is_empty());
        assert!(Secret::read("", Path::new("")).unwrap().is_empty());
        assert!(Secret::read("", &folder.path().join("absent")).is_err());
    }
}

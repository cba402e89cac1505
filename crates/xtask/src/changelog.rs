//! `CHANGELOG.md` in the form of Keep a Changelog 1.1.0: a section per release, newest first, changes grouped by kind.

use anyhow::{Context, bail};
use cargo_metadata::semver::Version;

const UNRELEASED: &str = "## [Unreleased]";
/// The kinds of change, in the order they stand in.
const KINDS: [&str; 6] = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];

/// What is wrong with the form, line by line.
pub(crate) fn faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |line: usize, what: String| faults.push(format!("CHANGELOG.md:{}: {what}", line + 1));
    let mut releases = 0;
    let mut kind: Option<&str> = None;
    for (number, line) in text.lines().enumerate() {
        if let Some(heading) = line.strip_prefix("## ") {
            let sound = if releases == 0 { line == UNRELEASED } else { released(heading).is_some() };
            if !sound {
                fault(
                    number,
                    format!("`{line}`: `{UNRELEASED}` comes first, then `## [1.2.3] - 2026-01-31`"),
                );
            }
            releases += 1;
            kind = None;
        } else if let Some(heading) = line.strip_prefix("### ") {
            if !KINDS.contains(&heading) {
                fault(number, format!("`{line}`: changes are {}", KINDS.join(", ")));
            }
            kind = Some(heading);
        } else if releases > 0 && !line.is_empty() {
            if kind.is_none() {
                fault(number, "a change stands under its kind, such as `### Added`".to_owned());
            }
            if !line.starts_with("- ") {
                fault(number, "a change is one line that starts with `- `".to_owned());
            }
        }
    }
    if releases == 0 {
        fault(0, format!("`{UNRELEASED}` is missing"));
    }
    faults
}

/// The text after a release: what was unreleased belongs to the version.
pub(crate) fn release(text: &str, version: &Version, date: &str) -> anyhow::Result<String> {
    let (before, after) =
        text.split_once(UNRELEASED).with_context(|| format!("CHANGELOG.md has no `{UNRELEASED}`"))?;
    let unreleased = after.split("\n## ").next().unwrap_or_default();
    if !unreleased.lines().any(|line| line.starts_with("- ")) {
        bail!("CHANGELOG.md: nothing is unreleased");
    }
    if versions(text).contains(version) {
        bail!("CHANGELOG.md: {version} is released already");
    }
    Ok(format!("{before}{UNRELEASED}\n\n## [{version}] - {date}{after}"))
}

/// The released versions, as they stand.
pub(crate) fn versions(text: &str) -> Vec<Version> {
    text.lines().filter_map(|line| released(line.strip_prefix("## ")?)).collect()
}

/// The version of `[1.2.3] - 2026-01-31`.
fn released(heading: &str) -> Option<Version> {
    let (version, date) = heading.strip_prefix('[')?.split_once("] - ")?;
    let form = |(place, byte): (usize, u8)| {
        if matches!(place, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() }
    };
    if date.len() != 10 || !date.bytes().enumerate().all(form) {
        return None;
    }
    Version::parse(version).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "# Changelog\n\nText.\n\n## [Unreleased]\n\n### Added\n\n- A verb.\n\n### Fixed\n\n- A fault.\n\n\
                         ## [0.1.0] - 2026-01-31\n\n### Added\n\n- All of it.\n";

    #[test]
    fn the_form_is_checked_line_by_line() {
        assert_eq!(faults(SOUND), Vec::<String>::new());
        let check = |from: &str, to: &str, expected: &str| {
            let faults = faults(&SOUND.replacen(from, to, 1));
            assert!(faults.len() == 1 && faults[0].contains(expected), "{from} -> {to}: {faults:?}");
        };
        check(
            "## [Unreleased]",
            "## 0.2.0, unreleased",
            "CHANGELOG.md:5: `## 0.2.0, unreleased`: `## [Unreleased]` comes first",
        );
        check("## [0.1.0] - 2026-01-31", "## [0.1.0]", "CHANGELOG.md:15: `## [0.1.0]`");
        check("2026-01-31", "31.01.2026", "CHANGELOG.md:15:");
        check("[0.1.0]", "[0.1]", "CHANGELOG.md:15:");
        check("### Fixed", "### Bugs", "CHANGELOG.md:11: `### Bugs`: changes are Added, Changed");
        check("### Added\n\n", "", "CHANGELOG.md:7: a change stands under its kind");
        check("- A fault.", "A fault.", "CHANGELOG.md:13: a change is one line");
        check(SOUND, "# Changelog\n", "`## [Unreleased]` is missing");
    }

    #[test]
    fn a_release_takes_what_is_unreleased() {
        let version = Version::new(0, 2, 0);
        let after = release(SOUND, &version, "2026-11-26").unwrap();
        assert!(
            after.contains("## [Unreleased]\n\n## [0.2.0] - 2026-11-26\n\n### Added\n\n- A verb.\n"),
            "{after}"
        );
        assert_eq!(faults(&after), Vec::<String>::new());
        assert_eq!(versions(&after), [version, Version::new(0, 1, 0)]);
        let again = release(&after, &Version::new(0, 3, 0), "2026-11-27").unwrap_err().to_string();
        assert!(again.contains("nothing is unreleased"), "{again}");
        let twice = release(SOUND, &Version::new(0, 1, 0), "2026-11-27").unwrap_err().to_string();
        assert!(twice.contains("0.1.0 is released already"), "{twice}");
    }
}

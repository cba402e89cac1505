//! How the paper's released code reads a completion: kept to the letter, so that its figures can be compared.

use super::PaperDataset;

/// The label that the released code reads; `None` where it fails.
///
/// It cuts at the first `Q:` or `Premise:`, wants the marker exactly once, and takes: for an equation what stands from
/// the first `(` to the last `)` of a line, which mangles `(12 - 2) - 7`; for a choice what stands between the first
/// `(x)` and the next; for the others the rest.
pub(super) fn label(dataset: PaperDataset, completion: &str) -> Option<String> {
    let (stop, marker) = match dataset {
        PaperDataset::Svamp => ("Q:", "The answer is"),
        PaperDataset::Cqa => ("Q:", "So the answer is"),
        PaperDataset::Anli1 => ("Premise:", "So the answer is"),
        PaperDataset::Esnli => ("Premise:", "Answer:"),
    };
    let kept = completion.split(stop).next().unwrap_or_default().trim_end();
    let (_, after) = kept.split_once(marker)?;
    if after.contains(marker) {
        return None;
    }
    let label = match dataset {
        PaperDataset::Svamp => after.lines().find_map(bracketed)?,
        PaperDataset::Cqa => without_stop(after_letter(after)?),
        PaperDataset::Anli1 | PaperDataset::Esnli => without_stop(after),
    };
    Some(label.to_owned())
}

fn without_stop(text: &str) -> &str {
    let text = text.trim();
    text.strip_suffix('.').unwrap_or(text)
}

fn bracketed(line: &str) -> Option<&str> {
    let start = line.find('(')?;
    let end = line.rfind(')').filter(|end| *end > start)?;
    line.get(start..=end)
}

/// What stands between the first `(x)`, whatever character `x` is, and the next.
fn after_letter(text: &str) -> Option<&str> {
    let (_, rest) = lettered(text)?;
    Some(lettered(rest).map_or(rest, |(before, _)| before))
}

/// What stands before and after the first `(x)`.
fn lettered(text: &str) -> Option<(&str, &str)> {
    text.char_indices().filter(|(_, character)| *character == '(').find_map(|(place, _)| {
        let (before, from) = text.split_at_checked(place)?;
        let mut inside = from.strip_prefix('(')?.chars();
        inside.next().filter(|character| *character != '\n')?;
        Some((before, inside.as_str().strip_prefix(')')?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dataset: PaperDataset, completion: &str, expected: Option<&str>) {
        assert_eq!(label(dataset, completion).as_deref(), expected, "{completion:?}");
    }

    #[test]
    fn the_released_code_is_followed_to_the_letter() {
        let (svamp, cqa) = (PaperDataset::Svamp, PaperDataset::Cqa);
        check(svamp, "We. The answer is (84 / 2).\n\nQ: The answer is (1).", Some("(84 / 2)"));
        check(svamp, "We. The answer is (12 - 2) - 7.", Some("(12 - 2)"));
        check(svamp, "We. The answer is (1) and (2).", Some("(1) and (2)"));
        check(svamp, "We. The answer is 7.", None);
        check(svamp, "We. The answer is )(.", None);
        check(svamp, "We. The answer is (1). The answer is (1).", None);
        check(cqa, "We. So the answer is (d) body of water.\n\nQ: x", Some("body of water"));
        check(cqa, "We. So the answer is either (a) bank or (b) river.", Some("bank or"));
        check(cqa, "We. So the answer is (é) bank.", Some("bank"));
        check(cqa, "We. So the answer is one of these four.", None);
        check(PaperDataset::Anli1, "We. So the answer is neutral.\n\nPremise: x", Some("neutral"));
        check(PaperDataset::Esnli, "We.\nAnswer: neutral\n\nPremise: x", Some("neutral"));
    }
}

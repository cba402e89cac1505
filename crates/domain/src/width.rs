//! Full-width forms, as East Asian keyboards and models write ASCII.

/// `character` in its ASCII form, where it is a full-width form of one (`（` is `(`, `３` is `3`).
pub(crate) fn narrow(character: char) -> char {
    match u32::from(character) {
        0x3000 => ' ',
        code @ 0xFF01..=0xFF5E => code.checked_sub(0xFEE0).and_then(char::from_u32).unwrap_or(character),
        _ => character,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_width_forms_become_ascii() {
        let narrowed: String = "（３０　＋１２）～ é٣。".chars().map(narrow).collect();
        assert_eq!(narrowed, "(30 +12)~ é٣。");
    }
}

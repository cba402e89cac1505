//! Texts of a teacher's server without what its profile sends in secret. A server may repeat what it was sent: as it came, a
//! part of it, decoded, or encoded as it writes texts itself.

use crate::profile::Profile;
use base64::Engine;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{NO_PAD, STANDARD as PADDED};
use reqwest::Url;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// What stands in a secret's place.
const CUT: &str = "***";
/// Fewest bytes of a secret; what is shorter also stands in common words.
const SECRET_BYTES_MIN: usize = 4;
/// Fewest bytes of a secret that is cut from answers, too: nothing of this length, such as the value of a header that is no
/// secret at all, stands in an answer by chance.
const ANSWER_BYTES_MIN: usize = 16;
/// Fewest characters of a secret in base64.
const BASE64_MIN: usize = 10;
/// How often a text may have been encoded: JSON within JSON, percent signs within that.
const LAYERS: u8 = 3;

/// A text that is cut, in lower case and without white space.
#[derive(Clone, PartialEq, Eq)]
struct Form {
    characters: Vec<char>,
    /// Bytes of the secret that it is a form of.
    bytes: usize,
}

/// What no text may repeat. It does not print.
#[derive(Clone)]
pub(crate) struct Secrets {
    /// Every form.
    all: Forms,
    /// Those of secrets that are long enough to be cut from answers.
    long: Forms,
}

/// Forms, the longest first, and the characters that they begin with.
#[derive(Clone)]
struct Forms {
    forms: Vec<Form>,
    firsts: BTreeSet<char>,
}

impl Secrets {
    /// What a profile sends that nobody else may see: its key, the values of its headers, and those of its address's query.
    pub(crate) fn of(profile: &Profile) -> Self {
        let mut sent = vec![profile.api_key.expose().to_owned()];
        sent.extend(profile.headers.iter().map(|(_, value)| value.expose().to_owned()));
        if let Ok(url) = Url::parse(&profile.url) {
            sent.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        }
        let mut forms: Vec<Form> =
            sent.iter().flat_map(|text| parts(text)).flat_map(|part| forms(&part)).collect();
        // What a secret begins with may be another one.
        forms.sort_by_key(|form| std::cmp::Reverse(form.characters.len()));
        forms.dedup();
        let long = forms.iter().filter(|form| form.bytes >= ANSWER_BYTES_MIN).cloned().collect();
        Self { all: Forms::new(forms), long: Forms::new(long) }
    }

    /// Words of a server, without any secret, nor the beginning of one where they end.
    pub(crate) fn cut<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.all.cut(text, true)
    }

    /// An answer without any secret that is none by chance.
    pub(crate) fn cut_answer<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.long.cut(text, false)
    }
}

impl Forms {
    fn new(forms: Vec<Form>) -> Self {
        let firsts = forms.iter().filter_map(|form| form.characters.first()).copied().collect();
        Self { forms, firsts }
    }

    /// `text` without them; where `at_end`, without the beginning of one where it ends, too.
    fn cut<'a>(&self, text: &'a str, at_end: bool) -> Cow<'a, str> {
        // A server on this machine is sent none.
        if self.forms.is_empty() {
            return Cow::Borrowed(text);
        }
        let (mut out, mut kept, mut at) = (String::new(), 0, 0);
        while let Some(here) = text.get(at..).and_then(|rest| rest.chars().next()) {
            let layers = if matches!(here, '%' | '\\') { LAYERS } else { 0 };
            // Most characters begin no form: only where one does, all of them are tried.
            let begins = (0..=layers)
                .filter_map(|layer| character(text, at, layer))
                .any(|(first, _)| self.firsts.contains(&first.to_ascii_lowercase()));
            let end = begins.then(|| self.forms.iter().find_map(|form| form.end(text, at, at_end))).flatten();
            if let Some(end) = end {
                out.push_str(text.get(kept..at).unwrap_or_default());
                out.push_str(CUT);
                kept = end;
            }
            at = end.unwrap_or(at.saturating_add(here.len_utf8()));
        }
        if out.is_empty() && kept == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(text.get(kept..).unwrap_or_default());
        Cow::Owned(out)
    }
}

impl Form {
    fn new(text: &str, bytes: usize) -> Self {
        let characters = text.chars().filter(|character| !is_blank(*character));
        Self { characters: characters.map(|character| character.to_ascii_lowercase()).collect(), bytes }
    }

    /// Where this form ends that begins at `at`, written in any way; where `at_end`, the text may end before it does.
    fn end(&self, text: &str, at: usize, at_end: bool) -> Option<usize> {
        (0..=LAYERS).find_map(|layer| self.end_below(text, at, layer, at_end))
    }

    fn end_below(&self, text: &str, mut at: usize, layer: u8, at_end: bool) -> Option<usize> {
        for (place, wanted) in self.characters.iter().enumerate() {
            loop {
                let Some((character, next)) = character(text, at, layer) else {
                    return (at_end && place >= SECRET_BYTES_MIN).then_some(at);
                };
                if character.to_ascii_lowercase() == *wanted {
                    at = next;
                    break;
                }
                // A line break within it does not hide it.
                if place == 0 || !is_blank(character) {
                    return None;
                }
                at = next;
            }
        }
        Some(at)
    }
}

fn is_blank(character: char) -> bool {
    character.is_whitespace() || character.is_control()
}

/// The character at `at` after `layer` times of decoding, and where the next one begins; `None` at the end.
fn character(text: &str, at: usize, layer: u8) -> Option<(char, usize)> {
    let Some(below) = layer.checked_sub(1) else {
        let character = text.get(at..)?.chars().next()?;
        return Some((character, at.checked_add(character.len_utf8())?));
    };
    let (read, next) = character(text, at, below)?;
    let decoded = match read {
        '%' => code(text, next, below, 2),
        '\\' => match character(text, next, below) {
            Some(('u', digits)) => code(text, digits, below, 4),
            Some(('x', digits)) => code(text, digits, below, 2),
            Some(('b' | 'f' | 'n' | 'r' | 't', after)) => Some((' ', after)),
            Some((quoted @ ('"' | '\'' | '\\' | '/'), after)) => Some((quoted, after)),
            _ => None,
        },
        _ => None,
    };
    Some(decoded.unwrap_or((read, next)))
}

/// A character that is written as so many hexadecimal digits.
fn code(text: &str, mut at: usize, layer: u8, digits: usize) -> Option<(char, usize)> {
    let mut code = 0_u32;
    for _digit in 0..digits {
        let (digit, next) = character(text, at, layer)?;
        code = code.checked_mul(16)?.checked_add(digit.to_digit(16)?)?;
        at = next;
    }
    // Two digits are a byte, which is a character of its own only in ASCII.
    let decoded = char::from_u32(code).filter(|character| digits > 2 || character.is_ascii())?;
    Some((decoded, at))
}

/// A value that is sent, and what of it is secret by itself: what stands behind a scheme (`Bearer`, `Basic`), and the password
/// in a value of the scheme `Basic`.
fn parts(sent: &str) -> Vec<String> {
    let mut parts = vec![sent.to_owned()];
    if let Some((scheme, rest)) = sent.trim().split_once(char::is_whitespace) {
        let rest = rest.trim();
        parts.push(rest.to_owned());
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = PADDED.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            parts.extend(
                decoded.iter().flat_map(|pair| pair.split_once(':')).map(|(_, word)| word.to_owned()),
            );
            parts.extend(decoded);
        }
    }
    parts
}

/// A secret as it is, and within any text in base64; none where it is too short.
fn forms(secret: &str) -> Vec<Form> {
    let bytes = secret.len();
    if bytes < SECRET_BYTES_MIN {
        return Vec::new();
    }
    let mut forms = vec![Form::new(secret, bytes)];
    for alphabet in [&STANDARD, &URL_SAFE] {
        for before in 0..3 {
            let inner = within_base64(alphabet, secret, before);
            if inner.len() >= BASE64_MIN {
                forms.push(Form::new(&inner, bytes));
            }
        }
    }
    forms.sort_by(|left, right| left.characters.cmp(&right.characters));
    forms.dedup();
    forms
}

/// The characters that stand for `secret` alone in the base64 of a text that has it behind `before` bytes, and on.
fn within_base64(alphabet: &Alphabet, secret: &str, before: usize) -> String {
    let mut text = vec![0; before];
    text.extend_from_slice(secret.as_bytes());
    let written = GeneralPurpose::new(alphabet, NO_PAD).encode(&text);
    // The last character has bits of what follows, as the first ones have of what stands before.
    let whole = text.len().saturating_mul(8) / 6;
    written.chars().take(whole).skip(before.saturating_mul(8).div_ceil(6)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Provider;
    use domain::Secret;

    const KEY: &str = "sk-4f7a9b2c+/8e1d60c3";

    fn secrets(header: &str) -> Secrets {
        let url = "http://127.0.0.1:1/v1?token=query-c05b%377c1";
        Secrets::of(&Profile {
            api_key: Secret::new(KEY),
            headers: vec![("x-gateway".to_owned(), Secret::new(header))],
            ..Profile::new("test", Provider::OpenAiChat, url, "small")
        })
    }

    #[test]
    fn a_secret_is_found_however_it_is_written() {
        let secrets = secrets("Basic dXNlcjpwYXNzLTgzZDFlNnJ0bTI=");
        let coded = |text: &str, form: fn(char) -> String| text.chars().map(form).collect::<String>();
        let percent: fn(char) -> String = |character| format!("%{:02x}", u32::from(character));
        let unicode: fn(char) -> String = |character| format!("\\u{:04X}", u32::from(character));
        let twice: fn(char) -> String = |character| format!("\\\\u{:04x}", u32::from(character));
        let base64 = |text: &str| PADDED.encode(text);
        for written in [
            KEY.to_owned(),
            KEY.to_uppercase(),
            KEY.replace('+', "%2B").replace('/', "%2f"),
            KEY.replace('+', "%252B").replace('/', "\\/"),
            KEY.replace("9b", "\\u0039b"),
            KEY.replace("9b", "9\\nb"),
            KEY.replace("9b", "9\n  b"),
            coded(KEY, percent),
            coded(KEY, unicode),
            coded(KEY, twice),
            "query-c05b77c1".to_owned(),
            "query-c05b%377c1".to_owned(),
            "dXNlcjpwYXNzLTgzZDFlNnJ0bTI=".to_owned(),
            "pass-83d1e6rtm2".to_owned(),
            "user:pass-83d1e6rtm2".to_owned(),
        ] {
            let cut = secrets.cut(&format!("it said [{written}], and no more")).into_owned();
            assert!(cut.starts_with("it said [***") && cut.ends_with("], and no more"), "{written}: {cut}");
            assert!(cut.len() < 32, "{written}: {cut}");
        }
        for text in [base64(KEY), base64(&format!("Bearer {KEY}")), base64(&format!("u:{KEY}"))] {
            let cut = secrets.cut(&text).into_owned();
            assert!(cut.contains(CUT) && cut.len() < text.len() - 20, "{text}: {cut}");
        }
        let beginning = &KEY[..9];
        assert_eq!(secrets.cut(&format!("the end: {beginning}")), "the end: ***");
        assert_eq!(secrets.cut(&format!("{beginning} alone")), format!("{beginning} alone"));
    }

    #[test]
    fn answers_lose_what_is_secret_and_nothing_else() {
        let secrets = secrets("2023-06-01");
        let check = |text: &str, expected: &str| assert_eq!(secrets.cut_answer(text), expected);
        check(
            "on 2023-06-01 it was 100 % of \\u0041 %41 \u{e9}\u{1F980}",
            "on 2023-06-01 it was 100 % of \\u0041 %41 \u{e9}\u{1F980}",
        );
        check(&format!("{{\"content\": \"{KEY}\"}}"), "{\"content\": \"***\"}");
        check("", "");
        assert_eq!(secrets.cut("on 2023-06-01"), "on ***");
    }
}

//! When the gold label is given as a hint.

use crate::named::Value;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// When the teacher is given the gold label (rationalisation, Zelikman et al. 2022).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Hint {
    /// Never.
    #[default]
    Off,
    /// Once more, where no sample agrees with it.
    After,
    /// At once: every sample is asked with it.
    First,
}

impl Hint {
    /// Every value.
    pub const ALL: &'static [Self] = &[Self::Off, Self::After, Self::First];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::After => "after",
            Self::First => "first",
        }
    }

    /// Whether hints are given at all.
    pub fn is_on(self) -> bool {
        self != Self::Off
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Value for Hint {
    const KIND: &'static str = "one of";

    fn choices() -> Vec<(&'static str, &'static str)> {
        vec![
            ("off", "Never; also `false`."),
            ("after", "Once more, where no sample agrees with it; also `true`."),
            ("first", "At once: every sample is asked with it."),
        ]
    }

    /// As 0.1.0 wrote it, when a hint was on or off: request ids stay the same.
    fn text(&self) -> String {
        match self {
            Self::Off => "false".to_owned(),
            Self::After => "true".to_owned(),
            Self::First => "first".to_owned(),
        }
    }
}

impl Serialize for Hint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

struct HintVisitor;

impl Visitor<'_> for HintVisitor {
    type Value = Hint;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("\"off\", \"after\", \"first\", true or false")
    }

    fn visit_bool<E: Error>(self, on: bool) -> Result<Hint, E> {
        Ok(if on { Hint::After } else { Hint::Off })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Hint, E> {
        let known = Hint::ALL.iter().copied().find(|hint| hint.as_str() == text);
        known.ok_or_else(|| E::custom(format!("`{text}` is not one of: off, after, first")))
    }
}

impl<'de> Deserialize<'de> for Hint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HintVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_read_from_a_name_or_from_what_0_1_0_wrote() {
        for (text, expected) in [
            ("true", Some(Hint::After)),
            ("false", Some(Hint::Off)),
            ("\"off\"", Some(Hint::Off)),
            ("\"after\"", Some(Hint::After)),
            ("\"first\"", Some(Hint::First)),
            ("\"last\"", None),
            ("1", None),
        ] {
            assert_eq!(serde_json::from_str::<Hint>(text).ok(), expected, "{text}");
        }
        for hint in Hint::ALL {
            let text = serde_json::to_string(hint).unwrap();
            assert_eq!(serde_json::from_str::<Hint>(&text).unwrap(), *hint);
        }
    }
}

//! The keys that a type reads: what a file is checked against, so that an unknown key is refused with a suggestion.

use domain::Violation;
use domain::spec::suggestion;
use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use toml::{Table, Value};

/// Longest part of a wrong value that is shown, in characters.
const FOUND_CHARACTERS_MAX: usize = 80;

/// The keys of the struct `T`, as its own deserialisation names them; empty where `T` is not a struct.
pub(crate) fn known_keys<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // The probe keeps the keys and fails: there are no values to read.
    let _ = T::deserialize(Probe(&mut keys));
    keys
}

/// What is wrong with `key` where it is not one of `known`.
pub(crate) fn unknown_key<'a>(key: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if known.clone().into_iter().any(|known| known == key) {
        return None;
    }
    Some(match suggestion(key, known.clone()) {
        Some(near) => format!("is not a known key: did you mean `{near}`?"),
        None => format!("is not a known key: known are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    })
}

/// The keys of `table` that are not `known`.
pub(crate) fn unknown_keys(table: &Table, prefix: &str, known: &[&str]) -> Vec<Violation> {
    let unknown = |key: &String| {
        let message = unknown_key(key, known.iter().copied())?;
        Some(Violation::new(format!("{prefix}{key}"), message))
    };
    table.keys().filter_map(unknown).collect()
}

/// Whether a type takes the values of a table.
pub(crate) type Reads<'a> = dyn Fn(Table) -> Result<(), toml::de::Error> + 'a;

/// The keys of a table in a file, and what each of them takes.
pub(crate) struct Keys<'a> {
    /// What stands before a key in the name of its field.
    pub(crate) prefix: &'a str,
    /// The keys, with the least and the greatest number that they take.
    pub(crate) known: &'a [(&'a str, Option<(f64, f64)>)],
    /// Values that the type takes, in which those of the file are tried one by one.
    pub(crate) base: &'a Table,
}

impl Keys<'_> {
    /// The base with those values of `table` in it that `reads` takes. A key that is not known or is missing, and a value that is
    /// not taken, are added to `found`.
    pub(crate) fn sound(&self, table: Table, reads: &Reads<'_>, found: &mut Vec<Violation>) -> Table {
        let known: Vec<&str> = self.known.iter().map(|(key, _)| *key).collect();
        found.extend(unknown_keys(&table, self.prefix, &known));
        let mut sound = self.base.clone();
        for (key, range) in self.known {
            let mut alone = self.base.clone();
            let value = table.get(*key);
            match value {
                Some(value) => alone.insert((*key).to_owned(), value.clone()),
                None => alone.remove(*key),
            };
            let words = match (reads(alone), value) {
                (Ok(()), Some(value)) => {
                    sound.insert((*key).to_owned(), value.clone());
                    continue;
                }
                (Ok(()), None) => {
                    sound.remove(*key);
                    continue;
                }
                (Err(_), None) => format!("is missing: add `{key} = ...`"),
                (Err(error), Some(_)) => mistyped(error.message(), *range),
            };
            found.push(Violation::new(format!("{}{key}", self.prefix), words));
        }
        sound
    }
}

/// A value of the wrong type, as the deserialisation says it (`invalid type: string "many", expected u32`), in words of a user.
fn mistyped(said: &str, range: Option<(f64, f64)>) -> String {
    let said = said.lines().next().unwrap_or_default();
    let Some((found, expected)) = said.rsplit_once(", expected ") else { return said.to_owned() };
    let found = ["invalid type: ", "invalid value: ", "unknown variant "]
        .iter()
        .find_map(|start| found.strip_prefix(start))
        .unwrap_or(found);
    let shown: String = found.chars().take(FOUND_CHARACTERS_MAX).collect();
    let number = |what: &str| match range {
        Some((low, high)) => format!("{what} between {low} and {high}"),
        None => what.to_owned(),
    };
    let wanted = match expected {
        "u32" if range.is_none() => format!("an integer between 0 and {}", u32::MAX),
        "u64" if range.is_none() => "an integer from 0".to_owned(),
        "u32" | "u64" => number("an integer"),
        "f64" => number("a number"),
        "a boolean" => "true or false".to_owned(),
        "a string" => "text, in quotes".to_owned(),
        "a sequence" => "a list, in square brackets".to_owned(),
        other if other.starts_with("struct ") => "a table".to_owned(),
        other => other.to_owned(),
    };
    format!("is {shown}: write {wanted}")
}

/// What a value of TOML is, for a message.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}

struct Probe<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("a probe has no values"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_struct_names_its_keys() {
        assert_eq!(known_keys::<domain::task::AnswerPattern>(), ["marker", "shape"]);
        assert_eq!(known_keys::<String>(), [""; 0]);
        assert_eq!(unknown_key("marker", ["marker", "shape"]), None);
        let near = unknown_key("marke", ["marker", "shape"]).unwrap();
        assert_eq!(near, "is not a known key: did you mean `marker`?");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_said_in_words_of_a_user() {
        let range = Some((1.0, 1e7));
        for (said, range, expected) in [
            (
                "invalid type: string \"many\", expected u32",
                range,
                "is string \"many\": write an integer between 1 and 10000000",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                None,
                "is integer `-1`: write an integer between 0 and 4294967295",
            ),
            (
                "invalid type: string \"a, expected b\", expected f64",
                None,
                "is string \"a, expected b\": write a number",
            ),
            (
                "unknown variant `giant`, expected `tiny` or `mini`",
                None,
                "is `giant`: write `tiny` or `mini`",
            ),
            ("no words of its kind", None, "no words of its kind"),
        ] {
            assert_eq!(mistyped(said, range), expected);
        }
    }
}

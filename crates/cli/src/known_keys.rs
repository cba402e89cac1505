//! The keys that a type reads: what a file is checked against, so that an unknown key is refused with a suggestion.

use domain::Violation;
use domain::spec::suggestion;
use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use toml::{Table, Value};

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
}

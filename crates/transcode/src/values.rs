//! Texts of a path or a query as values of fields.

use crate::failure::Mistake;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage as _, Value};

/// Puts `text` into the field at `path`, its parts joined by dots; another element where the field is repeated.
pub(crate) fn set(message: &mut DynamicMessage, path: &str, text: &str) -> Result<(), Mistake> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let descriptor = message.descriptor();
    let field = descriptor.get_field_by_name(first).or_else(|| descriptor.get_field_by_json_name(first));
    let field = field.ok_or_else(|| {
        let names: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Mistake::new(path, format!("is no field of this call, which has: {known}"))
    })?;
    let Some(rest) = rest else { return set_here(message, &field, path, text) };
    let inner = message.get_field_mut(&field).as_message_mut();
    let inner = inner.ok_or_else(|| Mistake::new(path, format!("`{first}` has no fields")))?;
    set(inner, rest, text)
        .map_err(|mistake| Mistake::new(format!("{first}.{}", mistake.field), mistake.message))
}

fn set_here(
    message: &mut DynamicMessage,
    field: &FieldDescriptor,
    path: &str,
    text: &str,
) -> Result<(), Mistake> {
    let value = value(&field.kind(), text).map_err(|words| Mistake::new(path, words))?;
    if field.is_map() {
        return Err(Mistake::new(path, "goes into the body: it holds entries"));
    }
    if field.is_list() {
        if let Some(list) = message.get_field_mut(field).as_list_mut() {
            list.push(value);
        }
    } else {
        message.set_field(field, value);
    }
    Ok(())
}

fn value(kind: &Kind, text: &str) -> Result<Value, String> {
    let number = |words: &str| format!("`{text}` is not {words}");
    match kind {
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Bool => text.parse().map(Value::Bool).map_err(|_| number("true or false")),
        Kind::Double => text.parse().map(Value::F64).map_err(|_| number("a number")),
        Kind::Float => text.parse().map(Value::F32).map_err(|_| number("a number")),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            text.parse().map(Value::I32).map_err(|_| number("a whole number of 32 bits"))
        }
        Kind::Uint32 | Kind::Fixed32 => {
            text.parse().map(Value::U32).map_err(|_| number("a whole number from 0 to 4294967295"))
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            text.parse().map(Value::I64).map_err(|_| number("a whole number"))
        }
        Kind::Uint64 | Kind::Fixed64 => {
            text.parse().map(Value::U64).map_err(|_| number("a whole number from 0"))
        }
        Kind::Enum(names) => {
            let known = names.get_value_by_name(text).map(|value| value.number());
            let known = known.or_else(|| text.parse().ok().filter(|known| names.get_value(*known).is_some()));
            known.map(Value::EnumNumber).ok_or_else(|| {
                let list: Vec<String> = names.values().map(|value| value.name().to_owned()).collect();
                number(&format!("one of {}", list.join(", ")))
            })
        }
        Kind::Bytes | Kind::Message(_) => Err("goes into the body, or is named by its parts".to_owned()),
    }
}

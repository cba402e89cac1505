//! The document of the API for people and programs: OpenAPI 3.1 (<https://spec.openapis.org/oas/v3.1.0>), with the comments
//! of the definitions.

use crate::routes::{Api, Route};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The document of those services of `api` that `serves` names.
pub fn openapi(api: &Api, version: &str, serves: impl Fn(&str) -> bool) -> Value {
    let mut schemas = Schemas::default();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for (place, route) in api.routes().iter().enumerate().filter(|(_, route)| serves(&route.service())) {
        let operation = operation(route, place, &mut schemas);
        paths.entry(route.text.clone()).or_default().insert(route.verb.to_ascii_lowercase(), operation);
    }
    schemas.done.insert("google.rpc.Status".to_owned(), status());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Distillery",
            "version": version,
            "description": "The API of Distillery over HTTP: the calls of its gRPC services, as JSON. A deadline is given in the header `grpc-timeout`, such as `5S` or `250m`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.done,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn status() -> Value {
    json!({
        "type": "object",
        "description": "Why a call failed.",
        "properties": {
            "code": {"type": "integer", "description": "A code of gRPC, such as 3 for INVALID_ARGUMENT."},
            "message": {"type": "string", "description": "What is wrong, where, and what to do."},
            "details": {"type": "array", "items": {"type": "object"}, "description": "Wrong fields, or when to retry."},
        },
        "required": ["code", "message"],
    })
}

fn operation(route: &Route, place: usize, schemas: &mut Schemas) -> Value {
    let method = &route.method;
    let service = method.parent_service();
    let words = comment_of_method(method);
    let answer = schemas.reference(&method.output());
    let content = match route.is_streamed() {
        true => json!({"application/x-ndjson": {"schema": answer}, "text/event-stream": {"schema": answer}}),
        false => json!({"application/json": {"schema": answer}}),
    };
    let described = if route.is_streamed() { "A stream of messages, one a line." } else { "The answer." };
    let failure = json!({
        "description": "It failed.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/google.rpc.Status"}}},
    });
    let mut operation = json!({
        "operationId": format!("{}_{}_{place}", service.name(), method.name()),
        "tags": [service.name()],
        "description": words,
        "parameters": parameters(route, schemas),
        "responses": {"200": {"description": described, "content": content}, "default": failure},
    });
    if route.has_body
        && let Some(operation) = operation.as_object_mut()
    {
        let kind = if method.is_client_streaming() { "application/x-ndjson" } else { "application/json" };
        let schema = schemas.reference(&method.input());
        operation.insert(
            "requestBody".to_owned(),
            json!({"required": true, "content": {kind: {"schema": schema}}}),
        );
    }
    operation
}

/// The fields of the path; and, without a body, those of the query.
fn parameters(route: &Route, schemas: &mut Schemas) -> Vec<Value> {
    let input = route.method.input();
    let in_path: Vec<&str> = route.template.names().collect();
    let mut found: Vec<Value> = in_path
        .iter()
        .map(|name| {
            let schema = field_at(&input, name).map_or(json!({"type": "string"}), |field| schemas.of(&field));
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect();
    if !route.has_body {
        for (name, field) in scalars(&input) {
            if !in_path.contains(&name.as_str()) {
                let schema = schemas.of(&field);
                found.push(json!({"name": name, "in": "query", "required": false, "schema": schema}));
            }
        }
    }
    found
}

fn field_at(message: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    match path.split_once('.') {
        None => message.get_field_by_name(path),
        Some((first, rest)) => match message.get_field_by_name(first)?.kind() {
            Kind::Message(inner) => field_at(&inner, rest),
            _ => None,
        },
    }
}

/// The fields that a query can name: scalars, and those of messages one level below.
fn scalars(message: &MessageDescriptor) -> Vec<(String, FieldDescriptor)> {
    let mut found = Vec::new();
    for field in message.fields() {
        match field.kind() {
            Kind::Message(inner) if !field.is_list() => {
                let below = inner.fields().filter(|below| !matches!(below.kind(), Kind::Message(_)));
                found.extend(below.map(|below| (format!("{}.{}", field.name(), below.name()), below)));
            }
            Kind::Message(_) => {}
            _ => found.push((field.name().to_owned(), field)),
        }
    }
    found
}

/// The schemas of messages and enums, each made once.
#[derive(Default)]
struct Schemas {
    done: BTreeMap<String, Value>,
}

impl Schemas {
    fn reference(&mut self, message: &MessageDescriptor) -> Value {
        let name = message.full_name().to_owned();
        match name.as_str() {
            "google.protobuf.Timestamp" => return json!({"type": "string", "format": "date-time"}),
            "google.protobuf.Duration" => return json!({"type": "string", "examples": ["1.5s"]}),
            _ => {}
        }
        if !self.done.contains_key(&name) {
            // A message may hold itself: it stands there before its fields are seen.
            self.done.insert(name.clone(), Value::Null);
            let properties: Map<String, Value> =
                message.fields().map(|field| (field.json_name().to_owned(), self.of(&field))).collect();
            let schema = json!({
                "type": "object",
                "description": comment_of(message.parent_file().file_descriptor_proto(), message.path()),
                "properties": properties,
            });
            self.done.insert(name.clone(), schema);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    fn names(&mut self, names: &EnumDescriptor) -> Value {
        let name = names.full_name().to_owned();
        let list: Vec<String> = names.values().map(|value| value.name().to_owned()).collect();
        self.done.entry(name.clone()).or_insert_with(|| json!({"type": "string", "enum": list}));
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    /// The schema of a field, with its comment.
    fn of(&mut self, field: &FieldDescriptor) -> Value {
        let one = if field.is_map() {
            json!({"type": "object"})
        } else {
            match field.kind() {
                Kind::Message(message) => self.reference(&message),
                Kind::Enum(names) => self.names(&names),
                Kind::Bool => json!({"type": "boolean"}),
                Kind::String => json!({"type": "string"}),
                Kind::Bytes => json!({"type": "string", "contentEncoding": "base64"}),
                Kind::Double | Kind::Float => json!({"type": "number"}),
                Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Uint32 | Kind::Fixed32 => {
                    json!({"type": "integer"})
                }
                // As proto3 writes numbers of 64 bits, which JavaScript cannot hold; read as numbers, too.
                Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => {
                    json!({"type": ["string", "integer"], "format": "int64"})
                }
            }
        };
        let mut schema = if field.is_list() { json!({"type": "array", "items": one}) } else { one };
        let words = comment_of(field.parent_message().parent_file().file_descriptor_proto(), field.path());
        if let Some(schema) = schema.as_object_mut()
            && !words.is_empty()
        {
            schema.insert("description".to_owned(), Value::String(words));
        }
        schema
    }
}

fn comment_of_method(method: &MethodDescriptor) -> String {
    comment_of(method.parent_service().parent_file().file_descriptor_proto(), method.path())
}

/// The comment before what stands at `path` of a file.
fn comment_of(file: &prost_reflect::prost_types::FileDescriptorProto, path: &[i32]) -> String {
    let places = file.source_code_info.iter().flat_map(|info| &info.location);
    let found = places.into_iter().find(|place| place.path == path);
    let words = found.map(|place| place.leading_comments()).unwrap_or_default();
    words.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
}

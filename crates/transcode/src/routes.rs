//! Which call a method and a path of HTTP mean, and its messages as JSON and back.

use crate::failure::{Mistake, Unusable};
use crate::template::{Template, decoded};
use crate::values;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor,
    SerializeOptions, Value,
};

/// The option that says how a method is called over HTTP.
const OPTION: &str = "google.api.http";
/// The methods of HTTP that it knows by name.
const METHODS: &[&str] = &["get", "put", "post", "delete", "patch"];

/// Everything that can be called.
#[derive(Debug)]
pub struct Api {
    routes: Vec<Route>,
}

/// One way to call a method.
#[derive(Debug)]
pub struct Route {
    pub(crate) verb: &'static str,
    pub(crate) text: String,
    pub(crate) template: Template,
    pub(crate) has_body: bool,
    pub(crate) method: MethodDescriptor,
}

/// What a method and a path mean.
#[derive(Debug)]
pub enum Found<'a> {
    /// This call.
    Call(Call<'a>),
    /// The path takes these methods of HTTP, and not this one.
    Otherwise(Vec<&'static str>),
    /// There is no such path.
    Nothing,
}

/// A route with the fields that stand in its path.
#[derive(Debug)]
pub struct Call<'a> {
    /// The route.
    pub route: &'a Route,
    fields: Vec<(String, String)>,
}

impl Api {
    /// What the descriptors, an encoded `FileDescriptorSet` with `google/api/http.proto`, say of HTTP.
    ///
    /// # Errors
    /// They cannot be read, or a path is none.
    pub fn new(descriptors: &[u8]) -> Result<Self, Unusable> {
        let pool = DescriptorPool::decode(descriptors).map_err(|error| Unusable(error.to_string()))?;
        let mut routes = Vec::new();
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let Some(option) = pool.get_extension_by_name(OPTION) else { continue };
            let options = method.options();
            if !options.has_extension(&option) {
                continue;
            }
            if let Value::Message(rule) = options.get_extension(&option).as_ref() {
                add(&mut routes, &method, rule)?;
            }
        }
        Ok(Self { routes })
    }

    /// All routes, in the order of the descriptors.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// What `verb` and `path` mean.
    pub fn find(&self, verb: &str, path: &str) -> Found<'_> {
        let mut others = Vec::new();
        for route in &self.routes {
            let Some(fields) = route.template.fields(path) else { continue };
            if route.verb == verb {
                let fields = fields.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
                return Found::Call(Call { route, fields });
            }
            others.push(route.verb);
        }
        if others.is_empty() { Found::Nothing } else { Found::Otherwise(others) }
    }
}

fn add(routes: &mut Vec<Route>, method: &MethodDescriptor, rule: &DynamicMessage) -> Result<(), Unusable> {
    let text_of = |name: &str| {
        let value = rule.get_field_by_name(name)?;
        value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    for name in METHODS {
        let Some(text) = text_of(name) else { continue };
        let body = text_of("body").unwrap_or_default();
        if !matches!(body.as_str(), "" | "*") {
            return Err(Unusable(format!(
                "{}: a body is the whole message, `*`, or none",
                method.full_name()
            )));
        }
        let verb = match *name {
            "get" => "GET",
            "put" => "PUT",
            "post" => "POST",
            "delete" => "DELETE",
            _ => "PATCH",
        };
        let template = Template::parse(&text)?;
        routes.push(Route { verb, text, template, has_body: body == "*", method: method.clone() });
    }
    let more = rule.get_field_by_name("additional_bindings");
    for binding in more.as_deref().and_then(Value::as_list).unwrap_or_default() {
        if let Value::Message(rule) = binding {
            add(routes, method, rule)?;
        }
    }
    Ok(())
}

impl Route {
    /// `/package.Service/Method`.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.method.parent_service().full_name(), self.method.name())
    }

    /// `package.Service`.
    pub fn service(&self) -> String {
        self.method.parent_service().full_name().to_owned()
    }

    /// Whether its answer is a stream of messages.
    pub fn is_streamed(&self) -> bool {
        self.method.is_server_streaming()
    }

    /// Whether it has a body.
    pub fn has_body(&self) -> bool {
        self.has_body
    }

    /// The message type of its answer, which reads its JSON.
    pub fn answer(&self) -> Answer {
        Answer(self.method.output())
    }
}

/// The type of an answer.
#[derive(Debug, Clone)]
pub struct Answer(MessageDescriptor);

impl Answer {
    /// The JSON of an encoded message.
    ///
    /// # Errors
    /// It is no such message.
    pub fn json(&self, message: &[u8]) -> Result<Vec<u8>, Mistake> {
        let wrong = |error: &dyn std::fmt::Display| Mistake::new("answer", error);
        let read = DynamicMessage::decode(self.0.clone(), message).map_err(|error| wrong(&error))?;
        let mut out = serde_json::Serializer::new(Vec::new());
        let options = SerializeOptions::new().skip_default_fields(false);
        read.serialize_with_options(&mut out, &options).map_err(|error| wrong(&error))?;
        Ok(out.into_inner())
    }
}

impl Call<'_> {
    /// The encoded messages of a request: one, or one for each line of the body where the method takes a stream.
    ///
    /// # Errors
    /// The first field of path, query or body that is wrong.
    pub fn messages(&self, query: &str, body: &[u8]) -> Result<Vec<Vec<u8>>, Mistake> {
        if !self.route.has_body && !body.trim_ascii().is_empty() {
            return Err(Mistake::new("body", "this call takes none: its fields go into the query"));
        }
        if !self.route.method.is_client_streaming() {
            return Ok(vec![self.message("body", query, body)?]);
        }
        let lines = body.split(|byte| *byte == b'\n').enumerate();
        let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
        lines.map(|(place, line)| self.message(&format!("body line {}", place + 1), query, line)).collect()
    }

    fn message(&self, place: &str, query: &str, body: &[u8]) -> Result<Vec<u8>, Mistake> {
        let descriptor = self.route.method.input();
        let mut message = if body.trim_ascii().is_empty() {
            DynamicMessage::new(descriptor)
        } else {
            let mut json = serde_json::Deserializer::from_slice(body);
            let options = DeserializeOptions::new();
            let read = DynamicMessage::deserialize_with_options(descriptor, &mut json, &options);
            let read = read.and_then(|read| json.end().map(|()| read));
            read.map_err(|error| Mistake::new(place, error))?
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
            let read = decoded(name, true).zip(decoded(text, true));
            let (name, text) =
                read.ok_or_else(|| Mistake::new("query", format!("`{pair}` is not text in UTF-8")))?;
            values::set(&mut message, &name, &text)?;
        }
        for (name, text) in &self.fields {
            values::set(&mut message, name, text)?;
        }
        Ok(message.encode_to_vec())
    }
}

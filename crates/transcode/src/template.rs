//! Paths with fields in them, as `google.api.http` writes them: literal segments, `{field}` for one segment, and a verb
//! behind a colon at the end.

use crate::failure::Unusable;

/// One segment of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// The path of a field, its parts joined by dots.
    Field(String),
}

/// A path with fields in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    segments: Vec<Segment>,
    verb: Option<String>,
}

impl Template {
    /// Reads `/a/{field}/b:verb`.
    pub(crate) fn parse(text: &str) -> Result<Self, Unusable> {
        let wrong = || Unusable(format!("`{text}` is not a path such as /api/v1/things/{{id}}:verb"));
        let rest = text.strip_prefix('/').ok_or_else(wrong)?;
        let (rest, verb) = match rest.rsplit_once(':') {
            Some((rest, verb)) if !verb.contains(['/', '}']) => (rest, Some(verb.to_owned())),
            _ => (rest, None),
        };
        let segment = |part: &str| match part.strip_prefix('{').map(|inner| inner.strip_suffix('}')) {
            Some(Some(field)) if !field.is_empty() && !field.contains(['=', '*', '{']) => {
                Ok(Segment::Field(field.to_owned()))
            }
            None if !part.is_empty() && !part.contains(['{', '}', '*']) => {
                Ok(Segment::Literal(part.to_owned()))
            }
            _ => Err(wrong()),
        };
        Ok(Self { segments: rest.split('/').map(segment).collect::<Result<_, _>>()?, verb })
    }

    /// The fields of `path` with their texts; `None` where it is another path.
    pub(crate) fn fields(&self, path: &str) -> Option<Vec<(&str, String)>> {
        let rest = path.strip_prefix('/')?;
        let rest = match &self.verb {
            Some(verb) => rest.strip_suffix(verb.as_str())?.strip_suffix(':')?,
            None => rest,
        };
        let parts: Vec<&str> = rest.split('/').collect();
        if parts.len() != self.segments.len() {
            return None;
        }
        let mut fields = Vec::new();
        for (segment, part) in self.segments.iter().zip(parts) {
            match segment {
                Segment::Literal(text) if text == part => {}
                Segment::Literal(_) => return None,
                Segment::Field(_) if part.is_empty() => return None,
                Segment::Field(name) => fields.push((name.as_str(), decoded(part, false)?)),
            }
        }
        // `things/7:cancel` is no thing called `7:cancel`.
        let takes_verb =
            self.verb.is_none() && rest.rsplit('/').next().is_some_and(|last| last.contains(':'));
        (!takes_verb).then_some(fields)
    }

    /// The names of its fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Field(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }
}

/// A text with its escapes read; `None` where it is not UTF-8, or an escape is none.
pub(crate) fn decoded(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail loudly")]
    use super::*;

    #[test]
    fn a_path_is_its_template_or_another() {
        let check = |template: &str, path: &str, wanted: Option<&[(&str, &str)]>| {
            let template = Template::parse(template).unwrap();
            let found = template.fields(path);
            let wanted: Option<Vec<(&str, String)>> =
                wanted.map(|pairs| pairs.iter().map(|(name, text)| (*name, (*text).to_owned())).collect());
            assert_eq!(found, wanted, "{path}");
        };
        check("/a/b", "/a/b", Some(&[]));
        check("/a/b", "/a/b/", None);
        check("/a/{x}", "/a/7", Some(&[("x", "7")]));
        check("/a/{x}", "/a/", None);
        check("/a/{x}", "/a/7:cancel", None);
        check("/a/{x}:cancel", "/a/7:cancel", Some(&[("x", "7")]));
        check("/a/{x}:cancel", "/a/7:resume", None);
        check("/a:find", "/a:find", Some(&[]));
        check("/a/{m.n}/v/{m.v}", "/a/x%20y/v/2", Some(&[("m.n", "x y"), ("m.v", "2")]));
        check("/a/{x}", "/a/%zz", None);
        check("/a/{x}", "/a/%ff", None);
        for wrong in ["a", "/a//b", "/a/{x=**}", "/{", "/a/*"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
    }
}

//! W3C Trace Context: the one line that names a span to what continues its trace, as it is in headers, in entries of the
//! queue and in the records.

use std::fmt;
use std::str::FromStr;

/// The header, and the metadata key, that carries it.
pub const HEADER: &str = "traceparent";

/// A span of some process, by name. <https://www.w3.org/TR/trace-context/#traceparent-header>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace; not all zeros.
    pub trace: [u8; 16],
    /// The span; not all zeros.
    pub span: [u8; 8],
    /// Whether its caller records it.
    pub is_sampled: bool,
}

/// A text that names no span. It says nothing more: a reader of it starts a trace of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no traceparent such as 00-<32 hex digits>-<16 hex digits>-01")]
pub struct NoTraceparent;

impl FromStr for Traceparent {
    type Err = NoTraceparent;

    fn from_str(text: &str) -> Result<Self, NoTraceparent> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(NoTraceparent);
        let (version, trace, span, flags) = (next()?, next()?, next()?, next()?);
        let [version] = digits::<1>(version)?;
        let [flags] = digits::<1>(flags)?;
        let (trace, span) = (digits(trace)?, digits(span)?);
        // Later versions may have more parts; this one has not.
        let is_whole = version != 0 || parts.next().is_none();
        if version == 0xff || !is_whole || trace == [0; 16] || span == [0; 8] {
            return Err(NoTraceparent);
        }
        Ok(Self { trace, span, is_sampled: flags & 1 == 1 })
    }
}

/// Bytes as lower-case hex digits; capitals are none here.
fn digits<const N: usize>(text: &str) -> Result<[u8; N], NoTraceparent> {
    let mut bytes = [0; N];
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(NoTraceparent);
    }
    hex::decode_to_slice(text, &mut bytes).map_err(|_| NoTraceparent)?;
    Ok(bytes)
}

impl fmt::Display for Traceparent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (hex::encode(self.trace), hex::encode(self.span));
        write!(formatter, "00-{trace}-{span}-{:02x}", u8::from(self.is_sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_line_is_read_and_written() {
        let check = |text: &str, wanted: Option<bool>| {
            let read = text.parse::<Traceparent>();
            assert_eq!(read.ok().map(|read| read.is_sampled), wanted, "{text}");
        };
        check(SOUND, Some(true));
        check(&SOUND.replace("-01", "-00"), Some(false));
        check(&SOUND.replace("-01", "-03"), Some(true));
        check("", None);
        check(&SOUND.replace("4bf9", "4BF9"), None);
        check(&SOUND.replace("4bf9", "4bf"), None);
        check(&SOUND.replace("00f067aa0ba902b7", "0000000000000000"), None);
        check(&SOUND.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)), None);
        check(&format!("{SOUND}-more"), None);
        check(&format!("cc{}-more", SOUND.trim_start_matches("00")), Some(true));
        check(&format!("ff{}", SOUND.trim_start_matches("00")), None);
        assert_eq!(SOUND.parse::<Traceparent>().unwrap().to_string(), SOUND);
    }
}

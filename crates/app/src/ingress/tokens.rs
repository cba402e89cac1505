//! Who calls, and what they may do.
//!
//! Roles form a ladder, `read` < `submit` < `operate`, and one stands apart: `worker`, which carries out runs and
//! follows the models and does nothing else, so that a stolen trainer's token neither deletes nor submits, and an
//! operator's cannot publish a model.

use super::access::Needs;
use crate::config::TokenSection;
use crate::secret;
use anyhow::{Context, anyhow, bail};
use domain::Secret;
use domain::Timestamp;
use http::HeaderValue;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};
use subtle::ConstantTimeEq;
use tonic::Status;

/// Shorter secrets can be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// To look, and to ask students.
    Read,
    /// That, and to import rows, and to submit, cancel and resume jobs.
    Submit,
    /// That, and to delete, and to register what students start from.
    Operate,
    /// To carry out runs and follow the models.
    Worker,
}

impl Role {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "read" => Some(Self::Read),
            "submit" => Some(Self::Submit),
            "operate" => Some(Self::Operate),
            "worker" => Some(Self::Worker),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Operate => "operate",
            Self::Worker => "worker",
        }
    }

    /// Whether this role is enough for what a method needs.
    pub(crate) fn is_enough(self, needs: Needs) -> bool {
        match needs {
            Needs::Nothing | Needs::Token => true,
            Needs::Read => matches!(self, Self::Read | Self::Submit | Self::Operate),
            Needs::Submit => matches!(self, Self::Submit | Self::Operate),
            Needs::Operate => self == Self::Operate,
            Needs::Work => self == Self::Worker,
        }
    }
}

/// The callers that the ingress admits.
#[derive(Debug)]
pub(crate) enum Guests {
    /// Everybody, to everything.
    Everybody,
    /// Who shows one of these.
    Bearers(Vec<Token>),
}

/// A token as it is kept: never the words.
#[derive(Debug)]
pub(crate) struct Token {
    name: String,
    role: Role,
    sha256: [u8; 32],
    expires: Option<Timestamp>,
}

/// The digest of a secret: of one length, whatever the caller sends.
fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

impl Token {
    /// Reads the secret and checks the rest of the entry.
    ///
    /// # Errors
    /// No role of that name, no secret at hand, one that can be guessed, a date that is none.
    fn open(section: &TokenSection) -> anyhow::Result<(Self, Secret)> {
        let Some(role) = Role::from_name(&section.role) else {
            bail!("role: `{}` is not a role: use `read`, `submit`, `operate` or `worker`", section.role);
        };
        let secret = secret::read(&section.env, &section.file).context("file")?;
        if secret.is_empty() {
            let place = match (section.file.as_os_str().is_empty(), section.env.as_str()) {
                (false, _) => format!("write it into {}", section.file.display()),
                (true, "") => "name its variable (env) or its file".to_owned(),
                (true, variable) => format!("set {variable}"),
            };
            bail!("has no secret: {place}, or remove the token");
        }
        if secret.expose().len() < SECRET_BYTES_MIN {
            bail!("its secret has fewer than {SECRET_BYTES_MIN} bytes: make one by `openssl rand -hex 32`");
        }
        let expires = match section.expires.as_str() {
            "" => None,
            text => Some(
                text.parse::<prost_types::Timestamp>()
                    .map_err(|_| anyhow!("expires: `{text}` is not a time such as 2027-01-31T00:00:00Z"))?,
            ),
        };
        let expires = expires.map(|at| wire::timestamp_of(Some(at)));
        Ok((Self { name: String::new(), role, sha256: digest(secret.expose()), expires }, secret))
    }
}

impl Guests {
    /// The callers that the configuration names; everybody where it names none.
    ///
    /// # Errors
    /// A token that cannot be used: it is named, with what to do.
    pub(crate) fn open(sections: &BTreeMap<String, TokenSection>) -> anyhow::Result<Self> {
        if sections.is_empty() {
            return Ok(Self::Everybody);
        }
        let mut tokens: Vec<Token> = Vec::new();
        for (name, section) in sections {
            let opened = Token::open(section).with_context(|| format!("server.tokens.{name}"))?;
            let token = Token { name: name.clone(), ..opened.0 };
            if let Some(other) = tokens.iter().find(|other| other.sha256 == token.sha256) {
                bail!("server.tokens.{name}: has the secret of `{}`: give each its own", other.name);
            }
            tokens.push(token);
        }
        Ok(Self::Bearers(tokens))
    }

    /// Checks that whoever sent `authorization` may call what needs `needs`. Returns the caller's name.
    ///
    /// # Errors
    /// UNAUTHENTICATED without a token that is known and valid; PERMISSION_DENIED where its role is not enough.
    pub(crate) fn admit(&self, authorization: Option<&HeaderValue>, needs: Needs) -> Result<&str, Status> {
        let Self::Bearers(tokens) = self else { return Ok("everybody") };
        if needs == Needs::Nothing {
            return Ok("anybody");
        }
        let token = who(tokens, authorization, now())?;
        if token.role.is_enough(needs) {
            return Ok(&token.name);
        }
        let role = token.role.name();
        Err(Status::permission_denied(format!(
            "the token `{}` has the role `{role}`, which does not allow this",
            token.name
        )))
    }
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// The token that was sent. All of them are compared, each in constant time, whether or not one fits.
fn who<'a>(tokens: &'a [Token], sent: Option<&HeaderValue>, now: Timestamp) -> Result<&'a Token, Status> {
    let Some(sent) = sent else {
        return Err(Status::unauthenticated("a token is needed: send `authorization: Bearer TOKEN`"));
    };
    let words = sent.to_str().ok().and_then(|text| text.split_once(' '));
    let Some((_, secret)) = words.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        return Err(Status::unauthenticated("the authorization is not a bearer token: send `Bearer TOKEN`"));
    };
    let sha256 = digest(secret.trim());
    let mut found = None;
    for token in tokens {
        if bool::from(token.sha256.ct_eq(&sha256)) {
            found = Some(token);
        }
    }
    match found {
        None => Err(Status::unauthenticated("the token is not known here")),
        Some(token) if token.expires.is_some_and(|expires| expires <= now) => {
            Err(Status::unauthenticated(format!("the token `{}` has expired", token.name)))
        }
        Some(token) => Ok(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn section(folder: &std::path::Path, name: &str, role: &str, expires: &str) -> (String, TokenSection) {
        let file = folder.join(name);
        std::fs::write(&file, format!("secret-of-{name}-0123456789\n")).unwrap();
        let section =
            TokenSection { role: role.to_owned(), env: String::new(), file, expires: expires.to_owned() };
        (name.to_owned(), section)
    }

    #[test]
    fn the_ladder_of_roles_and_the_one_beside_it() {
        use Needs::{Nothing, Operate, Read, Submit, Token, Work};
        let check = |role: Role, allowed: &[Needs]| {
            for needs in [Nothing, Token, Read, Submit, Operate, Work] {
                assert_eq!(role.is_enough(needs), allowed.contains(&needs), "{role:?} {needs:?}");
            }
        };
        check(Role::Read, &[Nothing, Token, Read]);
        check(Role::Submit, &[Nothing, Token, Read, Submit]);
        check(Role::Operate, &[Nothing, Token, Read, Submit, Operate]);
        check(Role::Worker, &[Nothing, Token, Work]);
    }

    #[test]
    fn a_caller_is_known_by_its_token_alone() {
        let folder = tempfile::tempdir().unwrap();
        let sections = BTreeMap::from([
            section(folder.path(), "ci", "submit", "2999-01-01T00:00:00Z"),
            section(folder.path(), "old", "operate", "2020-01-01T00:00:00Z"),
        ]);
        let guests = Guests::open(&sections).unwrap();
        let check = |sent: Option<&str>, needs: Needs, wanted: Result<&str, Code>| {
            let sent = sent.map(|text| HeaderValue::from_str(text).unwrap());
            let admitted = guests.admit(sent.as_ref(), needs).map_err(|status| status.code());
            assert_eq!(admitted, wanted, "{sent:?} {needs:?}");
        };
        let ci = "Bearer secret-of-ci-0123456789";
        check(Some(ci), Needs::Submit, Ok("ci"));
        check(Some("bearer secret-of-ci-0123456789"), Needs::Read, Ok("ci"));
        check(Some(ci), Needs::Operate, Err(Code::PermissionDenied));
        check(Some(ci), Needs::Work, Err(Code::PermissionDenied));
        check(None, Needs::Token, Err(Code::Unauthenticated));
        check(None, Needs::Nothing, Ok("anybody"));
        check(Some("Bearer secret-of-ci-012345678"), Needs::Read, Err(Code::Unauthenticated));
        check(Some("Bearer "), Needs::Read, Err(Code::Unauthenticated));
        check(Some("Basic secret-of-ci-0123456789"), Needs::Read, Err(Code::Unauthenticated));
        check(Some("Bearer secret-of-old-0123456789"), Needs::Read, Err(Code::Unauthenticated));
        let printed = format!("{guests:?}");
        assert!(!printed.contains("secret-of"), "{printed}");
    }

    #[test]
    fn a_token_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let check = |change: &dyn Fn(&mut TokenSection), wanted: &str| {
            let (name, mut section) = section(folder.path(), "ci", "read", "");
            change(&mut section);
            let error = format!("{:#}", Guests::open(&BTreeMap::from([(name, section)])).unwrap_err());
            assert!(error.starts_with("server.tokens.ci: ") && error.contains(wanted), "{error}");
        };
        check(&|section| section.role = "root".to_owned(), "role: `root` is not a role: use `read`");
        check(&|section| section.file = folder.path().join("absent"), "absent cannot be read");
        check(&|section| section.file = Default::default(), "name its variable (env) or its file");
        check(&|section| section.expires = "tomorrow".to_owned(), "expires: `tomorrow` is not a time");
        check(&|section| std::fs::write(&section.file, "short").unwrap(), "fewer than 16 bytes");
        check(&|section| std::fs::write(&section.file, "").unwrap(), "has no secret: write it into");
        let (_, twin) = section(folder.path(), "a", "read", "");
        let sections = BTreeMap::from([("a".to_owned(), twin.clone()), ("b".to_owned(), twin)]);
        let error = Guests::open(&sections).unwrap_err().to_string();
        assert!(error.contains("server.tokens.b: has the secret of `a`"), "{error}");
    }
}

//! Where no token is asked for, a browser on the same machine could be made to call by any page that it shows: requests of
//! pages are refused there, and so are those that reach a loopback address by another name (DNS rebinding).

use crate::this_machine;
use http::header::{HOST, ORIGIN};
use http::{Request, uri::Authority};
use tonic::Status;

/// Which requests of HTTP are refused for where they come from.
#[derive(Debug, Clone, Copy)]
pub(in crate::ingress) struct Origin {
    /// Whether everybody is let in.
    pub(in crate::ingress) is_open: bool,
    /// Whether only this machine can connect.
    pub(in crate::ingress) is_local: bool,
}

impl Origin {
    /// Lets a request in, or says why not.
    pub(super) fn check<B>(self, request: &Request<B>) -> Result<(), Status> {
        if !self.is_open {
            return Ok(());
        }
        if request.headers().contains_key(ORIGIN) {
            let words =
                "a page of a browser asks, and no token is needed here: name who may call in [server.tokens]";
            return Err(Status::permission_denied(words));
        }
        let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let authority = named.and_then(|host| host.parse::<Authority>().ok());
        let host =
            request.uri().authority().or(authority.as_ref()).map(|authority| authority.host().to_owned());
        if self.is_local && !host.as_deref().is_none_or(this_machine::is_named) {
            let words =
                "this server is called by another name than that of this machine: use 127.0.0.1 or localhost";
            return Err(Status::permission_denied(words));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_foreign_names_are_refused_where_nothing_else_does() {
        let check = |is_open: bool, is_local: bool, header: (&str, &str), wanted: bool| {
            let request = Request::builder().header(header.0, header.1).body(()).unwrap();
            assert_eq!(Origin { is_open, is_local }.check(&request).is_ok(), wanted, "{header:?}");
        };
        check(true, true, ("host", "127.0.0.1:7070"), true);
        check(true, true, ("host", "[::1]:7070"), true);
        check(true, true, ("host", "localhost"), true);
        check(true, true, ("host", "evil.example:7070"), false);
        check(true, false, ("host", "inference:7070"), true);
        check(false, true, ("host", "evil.example"), true);
        check(true, true, ("origin", "http://evil.example"), false);
        check(false, true, ("origin", "http://evil.example"), true);
    }
}

//! The line to a service: a channel on which every call says who calls, and for which trace.

use crate::trace::Traced;
use std::fmt;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};

/// What every generated client of this project is made over.
pub type Channel = InterceptedService<Traced<tonic::transport::Channel>, Credentials>;

/// `transport`, with `credentials` on every call, and the context of the trace that it belongs to.
pub fn channel(transport: tonic::transport::Channel, credentials: Credentials) -> Channel {
    Channel::new(Traced(transport), credentials)
}

/// The caller's credentials: a bearer token, or none. They never print.
#[derive(Clone, Default)]
pub struct Credentials {
    authorization: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    /// The bearer of `token`; no credentials where it is empty. `None` where it holds what no header can.
    pub fn bearer(token: &str) -> Option<Self> {
        if token.is_empty() {
            return Some(Self::default());
        }
        let mut value = MetadataValue::try_from(format!("Bearer {token}")).ok()?;
        value.set_sensitive(true);
        Some(Self { authorization: Some(value) })
    }

    /// Whether there is a token.
    pub fn is_empty(&self) -> bool {
        self.authorization.is_none()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(..)")
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.authorization {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_on_the_call_and_in_no_print() {
        let mut credentials = Credentials::bearer("s3cret").unwrap();
        let request = credentials.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer s3cret");
        assert!(!format!("{credentials:?}{request:?}").contains("s3cret"), "{request:?}");
        assert!(Credentials::bearer("").unwrap().call(Request::new(())).unwrap().metadata().is_empty());
        assert!(Credentials::bearer("two\nlines").is_none());
    }
}

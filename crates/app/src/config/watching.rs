//! The sections of being watched: where metrics and probes are answered, and where traces go.

use super::error::ConfigError;
use serde::Deserialize;
use std::net::SocketAddr;

/// Where metrics and probes are answered.
#[derive(Debug, Clone, Deserialize)]
pub struct AdminSection {
    /// Address and port; empty for none.
    pub listen: String,
    /// Who may read the page of jobs.
    pub jobs: JobsReaders,
}

/// Who may read the page of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobsReaders {
    /// Who is on this machine.
    ThisMachine,
    /// Whoever reaches the admin port.
    Everyone,
    /// Nobody.
    Nobody,
}

impl AdminSection {
    /// The address; `None` where nothing is answered.
    pub(crate) fn address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        let wrong = |_| {
            let words = format!("`{}` is not an address and port, such as 127.0.0.1:9100", self.listen);
            ConfigError::new("admin.listen", words)
        };
        self.listen.parse().map(Some).map_err(wrong)
    }
}

/// Where traces go.
#[derive(Debug, Clone, Deserialize)]
pub struct TelemetrySection {
    /// An OTLP collector that speaks gRPC; empty for none.
    pub otlp_endpoint: String,
    /// What this process is called in its traces; empty for `distillery-` and its roles.
    pub service_name: String,
    /// The share of traces that are recorded, from 0 to 1; a trace that came in is recorded where its caller does.
    pub sample_ratio: f64,
}

impl TelemetrySection {
    /// The collector; `None` where there is none.
    pub(crate) fn endpoint(&self) -> Result<Option<http::Uri>, ConfigError> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            let words = format!("{} is not between 0 and 1", self.sample_ratio);
            return Err(ConfigError::new("telemetry.sample_ratio", words));
        }
        if self.otlp_endpoint.is_empty() {
            return Ok(None);
        }
        let uri = self.otlp_endpoint.parse::<http::Uri>().ok();
        let usable =
            uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
        let wrong = || {
            let words = format!("`{}` is not a URL such as http://127.0.0.1:4317", self.otlp_endpoint);
            ConfigError::new("telemetry.otlp_endpoint", words)
        };
        usable.map(Some).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_named_with_their_key() {
        let admin =
            |listen: &str| AdminSection { listen: listen.to_owned(), jobs: JobsReaders::Nobody }.address();
        assert_eq!(admin("").unwrap(), None);
        assert_eq!(admin("0.0.0.0:9100").unwrap(), Some("0.0.0.0:9100".parse().unwrap()));
        let error = admin("9100").unwrap_err().to_string();
        assert!(error.starts_with("admin.listen: `9100` is not an address"), "{error}");
        let check = |endpoint: &str, sample_ratio: f64, wanted: Result<bool, &str>| {
            let section = TelemetrySection {
                otlp_endpoint: endpoint.to_owned(),
                service_name: String::new(),
                sample_ratio,
            };
            match (section.endpoint(), wanted) {
                (Ok(read), Ok(wanted)) => assert_eq!(read.is_some(), wanted, "{endpoint}"),
                (Err(error), Err(wanted)) => assert!(error.to_string().starts_with(wanted), "{error}"),
                (read, wanted) => panic!("{endpoint}: {read:?}, wanted {wanted:?}"),
            }
        };
        check("", 1.0, Ok(false));
        check("http://collector:4317", 0.0, Ok(true));
        check("https://collector", 0.5, Ok(true));
        check("collector:4317", 1.0, Err("telemetry.otlp_endpoint: `collector:4317`"));
        check("", 1.5, Err("telemetry.sample_ratio: 1.5"));
        check("", f64::NAN, Err("telemetry.sample_ratio: NaN"));
    }
}

//! Reads the admin port as Prometheus does.

use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address without a server.
///
/// # Errors
/// No free port.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// One request: the status code and the body.
///
/// # Errors
/// No answer, or not HTTP.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP")?;
    let status = head.split_whitespace().nth(1).context("no status")?.parse()?;
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        bail!("the answer is chunked: its length is known");
    }
    Ok((status, body.to_owned()))
}

/// One metric of an exposition.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Family {
    /// counter, gauge or histogram.
    pub kind: String,
    /// Its description.
    pub help: String,
    /// Its series: labels by name, and the value. Those of a histogram are under their own names.
    pub series: Vec<Series>,
}

/// One line of an exposition.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The name on the line, such as `..._bucket`.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Family {
    /// The sum of its values; of a histogram, the sum of counts.
    pub fn sum(&self) -> f64 {
        let counted = |series: &&Series| self.kind != "histogram" || series.name.ends_with("_count");
        self.series.iter().filter(counted).map(|series| series.value).sum()
    }
}

/// The families of an exposition, by name.
///
/// # Errors
/// An invalid line.
pub fn parse(text: &str) -> anyhow::Result<BTreeMap<String, Family>> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').with_context(|| line.to_owned())?;
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').with_context(|| line.to_owned())?;
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else {
            let series = series(line).with_context(|| line.to_owned())?;
            let whole = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|end| series.name.strip_suffix(end))
                .find(|name| families.get(*name).is_some_and(|family| family.kind == "histogram"));
            let name = whole.unwrap_or(&series.name).to_owned();
            families.entry(name).or_default().series.push(series);
        }
    }
    Ok(families)
}

fn series(line: &str) -> anyhow::Result<Series> {
    let (left, value) = line.rsplit_once(' ').context("no value")?;
    let (name, labels) = match left.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').context("no end of the labels")?),
        None => (left, ""),
    };
    let mut read = BTreeMap::new();
    for pair in labels.split("\",").filter(|pair| !pair.is_empty()) {
        let (label, value) = pair.split_once("=\"").context("no label")?;
        read.insert(label.to_owned(), value.trim_end_matches('"').to_owned());
    }
    Ok(Series { name: name.to_owned(), labels: read, value: value.parse()? })
}

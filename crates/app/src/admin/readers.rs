//! Who may read the page of jobs. The admin port asks for no token, so the place of the reader decides.

use crate::config::JobsReaders;
use crate::this_machine;
use http::HeaderMap;
use http::header::HOST;
use std::net::SocketAddr;

/// Whether a reader at `peer` may see the page. On this machine, the name by which it was asked for counts too: a page of another
/// site can point a name of its own at this machine, and would then read what its visitor may read (DNS rebinding).
pub(super) fn may_read(readers: JobsReaders, peer: SocketAddr, headers: &HeaderMap) -> bool {
    match readers {
        JobsReaders::Everyone => true,
        JobsReaders::ThisMachine => {
            is_here(peer) && headers.get(HOST).is_some_and(|host| names_here(host.as_bytes()))
        }
        JobsReaders::Nobody => false,
    }
}

/// Whether a reader is on this machine.
pub(super) fn is_here(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

/// Whether a host, with its port or without, is a name of this machine for itself.
fn names_here(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    this_machine::is_named(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn readers_are_told_apart_by_their_place_and_by_the_name_they_asked_for() {
        let check = |readers: JobsReaders, peer: &str, host: &str, wanted: bool| {
            let mut headers = HeaderMap::new();
            if !host.is_empty() {
                headers.insert(HOST, HeaderValue::from_str(host).unwrap());
            }
            assert_eq!(
                may_read(readers, peer.parse().unwrap(), &headers),
                wanted,
                "{readers:?} {peer} {host}"
            );
        };
        let here = JobsReaders::ThisMachine;
        for host in
            ["localhost", "localhost:9100", "LocalHost:1", "127.0.0.1:9100", "127.1.2.3", "[::1]:9100"]
        {
            check(here, "127.0.0.1:4000", host, true);
        }
        check(here, "[::1]:4000", "localhost:9100", true);
        check(here, "[::ffff:127.0.0.1]:4000", "localhost:9100", true);
        for host in [
            "",
            "evil.example",
            "evil.example:9100",
            "localhost.evil.example",
            "10.0.0.1:9100",
            "[::2]:9100",
            "127.0.0.1.evil.example",
        ] {
            check(here, "127.0.0.1:4000", host, false);
        }
        check(here, "10.0.0.7:4000", "localhost:9100", false);
        check(JobsReaders::Everyone, "10.0.0.7:4000", "any.example", true);
        check(JobsReaders::Nobody, "127.0.0.1:4000", "localhost", false);
    }
}

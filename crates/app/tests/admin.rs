//! The admin port: what probes are told from start to end, and whom it refuses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod common;

use app::serve::{Roles, Serving};
use common::{HARVESTER, PATIENCE, Server, config};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const INFERENCE: Roles = Roles { harvester: false, trainer: false, inference: true };

/// The status code and the body of one question; `None` where nobody answers.
async fn ask(url: &str, method: &str, path: &str) -> Option<(u16, String)> {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split_whitespace().nth(1)?.parse().ok()?, body.to_owned()))
}

async fn wait_for(url: &str, path: &str, wanted: (u16, &str)) {
    let started = Instant::now();
    let mut last = None;
    while started.elapsed() < PATIENCE {
        last = ask(url, "GET", path).await;
        if last.as_ref().is_some_and(|(code, body)| (*code, body.as_str()) == wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{path} is not {wanted:?} but {last:?}");
}

async fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_told_of_start_readiness_and_end() {
    let later = free_address().await;
    let inference = Server::start(INFERENCE, |config, _| {
        config.admin.listen = "127.0.0.1:0".to_owned();
        config.client.harvester_url = format!("http://{later}");
        config.server.notice_seconds = 1;
    })
    .await;
    let admin = inference.admin.clone().unwrap();
    // It lives, but knows no models yet: its harvester is not there.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ask(&admin, "GET", "/healthz").await, Some((200, "alive\n".to_owned())));
    assert_eq!(ask(&admin, "GET", "/readyz").await, Some((503, "starting\n".to_owned())));
    let channel = inference.channel(|_| {}).await.unwrap();
    let health = async |service: &str| app::client::health(channel.clone(), service).await.unwrap();
    assert_eq!(health("").await, app::client::Health::NotServing);
    assert_eq!(health("distillery.v1.InferenceService").await, app::client::Health::NotServing);
    assert_eq!(health("distillery.v1.RunsService").await, app::client::Health::Unknown);

    let harvester = Server::start(HARVESTER, |config, _| config.server.listen = later.parse().unwrap()).await;
    wait_for(&admin, "/readyz", (200, "ready\n")).await;
    assert_eq!(health("").await, app::client::Health::Serving);

    inference.shutdown.cancel();
    wait_for(&admin, "/readyz", (503, "draining\n")).await;
    assert_eq!(ask(&admin, "GET", "/healthz").await, Some((200, "alive\n".to_owned())), "it still lives");
    inference.ended().await.unwrap();
    assert_eq!(ask(&admin, "GET", "/healthz").await, None, "nobody is there any more");
    assert_eq!(harvester.admin, None, "it is off unless it is asked for");
    harvester.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_there_is_answered() {
    let server = Server::start(HARVESTER, |config, _| config.admin.listen = "127.0.0.1:0".to_owned()).await;
    let admin = server.admin.clone().unwrap();
    let (code, text) = ask(&admin, "GET", "/metrics").await.unwrap();
    assert_eq!(code, 200);
    // The tests of this file share a process, and so its series.
    let mut infos = text.lines().filter(|line| line.starts_with("distillery_build_info{"));
    assert!(infos.any(|line| line.contains("roles=\"harvester\"") && line.ends_with(" 1")), "{text}");
    // Nothing was called, and the series are there.
    let zero = "distillery_rpc_requests_total{service=\"distillery.v1.RunsService\",method=\"LeaseRun\",code=\"OK\"} 0";
    assert!(text.lines().any(|line| line == zero), "{text}");
    assert_eq!(ask(&admin, "HEAD", "/metrics").await, Some((200, String::new())));
    assert_eq!(ask(&admin, "GET", "/nothing").await.unwrap().0, 404);
    // The page of jobs is for who asks this machine by a name of its own.
    assert_eq!(ask(&admin, "GET", "/").await.unwrap().0, 403);
    for method in ["POST", "PUT", "DELETE"] {
        assert_eq!(ask(&admin, method, "/metrics").await.unwrap().0, 405, "{method}");
    }
    // Garbage ends its own connection, and no other.
    let mut stream = TcpStream::connect(admin.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(b"\x16\x03\x01 no http\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("it was not ended");
    assert_eq!(ask(&admin, "GET", "/readyz").await, Some((200, "ready\n".to_owned())));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_however_many_say_nothing() {
    let server = Server::start(HARVESTER, |config, _| config.admin.listen = "127.0.0.1:0".to_owned()).await;
    let admin = server.admin.clone().unwrap();
    let connect = async || TcpStream::connect(admin.strip_prefix("http://").unwrap()).await.unwrap();
    let mut silent = Vec::new();
    for begun in [&b""[..], b"G", b"GET /healthz HTTP/1.1\r\nhost:"].into_iter().cycle().take(200) {
        let mut stream = connect().await;
        stream.write_all(begun).await.unwrap();
        silent.push(stream);
    }
    // Sooner than a silent connection ends by itself.
    let answered = tokio::time::timeout(Duration::from_secs(10), ask(&admin, "GET", "/healthz")).await;
    assert_eq!(answered.expect("no place for a probe"), Some((200, "alive\n".to_owned())));
    let mut said = Vec::new();
    let first = silent.first_mut().unwrap().read_to_end(&mut said);
    let _ = tokio::time::timeout(Duration::from_secs(10), first).await.expect("the oldest is still there");
    let at = |listen: &str| app::config::AdminSection {
        listen: listen.to_owned(),
        jobs: app::config::JobsReaders::ThisMachine,
    };
    let section = at(admin.strip_prefix("http://").unwrap());
    assert_eq!(app::admin::ask(&section).await.unwrap().1, app::client::Health::Serving);
    server.stop().await.unwrap();
    let error = format!("{:#}", app::admin::ask(&section).await.unwrap_err());
    assert!(error.contains("cannot be reached"), "{error}");
    let off = at("");
    assert!(app::admin::ask(&off).await.unwrap_err().to_string().contains("admin.listen is empty"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_had_is_told_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let check = async |listen: String, wanted: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        config.admin.listen = listen;
        let error = format!("{:#}", Serving::open(config, HARVESTER).await.unwrap_err());
        assert!(error.contains(wanted), "{error}");
    };
    let address = taken.local_addr().unwrap().to_string();
    check(address.clone(), &format!("admin.listen: {address} cannot be listened at")).await;
    check("9100".to_owned(), "admin.listen: `9100` is not an address").await;
}

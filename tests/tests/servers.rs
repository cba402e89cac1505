//! The private servers of the harness: they start and restart, and leave nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail loudly too"
)]

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::postgres::Postgres;
use tests::redis::Redis;

/// The longest time for a process to end.
const END_MAX: Duration = Duration::from_secs(15);

fn port(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap()
}

fn listens(port: u16) -> bool {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => false,
        Err(error) => panic!("{error}"),
    }
}

fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < END_MAX, "{what}: not within {END_MAX:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The folder of one of our servers, found by the port in its command line.
fn folder(port: u16) -> PathBuf {
    let folders = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten().map(|entry| entry.path());
    let ours = folders.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("distillery-"));
    let serves = |path: &PathBuf| {
        let Ok(process) = std::fs::read_to_string(path.join("process")) else { return false };
        let command = std::fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
        command.contains(&port.to_string())
    };
    let mut found = ours.filter(serves);
    found.next().expect("a server that runs has a folder")
}

#[test]
fn servers_are_stopped_killed_and_started_again_on_their_port() {
    let (postgres, redis) = (Postgres::start().unwrap(), Redis::start().unwrap());
    let ports = [port(&postgres.url()), port(&redis.url())];
    assert_ne!(postgres.url(), Postgres::start().unwrap().url(), "each has a port and a password of its own");
    for _round in 0..2 {
        assert_eq!(ports.map(listens), [true; 2]);
        redis.flush_all().unwrap();
        postgres.stop().unwrap();
        redis.kill().unwrap();
        assert_eq!(ports.map(listens), [false; 2]);
        assert!(redis.flush_all().is_err(), "nobody answers");
        postgres.restart().unwrap();
        redis.restart().unwrap();
        assert_eq!(ports.map(listens), [true; 2]);
        postgres.kill().unwrap();
        postgres.kill().unwrap();
        redis.stop().unwrap();
        assert_eq!(ports.map(listens), [false; 2]);
        postgres.restart().unwrap();
        redis.restart().unwrap();
        redis.restart().unwrap();
    }
    assert_eq!([port(&postgres.url()), port(&redis.url())], ports);
}

#[test]
fn nothing_is_left_of_a_server_whose_test_panics() {
    let panicked = std::thread::spawn(|| {
        let (postgres, redis) = (Postgres::start().unwrap(), Redis::start().unwrap());
        let ports = [port(&postgres.url()), port(&redis.url())];
        let folders = ports.map(folder);
        assert!(folders.iter().all(|folder| folder.exists()));
        std::panic::panic_any((ports, folders));
    });
    let payload = panicked.join().unwrap_err();
    let (ports, folders) = *payload.downcast::<([u16; 2], [PathBuf; 2])>().expect("it came to its panic");
    assert_eq!(ports.map(listens), [false; 2]);
    assert_eq!(folders.map(|folder| folder.exists()), [false; 2]);
}

/// Not a test: the process that the next test starts and kills.
#[test]
#[ignore = "started by nothing_is_left_of_a_server_whose_process_is_killed"]
fn owner_that_is_killed() {
    let (postgres, redis) = (Postgres::start().unwrap(), Redis::start().unwrap());
    println!("\nports {} {}", port(&postgres.url()), port(&redis.url()));
    std::thread::sleep(10 * END_MAX);
}

#[test]
fn nothing_is_left_of_a_server_whose_process_is_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner_that_is_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines().map_while(Result::ok);
    let told = lines.filter_map(|line| line.strip_prefix("ports ").map(str::to_owned)).next();
    let ports: Vec<u16> = told.unwrap().split(' ').map(|port| port.parse().unwrap()).collect();
    let folders: Vec<PathBuf> = ports.iter().map(|port| folder(*port)).collect();
    assert!(ports.iter().all(|port| listens(*port)));
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("the servers end", || !ports.iter().any(|port| listens(*port)));
    wait_until("the folders go", || !folders.iter().any(|folder| folder.exists()));
}

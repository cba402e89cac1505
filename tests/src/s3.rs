//! A private S3-compatible server: moto, installed by `scripts/s3.sh`.

use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the server may take to answer its first request.
const START_MAX: Duration = Duration::from_secs(60);

/// The server, with one bucket; it stops when dropped.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    address: SocketAddr,
}

impl S3Server {
    /// The name of the bucket.
    pub const BUCKET: &'static str = "checkpoints";

    /// Starts it on a free port of the loopback address.
    ///
    /// # Errors
    /// It is not installed, or does not answer.
    pub fn start() -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/s3.sh");
        let child = Command::new(script)
            .args(["--port", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("scripts/s3.sh cannot be started")?;
        let mut server = Self { child, address };
        let began = Instant::now();
        while server.make_bucket().is_err() {
            if began.elapsed() > START_MAX || server.child.try_wait()?.is_some() {
                bail!("the S3 server did not start: does `scripts/s3.sh` run?");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Its address, such as `http://127.0.0.1:9000`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn make_bucket(&self) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request = format!(
            "PUT /{} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            Self::BUCKET,
            self.address
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("the bucket was not created: {answer}");
        }
        Ok(())
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A TCP proxy between two processes that a test can slow down, stall or cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes forwarded at once: few, so that a cut falls inside a message.
const CHUNK_BYTES: usize = 4096;

/// The state of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Bytes are forwarded.
    Open,
    /// Connections are closed, new ones immediately.
    Down,
    /// Connections stay open, and nothing is forwarded.
    Dead,
}

#[derive(Debug)]
struct ProxyState {
    target: String,
    /// The state; the number changes with every cut.
    line: watch::Sender<(Line, u64)>,
    delay_ms: AtomicU64,
    cuts: AtomicUsize,
}

/// The proxy; it stops, with every connection, when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    shared: Arc<ProxyState>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Proxy {
    /// Forwards a free port of the loopback address to `target`, an address and port.
    ///
    /// # Errors
    /// No free port.
    pub fn start(target: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(ProxyState {
            target: target.to_owned(),
            line: watch::Sender::new((Line::Open, 0)),
            delay_ms: AtomicU64::new(0),
            cuts: AtomicUsize::new(0),
        });
        runtime.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, runtime: Some(runtime) })
    }

    /// Its address and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `url` with the proxy's address.
    pub fn url(&self, url: &str) -> String {
        url.replace(&self.shared.target, &self.address)
    }

    /// Closes every connection, in the middle of messages. New ones are forwarded.
    pub fn cut(&self) {
        self.shared.line.send_modify(|(_, number)| *number += 1);
    }

    /// Closes every connection, and accepts no new one until [`Proxy::open`].
    pub fn take_down(&self) {
        self.shared.line.send_modify(|line| *line = (Line::Down, line.1 + 1));
    }

    /// Keeps connections open, and forwards nothing until [`Proxy::open`].
    pub fn stall(&self) {
        self.shared.line.send_modify(|(line, _)| *line = Line::Dead);
    }

    /// Forwards again.
    pub fn open(&self) {
        self.shared.line.send_modify(|(line, _)| *line = Line::Open);
    }

    /// Delays every chunk by this time, in each direction, from now on.
    pub fn slow(&self, delay: Duration) {
        self.shared.delay_ms.store(delay.as_millis().try_into().unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// The number of connections that this proxy closed.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<ProxyState>) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(connection(near, Arc::clone(&shared)));
    }
}

async fn connection(near: TcpStream, shared: Arc<ProxyState>) {
    let mut line = shared.line.subscribe();
    let (state, number) = *line.borrow_and_update();
    if state == Line::Down {
        return;
    }
    let Ok(far) = TcpStream::connect(&shared.target).await else { return };
    let (_, _) = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::select! {
        () = carry(near_read, far_write, &shared) => {}
        () = carry(far_read, near_write, &shared) => {}
        _ = line.wait_for(|line| line.1 != number) => {
            shared.cuts.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Until one end closes: these protocols need nothing of a half-closed connection.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &ProxyState) {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut line = shared.line.subscribe();
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let delay = Duration::from_millis(shared.delay_ms.load(Ordering::SeqCst));
        tokio::time::sleep(delay).await;
        if line.wait_for(|line| line.0 == Line::Open).await.is_err() {
            return;
        }
        let piece = buffer.get(..read).unwrap_or_default();
        if piece.is_empty() || to.write_all(piece).await.is_err() {
            return;
        }
    }
}

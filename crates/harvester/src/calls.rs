//! The calls of this process: reserved before they are made and ended afterwards, many in one transaction of the store.
//!
//! While one transaction is under way, the calls that come in wait for the next: a call by itself is reserved at once, and
//! a thousand need a few transactions.

use async_trait::async_trait;
use domain::budget::{CallBound, CallEnd};
use domain::ids::{CallId, PromptId};
use domain::ports::{CallGrant, CallRequest, CallStore, StoreError};
use domain::{Fault, Stores};
use std::sync::Arc;
use std::time::Duration;
use teacher::{CallAccount, NotReserved};
use tokio::sync::{mpsc, oneshot};

/// Calls of one transaction.
const BATCH: usize = 200;
/// Tries at an end that the store does not take. One that is given up stays in doubt.
const TRIES_MAX: u32 = 6;
/// The wait before the second try; it doubles with each.
const PAUSE: Duration = Duration::from_millis(250);

type Granted = Result<CallGrant, NotReserved>;

/// Where calls are reserved and ended. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Calls {
    requests: mpsc::Sender<(CallRequest, oneshot::Sender<Granted>)>,
    ends: mpsc::Sender<((CallId, CallEnd), oneshot::Sender<()>)>,
}

impl Calls {
    /// Starts the two tasks that write; they end when the last clone is dropped.
    pub(crate) fn start(stores: &Stores) -> Self {
        let (requests, requested) = mpsc::channel(BATCH);
        let (ends, ended) = mpsc::channel(BATCH);
        tokio::spawn(reserve(Arc::clone(&stores.calls), requested));
        tokio::spawn(end(Arc::clone(&stores.calls), ended));
        Self { requests, ends }
    }

    /// The account of a leased prompt.
    pub(crate) fn account(&self, prompt: PromptId, attempt: u32) -> Arc<PromptAccount> {
        Arc::new(PromptAccount { calls: self.clone(), prompt, attempt })
    }
}

/// What the calls for one leased prompt are reserved on: its job's budget.
pub(crate) struct PromptAccount {
    calls: Calls,
    prompt: PromptId,
    attempt: u32,
}

#[async_trait]
impl CallAccount for PromptAccount {
    async fn reserve(&self, bound: CallBound) -> Result<CallId, NotReserved> {
        let call = CallId::generate();
        let request = CallRequest { call, prompt: self.prompt, attempt: self.attempt, bound };
        let (answer, answered) = oneshot::channel();
        let closed = || NotReserved::Unavailable("this process is shutting down".to_owned());
        self.calls.requests.send((request, answer)).await.map_err(|_| closed())?;
        match answered.await.map_err(|_| closed())?? {
            CallGrant::Granted => Ok(call),
            CallGrant::Later => Err(NotReserved::Later),
            CallGrant::Exhausted => Err(NotReserved::Exhausted),
            CallGrant::LeaseLost => Err(NotReserved::LeaseLost),
        }
    }

    async fn end(&self, call: CallId, end: CallEnd) {
        let (answer, answered) = oneshot::channel();
        if self.calls.ends.send(((call, end), answer)).await.is_ok() {
            // Written, or given up and in doubt.
            let _ = answered.await;
        }
    }
}

async fn reserve(
    store: Arc<dyn CallStore>,
    mut requested: mpsc::Receiver<(CallRequest, oneshot::Sender<Granted>)>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while requested.recv_many(&mut batch, BATCH).await > 0 {
        let (requests, answers): (Vec<CallRequest>, Vec<_>) = batch.drain(..).unzip();
        match store.reserve_calls(&requests).await {
            Ok(grants) => {
                for (answer, grant) in answers.into_iter().zip(grants) {
                    // Whoever asked may be gone: the call stays reserved, and is in doubt once its lease ends.
                    let _ = answer.send(Ok(grant));
                }
            }
            Err(error) => {
                let words = error.to_string();
                for answer in answers {
                    let _ = answer.send(Err(NotReserved::Unavailable(words.clone())));
                }
            }
        }
    }
}

async fn end(store: Arc<dyn CallStore>, mut ended: mpsc::Receiver<((CallId, CallEnd), oneshot::Sender<()>)>) {
    let mut batch = Vec::with_capacity(BATCH);
    while ended.recv_many(&mut batch, BATCH).await > 0 {
        let (ends, answers): (Vec<(CallId, CallEnd)>, Vec<_>) = batch.drain(..).unzip();
        if let Err(error) = write_ends(store.as_ref(), &ends).await {
            tracing::warn!(%error, count = ends.len(), "calls stay in doubt: their ends cannot be written");
        }
        for answer in answers {
            let _ = answer.send(());
        }
    }
}

async fn write_ends(store: &dyn CallStore, ends: &[(CallId, CallEnd)]) -> Result<(), StoreError> {
    let mut wait = PAUSE;
    for _try in 1..TRIES_MAX {
        match store.end_calls(ends).await {
            Err(error) if error.fault() == Fault::Unavailable => tokio::time::sleep(wait).await,
            ended => return ended,
        }
        wait = wait.saturating_mul(2);
    }
    store.end_calls(ends).await
}

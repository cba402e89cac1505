//! The account of a job: every HTTP request is reserved on it at the most it can cost before it is sent, and ends in one way.

use crate::error::TeacherError;
use async_trait::async_trait;
use domain::budget::{CallBound, CallEnd};
use domain::ids::CallId;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Why a call is not reserved; it is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReserved {
    /// Other calls hold what is left of the budget, and may give some of it back.
    Later,
    /// The budget is used up.
    Exhausted,
    /// The prompt is no longer this worker's, or its job no longer harvests.
    LeaseLost,
    /// The records do not answer.
    Unavailable(String),
}

impl NotReserved {
    pub(crate) fn into_error(self) -> TeacherError {
        match self {
            Self::Later => TeacherError::BudgetLater,
            Self::Exhausted => TeacherError::BudgetExhausted,
            Self::LeaseLost => TeacherError::LeaseLost,
            Self::Unavailable(message) => TeacherError::Unaccounted(message),
        }
    }
}

/// What the calls for one prompt are reserved on.
#[async_trait]
pub trait CallAccount: Send + Sync + 'static {
    /// Reserves one request at its bound. It is sent right afterwards, or ended as refused.
    ///
    /// # Errors
    /// The call must not be made.
    async fn reserve(&self, bound: CallBound) -> Result<CallId, NotReserved>;
    /// How a reserved call ended. The call of an answer that [`Teacher::ask`](crate::Teacher::ask) returns is not ended
    /// here: whoever keeps the answer ends it together with that.
    async fn end(&self, call: CallId, end: CallEnd);
}

/// An account without limits that keeps nothing, for probes and tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unmetered;

#[async_trait]
impl CallAccount for Unmetered {
    async fn reserve(&self, _bound: CallBound) -> Result<CallId, NotReserved> {
        Ok(CallId::generate())
    }

    async fn end(&self, _call: CallId, _end: CallEnd) {}
}

/// A reserved call that has not ended. Dropped without an end, as when its prompt is cancelled, it ends in doubt: the request
/// may have reached the teacher.
pub(crate) struct OpenCall {
    account: Arc<dyn CallAccount>,
    call: CallId,
    /// How it ends when it is dropped; `None` where that is reported.
    on_drop: Option<CallEnd>,
}

impl OpenCall {
    pub(crate) async fn reserve(
        account: &Arc<dyn CallAccount>,
        bound: CallBound,
    ) -> Result<Self, NotReserved> {
        let call = account.reserve(bound).await?;
        Ok(Self { account: Arc::clone(account), call, on_drop: Some(CallEnd::InDoubt) })
    }

    pub(crate) fn id(&self) -> CallId {
        self.call
    }

    /// The call was answered: whoever keeps the answer ends it.
    pub(crate) fn answered(mut self) {
        self.on_drop = None;
    }

    pub(crate) async fn end(mut self, end: CallEnd) {
        self.on_drop = Some(end);
        self.account.end(self.call, end).await;
        self.on_drop = None;
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let (Some(end), Ok(runtime)) = (self.on_drop, Handle::try_current()) else { return };
        let (account, call) = (Arc::clone(&self.account), self.call);
        runtime.spawn(async move { account.end(call, end).await });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::Duration;

    #[derive(Default)]
    struct Ends(Mutex<Vec<CallEnd>>);

    #[async_trait]
    impl CallAccount for Ends {
        async fn reserve(&self, _bound: CallBound) -> Result<CallId, NotReserved> {
            Ok(CallId::generate())
        }

        async fn end(&self, _call: CallId, end: CallEnd) {
            // An end that is given up half way is reported again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(end);
        }
    }

    #[tokio::test]
    async fn a_call_ends_once_however_it_is_given_up() {
        async fn check(expected: &[CallEnd], act: impl AsyncFnOnce(OpenCall)) {
            let ends = Arc::new(Ends::default());
            let account: Arc<dyn CallAccount> = Arc::clone(&ends) as Arc<dyn CallAccount>;
            let Ok(open) = OpenCall::reserve(&account, CallBound::default()).await else { return };
            act(open).await;
            tokio::time::sleep(Duration::from_millis(120)).await;
            assert_eq!(*ends.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner), expected);
        }
        check(&[CallEnd::InDoubt], async |open| drop(open)).await;
        check(&[CallEnd::Refused], async |open| open.end(CallEnd::Refused).await).await;
        check(&[], async |open| open.answered()).await;
        check(&[CallEnd::Failed], async |open| {
            let given_up = tokio::time::timeout(Duration::from_millis(5), open.end(CallEnd::Failed)).await;
            assert!(given_up.is_err());
        })
        .await;
    }
}

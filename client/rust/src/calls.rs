use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::client::Shared;
use crate::connections::Slot;
use crate::errors::{CallError, Error, Result};
use crate::retries::Retries;

/// Time without an answer to a single call after which its connection counts as dead.
pub(crate) const UNANSWERED: Duration = Duration::from_secs(10);

impl Shared {
    /// Make a single call within the client's timeout, and repeat it after cuts: all of lavant's calls may be repeated. An
    /// attempt without an answer in a third of the time is repeated over another connection.
    pub(crate) async fn call<Q, A, F, Fut>(&self, request: Q, method: F) -> Result<A>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<A>, Status>>,
    {
        let patience = UNANSWERED.max(self.timeout / 3);
        let attempt = || self.attempt(self.pool.short(), patience, request.clone(), &method);
        self.repeat(self.timeout, attempt).await
    }

    /// Make a single call once, within `patience`.
    pub(crate) async fn attempt<Q, A, F, Fut>(&self, slot: Slot, patience: Duration, request: Q, method: F) -> Result<A>
    where
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<A>, Status>>,
    {
        let request = self.credential.authorize(request).await?;
        let Ok(answer) = timeout(patience, method(slot.channel(), request)).await else {
            slot.retire();
            return Err(Error::cut(format!("no answer came for {patience:?}: the connection is dead")));
        };
        let failed = answer.as_ref().err().map(|status| CallError::from(status.clone()));
        slot.note(failed.as_ref().is_some_and(CallError::is_cut));
        match failed {
            Some(failed) => Err(Error::Call(Box::new(failed))),
            None => Ok(answer?.into_inner()),
        }
    }

    /// Make attempts until one succeeds, fails for good, or the time is over. The error is then that of the last attempt
    /// that has ended.
    pub(crate) async fn repeat<A, F, Fut>(&self, limit: Duration, attempt: F) -> Result<A>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<A>>,
    {
        let deadline = Instant::now() + limit;
        let mut retries = Retries::default();
        let mut last = Error::cut(format!("no answer came within {limit:?}"));
        loop {
            match timeout_at(deadline, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => return Err(last),
            }
            match retries.after(&last, &self.credential, CallError::is_retried) {
                Some(delay) if Instant::now() + delay < deadline => sleep(delay).await,
                _ => return Err(last),
            }
        }
    }
}

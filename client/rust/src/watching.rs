use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tracing::warn;

use crate::client::Shared;
use crate::connections::MAX_RESPONSE;
use crate::errors::{CallError, Error, Result, duration};
use crate::frames::Frames;
use crate::proto::run_service_client::RunServiceClient;
use crate::proto::{ErrorReason, Run, RunFilter, WatchRunsRequest, WatchRunsResponse};
use crate::retries::Retries;

/// Three heartbeats of the server.
const SILENCE: Duration = Duration::from_secs(45);

/// One step of a watch.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RunChange {
    /// The run matches, and was created or has changed its state.
    Changed(Box<Run>),
    /// The run with this ID has changed its state, and does not match any more.
    Left(String),
    /// The run with this ID was deleted. It may be one that never matched.
    Deleted(String),
    /// All runs that match were returned. Once per watch.
    CaughtUp,
    /// The position is older than what the server keeps. Remove all runs: those that match follow.
    Reset,
}

/// Runs that match a filter, and then each change to them, over as many calls as it takes.
///
/// It ends only after an error that a reconnect cannot solve. It returns current states: of a run that changes several
/// times while the caller is busy, some are left out.
pub struct RunWatch {
    client: Arc<Shared>,
    request: WatchRunsRequest,
    state: State,
    retries: Retries,
    changes: VecDeque<RunChange>,
    before: String,
    is_caught_up: bool,
    planned: Option<Duration>,
}

enum State {
    Waiting(Option<Pin<Box<Sleep>>>),
    Calling(Frames<WatchRunsResponse>),
    Ended,
}

impl RunWatch {
    pub(crate) fn new(client: Arc<Shared>, filter: RunFilter, resume_token: String) -> Self {
        let before = resume_token.clone();
        Self {
            client,
            request: WatchRunsRequest { filter: Some(filter), resume_token, ..Default::default() },
            state: State::Waiting(None),
            retries: Retries::default(),
            changes: VecDeque::new(),
            before,
            is_caught_up: false,
            planned: None,
        }
    }

    /// Position after the changes that the watch has returned, valid for 24 hours: store it when they are handled. Changes
    /// that came together share the position before them, until the last one.
    pub fn position(&self) -> &str {
        if self.changes.is_empty() { &self.request.resume_token } else { &self.before }
    }

    fn call(&mut self) -> State {
        self.retries.begin();
        State::Calling(Frames::open(&self.client, SILENCE, self.request.clone(), |channel, request| async move {
            RunServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE).watch_runs(request).await
        }))
    }

    /// Accept a frame; its changes are in the order in which they are to be applied.
    fn accept(&mut self, frame: WatchRunsResponse) {
        self.retries.open();
        self.changes.extend(frame.deleted_run_ids.into_iter().map(RunChange::Deleted));
        self.changes.extend(frame.left_run_ids.into_iter().map(RunChange::Left));
        self.changes.extend(frame.runs.into_iter().map(|run| RunChange::Changed(Box::new(run))));
        if frame.caught_up && !self.is_caught_up {
            self.is_caught_up = true; // each call catches up
            self.changes.push_back(RunChange::CaughtUp);
        }
        if !self.changes.is_empty() && frame.resume_token != self.request.resume_token {
            self.retries.progress();
        }
        self.before = std::mem::replace(&mut self.request.resume_token, frame.resume_token);
        if let (Some(end), State::Calling(frames)) = (frame.end, &mut self.state) {
            self.planned = Some(end.retry_delay.map(duration).unwrap_or_default());
            frames.expect_status();
        }
    }

    /// Decide what follows the end of a call. An error is the last item.
    fn settle(&mut self, failed: Option<Error>) -> Result<()> {
        self.state = State::Ended;
        let is_first = self.retries.settle();
        let delay = match (self.planned.take(), failed) {
            (Some(asked), _) => self.retries.planned(asked),
            (None, None) => return Ok(()),
            // The position is too old, or the filter is invalid, which fails again without the position.
            (None, Some(error))
                if error.reason() == Some(ErrorReason::InvalidField) && !self.request.resume_token.is_empty() =>
            {
                self.request.resume_token.clear();
                self.changes.push_back(RunChange::Reset);
                Duration::ZERO
            }
            (None, Some(error)) => {
                let Some(delay) = self.retries.after(&error, &self.client.credential, CallError::is_retried) else {
                    return Err(error);
                };
                if is_first {
                    warn!(%error, "watch cut");
                }
                delay
            }
        };
        self.state = State::Waiting(Some(Box::pin(sleep(delay))));
        Ok(())
    }
}

impl Stream for RunWatch {
    type Item = Result<RunChange>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let watch = self.get_mut();
        loop {
            if let Some(change) = watch.changes.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            match &mut watch.state {
                State::Waiting(delay) => {
                    if let Some(delay) = delay {
                        ready!(delay.as_mut().poll(cx));
                    }
                    watch.state = watch.call();
                }
                State::Calling(frames) => match ready!(frames.poll_frame(cx)) {
                    Ok(frame) if watch.planned.is_none() => watch.accept(frame),
                    result => {
                        if let Err(error) = watch.settle(result.err()) {
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

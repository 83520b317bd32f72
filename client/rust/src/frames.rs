use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::Stream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::client::Shared;
use crate::connections::Slot;
use crate::errors::{Error, Result};

/// Frames that a call without any counts as cut for.
pub(crate) const MISSED_HEARTBEATS: u32 = 3;
/// Time for the status of a call after its last frame.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

type Opening<T> = Pin<Box<dyn Future<Output = Result<Streaming<T>>> + Send>>;

/// One call that streams frames, with a watchdog. Dropping it cancels the call.
pub(crate) struct Frames<T> {
    slot: Slot,
    call: Call<T>,
    silence: Duration,
    watchdog: Pin<Box<Sleep>>,
    is_watched: bool,
    is_complete: bool,
}

enum Call<T> {
    Opening(Opening<T>),
    Open(Box<Streaming<T>>),
}

impl<T: 'static> Frames<T> {
    /// Begin a call, which counts as cut after so much silence.
    pub(crate) fn open<Q, F, Fut>(client: &Arc<Shared>, silence: Duration, request: Q, method: F) -> Self
    where
        Q: Send + 'static,
        F: FnOnce(Channel, Request<Q>) -> Fut + Send + 'static,
        Fut: Future<Output = std::result::Result<Response<Streaming<T>>, Status>> + Send,
    {
        let slot = client.pool.long();
        let (client, channel) = (client.clone(), slot.channel());
        let opening = async move {
            let request = client.credential.authorize(request).await?;
            Ok(method(channel, request).await?.into_inner())
        };
        let call = Call::Opening(Box::pin(opening));
        Self { slot, call, silence, watchdog: Box::pin(sleep(silence)), is_watched: true, is_complete: false }
    }

    /// Return the next frame. An error is the end of the call.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        if !self.is_watched {
            // Time counts from here: however long the application handles the frame before.
            self.watchdog.as_mut().reset(Instant::now() + self.silence);
            self.is_watched = true;
        }
        let found = match self.poll_call(cx) {
            Poll::Ready(found) => found,
            Poll::Pending => {
                ready!(self.watchdog.as_mut().poll(cx));
                if !self.is_complete {
                    self.slot.retire();
                }
                return Poll::Ready(Err(Error::cut(format!("nothing came for {:?}: the connection is dead", self.silence))));
            }
        };
        self.is_watched = false;
        if !self.is_complete {
            self.slot.note(matches!(&found, Err(Error::Call(failed)) if failed.is_cut()));
        }
        Poll::Ready(found)
    }

    fn poll_call(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        loop {
            match &mut self.call {
                Call::Opening(opening) => self.call = Call::Open(Box::new(ready!(opening.as_mut().poll(cx))?)),
                Call::Open(frames) => {
                    let frame = ready!(Pin::new(frames).poll_next(cx));
                    let without_end = || Err(Error::cut("the stream ended without its last frame"));
                    return Poll::Ready(frame.map_or_else(without_end, |frame| frame.map_err(Error::from)));
                }
            }
        }
    }

    /// Expect the next frame after three heartbeats at the latest.
    pub(crate) fn expect_heartbeats(&mut self, interval: Duration) {
        self.silence = interval * MISSED_HEARTBEATS;
    }

    /// Expect the status, since the last frame has come: a call that is cancelled before looks to the server like a cut.
    pub(crate) fn expect_status(&mut self) {
        self.silence = STATUS_TIMEOUT;
        self.is_complete = true;
    }
}

use std::future::pending;
use std::time::Duration;

use prost::bytes::{BufMut, Bytes};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use tracing::warn;

use crate::calls::UNANSWERED;
use crate::connections::{MAX_RESPONSE, Slot};
use crate::errors::{CallError, Error, Result};
use crate::frames::MISSED_HEARTBEATS;
use crate::proto::batch_answer::Outcome;
use crate::proto::{BatchAnswer, ErrorReason, PublishEventsRequest, PublishEventsResponse};
use crate::publisher::{Publisher, Queue};

const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(1);
/// Bound of how often a batch is sent again that the server says is missing.
const GAPS_WITHOUT_PROGRESS: u32 = 5;

impl Publisher {
    /// Make one PublishEvents call after the other, until all is durable and nothing follows, or something fails for good.
    /// Follows docs/protocol.md, "Publishing".
    pub(crate) async fn send(&self) {
        if self.when(|queue| queue.outbox.last() > 0, |_| ()).await.is_err() {
            return;
        }
        let mut is_first_call = true;
        loop {
            self.lock().retries.begin();
            let error = self.call(is_first_call).await;
            is_first_call = false;
            let (delay, is_first) = {
                let mut queue = self.lock();
                if queue.is_done() {
                    return;
                }
                let is_first = queue.retries.settle();
                (queue.retries.after(&error, &self.client.credential, CallError::is_retried), is_first)
            };
            let Some(delay) = delay else { return self.fail(error) };
            if is_first {
                warn!(run = self.run, %error, "publishing interrupted");
            }
            sleep(delay).await;
        }
    }

    /// Make one call; return why it has ended.
    async fn call(&self, is_first: bool) -> Error {
        let (requests, receiver) = mpsc::channel(1);
        let request = match self.client.credential.authorize(ReceiverStream::new(receiver)).await {
            Ok(request) => request,
            Err(error) => return error,
        };
        {
            let mut queue = self.lock();
            queue.outbox.rewind();
            queue.awaited = 0;
            queue.deadline = Some(Instant::now() + UNANSWERED);
        }
        let slot = self.client.pool.long();
        let error = tokio::select! {
            error = self.receive(&slot, request) => error,
            () = self.transmit(requests, !is_first) => Error::Closed, // all is durable: what is left of the call is of no use
            () = self.watch() => {
                slot.retire();
                return Error::cut("no answer came in time: the connection is dead");
            }
        };
        slot.note(matches!(&error, Error::Call(failed) if failed.is_cut()));
        error
    }

    /// Send what is queued until nothing follows. A call that continues others begins with a heartbeat if there is nothing
    /// to resend, so that the server knows whom to ask to cancel.
    async fn transmit(&self, requests: mpsc::Sender<Bytes>, continues: bool) {
        let mut is_heartbeat_due = continues;
        loop {
            let changed = self.changed.notified();
            let request = {
                let mut queue = self.lock();
                if queue.is_done() {
                    return;
                }
                let mut request = queue.outbox.next_request();
                if is_heartbeat_due && queue.awaited == 0 {
                    request = request.or_else(|| Some(queue.outbox.heartbeat()));
                }
                if request.is_some() {
                    queue.awaited += 1;
                    if queue.awaited == 1 {
                        queue.deadline = Some(Instant::now() + self.silence(&queue));
                    }
                } else if queue.awaited == 0 {
                    queue.deadline = None;
                }
                request
            };
            is_heartbeat_due = false;
            let Some(request) = request else {
                is_heartbeat_due = timeout(self.heartbeat_interval, changed).await.is_err();
                continue;
            };
            self.changed.notify_waiters(); // the watchdog has another deadline
            if requests.send(request).await.is_err() {
                pending::<()>().await; // the call has ended: what is received says why
            }
        }
    }

    /// Wait until an answer is overdue.
    async fn watch(&self) {
        loop {
            let changed = self.changed.notified();
            let deadline = self.lock().deadline;
            match deadline {
                Some(deadline) if deadline <= Instant::now() => return,
                Some(deadline) => sleep_until(deadline).await,
                None => changed.await,
            }
        }
    }

    /// How long an answer may not come: not so long for the first one.
    fn silence(&self, queue: &Queue) -> Duration {
        let silence = self.heartbeat_interval.max(SHORTEST_HEARTBEAT) * MISSED_HEARTBEATS;
        if queue.outbox.receipt.is_some() { silence } else { silence.min(UNANSWERED) }
    }

    /// Handle the server's responses; return why the call has ended.
    async fn receive(&self, slot: &Slot, requests: Request<ReceiverStream<Bytes>>) -> Error {
        match self.responses(slot, requests).await {
            Ok(()) => Error::cut("the server ended the call"),
            Err(error) => error,
        }
    }

    async fn responses(&self, slot: &Slot, requests: Request<ReceiverStream<Bytes>>) -> Result<()> {
        let mut stub = tonic::client::Grpc::new(slot.channel()).max_decoding_message_size(MAX_RESPONSE);
        stub.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let path = PathAndQuery::from_static("/lavant.v1.EventService/PublishEvents");
        let mut responses = stub.streaming(requests, path, Serialized).await?.into_inner();
        while let Some(response) = responses.message().await? {
            for answer in response.answers {
                self.handle(answer)?;
            }
            if let Some(request) = response.cancel_requests.into_iter().next() {
                self.cancel_reason.send_replace(Some(request.reason));
            }
            self.changed.notify_waiters();
        }
        Ok(())
    }

    /// Accept the answer to a batch. An error ends the call: whether it is retried is decided as for a call.
    fn handle(&self, answer: BatchAnswer) -> Result<()> {
        let mut queue = self.lock();
        queue.awaited = queue.awaited.saturating_sub(1);
        queue.deadline = (queue.awaited > 0).then(|| Instant::now() + self.silence(&queue));
        match answer.outcome {
            Some(Outcome::Receipt(receipt)) => {
                queue.retries.open();
                if queue.outbox.acknowledge(receipt) {
                    queue.retries.progress();
                    queue.gaps = 0;
                }
                Ok(())
            }
            Some(Outcome::Rejection(rejection)) => reject(&mut queue, rejection.into()),
            None => Ok(()), // of a newer contract
        }
    }
}

/// Return the error of a rejection that matters: what follows another rejection does not.
fn reject(queue: &mut Queue, rejection: CallError) -> Result<()> {
    let gap = rejection.gap().filter(|_| rejection.known_reason() == Some(ErrorReason::ProducerGap));
    if let Some(gap) = gap {
        if gap.follows_rejection {
            return Ok(());
        }
        queue.gaps += 1;
        if queue.outbox.holds(gap.expected_producer_sequence) && queue.gaps <= GAPS_WITHOUT_PROGRESS {
            return Err(Error::cut(rejection.message));
        }
    }
    Err(Error::Call(Box::new(rejection)))
}

/// Codec of requests that were serialized before.
struct Serialized;

impl Codec for Serialized {
    type Encode = Bytes;
    type Decode = PublishEventsResponse;
    type Encoder = Self;
    type Decoder = <ProstCodec<PublishEventsRequest, PublishEventsResponse> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<PublishEventsRequest, PublishEventsResponse>::default().decoder()
    }
}

impl Encoder for Serialized {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, request: Bytes, buffer: &mut EncodeBuf<'_>) -> std::result::Result<(), Status> {
        buffer.put(request);
        Ok(())
    }
}

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tracing::warn;
use uuid::Uuid;

use crate::client::Shared;
use crate::connections::MAX_RESPONSE;
use crate::errors::{CallError, Error, Result, duration};
use crate::frames::{Frames, MISSED_HEARTBEATS};
use crate::position::Position;
use crate::proto::event_service_client::EventServiceClient;
use crate::proto::stream_events_request::StartFrom;
use crate::proto::{
    DeltaMode, Event, EventType, Run, StartPosition, StopPosition, StreamEnd, StreamEndReason, StreamEventsRequest,
    StreamEventsResponse, StreamOpened,
};
use crate::retries::Retries;
use crate::sessions::{Attempt, Session};

/// Settings of a stream. The default reads the whole run, to its end.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// ID of the reader, such as "alice@example.org": one stream is open per run and consumer. Empty: a consumer of its
    /// own.
    pub consumer: String,
    /// Position to continue after, from [`EventStream::position`] or any other client.
    pub resume_token: String,
    /// Whether to displace the stream of another session of the consumer, instead of failing with CONSUMER_BUSY.
    pub take_over: bool,
    /// Start of a stream without a resume token. Default: the first event.
    pub start: StartPosition,
    /// End of the stream. Default: the end of the run.
    pub stop: StopPosition,
    /// Types of events to read. Empty: with a resume token, those of the stream that it comes from; otherwise all.
    pub types: Vec<EventType>,
    /// How deltas are sent. Default: each as it was published.
    pub deltas: DeltaMode,
    /// Time without an event after which the stream ends with reason IDLE. 1 s to 24 h. Default: none.
    pub idle_timeout: Option<Duration>,
    /// Time of silence after which the server sends a heartbeat; after three without any, the connection counts as cut.
    /// 1 s to 60 s. Default 15 s.
    pub heartbeat_interval: Duration,
    /// Whether to wait for the run to be created, instead of failing with RUN_NOT_FOUND.
    pub wait_for_run: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            consumer: String::new(),
            resume_token: String::new(),
            take_over: false,
            start: StartPosition::Beginning,
            stop: StopPosition::RunFinished,
            types: Vec::new(),
            deltas: DeltaMode::All,
            idle_timeout: None,
            heartbeat_interval: Duration::from_secs(15),
            wait_for_run: false,
        }
    }
}

/// Events of one run, over as many calls as it takes: each once, recorded ones and then new ones.
///
/// The stream ends when it is complete, or after an error that a reconnect cannot solve. Cut connections are restored
/// without limit: drop the stream, or set a timeout around it, to stop. Dropping it between events loses none: another
/// one that is given its [`position`](Self::position) continues there.
pub struct EventStream {
    pub(crate) client: Arc<Shared>,
    session: Arc<Session>,
    request: StreamEventsRequest,
    state: State,
    retries: Retries,
    position: Position,
    opened: Option<StreamOpened>,
    end: Option<StreamEnd>,
    is_caught_up: bool,
}

enum State {
    Waiting(Option<Pin<Box<Sleep>>>),
    Calling(Frames<StreamEventsResponse>, Attempt),
    Ended,
}

impl EventStream {
    pub(crate) fn new(client: Arc<Shared>, run_id: String, options: ReadOptions) -> Self {
        let (consumer_id, session) = if options.consumer.is_empty() {
            (format!("anonymous-{}", Uuid::new_v4()), Session::new())
        } else {
            let session = client.sessions.begin(&run_id, &options.consumer, options.take_over);
            (options.consumer, session)
        };
        let request = StreamEventsRequest {
            run_id,
            consumer_id,
            session_id: session.id.clone(),
            attempt: 0,
            take_over: options.take_over,
            start_from: Some(StartFrom::Start(options.start.into())),
            stop: options.stop.into(),
            types: options.types.into_iter().map(i32::from).collect(),
            deltas: options.deltas.into(),
            heartbeat_interval: prost_types::Duration::try_from(options.heartbeat_interval).ok(),
            idle_timeout: options.idle_timeout.and_then(|timeout| timeout.try_into().ok()),
            wait_for_run: options.wait_for_run,
            ..Default::default()
        };
        Self {
            client,
            session,
            request,
            state: State::Waiting(None),
            retries: Retries::default(),
            position: Position::parse(&options.resume_token),
            opened: None,
            end: None,
            is_caught_up: false,
        }
    }

    /// Resume token after the last event that the stream has returned: store it when that event is handled. Empty before
    /// the first frame.
    ///
    /// Between the events of a frame it has a form that lavant's own clients accept, and the server does not. With
    /// [`DeltaMode::Merged`], a delta that extends beyond such a position is returned whole, with text that was returned
    /// before.
    pub fn position(&self) -> String {
        self.position.text()
    }

    /// ID of the run.
    pub fn run_id(&self) -> &str {
        &self.request.run_id
    }

    /// Run as it was when the stream was opened last. None before, and while the stream waits for the run.
    pub fn run(&self) -> Option<&Run> {
        self.opened.as_ref()?.run.as_ref()
    }

    /// Number of the consumer's lease, which grows with every opening: use it to reject writes of an older reader in your
    /// own storage. 0 before the stream is opened.
    pub fn fence(&self) -> i64 {
        self.opened.as_ref().map_or(0, |opened| opened.fence)
    }

    /// Whether all events that were recorded when the stream was opened first have been returned.
    pub fn is_caught_up(&self) -> bool {
        self.is_caught_up && !self.position.has_events()
    }

    /// Why the stream is complete: RUN_FINISHED, HEAD_REACHED or IDLE. None: it is not.
    pub fn end_reason(&self) -> Option<StreamEndReason> {
        self.end.as_ref().filter(|end| !end.reconnect).map(StreamEnd::reason)
    }

    fn call(&mut self) -> State {
        self.retries.begin();
        let attempt = self.session.begin();
        let mut request = self.request.clone();
        request.attempt = attempt.number;
        request.take_over &= !self.session.was_opened();
        if !self.position.token().is_empty() {
            request.start_from = Some(StartFrom::ResumeToken(self.position.token().to_owned()));
        }
        let silence = self.request.heartbeat_interval.map(duration).unwrap_or_default() * MISSED_HEARTBEATS;
        let frames = Frames::open(&self.client, silence, request, |channel, request| async move {
            EventServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE).stream_events(request).await
        });
        State::Calling(frames, attempt)
    }

    /// Accept a frame, after all events of earlier ones were returned.
    fn accept(&mut self, frame: StreamEventsResponse) {
        let State::Calling(frames, attempt) = &mut self.state else { return };
        if let Some(opened) = frame.opened {
            attempt.open();
            self.retries.open();
            if let Some(interval) = opened.heartbeat_interval.map(duration).filter(|interval| !interval.is_zero()) {
                frames.expect_heartbeats(interval);
            }
            self.position.start(opened.start_token.clone());
            self.opened = Some(opened);
        }
        let events = frame.events.map(|batch| batch.events).unwrap_or_default();
        let has_new = self.position.accept(events, frame.resume_token);
        if has_new || frame.caught_up.is_some() && !self.is_caught_up {
            self.retries.progress();
        }
        self.is_caught_up |= frame.caught_up.is_some();
        if frame.end.is_some() {
            self.end = frame.end;
            frames.expect_status();
        }
    }

    /// Decide what follows the end of a call. An error is the stream's last item.
    fn settle(&mut self, failed: Option<Error>) -> Result<()> {
        self.state = State::Ended;
        let delay = match (self.end.take(), failed) {
            (Some(end), _) if !end.reconnect => {
                self.end = Some(end);
                return Ok(());
            }
            (Some(end), _) => self.retries.planned(end.retry_delay.map(duration).unwrap_or_default()),
            (None, None) => return Ok(()),
            (None, Some(error)) => {
                let is_first = self.retries.settle();
                let Some(delay) = self.retries.after(&error, &self.client.credential, CallError::is_cut) else {
                    return Err(error);
                };
                if is_first {
                    warn!(run = self.request.run_id, %error, "stream cut");
                }
                delay
            }
        };
        self.state = State::Waiting(Some(Box::pin(sleep(delay))));
        Ok(())
    }
}

impl Stream for EventStream {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let stream = self.get_mut();
        loop {
            if let Some(event) = stream.position.next() {
                return Poll::Ready(Some(Ok(event)));
            }
            match &mut stream.state {
                State::Waiting(delay) => {
                    if let Some(delay) = delay {
                        ready!(delay.as_mut().poll(cx));
                    }
                    stream.state = stream.call();
                }
                State::Calling(frames, _) => match ready!(frames.poll_frame(cx)) {
                    // What follows the last frame is the status, or the connection was cut: both are the end.
                    Ok(frame) if stream.end.is_none() => stream.accept(frame),
                    result => {
                        if let Err(error) = stream.settle(result.err()) {
                            return Poll::Ready(Some(Err(error)));
                        }
                    }
                },
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

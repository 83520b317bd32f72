use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Mutex;

use crate::blocks::{Step, StepOptions, ToolCall};
use crate::errors::Result;
use crate::message::Message;
use crate::outcome::describe;
use crate::proto::event::Payload;
use crate::proto::{ArtifactUpdated, CustomEvent, ErrorReported, Event, ProgressReported, Role, StateSnapshot};
use crate::publisher::{Kind, Publisher};
use crate::runs::new_id;

/// Where events belong: a step, or the run itself. [`RunProducer`](crate::RunProducer) and [`Step`] have its methods.
///
/// Methods queue events, and wait only while the outbox is full. They fail when the server has refused an event for good:
/// the run cannot be continued then.
#[derive(Clone)]
pub struct Scope {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) step: String,
    spoken: Arc<Spoken>,
}

/// Messages of a run that were started by their text, by their step.
struct Spoken {
    model: String,
    open: Mutex<HashMap<String, Message>>,
}

impl Scope {
    pub(crate) fn new(publisher: Arc<Publisher>, model: String) -> Self {
        let spoken = Spoken { model, open: Mutex::default() };
        Self { publisher, step: String::new(), spoken: Arc::new(spoken) }
    }

    pub(crate) fn within(&self, step: String) -> Self {
        Self { step, ..self.clone() }
    }

    /// Publish an event of the contract. Its ID and time are set, and its step, unless it has them.
    pub async fn publish(&self, mut event: Event) -> Result<()> {
        if event.step_id.is_empty() {
            event.step_id.clone_from(&self.step);
        }
        self.publisher.publish(event, Kind::Ordinary).await
    }

    pub(crate) async fn put(&self, payload: Payload) -> Result<()> {
        self.publish(Event { payload: Some(payload), ..Default::default() }).await
    }

    /// Queue the end of something that has begun in this scope.
    pub(crate) async fn close(&self, payload: Payload, kind: Kind) -> Result<()> {
        let event = Event { step_id: self.step.clone(), payload: Some(payload), ..Default::default() };
        self.publisher.publish(event, kind).await
    }

    /// Append text to the assistant's message that is open in this step by its text, and start one if none is. The message
    /// ends where the next step, tool call or message of the step begins.
    pub async fn text(&self, text: &str) -> Result<()> {
        self.say(text, false).await
    }

    /// Append reasoning as [`text`](Self::text) appends text.
    pub async fn reasoning(&self, text: &str) -> Result<()> {
        self.say(text, true).await
    }

    async fn say(&self, text: &str, is_reasoning: bool) -> Result<()> {
        let mut open = self.spoken.open.lock().await;
        if !open.contains_key(&self.step) {
            let message = Message::start(self.clone(), Role::Assistant, &self.spoken.model).await?;
            open.insert(self.step.clone(), message);
        }
        match open.get_mut(&self.step) {
            Some(message) if is_reasoning => message.reasoning(text).await,
            Some(message) => message.text(text).await,
            None => Ok(()),
        }
    }

    /// Finish the message that its text has started in this step, if one is open.
    pub async fn end_message(&self) -> Result<()> {
        let message = self.spoken.open.lock().await.remove(&self.step);
        match message {
            Some(message) => message.end().await,
            None => Ok(()),
        }
    }

    /// Finish all messages of the run that their text has started.
    pub(crate) async fn end_messages(&self) -> Result<()> {
        let open = std::mem::take(&mut *self.spoken.open.lock().await);
        for message in open.into_values() {
            message.end().await?;
        }
        Ok(())
    }

    /// Start a message of an author.
    pub async fn message(&self, role: Role, model: &str) -> Result<Message> {
        self.end_message().await?;
        Message::start(self.clone(), role, model).await
    }

    /// Start a step within this one.
    pub async fn step(&self, name: &str, options: StepOptions) -> Result<Step> {
        self.end_message().await?;
        Step::start(self, name, options).await
    }

    /// Start a call of a tool. With an empty ID, a new one is chosen; otherwise it is the model's own.
    pub async fn tool(&self, name: &str, arguments: impl Into<Value>, id: &str) -> Result<ToolCall> {
        self.end_message().await?;
        ToolCall::start(self, name, arguments.into(), id).await
    }

    /// Report how many units are done, of how many; none where that is not known.
    pub async fn progress(&self, label: &str, completed: Option<i64>, total: Option<i64>) -> Result<()> {
        let progress = ProgressReported { label: label.to_owned(), completed, total, ..Default::default() };
        self.put(Payload::ProgressReported(progress)).await
    }

    /// Report an error that does not end the run.
    pub async fn report_error<E: Display>(&self, error: E) -> Result<()> {
        self.put(Payload::ErrorReported(ErrorReported { error: Some(describe(&error)), ..Default::default() })).await
    }

    /// Publish a whole state, from which readers continue. The name distinguishes several states.
    pub async fn state(&self, name: &str, value: impl Into<Value>) -> Result<()> {
        let snapshot = StateSnapshot { name: name.to_owned(), value_json: value.into().to_string(), ..Default::default() };
        self.put(Payload::StateSnapshot(snapshot)).await
    }

    /// Publish an event of your own, under a dotted name such as "weather.measured".
    pub async fn custom(&self, name: &str, value: impl Into<Value>) -> Result<()> {
        let custom = CustomEvent { name: name.to_owned(), value_json: value.into().to_string(), ..Default::default() };
        self.put(Payload::Custom(custom)).await
    }

    /// Publish a file by its content or its URI. Without an ID a new one is set; with that of an earlier artifact, its
    /// content is replaced or extended.
    pub async fn artifact(&self, mut artifact: ArtifactUpdated) -> Result<()> {
        if artifact.artifact_id.is_empty() {
            artifact.artifact_id = new_id();
        }
        self.put(Payload::ArtifactUpdated(artifact)).await
    }
}

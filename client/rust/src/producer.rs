use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::AbortHandle;

use crate::blocks::text;
use crate::client::Shared;
use crate::errors::{Error, Result};
use crate::outcome::Outcome;
use crate::proto::event::Payload;
use crate::proto::{BatchReceipt, RunFinished, RunKind, RunSettings, RunStarted};
use crate::publisher::{Kind, Publisher};
use crate::runs::new_id;
use crate::scope::Scope;

/// Identity and limits of a producer.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// ID of the producer. Empty: a new one. A process that continues a run of another one uses its ID with a higher
    /// epoch, which fences the other one off.
    pub id: String,
    /// Incarnation of the producer. Default 1.
    pub epoch: i64,
    /// Size of the outbox in bytes; beyond it, methods wait. Default 8 MiB.
    pub queue_bytes: usize,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self { id: String::new(), epoch: 1, queue_bytes: 8 << 20 }
    }
}

/// Settings of a run that is started.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// ID of the run. Empty: a new one.
    pub run_id: String,
    /// Kind of the run.
    pub kind: RunKind,
    /// Labels of the run.
    pub labels: BTreeMap<String, String>,
    /// ID of the run that starts this one. Empty: none.
    pub parent_run_id: String,
    /// ID of the conversation that the run belongs to. Empty: none.
    pub conversation_id: String,
    /// Time without a batch of the producer after which the server ends the run as ABANDONED. None: the server's.
    pub producer_timeout: Option<Duration>,
    /// Input of the run.
    pub input: Option<Value>,
    /// Version of the agent or evaluation. Empty if not known.
    pub version: String,
    /// Name of the model. Empty if there is none or several.
    pub model: String,
    /// Identity and limits of the producer.
    pub producer: ProducerOptions,
}

/// Producer of one run. Its methods queue events, which a task sends in order and exactly once, over as many calls as it
/// takes; they wait only while the outbox is full. Clones publish the same run.
///
/// End it with [`finish`](Self::finish). When the last clone is dropped without that, the task ends, the run stays open,
/// and what is not durable is lost, which is logged.
#[derive(Clone)]
pub struct RunProducer {
    scope: Scope,
    sending: Arc<Sending>,
}

/// Task of a producer, which ends with its last clone.
struct Sending {
    publisher: Arc<Publisher>,
    began: Instant,
    task: AbortHandle,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.publisher.fail(Error::Closed);
        self.task.abort();
    }
}

impl RunProducer {
    pub(crate) fn new(client: Arc<Shared>, run: String, settings: Option<RunSettings>, options: ProducerOptions) -> Self {
        Self::of_model(client, run, settings, options, String::new())
    }

    fn of_model(
        client: Arc<Shared>,
        run: String,
        settings: Option<RunSettings>,
        options: ProducerOptions,
        model: String,
    ) -> Self {
        let publisher = Arc::new(Publisher::new(client, run, settings, options));
        let sender = publisher.clone();
        let task = tokio::spawn(async move { sender.send().await }).abort_handle();
        let scope = Scope::new(publisher.clone(), model);
        Self { scope, sending: Arc::new(Sending { publisher, began: Instant::now(), task }) }
    }

    pub(crate) async fn start(client: Arc<Shared>, name: &str, options: StartOptions) -> Result<Self> {
        let run_id = if options.run_id.is_empty() { new_id() } else { options.run_id };
        let settings = RunSettings {
            kind: options.kind.into(),
            name: name.to_owned(),
            labels: options.labels,
            parent_run_id: options.parent_run_id,
            conversation_id: options.conversation_id,
            producer_timeout: options.producer_timeout.and_then(|timeout| timeout.try_into().ok()),
            ..Default::default()
        };
        let run = Self::of_model(client, run_id, Some(settings), options.producer, options.model.clone());
        let (input_json, version, model) = (text(options.input), options.version, options.model);
        run.put(Payload::RunStarted(RunStarted { input_json, version, model, evaluation: None, ..Default::default() })).await?;
        Ok(run)
    }

    /// ID of the run.
    pub fn id(&self) -> &str {
        &self.sending.publisher.run
    }

    /// Wait until somebody asks the run to stop, and return the reason, for people; it may be empty. Stop the work then, and
    /// call [`finish`](Self::finish) with [`Outcome::cancelled`].
    ///
    /// ```no_run
    /// # use lavant::{Outcome, Result, RunProducer};
    /// # async fn example(run: RunProducer, work: impl Future<Output = Outcome>) -> Result<()> {
    /// let outcome = tokio::select! {
    ///     outcome = work => outcome,
    ///     reason = run.cancelled() => Outcome::cancelled(&reason),
    /// };
    /// run.finish(outcome).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn cancelled(&self) -> String {
        let mut reason = self.sending.publisher.cancel_reason.subscribe();
        let asked = reason.wait_for(Option::is_some).await; // fails for a sender that is dropped: this run holds it
        asked.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    /// Wait until all events that were queued before are durable, and return the receipt of the last batch.
    pub async fn flush(&self) -> Result<BatchReceipt> {
        self.sending.publisher.flush().await
    }

    /// End the run, and wait until all of it is durable. Messages that were started by their text are finished. Only the
    /// first call ends the run; all of them wait. If the future is dropped before, the events are still sent as long as a
    /// clone of this is left.
    pub async fn finish(&self, outcome: Outcome) -> Result<BatchReceipt> {
        self.scope.end_messages().await?;
        let finished = RunFinished {
            state: outcome.state.into(),
            output_json: outcome.output_json,
            error: outcome.error,
            usage: outcome.usage,
            duration: self.sending.began.elapsed().try_into().ok(),
            evaluation: outcome.evaluation,
            ..Default::default()
        };
        if !self.sending.publisher.lock().is_finishing {
            self.scope.close(Payload::RunFinished(finished), Kind::Last).await?;
        }
        self.flush().await
    }
}

impl Deref for RunProducer {
    type Target = Scope;

    fn deref(&self) -> &Scope {
        &self.scope
    }
}

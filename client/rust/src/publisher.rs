use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use crate::client::Shared;
use crate::errors::{Error, Result, duration};
use crate::frames::MISSED_HEARTBEATS;
use crate::outbox::{Outbox, encode};
use crate::producer::ProducerOptions;
use crate::proto::{BatchReceipt, Event, ProducerBatch, RunSettings};
use crate::retries::Retries;

const LONGEST_HEARTBEAT: Duration = Duration::from_secs(15);

/// Queue of the events of one run, which a task sends until they are durable.
pub(crate) struct Publisher {
    pub(crate) client: Arc<Shared>,
    pub(crate) run: String,
    producer: String,
    epoch: i64,
    limit: usize,
    pub(crate) heartbeat_interval: Duration,
    /// Notified when anything in the queue changes.
    pub(crate) changed: Notify,
    queue: Mutex<Queue>,
    /// Reason of a request to cancel, once the server has sent one.
    pub(crate) cancel_reason: watch::Sender<Option<String>>,
}

pub(crate) struct Queue {
    pub(crate) outbox: Outbox,
    events: u64, // how many were made, for their IDs
    pub(crate) is_finishing: bool,
    pub(crate) failure: Option<Error>,
    pub(crate) retries: Retries,
    pub(crate) gaps: u32,                 // rejections with PRODUCER_GAP since the last progress
    pub(crate) awaited: usize,            // answers of the present call
    pub(crate) deadline: Option<Instant>, // of the next answer
}

impl Queue {
    /// Whether nothing is left to send, and nothing will be.
    pub(crate) fn is_done(&self) -> bool {
        self.failure.is_some() || self.is_finishing && self.outbox.is_empty()
    }
}

/// Whether more events follow.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// An event that waits while the outbox is full.
    Ordinary,
    /// The end of something that has begun, which never waits.
    Closing,
    /// The end of the run, which never waits.
    Last,
}

impl Publisher {
    /// Return a publisher; without settings the run exists.
    pub(crate) fn new(client: Arc<Shared>, run: String, settings: Option<RunSettings>, options: ProducerOptions) -> Self {
        let timeout = settings.as_ref().and_then(|settings| settings.producer_timeout).map(duration);
        let timeout = timeout.filter(|timeout| !timeout.is_zero());
        let producer = if options.id.is_empty() { Uuid::new_v4().to_string() } else { options.id };
        let address = ProducerBatch {
            run_id: run.clone(),
            producer_id: producer.clone(),
            producer_epoch: options.epoch,
            create: settings,
            ..Default::default()
        };
        let queue = Queue {
            outbox: Outbox::new(address),
            events: 0,
            is_finishing: false,
            failure: None,
            retries: Retries::default(),
            gaps: 0,
            awaited: 0,
            deadline: None,
        };
        Self {
            client,
            run,
            producer,
            epoch: options.epoch,
            limit: options.queue_bytes,
            heartbeat_interval: timeout.map_or(LONGEST_HEARTBEAT, |timeout| LONGEST_HEARTBEAT.min(timeout / MISSED_HEARTBEATS)),
            changed: Notify::new(),
            queue: Mutex::new(queue),
            cancel_reason: watch::Sender::new(None),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queue an event, with an ID and a time unless it has them.
    pub(crate) async fn publish(&self, mut event: Event, kind: Kind) -> Result<()> {
        let is_ready = |queue: &Queue| kind != Kind::Ordinary || queue.is_finishing || queue.outbox.bytes < self.limit;
        let queue_event = |queue: &mut Queue| {
            if queue.is_finishing {
                return Err(Error::Closed);
            }
            queue.events += 1;
            if event.event_id.is_empty() {
                event.event_id = format!("{}.{}.{}", self.producer, self.epoch, queue.events);
            }
            event.event_time.get_or_insert_with(|| SystemTime::now().into());
            queue.outbox.put(encode(std::mem::take(&mut event))?);
            queue.is_finishing = kind == Kind::Last;
            Ok(())
        };
        self.when(is_ready, queue_event).await??;
        self.changed.notify_waiters();
        Ok(())
    }

    /// Wait until all events that are queued now are durable; return the receipt of the last batch.
    pub(crate) async fn flush(&self) -> Result<BatchReceipt> {
        let last = self.lock().outbox.last();
        let receipt = self.when(|queue| queue.outbox.durable >= last, |queue| queue.outbox.receipt).await?;
        Ok(receipt.unwrap_or_default())
    }

    /// Refuse all events from now on, and drop those that are not durable.
    pub(crate) fn fail(&self, error: Error) {
        let mut queue = self.lock();
        if queue.is_done() {
            return;
        }
        let lost = queue.outbox.clear();
        if lost > 0 {
            warn!(run = self.run, events = lost, %error, "events lost");
        }
        queue.failure = Some(error);
        drop(queue);
        self.changed.notify_waiters();
    }

    /// Wait for a condition of the queue, and do something while it holds. Fails with what has ended publishing.
    pub(crate) async fn when<T>(&self, condition: impl Fn(&Queue) -> bool, act: impl FnOnce(&mut Queue) -> T) -> Result<T> {
        loop {
            let changed = self.changed.notified(); // before the condition is checked: nothing is missed
            {
                let mut queue = self.lock();
                if let Some(failure) = &queue.failure {
                    return Err(failure.clone());
                }
                if condition(&queue) {
                    return Ok(act(&mut queue));
                }
            }
            changed.await;
        }
    }
}

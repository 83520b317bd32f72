use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

/// Bound of the consumers whose last session is remembered.
const REMEMBERED: usize = 1_000;

/// One incarnation of a consumer, over all of its calls.
pub(crate) struct Session {
    pub(crate) id: String,
    attempt: AtomicI64,
    calls: AtomicUsize,
    was_opened: AtomicBool,
}

impl Session {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            id: Uuid::new_v4().to_string(),
            attempt: AtomicI64::new(0),
            calls: AtomicUsize::new(0),
            was_opened: AtomicBool::new(false),
        })
    }

    /// Begin a call, which ends when this is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Attempt {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let number = self.attempt.fetch_add(1, Ordering::SeqCst) + 1;
        Attempt { session: self.clone(), number }
    }

    /// Whether the session has acquired the consumer's lease before.
    pub(crate) fn was_opened(&self) -> bool {
        self.was_opened.load(Ordering::SeqCst)
    }

    fn is_idle(&self) -> bool {
        self.calls.load(Ordering::SeqCst) == 0
    }
}

/// One call of a session.
pub(crate) struct Attempt {
    session: Arc<Session>,
    pub(crate) number: i64,
}

impl Attempt {
    /// Note that the call has acquired the consumer's lease.
    pub(crate) fn open(&self) {
        self.session.was_opened.store(true, Ordering::SeqCst);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.session.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Last session of each consumer, for the next stream of a consumer whose stream was left. The server opens such a stream
/// at once; another session is refused until the server has noticed that the first stream was left.
#[derive(Default)]
pub(crate) struct Sessions {
    latest: Mutex<HashMap<(String, String), Arc<Session>>>,
}

impl Sessions {
    /// Return the session of a new stream. To take over, it must be a new one: the server ignores `take_over` of a session
    /// that was displaced.
    pub(crate) fn begin(&self, run: &str, consumer: &str, take_over: bool) -> Arc<Session> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (run.to_owned(), consumer.to_owned());
        if let Some(session) = latest.get(&key).filter(|session| !take_over && session.is_idle()) {
            return session.clone();
        }
        if latest.len() >= REMEMBERED {
            latest.retain(|_, session| !session.is_idle());
        }
        let session = Session::new();
        latest.insert(key, session.clone());
        session
    }
}

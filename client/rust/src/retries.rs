use std::time::Duration;

use tokio::time::Instant;

use crate::credentials::Credential;
use crate::errors::{CallError, Error};
use crate::proto::ErrorReason;

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// Calls that stay open for so long are few, whatever they bring.
pub(crate) const STEADY: Duration = Duration::from_secs(1);

/// Sequence of delays: doubled from the shortest to the longest one, half of each random.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Delays {
    ceiling: Duration,
}

impl Delays {
    /// Return the next delay, added to the one that the server asks for.
    pub(crate) fn next(&mut self, asked: Duration) -> Duration {
        self.ceiling = (2 * self.ceiling).clamp(SHORTEST, LONGEST);
        asked + self.ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// Decision whether and when a call is made again.
///
/// A call makes progress if it brings something new, or is open for a second: to be open is not enough, because a server
/// may open and end every call at once.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    delays: Delays,
    has_renewed: bool,
    open_time: Option<Instant>,
    has_progressed: bool,
}

impl Retries {
    /// Note that a call begins.
    pub(crate) fn begin(&mut self) {
        self.open_time = None;
        self.has_progressed = false;
    }

    /// Note that the call is open.
    pub(crate) fn open(&mut self) {
        self.open_time.get_or_insert_with(Instant::now);
    }

    /// Note that the call has brought something new.
    pub(crate) fn progress(&mut self) {
        self.has_progressed = true;
    }

    /// Forget earlier calls if the one that has ended made progress; return whether no earlier one is left.
    pub(crate) fn settle(&mut self) -> bool {
        if self.made_progress() {
            *self = Self::default();
        }
        self.delays == Delays::default()
    }

    fn made_progress(&self) -> bool {
        self.has_progressed || self.open_time.is_some_and(|time| time.elapsed() >= STEADY)
    }

    /// Return the delay after a call that the server has ended as planned.
    pub(crate) fn planned(&mut self, asked: Duration) -> Duration {
        if self.made_progress() {
            *self = Self::default();
            return asked;
        }
        self.delays.next(asked)
    }

    /// Return the delay before the next call; none if there is to be none. A refused credential is replaced once.
    pub(crate) fn after(
        &mut self,
        error: &Error,
        credential: &Credential,
        is_retried: fn(&CallError) -> bool,
    ) -> Option<Duration> {
        let Error::Call(failed) = error else { return None };
        if failed.known_reason() == Some(ErrorReason::Unauthenticated) && credential.can_renew() && !self.has_renewed {
            self.has_renewed = true;
            return Some(self.delays.next(Duration::ZERO));
        }
        is_retried(failed).then(|| self.delays.next(failed.retry_after.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_without_progress_double_up_to_the_longest() {
        let mut delays = Delays::default();
        let mut ceiling = SHORTEST;
        for _ in 0..10 {
            let delay = delays.next(Duration::ZERO);
            assert!(ceiling / 2 <= delay && delay <= ceiling, "{delay:?} of {ceiling:?}");
            ceiling = LONGEST.min(2 * ceiling);
        }
        assert!(delays.next(Duration::from_secs(9)) >= Duration::from_secs(9));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_open_for_a_second_makes_progress() {
        let mut retries = Retries::default();
        retries.planned(Duration::ZERO); // a delay, since the call made no progress
        for (open_for, is_progress) in [(Duration::from_millis(900), false), (STEADY, true)] {
            retries.begin();
            retries.open();
            tokio::time::advance(open_for).await;
            assert_eq!(retries.settle(), is_progress, "{open_for:?}");
        }
    }
}

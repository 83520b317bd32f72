use std::vec::IntoIter;

use crate::proto::Event;

/// Resume token, with a sequence that it covers for sure.
#[derive(Clone, Debug, Default)]
struct Mark {
    token: String,
    covers: i64,
}

/// Events of the last frame that are left, and the position in the run.
///
/// The server sends a token per frame. Between the events of a frame, the position is the token before the frame, "~" and
/// the sequence of the last event that was returned.
#[derive(Debug, Default)]
pub(crate) struct Position {
    rest: IntoIter<Event>,
    before: Mark,
    after: Mark,
    last: i64,
}

impl Position {
    /// Return the position of a text, which may be that of another client or an ID of a server-sent event.
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = text.split('~');
        let mark = Mark { token: parts.next().unwrap_or_default().to_owned(), covers: 0 };
        let last = parts.next().and_then(|sequence| sequence.parse().ok()).unwrap_or_default();
        Self { rest: IntoIter::default(), before: mark.clone(), after: mark, last }
    }

    /// Return the position as text.
    pub(crate) fn text(&self) -> String {
        let mark = if self.has_events() { &self.before } else { &self.after };
        if self.last > mark.covers { format!("{}~{}", mark.token, self.last) } else { mark.token.clone() }
    }

    /// Token of the next call.
    pub(crate) fn token(&self) -> &str {
        &self.after.token
    }

    /// Continue from the token of a call that was opened.
    pub(crate) fn start(&mut self, token: String) {
        if !token.is_empty() {
            self.after.token = token;
        }
    }

    /// Accept the events and the token of a frame, after all events of earlier ones were returned. Return whether any
    /// event is new.
    pub(crate) fn accept(&mut self, mut events: Vec<Event>, token: String) -> bool {
        self.before = self.after.clone();
        self.after.token = token;
        if let Some(event) = events.last() {
            self.after.covers = event.sequence;
        }
        events.retain(|event| event.sequence > self.last);
        self.rest = events.into_iter();
        self.has_events()
    }

    /// Whether events of the frame are left.
    pub(crate) fn has_events(&self) -> bool {
        self.rest.len() > 0
    }

    /// Return the next event of the frame, which the position covers from now on.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let event = self.rest.next()?;
        self.last = event.sequence;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(sequences: &[i64]) -> Vec<Event> {
        sequences.iter().map(|&sequence| Event { sequence, ..Default::default() }).collect()
    }

    #[test]
    fn position_within_a_frame_has_the_token_before_it() {
        let mut position = Position::parse("");
        assert!(position.accept(events(&[1, 2]), "a".into()));
        position.next();
        assert_eq!(position.text(), "~1");
        position.next();
        assert_eq!((position.text().as_str(), position.next()), ("a", None));
    }

    #[test]
    fn position_within_a_frame_leaves_out_what_was_returned() {
        let mut position = Position::parse("a~3~session");
        assert_eq!((position.token(), position.text().as_str()), ("a", "a~3"));
        assert!(position.accept(events(&[2, 3, 5]), "b".into()));
        assert_eq!(position.next().map(|event| event.sequence), Some(5));
        assert!(!position.accept(events(&[4, 5]), "c".into()));
        assert_eq!(position.text(), "c");
    }
}

use std::collections::{HashMap, HashSet};

use crate::proto::event::Payload;
use crate::proto::message_part::Content;
use crate::proto::{Event, MessageFinished, Role, StepKind, StepStarted};

/// Text of a run's own agent, collected message by message.
///
/// A message without deltas adds its text when it is complete, and one that is longer than its deltas the rest, so the
/// text does not depend on the deltas. When a step is tried again, the text of its earlier attempts and of the steps
/// within them is removed from [`text`](Self::text); text that [`add`](Self::add) has returned stays with whoever has
/// shown it.
///
/// A step is nested within a tool's step, and within an agent's step inside another agent. The run itself is an agent once
/// it writes text, requests a model or calls a tool outside of agents' steps: every agent's step that starts later is
/// nested. Before that, agents' outermost steps are the run's own, as where one agent passes the run to the next.
#[derive(Clone, Debug, Default)]
pub struct TextProjection {
    places: HashMap<String, Place>,
    parents: Vec<(String, String)>, // of steps, in the order of their starts: parents come before their children
    messages: Vec<Spoken>,
    by_id: HashMap<String, usize>,
    is_run_agent: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    is_nested: bool,
    is_in_agent: bool,
}

/// Message and its text so far. A silent one is no part of the text.
#[derive(Clone, Debug, Default)]
struct Spoken {
    step: String,
    text: String,
    is_silent: bool,
    has_start: bool,
}

impl TextProjection {
    /// Text so far.
    pub fn text(&self) -> String {
        self.messages.iter().filter(|message| !message.is_silent).map(|message| message.text.as_str()).collect()
    }

    /// Add an event, and return the text that it adds.
    pub fn add(&mut self, event: &Event) -> String {
        match &event.payload {
            Some(Payload::StepStarted(started)) => self.start_step(started),
            Some(Payload::MessageStarted(started)) => {
                self.act(&event.step_id);
                let is_silent = !is_assistant(started.role()) || self.place(&event.step_id).is_nested;
                let message = self.message(&started.message_id, &event.step_id);
                message.has_start = true;
                message.is_silent = is_silent;
            }
            Some(Payload::TextDelta(delta)) => {
                self.act(&event.step_id);
                let message = self.message(&delta.message_id, &event.step_id);
                if !message.is_silent {
                    message.text.push_str(&delta.text);
                    return delta.text.clone();
                }
            }
            Some(Payload::MessageFinished(finished)) => {
                self.act(&event.step_id);
                return self.finish(finished, &event.step_id);
            }
            Some(Payload::ToolCallStarted(_)) => self.act(&event.step_id),
            _ => {}
        }
        String::new()
    }

    fn place(&self, step: &str) -> Place {
        self.places.get(step).copied().unwrap_or_default()
    }

    /// Return a message, which begins here if it is not known.
    fn message(&mut self, id: &str, step: &str) -> &mut Spoken {
        let is_silent = self.place(step).is_nested;
        let index = *self.by_id.entry(id.to_owned()).or_insert_with(|| {
            self.messages.push(Spoken { step: step.to_owned(), is_silent, ..Default::default() });
            self.messages.len() - 1
        });
        &mut self.messages[index]
    }

    fn finish(&mut self, finished: &MessageFinished, step: &str) -> String {
        let message = self.message(&finished.message_id, step);
        if message.is_silent || !is_assistant(finished.role()) {
            return String::new();
        }
        let texts = finished.parts.iter().filter_map(|part| match &part.content {
            Some(Content::Text(text)) => Some(text.as_str()),
            _ => None,
        });
        let shown = std::mem::replace(&mut message.text, texts.collect());
        match message.text.strip_prefix(&shown) {
            // Of a message whose beginning was not read, nobody knows which part of the whole was shown.
            Some(rest) if message.has_start || shown.is_empty() => rest.to_owned(),
            _ => String::new(),
        }
    }

    /// Note that something in a step does what agents do.
    fn act(&mut self, step: &str) {
        self.is_run_agent |= !self.place(step).is_in_agent;
    }

    fn start_step(&mut self, started: &StepStarted) {
        if started.attempt > 1 {
            self.drop_step(&started.step_id);
        }
        let around = self.place(&started.parent_step_id);
        let (is_agent, is_tool) = (started.kind() == StepKind::Agent, started.kind() == StepKind::Tool);
        if (is_tool || started.kind() == StepKind::ModelRequest) && !around.is_in_agent {
            self.is_run_agent = true;
        }
        let place = Place {
            is_nested: around.is_nested || is_tool || is_agent && (around.is_in_agent || self.is_run_agent),
            is_in_agent: around.is_in_agent || is_agent,
        };
        self.places.insert(started.step_id.clone(), place);
        self.parents.push((started.step_id.clone(), started.parent_step_id.clone()));
    }

    /// Remove the text of a step and of all steps within it.
    fn drop_step(&mut self, step: &str) {
        let mut dropped = HashSet::from([step.to_owned()]);
        self.parents.retain(|(id, parent)| {
            let is_dropped = dropped.contains(id) || dropped.contains(parent);
            if is_dropped {
                dropped.insert(id.clone());
            }
            !is_dropped
        });
        for message in &mut self.messages {
            message.is_silent |= dropped.contains(&message.step);
        }
    }
}

/// Whether a role is an assistant's, as an unset one is taken to be.
fn is_assistant(role: Role) -> bool {
    matches!(role, Role::Assistant | Role::Unspecified)
}

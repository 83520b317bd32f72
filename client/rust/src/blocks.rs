use std::ops::Deref;
use std::time::Instant;

use serde_json::Value;

use crate::errors::Result;
use crate::message::pieces;
use crate::outcome::Outcome;
use crate::proto::event::Payload;
use crate::proto::{
    RunState, StepFinished, StepKind, StepStarted, ToolCall as Call, ToolCallFinished, ToolCallOutcome, ToolCallStarted,
    ToolOutputDelta,
};
use crate::publisher::Kind;
use crate::runs::new_id;
use crate::scope::Scope;

/// Settings of a step.
#[derive(Clone, Debug)]
pub struct StepOptions {
    /// Kind of work. Default: a step of a workflow.
    pub kind: StepKind,
    /// Input of the step.
    pub input: Option<Value>,
    /// ID of the step. Empty: a new one. With the ID of an earlier step and the next attempt, the step replaces that one:
    /// readers drop what the earlier attempt published.
    pub id: String,
    /// Number of the attempt. Default 1.
    pub attempt: i32,
}

impl Default for StepOptions {
    fn default() -> Self {
        Self { kind: StepKind::Workflow, input: None, id: String::new(), attempt: 1 }
    }
}

/// Unit of work within a run: what is published with it belongs to it. Finish it with [`end`](Self::end).
pub struct Step {
    scope: Scope,
    around: Scope,
    began: Instant,
}

impl Step {
    pub(crate) async fn start(around: &Scope, name: &str, options: StepOptions) -> Result<Self> {
        let id = if options.id.is_empty() { new_id() } else { options.id };
        let started = StepStarted {
            step_id: id.clone(),
            parent_step_id: around.step.clone(),
            name: name.to_owned(),
            kind: options.kind.into(),
            input_json: text(options.input),
            attempt: options.attempt,
            ..Default::default()
        };
        around.put(Payload::StepStarted(started)).await?;
        Ok(Self { scope: around.within(id), around: around.clone(), began: Instant::now() })
    }

    /// ID of the step.
    pub fn id(&self) -> &str {
        &self.scope.step
    }

    /// Finish the step.
    pub async fn end(self, outcome: Outcome) -> Result<()> {
        self.end_message().await?;
        let finished = StepFinished {
            step_id: self.scope.step.clone(),
            state: outcome.state.into(),
            output_json: outcome.output_json,
            error: outcome.error,
            duration: self.began.elapsed().try_into().ok(),
            usage: outcome.usage,
            ..Default::default()
        };
        self.around.close(Payload::StepFinished(finished), Kind::Closing).await
    }
}

impl Deref for Step {
    type Target = Scope;

    fn deref(&self) -> &Scope {
        &self.scope
    }
}

/// Call of a tool. Finish it with [`end`](Self::end).
pub struct ToolCall {
    scope: Scope,
    id: String,
    name: String,
    began: Instant,
}

impl ToolCall {
    pub(crate) async fn start(scope: &Scope, name: &str, arguments: Value, id: &str) -> Result<Self> {
        let id = if id.is_empty() { new_id() } else { id.to_owned() };
        let call = Call {
            tool_call_id: id.clone(),
            tool_name: name.to_owned(),
            arguments_json: arguments.to_string(),
            ..Default::default()
        };
        scope.put(Payload::ToolCallStarted(ToolCallStarted { call: Some(call), ..Default::default() })).await?;
        Ok(Self { scope: scope.clone(), id, name: name.to_owned(), began: Instant::now() })
    }

    /// ID of the tool call.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Publish output of the tool while it runs.
    pub async fn output(&self, text: &str) -> Result<()> {
        for piece in pieces(text) {
            let delta = ToolOutputDelta { tool_call_id: self.id.clone(), text: piece.to_owned(), ..Default::default() };
            self.scope.put(Payload::ToolOutputDelta(delta)).await?;
        }
        Ok(())
    }

    /// Finish the call, with its result as the output of the outcome: SUCCEEDED, or FAILED for any other outcome.
    pub async fn end(self, outcome: Outcome) -> Result<()> {
        let found = match outcome.state {
            RunState::Succeeded => ToolCallOutcome::Succeeded,
            _ => ToolCallOutcome::Failed,
        };
        self.end_as(found, outcome).await
    }

    /// Finish the call in another way, such as one that was denied, and was not executed.
    pub async fn end_as(self, found: ToolCallOutcome, outcome: Outcome) -> Result<()> {
        let finished = ToolCallFinished {
            tool_call_id: self.id,
            tool_name: self.name,
            outcome: found.into(),
            result_json: outcome.output_json,
            error: outcome.error,
            duration: self.began.elapsed().try_into().ok(),
            ..Default::default()
        };
        self.scope.close(Payload::ToolCallFinished(finished), Kind::Closing).await
    }
}

/// Return a value as JSON text; empty for none.
pub(crate) fn text(value: Option<Value>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

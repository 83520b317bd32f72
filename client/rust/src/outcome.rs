use std::any::type_name_of_val;
use std::fmt::Display;

use serde_json::Value;

use crate::proto::{self, EvaluationSummary, RunState, TokenUsage};

const MAX_ERROR_MESSAGE: usize = 8_192; // bytes

/// How a run, a step or a tool call ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub(crate) state: RunState,
    pub(crate) output_json: String,
    pub(crate) error: Option<proto::Error>,
    pub(crate) usage: Option<TokenUsage>,
    pub(crate) evaluation: Option<EvaluationSummary>,
}

impl Outcome {
    /// Success.
    pub fn succeeded() -> Self {
        Self { state: RunState::Succeeded, output_json: String::new(), error: None, usage: None, evaluation: None }
    }

    /// Failure by an error, of which the first 8,192 bytes of text are kept.
    pub fn failed<E: Display>(error: E) -> Self {
        Self { state: RunState::Failed, error: Some(describe(&error)), ..Self::succeeded() }
    }

    /// Cancellation, with its reason, such as that of [`RunProducer::cancelled`](crate::RunProducer::cancelled).
    pub fn cancelled(reason: &str) -> Self {
        let message = if reason.is_empty() { "cancelled" } else { reason };
        let error = proto::Error { message: shorten(message, MAX_ERROR_MESSAGE).to_owned(), ..Default::default() };
        Self { state: RunState::Cancelled, error: Some(error), ..Self::succeeded() }
    }

    /// Add the output of a run or step, or the result of a tool call.
    pub fn with_output(self, output: impl Into<Value>) -> Self {
        Self { output_json: output.into().to_string(), ..self }
    }

    /// Add the tokens and the cost of a whole run, or of a step alone.
    pub fn with_usage(self, usage: TokenUsage) -> Self {
        Self { usage: Some(usage), ..self }
    }

    /// Add the totals of an evaluation.
    pub fn with_evaluation(self, evaluation: EvaluationSummary) -> Self {
        Self { evaluation: Some(evaluation), ..self }
    }
}

/// Return the description of an error.
pub(crate) fn describe<E: Display>(error: &E) -> proto::Error {
    let message = shorten(&error.to_string(), MAX_ERROR_MESSAGE).to_owned();
    proto::Error { message, r#type: type_name_of_val(error).to_owned(), ..Default::default() }
}

/// Return the beginning of a text, of at most so many bytes, without a part of a character.
pub(crate) fn shorten(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde_json::Value;
use tokio_stream::{Stream, StreamExt};

use crate::errors::{Error, Result, has_succeeded};
use crate::proto::event::Payload;
use crate::proto::{Event, RunFinished, ToolCall, ToolCallFinished};
use crate::reading::EventStream;
use crate::runs::Runs;
use crate::text::TextProjection;

/// Tool call from its start to its end.
#[derive(Clone, Debug)]
pub struct FinishedToolCall {
    /// ID of the step that the call belongs to. Empty: the run itself.
    pub step_id: String,
    /// Name and arguments. Without arguments if the start was not read.
    pub call: ToolCall,
    /// Outcome.
    pub result: ToolCallFinished,
}

impl EventStream {
    /// Read to the end of the run, and return how it ended. Fails for a run that did not succeed, and for a stream that ends
    /// before the run.
    pub async fn result(&mut self) -> Result<RunFinished> {
        self.follow(|_| {}).await
    }

    /// Read to the end of the run, and return its output. Fails as [`result`](Self::result) does, and for a run without
    /// output.
    pub async fn output(&mut self) -> Result<Value> {
        let result = self.result().await?;
        serde_json::from_str(&result.output_json)
            .map_err(|error| Error::Invalid(format!("run {} has no output: {error}", self.run_id())))
    }

    /// Read to the end of the run, and return the text of its own agent, without that of nested ones. Fails as
    /// [`result`](Self::result) does.
    pub async fn text(&mut self) -> Result<String> {
        let mut text = TextProjection::default();
        self.follow(|event| drop(text.add(event))).await?;
        Ok(text.text())
    }

    /// Return each tool call of the run when it has ended.
    pub fn tool_calls(self) -> ToolCalls {
        ToolCalls { events: self, open: HashMap::new() }
    }

    /// Read to the end of the run, and return how it ended.
    async fn follow(&mut self, mut add: impl FnMut(&Event)) -> Result<RunFinished> {
        let mut result = None;
        while let Some(event) = self.next().await {
            let event = event?;
            add(&event);
            if let Some(Payload::RunFinished(finished)) = event.payload {
                result = Some(finished);
            }
        }
        if result.is_none() {
            // It was filtered out, or returned before.
            result = Runs::new(self.client.clone()).get(self.run_id()).await?.result;
        }
        match result {
            None => Err(Error::RunNotEnded(self.run_id().to_owned())),
            Some(result) if has_succeeded(&result) => Ok(result),
            Some(result) => Err(Error::RunNotSucceeded { run_id: self.run_id().to_owned(), result: Box::new(result) }),
        }
    }
}

/// Tool calls of a run, each when it has ended.
pub struct ToolCalls {
    events: EventStream,
    open: HashMap<String, ToolCall>,
}

impl Stream for ToolCalls {
    type Item = Result<FinishedToolCall>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let calls = self.get_mut();
        loop {
            let event = match ready!(Pin::new(&mut calls.events).poll_next(cx)) {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            match event.payload {
                Some(Payload::ToolCallStarted(started)) => {
                    let call = started.call.unwrap_or_default();
                    calls.open.insert(call.tool_call_id.clone(), call);
                }
                Some(Payload::ToolCallFinished(result)) => {
                    let call = calls.open.remove(&result.tool_call_id).unwrap_or_else(|| ToolCall {
                        tool_call_id: result.tool_call_id.clone(),
                        tool_name: result.tool_name.clone(),
                        ..Default::default()
                    });
                    return Poll::Ready(Some(Ok(FinishedToolCall { step_id: event.step_id, call, result })));
                }
                _ => {}
            }
        }
    }
}

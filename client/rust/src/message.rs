use crate::errors::Result;
use crate::outcome::shorten;
use crate::proto::event::Payload;
use crate::proto::message_part::Content;
use crate::proto::{MessageFinished, MessagePart, MessageStarted, ReasoningDelta, Role, TextDelta, TokenUsage};
use crate::publisher::Kind;
use crate::runs::new_id;
use crate::scope::Scope;

/// Size in bytes of the text of one event, and of a message: what exceeds it continues in another one.
const LONG_TEXT: usize = 200_000;

/// Message of a model, a person or a tool: deltas while it is open, and all of it at its end, so that readers may skip the
/// deltas. Finish it with [`end`](Self::end). Text that exceeds the size of an event continues in further messages.
pub struct Message {
    /// Why the author stopped, as the provider says.
    pub finish_reason: String,
    /// Tokens and cost of this message. None: not known.
    pub usage: Option<TokenUsage>,
    scope: Scope,
    role: Role,
    model: String,
    id: String,
    parts: Vec<Content>, // the last one is open
    bytes: usize,        // of the text of all parts
}

impl Message {
    pub(crate) async fn start(scope: Scope, role: Role, model: &str) -> Result<Self> {
        let message = Self {
            finish_reason: String::new(),
            usage: None,
            scope,
            role,
            model: model.to_owned(),
            id: new_id(),
            parts: Vec::new(),
            bytes: 0,
        };
        message.put_start().await?;
        Ok(message)
    }

    async fn put_start(&self) -> Result<()> {
        let started = MessageStarted {
            message_id: self.id.clone(),
            role: self.role.into(),
            model: self.model.clone(),
            ..Default::default()
        };
        self.scope.put(Payload::MessageStarted(started)).await
    }

    /// Append text.
    pub async fn text(&mut self, text: &str) -> Result<()> {
        self.append(text, false).await
    }

    /// Append reasoning of a model.
    pub async fn reasoning(&mut self, text: &str) -> Result<()> {
        self.append(text, true).await
    }

    async fn append(&mut self, text: &str, is_reasoning: bool) -> Result<()> {
        for piece in pieces(text) {
            if self.bytes > 0 && self.bytes + piece.len() > LONG_TEXT {
                self.finish().await?;
                self.id = new_id();
                self.put_start().await?;
            }
            self.bytes += piece.len();
            match self.parts.last_mut() {
                Some(Content::Text(part)) if !is_reasoning => part.push_str(piece),
                Some(Content::Reasoning(part)) if is_reasoning => part.push_str(piece),
                _ if is_reasoning => self.parts.push(Content::Reasoning(piece.to_owned())),
                _ => self.parts.push(Content::Text(piece.to_owned())),
            }
            let (message_id, part_index, text) = (self.id.clone(), self.parts.len() as i32 - 1, piece.to_owned());
            let delta = match is_reasoning {
                true => Payload::ReasoningDelta(ReasoningDelta { message_id, part_index, text, ..Default::default() }),
                false => Payload::TextDelta(TextDelta { message_id, part_index, text, ..Default::default() }),
            };
            self.scope.put(delta).await?;
        }
        Ok(())
    }

    /// Finish the message.
    pub async fn end(mut self) -> Result<()> {
        self.finish().await
    }

    async fn finish(&mut self) -> Result<()> {
        self.bytes = 0;
        let parts = std::mem::take(&mut self.parts).into_iter();
        let finished = MessageFinished {
            message_id: self.id.clone(),
            role: self.role.into(),
            parts: parts.map(|content| MessagePart { content: Some(content), ..Default::default() }).collect(),
            finish_reason: self.finish_reason.clone(),
            usage: self.usage.clone(),
        };
        self.scope.close(Payload::MessageFinished(finished), Kind::Closing).await
    }
}

/// Cut text that is too long for one event, between characters.
pub(crate) fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let piece = shorten(text, LONG_TEXT);
        text = &text[piece.len()..];
        (!piece.is_empty()).then_some(piece)
    })
}

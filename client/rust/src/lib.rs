//! Client of lavant, which stores what agents and evaluations do, event by event, and streams it over gRPC: nothing
//! missed, repeated or invented.
//!
//! A [`Client`] has the calls about runs. [`Runs::start`] publishes a run, exactly once whatever connection or server dies
//! in between; [`Runs::read`] reads one, and continues after cuts with the next event. Messages of the contract, such as
//! [`Event`], are those of [`proto`]; docs/protocol.md of the repository describes what the client does over time.
//!
//! ```no_run
//! use lavant::{Client, Config, Outcome, ReadOptions, StartOptions};
//! use serde_json::json;
//! use tokio_stream::StreamExt;
//!
//! # async fn example() -> Result<(), lavant::Error> {
//! let client = Client::new(Config::default())?; // LAVANT_TARGET, or localhost:7447
//!
//! let options = StartOptions { input: Some(json!({"city": "Oslo"})), ..Default::default() };
//! let run = client.runs().start("weather-agent", options).await?;
//! run.text("It is cold.").await?;
//! run.finish(Outcome::succeeded()).await?; // returns when all of it is durable
//!
//! let mut events = client.runs().read(run.id(), ReadOptions::default());
//! while let Some(event) = events.next().await {
//!     let event = event?;
//!     println!("{} {:?}", event.sequence, event.payload);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Everything stops when it is dropped: a stream, a call, a producer. No task is left afterwards.

#![deny(missing_docs)]

mod blocks;
mod calls;
mod client;
mod connections;
mod credentials;
mod errors;
mod frames;
mod message;
mod outbox;
mod outcome;
mod pages;
mod position;
mod producer;
mod projections;
mod publisher;
mod reading;
mod retries;
mod runs;
mod scope;
mod scores;
mod sending;
mod sessions;
mod text;
mod watching;

/// Messages and stubs of the contract, generated from `protos/lavant/v1`.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod proto {
    include!("gen/lavant.v1.rs");
}

pub use blocks::{Step, StepOptions, ToolCall};
pub use client::{Client, Config};
pub use credentials::Token;
pub use errors::{CallError, Error, Result};
pub use message::Message;
pub use outcome::Outcome;
pub use pages::Pages;
pub use producer::{ProducerOptions, RunProducer, StartOptions};
pub use projections::{FinishedToolCall, ToolCalls};
pub use proto::{
    BatchReceipt, DeltaMode, ErrorReason, Event, EventType, Role, Run, RunFilter, RunFinished, RunKind, RunSettings, RunState,
    Score, StartPosition, StepKind, StopPosition, StreamEndReason, TokenUsage,
};
pub use reading::{EventStream, ReadOptions};
pub use runs::{Runs, has_ended};
pub use scope::Scope;
pub use scores::{ScoreOptions, Scores};
pub use text::TextProjection;
pub use tonic::Code;
pub use tonic::transport::{Certificate, ClientTlsConfig, Identity};
pub use watching::{RunChange, RunWatch};

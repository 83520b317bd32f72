use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::proto::{ErrorReason, ProducerGap, RunFinished, RunState};

const DOMAIN: &str = "lavant.dev";
const REASON_PREFIX: &str = "ERROR_REASON_";

/// Texts of INTERNAL and UNKNOWN where the transport failed, not the server.
const CUT_TEXTS: [&str; 9] = [
    "RST_STREAM",
    "GOAWAY",
    "Stream removed",
    "Internal error from Core",
    // Those of tonic: a proxy has ended a call without a status, or has answered with a page.
    "grpc-status header missing",
    "response with status: 429",
    "response with status: 502",
    "response with status: 503",
    "response with status: 504",
];

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Error of this crate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// A call failed, or a batch was rejected.
    Call(Box<CallError>),
    /// The run ended in another state than SUCCEEDED.
    RunNotSucceeded {
        /// ID of the run.
        run_id: String,
        /// How the run ended.
        result: Box<RunFinished>,
    },
    /// A stream ended before its run, whose ID this is.
    RunNotEnded(String),
    /// The producer has finished, or was abandoned.
    Closed,
    /// A setting or a value cannot work; the text says which one, and why.
    Invalid(String),
}

impl Error {
    /// Reason that a server named. None: it named none, or one that this release does not know.
    pub fn reason(&self) -> Option<ErrorReason> {
        match self {
            Self::Call(failed) => failed.known_reason(),
            _ => None,
        }
    }

    /// Error of a connection that failed.
    pub(crate) fn cut(message: impl Into<String>) -> Self {
        Self::Call(Box::new(CallError::new(Code::Unavailable, message.into())))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(failed) => failed.fmt(f),
            Self::RunNotSucceeded { run_id, result } => {
                let state = result.state().as_str_name().trim_start_matches("RUN_STATE_");
                let message = result.error.as_ref().map_or("", |error| error.message.as_str());
                write!(f, "run {run_id} ended as {state}: {message}")
            }
            Self::RunNotEnded(run_id) => write!(f, "run {run_id} has not ended"),
            Self::Closed => f.write_str("the producer has finished, or was abandoned"),
            Self::Invalid(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Call(Box::new(CallError::from(status)))
    }
}

/// Failed call or rejected batch.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallError {
    /// Name of the reason that the server named: an ErrorReason of the contract without its prefix, also one that this
    /// release does not know. Empty if no lavant server spoke, as when the connection failed.
    pub reason: String,
    /// Status code of gRPC.
    pub code: Code,
    /// Description for people.
    pub message: String,
    /// Delay that the server asks for. None: it asks for none.
    pub retry_after: Option<Duration>,
    /// Metadata of the reason, such as run_id or limit.
    pub metadata: HashMap<String, String>,
    /// Violations of INVALID_FIELD: path and description of each field.
    pub violations: Vec<(String, String)>,
    /// Messages that came with the status, such as a `lavant.v1.ProducerFenced`.
    pub details: Vec<Any>,
    /// Whether the status is the library's, made of a failure of the transport.
    is_transport: bool,
}

impl CallError {
    fn new(code: Code, message: String) -> Self {
        Self {
            reason: String::new(),
            code,
            message,
            retry_after: None,
            metadata: HashMap::new(),
            violations: Vec::new(),
            details: Vec::new(),
            is_transport: false,
        }
    }

    /// Reason, if this release knows it.
    pub fn known_reason(&self) -> Option<ErrorReason> {
        ErrorReason::from_str_name(&format!("{REASON_PREFIX}{}", self.reason))
    }

    /// Whether the call failed with its connection, or the server asks to make it again: docs/protocol.md has the tables.
    pub(crate) fn is_cut(&self) -> bool {
        match (self.known_reason(), self.code) {
            (Some(ErrorReason::Unavailable | ErrorReason::SlowConsumer), _) => true,
            _ if !self.reason.is_empty() => false,
            _ if self.is_transport => true,
            (_, Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded) => true,
            (_, Code::Internal | Code::Unknown) => CUT_TEXTS.iter().any(|text| self.message.contains(text)),
            _ => false,
        }
    }

    /// Whether a call or a batch is sent again: cut connections, and quotas that are free again after the delay that the
    /// server names.
    pub(crate) fn is_retried(&self) -> bool {
        self.is_cut() || self.known_reason() == Some(ErrorReason::QuotaExceeded) && self.retry_after.is_some()
    }

    /// Detail of PRODUCER_GAP.
    pub(crate) fn gap(&self) -> Option<ProducerGap> {
        self.details.iter().find_map(|detail| decode(detail, "lavant.v1.ProducerGap"))
    }

    fn with_details(mut self, details: Vec<Any>) -> Self {
        for detail in &details {
            if let Some(info) = decode::<pb::ErrorInfo>(detail, "google.rpc.ErrorInfo").filter(|info| info.domain == DOMAIN) {
                (self.reason, self.metadata) = (info.reason, info.metadata);
            } else if let Some(info) = decode::<pb::RetryInfo>(detail, "google.rpc.RetryInfo") {
                self.retry_after = Some(info.retry_delay.map(duration).unwrap_or_default());
            } else if let Some(refused) = decode::<pb::BadRequest>(detail, "google.rpc.BadRequest") {
                let fields = refused.field_violations.into_iter();
                self.violations = fields.map(|violation| (violation.field, violation.description)).collect();
            }
        }
        self.details = details;
        self
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason.as_str() {
            "" => write!(f, "{:?}: {}", self.code, self.message),
            reason => write!(f, "{reason}: {}", self.message),
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        let details = pb::Status::decode(status.details()).unwrap_or_default().details;
        let mut failed = Self::new(status.code(), status.message().to_owned()).with_details(details);
        if let Some(source) = status.source() {
            failed.is_transport = true;
            // "transport error" alone says nothing; the cause is at the end of the chain.
            let mut cause = source;
            while let Some(next) = cause.source() {
                cause = next;
            }
            failed.message = format!("{}: {cause}", failed.message);
        }
        failed
    }
}

impl From<pb::Status> for CallError {
    fn from(rejection: pb::Status) -> Self {
        Self::new(Code::from(rejection.code), rejection.message).with_details(rejection.details)
    }
}

fn decode<M: prost::Message + Default>(detail: &Any, name: &str) -> Option<M> {
    let is_named = detail.type_url.rsplit('/').next() == Some(name);
    is_named.then(|| M::decode(detail.value.as_slice()).ok()).flatten()
}

/// Duration of the contract; 0 if it is negative, which no sound server sends.
pub(crate) fn duration(value: prost_types::Duration) -> Duration {
    Duration::try_from(value).unwrap_or_default()
}

/// Whether a run has succeeded.
pub(crate) fn has_succeeded(result: &RunFinished) -> bool {
    result.state() == RunState::Succeeded
}

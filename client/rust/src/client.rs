use std::env;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::ClientTlsConfig;

use crate::connections::Pool;
use crate::credentials::{Credential, Token};
use crate::errors::Result;
use crate::runs::Runs;
use crate::scores::Scores;
use crate::sessions::Sessions;

/// Settings of a [`Client`]. The default connects to LAVANT_TARGET, or localhost:7447, in plain text.
#[derive(Clone)]
pub struct Config {
    /// Addresses of the server, as host:port, or unix:PATH. With several, calls go in turn to those that have a live
    /// server.
    pub targets: Vec<String>,
    /// Settings of encrypted connections. None: plain text.
    pub tls: Option<ClientTlsConfig>,
    /// Credential of each call. Default: LAVANT_API_KEY, unless `token` is set.
    pub api_key: Option<String>,
    /// Source of the credential instead, such as of a JWT.
    pub token: Option<Token>,
    /// Whether credentials may go in plain text to other machines than this one.
    pub insecure: bool,
    /// Bound of single calls with their retries. Default 30 s. Streams have none: drop them.
    pub timeout: Duration,
    /// Number of open calls after which a further connection is opened. Default 1,000, which lavant allows; set less for
    /// a proxy that allows less, as many with 100 do: calls beyond wait unseen.
    pub calls_per_connection: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            tls: None,
            api_key: None,
            token: None,
            insecure: false,
            timeout: Duration::from_secs(30),
            calls_per_connection: 1_000,
        }
    }
}

impl fmt::Debug for Config {
    /// Show the settings without the credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("targets", &self.targets).finish_non_exhaustive()
    }
}

/// Calls to a lavant server. Create one for the whole program; clones share its connections, which the first call opens
/// and the last drop closes.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// Parts of a client that its streams and producers use too.
pub(crate) struct Shared {
    pub(crate) timeout: Duration,
    pub(crate) credential: Credential,
    pub(crate) pool: Arc<Pool>,
    pub(crate) sessions: Sessions,
}

impl Client {
    /// Return a client, without connecting. Fails for settings that cannot work.
    pub fn new(config: Config) -> Result<Self> {
        let mut targets = config.targets;
        if targets.is_empty() {
            targets.push(env::var("LAVANT_TARGET").unwrap_or_else(|_| "localhost:7447".into()));
        }
        let mut key = config.api_key;
        if key.is_none() && config.token.is_none() {
            key = env::var("LAVANT_API_KEY").ok().filter(|key| !key.is_empty());
        }
        let is_private = config.tls.is_some() || config.insecure;
        let shared = Shared {
            timeout: config.timeout,
            credential: Credential::new(key, config.token, is_private, &targets)?,
            pool: Arc::new(Pool::new(&targets, config.tls, config.calls_per_connection)?),
            sessions: Sessions::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Calls about runs and their events.
    pub fn runs(&self) -> Runs {
        Runs::new(self.shared.clone())
    }

    /// Calls about scores.
    pub fn scores(&self) -> Scores {
        Scores::new(self.shared.clone())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

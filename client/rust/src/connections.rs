use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::errors::{Error, Result};

pub(crate) const MAX_RESPONSE: usize = 8 << 20;
// A fixed window keeps what a slow reader has not read at the server.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Time for which calls prefer other addresses than one that has cut a call.
const REST: Duration = Duration::from_secs(5);

/// Connections of a client: to each address one for short calls, and as many as it takes for those that stay open, so
/// that short calls never wait for them.
pub(crate) struct Pool {
    endpoints: Vec<Endpoint>,
    limit: usize,
    state: Mutex<State>,
}

struct State {
    sites: Vec<Site>,
    turn: usize,
}

/// One address of the server.
#[derive(Default)]
struct Site {
    short: Option<Arc<Connection>>,
    long: Vec<Arc<Connection>>,
    rests_until: Option<Instant>,
}

/// Connection to one address, which is opened by its first call, and again by the first one after a cut.
struct Connection {
    channel: Channel,
    site: usize,
    calls: AtomicUsize,
}

impl Pool {
    pub(crate) fn new(targets: &[String], tls: Option<ClientTlsConfig>, limit: usize) -> Result<Self> {
        let endpoints: Vec<_> = targets.iter().map(|target| endpoint(target, tls.clone())).collect::<Result<_>>()?;
        let sites = endpoints.iter().map(|_| Site::default()).collect();
        Ok(Self { endpoints, limit: limit.max(1), state: Mutex::new(State { sites, turn: 0 }) })
    }

    /// Return the connection of short calls, with one more call on it.
    pub(crate) fn short(self: &Arc<Self>) -> Slot {
        let mut state = self.lock();
        let site = state.next();
        let connection = match &state.sites[site].short {
            Some(connection) => connection.clone(),
            None => state.sites[site].short.insert(self.connect(site)).clone(),
        };
        self.slot(connection)
    }

    /// Return a connection with room for a call that stays open, with one more call on it.
    pub(crate) fn long(self: &Arc<Self>) -> Slot {
        let mut state = self.lock();
        let site = state.next();
        let open = &mut state.sites[site].long;
        let connection = match open.iter().find(|connection| connection.calls.load(Ordering::Relaxed) < self.limit) {
            Some(connection) => connection.clone(),
            None => {
                open.push(self.connect(site));
                open[open.len() - 1].clone()
            }
        };
        self.slot(connection)
    }

    fn connect(&self, site: usize) -> Arc<Connection> {
        let channel = self.endpoints[site].connect_lazy();
        Arc::new(Connection { channel, site, calls: AtomicUsize::new(0) })
    }

    fn slot(self: &Arc<Self>, connection: Arc<Connection>) -> Slot {
        connection.calls.fetch_add(1, Ordering::Relaxed); // with the lock held, under which it is compared
        Slot { pool: self.clone(), connection }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Return the next address in turn that does not rest, or the one that has rested longest.
    fn next(&mut self) -> usize {
        let now = Instant::now();
        let rest = |site: &Site| site.rests_until.map_or(Duration::ZERO, |time| time.saturating_duration_since(now));
        let turns = (0..self.sites.len()).map(|step| (self.turn + step) % self.sites.len());
        let next = turns.min_by_key(|&site| rest(&self.sites[site])).unwrap_or_default(); // the first one of several
        self.turn = (next + 1) % self.sites.len();
        next
    }
}

/// Call that is counted on its connection until this is dropped.
pub(crate) struct Slot {
    pool: Arc<Pool>,
    connection: Arc<Connection>,
}

impl Slot {
    pub(crate) fn channel(&self) -> Channel {
        self.connection.channel.clone()
    }

    /// Note whether the address has answered: calls prefer others after a cut.
    pub(crate) fn note(&self, is_cut: bool) {
        self.pool.lock().sites[self.connection.site].rests_until = is_cut.then(|| Instant::now() + REST);
    }

    /// Make no more calls over the connection, which fell silent: a dead one swallows the next call too. It is closed
    /// after its last call.
    pub(crate) fn retire(&self) {
        let mut state = self.pool.lock();
        let site = &mut state.sites[self.connection.site];
        site.short.take_if(|connection| Arc::ptr_eq(connection, &self.connection));
        site.long.retain(|connection| !Arc::ptr_eq(connection, &self.connection));
        drop(state);
        self.note(true);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connection.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

fn endpoint(target: &str, tls: Option<ClientTlsConfig>) -> Result<Endpoint> {
    let invalid = |why: String| Error::Invalid(format!("target {target:?} cannot be used: {why}"));
    if target.starts_with("http://") || target.starts_with("https://") {
        return Err(invalid("a target is host:port of gRPC, not a URL".into()));
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let uri = if target.starts_with("unix:") { target.to_owned() } else { format!("{scheme}://{target}") };
    let mut endpoint = Endpoint::from_shared(uri).map_err(|error| invalid(error.to_string()))?;
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).map_err(|error| invalid(error.to_string()))?;
    }
    Ok(endpoint
        .connect_timeout(Duration::from_secs(5))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn address_that_has_cut_a_call_rests() {
        let pool = Arc::new(Pool::new(&["127.0.0.1:1".into(), "127.0.0.1:2".into()], None, 1_000).unwrap());
        let sites = || [pool.short().connection.site, pool.long().connection.site];
        assert_eq!(sites(), [0, 1], "calls go to all in turn");
        pool.short().note(true);
        assert_eq!((sites(), sites()), ([1, 1], [1, 1]));
        tokio::time::advance(Duration::from_secs(1)).await;
        pool.long().note(true);
        assert_eq!(sites(), [0, 0], "all rest: the one that has rested longest serves");
        tokio::time::advance(REST).await;
        assert_eq!(sites(), [1, 0]);
    }
}

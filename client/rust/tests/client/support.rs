//! Servers, proxies and runs of the tests.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use std::{env, fs, process};

use lavant::proto::CustomEvent;
use lavant::proto::event::Payload;
use lavant::{Client, Config, Event, EventStream, EventType, Outcome, Result, StartOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_stream::StreamExt;

/// Server for all tests that do not need one of their own.
pub static SHARED: LazyLock<Server> = LazyLock::new(|| Server::start(&[]));
static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// Run a test, which may not hang.
pub async fn within<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(90), test).await.expect("the test hangs")
}

/// New folder of a test, below the build's.
pub fn new_folder() -> PathBuf {
    let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn python() -> PathBuf {
    env::var_os("LAVANT_PYTHON").map_or_else(|| root().join(".venv/bin/python"), PathBuf::from)
}

/// A lavant server in a process of its own, whose port and store survive it.
pub struct Server {
    pub target: String,
    folder: PathBuf,
    process: Option<Child>,
    pub lines: Option<BufReader<ChildStdout>>,
}

impl Server {
    pub fn start(flags: &[&str]) -> Self {
        let mut server = Self { target: "127.0.0.1:0".into(), folder: new_folder(), process: None, lines: None };
        server.run(flags);
        server
    }

    fn run(&mut self, flags: &[&str]) {
        let store = format!("sqlite:///{}", self.folder.join("lavant.db").display());
        // The shell kills the server when its input ends, also when the tests are killed: statics are never dropped.
        let script = r#""$@" & server=$!; cat > /dev/null; kill -9 $server; wait $server 2> /dev/null"#;
        let mut process = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(python())
            .args(["-m", "lavant.server", "--listen", &self.target, "--http", "off", "--admin", "off", "--store", &store])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        self.process = Some(process);
        self.target = loop {
            let line = next_line(&mut lines);
            if let Some((_, rest)) = line.split_once("grpc=") {
                break rest.split_whitespace().next().unwrap().to_owned();
            }
        };
        self.lines = Some(lines);
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            process.wait().unwrap();
        }
    }

    pub fn restart(&mut self) {
        self.kill();
        self.run(&[]);
    }

    pub fn client(&self) -> Client {
        client_of(&self.target)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub fn next_line(lines: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    assert!(lines.read_line(&mut line).unwrap() > 0, "no server (make .venv/.ready, or set LAVANT_PYTHON)");
    line
}

pub fn client_of(target: &str) -> Client {
    Client::new(Config { targets: vec![target.into()], ..Default::default() }).unwrap()
}

pub fn client() -> Client {
    SHARED.client()
}

/// Proxy to a server. Each connection is cut after so many bytes of the server's answers, a later one after half as many
/// more, so that in the end a frame comes through; 0: never.
pub struct Proxy {
    pub target: String,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Default)]
struct Shared {
    after: AtomicUsize,
    accepted: AtomicUsize,
    is_frozen: AtomicBool,
    cuts: watch::Sender<()>,
}

impl Proxy {
    pub async fn start(target: &str, after: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let own = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared { after: after.into(), ..Default::default() });
        let accepting = tokio::spawn(accept(listener, target.to_owned(), shared.clone())).abort_handle();
        Self { target: own, shared, accepting }
    }

    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Close the open connections.
    pub fn cut(&self) {
        self.shared.cuts.send_replace(());
    }

    /// Let connections swallow everything, or no more.
    pub fn freeze(&self, is_frozen: bool) {
        self.shared.is_frozen.store(is_frozen, Ordering::SeqCst);
    }

    /// Accept no more connections, and close the open ones.
    pub fn stop(&self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn accept(listener: TcpListener, target: String, shared: Arc<Shared>) {
    while let Ok((near, _)) = listener.accept().await {
        let mut cuts = shared.cuts.subscribe();
        let Ok(far) = TcpStream::connect(&target).await else { continue };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let after = shared.after.load(Ordering::SeqCst);
        shared.after.store(after + after / 2, Ordering::SeqCst);
        let (near, far, shared) = (near.into_split(), far.into_split(), shared.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = copy(near.0, far.1, 0, &shared) => {}
                () = copy(far.0, near.1, after, &shared) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, after: usize, shared: &Shared) {
    let mut left = if after == 0 { usize::MAX } else { after };
    let mut buffer = vec![0; 32 << 10];
    while left > 0 {
        let Ok(read @ 1..) = from.read(&mut buffer).await else { return };
        let passed = read.min(left);
        left -= passed;
        if !shared.is_frozen.load(Ordering::SeqCst) && to.write_all(&buffer[..passed]).await.is_err() {
            return;
        }
    }
}

/// Event of a counted note.
pub fn note(number: usize) -> Event {
    let custom = CustomEvent { name: "test.note".into(), value_json: number.to_string(), ..Default::default() };
    Event { payload: Some(Payload::Custom(custom)), ..Default::default() }
}

/// Publish a run of so many notes and its end; return its ID.
pub async fn record(client: &Client, notes: usize) -> Result<String> {
    let run = client.runs().start("noter", StartOptions::default()).await?;
    for number in 0..notes {
        run.publish(note(number)).await?;
    }
    run.finish(Outcome::succeeded()).await?;
    Ok(run.id().to_owned())
}

/// Numbers of a run's notes.
pub async fn notes(client: &Client, run: &str) -> Result<Vec<usize>> {
    let events: Vec<Event> = client.runs().events(run, &[EventType::Custom]).collect::<Result<_>>().await?;
    Ok(events.into_iter().map(|event| number_of(&event)).collect())
}

fn number_of(event: &Event) -> usize {
    match &event.payload {
        Some(Payload::Custom(custom)) => custom.value_json.parse().unwrap(),
        other => panic!("not a note: {other:?}"),
    }
}

/// Read a stream to its end; return the sequences of its events.
pub async fn sequences(stream: &mut EventStream) -> Result<Vec<i64>> {
    let mut found = Vec::new();
    while let Some(event) = stream.next().await {
        found.push(event?.sequence);
    }
    Ok(found)
}

pub fn counted(first: i64, last: i64) -> Vec<i64> {
    (first..=last).collect()
}

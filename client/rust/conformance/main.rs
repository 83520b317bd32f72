//! Driver of this client for the suite in `tests/conformance`, whose README defines the commands: JSON lines on the
//! standard input, what happens as JSON lines on the standard output.

mod json;
mod publishing;
mod reading;
mod runs;
mod speed;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use lavant::{Client, Error};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;

/// How an operation ends: the fields of its last line.
pub type Outcome = Result<Value, Error>;

/// One command, with the fields of all commands.
#[derive(Clone)]
pub struct Command(Value);

impl Command {
    /// Text of a field; empty if it is absent.
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// Texts of a field that is a list.
    pub fn texts(&self, field: &str) -> Vec<String> {
        let texts = self.0[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// Seconds of a field; 0 if it is absent.
    pub fn seconds(&self, field: &str) -> std::time::Duration {
        std::time::Duration::from_secs_f64(self.0[field].as_f64().unwrap_or_default())
    }

    pub fn is_set(&self, field: &str) -> bool {
        self.0[field].as_bool().unwrap_or_default()
    }

    pub fn value(&self, field: &str) -> &Value {
        &self.0[field]
    }
}

/// One command that runs, and the commands about it.
#[derive(Clone)]
pub struct Operation {
    id: u64,
    commands: mpsc::UnboundedSender<Command>,
    cancelled: Arc<Notify>,
    next: Arc<Semaphore>,
    position: Arc<Mutex<String>>,
}

impl Operation {
    /// Report a line about the operation.
    pub fn say(&self, mut line: Value) {
        line["id"] = self.id.into();
        println!("{line}");
    }

    pub fn set_position(&self, position: &str) {
        position.clone_into(&mut self.position.lock().unwrap());
    }

    /// Report a line of an event, which is handled with it: nobody sees the line with the position before.
    pub fn say_handled(&self, line: Value, position: &str) {
        let mut last = self.position.lock().unwrap();
        self.say(line);
        position.clone_into(&mut last);
    }

    /// Wait until the application has handled an event that is held.
    pub async fn handled(&self) {
        self.next.acquire().await.unwrap().forget();
    }

    fn end(&self, outcome: Outcome) {
        match outcome {
            Ok(done) => self.say(json!({"done": done})),
            Err(error) => {
                let (reason, code) = match &error {
                    Error::Call(failed) => (failed.reason.as_str(), json::code(failed.code)),
                    _ => ("", String::new()),
                };
                self.say(json!({"error": {"reason": reason, "code": code, "message": error.to_string()}}));
            }
        }
    }

    fn about(&self, command: Command) {
        match command.text("do") {
            "next" => self.next.add_permits(1),
            "position" => self.say(json!({"position": *self.position.lock().unwrap()})),
            "cancel" => self.cancelled.notify_one(),
            _ => drop(self.commands.send(command)),
        }
    }
}

async fn carry_out(
    client: Client,
    operation: Operation,
    command: Command,
    commands: mpsc::UnboundedReceiver<Command>,
) -> Option<Outcome> {
    Some(match command.text("do") {
        "read" => reading::read(client, operation, command).await,
        "publish" => publishing::publish(client, operation, command, commands).await,
        "create_run" => runs::create(client, command).await,
        "get_run" => runs::get(client, command).await,
        "cancel_run" => runs::cancel(client, command).await,
        "wait_run" => runs::wait(client, command).await,
        "list_runs" => runs::list(client, command).await,
        "list_events" => reading::list_events(client, command).await,
        "watch_runs" => runs::watch(client, operation, command).await,
        "text" => reading::text(client, command).await,
        "result" => reading::result(client, command).await,
        "score" => runs::score(client, command).await,
        "read_fast" => speed::read(client, command).await,
        "publish_fast" => speed::publish(client, command).await,
        _ => return None,
    })
}

#[tokio::main]
async fn main() {
    let mut client = None;
    let mut operations: HashMap<u64, Operation> = HashMap::new();
    let mut running = JoinSet::new();
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let command = Command(serde_json::from_str(&line).unwrap());
        if let Some(of) = command.0["of"].as_u64() {
            operations[&of].about(command);
            continue;
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        let id = command.0["id"].as_u64().unwrap();
        let operation = Operation {
            id,
            commands: sender,
            cancelled: Arc::default(),
            next: Arc::new(Semaphore::new(0)),
            position: Arc::default(),
        };
        if command.text("do") == "connect" {
            let connected = runs::connect(&command).map(|new| client = Some(new));
            operation.end(connected.map(|()| json!({})));
            continue;
        }
        let client: Client = client.clone().expect("connect comes first");
        operations.insert(id, operation.clone());
        running.spawn(async move {
            tokio::select! {
                outcome = carry_out(client, operation.clone(), command, receiver) => match outcome {
                    Some(outcome) => operation.end(outcome),
                    None => operation.say(json!({"unsupported": true})),
                },
                () = operation.cancelled.notified() => operation.end(Ok(json!({"reason": "CANCELLED"}))),
            }
        });
    }
    operations.values().for_each(|operation| operation.cancelled.notify_one());
    running.join_all().await;
}

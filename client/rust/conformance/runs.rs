//! Commands that connect, and that call about runs and scores.

use std::fs;

use lavant::proto::{CreateRunRequest, Evaluator, ListRunsRequest, WatchRunsRequest};
use lavant::{Certificate, Client, ClientTlsConfig, Config, Error, Run, RunChange, Score, ScoreOptions, Token};
use serde_json::{Value, json};
use tokio_stream::StreamExt;

use crate::json::{parse, print};
use crate::{Command, Operation, Outcome};

pub fn connect(command: &Command) -> Result<Client, Error> {
    let mut config = Config { targets: command.texts("targets"), ..Default::default() };
    config.timeout = command.seconds("deadline");
    if config.timeout.is_zero() {
        config.timeout = std::time::Duration::from_secs(10);
    }
    if let Some(path) = command.value("token_file").as_str().map(str::to_owned) {
        config.token = Some(Token::new(move || tokio::fs::read_to_string(path.clone())));
    }
    if let Some(path) = command.value("ca").as_str() {
        let ca = fs::read(path).map_err(|error| Error::Invalid(error.to_string()))?;
        config.tls = Some(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)));
    }
    Client::new(config)
}

fn done(run: &Run) -> Value {
    json!({"run": print("Run", run)})
}

pub async fn create(client: Client, command: Command) -> Outcome {
    let request: CreateRunRequest = parse("CreateRunRequest", command.value("request"))?;
    Ok(done(&client.runs().create(&request.run_id, request.settings.unwrap_or_default()).await?))
}

pub async fn get(client: Client, command: Command) -> Outcome {
    Ok(done(&client.runs().get(command.text("run")).await?))
}

pub async fn cancel(client: Client, command: Command) -> Outcome {
    Ok(done(&client.runs().cancel(command.text("run"), command.text("reason")).await?))
}

pub async fn wait(client: Client, command: Command) -> Outcome {
    let runs = client.runs();
    let waiting = runs.wait(command.text("run"));
    let limit = command.seconds("timeout");
    if limit.is_zero() {
        return Ok(done(&waiting.await?));
    }
    let late = |_| Error::Invalid(format!("the run has not ended within {limit:?}"));
    Ok(done(&tokio::time::timeout(limit, waiting).await.map_err(late)??))
}

pub async fn list(client: Client, command: Command) -> Outcome {
    let request: ListRunsRequest = parse("ListRunsRequest", command.value("request"))?;
    let mut found = Vec::new();
    let mut runs = client.runs().list_pages(request);
    while let Some(run) = runs.next().await {
        found.push(print("Run", &run?));
    }
    Ok(json!({"runs": found}))
}

pub async fn watch(client: Client, operation: Operation, command: Command) -> Outcome {
    let request: WatchRunsRequest = parse("WatchRunsRequest", command.value("request"))?;
    let mut changes = client.runs().watch(request.filter.unwrap_or_default(), "");
    while let Some(change) = changes.next().await {
        match change? {
            RunChange::Changed(run) => operation.say(json!({"changed": print("Run", &*run)})),
            RunChange::Left(id) => operation.say(json!({"left": id})),
            RunChange::Deleted(id) => operation.say(json!({"deleted": id})),
            RunChange::CaughtUp => operation.say(json!({"caught_up": true})),
            _ => {}
        }
    }
    Ok(json!({}))
}

pub async fn score(client: Client, command: Command) -> Outcome {
    let name = command.text("name");
    let mut score = match command.value("value") {
        Value::Bool(value) => Score::passed(name, *value),
        Value::Number(value) => Score::number(name, value.as_f64().unwrap_or_default()),
        Value::String(value) => Score::label(name, value),
        value => return Err(Error::Invalid(format!("no value of a score: {value}"))),
    };
    score.evaluator = Some(Evaluator { name: command.text("evaluator").to_owned(), ..Default::default() });
    client.scores().record(command.text("run"), score, ScoreOptions::default()).await?;
    Ok(json!({}))
}

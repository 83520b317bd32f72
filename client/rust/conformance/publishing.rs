//! Commands that publish a run.

use lavant::proto::RunSettings;
use lavant::{Client, Error, Event, ProducerOptions, RunProducer, StartOptions};
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::json::parse;
use crate::{Command, Operation, Outcome};

pub async fn publish(
    client: Client,
    operation: Operation,
    command: Command,
    mut commands: UnboundedReceiver<Command>,
) -> Outcome {
    let run = producer(client, &command).await?;
    operation.say(json!({"ready": true}));
    let work = async {
        while let Some(command) = commands.recv().await {
            if let Some(done) = carry_out(&operation, &run, command).await? {
                return Ok(done);
            }
        }
        Err(Error::Closed)
    };
    let report = async {
        operation.say(json!({"cancel_requested": run.cancelled().await}));
        std::future::pending().await
    };
    tokio::select! {
        outcome = work => outcome,
        outcome = report => outcome,
    }
}

async fn producer(client: Client, command: &Command) -> Result<RunProducer, Error> {
    let defaults = ProducerOptions::default();
    let epoch = command.value("epoch").as_i64().unwrap_or(defaults.epoch);
    let producer = ProducerOptions { id: command.text("producer").to_owned(), epoch, ..defaults };
    if command.value("create").is_null() {
        return Ok(client.runs().continue_run(command.text("run"), producer));
    }
    let settings: RunSettings = parse("RunSettings", command.value("create"))?;
    let options = StartOptions {
        run_id: command.text("run").to_owned(),
        kind: settings.kind(),
        labels: settings.labels,
        parent_run_id: settings.parent_run_id,
        conversation_id: settings.conversation_id,
        producer_timeout: settings.producer_timeout.and_then(|timeout| timeout.try_into().ok()),
        producer,
        ..Default::default()
    };
    client.runs().start(&settings.name, options).await
}

async fn carry_out(operation: &Operation, run: &RunProducer, command: Command) -> Result<Option<serde_json::Value>, Error> {
    match command.text("do") {
        "send" => {
            let events = command.value("events").as_array().cloned().unwrap_or_default();
            for event in &events {
                run.publish(parse::<Event>("Event", event)?).await?;
            }
            operation.say(json!({"queued": events.len()}));
        }
        "flush" => {
            let receipt = run.flush().await?;
            let last = receipt.last_producer_sequence.to_string();
            operation.say(json!({"flushed": last, "tag": command.value("tag")}));
        }
        "finish" => {
            let message = command.text("error_message");
            let receipt = run
                .finish(match command.text("state") {
                    "FAILED" => lavant::Outcome::failed(message),
                    "CANCELLED" => lavant::Outcome::cancelled(message),
                    _ => lavant::Outcome::succeeded(),
                })
                .await?;
            return Ok(Some(json!({
                "last_producer_sequence": receipt.last_producer_sequence.to_string(),
                "last_sequence": receipt.last_sequence.to_string(),
            })));
        }
        other => return Err(Error::Invalid(format!("no command of a publish: {other}"))),
    }
    Ok(None)
}

//! Commands that measure the client: nothing is reported but how long they took.

use std::time::Instant;

use lavant::{Client, ReadOptions, StartOptions};
use serde_json::json;
use tokio_stream::StreamExt;

use crate::{Command, Outcome};

/// Read a run, and return the number of its events and the seconds that it took.
pub async fn read(client: Client, command: Command) -> Outcome {
    let (began, mut count) = (Instant::now(), 0);
    let mut events = client.runs().read(command.text("run"), ReadOptions::default());
    while let Some(event) = events.next().await {
        event?;
        count += 1;
    }
    Ok(json!({"events": count, "seconds": began.elapsed().as_secs_f64()}))
}

/// Publish a run of many events, and return the seconds until all are durable.
pub async fn publish(client: Client, command: Command) -> Outcome {
    let began = Instant::now();
    let options = StartOptions { run_id: command.text("run").to_owned(), ..Default::default() };
    let run = client.runs().start("fast", options).await?;
    for _ in 0..command.value("count").as_u64().unwrap_or_default() {
        run.custom("note", 1).await?;
    }
    run.finish(lavant::Outcome::succeeded()).await?;
    Ok(json!({"seconds": began.elapsed().as_secs_f64()}))
}

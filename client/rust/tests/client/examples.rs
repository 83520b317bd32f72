//! Examples of the README, each run as a test.

use std::fs;

use lavant::{Client, Config, Error, ErrorReason, Outcome, ReadOptions, Result, RunProducer, StartOptions};
use serde_json::json;
use tokio_stream::StreamExt;

use crate::support::{SHARED, record, sequences, within};

/// A client of the shared server: `Config::default()` of the README reads the environment.
struct Local;

impl Local {
    fn default() -> Config {
        Config { targets: vec![SHARED.target.clone()], ..Config::default() }
    }
}

#[tokio::test]
async fn publish_and_read() {
    within(async {
        let client = Client::new(Local::default())?; // LAVANT_TARGET, or localhost:7447

        let options = StartOptions { input: Some(json!({"city": "Oslo"})), ..Default::default() };
        let run = client.runs().start("weather-agent", options).await?;
        run.text("It is cold.").await?;
        run.finish(Outcome::succeeded()).await?; // returns when all of it is durable

        let mut events = client.runs().read(run.id(), ReadOptions::default());
        while let Some(event) = events.next().await {
            let event = event?;
            println!("{} {:?}", event.sequence, event.payload);
        }
        assert_eq!(client.runs().read(run.id(), ReadOptions::default()).text().await?, "It is cold.");
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn store_the_position() {
    within(async {
        let client = Client::new(Local::default())?;
        let run = record(&client, 3).await?;

        let options = ReadOptions { consumer: "alice@example.org".into(), ..Default::default() };
        let mut stream = client.runs().read(&run, options.clone());
        let mut stored = String::new();
        while let Some(event) = stream.next().await {
            println!("{}", event?.sequence);
            stored = stream.position(); // after the event was handled
        }

        let later = client.runs().read(&run, ReadOptions { resume_token: stored, ..options });
        assert_eq!(sequences(&mut { later }).await?, [] as [i64; 0]);
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn stop_when_somebody_cancels() {
    async fn work(run: &RunProducer) -> Outcome {
        run.text("It ").await.unwrap();
        std::future::pending().await
    }
    async fn publish(run: RunProducer) -> Result<()> {
        let outcome = tokio::select! {
            outcome = work(&run) => outcome,
            reason = run.cancelled() => Outcome::cancelled(&reason),
        };
        run.finish(outcome).await?;
        Ok(())
    }
    within(async {
        let client = Client::new(Local::default())?;
        let run = client.runs().start("weather-agent", StartOptions::default()).await?;
        run.flush().await?;
        client.runs().cancel(run.id(), "too slow").await?;
        publish(run).await
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn name_of_an_error() {
    within(async {
        let client = Client::new(Local::default())?;
        match client.runs().get("nowhere").await {
            Err(error) if error.reason() == Some(ErrorReason::RunNotFound) => println!("{error}"),
            other => panic!("{other:?}"),
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[test]
fn readme_has_these_examples() {
    let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n");
    let read = |path: &str| lines(&fs::read_to_string(path).unwrap());
    let here = read("tests/client/examples.rs").replace("Local::default()", "Config::default()").replace("panic!", "println!");
    let readme = read("README.md");
    let examples: Vec<_> = readme.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 4);
    for example in examples {
        assert!(here.contains(example), "not run as a test:\n{example}");
    }
}

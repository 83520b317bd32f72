//! Commands that read events.

use lavant::proto::ListEventsRequest;
use lavant::{Client, DeltaMode, EventType, ReadOptions, StartPosition, StopPosition};
use serde_json::{Value, json};
use tokio_stream::StreamExt;

use crate::json::print;
use crate::{Command, Operation, Outcome};

fn types(command: &Command) -> Vec<EventType> {
    let names = command.texts("types").into_iter();
    names.map(|name| EventType::from_str_name(&format!("EVENT_TYPE_{name}")).unwrap()).collect()
}

pub async fn read(client: Client, operation: Operation, command: Command) -> Outcome {
    let defaults = ReadOptions::default();
    let named = |prefix: &str, field: &str| format!("{prefix}_{}", command.text(field).to_uppercase());
    let (idle, heartbeat) = (command.seconds("idle_timeout"), command.seconds("heartbeat_interval"));
    let options = ReadOptions {
        consumer: command.text("consumer").to_owned(),
        resume_token: command.text("resume_token").to_owned(),
        take_over: command.is_set("take_over"),
        start: StartPosition::from_str_name(&named("START_POSITION", "start")).unwrap_or(defaults.start),
        stop: StopPosition::from_str_name(&named("STOP_POSITION", "stop")).unwrap_or(defaults.stop),
        types: types(&command),
        deltas: DeltaMode::from_str_name(&named("DELTA_MODE", "deltas")).unwrap_or(defaults.deltas),
        idle_timeout: Some(idle).filter(|time| !time.is_zero()),
        heartbeat_interval: if heartbeat.is_zero() { defaults.heartbeat_interval } else { heartbeat },
        wait_for_run: command.is_set("wait_for_run"),
    };
    operation.set_position(&options.resume_token);
    let mut stream = client.runs().read(command.text("run"), options);
    let mut fence = 0;
    while let Some(event) = stream.next().await {
        let event = event?;
        if stream.fence() != fence {
            fence = stream.fence();
            operation.say(json!({"opened": {"fence": fence}}));
        }
        let line = json!({"event": print("Event", &event)});
        if command.is_set("hold") {
            operation.say(line);
            operation.handled().await;
            operation.set_position(&stream.position());
        } else {
            operation.say_handled(line, &stream.position());
        }
    }
    operation.set_position(&stream.position());
    let reason = stream.end_reason().map_or("", |reason| reason.as_str_name());
    Ok(json!({"reason": reason.trim_start_matches("STREAM_END_REASON_"), "resume_token": stream.position()}))
}

pub async fn list_events(client: Client, command: Command) -> Outcome {
    let request = ListEventsRequest {
        run_id: command.text("run").to_owned(),
        types: types(&command).into_iter().map(i32::from).collect(),
        page_size: command.value("page_size").as_i64().map(|size| size as i32),
        ..Default::default()
    };
    let (mut events, mut token) = (Vec::new(), String::new());
    let mut pages = client.runs().event_pages(request);
    while let Some(page) = pages.next().await {
        let page = page?;
        events.extend(page.events.iter().map(|event| print("Event", event)));
        token = page.resume_token;
    }
    Ok(json!({"events": events, "resume_token": token}))
}

pub async fn text(client: Client, command: Command) -> Outcome {
    let text = client.runs().read(command.text("run"), ReadOptions::default()).text().await?;
    Ok(json!({"text": text}))
}

pub async fn result(client: Client, command: Command) -> Outcome {
    let result = client.runs().read(command.text("run"), ReadOptions::default()).result().await?;
    Ok(json!({"json": serde_json::from_str::<Value>(&result.output_json).unwrap_or_default()}))
}

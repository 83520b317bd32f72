use lavant::proto::{ArtifactUpdated, ToolCallOutcome, artifact_updated};
use lavant::{DeltaMode, Error, Outcome, ReadOptions, Result, Role, StartOptions, StepKind, StepOptions, TokenUsage};
use serde_json::{Value, json};
use tokio_stream::StreamExt;

use crate::support::{client, within};

#[tokio::test]
async fn whole_conversation_is_read_as_it_was_published() {
    within(async {
        let runs = client().runs();
        let run =
            runs.start("weather-agent", StartOptions { input: Some(json!({"city": "Oslo"})), ..Default::default() }).await?;
        let mut question = run.message(Role::User, "").await?;
        question.text("How is it?").await?;
        question.end().await?;
        run.reasoning("I have to look.").await?;
        run.text("It ").await?;
        let tool = run.tool("search_web", json!({"q": "Oslo"}), "call-1").await?;
        tool.output("searching").await?;
        tool.end(Outcome::succeeded().with_output(json!(["-3 °C"]))).await?;
        let options = StepOptions { kind: StepKind::ModelRequest, input: Some(json!(1)), ..Default::default() };
        let step = run.step("think", options).await?;
        step.text("is ").await?;
        step.tool("broken", Value::Null, "").await?.end(Outcome::failed("out of order")).await?;
        let denied = step.tool("delete", json!({}), "").await?;
        denied.end_as(ToolCallOutcome::Denied, Outcome::failed("not allowed")).await?;
        step.end(Outcome::succeeded().with_output("done")).await?;
        let nested = run.step("helper", StepOptions { kind: StepKind::Agent, ..Default::default() }).await?;
        nested.text("nobody reads this").await?;
        nested.end(Outcome::succeeded()).await?;
        run.progress("sources", Some(1), None).await?;
        run.report_error("slow").await?;
        run.state("", json!({"n": 1})).await?;
        run.custom("weather.measured", -3).await?;
        let content = Some(artifact_updated::Content::Data(b"x".into()));
        run.artifact(ArtifactUpdated { name: "a.txt".into(), content, ..Default::default() }).await?;
        let long = "cold é ".repeat(60_000);
        run.text(&long).await?;
        let usage = TokenUsage { input_tokens: 812, ..Default::default() };
        run.finish(Outcome::succeeded().with_output(json!({"answer": "cold"})).with_usage(usage)).await?;

        for deltas in [DeltaMode::All, DeltaMode::None] {
            let text = runs.read(run.id(), ReadOptions { deltas, ..Default::default() }).text().await?;
            assert!(text == format!("It is {long}"), "{deltas:?}: the text has {} bytes", text.len());
        }
        assert_eq!(runs.read(run.id(), ReadOptions::default()).output().await?, json!({"answer": "cold"}));
        let calls = runs.read(run.id(), ReadOptions::default()).tool_calls().collect::<Result<Vec<_>>>().await?;
        let found: Vec<_> = calls.iter().map(|call| (call.call.tool_name.as_str(), call.result.outcome())).collect();
        let expected = [
            ("search_web", ToolCallOutcome::Succeeded),
            ("broken", ToolCallOutcome::Failed),
            ("delete", ToolCallOutcome::Denied),
        ];
        assert_eq!(found, expected);
        assert_eq!(calls[0].result.result_json, r#"["-3 °C"]"#);
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn result_of_a_failed_run_is_an_error() {
    within(async {
        let runs = client().runs();
        let run = runs.start("weather-agent", StartOptions::default()).await?;
        run.finish(Outcome::failed("no such city")).await?;
        let failed = runs.read(run.id(), ReadOptions::default()).result().await.unwrap_err();
        assert!(matches!(&failed, Error::RunNotSucceeded { result, .. } if result.error.is_some()));
        assert!(failed.to_string().ends_with("ended as FAILED: no such city"), "{failed}");
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn step_that_is_tried_again_has_the_text_of_the_last_attempt() {
    within(async {
        let runs = client().runs();
        let run = runs.start("weather-agent", StartOptions::default()).await?;
        let mut id = String::new();
        for (attempt, text) in [(1, "It is warm."), (2, "It is cold.")] {
            let step = run.step("look", StepOptions { id, attempt, ..Default::default() }).await?;
            id = step.id().to_owned();
            step.text(text).await?;
            step.end(Outcome::succeeded()).await?;
        }
        run.finish(Outcome::succeeded()).await?;
        assert_eq!(runs.read(run.id(), ReadOptions::default()).text().await?, "It is cold.");
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

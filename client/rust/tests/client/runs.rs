use std::collections::BTreeMap;
use std::time::Duration;

use lavant::proto::{Evaluator, ListRunsRequest, QueryScoresRequest, ScoreFilter};
use lavant::{
    Error, ErrorReason, Outcome, Result, Run, RunChange, RunFilter, RunSettings, RunState, Score, ScoreOptions, StartOptions,
    has_ended,
};
use tokio::time::timeout;
use tokio_stream::StreamExt;

use crate::support::{Server, client, record, within};

fn labels(test: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("test".into(), test.into())])
}

#[tokio::test]
async fn calls_about_runs_agree_with_each_other() {
    within(async {
        let runs = client().runs();
        let settings = RunSettings { name: "listed".into(), labels: labels("agree"), ..Default::default() };
        let created = runs.create("", settings.clone()).await?;
        assert_eq!(runs.create(&created.run_id, settings.clone()).await?.create_time, created.create_time);
        let other = RunSettings { name: "other".into(), ..Default::default() };
        assert_eq!(runs.create(&created.run_id, other).await.unwrap_err().reason(), Some(ErrorReason::RunExists));
        for _ in 0..4 {
            runs.create("", settings.clone()).await?;
        }
        let filter = Some(RunFilter { labels: labels("agree"), ..Default::default() });
        let pages = runs.list_pages(ListRunsRequest { filter, page_size: Some(2), ..Default::default() });
        assert_eq!(pages.collect::<Result<Vec<Run>>>().await?.len(), 5);
        assert_eq!(runs.delete(&created.run_id).await.unwrap_err().reason(), Some(ErrorReason::RunNotEnded));
        let ended = record(&client(), 1).await?;
        runs.delete(&ended).await?;
        assert_eq!(runs.get(&ended).await.unwrap_err().reason(), Some(ErrorReason::RunNotFound));
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn watch_returns_each_change_over_a_kill() {
    within(async {
        let mut server = Server::start(&[]);
        let runs = server.client().runs();
        let options = || StartOptions { labels: labels("watch"), ..Default::default() };
        let filter = RunFilter { labels: labels("watch"), states: vec![RunState::Running.into()], ..Default::default() };
        let first = runs.start("first", options()).await?;
        first.flush().await?;
        let mut watch = runs.watch(filter, "");
        assert!(matches!(watch.next().await.unwrap()?, RunChange::Changed(run) if run.run_id == first.id()));
        assert!(matches!(watch.next().await.unwrap()?, RunChange::CaughtUp));
        server.restart();
        let second = runs.start("second", options()).await?;
        assert!(matches!(watch.next().await.unwrap()?, RunChange::Changed(run) if run.run_id == second.id()));
        assert!(!watch.position().is_empty());
        second.finish(Outcome::succeeded()).await?;
        assert!(matches!(watch.next().await.unwrap()?, RunChange::Left(id) if id == second.id()));
        first.finish(Outcome::succeeded()).await?;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn watch_with_a_token_of_another_store_starts_again() {
    within(async {
        let mut watch = client().runs().watch(RunFilter::default(), "of-another-store");
        assert!(matches!(watch.next().await.unwrap()?, RunChange::Reset));
        record(&client(), 1).await?;
        assert!(matches!(watch.next().await.unwrap()?, RunChange::Changed(_)));
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn wait_lasts_until_the_end_or_the_drop() {
    within(async {
        let runs = client().runs();
        let run = runs.start("endless", StartOptions::default()).await?;
        run.flush().await?;
        timeout(Duration::from_millis(200), runs.wait(run.id())).await.expect_err("the run has ended");
        run.finish(Outcome::succeeded()).await?;
        assert!(has_ended(&runs.wait(run.id()).await?));
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn score_that_is_recorded_twice_is_listed_once() {
    within(async {
        let client = client();
        let run = record(&client, 1).await?;
        let mut score = Score::passed("helpful", false);
        score.evaluator = Some(Evaluator { name: "ada".into(), ..Default::default() });
        let id = client.scores().record(&run, score.clone(), ScoreOptions::default()).await?;
        client.scores().record(&run, score, ScoreOptions { id, ..Default::default() }).await?;
        let filter = ScoreFilter { subject_run_id: run, ..Default::default() };
        let mut found = Vec::new();
        while found.is_empty() {
            found = client.scores().list(filter.clone()).collect::<Result<Vec<_>>>().await?; // it may lag by moments
        }
        assert_eq!(found.len(), 1);
        let groups = client.scores().query(QueryScoresRequest { filter: Some(filter), ..Default::default() }).await?;
        assert_eq!((groups.len(), groups[0].count, groups[0].pass_rate), (1, 1, Some(0.0)));
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

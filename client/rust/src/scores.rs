use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::transport::Channel;

use crate::client::Shared;
use crate::connections::MAX_RESPONSE;
use crate::errors::Result;
use crate::pages::Pages;
use crate::proto::score::Value;
use crate::proto::score_service_client::ScoreServiceClient;
use crate::proto::{
    CompareScoresRequest, ListScoresRequest, QueryScoresRequest, RecordScoreRequest, Score, ScoreChange, ScoreFilter,
    ScoreGroup, ScoreRecorded,
};
use crate::runs::new_id;

/// Options of a score that is recorded.
#[derive(Clone, Debug, Default)]
pub struct ScoreOptions {
    /// ID of the score: a score is recorded once per ID. Empty: a new one.
    pub id: String,
    /// Labels of the score. At most 16.
    pub labels: BTreeMap<String, String>,
}

impl Score {
    /// Score on the evaluator's own scale, usually 0 to 1.
    pub fn number(name: &str, value: f64) -> Self {
        Self { name: name.to_owned(), value: Some(Value::Number(value)), ..Default::default() }
    }

    /// Score that says whether an assertion held.
    pub fn passed(name: &str, value: bool) -> Self {
        Self { name: name.to_owned(), value: Some(Value::Passed(value)), ..Default::default() }
    }

    /// Score that is a class, such as "toxic".
    pub fn label(name: &str, value: &str) -> Self {
        Self { name: name.to_owned(), value: Some(Value::Label(value.to_owned())), ..Default::default() }
    }
}

/// Calls about scores, from [`Client::scores`](crate::Client::scores).
#[derive(Clone)]
pub struct Scores {
    client: Arc<Shared>,
}

impl Scores {
    pub(crate) fn new(client: Arc<Shared>) -> Self {
        Self { client }
    }

    /// Record a score of a run, such as a user's feedback; return the score's ID. The run need not have ended.
    pub async fn record(&self, run: &str, score: Score, options: ScoreOptions) -> Result<String> {
        let id = if options.id.is_empty() { new_id() } else { options.id };
        let request = RecordScoreRequest {
            score_id: id.clone(),
            run_id: run.to_owned(),
            score: Some(score),
            labels: options.labels,
            ..Default::default()
        };
        self.client.call(request, |on, request| async move { stub(on).record_score(request).await }).await?;
        Ok(id)
    }

    /// List the scores that match, those of the latest runs first. The default filter matches all.
    pub fn list(&self, filter: ScoreFilter) -> Pages<ScoreRecorded> {
        let client = self.client.clone();
        Pages::new(String::new(), move |page_token| {
            let request = ListScoresRequest { filter: Some(filter.clone()), page_token, ..Default::default() };
            let client = client.clone();
            async move {
                let response = client.call(request, |on, request| async move { stub(on).list_scores(request).await }).await?;
                Ok((response.scores, response.next_page_token))
            }
        })
    }

    /// Aggregate scores by groups and over time.
    pub async fn query(&self, request: QueryScoresRequest) -> Result<Vec<ScoreGroup>> {
        let response = self.client.call(request, |on, request| async move { stub(on).query_scores(request).await }).await?;
        Ok(response.groups)
    }

    /// Compare scores with earlier ones, or with those of another version.
    pub async fn compare(&self, request: CompareScoresRequest) -> Result<Vec<ScoreChange>> {
        let response = self.client.call(request, |on, request| async move { stub(on).compare_scores(request).await }).await?;
        Ok(response.changes)
    }
}

fn stub(channel: Channel) -> ScoreServiceClient<Channel> {
    ScoreServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE)
}

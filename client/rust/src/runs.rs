use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::calls::UNANSWERED;
use crate::client::Shared;
use crate::connections::MAX_RESPONSE;
use crate::errors::Result;
use crate::pages::Pages;
use crate::producer::{ProducerOptions, RunProducer, StartOptions};
use crate::proto::event_service_client::EventServiceClient;
use crate::proto::run_service_client::RunServiceClient;
use crate::proto::{
    CancelRunRequest, CreateRunRequest, DeleteRunRequest, Event, EventType, GetRunRequest, ListEventsRequest,
    ListEventsResponse, ListRunsRequest, Run, RunFilter, RunSettings, RunState, WaitRunRequest,
};
use crate::reading::{EventStream, ReadOptions};
use crate::retries::{Delays, STEADY};
use crate::watching::RunWatch;

/// Less than the contract allows, so that proxies with limits of a minute do not cut a call.
const LONGEST_WAIT: Duration = Duration::from_secs(50);

/// Calls about runs, from [`Client::runs`](crate::Client::runs).
///
/// While the server cannot be reached, calls are repeated within [`Config::timeout`](crate::Config::timeout): repeating
/// them has no second effect.
#[derive(Clone)]
pub struct Runs {
    client: Arc<Shared>,
}

impl Runs {
    pub(crate) fn new(client: Arc<Shared>) -> Self {
        Self { client }
    }

    /// Create a run in state QUEUED. With an empty ID, a new one is chosen. A run with the same settings is returned as it
    /// is. A producer need not call this: [`start`](Self::start) creates the run with its first event.
    pub async fn create(&self, id: &str, settings: RunSettings) -> Result<Run> {
        let run_id = if id.is_empty() { new_id() } else { id.to_owned() };
        let request = CreateRunRequest { run_id, settings: Some(settings), ..Default::default() };
        let response = self.client.call(request, |on, request| async move { stub(on).create_run(request).await }).await?;
        Ok(response.run.unwrap_or_default())
    }

    /// Return a run.
    pub async fn get(&self, id: &str) -> Result<Run> {
        let request = GetRunRequest { run_id: id.to_owned(), ..Default::default() };
        let response = self.client.call(request, |on, request| async move { stub(on).get_run(request).await }).await?;
        Ok(response.run.unwrap_or_default())
    }

    /// List the runs that match, the newest first. The default filter matches all.
    pub fn list(&self, filter: RunFilter) -> Pages<Run> {
        self.list_pages(ListRunsRequest { filter: Some(filter), ..Default::default() })
    }

    /// List runs with all settings of the request, such as the size of the pages.
    pub fn list_pages(&self, request: ListRunsRequest) -> Pages<Run> {
        let client = self.client.clone();
        Pages::new(request.page_token.clone(), move |page_token| {
            let (client, request) = (client.clone(), ListRunsRequest { page_token, ..request.clone() });
            async move {
                let response = client.call(request, |on, request| async move { stub(on).list_runs(request).await }).await?;
                Ok((response.runs, response.next_page_token))
            }
        })
    }

    /// Wait until a run has ended, and return the run. Set a timeout around it to wait no longer.
    pub async fn wait(&self, id: &str) -> Result<Run> {
        let timeout = prost_types::Duration::try_from(LONGEST_WAIT).ok();
        let request = WaitRunRequest { run_id: id.to_owned(), timeout, ..Default::default() };
        let mut early = Delays::default();
        loop {
            let began = Instant::now();
            let attempt = || {
                let patience = LONGEST_WAIT + UNANSWERED;
                self.client.attempt(self.client.pool.long(), patience, request.clone(), |on, request| async move {
                    stub(on).wait_run(request).await
                })
            };
            let response = self.client.repeat(LONGEST_WAIT + self.client.timeout, attempt).await?;
            let run = response.run.unwrap_or_default();
            if has_ended(&run) {
                return Ok(run);
            }
            if began.elapsed() >= STEADY {
                early = Delays::default();
            } else {
                sleep(early.next(Duration::ZERO)).await; // a server that drains answers at once
            }
        }
    }

    /// Watch the runs that match, and then each change to them. The default filter matches all. With a resume token, it
    /// starts with the changes after it.
    pub fn watch(&self, filter: RunFilter, resume_token: &str) -> RunWatch {
        RunWatch::new(self.client.clone(), filter, resume_token.to_owned())
    }

    /// Ask the run's producer to stop, and return the run, which usually has not ended yet.
    pub async fn cancel(&self, id: &str, reason: &str) -> Result<Run> {
        let request = CancelRunRequest { run_id: id.to_owned(), reason: reason.to_owned(), ..Default::default() };
        let response = self.client.call(request, |on, request| async move { stub(on).cancel_run(request).await }).await?;
        Ok(response.run.unwrap_or_default())
    }

    /// Delete an ended run and its log. A call that is repeated after a cut may find the run already deleted.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let request = DeleteRunRequest { run_id: id.to_owned(), ..Default::default() };
        self.client.call(request, |on, request| async move { stub(on).delete_run(request).await }).await?;
        Ok(())
    }

    /// List the events that are recorded so far, without a lease. No types: all.
    pub fn events(&self, id: &str, types: &[EventType]) -> Pages<Event> {
        let types = types.iter().map(|&of| of.into()).collect();
        let request = ListEventsRequest { run_id: id.to_owned(), types, ..Default::default() };
        self.fetch_events(request, |response| response.events)
    }

    /// List events with all settings of the request, and with the resume token of each page, after which a stream or a
    /// later request continues.
    pub fn event_pages(&self, request: ListEventsRequest) -> Pages<ListEventsResponse> {
        self.fetch_events(request, |response| vec![response])
    }

    fn fetch_events<T>(&self, request: ListEventsRequest, items: fn(ListEventsResponse) -> Vec<T>) -> Pages<T>
    where
        T: 'static,
    {
        let client = self.client.clone();
        Pages::new(request.page_token.clone(), move |page_token| {
            let (client, request) = (client.clone(), ListEventsRequest { page_token, ..request.clone() });
            async move {
                let list = |on, request| async move {
                    EventServiceClient::new(on).max_decoding_message_size(MAX_RESPONSE).list_events(request).await
                };
                let response = client.call(request, list).await?;
                let next = response.next_page_token.clone();
                Ok((items(response), next))
            }
        })
    }

    /// Read the events of a run, and wait for those to come. The call is made when the stream is polled.
    pub fn read(&self, id: &str, options: ReadOptions) -> EventStream {
        EventStream::new(self.client.clone(), id.to_owned(), options)
    }

    /// Start a run of the agent or evaluation with a name, without waiting: the server creates it with its first event.
    /// Fails for settings that cannot be sent; what the server refuses is an error of later methods.
    pub async fn start(&self, name: &str, options: StartOptions) -> Result<RunProducer> {
        RunProducer::start(self.client.clone(), name, options).await
    }

    /// Publish to a run that exists, such as one that [`create`](Self::create) has created, or that another process has
    /// started. To continue as the same producer, use its ID with a higher epoch.
    pub fn continue_run(&self, id: &str, options: ProducerOptions) -> RunProducer {
        RunProducer::new(self.client.clone(), id.to_owned(), None, options)
    }
}

/// Whether a run is in a terminal state.
pub fn has_ended(run: &Run) -> bool {
    run.state >= RunState::Succeeded.into()
}

/// Return an ID that sorts by time.
pub(crate) fn new_id() -> String {
    Uuid::now_v7().to_string()
}

fn stub(channel: Channel) -> RunServiceClient<Channel> {
    RunServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE)
}

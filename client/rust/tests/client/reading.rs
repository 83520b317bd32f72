use std::time::Duration;

use lavant::{Error, ErrorReason, Outcome, ReadOptions, Result, StartOptions, StreamEndReason};
use tokio_stream::StreamExt;

use crate::support::{Proxy, SHARED, client, client_of, counted, record, sequences, within};

fn as_consumer(consumer: &str) -> ReadOptions {
    ReadOptions { consumer: consumer.into(), ..Default::default() }
}

#[tokio::test]
async fn whole_run_is_read_once() {
    within(async {
        let client = client();
        let run = record(&client, 2_500).await?;
        let mut stream = client.runs().read(&run, ReadOptions::default());
        assert_eq!(sequences(&mut stream).await?, counted(1, 2_502));
        assert_eq!(stream.end_reason(), Some(StreamEndReason::RunFinished));
        assert!(stream.is_caught_up() && stream.fence() > 0);
        assert_eq!(stream.run().map(|run| run.run_id.as_str()), Some(run.as_str()));
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn run_over_connections_that_are_cut_anywhere_is_read_once() {
    within(async {
        let run = record(&client(), 600).await?;
        for after in [5_000, 15_011, 30_013] {
            let proxy = Proxy::start(&SHARED.target, after).await;
            let mut stream = client_of(&proxy.target).runs().read(&run, as_consumer("cut"));
            assert_eq!(sequences(&mut stream).await?, counted(1, 602));
            assert!(proxy.accepted() > 1, "no connection was cut");
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn position_within_a_frame_continues_with_the_next_event() {
    within(async {
        let client = client();
        let run = record(&client, 50).await?;
        for stop in [1, 17, 52] {
            let mut stream = client.runs().read(&run, ReadOptions::default());
            while stream.next().await.unwrap()?.sequence < stop {}
            let resume_token = stream.position();
            let mut later = client.runs().read(&run, ReadOptions { resume_token, ..Default::default() });
            assert_eq!(later.position(), stream.position());
            assert_eq!(sequences(&mut later).await?, counted(stop + 1, 52));
            assert_eq!(sequences(&mut stream).await?, counted(stop + 1, 52));
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn consumer_that_dropped_its_stream_continues_at_once() {
    within(async {
        let client = client();
        let run = record(&client, 3_000).await?;
        for _ in 0..20 {
            let mut stream = client.runs().read(&run, as_consumer("alice"));
            assert_eq!(stream.next().await.unwrap()?.sequence, 1);
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn rival_with_take_over_displaces_the_first() {
    within(async {
        let client = client();
        let run = client.runs().start("noter", StartOptions::default()).await?;
        run.flush().await?;
        let mut first = client.runs().read(run.id(), as_consumer("alice"));
        first.next().await.unwrap()?;
        let rival = crate::support::client().runs();
        let refused = rival.read(run.id(), as_consumer("alice")).next().await.unwrap();
        assert_eq!(refused.unwrap_err().reason(), Some(ErrorReason::ConsumerBusy));
        let mut second = rival.read(run.id(), ReadOptions { take_over: true, ..as_consumer("alice") });
        second.next().await.unwrap()?;
        let displaced = first.next().await.unwrap();
        assert_eq!(displaced.unwrap_err().reason(), Some(ErrorReason::StreamDisplaced));
        assert!(first.next().await.is_none(), "the error is the last item");
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn dead_connection_is_replaced() {
    within(async {
        let proxy = Proxy::start(&SHARED.target, 0).await;
        let (writer, reader) = (client(), client_of(&proxy.target));
        let run = writer.runs().start("noter", StartOptions::default()).await?;
        run.flush().await?;
        let options = ReadOptions { heartbeat_interval: Duration::from_secs(1), ..Default::default() };
        let mut stream = reader.runs().read(run.id(), options);
        assert_eq!(stream.next().await.unwrap()?.sequence, 1);
        // The connection swallows everything from here on; a new one does not.
        proxy.freeze(true);
        run.finish(Outcome::succeeded()).await?;
        let thaw = async {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            proxy.freeze(false);
            std::future::pending().await
        };
        let event: Option<Result<_>> = tokio::select! { event = stream.next() => event, event = thaw => event };
        assert_eq!(event.unwrap()?.sequence, 2);
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn wait_for_an_event_that_is_dropped_loses_nothing() {
    within(async {
        let client = client();
        let run = client.runs().start("noter", StartOptions::default()).await?;
        run.flush().await?;
        let mut stream = client.runs().read(run.id(), ReadOptions::default());
        let mut found = Vec::new();
        while found.len() < 2 {
            // The stream is polled, and dropped between any two of its steps.
            tokio::select! {
                biased;
                event = stream.next() => {
                    found.push(event.unwrap()?.sequence);
                    run.finish(Outcome::succeeded()).await?;
                }
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(found, [1, 2]);
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn unknown_run_and_foreign_token_are_named() {
    within(async {
        let client = client();
        let unknown = client.runs().read("nowhere", ReadOptions::default()).text().await;
        assert_eq!(unknown.unwrap_err().reason(), Some(ErrorReason::RunNotFound));
        let run = record(&client, 1).await?;
        let options = ReadOptions { resume_token: "x".into(), ..Default::default() };
        let refused = client.runs().read(&run, options).next().await.unwrap();
        assert_eq!(refused.unwrap_err().reason(), Some(ErrorReason::ResumeTokenInvalid));
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

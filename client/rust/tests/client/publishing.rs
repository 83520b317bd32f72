use std::time::Duration;

use lavant::proto::TextDelta;
use lavant::proto::event::Payload;
use lavant::{Error, ErrorReason, Event, Outcome, ProducerOptions, RunState, StartOptions};
use tokio::time::timeout;

use crate::support::{Proxy, SHARED, Server, client, client_of, note, notes, record, within};

fn as_producer(id: &str, epoch: i64) -> ProducerOptions {
    ProducerOptions { id: id.into(), epoch, ..Default::default() }
}

#[tokio::test]
async fn run_over_connections_that_are_cut_is_stored_once() {
    within(async {
        let proxy = Proxy::start(&SHARED.target, 0).await;
        let run = client_of(&proxy.target).runs().start("noter", StartOptions::default()).await?;
        const COUNT: usize = 3_000;
        for number in 0..COUNT {
            match number % 300 {
                100 => {
                    run.flush().await?;
                    proxy.freeze(true); // what is sent from here on is lost with the connection
                }
                200 => {
                    proxy.cut();
                    proxy.freeze(false);
                }
                _ => {}
            }
            run.publish(note(number)).await?;
        }
        proxy.cut();
        let receipt = run.finish(Outcome::succeeded()).await?;
        assert_eq!(receipt.last_sequence, COUNT as i64 + 2);
        assert_eq!(receipt.last_producer_sequence, COUNT as i64 + 2);
        assert_eq!(notes(&client(), run.id()).await?, (0..COUNT).collect::<Vec<_>>());
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn run_over_a_kill_of_the_server_is_stored_once() {
    within(async {
        let mut server = Server::start(&[]);
        let client = server.client();
        let run = client.runs().start("noter", StartOptions::default()).await?;
        for number in 0..200 {
            if number == 100 {
                server.restart();
            }
            run.publish(note(number)).await?;
        }
        run.finish(Outcome::succeeded()).await?;
        assert_eq!(notes(&client, run.id()).await?, (0..200).collect::<Vec<_>>());
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn higher_epoch_fences_the_first() {
    within(async {
        let client = client();
        let options = StartOptions { producer: as_producer("p", 1), ..Default::default() };
        let first = client.runs().start("noter", options).await?;
        first.flush().await?;
        let second = client.runs().continue_run(first.id(), as_producer("p", 2));
        second.publish(note(0)).await?;
        second.flush().await?;
        first.publish(note(1)).await?;
        assert_eq!(first.flush().await.unwrap_err().reason(), Some(ErrorReason::ProducerFenced));
        assert_eq!(first.publish(note(2)).await.unwrap_err().reason(), Some(ErrorReason::ProducerFenced));
        second.finish(Outcome::succeeded()).await?;
        assert_eq!(notes(&client, first.id()).await?, [0]);
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn invalid_event_is_named() {
    within(async {
        let run = client().runs().start("noter", StartOptions::default()).await?;
        let delta = TextDelta { message_id: "never-started".into(), text: "hello".into(), ..Default::default() };
        run.publish(Event { payload: Some(Payload::TextDelta(delta)), ..Default::default() }).await?;
        let Err(Error::Call(refused)) = run.finish(Outcome::succeeded()).await else { panic!("it was stored") };
        assert_eq!(refused.known_reason(), Some(ErrorReason::InvalidField));
        assert!(refused.violations[0].0.contains("message_id"), "{refused:?}");
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn event_that_no_batch_can_hold_is_refused_at_once() {
    within(async {
        let run = client().runs().start("noter", StartOptions::default()).await?;
        assert!(matches!(run.custom("test.large", "x".repeat(1 << 20)).await, Err(Error::Invalid(_))));
        run.finish(Outcome::succeeded()).await?;
        assert!(matches!(run.publish(note(0)).await, Err(Error::Closed)));
        assert_eq!(run.finish(Outcome::failed("late")).await?.last_sequence, 2, "the first end counts");
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn full_outbox_waits_until_the_wait_is_dropped() {
    within(async {
        let producer = ProducerOptions { queue_bytes: 1_000, ..Default::default() };
        let options = StartOptions { producer, ..Default::default() };
        let run = client_of("127.0.0.1:1").runs().start("noter", options).await?;
        let fill = async {
            for number in 0.. {
                run.publish(note(number)).await.unwrap();
            }
        };
        timeout(Duration::from_millis(300), fill).await.expect_err("a full outbox waits");
        // What ends things never waits.
        timeout(Duration::from_millis(300), run.finish(Outcome::succeeded())).await.expect_err("it is not durable");
        assert!(matches!(run.publish(note(0)).await, Err(Error::Closed)));
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn request_to_cancel_reaches_the_work() {
    within(async {
        let client = client();
        let run = client.runs().start("worker", StartOptions::default()).await?;
        run.flush().await?;
        client.runs().cancel(run.id(), "no longer needed").await?;
        let reason = run.cancelled().await;
        assert_eq!(reason, "no longer needed");
        run.finish(Outcome::cancelled(&reason)).await?;
        let ended = client.runs().wait(run.id()).await?;
        assert_eq!(ended.state(), RunState::Cancelled);
        assert_eq!(ended.result.unwrap().error.unwrap().message, reason);
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn silent_run_is_not_abandoned() {
    within(async {
        let client = client();
        let options = StartOptions { producer_timeout: Some(Duration::from_secs(2)), ..Default::default() };
        let run = client.runs().start("thinker", options).await?;
        run.flush().await?;
        timeout(Duration::from_secs(5), client.runs().wait(run.id())).await.expect_err("the run has ended");
        run.finish(Outcome::succeeded()).await?;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn run_that_has_ended_takes_no_more() {
    within(async {
        let client = client();
        let run = record(&client, 1).await?;
        let late = client.runs().continue_run(&run, ProducerOptions::default());
        late.publish(note(1)).await?;
        assert_eq!(late.flush().await.unwrap_err().reason(), Some(ErrorReason::RunSealed));
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

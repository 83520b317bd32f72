use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, io};

use lavant::{
    Certificate, Client, ClientTlsConfig, Config, Error, ErrorReason, Outcome, ProducerOptions, ReadOptions, RunFilter,
    StartOptions, Token,
};
use tokio::runtime::Handle;
use tokio::task::{JoinSet, yield_now};
use tokio_stream::StreamExt;

use crate::support::{Proxy, SHARED, Server, client, client_of, new_folder, next_line, note, notes, python, record, within};

#[tokio::test]
async fn nothing_is_left_after_everything_is_dropped() {
    within(async {
        let client = client();
        let finished = record(&client, 10).await?;
        client.runs().read(&finished, ReadOptions::default()).next().await.unwrap()?;
        client.runs().watch(RunFilter::default(), "").next().await.unwrap()?;
        let open = client.runs().start("open", StartOptions::default()).await?;
        open.flush().await?;
        let unsent = client.runs().start("unsent", StartOptions::default()).await?;
        let unused = client.runs().continue_run(&finished, ProducerOptions::default());
        let clone = unsent.clone();
        // A source that never answers: the task of its producer would wait without limit.
        let token = Some(Token::new(std::future::pending::<io::Result<String>>));
        let stuck = Client::new(Config { targets: vec![SHARED.target.clone()], token, ..Default::default() })?;
        let waiting = stuck.runs().start("waiting", StartOptions::default()).await?;
        yield_now().await;
        assert!(Handle::current().metrics().num_alive_tasks() > 0);
        drop((open, unsent, unused, client, waiting, stuck));
        clone.publish(note(0)).await?; // a clone publishes on
        drop(clone);
        while Handle::current().metrics().num_alive_tasks() > 0 {
            yield_now().await;
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn more_streams_than_a_connection_allows_open_further_ones() {
    within(async {
        let proxy = Proxy::start(&SHARED.target, 0).await;
        let config = Config { targets: vec![proxy.target.clone()], calls_per_connection: 20, ..Default::default() };
        let reader = Client::new(config)?;
        let run = client().runs().start("noter", StartOptions::default()).await?;
        run.flush().await?;
        let mut streams: Vec<_> = (0..50).map(|_| reader.runs().read(run.id(), ReadOptions::default())).collect();
        for stream in &mut streams {
            assert_eq!(stream.next().await.unwrap()?.sequence, 1);
        }
        assert_eq!(proxy.accepted(), 3);
        run.finish(Outcome::succeeded()).await?;
        let mut reading = JoinSet::new();
        for mut stream in streams {
            reading.spawn(async move { stream.result().await });
        }
        for result in reading.join_all().await {
            result?;
        }
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn one_of_several_addresses_dies_and_the_others_serve() {
    within(async {
        let (first, second) = (Proxy::start(&SHARED.target, 0).await, Proxy::start(&SHARED.target, 0).await);
        let targets = vec![first.target.clone(), second.target.clone()];
        let client = Client::new(Config { targets, ..Default::default() })?;
        let run = client.runs().start("noter", StartOptions::default()).await?;
        run.flush().await?;
        client.runs().get(run.id()).await?;
        assert_eq!((first.accepted(), second.accepted()), (1, 1), "calls go to both in turn");
        first.stop();
        for number in 0..100 {
            run.publish(note(number)).await?;
            client.runs().get(run.id()).await?;
        }
        run.finish(Outcome::succeeded()).await?;
        assert_eq!(notes(&client, run.id()).await?, (0..100).collect::<Vec<_>>());
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn credential_over_tls_is_accepted_and_renewed() {
    within(async {
        let folder = new_folder();
        let made = Command::new(python()).args(["-m", "trustme", "-q", "-d"]).arg(&folder).args(["-i", "127.0.0.1"]).status();
        assert!(made.unwrap().success());
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let (certificate, key) = (path("server.pem"), path("server.key"));
        let mut server = Server::start(&["--auth", "keys", "--init-key", "--tls-cert", &certificate, "--tls-key", &key]);
        let lines = server.lines.as_mut().unwrap();
        let secret = loop {
            if let Some((_, secret)) = next_line(lines).trim().split_once("only now: ") {
                break secret.to_owned();
            }
        };
        let ca = Certificate::from_pem(fs::read(path("client.pem")).unwrap());
        let mut config = Config {
            targets: vec![server.target.clone()],
            tls: Some(ClientTlsConfig::new().ca_certificate(ca)),
            ..Default::default()
        };
        let get = async |config: &Config| Client::new(config.clone()).unwrap().runs().get("nowhere").await.unwrap_err();
        assert_eq!(get(&config).await.reason(), Some(ErrorReason::Unauthenticated));

        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        config.token = Some(Token::new(move || {
            let (call, secret) = (counter.fetch_add(1, Ordering::SeqCst), secret.clone());
            async move {
                match call {
                    0 => Err(io::Error::other("the issuer is out of reach")),
                    1 => Ok("expired".into()),
                    _ => Ok(secret),
                }
            }
        }));
        assert_eq!(get(&config).await.reason(), Some(ErrorReason::RunNotFound));
        assert_eq!(asked.swap(0, Ordering::SeqCst), 3);
        record(&Client::new(config.clone())?, 3).await?;

        let counter = asked.clone();
        asked.store(0, Ordering::SeqCst);
        config.token = Some(Token::new(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, io::Error>("expired".into()) }
        }));
        let refused = Client::new(config)?.runs().read("nowhere", ReadOptions::default()).next().await.unwrap();
        assert_eq!(refused.unwrap_err().reason(), Some(ErrorReason::Unauthenticated));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

#[test]
fn credential_in_plain_text_goes_to_this_machine_only() {
    for (target, is_allowed) in [
        ("lavant.example.org:7447", false),
        ("192.0.2.1:7447", false),
        ("localhost:7447", true),
        ("127.0.0.9:7447", true),
        ("[::1]:7447", true),
        ("unix:/run/lavant.sock", true),
    ] {
        let config = Config { targets: vec![target.into()], api_key: Some("key".into()), ..Default::default() };
        assert_eq!(Client::new(config).is_ok(), is_allowed, "{target}");
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let token = Token::new(|| async { Ok::<_, io::Error>("key".into()) });
    for config in [
        Config { targets: vec!["https://localhost:7447".into()], ..Default::default() },
        Config { api_key: Some("key".into()), token: Some(token), ..Default::default() },
        Config { api_key: Some("two words".into()), ..Default::default() },
    ] {
        assert!(matches!(Client::new(config), Err(Error::Invalid(_))));
    }
    let config = Config { api_key: Some("secret".into()), ..Default::default() };
    assert!(!format!("{config:?}").contains("secret"));
}

#[tokio::test]
async fn server_that_is_away_is_an_error_after_the_timeout() {
    within(async {
        let config =
            Config { targets: vec!["127.0.0.1:1".into()], timeout: std::time::Duration::from_secs(1), ..Default::default() };
        let Err(Error::Call(failed)) = Client::new(config)?.runs().get("run").await else { panic!("somebody answered") };
        assert_eq!((failed.reason.as_str(), failed.code), ("", lavant::Code::Unavailable));
        assert!(failed.message.contains("refused"), "{failed}");
        client_of(&SHARED.target).runs().list(RunFilter::default()).next().await;
        Ok::<_, Error>(())
    })
    .await
    .unwrap();
}

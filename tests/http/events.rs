//! `/events`: who leads, and each change of it, to those who read and those who do not.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether::clock;
use bellwether::election::{EtcdContact, View};
use bellwether::http::{Limits, LocalApi};
use bellwether::metrics::Push;
#[cfg(feature = "sabotage")]
use bellwether::protections::Protections;
use futures_util::FutureExt;

use crate::client::{Client, Event, Events, request};
use crate::sidecar::{LEAD, Options, Sidecar, advance, eventually, jeopardy, leading, standby, stop_after_readings};

#[tokio::test]
async fn the_present_comes_first_then_each_change() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    let mut events = Events::open(sidecar.api, &[]).await?;
    let head = events.answer();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(head.header("cache-control"), Some("no-store"));
    assert_eq!(events.next().await?.json()["state"], "standby");
    let mut client = sidecar.client().await?;
    for view in [leading(), standby(), jeopardy(), leading()] {
        sidecar.publish(view);
        let told = events.next().await?;
        let asked = client.ask("GET", "/leader").await?;
        let mut expected = asked.json();
        expected["valid_for_ms"] = 0.into();
        assert_eq!(told.json(), expected, "the same, but that it holds for no time");
        assert_eq!((told.kind, told.id), ("leader".to_owned(), asked.version()));
    }
    Ok(())
}

#[tokio::test]
async fn who_comes_back_with_the_present_is_not_told_it_again() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    let id = Events::open(sidecar.api, &[]).await?.next().await?.id;
    let mut events = Events::open(sidecar.api, &[&format!("Last-Event-ID: {id}")]).await?;
    assert_eq!(events.next().await?, Event::default(), "a comment, with the head");
    sidecar.publish(leading());
    assert_eq!(events.next().await?.json()["leading"], true);
    for past in [format!("Last-Event-ID: {id}"), "Last-Event-ID: 7".to_owned(), "Last-Event-ID:".to_owned()] {
        let mut events = Events::open(sidecar.api, &[&past]).await?;
        assert_eq!(events.next().await?.json()["leading"], true, "{past}");
    }
    Ok(())
}

#[tokio::test]
async fn a_renewal_is_no_news() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut events = Events::open(sidecar.api, &[]).await?;
    assert_eq!(events.next().await?.json()["leading"], true);
    for _ in 0..5 {
        advance(Duration::from_secs(5));
        sidecar.publish(leading());
        sidecar.client().await?.ask("GET", "/leader").await?;
    }
    sidecar.publish(standby());
    assert_eq!(events.next().await?.json()["leading"], false);
    Ok(())
}

#[tokio::test]
async fn until_is_told_although_the_driver_is_stuck() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut events = Events::open(sidecar.api, &[]).await?;
    let before = events.next().await?;
    advance(LEAD);
    let after = events.next().await?;
    assert_eq!((&after.json()["leading"], &after.json()["state"]), (&false.into(), &"jeopardy".into()));
    assert_ne!(after.id, before.id);
    Ok(())
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_is_there() -> Result<()> {
    let limits = Limits { heartbeat: Duration::from_millis(50), ..LocalApi::LIMITS };
    let sidecar = Sidecar::start_with(Options { limits, ..Options::default() }).await?;
    sidecar.publish(standby());
    let mut events = Events::open(sidecar.api, &[]).await?;
    assert_eq!(events.next().await?.json()["state"], "standby");
    for _ in 0..3 {
        assert_eq!(events.next().await?, Event::default());
    }
    sidecar.publish(leading());
    assert_eq!(events.next_event().await?.json()["leading"], true);
    Ok(())
}

#[tokio::test]
async fn to_whoever_means_another_sidecar_it_does_not_lead() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    for (identity, leads) in [("web-1", true), ("web-2", false)] {
        let client = sidecar.client().await?;
        let mut events = Events::on(client, &format!("/events?identity={identity}"), &[]).await?;
        assert_eq!(events.next().await?.json()["leading"], leads, "{identity}");
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_begins_after_the_answers_before_it() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = Client::unix(&sidecar.socket).await?;
    // More than a socket holds: the stream is asked for while these wait to be written.
    client.send(request("GET", "/status", &["Host: localhost"]).repeat(500).as_bytes()).await?;
    client.send(request("GET", "/events", &["Host: localhost"]).as_bytes()).await?;
    for _ in 0..500 {
        assert_eq!(client.answer(false).await?.status, 200);
    }
    let head = client.answer(true).await?;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    Ok(())
}

#[tokio::test]
async fn an_event_that_says_it_leads_is_waited_for() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let promises = sidecar.shared.promises();
    sidecar.publish(standby());
    let mut events = Events::open(sidecar.api, &[]).await?;
    events.next().await?;
    assert!(promises.settled().now_or_never().is_some(), "nothing was promised");
    sidecar.publish(leading());
    assert_eq!(events.next().await?.json()["leading"], true);
    sidecar.publish(standby());
    advance(Duration::from_millis(999));
    assert!(promises.settled().now_or_never().is_none(), "who acts on it at once has a second");
    advance(Duration::from_millis(1));
    assert!(promises.settled().now_or_never().is_some());
    Ok(())
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place_at_once() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut open = Vec::new();
    for talks in [false, true] {
        let mut client = Client::unix(&sidecar.socket).await?;
        client.send(request("GET", "/events", &["Host: localhost"]).as_bytes()).await?;
        if talks {
            client.send(request("GET", "/leader", &["Host: localhost"]).repeat(1000).as_bytes()).await?;
        }
        open.push(client);
    }
    eventually("they are open", || sidecar.open(Push::Events) == 2).await?;
    drop(open);
    eventually("the places are free", || sidecar.open(Push::Events) == 0).await
}

/// A stream whose client does not read, over a socket whose buffer ends with the sidecar's: what is in there has left.
struct Unread {
    sidecar: Sidecar,
    socket: UnixStream,
}

/// The leader as of `n`. Every one is news.
fn nth(n: u32) -> View {
    let etcd = if n.is_multiple_of(2) { EtcdContact::Connected } else { EtcdContact::Unreachable };
    View { etcd, ..leading() }
}

impl Unread {
    /// The socket is full, the newest event says "I lead" and has not left.
    async fn start(limits: Limits) -> Result<Self> {
        let sidecar = Sidecar::start_with(Options { limits, ..Options::default() }).await?;
        sidecar.publish(nth(0));
        let socket = UnixStream::connect(&sidecar.socket)?;
        socket.set_nonblocking(true)?;
        let mut client = Client::unix_of(socket.try_clone()?)?;
        client.send(request("GET", "/events", &["Host: localhost"]).as_bytes()).await?;
        eventually("it is open", || sidecar.open(Push::Events) == 1).await?;
        let unread = Self { sidecar, socket };
        for n in 1..200 {
            unread.publish(nth(n)).await?;
        }
        Ok(unread)
    }

    /// Publishes, and gives the stream its turns.
    async fn publish(&self, view: View) -> Result<()> {
        self.sidecar.publish(view);
        self.sidecar.client().await?.ask("GET", "/").await.map(drop)
    }

    /// What has left so far, without letting the sidecar write more: it runs on this very thread.
    fn left_so_far(&self) -> Result<String> {
        let mut left = Vec::new();
        match (&self.socket).read_to_end(&mut left) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(String::from_utf8(left)?),
            ended => anyhow::bail!("the stream has ended: {ended:?}"),
        }
    }

    /// What leaves from now on, until the stream ends or has told what is newest.
    async fn leaves(&self, newest: &str) -> Result<String> {
        let mut text = String::new();
        let mut bytes = [0; 4096];
        for _ in 0..1000 {
            match (&self.socket).read(&mut bytes) {
                Ok(0) => return Ok(text),
                Ok(length) => text.push_str(std::str::from_utf8(&bytes[..length])?),
                Err(error) if error.kind() == ErrorKind::WouldBlock && text.contains(newest) => return Ok(text),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(text),
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("it never told {newest}: {text}")
    }
}

#[tokio::test]
async fn a_slow_reader_is_told_the_newest_when_it_reads_again() -> Result<()> {
    let unread = Unread::start(LocalApi::LIMITS).await?;
    let before = unread.left_so_far()?;
    let old = before.matches("event: leader").count();
    assert!((1..50).contains(&old), "{old} of 200 were told before it stopped reading");
    unread.publish(standby()).await?;
    let after = unread.leaves(r#""state":"standby""#).await?;
    let missed = after.matches("event: leader").count();
    assert!(missed <= 2, "nothing was queued for it: {after}");
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_no_release() -> Result<()> {
    let unread = Unread::start(LocalApi::LIMITS).await?;
    advance(Duration::from_secs(1));
    // While it leads, and when it does not any more.
    let promises = unread.sidecar.shared.promises();
    assert!(promises.settled().now_or_never().is_some());
    unread.sidecar.publish(standby());
    assert!(promises.settled().now_or_never().is_some());
    Ok(())
}

/// What leaves after the release, of an event that says "I lead" and has waited for its client until then.
async fn left_after_the_release() -> Result<String> {
    let unread = Unread::start(LocalApi::LIMITS).await?;
    advance(Duration::from_secs(1));
    unread.sidecar.publish(standby());
    ensure!(unread.sidecar.shared.promises().settled().now_or_never().is_some(), "the lock can be let go of now");
    ensure!(unread.left_so_far()?.contains(r#""leading":true"#), "it was told before");
    unread.leaves(r#""state":"standby""#).await
}

#[tokio::test]
async fn what_says_it_leads_does_not_leave_after_the_release() -> Result<()> {
    let left = left_after_the_release().await?;
    assert!(!left.contains(r#""leading":true"#), "{left}");
    Ok(())
}

/// The control of the test above.
#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_an_event_kept_as_it_was_composed_would_leave_after_the_release() -> Result<()> {
    Protections::take_away(Some(Protections::STALE_EVENTS));
    let left = left_after_the_release().await;
    Protections::take_away(None);
    let left = left?;
    assert!(left.contains(r#""leading":true"#), "{left}");
    Ok(())
}

/// The first event of a stream whose process is stopped, for longer than it leads, after it has read the clock so
/// often.
async fn told_after_a_stop(readings: u32) -> Result<Event> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    // So that the herald has had its look.
    assert_eq!(sidecar.client().await?.ask("GET", "/leader").await?.status, 200);
    let mut client = sidecar.client().await?;
    stop_after_readings(readings, LEAD);
    client.send(request("GET", "/events", &["Host: localhost"]).as_bytes()).await?;
    ensure!(client.answer(true).await?.status == 200);
    let text = client.until_quiet().await?;
    let data = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).context("an event")?;
    Ok(Event { data: data.to_owned(), ..Event::default() })
}

/// One reading is for the look at `Last-Event-ID`, one for composing the event, one for writing it.
#[tokio::test]
async fn an_event_that_expired_before_it_was_written_is_composed_anew() -> Result<()> {
    for readings in [1, 2] {
        assert_eq!(told_after_a_stop(readings).await?.json()["leading"], false, "{readings}");
    }
    Ok(())
}

/// The control of the test above.
#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_without_the_check_an_expired_event_would_be_written() -> Result<()> {
    Protections::take_away(Some(Protections::NO_REQUEST_CHECK));
    let told = told_after_a_stop(2).await;
    Protections::take_away(None);
    assert_eq!(told?.json()["leading"], true);
    Ok(())
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed() -> Result<()> {
    let limits = Limits { stall: Duration::from_millis(300), ..LocalApi::LIMITS };
    let began = clock::now().boot;
    let unread = Unread::start(limits).await?;
    eventually("it is closed", || unread.sidecar.open(Push::Events) == 0).await?;
    let lasted = clock::now().boot.since(began);
    assert!(lasted >= limits.stall, "{lasted:?}: until then it could still have read");
    // Whatever is published now, what had left is the last it hears.
    unread.sidecar.publish(standby());
    let left = unread.leaves("nothing more").await?;
    assert!(left.contains("event: leader") && !left.contains("standby"), "{left}");
    Ok(())
}

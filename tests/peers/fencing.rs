//! `docs/fencing.md`: each example with an old leader that is paused between reading its term and writing, and a control
//! without the guard.

mod etcd;
mod object_storage;
mod postgres;

use anyhow::{Context, Result};
use support::etcd::EtcdServer;

use crate::document::Document;
use crate::script::{Ended, PAUSE, Script};
use crate::stage::{Stage, short_options};

/// The examples that the tests here run. What the document has beyond these is not tested, and it says that all are.
const RUN: [&str; 11] = [
    "etcd-write",
    "etcd-write.py",
    "pg-fence",
    "pg-function",
    "pg-options",
    "pg-table",
    "pg-transaction",
    "pg-trigger",
    "pg-write",
    "read-term",
    "s3-write",
];

pub fn fencing() -> Result<Document> {
    Document::read("fencing.md")
}

/// One way to write, by an old leader and then by a new one.
pub struct Trial<'a> {
    /// Defines what the rest uses; `read_term` is there already.
    pub given: &'a str,
    /// What it does between reading its term and the pause.
    pub before: &'a str,
    /// What it does after the pause. `$name` is `old` or `new`.
    pub write: &'a str,
    pub files: &'a [(&'a str, &'a str)],
    pub environment: &'a [(String, String)],
}

impl Trial<'_> {
    fn script(&self, name: &str, pause: &str) -> Result<String> {
        let document = fencing()?;
        let read_term = document.example("read-term")?;
        let Self { given, before, write, .. } = self;
        Ok(format!("name={name}\n{read_term}\n{given}\nread_term || exit 9\n{before}\n{pause}\n{write}\n"))
    }

    /// The old leader reads its term and is paused; it is the only one who leads.
    pub fn pause_the_old_leader(&self, stage: &Stage) -> Result<Script> {
        let environment = [&stage.environment(&stage.old), self.environment].concat();
        let mut script = Script::start(&self.script("old", PAUSE)?, self.files, &environment)?;
        script.wait_until_paused()?;
        Ok(script)
    }

    /// The new leader does the same without a pause.
    pub fn let_the_new_leader_write(&self, stage: &Stage) -> Result<()> {
        let environment = [&stage.environment(&stage.new), self.environment].concat();
        let ended = Script::start(&self.script("new", "")?, self.files, &environment)?.wait()?;
        anyhow::ensure!(ended.code == Some(0), "the new leader could not write: {ended:?}");
        Ok(())
    }
}

/// Every trial at once: the old leader of each is paused, another leads and writes, the old ones go on. How each ended.
pub fn run<const N: usize>(stage: &mut Stage, trials: [&Trial<'_>; N]) -> Result<[Ended; N]> {
    let mut paused = Vec::with_capacity(N);
    for trial in trials {
        paused.push(trial.pause_the_old_leader(stage)?);
    }
    stage.fail_over()?;
    for trial in trials {
        trial.let_the_new_leader_write(stage)?;
    }
    let ended: Result<Vec<Ended>> = paused.into_iter().map(Script::go_on).collect();
    ended?.try_into().ok().context("as many ends as trials")
}

#[test]
fn every_example_of_the_document_is_run() -> Result<()> {
    assert_eq!(fencing()?.names(), RUN);
    Ok(())
}

#[tokio::test]
async fn who_does_not_lead_reads_no_term() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let leader = support::Sidecar::start(&short_options("web-0", &etcd))?;
    let term = leader.wait_until_leading(crate::script::PATIENCE)?;
    let standby = support::Sidecar::start(&short_options("web-1", &etcd))?;
    standby.wait_for(crate::script::PATIENCE, |_, body| body["state"] == "standby")?;
    let text = format!("{}\nread_term && echo $epoch/$term", fencing()?.example("read-term")?);
    for (sidecar, out) in [(&leader, format!("0/{term}\n")), (&standby, String::new())] {
        let api = [("BELLWETHER_API".to_owned(), format!("http://{}", sidecar.http()))];
        let ended = Script::start(&text, &[], &api)?.wait()?;
        assert_eq!(ended.out, out, "{ended:?}");
        assert_eq!(ended.code == Some(0), !out.is_empty(), "{ended:?}");
    }
    Ok(())
}

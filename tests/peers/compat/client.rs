//! The clients in `docs/migration.md`, run as Python programs that pretend to be a host of some name.

use anyhow::{Context, Result, ensure};

use crate::document::Document;
use crate::script::Script;

/// What the tests of `compat` run: the clients, and in `documented` the pods.
const RUN: [&str; 5] = ["instana", "leader-elector", "nais", "poll.py", "sse.py"];

/// Runs a client of the document, and then `text`, on a host of this name.
pub fn python(host: &str, client: &str, text: &str, environment: &[(String, String)]) -> Result<Script> {
    let document = Document::read("migration.md")?;
    let program = format!("{}\nsocket.gethostname = lambda: {host:?}\n{text}\n", document.example(client)?);
    Script::start("exec python3 -u program.py", &[("program.py", &program)], environment)
}

/// What the client that polls thinks.
pub fn is_leader(host: &str, url: &str) -> Result<bool> {
    let ended = python(host, "poll.py", &format!("print(is_leader({url:?}))"), &[])?.wait()?;
    ensure!(ended.code == Some(0), "{ended:?}");
    match ended.out.trim() {
        "True" => Ok(true),
        "False" => Ok(false),
        _ => Err(anyhow::anyhow!("{ended:?}")).context("neither True nor False"),
    }
}

#[test]
fn every_example_of_the_document_is_run() -> Result<()> {
    assert_eq!(Document::read("migration.md")?.names(), RUN);
    Ok(())
}

#[test]
fn a_refused_connection_is_no_for_the_client_that_polls() -> Result<()> {
    let nobody = support::ports::free_loopback_address()?;
    assert!(!is_leader("web-0", &format!("http://{nobody}/"))?);
    Ok(())
}

//! A write on a condition, at a real S3 server.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use support::ports::free_loopback_address;
use support::{Moment, Process};
use tempfile::TempDir;

use super::{Trial, fencing, run};
use crate::script::{PATIENCE, Script};
use crate::stage::Stage;

const ACCESS_KEY: &str = "tester";
const SECRET_KEY: &str = "not-a-secret";

/// An S3 server with an empty bucket.
struct Storage {
    address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Storage {
    fn start() -> Result<Self> {
        let (address, folder) = (free_loopback_address()?, TempDir::new()?);
        std::fs::create_dir_all(folder.path().join("data/bucket"))?;
        let mut command = Command::new("versitygw");
        command
            .args(["--port", &address.to_string(), "posix"])
            .arg(folder.path().join("data"))
            .env("ROOT_ACCESS_KEY_ID", ACCESS_KEY)
            .env("ROOT_SECRET_ACCESS_KEY", SECRET_KEY)
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("log"))?)
            .stderr(Stdio::null());
        let process = Process::spawn(command)
            .context("there is no versitygw: run this with `scripts/tools.sh with fencing -- …`")?;
        let deadline = Moment::now().after(PATIENCE);
        while TcpStream::connect(address).is_err() {
            ensure!(!deadline.passed(), "the storage does not listen on {address}");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { address, _process: process, _folder: folder })
    }

    fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("BUCKET", format!("http://{}/bucket", self.address)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Runs a script with the functions of the document.
    fn say(&self, text: &str) -> Result<String> {
        let text = format!("{}\n{text}", fencing()?.example("s3-write")?);
        let ended = Script::start(&text, &[], &self.environment())?.wait()?;
        ensure!(ended.code == Some(0), "{ended:?}");
        Ok(ended.out)
    }
}

/// What the document says of the begin of a term, and then the work.
const BEGIN: &str =
    "s3_read $BUCKET/state || exit 8; tail -n +2 s3.old >content; s3_write $BUCKET/state content || exit 7";

#[tokio::test]
async fn object_storage_refuses_what_a_paused_old_leader_writes() -> Result<()> {
    let storage = Storage::start()?;
    let (document, environment) = (fencing()?, storage.environment());
    let given = document.example("s3-write")?;
    // When it is refused it looks again, and must not find that it may.
    let write =
        "echo $name >content; s3_write $BUCKET/state content && exit 0; s3_read $BUCKET/state && exit 6; exit 1";
    let guarded = Trial { given, before: BEGIN, write, files: &[], environment: &environment };
    let write = "echo $name >content; s3 -f -T content $BUCKET/unguarded";
    let unguarded = Trial { before: "", write, ..guarded };
    let mut stage = Stage::start().await?;
    let [of_guarded, of_unguarded] = run(&mut stage, [&guarded, &unguarded])?;
    assert_eq!(of_guarded.code, Some(1), "{of_guarded:?}");
    assert_eq!(of_unguarded.code, Some(0), "{of_unguarded:?}");
    assert_eq!(storage.say("s3 -f $BUCKET/state | tail -n +2")?, "new\n");
    assert_eq!(storage.say("s3 -f $BUCKET/unguarded")?, "old\n", "without the guard the old leader's write lands");
    Ok(())
}

/// Why the term has to be in the content: a condition that holds again for an object that was rewritten.
#[test]
fn the_same_content_has_the_same_etag_again() -> Result<()> {
    let storage = Storage::start()?;
    let put = |content: &str| storage.say(&format!("echo {content} >it; s3 -f -D - -T it $BUCKET/it | grep -i ^etag"));
    let (first, other, again) = (put("a")?, put("b")?, put("a")?);
    assert_eq!(first, again);
    assert_ne!(first, other);
    Ok(())
}

//! A row that remembers the highest term, at a real `postgres`.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use support::{Moment, Process};
use tempfile::TempDir;

use super::{Trial, fencing, run};
use crate::script::{Ended, PATIENCE, Script};
use crate::stage::Stage;

/// The server refuses to run as root. This is who it runs as then: `nobody`.
const NOT_ROOT: u32 = 65_534;

/// A server that is reached by a socket in its folder.
struct Postgres {
    _process: Process,
    folder: TempDir,
}

/// A program of the server's package.
fn program(name: &str) -> Command {
    let folder = std::env::var_os("BELLWETHER_POSTGRES").filter(|folder| !folder.is_empty());
    let mut command = Command::new(folder.map_or_else(|| name.into(), |folder| PathBuf::from(folder).join(name)));
    if nix::unistd::geteuid().is_root() {
        command.uid(NOT_ROOT).gid(NOT_ROOT);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

impl Postgres {
    fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        if nix::unistd::geteuid().is_root() {
            chown(folder.path(), Some(NOT_ROOT), Some(NOT_ROOT))?;
        }
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        let made = program("initdb")
            .args(["--no-locale", "--encoding", "UTF8", "--auth", "trust", "--username", "postgres", "--no-sync", "-D"])
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .context("there is no initdb: run this with `scripts/tools.sh with fencing -- …`")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut server = program("postgres");
        server
            .args(["-h", "", "-c", "fsync=off", "-k"])
            .arg(folder.path())
            .arg("-D")
            .arg(&data)
            .current_dir(folder.path())
            .stderr(File::create(&log)?);
        let postgres = Self { _process: Process::spawn(server)?, folder };
        let deadline = Moment::now().after(PATIENCE);
        while postgres.say("postgres", "SELECT 1").is_err() {
            if deadline.passed() {
                bail!("PostgreSQL does not answer:\n{}", fs::read_to_string(&log)?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(postgres)
    }

    /// What `psql` needs to reach a database.
    fn environment(&self, database: &str) -> Vec<(String, String)> {
        let folder = self.folder.path().display().to_string();
        [("PGHOST", folder.as_str()), ("PGUSER", "postgres"), ("PGDATABASE", database)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    /// Runs SQL as it stands.
    fn say(&self, database: &str, sql: &str) -> Result<String> {
        let script = "psql -qAtX -v ON_ERROR_STOP=1 -f sql";
        let ended = Script::start(script, &[("sql", sql)], &self.environment(database))?.wait()?;
        ensure!(ended.code == Some(0), "{ended:?}");
        Ok(ended.out)
    }

    /// A database with these examples of the document in it.
    fn database(&self, name: &str, examples: &[&str]) -> Result<Vec<(String, String)>> {
        self.say("postgres", &format!("CREATE DATABASE {name}"))?;
        let document = fencing()?;
        for example in examples {
            self.say(name, document.example(example)?)?;
        }
        Ok(self.environment(name))
    }

    /// Waits until there is one row of these.
    fn wait_for_one(&self, database: &str, rows: &str) -> Result<()> {
        let deadline = Moment::now().after(PATIENCE);
        while self.say(database, &format!("SELECT count(*) {rows}"))? != "1\n" {
            ensure!(!deadline.passed(), "not once: {rows}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn total(&self, database: &str) -> Result<String> {
        self.say(database, "SELECT total FROM report")
    }
}

/// The old leader's total is 1, the new one's 2.
const TOTAL: &str = "total=$([ $name = old ] && echo 1 || echo 2)";
const UNGUARDED: &str =
    "INSERT INTO report VALUES ('2026-11-22', $total) ON CONFLICT (day) DO UPDATE SET total = excluded.total";

#[tokio::test]
async fn postgresql_refuses_what_a_paused_old_leader_writes() -> Result<()> {
    let postgres = Postgres::start()?;
    let document = fencing()?;
    let psql = "psql -X -v ON_ERROR_STOP=1 -v epoch=$epoch -v term=$term -v total=$total -f sql";
    let (given, before) = (TOTAL, "");

    let environment = postgres.database("statement", &["pg-fence", "pg-table"])?;
    let files = [("sql", document.example("pg-write")?)];
    let write = format!("{psql} | grep -qx 'INSERT 0 1'");
    let statement = Trial { given, before, write: &write, files: &files, environment: &environment };

    let environment = postgres.database("transaction", &["pg-fence", "pg-table", "pg-function"])?;
    let files = [("sql", document.example("pg-transaction")?)];
    let transaction = Trial { given, before, write: psql, files: &files, environment: &environment };

    let environment = postgres.database("by_trigger", &["pg-fence", "pg-table", "pg-function", "pg-trigger"])?;
    let files = [("options", document.example("pg-options")?)];
    let write = format!("BELLWETHER_EPOCH=$epoch BELLWETHER_TERM=$term sh options psql -Xc \"{UNGUARDED}\"");
    let trigger = Trial { given, before, write: &write, files: &files, environment: &environment };

    let environment = postgres.database("unguarded", &["pg-table"])?;
    let write = format!("psql -Xc \"{UNGUARDED}\"");
    let unguarded = Trial { given, before, write: &write, files: &[], environment: &environment };

    let mut stage = Stage::start().await?;
    let [by_statement, by_transaction, by_trigger, by_nothing] =
        run(&mut stage, [&statement, &transaction, &trigger, &unguarded])?;
    assert_eq!(by_statement.code, Some(1), "{by_statement:?}");
    assert_refused(&by_transaction, 3);
    assert_refused(&by_trigger, 1);
    assert_eq!(by_nothing.code, Some(0), "{by_nothing:?}");
    for database in ["statement", "transaction", "by_trigger"] {
        assert_eq!(postgres.total(database)?, "2\n", "{database}");
    }
    assert_eq!(postgres.total("unguarded")?, "1\n", "without the guard the old leader's write lands");

    let no_term = postgres.say("by_trigger", "DELETE FROM report").expect_err("no term was given");
    assert!(format!("{no_term:#}").contains("is over"), "{no_term:#}");
    Ok(())
}

/// It was the fence, and nothing else.
fn assert_refused(ended: &Ended, code: i32) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert!(ended.err.contains("of default/web is over"), "{ended:?}");
}

/// A higher epoch wins whatever the terms are, and a refused statement changes nothing.
#[test]
fn terms_are_compared_by_epoch_first() -> Result<()> {
    let postgres = Postgres::start()?;
    postgres.database("epochs", &["pg-fence", "pg-table"])?;
    let document = fencing()?;
    let write = |epoch: u64, term: u64, total: u64| {
        let set = format!("\\set epoch {epoch}\n\\set term {term}\n\\set total {total}\n");
        postgres.say("epochs", &(set + document.example("pg-write")?))
    };
    for (epoch, term, total, then) in
        [(0, 50, 1, "1\n"), (1, 7, 2, "2\n"), (0, 99, 3, "2\n"), (1, 6, 4, "2\n"), (1, 7, 5, "5\n")]
    {
        write(epoch, term, total)?;
        assert_eq!(postgres.total("epochs")?, then, "({epoch}, {term})");
    }
    Ok(())
}

/// A transaction of the new leader that raises the fence and stays open until the script goes on.
const OPEN_TRANSACTION: &str = "mkfifo sql
psql -qX -v ON_ERROR_STOP=1 <sql &
exec 3>sql
echo \"BEGIN; SELECT fenced('default/web', 0, 2);\" >&3
kill -STOP $$
echo \"INSERT INTO report VALUES ('2026-11-22', 2); COMMIT;\" >&3
exec 3>&-
wait $!";

#[test]
fn an_old_leader_that_waits_for_the_new_ones_transaction_is_refused_when_it_comes_through() -> Result<()> {
    let postgres = Postgres::start()?;
    let environment = postgres.database("waiting", &["pg-fence", "pg-table", "pg-function"])?;
    let mut new = Script::start(OPEN_TRANSACTION, &[], &environment)?;
    new.wait_until_paused()?;
    let raised = "FROM pg_locks WHERE relation = 'fence'::regclass AND mode = 'RowExclusiveLock' AND granted";
    postgres.wait_for_one("waiting", raised)?;
    let script = "psql -X -v ON_ERROR_STOP=1 -v epoch=0 -v term=1 -v total=1 -f sql";
    let old = Script::start(script, &[("sql", fencing()?.example("pg-write")?)], &environment)?;
    postgres.wait_for_one("waiting", "FROM pg_stat_activity WHERE wait_event_type = 'Lock'")?;
    assert_eq!(new.go_on()?.code, Some(0));
    assert_eq!(old.wait()?.out, "INSERT 0 0\n");
    assert_eq!(postgres.total("waiting")?, "2\n");
    Ok(())
}

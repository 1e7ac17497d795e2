//! The lock's revision in etcd's own transaction.

use anyhow::Result;
use support::Sidecar;

use super::{Trial, fencing, run};
use crate::script::Script;
use crate::stage::Stage;

const PYTHON: &str = "python3 -c \"
from etcd_write import etcd_write
import sys
sys.exit(not etcd_write('$ETCDCTL_ENDPOINTS', '$LOCK', $term, '/python', '$name'))\"";

#[tokio::test]
async fn etcd_refuses_what_a_paused_old_leader_writes() -> Result<()> {
    let document = fencing()?;
    let python_file = [("etcd_write.py", document.example("etcd-write.py")?)];
    let shell = Trial {
        given: document.example("etcd-write")?,
        before: "",
        write: "etcd_write /shell $name",
        files: &[],
        environment: &[],
    };
    let python = Trial { given: "", before: "", write: PYTHON, files: &python_file, environment: &[] };
    let unguarded = Trial { given: "", write: "etcdctl put /unguarded $name", ..shell };
    let mut stage = Stage::start().await?;
    let [of_shell, of_python, of_unguarded] = run(&mut stage, [&shell, &python, &unguarded])?;
    assert_eq!((of_shell.code, of_python.code), (Some(1), Some(1)), "{of_shell:?} {of_python:?}");
    assert_eq!(of_unguarded.code, Some(0), "{of_unguarded:?}");
    assert_eq!(value(&stage, &stage.new, "/shell")?, "new\n");
    assert_eq!(value(&stage, &stage.new, "/python")?, "new\n");
    assert_eq!(value(&stage, &stage.new, "/unguarded")?, "old\n", "without the guard the old leader's write lands");
    Ok(())
}

fn value(stage: &Stage, sidecar: &Sidecar, key: &str) -> Result<String> {
    let text = format!("etcdctl get --print-value-only {key}");
    Ok(Script::start(&text, &[], &stage.environment(sidecar))?.wait()?.out)
}

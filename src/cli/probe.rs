//! `bellwether probe`: one question, one exit code, for images without a shell.

use std::fmt::Write;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::client::{ApiFlags, TimeoutFlags, telemetry_address};
use super::exit::Exit;
use super::http_client::{Answer, ask};
use super::output::{complain, print, printable};
use crate::clock;
use crate::config::{ApiAddress, ConfigFault, Faults, Sources};

/// Examples and exit codes, below the flags.
pub const AFTER_HELP: &str = "\
Exit codes:
  0   yes
  1   no
  2   no answer: nothing listens there, it took too long, or it is not a sidecar
  64  the command line or the environment is wrong

For Kubernetes, whatever is not 0 is a failure. For an application, whatever is not 0 means \"not leader\".

Examples:
  bellwether probe livez
  bellwether probe leader && run-the-nightly-report
  bellwether probe leader --identity web-0 --api unix:/run/bellwether.sock";

/// The flags.
#[derive(Args, Clone, Debug)]
pub struct ProbeFlags {
    /// What to ask
    #[arg(value_enum)]
    pub question: Question,

    /// Where the local API is.
    #[command(flatten)]
    pub api: ApiFlags,

    /// The sidecar's telemetry, for livez and readyz: <host>:<port> [default: 127.0.0.1:4041]
    #[arg(long, value_name = "ADDRESS", env = "BELLWETHER_TELEMETRY")]
    pub telemetry: Option<String>,

    /// For leader: answer no when the sidecar there has another identity (with host networking a neighbour's may own
    /// the port) [default: whichever sidecar answers]
    #[arg(long, value_name = "NAME", env = "BELLWETHER_IDENTITY", visible_alias = "id")]
    pub identity: Option<String>,

    /// How long to wait.
    #[command(flatten)]
    pub timeout: TimeoutFlags,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// Does the sidecar's loop turn? (telemetry)
    Livez,
    /// Are its listeners up? Says nothing about leading (telemetry)
    Readyz,
    /// Does it lead now? (local API)
    Leader,
}

/// A probe whose flags are in order.
struct Probe {
    question: Question,
    address: ApiAddress,
    path: String,
    timeout: Duration,
}

/// Asks and tells.
///
/// # Errors
/// The faults of the flags.
pub async fn run(flags: &ProbeFlags, sources: &Sources) -> Result<Exit, Vec<ConfigFault>> {
    let probe = parse(flags, sources)?;
    let asked_at = clock::now().boot;
    let answer = match ask(&probe.address, Method::GET, &probe.path, probe.timeout).await {
        Ok(answer) => answer,
        Err(error) => {
            complain(&format!("no answer: {error}\n"));
            return Ok(Exit::NoAnswer);
        }
    };
    let verdict = match probe.question {
        Question::Livez | Question::Readyz => judge_code(&answer),
        Question::Leader => judge_leader(&answer, clock::now().boot.since(asked_at)),
    };
    Ok(match verdict {
        Verdict::Yes(why) => tell(Exit::Done, "yes", &why),
        Verdict::No(why) => tell(Exit::No, "no", &why),
        Verdict::NotASidecar(why) => {
            complain(&format!("no answer: {} said {}\n", probe.address, printable(&why)));
            Exit::NoAnswer
        }
    })
}

fn tell(exit: Exit, word: &str, why: &str) -> Exit {
    print(&format!("{word}: {}\n", printable(why)));
    exit
}

fn parse(flags: &ProbeFlags, sources: &Sources) -> Result<Probe, Vec<ConfigFault>> {
    let mut faults = Faults::new(sources);
    let timeout = flags.timeout.parse(&mut faults);
    let api = flags.api.parse(&mut faults);
    let telemetry = telemetry_address(flags.telemetry.as_ref(), &mut faults);
    let (address, path) = match flags.question {
        Question::Livez => (telemetry, "/livez".into()),
        Question::Readyz => (telemetry, "/readyz".into()),
        Question::Leader => (api, leader_path(faults.value("--identity", flags.identity.as_ref()))),
    };
    let question = flags.question;
    faults.finish(address.zip(timeout).map(|(address, timeout)| Probe { question, address, path, timeout }))
}

fn leader_path(identity: Option<&str>) -> String {
    let mut path = "/leader".to_owned();
    if let Some(identity) = identity {
        path.push_str("?identity=");
        for byte in identity.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                path.push(char::from(byte));
            } else {
                let _infallible = write!(path, "%{byte:02X}");
            }
        }
    }
    path
}

/// What an answer means, with the reason in words.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Yes(String),
    No(String),
    NotASidecar(String),
}

fn judge_code(answer: &Answer) -> Verdict {
    let why = match answer.body.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() && line.len() <= LINE_BYTES_MAX => format!("{}, {line}", answer.status),
        Some(_) | None => answer.status.to_string(),
    };
    match answer.status {
        StatusCode::OK => Verdict::Yes(why),
        StatusCode::SERVICE_UNAVAILABLE => Verdict::No(why),
        _ => Verdict::NotASidecar(why),
    }
}

/// What is longer than this does not belong on the one line a probe prints.
const LINE_BYTES_MAX: usize = 200;

/// What `/leader` says, as far as it matters here.
#[derive(Deserialize)]
struct LeaderBody {
    leading: bool,
    #[serde(default)]
    identity: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    election: String,
    #[serde(default)]
    term: Option<i64>,
    #[serde(default)]
    valid_for_ms: u64,
}

/// The code and the body must both say it: whatever else owns the port may answer 200 to everything.
fn judge_leader(answer: &Answer, took: Duration) -> Verdict {
    let Ok(body) = serde_json::from_str::<LeaderBody>(&answer.body) else {
        return Verdict::NotASidecar(format!("{} without the body of /leader", answer.status));
    };
    let LeaderBody { leading, identity, name, election, term, valid_for_ms } = body;
    let valid_for = Duration::from_millis(valid_for_ms);
    match (answer.status, leading) {
        // The time a promise had when it was given began after the question was asked. With --answer-validity 0s
        // there is none to outlive.
        (StatusCode::OK, true) if valid_for_ms > 0 && took >= valid_for => {
            Verdict::No(format!("{identity} led, but its answer was good for {valid_for:?} and took {took:?} to come"))
        }
        (StatusCode::OK, true) => {
            let term = term.map(|term| format!(", term {term}")).unwrap_or_default();
            Verdict::Yes(format!("{identity} leads {election}{term}, good for {valid_for_ms} ms"))
        }
        (StatusCode::SERVICE_UNAVAILABLE, false) if name == identity => {
            Verdict::No(format!("the sidecar there is {identity}, not the one asked for"))
        }
        (StatusCode::SERVICE_UNAVAILABLE, false) if name.is_empty() => {
            Verdict::No(format!("{identity} does not lead {election}, and knows no leader"))
        }
        (StatusCode::SERVICE_UNAVAILABLE, false) => {
            Verdict::No(format!("{identity} does not lead {election}, {name} does"))
        }
        (status, _) => Verdict::NotASidecar(format!("{status}, which contradicts its body")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leader(status: StatusCode, body: &str) -> Verdict {
        judge_leader(&Answer { status, body: body.into() }, Duration::from_millis(5))
    }

    #[test]
    fn a_200_counts_only_with_its_body() {
        let leading = r#"{"name":"web-0","identity":"web-0","election":"default/web","leading":true,"term":7,"valid_for_ms":1000}"#;
        let yes = Verdict::Yes("web-0 leads default/web, term 7, good for 1000 ms".into());
        assert_eq!(leader(StatusCode::OK, leading), yes);
        for body in ["", "ok", "{}", r#"{"leading":false}"#, "[]"] {
            assert!(matches!(leader(StatusCode::OK, body), Verdict::NotASidecar(_)), "{body}");
        }
        assert!(matches!(leader(StatusCode::NOT_FOUND, leading), Verdict::NotASidecar(_)));
    }

    #[test]
    fn a_promise_that_ran_out_on_the_way_is_a_no() {
        let short = r#"{"identity":"web-0","leading":true,"valid_for_ms":5}"#;
        assert!(matches!(leader(StatusCode::OK, short), Verdict::No(_)));
        let without_promise = r#"{"identity":"web-0","leading":true,"valid_for_ms":0}"#;
        assert!(matches!(leader(StatusCode::OK, without_promise), Verdict::Yes(_)));
    }

    #[test]
    fn a_no_names_the_leader_where_it_is_known() {
        let body = r#"{"name":"web-0","identity":"web-1","election":"default/web","leading":false}"#;
        let no = Verdict::No("web-1 does not lead default/web, web-0 does".into());
        assert_eq!(leader(StatusCode::SERVICE_UNAVAILABLE, body), no);
        let body = r#"{"name":"","identity":"web-1","election":"default/web","leading":false}"#;
        let no = Verdict::No("web-1 does not lead default/web, and knows no leader".into());
        assert_eq!(leader(StatusCode::SERVICE_UNAVAILABLE, body), no);
    }

    #[test]
    fn an_identity_is_encoded_for_the_query() {
        assert_eq!(leader_path(None), "/leader");
        assert_eq!(leader_path(Some("a b&c=é")), "/leader?identity=a%20b%26c%3D%C3%A9");
    }
}

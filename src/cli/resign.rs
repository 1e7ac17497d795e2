//! `bellwether resign`: asks a sidecar to give up its term.

use std::time::Duration;

use clap::Args;
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::client::{ApiFlags, TimeoutFlags};
use super::exit::Exit;
use super::http_client::{Answer, ask};
use super::output::{complain, print, printable};
use crate::config::{ApiAddress, ConfigFault, Faults, Sources, Span};

/// Examples and exit codes, below the flags.
pub const AFTER_HELP: &str = "\
Exit codes:
  0   the sidecar stands down
  1   the sidecar does not lead: there is nothing to resign
  2   no answer, or the sidecar refused
  64  the command line or the environment is wrong

Examples:
  bellwether resign
  kubectl exec web-0 -c bellwether -- bellwether resign --cooldown 5m";

/// The flags.
#[derive(Args, Clone, Debug, Default)]
pub struct ResignFlags {
    /// How long the sidecar stays away from the lock afterwards, unless nobody else takes it; at most 1h
    /// [default: 30s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_COOLDOWN")]
    pub cooldown: Option<String>,

    /// Where the local API is.
    #[command(flatten)]
    pub api: ApiFlags,

    /// How long to wait.
    #[command(flatten)]
    pub timeout: TimeoutFlags,
}

/// Asks and tells.
///
/// # Errors
/// The faults of the flags.
pub async fn run(flags: &ResignFlags, sources: &Sources) -> Result<Exit, Vec<ConfigFault>> {
    let (address, cooldown, timeout) = parse(flags, sources)?;
    let path = format!("/resign?cooldown={}ms", cooldown.as_millis());
    Ok(match ask(&address, Method::POST, &path, timeout).await {
        Ok(answer) => tell(&address, &answer, cooldown),
        Err(error) => {
            complain(&format!("no answer: {error}\n"));
            Exit::NoAnswer
        }
    })
}

fn parse(flags: &ResignFlags, sources: &Sources) -> Result<(ApiAddress, Duration, Duration), Vec<ConfigFault>> {
    let mut faults = Faults::new(sources);
    let cooldown = faults.cooldown("--cooldown", flags.cooldown.as_ref());
    let address = flags.api.parse(&mut faults);
    let timeout = flags.timeout.parse(&mut faults);
    let all = match (address, cooldown, timeout) {
        (Some(address), Some(cooldown), Some(timeout)) => Some((address, cooldown, timeout)),
        (Some(_) | None, _, _) => None,
    };
    faults.finish(all)
}

/// What the sidecar's answers say, as far as it matters here: who it is, or why not.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ResignBody {
    identity: Option<String>,
    error: Option<String>,
}

fn tell(address: &ApiAddress, answer: &Answer, cooldown: Duration) -> Exit {
    let body: ResignBody = serde_json::from_str(&answer.body).unwrap_or_default();
    let identity = body.identity.map_or_else(|| address.to_string(), |identity| printable(&identity));
    let why = body.error.map(|why| printable(&why));
    match answer.status {
        StatusCode::ACCEPTED => {
            print(&format!(
                "{identity} stands down: it answers 503 from now on, releases the lock once the answers it gave have \
                 expired, and stays away for {}\n",
                Span(cooldown)
            ));
            Exit::Done
        }
        StatusCode::CONFLICT => {
            complain(&format!("{}\n", why.unwrap_or_else(|| format!("{identity} does not lead"))));
            Exit::No
        }
        status => {
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            complain(&format!("{address} refused with {status}{why}\n"));
            Exit::NoAnswer
        }
    }
}

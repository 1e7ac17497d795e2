//! Everything at once: five sidecars, three etcd members, a seed that says what is broken when, and a judgement of all
//! that was answered.
//!
//! `make faults DURATION=10m` is the long run and writes what it saw to `target/faults`; `SEED=…` repeats an order.
//! `ONLY='sidecar killed,no space'` has those alone. `make test` has a bounded part of it.

mod access;
mod catalogue;
#[cfg(feature = "sabotage")]
mod control;
mod counter;
mod heal;
mod judge;
mod lane;
mod limits;
mod observers;
pub mod random;
mod report;
mod run;
mod scene;
mod strike;
mod theft;
mod timeline;
mod trial;
mod verdict;
mod witness;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::lab::inside;

use catalogue::Kind;
use random::Random;
use run::{Plan, run};

/// How long the part in `make test` goes on beginning trials.
const BOUNDED: Duration = Duration::from_secs(150);

/// `90s`, `10m`, `1h`.
fn duration_of(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let number: u64 = number.parse().with_context(|| format!("{text} is no duration such as 90s, 10m, 1h"))?;
    match unit {
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(60 * number)),
        "h" => Ok(Duration::from_secs(3600 * number)),
        unit => anyhow::bail!("{text}: {unit:?} is no unit; s, m and h are"),
    }
}

fn kind_of(name: &str) -> Result<Kind> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let names = || Kind::ALL.map(Kind::name).join(", ");
    found.with_context(|| format!("{name:?} is no fault; there are: {}", names()))
}

fn plan() -> Result<Plan> {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let duration = variable("BELLWETHER_FAULTS_DURATION").map_or(Ok(BOUNDED), |text| duration_of(&text))?;
    let seed = match variable("BELLWETHER_FAULTS_SEED") {
        Some(text) => text.parse().with_context(|| format!("BELLWETHER_FAULTS_SEED={text} is a number"))?,
        None => Random::new_seed(),
    };
    let kinds = match variable("BELLWETHER_FAULTS_ONLY") {
        Some(text) => text.split(',').map(|name| kind_of(name.trim())).collect::<Result<_>>()?,
        None => Kind::ALL.to_vec(),
    };
    let folder = variable("BELLWETHER_FAULTS_FOLDER").unwrap_or_else(|| "target/faults/short".to_owned());
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    Ok(Plan { duration, seed, kinds, folder })
}

#[test]
fn whatever_breaks_alone_or_together_at_most_one_leads_and_somebody_leads_again() -> Result<()> {
    inside("mixed::whatever_breaks_alone_or_together_at_most_one_leads_and_somebody_leads_again", async || {
        let plan = plan()?;
        let found = run(&plan).await?;
        ensure!(found.is_empty(), "seed {}: {} violations:\n{}", plan.seed, found.len(), found.join("\n"));
        Ok(())
    })
}

#[test]
fn durations_are_read_as_people_write_them() {
    assert_eq!(duration_of("90s").unwrap(), Duration::from_secs(90));
    assert_eq!(duration_of("10m").unwrap(), Duration::from_secs(600));
    assert_eq!(duration_of("1h").unwrap(), Duration::from_secs(3600));
    assert!(duration_of("10").is_err() && duration_of("").is_err() && duration_of("ten minutes").is_err());
}

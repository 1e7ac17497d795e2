//! `/check`: whether a term is the one this candidate leads now. For who has done part of a work under a term and is
//! about to do the rest.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode, Uri};

use super::Shared;
use super::answer::LeaderBody;
use super::local_api::{Answer, commit, with_term};
use super::query::{bad, pairs, shown};
use super::refusal::{Refusal, json};
use crate::election::Term;

const EXAMPLE: &str = "?term=48213, with the term that /leader told";

/// What the query asks about.
#[derive(Debug)]
struct Asked {
    to_me: bool,
    terms: Vec<i64>,
    /// Without one this sidecar's is meant.
    epochs: Vec<u64>,
}

pub(super) async fn check(
    State(shared): State<Arc<Shared>>,
    Extension(answer): Answer,
    uri: Uri,
) -> Result<Response<Body>, Refusal> {
    let asked = Asked::read(&uri, shared.about().identity.as_str())?;
    let view = shared.view();
    let moment = shared.moment(&view);
    let leading = moment.leading().filter(|leading| asked.is_about(leading.term));
    commit(&answer, leading);
    let status = if leading.is_some() { StatusCode::OK } else { StatusCode::PRECONDITION_FAILED };
    Ok(with_term(json(status, &LeaderBody::of(&moment, leading.is_some())), &moment))
}

impl Asked {
    fn read(uri: &Uri, identity: &str) -> Result<Self, Refusal> {
        let mut asked = Self { to_me: true, terms: Vec::new(), epochs: Vec::new() };
        for (name, value) in pairs(uri, EXAMPLE)? {
            match name.as_str() {
                "identity" => asked.to_me &= value == identity,
                "term" => asked.terms.push(number(&name, &value)?),
                "epoch" => asked.epochs.push(number(&name, &value)?),
                _other => {}
            }
        }
        if asked.terms.is_empty() {
            return Err(bad(format!("term is missing; write it like {EXAMPLE}")));
        }
        Ok(asked)
    }

    /// Whether this term is meant, by every name and value given.
    fn is_about(&self, term: Term) -> bool {
        self.to_me
            && self.terms.iter().all(|token| *token == term.token.0)
            && self.epochs.iter().all(|epoch| *epoch == term.epoch.0)
    }
}

fn number<T: TryFrom<u64>>(name: &str, text: &str) -> Result<T, Refusal> {
    // Digits alone: "+7" would be read as 7, and a plus in a query is a space.
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse::<u64>().ok()).and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| bad(format!("{name}: {:?} is not a number from 0 up; write it like {EXAMPLE}", shown(text))))
}

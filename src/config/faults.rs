//! Looking at settings one after the other while collecting their faults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::api::ApiAddress;
use super::credentials::FileFault;
use super::duration::{COOLDOWN_DEFAULT, parse_cooldown, parse_duration};
use super::fault::{ConfigFault, FaultKind};
use super::names::NameFault;
use super::sources::Sources;

/// A fault has been put on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OnTheList;

/// The faults found so far, and how to look at a setting.
pub(crate) struct Faults<'a> {
    sources: &'a Sources,
    list: Vec<ConfigFault>,
}

impl<'a> Faults<'a> {
    /// None yet.
    pub(crate) fn new(sources: &'a Sources) -> Self {
        Self { sources, list: Vec::new() }
    }

    pub(crate) fn push(&mut self, kind: FaultKind) {
        self.list.push(ConfigFault::new(kind, self.sources));
    }

    /// The value, or its fault on the list.
    pub(crate) fn keep<T>(&mut self, result: Result<T, FaultKind>) -> Option<T> {
        result.map_err(|kind| self.push(kind)).ok()
    }

    /// What was set, if anything.
    pub(crate) fn value<'b>(&self, flag: &str, given: Option<&'b String>) -> Option<&'b str> {
        self.sources.value(flag, given)
    }

    /// What was set for a flag that can be repeated.
    pub(super) fn values<'b>(&self, flag: &str, given: &'b [String]) -> Vec<&'b str> {
        self.sources.values(flag, given)
    }

    /// A path that was set.
    pub(super) fn path(&self, flag: &str, given: Option<&String>) -> Option<PathBuf> {
        self.value(flag, given).map(PathBuf::from)
    }

    /// What was read from a file.
    pub(super) fn file<T>(&mut self, flag: &'static str, path: &Path, read: Result<T, FileFault>) -> Option<T> {
        self.keep(read.map_err(|fault| FaultKind::File { flag, path: path.to_owned(), fault }))
    }

    /// A value that passes `check`.
    pub(super) fn name(
        &mut self,
        flag: &'static str,
        value: &str,
        check: fn(&str) -> Result<(), NameFault>,
    ) -> Option<String> {
        let checked = check(value).map_err(|fault| FaultKind::Name { flag, value: value.to_owned(), fault });
        self.keep(checked).map(|()| value.to_owned())
    }

    /// A duration, or the default.
    pub(crate) fn duration(
        &mut self,
        flag: &'static str,
        given: Option<&String>,
        default: Duration,
    ) -> Option<Duration> {
        self.duration_if_set(flag, given).map_or(Some(default), Result::ok)
    }

    /// How long to stay away after resigning.
    pub(crate) fn cooldown(&mut self, flag: &'static str, given: Option<&String>) -> Option<Duration> {
        let Some(text) = self.value(flag, given) else { return Some(COOLDOWN_DEFAULT) };
        self.keep(parse_cooldown(text).map_err(|fault| FaultKind::Duration { flag, value: text.to_owned(), fault }))
    }

    /// A duration that was set, or `Err` with its fault on the list.
    pub(super) fn duration_if_set(
        &mut self,
        flag: &'static str,
        given: Option<&String>,
    ) -> Option<Result<Duration, OnTheList>> {
        let text = self.value(flag, given)?;
        let parsed = parse_duration(text).map_err(|fault| FaultKind::Duration { flag, value: text.to_owned(), fault });
        Some(self.keep(parsed).ok_or(OnTheList))
    }

    /// An address to ask.
    pub(crate) fn api(&mut self, flag: &'static str, text: &str) -> Option<ApiAddress> {
        self.keep(ApiAddress::parse(text).map_err(|fault| FaultKind::Api { flag, value: text.to_owned(), fault }))
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        flag: &'static str,
        value: &str,
        choices: &'static str,
        known: &[(&str, T)],
    ) -> Option<T> {
        let found = known.iter().find(|(word, _)| *word == value).map(|(_, meaning)| *meaning);
        self.keep(found.ok_or_else(|| FaultKind::Choice { flag, value: value.to_owned(), choices }))
    }

    /// All of it, or every fault.
    pub(crate) fn finish<T>(self, all: Option<T>) -> Result<T, Vec<ConfigFault>> {
        match all {
            Some(all) if self.list.is_empty() => Ok(all),
            Some(_) | None => Err(self.into_list()),
        }
    }

    fn into_list(self) -> Vec<ConfigFault> {
        assert!(!self.list.is_empty(), "a setting is only missing when its fault is on the list");
        self.list
    }
}

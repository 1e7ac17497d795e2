//! Where settings came from: the command line or the environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::compat::NAIS_VARIABLES;

/// What every environment variable of Bellwether starts with.
pub const VARIABLE_PREFIX: &str = "BELLWETHER_";
/// The one secret: it has a variable and no flag, because everyone on a machine can read command lines.
pub const PASSWORD_VARIABLE: &str = "BELLWETHER_ETCD_PASSWORD";
/// Where Kubernetes tells a container its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Where Kubernetes mounts the token of a container's service account.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// What Kubernetes tells every container: where the API server is.
const API_SERVER_VARIABLE: &str = "KUBERNETES_SERVICE_HOST";

/// The environment variable of a flag: `--lease-ttl` is `BELLWETHER_LEASE_TTL`.
#[must_use]
pub fn variable(flag: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", flag.trim_start_matches('-').replace('-', "_").to_ascii_uppercase())
}

/// Which flags were set by the environment, each with the variable that did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<String, String>);

impl Sources {
    /// From the flags (`--lease-ttl`) that the environment set.
    pub fn new(flags: impl IntoIterator<Item = String>) -> Self {
        Self(flags.into_iter().map(|flag| (flag.clone(), variable(&flag))).collect())
    }

    /// One more flag that the environment set, by a variable of another name.
    pub(super) fn add(&mut self, flag: &str, variable: &str) {
        self.0.insert(flag.to_owned(), variable.to_owned());
    }

    /// The variable that set this flag, if one did.
    #[must_use]
    pub fn variable_of(&self, flag: &str) -> Option<String> {
        self.0.get(flag).cloned()
    }

    /// The value, unless it is an empty environment variable, which counts as not set.
    #[must_use]
    pub fn value<'a>(&self, flag: &str, given: Option<&'a String>) -> Option<&'a str> {
        given.map(String::as_str).filter(|text| !(text.is_empty() && self.0.contains_key(flag)))
    }

    /// The values of a flag that can be repeated; an empty environment variable counts as none.
    #[must_use]
    pub fn values<'a>(&self, flag: &str, given: &'a [String]) -> Vec<&'a str> {
        given.iter().filter_map(|text| self.value(flag, Some(text))).collect()
    }
}

/// What the configuration takes from around the process besides flags, read once at the start.
#[derive(Clone)]
pub struct Surroundings {
    /// `BELLWETHER_ETCD_PASSWORD`
    pub password: Option<OsString>,
    /// The host name: the pod's name, in Kubernetes.
    pub host_name: String,
    /// The file that holds the pod's namespace, where there is one.
    pub namespace_file: PathBuf,
    /// The file that holds the pod's token for the API server, where there is one.
    pub token_file: PathBuf,
    /// Whether this is a container in Kubernetes.
    pub in_cluster: bool,
    /// The variables by which nais' elector is configured, as far as they are set: `ELECTOR_HTTP` and its like.
    pub elector: Vec<(&'static str, String)>,
}

impl Surroundings {
    /// Of this process.
    #[must_use]
    pub fn read() -> Self {
        Self {
            password: std::env::var_os(PASSWORD_VARIABLE).filter(|password| !password.is_empty()),
            host_name: nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
            namespace_file: Path::new(NAMESPACE_FILE).to_owned(),
            token_file: Path::new(TOKEN_FILE).to_owned(),
            elector: set_variables(NAIS_VARIABLES.map(|(variable, _)| variable)),
            in_cluster: std::env::var_os(API_SERVER_VARIABLE).is_some_and(|host| !host.is_empty()),
        }
    }
}

/// Those that are set, and not to nothing. What is not text cannot be one of the values they take.
fn set_variables(names: impl IntoIterator<Item = &'static str>) -> Vec<(&'static str, String)> {
    names
        .into_iter()
        .filter_map(|name| Some((name, std::env::var(name).ok().filter(|value| !value.is_empty())?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_its_flag_in_capitals() {
        assert_eq!(variable("--lease-ttl"), "BELLWETHER_LEASE_TTL");
    }

    #[test]
    fn an_empty_variable_counts_as_not_set_but_an_empty_flag_does_not() {
        let from_environment = Sources::new(["--election".into()]);
        assert_eq!(from_environment.value("--election", Some(&String::new())), None);
        assert_eq!(from_environment.value("--election", Some(&"web".into())), Some("web"));
        assert_eq!(Sources::default().value("--election", Some(&String::new())), Some(""));
    }
}

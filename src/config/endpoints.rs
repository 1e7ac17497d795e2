//! `--etcd-endpoints`: a list of URLs of one cluster.

use hyper::Uri;
use thiserror::Error;

/// More members than an etcd cluster ever has (seven is already unusual), counting proxies before them.
pub const ENDPOINTS_MAX: usize = 16;

/// Why a list of endpoints cannot be used. Endpoints are shown without credentials.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndpointFault {
    /// `a,,b`, or a comma at an end.
    #[error("item {position} is empty; leave out the extra comma")]
    Empty {
        /// Counted from 1.
        position: usize,
    },
    /// `etcd-0:2379`
    #[error("{0:?} has no scheme; write http://{0} or https://{0}")]
    NoScheme(String),
    /// `ftp://…`
    #[error("{endpoint:?} has the unknown scheme {scheme:?}; use http or https")]
    UnknownScheme {
        /// The endpoint.
        endpoint: String,
        /// Its scheme.
        scheme: String,
    },
    /// `https://`, or characters that a URL cannot have.
    #[error("{0:?} is not a URL; write for example https://etcd-0:2379")]
    Malformed(String),
    /// A password in a URL ends up in logs and process lists.
    #[error(
        "{0:?} carries credentials; use --etcd-user with --etcd-password-file or the environment variable \
         BELLWETHER_ETCD_PASSWORD"
    )]
    Credentials(String),
    /// Without a port it would be 80 or 443, which nobody means.
    #[error("{0:?} has no valid port; etcd's is usually 2379, as in http://etcd-0:2379")]
    NoPort(String),
    /// `https://etcd-0:2379/v3`
    #[error("{0:?} has a path; an endpoint ends with its port")]
    Path(String),
    /// Twice the same: hedging would ask the same server again.
    #[error("{0:?} is listed twice; leave one out")]
    Duplicate(String),
    /// The certificates would apply to some only.
    #[error("both http and https endpoints are listed; use one scheme for all")]
    MixedSchemes,
    /// See [`ENDPOINTS_MAX`].
    #[error("{0} endpoints are listed; at most {ENDPOINTS_MAX} are allowed")]
    TooMany(usize),
}

/// Endpoints that passed: at least one, one scheme, no two the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// As `http://host:port`, in the order given.
    pub urls: Vec<String>,
    /// Whether they are `https`.
    pub tls: bool,
}

/// Parses every item of the lists (a flag may be given several times, and each may hold commas).
///
/// # Errors
/// Every fault of the list, in its order.
pub fn parse_endpoints(lists: &[&str]) -> Result<Endpoints, Vec<EndpointFault>> {
    let items: Vec<&str> = lists.iter().flat_map(|list| list.split(',')).map(str::trim).collect();
    let mut faults = Vec::new();
    let mut urls = Vec::new();
    if items.len() > ENDPOINTS_MAX {
        return Err(vec![EndpointFault::TooMany(items.len())]);
    }
    for (index, item) in items.iter().enumerate() {
        match parse_endpoint(item, index + 1) {
            Ok(url) if urls.contains(&url) => faults.push(EndpointFault::Duplicate(url)),
            Ok(url) => urls.push(url),
            Err(fault) => faults.push(fault),
        }
    }
    let tls = urls.iter().any(|url| url.starts_with("https:"));
    if tls && urls.iter().any(|url| url.starts_with("http:")) {
        faults.push(EndpointFault::MixedSchemes);
    }
    if faults.is_empty() { Ok(Endpoints { urls, tls }) } else { Err(faults) }
}

fn parse_endpoint(item: &str, position: usize) -> Result<String, EndpointFault> {
    if item.is_empty() {
        return Err(EndpointFault::Empty { position });
    }
    let shown = without_credentials(item);
    let Some((scheme, rest)) = item.split_once("://") else {
        return Err(if item.contains('@') {
            EndpointFault::Credentials(shown)
        } else {
            EndpointFault::NoScheme(shown)
        });
    };
    if rest.contains('@') {
        return Err(EndpointFault::Credentials(shown));
    }
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(EndpointFault::UnknownScheme { endpoint: shown, scheme });
    }
    let uri: Uri = item.parse().map_err(|_why| EndpointFault::Malformed(shown.clone()))?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(EndpointFault::Malformed(shown.clone()))?;
    if uri.path() != "/" || uri.query().is_some() || item.contains('#') {
        return Err(EndpointFault::Path(shown));
    }
    match uri.port_u16() {
        None | Some(0) => Err(EndpointFault::NoPort(shown)),
        Some(port) => Ok(format!("{scheme}://{}:{port}", host.to_ascii_lowercase())),
    }
}

/// Everything between the scheme and the last `@` becomes `…`: what a person typed there may be a password,
/// wherever the slashes are.
fn without_credentials(item: &str) -> String {
    let Some((before, host)) = item.rsplit_once('@') else {
        return item.to_owned();
    };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://…@{host}"),
        None => format!("…@{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(item: &str) -> EndpointFault {
        parse_endpoints(&[item]).expect_err("refused").remove(0)
    }

    #[test]
    fn lists_are_split_trimmed_and_normalised() {
        let endpoints = parse_endpoints(&["http://A:2379, http://b:2379/", "HTTP://[::1]:1"]);
        assert_eq!(
            endpoints,
            Ok(Endpoints {
                urls: ["http://a:2379", "http://b:2379", "http://[::1]:1"].map(Into::into).into(),
                tls: false
            })
        );
        assert!(parse_endpoints(&["https://etcd.example:443"]).is_ok_and(|endpoints| endpoints.tls));
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        assert_eq!(fault(""), EndpointFault::Empty { position: 1 });
        assert_eq!(fault("etcd-0:2379"), EndpointFault::NoScheme("etcd-0:2379".into()));
        assert_eq!(
            fault("unix:///run/etcd"),
            EndpointFault::UnknownScheme { endpoint: "unix:///run/etcd".into(), scheme: "unix".into() }
        );
        for malformed in ["http://", "http://a b:1", "http://:2379"] {
            assert_eq!(fault(malformed), EndpointFault::Malformed(malformed.into()), "{malformed}");
        }
        for no_port in ["http://etcd", "http://etcd:0", "http://etcd:port"] {
            assert_eq!(fault(no_port), EndpointFault::NoPort(no_port.into()));
        }
        for path in ["http://etcd:1/v3", "http://etcd:1/?a", "http://etcd:1#a"] {
            assert_eq!(fault(path), EndpointFault::Path(path.into()));
        }
        assert_eq!(fault("http://a:1,http://A:1/"), EndpointFault::Duplicate("http://a:1".into()));
        assert_eq!(fault("http://a:1,https://b:1"), EndpointFault::MixedSchemes);
        let many: Vec<String> = (0..17).map(|n| format!("http://e{n}:1")).collect();
        assert_eq!(fault(&many.join(",")), EndpointFault::TooMany(17));
    }

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        for item in ["https://root:secret@etcd:1", "https://root:sec@secret/secret@etcd:1", "root:secret@etcd:1"] {
            let text = fault(item).to_string();
            assert!(text.contains("carries credentials") && !text.contains("sec"), "{text}");
        }
    }

    #[test]
    fn every_fault_of_a_list_is_reported() {
        let faults = parse_endpoints(&["http://a:1,,b:2,http://a:1"]).expect_err("refused");
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
}

//! Names as they must be to fit into keys, labels and host names.

use thiserror::Error;

/// Longest label value and DNS label in Kubernetes.
const LABEL_BYTES_MAX: usize = 63;
/// Longest pod name, which the identity is by default.
const IDENTITY_BYTES_MAX: usize = 253;
/// Far above any sensible key, far below etcd's limit on a request.
const LOCK_KEY_BYTES_MAX: usize = 512;

/// Why a text cannot be that name, worded to follow the text itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameFault {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Too long.
    #[error("is {length} bytes long; at most {most} are allowed")]
    TooLong {
        /// In bytes.
        length: usize,
        /// In bytes.
        most: usize,
    },
    /// Not a label value.
    #[error(
        "is not a Kubernetes label value; use letters, digits, '-', '_' and '.', with a letter or digit at both ends"
    )]
    NotALabelValue,
    /// Not a DNS label.
    #[error(
        "is not a Kubernetes namespace; use lower-case letters, digits and '-', with a letter or digit at both ends"
    )]
    NotADnsLabel,
    /// Not a pod's name.
    #[error(
        "is not the name of a pod; use lower-case letters, digits, '-' and '.', with a letter or digit at both ends"
    )]
    NotAPodName,
    /// Not a label key.
    #[error(
        "is not a Kubernetes label key; write <name> or <DNS name>/<name>, the name with up to 63 letters, digits, \
         '-', '_' and '.'"
    )]
    NotALabelKey,
    /// It would reach into another key.
    #[error("contains '/', which separates the parts of etcd keys; leave it out")]
    Slash,
    /// It would garble logs and terminals.
    #[error("contains a control character; leave it out")]
    ControlCharacter,
    /// The candidates' keys follow after a slash.
    #[error("ends with '/'; leave the last '/' out")]
    TrailingSlash,
}

/// `--election`: a value that a Kubernetes label can have.
pub fn check_election(text: &str) -> Result<(), NameFault> {
    check_label(
        text,
        |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'),
        |c| c.is_ascii_alphanumeric(),
        NameFault::NotALabelValue,
    )
}

/// `--namespace`: a DNS label.
pub fn check_namespace(text: &str) -> Result<(), NameFault> {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    check_label(text, |c| alphanumeric(c) || c == '-', alphanumeric, NameFault::NotADnsLabel)
}

/// `--pod-name`: a DNS subdomain.
pub fn check_pod_name(text: &str) -> Result<(), NameFault> {
    check_length(text, IDENTITY_BYTES_MAX)?;
    if is_dns_subdomain(text) { Ok(()) } else { Err(NameFault::NotAPodName) }
}

/// The key of a label or annotation.
pub fn check_label_key(text: &str) -> Result<(), NameFault> {
    if text.is_empty() {
        return Err(NameFault::Empty);
    }
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let prefix_fits = prefix.is_none_or(|prefix| prefix.len() <= IDENTITY_BYTES_MAX && is_dns_subdomain(prefix));
    if prefix_fits && check_election(name).is_ok() { Ok(()) } else { Err(NameFault::NotALabelKey) }
}

fn is_dns_subdomain(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = |part: &str| {
        part.chars().all(|c| alphanumeric(c) || c == '-')
            && part.starts_with(alphanumeric)
            && part.ends_with(alphanumeric)
    };
    text.split('.').all(fits)
}

fn check_label(
    text: &str,
    inside: impl Fn(char) -> bool,
    at_ends: impl Fn(char) -> bool,
    fault: NameFault,
) -> Result<(), NameFault> {
    check_length(text, LABEL_BYTES_MAX)?;
    if text.chars().all(inside) && text.starts_with(&at_ends) && text.ends_with(at_ends) { Ok(()) } else { Err(fault) }
}

/// `--identity`: the last part of the candidate's key.
pub fn check_identity(text: &str) -> Result<(), NameFault> {
    check_length(text, IDENTITY_BYTES_MAX)?;
    if text.contains('/') {
        return Err(NameFault::Slash);
    }
    check_controls(text)
}

/// `--lock-key`: any key that the candidates' keys can follow.
pub fn check_lock_key(text: &str) -> Result<(), NameFault> {
    check_length(text, LOCK_KEY_BYTES_MAX)?;
    if text.ends_with('/') {
        return Err(NameFault::TrailingSlash);
    }
    check_controls(text)
}

fn check_length(text: &str, most: usize) -> Result<(), NameFault> {
    match text.len() {
        0 => Err(NameFault::Empty),
        length if length > most => Err(NameFault::TooLong { length, most }),
        _ => Ok(()),
    }
}

fn check_controls(text: &str) -> Result<(), NameFault> {
    if text.chars().any(char::is_control) { Err(NameFault::ControlCharacter) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_election_is_a_label_value() {
        for good in ["web", "Web-1", "a", "1", "a_b.c", &"x".repeat(63)] {
            assert_eq!(check_election(good), Ok(()), "{good}");
        }
        for bad in ["-web", "web-", ".web", "we b", "web/1", "wéb", "web\n"] {
            assert_eq!(check_election(bad), Err(NameFault::NotALabelValue), "{bad:?}");
        }
        assert_eq!(check_election(""), Err(NameFault::Empty));
        assert_eq!(check_election(&"x".repeat(64)), Err(NameFault::TooLong { length: 64, most: 63 }));
    }

    #[test]
    fn a_namespace_is_a_dns_label() {
        for good in ["default", "kube-system", "0"] {
            assert_eq!(check_namespace(good), Ok(()), "{good}");
        }
        for bad in ["Default", "a.b", "a_b", "-a", "a-", "a/b"] {
            assert_eq!(check_namespace(bad), Err(NameFault::NotADnsLabel), "{bad:?}");
        }
    }

    #[test]
    fn a_pod_name_is_a_dns_subdomain() {
        for good in ["web-0", "web-7d9f.x", "0"] {
            assert_eq!(check_pod_name(good), Ok(()), "{good}");
        }
        for bad in ["Web-0", "web_0", "-web", "web.", "a..b", "a/b"] {
            assert_eq!(check_pod_name(bad), Err(NameFault::NotAPodName), "{bad:?}");
        }
    }

    #[test]
    fn a_label_key_may_have_a_dns_name_before_its_slash() {
        for good in ["role", "bellwether.dev/role", "a-b.c/D_e.f"] {
            assert_eq!(check_label_key(good), Ok(()), "{good}");
        }
        for bad in ["/role", "bellwether.dev/", "Bell/role", "a/b/c", "-role", "ro le"] {
            assert_eq!(check_label_key(bad), Err(NameFault::NotALabelKey), "{bad:?}");
        }
    }

    #[test]
    fn an_identity_fits_into_a_key() {
        for good in ["web-0", "worker@host:1", "ünï", &"x".repeat(253)] {
            assert_eq!(check_identity(good), Ok(()), "{good}");
        }
        assert_eq!(check_identity("a/b"), Err(NameFault::Slash));
        assert_eq!(check_identity("a\u{7f}b"), Err(NameFault::ControlCharacter));
        assert_eq!(check_identity(&"x".repeat(254)), Err(NameFault::TooLong { length: 254, most: 253 }));
    }

    #[test]
    fn a_lock_key_can_be_followed_by_candidates() {
        for good in ["/bellwether/default/web", "locks/web", "a key"] {
            assert_eq!(check_lock_key(good), Ok(()), "{good}");
        }
        assert_eq!(check_lock_key(""), Err(NameFault::Empty));
        assert_eq!(check_lock_key("/a/"), Err(NameFault::TrailingSlash));
        assert_eq!(check_lock_key("/"), Err(NameFault::TrailingSlash));
        assert_eq!(check_lock_key("/a\0"), Err(NameFault::ControlCharacter));
        assert_eq!(check_lock_key(&"x".repeat(513)), Err(NameFault::TooLong { length: 513, most: 512 }));
    }
}

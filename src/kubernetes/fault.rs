//! What the API server, or the way to it, can refuse.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Every kind of talk with the API server, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiOperation {
    /// Read one pod.
    Get,
    /// Read the pods of the election that carry the leader's label, or this one.
    List,
    /// Be told of changes of these.
    Watch,
    /// Change the label and the annotation of a pod.
    Patch,
    /// Create an event.
    Event,
}

impl ApiOperation {
    /// The name in logs and metric labels: a bounded label set.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Patch => "patch",
            Self::Event => "event",
        }
    }
}

/// What an operator or the labeller would do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApiCode {
    /// 401: the token is not taken.
    Unauthorized,
    /// 403: the role lacks a right.
    Forbidden,
    /// 404: no such pod.
    NotFound,
    /// 409: somebody else was faster, or was there before: what was read is old.
    Conflict,
    /// 429: come again later.
    Throttled,
    /// 400 or 422, or an admission policy that says no.
    Rejected,
    /// No answer in time. It may have been done.
    Timeout,
    /// No connection, TLS included, or 5xx. It may have been done.
    Unavailable,
    /// No client can be made of what is configured.
    Unusable,
    /// Anything else.
    Other,
}

impl ApiCode {
    /// The name in logs and metric labels: a bounded label set.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Unusable => "unusable",
            Self::Other => "other",
        }
    }

    /// Whether only a person can mend it.
    pub(super) const fn needs_a_person(self) -> bool {
        match self {
            Self::Unauthorized | Self::Forbidden | Self::NotFound | Self::Rejected | Self::Unusable => true,
            Self::Conflict | Self::Throttled | Self::Timeout | Self::Unavailable | Self::Other => false,
        }
    }

    /// Whether it may have been done, or may yet be.
    pub(super) const fn is_ambiguous(self) -> bool {
        match self {
            Self::Timeout | Self::Unavailable => true,
            Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::Conflict
            | Self::Throttled
            | Self::Rejected
            | Self::Unusable
            | Self::Other => false,
        }
    }

    fn of_status(code: u16, message: &str) -> Self {
        match code {
            // What an admission policy refuses is a right that no role can grant.
            _ if message.contains("ValidatingAdmissionPolicy") || message.contains("admission webhook") => {
                Self::Rejected
            }
            400 | 422 => Self::Rejected,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            409 => Self::Conflict,
            429 => Self::Throttled,
            408 | 504 => Self::Timeout,
            500.. => Self::Unavailable,
            _ => Self::Other,
        }
    }
}

/// One call that did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiFault {
    /// At what.
    pub operation: ApiOperation,
    /// How.
    pub code: ApiCode,
    /// The words, the API server's own where there are any.
    pub message: String,
    /// How long the API server asks to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether the API server said so itself.
    answered: bool,
}

impl ApiFault {
    pub(super) fn new(operation: ApiOperation, code: ApiCode, message: impl Into<String>) -> Self {
        Self { operation, code, message: message.into(), retry_after: None, answered: false }
    }

    /// Whether a client made anew from its files may fare better: another token, another authority, another
    /// connection. Not for what an API server in trouble answers: a handshake for each try would not help it.
    pub(super) const fn asks_for_a_new_client(&self) -> bool {
        match self.code {
            ApiCode::Unauthorized | ApiCode::Timeout => true,
            ApiCode::Unavailable => !self.answered,
            ApiCode::Forbidden
            | ApiCode::NotFound
            | ApiCode::Conflict
            | ApiCode::Throttled
            | ApiCode::Rejected
            | ApiCode::Unusable
            | ApiCode::Other => false,
        }
    }

    /// Whether nobody answered in time: who calls again at once waits as long in vain.
    pub(super) const fn is_silence(&self) -> bool {
        self.code.is_ambiguous() && !self.answered
    }

    pub(super) fn of(operation: ApiOperation, error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::new(operation, ApiCode::Unavailable, innermost(error));
        };
        let retry_after = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0);
        Self {
            operation,
            code: ApiCode::of_status(status.code, &status.message),
            message: if status.message.is_empty() { status.reason.clone() } else { status.message.clone() },
            retry_after: retry_after.map(|seconds| Duration::from_secs(seconds.into())),
            answered: true,
        }
    }
}

impl fmt::Display for ApiFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation.as_str(), self.code.as_str(), self.message)
    }
}

/// The cause at the bottom: `Connection refused`, not that a service failed.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_what_a_person_would_do_about_it() {
        let cases = [
            (401, "Unauthorized", ApiCode::Unauthorized),
            (403, "pods \"web-0\" is forbidden: User … cannot patch", ApiCode::Forbidden),
            (403, "denied request: ValidatingAdmissionPolicy 'x' with binding 'x'", ApiCode::Rejected),
            (422, "ValidatingAdmissionPolicy 'x' with binding 'x' denied request", ApiCode::Rejected),
            (400, "bad", ApiCode::Rejected),
            (404, "gone", ApiCode::NotFound),
            (409, "changed", ApiCode::Conflict),
            (429, "slower", ApiCode::Throttled),
            (503, "later", ApiCode::Unavailable),
            (504, "later", ApiCode::Timeout),
            (418, "tea", ApiCode::Other),
        ];
        for (code, message, expected) in cases {
            assert_eq!(ApiCode::of_status(code, message), expected, "{code} {message}");
        }
    }
}

//! Logs: text for a person at a terminal, JSON for everything that collects.

use std::io::{self, IsTerminal};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Logs could not be set up.
#[derive(Debug, Error)]
pub enum LogsError {
    /// The filter built from the level cannot be read: a bug.
    #[error("the log filter is not valid: {0}")]
    Filter(#[from] ParseError),
    /// Something in this process logs already.
    #[error("logs are set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Sends logs to stderr from now on; stdout is for the lines `<name> is the leader`.
///
/// # Errors
/// It was done before.
pub fn init(config: LogConfig) -> Result<(), LogsError> {
    subscriber(config, io::stderr().is_terminal(), io::stderr)?.try_init()?;
    Ok(())
}

type Subscriber = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(config: LogConfig, terminal: bool, writer: W) -> Result<Subscriber, LogsError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(directives(config.level))?;
    // A log that cannot be written, with its disk full or its reader gone, is nothing to die of: saying so on stderr,
    // which is that very log, would panic.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    let text = match config.format {
        LogFormat::Auto => terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    Ok(if text {
        Box::new(builder.with_ansi(terminal).with_target(false).finish())
    } else {
        Box::new(builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish())
    })
}

/// What libraries log is about connections, which our own lines tell in the election's words; their warnings
/// may still be the only trace of a fault. kube logs every call that fails, which we
/// tell once, and bodies that it does not understand.
fn directives(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error,kube_client=off",
        LogLevel::Warn => "warn,kube_client=off",
        LogLevel::Info => "warn,kube_client=off,bellwether=info",
        LogLevel::Debug => "warn,kube_client=off,bellwether=debug",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, level: LogLevel, terminal: bool) -> String {
        let written = Written::default();
        let writer = written.clone();
        let config = LogConfig { format, level };
        let subscriber = subscriber(config, terminal, move || writer.clone()).expect("the filter is valid");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(term = 7, "won");
            tracing::debug!("detail");
            tracing::info!(target: "hyper", "chatter");
            tracing::warn!(target: "hyper", "warning");
        });
        let bytes = written.0.lock().expect("no writer panics").clone();
        String::from_utf8(bytes).expect("logs are text")
    }

    #[test]
    fn collectors_get_one_json_object_per_line() {
        let text = logged(LogFormat::Auto, LogLevel::Info, false);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("it is JSON");
        assert_eq!(first["message"], "won");
        assert_eq!(first["term"], 7);
        assert_eq!(first["level"], "INFO");
    }

    #[test]
    fn a_person_at_a_terminal_gets_text() {
        let text = logged(LogFormat::Auto, LogLevel::Info, true);
        assert!(text.contains("won") && !text.starts_with('{'), "{text}");
    }

    #[test]
    fn text_that_is_not_for_a_terminal_has_no_colours() {
        assert!(!logged(LogFormat::Text, LogLevel::Info, false).contains('\u{1b}'));
    }

    #[test]
    fn libraries_are_heard_from_warn_on_and_we_from_the_level() {
        let info = logged(LogFormat::Json, LogLevel::Info, false);
        assert!(info.contains("warning") && !info.contains("chatter") && !info.contains("detail"), "{info}");
        let debug = logged(LogFormat::Json, LogLevel::Debug, false);
        assert!(debug.contains("detail") && !debug.contains("chatter"), "{debug}");
        let warn = logged(LogFormat::Json, LogLevel::Warn, false);
        assert!(warn.contains("warning") && !warn.contains("won"), "{warn}");
    }
}

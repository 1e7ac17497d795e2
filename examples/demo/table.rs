//! The live view as text: one line per sidecar.

/// Erases the rest of the line: the view is drawn over the one before.
const CLEAR_TO_END: &str = "\x1b[K";
const BOLD_GREEN: &str = "\x1b[1;32m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// One sidecar. `answer` and what comes from it are absent when it did not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) identity: String,
    pub(crate) pid: u32,
    pub(crate) url: String,
    pub(crate) answer: Option<Told>,
    pub(crate) renewals: Option<u64>,
}

/// What a sidecar told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) state: String,
    pub(crate) term: u64,
    pub(crate) valid_for_ms: u64,
    pub(crate) etcd: String,
}

/// The table, line by line, with colours.
pub(crate) fn lines(rows: &[Row]) -> Vec<String> {
    let mut lines = vec![line(
        "",
        ["identity", "/leader", "state", "term", "renewals", "valid_for_ms", "etcd", "pid", "url"].map(str::to_owned),
    )];
    lines.extend(rows.iter().map(row));
    lines
}

fn row(row: &Row) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let told = row.answer.as_ref();
    let colour = match told.map(|told| told.status) {
        Some(200) => BOLD_GREEN,
        Some(_) => "",
        None => DIM,
    };
    line(
        colour,
        [
            row.identity.clone(),
            told.map_or_else(|| "silent".to_owned(), |told| told.status.to_string()),
            told.map_or_else(|| "-".to_owned(), |told| told.state.clone()),
            number(told.map(|told| told.term)),
            number(row.renewals),
            number(told.map(|told| told.valid_for_ms)),
            told.map_or_else(|| "-".to_owned(), |told| told.etcd.clone()),
            row.pid.to_string(),
            row.url.clone(),
        ],
    )
}

fn line(colour: &str, cells: [String; 9]) -> String {
    let [identity, answer, state, term, renewals, valid, etcd, pid, url] = cells;
    format!(
        "{colour}  {identity:<9} {answer:<8} {state:<13} {term:>7} {renewals:>9} {valid:>13}  {etcd:<12} {pid:>7}  \
         {url}{RESET}{CLEAR_TO_END}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, state: &str) -> Told {
        Told { status, state: state.to_owned(), term: 12, valid_for_ms: 997, etcd: "connected".to_owned() }
    }

    fn web(answer: Option<Told>) -> Row {
        let url = "http://127.0.0.1:15001".to_owned();
        Row { identity: "web-0".to_owned(), pid: 4711, url, renewals: Some(3), answer }
    }

    #[test]
    fn the_leader_stands_out_with_its_term_and_validity() {
        let lines = lines(&[web(Some(told(200, "leading"))), web(Some(told(503, "standing_down")))]);
        assert!(lines[1].starts_with(BOLD_GREEN), "{lines:?}");
        for cell in ["web-0", "200", "leading", "12", "997", "connected", "4711", "http://127.0.0.1:15001"] {
            assert!(lines[1].contains(cell), "{cell} is missing: {lines:?}");
        }
        assert!(!lines[2].contains(BOLD_GREEN));
    }

    #[test]
    fn who_does_not_answer_is_shown_as_silent_and_not_as_follower() {
        let lines = lines(&[web(None)]);
        assert!(lines[1].contains("silent") && !lines[1].contains("503"), "{lines:?}");
    }

    #[test]
    fn columns_stay_in_place_whatever_the_state() {
        let column = |line: &str| {
            line.find("http://").unwrap() - if line.starts_with(BOLD_GREEN) { BOLD_GREEN.len() } else { 0 }
        };
        let lines = lines(&[web(Some(told(200, "leading"))), web(Some(told(503, "standing_down")))]);
        assert_eq!(column(&lines[1]), column(&lines[2]));
    }
}

//! A panic inside a run is a violation of that run, with the place where it happened, and not the end of all others.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::Play;
use crate::{Control, Outcome, Scenario, Tally, Violation};

/// What a panic is called where an invariant would stand.
const PANIC: &str = "panic";

thread_local! {
    /// Whether this thread plays a scenario: then the panic's words are kept instead of printed.
    static PLAYING: Cell<bool> = const { Cell::new(false) };
    static WORDS: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Plays a scenario; if that panics, the outcome says so, and where.
pub fn play_guarded(play: Play<'_>, scenario: &Scenario, control: Option<Control>) -> Outcome {
    keep_words_of_panics();
    PLAYING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| play(scenario, control)));
    PLAYING.set(false);
    let heard = WORDS.take();
    let Ok(mut outcome) = outcome else {
        let what = heard.expect("the hook has heard it");
        return Outcome {
            verdict: Err(Violation { invariant: PANIC, what: what.clone() }),
            story: vec![format!("{what} (a panic that ends the run takes its story along)")],
            tally: Tally::default(),
        };
    };
    if let (Err(violation), Some(what)) = (&mut outcome.verdict, heard)
        && violation.invariant == PANIC
    {
        violation.what = what;
    }
    outcome
}

/// The hook is one for the whole process: it leaves every other panic to the one before it.
fn keep_words_of_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            if PLAYING.get() {
                let words = panic.payload_as_str().unwrap_or("a panic without words");
                let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
                WORDS.set(Some(format!("{words}{place}")));
            } else {
                others(panic);
            }
        }));
    });
}

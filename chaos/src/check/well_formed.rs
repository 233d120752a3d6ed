//! What a history must be to mean anything: recorded without contradiction, whole, and long
//! enough. None of this is about the cluster; a history that fails here says nothing of it.

use crate::check::judge::Invalid;
use crate::check::rules::Rules;
use crate::history::{History, Outcome};

/// Looks for contradictions of the recorder. Returns the last revision of the run.
pub fn check(history: &History) -> Result<i64, Invalid> {
    for (index, operation) in history.operations.iter().enumerate() {
        match (&operation.outcome, operation.returned) {
            (Outcome::Answered(answer), Some(_)) if !answer.fits(&operation.request) => {
                return Err(Invalid::WrongAnswer { operation: index });
            }
            (Outcome::Answered(_) | Outcome::Refused(_), None) => {
                return Err(Invalid::NoReturn { operation: index });
            }
            (Outcome::Answered(_) | Outcome::Refused(_), Some(at)) if at < operation.invoked => {
                return Err(Invalid::ReturnedBeforeInvoked { operation: index });
            }
            (Outcome::Answered(_) | Outcome::Refused(_), Some(_)) | (Outcome::Unknown, _) => {}
        }
    }
    let head = history.evidence.head().ok_or(Invalid::OpenEvidence)?;
    let highest = history.evidence.highest();
    if highest > head {
        return Err(Invalid::EvidenceBeyondHead { head, highest });
    }
    Ok(head)
}

/// Looks for a run too small to mean something.
pub fn check_size(history: &History, head: i64, rules: &Rules) -> Result<(), Invalid> {
    let answered = history.operations.iter().filter(|it| it.answer().is_some()).count();
    let reads = history
        .operations
        .iter()
        .filter(|it| it.answer().is_some() && super::case::is_linearizable_read(&it.request))
        .count();
    let revisions = usize::try_from(head - crate::history::EMPTY_STORE_REVISION).unwrap_or(0);
    let events = history
        .watches
        .iter()
        .flat_map(|watch| &watch.received)
        .map(|received| received.response.events.len())
        .sum();
    let counts = [
        ("answered operations", answered, rules.operations_min),
        ("linearizable reads", reads, rules.reads_min),
        ("revisions", revisions, rules.revisions_min),
        ("events sent to watchers", events, rules.watch_events_min),
    ];
    for (what, found, wanted) in counts {
        if found < wanted {
            return Err(Invalid::TooFew { what, found, wanted });
        }
    }
    Ok(())
}

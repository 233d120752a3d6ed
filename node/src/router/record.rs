//! Decisions of placement and of operators as they are put on record.

use std::time::{SystemTime, UNIX_EPOCH};

use flotilla_core::proto::internal::Decision;

/// Characters of a step or a reason: keys in them may be long.
const TEXT_CHARS_MAX: usize = 400;

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A decision of this moment, without an outcome.
pub fn on_record(step: &str, rule: &str, reason: &str, ranges: Vec<u64>) -> Decision {
    Decision {
        id: rand::random(),
        time_ms: now_ms(),
        step: clipped(step),
        rule: rule.to_owned(),
        reason: clipped(reason),
        outcome: String::new(),
        ranges,
    }
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use flotilla_core::spine::decisions::DECISION_BYTES_MAX;
    use prost::Message;

    use super::*;

    #[test]
    fn a_decision_about_long_keys_still_fits() {
        let long = "\u{1F600}".repeat(100_000);
        let record = on_record(&long, "split_large", &long, vec![u64::MAX; 2]);
        // An outcome is one of our own short texts.
        assert!(record.encoded_len() + 200 <= DECISION_BYTES_MAX, "{}", record.encoded_len());
        assert_eq!(clipped("split range=1 key=b"), "split range=1 key=b");
    }
}

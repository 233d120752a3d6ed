//! Rules by which a disk fails: which operation on which files, from which occurrence on, and
//! what happens then.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// What was written is to be made durable.
    Sync,
}

/// What happens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It takes this much longer.
    Delay(Duration),
    /// It does not return until the rule is taken back.
    Hang,
    /// Input/output error. A sync that fails so forgets what it should have made durable, and
    /// the next one succeeds.
    Fail,
    /// No space left.
    Full,
    /// Only the first half is written.
    Short,
    /// One bit of what is read is another one.
    FlipBit,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Files whose path has this in it.
    pub path: String,
    /// Operations it is for.
    pub operations: Vec<Operation>,
    /// The first occurrence it is for, counted from one.
    pub from: u64,
    /// Occurrences it is for.
    pub times: u64,
    /// What happens.
    pub action: Action,
}

/// All rules of a disk.
#[derive(Debug, Default)]
pub struct Rules {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    rules: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    rule: Rule,
    seen: u64,
    hits: u64,
}

impl Rules {
    /// Adds a rule. Returns its number.
    pub fn add(&self, rule: Rule) -> u64 {
        let mut table = self.table();
        let number = table.next;
        table.next += 1;
        table.rules.push(Kept { number, rule, seen: 0, hits: 0 });
        number
    }

    /// Takes a rule back. Returns how often it was followed.
    pub fn remove(&self, number: u64) -> u64 {
        let mut table = self.table();
        let hits = table.rules.iter().find(|kept| kept.number == number).map_or(0, |it| it.hits);
        table.rules.retain(|kept| kept.number != number);
        self.changed.notify_all();
        hits
    }

    /// Takes all rules back.
    pub fn clear(&self) {
        self.table().rules.clear();
        self.changed.notify_all();
    }

    /// What happens to an operation: the first rule that is for it, with its number.
    pub fn consult(&self, operation: Operation, path: &str) -> Option<(u64, Action)> {
        let mut table = self.table();
        for kept in &mut table.rules {
            if !kept.rule.operations.contains(&operation) || !path.contains(&kept.rule.path) {
                continue;
            }
            kept.seen += 1;
            let last = kept.rule.from.saturating_add(kept.rule.times);
            if (kept.rule.from..last).contains(&kept.seen) {
                kept.hits += 1;
                return Some((kept.number, kept.rule.action));
            }
        }
        None
    }

    /// Waits until a rule is taken back.
    pub fn wait_for_end(&self, number: u64) {
        let mut table = self.table();
        while table.rules.iter().any(|kept| kept.number == number) {
            table = self.changed.wait(table).expect("nobody panics with the rules");
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nobody panics with the rules")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_for_some_occurrences_on_some_files() {
        let rules = Rules::default();
        let number = rules.add(Rule {
            path: "wal".to_owned(),
            operations: vec![Operation::Sync],
            from: 2,
            times: 2,
            action: Action::Fail,
        });
        let consult = |operation, path| rules.consult(operation, path).map(|(_, it)| it);
        assert_eq!(consult(Operation::Sync, "/data/wal/1"), None);
        assert_eq!(consult(Operation::Sync, "/data/db"), None);
        assert_eq!(consult(Operation::Write, "/data/wal/1"), None);
        assert_eq!(consult(Operation::Sync, "/data/wal/1"), Some(Action::Fail));
        assert_eq!(consult(Operation::Sync, "/data/wal/2"), Some(Action::Fail));
        assert_eq!(consult(Operation::Sync, "/data/wal/1"), None);
        assert_eq!(rules.remove(number), 2);
        rules.wait_for_end(number);
    }
}

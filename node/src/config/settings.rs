//! The values that were given, by flag, variable or file, over the defaults of the table. Owns
//! the lookup of a value by the flag's name; never checks one value against another.

use std::collections::BTreeMap;

use super::Url;
use super::error::Error;
use super::flags::{self, FLAGS, Flag, State};
use super::notice::Notice;
use super::value::Value;

/// The gate that changes something.
pub(super) const INITIAL_CHECK: &str = "InitialCorruptCheck";
pub(super) const COMPACTION_CHECK: &str = "CompactHashCheck";

/// Given values. A name or a type that the table does not have is a slip in this module, which
/// the lookups answer with a panic and the test of the defaults finds.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    given: BTreeMap<&'static str, Value>,
    /// True when the values come from a configuration file.
    pub(super) is_file: bool,
}

impl Settings {
    /// Nothing given yet, by a configuration file.
    pub(super) fn of_file() -> Settings {
        Settings { is_file: true, ..Settings::default() }
    }

    /// Notes a value; a later one replaces an earlier one.
    pub(super) fn set(&mut self, flag: &'static Flag, value: Value) {
        self.given.insert(flag.name, value);
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// An error when something was asked for that is not served.
    pub(super) fn refuse_not_served(&self) -> Result<(), Error> {
        for flag in FLAGS {
            if let State::NotServed(missing) = flag.state
                && let Some(value) = self.given.get(flag.name)
                && *value != default_of(flag)
            {
                return Err(Error::NotServed { setting: self.spelling(flag), missing });
            }
        }
        Ok(())
    }

    /// One notice for each flag that was given and changes nothing.
    pub(super) fn report_without_meaning(&self, notices: &mut Vec<Notice>) {
        for flag in FLAGS.iter().filter(|flag| self.is_given(flag.name)) {
            let setting = self.spelling(flag);
            match flag.state {
                State::Used if flag.name == "feature-gates" && self.has_gate_without_meaning() => {
                    let why = "of the gates only InitialCorruptCheck and CompactHashCheck change anything";
                    notices.push(Notice::NoMeaning { setting, why });
                }
                State::NoMeaning(why) => notices.push(Notice::NoMeaning { setting, why }),
                State::Ignored => notices.push(Notice::Ignored { setting }),
                State::Used | State::NotServed(_) => {}
            }
        }
    }

    pub(super) fn text(&self, name: &str) -> String {
        match self.value(name) {
            Value::Text(text) => text,
            other => mistyped(name, &other),
        }
    }

    pub(super) fn bool(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Bool(value) => value,
            other => mistyped(name, &other),
        }
    }

    pub(super) fn int(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Int(number) => number,
            other => mistyped(name, &other),
        }
    }

    pub(super) fn uint(&self, name: &str) -> u64 {
        match self.value(name) {
            Value::Uint(number) => number,
            other => mistyped(name, &other),
        }
    }

    /// A count or a size, cut at what the machine can address.
    pub(super) fn size(&self, name: &str) -> usize {
        usize::try_from(self.uint(name)).unwrap_or(usize::MAX)
    }

    pub(super) fn nanoseconds(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Nanoseconds(nanoseconds) => nanoseconds,
            other => mistyped(name, &other),
        }
    }

    pub(super) fn urls(&self, name: &str) -> Vec<Url> {
        match self.value(name) {
            Value::Urls(urls) => urls,
            other => mistyped(name, &other),
        }
    }

    /// Whether one of the gates that etcd has off unless named is on. None if nothing says so.
    pub(super) fn gate(&self, name: &str) -> Option<bool> {
        match self.value("feature-gates") {
            Value::Gates(gates) => gates.get(name).or_else(|| gates.get("AllAlpha")).copied(),
            other => mistyped("feature-gates", &other),
        }
    }

    fn has_gate_without_meaning(&self) -> bool {
        let given = self.given.get("feature-gates");
        matches!(given, Some(Value::Gates(gates)) if gates.keys().any(|it| {
            it != INITIAL_CHECK && it != COMPACTION_CHECK
        }))
    }

    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::Texts(texts) => texts,
            other => mistyped(name, &other),
        }
    }

    fn value(&self, name: &str) -> Value {
        let flag = flags::find(name).expect("lookups name flags of the table");
        self.given.get(name).cloned().unwrap_or_else(|| default_of(flag))
    }

    /// The setting as its user wrote it.
    fn spelling(&self, flag: &Flag) -> String {
        if self.is_file { flag.name.to_owned() } else { format!("--{}", flag.name) }
    }
}

fn default_of(flag: &Flag) -> Value {
    flag.kind.read_text(flag.default).expect("the defaults of the table are of their kinds")
}

fn mistyped(name: &str, value: &Value) -> ! {
    panic!("the flag {name} was looked up as another type than {value:?}")
}

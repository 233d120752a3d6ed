//! What a flag can hold: the kinds, and reading a value of a kind from the text of a flag or from
//! a YAML node. Knows no flag by name and decides nothing about what a value does.

use std::collections::BTreeMap;

use flotilla_core::membership::url::{self, Url};
use serde_yaml_ng::Value as Yaml;

use super::gates::{self, GateError};
use super::number::{self, NumberError};

/// How the text of a flag is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bool,
    /// 64 bits, signed.
    Int,
    /// 64 bits.
    Uint,
    Uint32,
    /// Go's notation in a flag, whole nanoseconds in a file.
    Duration,
    /// Addresses separated by commas: each once, in the order of their text. May be empty.
    Urls,
    /// `*`, or addresses like [`Kind::Urls`].
    Origins,
    /// Texts separated by commas: each once, in their order.
    Set,
    /// Texts separated by commas, as given.
    List,
    Choice(&'static [&'static str]),
    /// etcd's feature gates, as `Name=true,Other=false`.
    Gates,
    /// A nested mapping of a file of which only its presence matters.
    Section,
    /// Any text, or none.
    Anything,
}

/// A value of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Int(i64),
    Uint(u64),
    Nanoseconds(i64),
    Urls(Vec<Url>),
    Texts(Vec<String>),
    Gates(BTreeMap<String, bool>),
    /// A section of a file that has something in it.
    Present,
    Nothing,
}

/// Why a text is no value of the flag's kind. The texts are those etcd prints.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("{0}")]
    Number(NumberError),
    /// Go's flag package says no more of a duration than that.
    #[error("parse error")]
    Notation,
    /// etcd reads this one kind with another function, which names itself.
    #[error("strconv.ParseUint: parsing {0:?}: {1}")]
    Uint32(String, &'static str),
    #[error("invalid value")]
    Choice,
    #[error("{0}")]
    Url(#[from] url::Error),
    #[error("{0}")]
    Gate(#[from] GateError),
    /// From a file only.
    #[error("expected {expected}, found {found}")]
    Type { expected: &'static str, found: &'static str },
}

impl Kind {
    /// Whether the flag stands alone on the command line, without a value behind it.
    pub(super) fn stands_alone(self) -> bool {
        matches!(self, Kind::Bool | Kind::Anything)
    }

    /// Reads the text of a flag or of an environment variable.
    pub(super) fn read_text(self, text: &str) -> Result<Value, ValueError> {
        Ok(match self {
            Kind::Text => Value::Text(text.to_owned()),
            Kind::Bool => Value::Bool(number::parse_bool(text).ok_or(ValueError::Notation)?),
            Kind::Int => Value::Int(number::parse_signed(text)?),
            Kind::Uint => Value::Uint(number::parse_unsigned(text)?),
            Kind::Uint32 => Value::Uint(uint32(text)?),
            Kind::Duration => {
                Value::Nanoseconds(number::parse_duration(text).map_err(|_| ValueError::Notation)?)
            }
            Kind::Urls => Value::Urls(urls(text)?),
            Kind::Origins => Value::Texts(origins(text)?),
            Kind::Set => Value::Texts(sorted_once(split(text))),
            Kind::List => Value::Texts(split(text)),
            Kind::Choice(choices) if choices.contains(&text) => Value::Text(text.to_owned()),
            Kind::Choice(_) => return Err(ValueError::Choice),
            Kind::Gates => Value::Gates(gates::parse(text)?),
            Kind::Section | Kind::Anything => Value::Nothing,
        })
    }

    /// Reads a node of a configuration file. None means that the node leaves the default alone.
    pub(super) fn read_yaml(self, node: &Yaml) -> Result<Option<Value>, ValueError> {
        if node.is_null() {
            return Ok(None);
        }
        let wrong = |expected| ValueError::Type { expected, found: type_name(node) };
        let text = || node.as_str().ok_or_else(|| wrong("a text"));
        Ok(Some(match self {
            Kind::Text | Kind::Choice(_) | Kind::Gates => self.read_text(text()?)?,
            Kind::Urls | Kind::Origins => match text()? {
                "" => return Ok(None),
                text => self.read_text(text)?,
            },
            Kind::Bool => Value::Bool(yaml_bool(node).ok_or_else(|| wrong("true or false"))?),
            Kind::Int => Value::Int(node.as_i64().ok_or_else(|| wrong("a whole number"))?),
            Kind::Uint => {
                Value::Uint(node.as_u64().ok_or_else(|| wrong("a whole number, not negative"))?)
            }
            Kind::Uint32 => {
                let number = node.as_u64().filter(|number| *number <= u64::from(u32::MAX));
                Value::Uint(number.ok_or_else(|| wrong("a whole number below 4294967296"))?)
            }
            Kind::Duration => Value::Nanoseconds(
                node.as_i64().ok_or_else(|| wrong("a whole number of nanoseconds"))?,
            ),
            Kind::Set | Kind::List => match node {
                Yaml::Sequence(items) => {
                    let items: Option<Vec<String>> =
                        items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
                    let items = items.ok_or_else(|| wrong("a list of texts"))?;
                    Value::Texts(if self == Kind::Set { sorted_once(items) } else { items })
                }
                _ => self.read_text(node.as_str().ok_or_else(|| wrong("a list of texts"))?)?,
            },
            Kind::Section => match node.as_mapping() {
                Some(mapping) if mapping.values().all(Yaml::is_null) => return Ok(None),
                Some(_) => Value::Present,
                None => return Err(wrong("a mapping")),
            },
            Kind::Anything => Value::Nothing,
        }))
    }

    /// The first word of the type that etcd's tables give a flag of this kind.
    #[cfg(test)]
    pub(super) fn is_called(self, name: &str) -> bool {
        let names: &[&str] = match self {
            Kind::Text => &["string", "json", "enum"],
            Kind::Bool => &["bool"],
            Kind::Int => &["int", "int64"],
            Kind::Uint => &["uint", "uint64"],
            Kind::Uint32 => &["uint32"],
            Kind::Duration => &["duration"],
            Kind::Urls | Kind::Origins => &["urls"],
            Kind::Set | Kind::List => &["strings"],
            Kind::Choice(_) => &["enum"],
            Kind::Gates => &["map"],
            Kind::Section => &[],
            Kind::Anything => &["any"],
        };
        names.contains(&name)
    }
}

impl From<NumberError> for ValueError {
    fn from(error: NumberError) -> ValueError {
        ValueError::Number(error)
    }
}

fn uint32(text: &str) -> Result<u64, ValueError> {
    let error = |why| ValueError::Uint32(text.to_owned(), why);
    match number::parse_unsigned(text) {
        Ok(number) if number <= u64::from(u32::MAX) => Ok(number),
        Ok(_) | Err(NumberError::Range) => Err(error("value out of range")),
        Err(NumberError::Syntax) => Err(error("invalid syntax")),
    }
}

fn urls(text: &str) -> Result<Vec<Url>, url::Error> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut urls = text.split(',').map(Url::parse).collect::<Result<Vec<Url>, url::Error>>()?;
    urls.sort();
    urls.dedup();
    Ok(urls)
}

fn origins(text: &str) -> Result<Vec<String>, url::Error> {
    if text.is_empty() || text == "*" {
        return Ok(vec!["*".to_owned()]);
    }
    Ok(urls(text)?.iter().map(Url::to_string).collect())
}

fn split(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(str::to_owned).collect()
}

fn sorted_once(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts.dedup();
    texts
}

/// The words of YAML 1.1 count too: etcd's reader follows that version.
fn yaml_bool(node: &Yaml) -> Option<bool> {
    match node {
        Yaml::Bool(value) => Some(*value),
        Yaml::String(word) => match word.as_str() {
            "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
            "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn type_name(node: &Yaml) -> &'static str {
    match node {
        Yaml::Null => "nothing",
        Yaml::Bool(_) => "true or false",
        Yaml::Number(_) => "a number",
        Yaml::String(_) => "a text",
        Yaml::Sequence(_) => "a list",
        Yaml::Mapping(_) => "a mapping",
        Yaml::Tagged(_) => "a tagged value",
    }
}

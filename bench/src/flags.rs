//! Command-line flags, written `--name value`, `--name=value` or, for switches, `--name`.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// The flags a command understands.
pub struct Spec {
    /// Flags with a value.
    pub values: &'static [&'static str],
    /// Flags that are on or off.
    pub switches: &'static [&'static str],
}

/// Parsed arguments.
#[derive(Debug, Default)]
pub struct Flags {
    values: BTreeMap<String, Vec<String>>,
    /// What is not a flag, in order.
    pub words: Vec<String>,
}

impl Flags {
    /// Parses the arguments of a command that understands all of `specs`.
    ///
    /// # Errors
    /// An unknown flag, or one without its value.
    pub fn parse(arguments: &[String], specs: &[&Spec]) -> anyhow::Result<Self> {
        let mut flags = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix("--") else {
                flags.words.push(argument.clone());
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let value = if specs.iter().any(|spec| spec.switches.contains(&name)) {
                value.unwrap_or_else(|| "true".into())
            } else {
                let is_known = specs.iter().any(|spec| spec.values.contains(&name));
                ensure!(is_known, "unknown flag: --{name}");
                match value {
                    Some(value) => value,
                    None => {
                        arguments.next().with_context(|| format!("--{name} needs a value"))?.clone()
                    }
                }
            };
            flags.values.entry(name.to_owned()).or_default().push(value);
        }
        Ok(flags)
    }

    /// The last value given.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.last().map(String::as_str)
    }

    /// Every value given, in order.
    #[must_use]
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// A switch.
    ///
    /// # Errors
    /// Neither true nor false.
    pub fn is_on(&self, name: &str) -> anyhow::Result<bool> {
        self.or(name, false)
    }

    /// A value, or this default.
    ///
    /// # Errors
    /// The text does not parse.
    pub fn or<T: FromStr>(&self, name: &str, default: T) -> anyhow::Result<T> {
        Ok(self.get(name)?.unwrap_or(default))
    }

    /// A value, if given.
    ///
    /// # Errors
    /// The text does not parse.
    pub fn get<T: FromStr>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let Ok(value) = text.parse() else { bail!("--{name}: cannot read {text:?}") };
        Ok(Some(value))
    }

    /// A duration, if given.
    ///
    /// # Errors
    /// The text is not a number with a unit.
    pub fn duration(&self, name: &str) -> anyhow::Result<Option<Duration>> {
        self.text(name).map(|text| duration(text).with_context(|| format!("--{name}"))).transpose()
    }
}

/// Reads `250us`, `10ms`, `1.5s`, `2m` or `1h`; a bare number is seconds.
///
/// # Errors
/// Anything else.
pub fn duration(text: &str) -> anyhow::Result<Duration> {
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let secs = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => bail!("{text:?} has an unknown unit; us, ms, s, m, h are known"),
    };
    let number: f64 = number.parse().with_context(|| format!("{text:?} is not a duration"))?;
    Duration::try_from_secs_f64(number * secs).with_context(|| format!("{text:?} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec { values: &["total", "endpoints"], switches: &["precise"] };

    fn parse(line: &str) -> anyhow::Result<Flags> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Flags::parse(&arguments, &[&SPEC])
    }

    #[test]
    fn both_ways_of_writing_a_value() {
        let flags = parse("put --total=5 --precise key --endpoints a,b").unwrap();
        assert_eq!(flags.words, ["put", "key"]);
        assert_eq!(flags.or("total", 1).unwrap(), 5);
        assert!(flags.is_on("precise").unwrap());
        assert_eq!(flags.text("endpoints"), Some("a,b"));
    }

    #[test]
    fn unknown_flags_and_bad_values_are_refused() {
        assert!(parse("--rate 5").is_err());
        assert!(parse("--total").is_err());
        assert!(parse("--total five").unwrap().or("total", 1).is_err());
    }

    #[test]
    fn durations_need_a_known_unit() {
        assert_eq!(duration("1.5s").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration("250us").unwrap(), Duration::from_micros(250));
        assert_eq!(duration("2").unwrap(), Duration::from_secs(2));
        assert!(duration("2 days").is_err() && duration("-1s").is_err());
    }
}

//! The words of a command behind its name: taken one by one, or by `name=value`; what nobody took
//! is an error.

use std::str::FromStr;

use crate::script::Error;
use crate::units::parse_key;

pub(super) struct Arguments<'w> {
    words: Vec<&'w str>,
}

impl<'w> Arguments<'w> {
    pub(super) fn new(words: Vec<&'w str>) -> Self {
        Self { words }
    }

    /// Nothing is left.
    pub(super) fn finish(&self) -> Result<(), Error> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(Error::new(format!("not understood: {word}"))),
        }
    }

    /// The next word, which is `what`.
    pub(super) fn next_parsed<T>(
        &mut self,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Error> {
        if self.words.is_empty() {
            return Err(Error::new(format!("{what} is missing")));
        }
        let word = self.words.remove(0);
        parse(word).ok_or_else(|| Error::new(format!("{what} expected, not {word}")))
    }

    /// The next word if it starts like this.
    pub(super) fn next_if_starts(&mut self, sign: char) -> Option<&'w str> {
        let is_next = self.words.first().is_some_and(|word| word.starts_with(sign));
        is_next.then(|| self.words.remove(0))
    }

    /// The value of `name=value`, if it is there.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let value_of = |word: &'w str| word.strip_prefix(name)?.strip_prefix('=');
        let place = self.words.iter().position(|word| value_of(word).is_some());
        let Some(value) = place.and_then(|place| value_of(self.words.remove(place))) else {
            return Ok(None);
        };
        let parsed = parse(value);
        parsed.map(Some).ok_or_else(|| Error::new(format!("{name} cannot be {value}")))
    }

    /// Replaces a field by the value of `name=value`, if it is there.
    pub(super) fn set<T>(
        &mut self,
        name: &str,
        field: &mut T,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<(), Error> {
        if let Some(value) = self.optional(name, parse)? {
            *field = value;
        }
        Ok(())
    }

    /// As `set`, for what is written as in Rust.
    pub(super) fn set_plain<T: FromStr>(&mut self, name: &str, field: &mut T) -> Result<(), Error> {
        self.set(name, field, |text| text.parse().ok())
    }

    /// The word is there.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let place = self.words.iter().position(|word| *word == name);
        place.is_some_and(|place| self.words.remove(place) == name)
    }

    /// The number of `name=number`.
    pub(super) fn number(&mut self, name: &str) -> Result<u64, Error> {
        let number = self.optional(name, |text| text.parse().ok())?;
        number.ok_or_else(|| Error::new(format!("{name} is missing")))
    }

    /// The key of `name=key`.
    pub(super) fn key(&mut self, name: &str) -> Result<Vec<u8>, Error> {
        let key = self.optional(name, parse_key)?;
        key.ok_or_else(|| Error::new(format!("{name} is missing")))
    }

    /// All words that are left, as numbers.
    pub(super) fn rest_numbers(&mut self) -> Result<Vec<u64>, Error> {
        self.rest("a number", |text| text.parse().ok())
    }

    /// All words that are left, as keys.
    pub(super) fn rest_keys(&mut self) -> Result<Vec<Vec<u8>>, Error> {
        self.rest("a key", parse_key)
    }

    fn rest<T>(&mut self, what: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Error> {
        let mut values = Vec::new();
        while !self.words.is_empty() {
            values.push(self.next_parsed(what, &parse)?);
        }
        Ok(values)
    }
}

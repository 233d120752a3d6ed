//! Whom a fault hits, and since when: a fault may have to wait for its turn before it hits anybody.

use crate::history::Stamp;
use crate::process::clock::Clock;

/// Whom a fault hits.
#[derive(Clone, Debug)]
pub struct Whom {
    clock: Clock,
    /// As a person reads it.
    pub text: String,
    /// Since when it is known.
    pub since: Option<Stamp>,
}

impl Whom {
    /// Nobody yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, text: String::new(), since: None }
    }

    /// It is known whom it hits, and it begins.
    pub fn is(&mut self, text: String) {
        self.since.get_or_insert_with(|| self.clock.now());
        self.text = text;
    }

    /// There is more to say.
    pub fn add(&mut self, text: &str) {
        self.text += text;
    }
}

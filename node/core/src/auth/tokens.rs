//! Simple tokens: which stand for which user on this node, and until when. They are in memory only,
//! and every use puts their end off.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::{Length, Time};

/// Tokens remembered; of more, the one that would end first ends.
pub const TOKENS_MAX: usize = 100_000;

/// The live tokens of a node.
#[derive(Clone, Debug)]
pub struct Tokens {
    lifetime: Length,
    by_text: BTreeMap<String, Token>,
    by_end: BTreeSet<(Time, String)>,
}

#[derive(Clone, Debug)]
struct Token {
    user: String,
    ends: Time,
}

impl Tokens {
    /// None yet. They end when they have not been used for this long.
    pub fn new(lifetime: Length) -> Self {
        Self { lifetime, by_text: BTreeMap::new(), by_end: BTreeSet::new() }
    }

    /// A token that the order has given to a user.
    pub fn add(&mut self, now: Time, token: String, user: String) {
        self.expire(now);
        self.remove(&token);
        while self.by_text.len() >= TOKENS_MAX
            && let Some((_, first)) = self.by_end.first().cloned()
        {
            self.remove(&first);
        }
        let ends = now + self.lifetime;
        self.by_end.insert((ends, token.clone()));
        self.by_text.insert(token, Token { user, ends });
    }

    /// Whose token it is, if it lives. It lives on from here.
    pub fn user(&mut self, now: Time, token: &str) -> Option<String> {
        self.expire(now);
        let found = self.by_text.get_mut(token)?;
        let (before, ends) = (found.ends, now + self.lifetime);
        found.ends = ends;
        let user = found.user.clone();
        self.by_end.remove(&(before, token.to_owned()));
        self.by_end.insert((ends, token.to_owned()));
        Some(user)
    }

    /// Ends the tokens of a user.
    pub fn forget_user(&mut self, user: &str) {
        self.by_text.retain(|_, token| token.user != user);
        let by_text = &self.by_text;
        self.by_end.retain(|(_, token)| by_text.contains_key(token));
    }

    /// Ends all tokens.
    pub fn clear(&mut self) {
        self.by_text.clear();
        self.by_end.clear();
    }

    /// How many live, or have not been found to have ended.
    pub fn len(&self) -> usize {
        self.by_text.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_text.is_empty()
    }

    fn expire(&mut self, now: Time) {
        while let Some((ends, token)) = self.by_end.first().cloned()
            && ends <= now
        {
            self.remove(&token);
        }
    }

    fn remove(&mut self, token: &str) {
        if let Some(removed) = self.by_text.remove(token) {
            self.by_end.remove(&(removed.ends, token.to_owned()));
        }
    }
}

/// A token, from letters that were drawn and the index of the entry that gave it.
pub fn token_text(letters: &str, index: u64) -> String {
    format!("{letters}.{index}")
}

/// The index of the entry that gave a token; `None` if it is no token.
pub fn token_index(token: &str) -> Option<u64> {
    let (letters, index) = token.split_once('.')?;
    let is_well_formed = !letters.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
    if is_well_formed { index.parse().ok() } else { None }
}

//! Simple tokens: who they stand for, and how they end.

use crate::auth::{TOKENS_MAX, Tokens, token_index, token_text};
use crate::time::{Length, Time};

fn at(secs: u64) -> Time {
    Time(secs * 1_000_000)
}

#[test]
fn a_token_lives_as_long_as_it_is_used() {
    let mut tokens = Tokens::new(Length::from_secs(10));
    tokens.add(at(0), "a.1".to_owned(), "alice".to_owned());
    assert_eq!(tokens.user(at(9), "a.1").as_deref(), Some("alice"));
    assert_eq!(tokens.user(at(18), "a.1").as_deref(), Some("alice"), "put off by its use");
    assert_eq!(tokens.user(at(18), "a.2"), None);
    assert_eq!(tokens.user(at(28), "a.1"), None);
    assert!(tokens.is_empty());
}

#[test]
fn the_tokens_of_a_user_end_together() {
    let mut tokens = Tokens::new(Length::from_secs(10));
    for (token, user) in [("a.1", "alice"), ("b.2", "bob"), ("c.3", "alice")] {
        tokens.add(at(0), token.to_owned(), user.to_owned());
    }
    tokens.forget_user("alice");
    assert_eq!(tokens.user(at(1), "a.1"), None);
    assert_eq!(tokens.user(at(1), "c.3"), None);
    assert_eq!(tokens.user(at(1), "b.2").as_deref(), Some("bob"));
    tokens.clear();
    assert_eq!(tokens.user(at(1), "b.2"), None);
}

#[test]
fn there_are_never_too_many() {
    let mut tokens = Tokens::new(Length::from_secs(1_000_000));
    for n in 0..=TOKENS_MAX as u64 {
        tokens.add(at(n), format!("t.{n}"), "u".to_owned());
    }
    assert_eq!(tokens.len(), TOKENS_MAX);
    let now = at(TOKENS_MAX as u64);
    assert_eq!(tokens.user(now, "t.0"), None, "the one that would have ended first");
    assert!(tokens.user(now, "t.1").is_some());
}

#[test]
fn a_token_names_its_entry() {
    assert_eq!(token_index(&token_text("abcd", 12)), Some(12));
    for bad in ["", ".", "abc", "abc.", ".12", "abc.-1", "abc.1.2", "abc.99999999999999999999"] {
        assert_eq!(token_index(bad), None, "{bad:?}");
    }
}

//! Numbers, truth values and durations in the notation of Go's flag package, which is the one
//! etcd's flags are written in. Owns the notation only; never knows what a number is for.

use std::fmt;

/// Why a text is no number. The texts are Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    #[error("parse error")]
    Syntax,
    #[error("value out of range")]
    Range,
}

/// Why a text is no duration, holding the text. The texts are Go's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DurationError {
    Invalid(String),
    MissingUnit(String),
    UnknownUnit(String, String),
}

/// Accepts the twelve spellings of Go's `strconv.ParseBool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Reads a whole number that is not negative: decimal, or with a prefix `0x`, `0o`, `0`, `0b`;
/// single underscores may separate digits.
pub(super) fn parse_unsigned(text: &str) -> Result<u64, NumberError> {
    let (radix, prefixed, digits) = split_prefix(text);
    let mut plain = String::with_capacity(digits.len());
    // A prefix counts as a digit before an underscore, so `0x_ff` is a number and `_1` is none.
    let mut follows_digit = prefixed;
    for c in digits.chars() {
        match c {
            '_' if follows_digit => follows_digit = false,
            _ if c.is_digit(radix) => {
                plain.push(c);
                follows_digit = true;
            }
            _ => return Err(NumberError::Syntax),
        }
    }
    if plain.is_empty() || !follows_digit {
        return Err(NumberError::Syntax);
    }
    u64::from_str_radix(&plain, radix).map_err(|_| NumberError::Range)
}

/// Reads a whole number with an optional sign, in the notation of [`parse_unsigned`].
pub(super) fn parse_signed(text: &str) -> Result<i64, NumberError> {
    let (is_negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let magnitude = i128::from(parse_unsigned(magnitude)?);
    i64::try_from(if is_negative { -magnitude } else { magnitude }).map_err(|_| NumberError::Range)
}

/// Reads a signed sequence of decimal numbers with units, such as `1h30m`, `1.5s` or `-100ms`,
/// into nanoseconds. A bare `0` needs no unit. Source: Go's `time.ParseDuration`.
pub(crate) fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanoseconds: i128 = 0;
    while !rest.is_empty() {
        let (amount, after) = split_at_end_of(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split_at_end_of(after, |c| !c.is_ascii_digit() && c != '.');
        let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let unit_nanoseconds = nanoseconds_of(unit)
            .ok_or_else(|| DurationError::UnknownUnit(unit.to_owned(), text.to_owned()))?;
        nanoseconds += scale(whole, fraction, unit_nanoseconds).ok_or_else(invalid)?;
        if nanoseconds > 1 << 63 {
            return Err(invalid());
        }
        rest = after;
    }
    i64::try_from(if is_negative { -nanoseconds } else { nanoseconds }).map_err(|_| invalid())
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DurationError::Invalid(text) => write!(f, "time: invalid duration {text:?}"),
            DurationError::MissingUnit(text) => {
                write!(f, "time: missing unit in duration {text:?}")
            }
            DurationError::UnknownUnit(unit, text) => {
                write!(f, "time: unknown unit {unit:?} in duration {text:?}")
            }
        }
    }
}

/// The radix a prefix stands for, whether there was one, and the digits behind it.
fn split_prefix(text: &str) -> (u32, bool, &str) {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.get(1)) {
        (Some(b'0'), Some(b'x' | b'X')) => (16, true, &text[2..]),
        (Some(b'0'), Some(b'o' | b'O')) => (8, true, &text[2..]),
        (Some(b'0'), Some(b'b' | b'B')) => (2, true, &text[2..]),
        (Some(b'0'), Some(_)) => (8, true, &text[1..]),
        _ => (10, false, text),
    }
}

fn split_at_end_of(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

fn nanoseconds_of(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        // Both characters that are written for micro: U+00B5 and U+03BC.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// `whole.fraction` units in nanoseconds, rounded towards zero. None when out of any range.
fn scale(whole: &str, fraction: &str, unit_nanoseconds: i128) -> Option<i128> {
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // No unit has more than 13 digits of nanoseconds: digits beyond 18 cannot change the result.
    let fraction = &fraction[..fraction.len().min(18)];
    let numerator: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = unit_nanoseconds * numerator / 10_i128.pow(fraction.len() as u32);
    whole.checked_mul(unit_nanoseconds).map(|whole| whole + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_read_as_go_reads_them() {
        let good = [("0", 0), ("42", 42), ("0x1F", 31), ("0b101", 5), ("0o17", 15), ("017", 15)];
        for (text, number) in good {
            assert_eq!(parse_unsigned(text), Ok(number), "{text}");
        }
        assert_eq!(parse_unsigned("1_000"), Ok(1000));
        assert_eq!(parse_unsigned("0x_ff"), Ok(255));
        assert_eq!(parse_unsigned("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse_unsigned("18446744073709551616"), Err(NumberError::Range));
        for text in ["", "-1", "+1", "x", "1 ", "08", "0x", "1__0", "1_", "_1", "1.5", "0b2"] {
            assert_eq!(parse_unsigned(text), Err(NumberError::Syntax), "{text}");
        }
    }

    #[test]
    fn signed_numbers_reach_both_ends() {
        assert_eq!(parse_signed("-0x10"), Ok(-16));
        assert_eq!(parse_signed("+7"), Ok(7));
        assert_eq!(parse_signed("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_signed("9223372036854775808"), Err(NumberError::Range));
        for text in ["--1", "", "-", "+-1"] {
            assert_eq!(parse_signed(text), Err(NumberError::Syntax), "{text}");
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        let good = [
            ("0", 0),
            ("-0", 0),
            ("5s", 5_000_000_000),
            ("100ms", 100_000_000),
            ("1h30m", 5_400_000_000_000),
            ("2h0m0s", 7_200_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("-1m", -60_000_000_000),
            ("+3us", 3_000),
            ("3\u{b5}s", 3_000),
            ("3\u{3bc}s", 3_000),
            ("7ns", 7),
            ("0.9ns", 0),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ];
        for (text, nanoseconds) in good {
            assert_eq!(parse_duration(text), Ok(nanoseconds), "{text}");
        }
        let bad = [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            (".s", "time: invalid duration \".s\""),
            ("1.2.3s", "time: invalid duration \"1.2.3s\""),
            ("-5", "time: missing unit in duration \"-5\""),
            ("5", "time: missing unit in duration \"5\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
            (
                "99999999999999999999999999999999999999999h",
                "time: invalid duration \"99999999999999999999999999999999999999999h\"",
            ),
        ];
        for (text, error) in bad {
            assert_eq!(parse_duration(text).expect_err(text).to_string(), error);
        }
    }
}

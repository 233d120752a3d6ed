//! Numbers, times and keys as an operator reads and writes them.

use std::fmt;

const BYTE_UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const TIME_UNITS: [(&str, u64); 4] = [("ms", 1), ("min", 60_000), ("h", 3_600_000), ("s", 1_000)];

/// An amount of bytes: `300 MiB`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((name, unit)) = BYTE_UNITS.iter().find(|(_, unit)| self.0 >= *unit) else {
            return write!(out, "{} B", self.0);
        };
        // Tenths, but not where they are none.
        let tenths = u128::from(self.0) * 10 / u128::from(*unit);
        match tenths % 10 {
            0 => write!(out, "{} {name}", tenths / 10),
            tenth => write!(out, "{}.{tenth} {name}", tenths / 10),
        }
    }
}

/// A time in milliseconds: `45 s`.
#[derive(Clone, Copy, Debug)]
pub struct Millis(pub u64);

impl fmt::Display for Millis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000 => write!(out, "{} ms", self.0),
            1_000..600_000 => write!(out, "{} s", self.0 / 1_000),
            600_000..36_000_000 => write!(out, "{} min", self.0 / 60_000),
            36_000_000.. => write!(out, "{} h", self.0 / 3_600_000),
        }
    }
}

/// A key: what can be printed as it is, the rest as `\xNN`, and so are the signs that have a
/// meaning in scripts.
#[derive(Clone, Copy, Debug)]
pub struct Key<'k>(pub &'k [u8]);

impl fmt::Display for Key<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            if byte.is_ascii_graphic() && !b"\\,)#".contains(byte) {
                write!(out, "{}", char::from(*byte))?;
            } else {
                write!(out, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// A span of keys: `[b,c)`.
#[derive(Clone, Copy, Debug)]
pub struct Span<'k>(pub &'k [u8], pub &'k [u8]);

impl fmt::Display for Span<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "[{},{})", Key(self.0), Key(self.1))
    }
}

/// Ids of nodes or ranges: `1,2,3`.
#[derive(Clone, Copy, Debug)]
pub struct Ids<'n>(pub &'n [u64]);

impl fmt::Display for Ids<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, id) in self.0.iter().enumerate() {
            write!(out, "{}{id}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// `300MiB`, `1GiB`, `17`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    parse_unit(text, &BYTE_UNITS)
}

/// `45s`, `10min`, `250ms`, `2h`, `17` (milliseconds).
pub fn parse_millis(text: &str) -> Option<u64> {
    parse_unit(text, &TIME_UNITS)
}

fn parse_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    for (name, unit) in units {
        if let Some(number) = text.strip_suffix(name) {
            return number.parse::<u64>().ok()?.checked_mul(*unit);
        }
    }
    text.parse().ok()
}

/// What `Key` prints.
pub fn parse_key(text: &str) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte == b'\\' {
            let digits = tail.strip_prefix(b"x")?.get(..2)?;
            key.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &tail[3..];
        } else {
            key.push(*byte);
        }
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_in_the_unit_that_fits() {
        let bytes = [17, 300 << 20, (3 << 30) / 2].map(|bytes| Bytes(bytes).to_string());
        assert_eq!(bytes, ["17 B", "300 MiB", "1.5 GiB"]);
        let times = [5, 45_000, 1_800_000, 90_000_000].map(|ms| Millis(ms).to_string());
        assert_eq!(times, ["5 ms", "45 s", "30 min", "25 h"]);
        assert_eq!(Ids(&[1, 20, 3]).to_string(), "1,20,3");
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(parse_bytes("300MiB"), Some(300 << 20));
        assert_eq!(parse_bytes("17"), Some(17));
        assert_eq!(parse_bytes("99999999TiB"), None, "it does not fit");
        assert_eq!((parse_millis("45s"), parse_millis("5ms")), (Some(45_000), Some(5)));
        for key in [&b"b/c"[..], b"", b"a,b)\\\xff\x00 "] {
            assert_eq!(parse_key(&Key(key).to_string()).as_deref(), Some(key));
        }
        assert_eq!((parse_key("\\x0"), parse_key("\\y00"), parse_key("\\xzz")), (None, None, None));
    }
}

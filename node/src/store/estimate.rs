//! About how much a part of the store holds, without reading it.

/// What is in a column as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Bytes of its files.
    pub files_bytes: u64,
    /// Rows in them, with those that were overwritten and not merged away yet.
    pub rows: u64,
    /// Bytes of these rows before they were compressed.
    pub rows_bytes: u64,
    /// Bytes in memory that are in no file yet.
    pub memory_bytes: u64,
    /// Rows there.
    pub memory_rows: u64,
}

/// What the files hold of a span, by the share of their bytes that it takes: exact to a block or
/// two at either end, and to what lies in wait to be merged. Nothing of what is only in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Bytes of rows, not compressed.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
}

impl Estimate {
    /// For a span that takes so many bytes of the files.
    pub(super) fn of(files_bytes: u64, contents: &Contents) -> Self {
        let share = |of: u64| {
            let all = u128::from(contents.files_bytes.max(1));
            let share = u128::from(of) * u128::from(files_bytes.min(contents.files_bytes)) / all;
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        Self { bytes: share(contents.rows_bytes), rows: share(contents.rows) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_its_share_of_what_the_files_hold() {
        let contents =
            Contents { files_bytes: 1_000, rows: 100, rows_bytes: 4_000, ..Contents::default() };
        assert_eq!(Estimate::of(250, &contents), Estimate { bytes: 1_000, rows: 25 });
        assert_eq!(Estimate::of(2_000, &contents), Estimate { bytes: 4_000, rows: 100 });
        assert_eq!(Estimate::of(10, &Contents::default()), Estimate::default());
    }
}

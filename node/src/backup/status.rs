//! What is in a backup, as etcd's own tool tells it.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context;
use flotilla_core::image::schema;

use super::arguments::Format;
use super::file::{self, Hash};

/// The same numbers as those of `etcdutl snapshot status`.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    hash: u32,
    revision: i64,
    total_key: u64,
    total_size: u64,
}

/// Checks a backup: its hash, if it has one, and every page and row.
pub(super) fn status(path: &Path, format: Format) -> anyhow::Result<String> {
    let (reader, _) = file::open(path, Hash::IfPresent)?;
    let in_file = || path.display().to_string();
    let mut status = Status { hash: 0, revision: 0, total_key: 0, total_size: reader.size() };
    for bucket in reader.buckets().with_context(in_file)? {
        status.hash = crc32c::crc32c_append(status.hash, &bucket);
        reader
            .visit(&bucket, &mut |key, value| {
                status.hash = crc32c::crc32c_append(status.hash, key);
                status.hash = crc32c::crc32c_append(status.hash, value);
                status.total_key += 1;
                ControlFlow::Continue(())
            })
            .with_context(in_file)?;
    }
    schema::facts(&reader).with_context(in_file)?;
    schema::visit_changes(&reader, &mut |change| {
        status.revision = change.revision.main;
        ControlFlow::Continue(())
    })
    .with_context(in_file)?;
    show(&status, format)
}

fn show(status: &Status, format: Format) -> anyhow::Result<String> {
    let size = human(status.total_size);
    let cells = [
        format!("{:x}", status.hash),
        status.revision.to_string(),
        status.total_key.to_string(),
        size,
    ];
    Ok(match format {
        Format::Simple => format!("{}\n", cells.join(", ")),
        Format::Json => format!("{}\n", serde_json::to_string(status)?),
        Format::Table => table(&cells),
    })
}

fn table(cells: &[String; 4]) -> String {
    const TITLES: [&str; 4] = ["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE"];
    let widths: Vec<usize> =
        TITLES.iter().zip(cells).map(|(title, cell)| title.len().max(cell.len()) + 2).collect();
    let line = |left: &str, middle: &str, right: &str| {
        let bars: Vec<String> = widths.iter().map(|width| "─".repeat(*width)).collect();
        format!("{left}{}{right}\n", bars.join(middle))
    };
    let titles: Vec<String> =
        TITLES.iter().zip(&widths).map(|(it, width)| format!("{it:^width$}")).collect();
    let row: Vec<String> = cells
        .iter()
        .zip(&widths)
        .map(|(it, width)| format!("{it:>width$} ", width = width - 1))
        .collect();
    let rows = [titles, row].map(|cells| format!("│{}│\n", cells.join("│")));
    let [titles, row] = rows;
    line("┌", "┬", "┐") + &titles + &line("├", "┼", "┤") + &row + &line("└", "┴", "┘")
}

/// In units of a thousand, with a digit behind the point below ten of them.
pub(super) fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let (mut unit, mut size) = (1_u128, 0);
    while u128::from(bytes) >= unit * 1000 {
        unit *= 1000;
        size += 1;
    }
    let tenths = (u128::from(bytes) * 10 + unit / 2) / unit;
    if tenths < 100 && size > 0 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[size])
    } else {
        // Halves go to the even neighbour, as etcd's tool has it.
        let (whole, rest) = (tenths / 10, tenths % 10);
        let is_up = rest > 5 || (rest == 5 && whole % 2 == 1);
        format!("{} {}", whole + u128::from(is_up), UNITS[size])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As etcdutl 3.5.30 prints the status of one and the same file.
    #[test]
    fn a_status_is_printed_as_etcd_prints_it() {
        let status = Status { hash: 0xe908_2b62, revision: 5, total_key: 14, total_size: 20_480 };
        assert_eq!(show(&status, Format::Simple).unwrap(), "e9082b62, 5, 14, 20 kB\n");
        let json = "{\"hash\":3909626722,\"revision\":5,\"totalKey\":14,\"totalSize\":20480}\n";
        assert_eq!(show(&status, Format::Json).unwrap(), json);
        let table = "\
┌──────────┬──────────┬────────────┬────────────┐
│   HASH   │ REVISION │ TOTAL KEYS │ TOTAL SIZE │
├──────────┼──────────┼────────────┼────────────┤
│ e9082b62 │        5 │         14 │      20 kB │
└──────────┴──────────┴────────────┴────────────┘
";
        assert_eq!(show(&status, Format::Table).unwrap(), table);
    }

    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (8_192, "8.2 kB"),
            (20_480, "20 kB"),
            (24_576, "25 kB"),
            (2_097_152, "2.1 MB"),
            (9_960_000, "10 MB"),
            (8_589_934_592, "8.6 GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
    }
}

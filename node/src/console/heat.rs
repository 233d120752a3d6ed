//! `/api/heat`: what each part of the keyspace was asked for, over the last half an hour.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;

use super::collect::Picture;
use super::history::History;
use super::keyspace::{groups, pieces, shown};
use super::{HEAT_ROWS_MAX, LOOK_EVERY, SAMPLES_MAX};

/// Rows are spans of keys in their order; columns are moments, the oldest first. A cell is the load of all
/// ranges that had some of the row's keys at that moment.
#[derive(Debug, Serialize)]
pub(super) struct Heat {
    /// Between two columns, about.
    sample_every_ms: u64,
    /// Columns that are kept.
    columns_max: usize,
    rows: Vec<Row>,
    columns: Vec<Column>,
}

/// Of the ranges there are now. Keys are escaped.
#[derive(Debug, Serialize)]
struct Row {
    from: String,
    /// `null`: there is no later key.
    to: Option<String>,
    /// `null`: of several.
    range: Option<u64>,
    ranges_count: usize,
}

#[derive(Debug, Serialize)]
struct Column {
    /// Milliseconds since 1970.
    time_ms: u64,
    /// Of each row; `null` if the leader was not reached then.
    writes_per_second: Option<Vec<u64>>,
    reads_per_second: Option<Vec<u64>>,
}

impl Heat {
    pub(super) fn of(picture: &Picture, history: &Mutex<History>) -> Self {
        let ranges = &picture.notice.ranges;
        let pieces = pieces(ranges);
        let (mut rows, mut spans): (Vec<Row>, Vec<(Bytes, Option<Bytes>)>) = Default::default();
        for group in groups(pieces.len(), HEAT_ROWS_MAX) {
            let (first, last) = (&pieces[group.start], &pieces[group.end - 1]);
            rows.push(Row {
                from: shown(&first.start),
                to: last.end.as_deref().map(shown),
                range: Some(ranges[first.at].range).filter(|_| group.len() == 1),
                ranges_count: group.len(),
            });
            spans.push((first.start.clone(), last.end.clone()));
        }
        let history = history.lock().unwrap_or_else(PoisonError::into_inner);
        let columns = history.columns(&spans).into_iter().map(|(time_ms, loads)| Column {
            time_ms,
            writes_per_second: loads
                .as_ref()
                .map(|loads| loads.iter().map(|load| load.writes_per_second).collect()),
            reads_per_second: loads
                .as_ref()
                .map(|loads| loads.iter().map(|load| load.reads_per_second).collect()),
        });
        Self {
            sample_every_ms: u64::try_from(LOOK_EVERY.as_millis()).unwrap_or(u64::MAX),
            columns_max: SAMPLES_MAX,
            columns: columns.collect(),
            rows,
        }
    }
}

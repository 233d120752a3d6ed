//! `/api/map` and `/api/ranges`: who holds and leads which keys, as a strip of cells of one or more ranges,
//! and as a table.

use std::collections::BTreeSet;
use std::ops::Range;

use flotilla_core::proto::internal::{RangeInfo, RangeSurvey};
use serde::Serialize;

use super::cluster::Named;
use super::collect::Picture;
use super::keyspace::{Piece, groups, pieces, shown};
use super::refusal::Refusal;
use super::{CELLS_MAX, ROWS_MAX, SPANS_TOLD_MAX};

/// `/api/map`. Cells are in the order of keys; together they are the whole keyspace.
#[derive(Debug, Serialize)]
pub(super) struct Map {
    /// In the order of names. Cells speak of them by their place here.
    members: Vec<Named>,
    ranges_count: usize,
    is_surveyed: bool,
    cells: Vec<Cell>,
}

/// One range, or several neighbours. Keys are escaped.
#[derive(Debug, Serialize)]
struct Cell {
    from: String,
    /// `null`: there is no later key.
    to: Option<String>,
    /// `null`: of several.
    range: Option<u64>,
    ranges_count: usize,
    /// Where the first of them is in `/api/ranges`.
    first: usize,
    /// For each member: how many of the ranges it holds, and how many of these it leads.
    held: Vec<usize>,
    led: Vec<usize>,
    leaderless_count: usize,
    changing_count: usize,
    /// Sums of all ranges of the cell, and the greatest lag; `null` if the leader is not reached.
    survey: Option<Figures>,
    /// Of a single range.
    generation: Option<u64>,
    parent: Option<u64>,
}

/// What the leader of a range tells of it. Rates are smoothed over about a minute.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    bytes: u64,
    keys: u64,
    /// Bytes and keys were counted, not estimated.
    is_counted: bool,
    writes_per_second: u64,
    write_bytes_per_second: u64,
    reads_per_second: u64,
    /// What the replica lacks that is furthest behind.
    lag_entries: u64,
}

impl Figures {
    fn of(survey: &RangeSurvey) -> Self {
        Self {
            bytes: survey.bytes,
            keys: survey.keys,
            is_counted: survey.is_counted,
            writes_per_second: survey.writes_per_second,
            write_bytes_per_second: survey.write_bytes_per_second,
            reads_per_second: survey.reads_per_second,
            lag_entries: survey.lag_entries,
        }
    }

    fn with(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            keys: self.keys.saturating_add(other.keys),
            is_counted: self.is_counted && other.is_counted,
            writes_per_second: self.writes_per_second.saturating_add(other.writes_per_second),
            write_bytes_per_second: self
                .write_bytes_per_second
                .saturating_add(other.write_bytes_per_second),
            reads_per_second: self.reads_per_second.saturating_add(other.reads_per_second),
            lag_entries: self.lag_entries.max(other.lag_entries),
        }
    }
}

fn figures(picture: &Picture, range: u64) -> Option<Figures> {
    Some(Figures::of(picture.survey.as_ref()?.ranges.get(&range)?))
}

impl Map {
    pub(super) fn of(picture: &Picture) -> Self {
        let ranges = &picture.notice.ranges;
        let mut members: Vec<u64> = picture.notice.members.iter().map(|member| member.id).collect();
        let name = |id: u64| Named::of(picture, id);
        members.sort_by_cached_key(|id| (name(*id).name, *id));
        let pieces = pieces(ranges);
        let cell = |group: Range<usize>| Cell::of(picture, &members, &pieces[group]);
        Self {
            cells: groups(pieces.len(), CELLS_MAX).map(cell).collect(),
            ranges_count: ranges.len(),
            is_surveyed: picture.survey.is_some(),
            members: members.into_iter().map(name).collect(),
        }
    }
}

impl Cell {
    fn of(picture: &Picture, members: &[u64], pieces: &[Piece]) -> Self {
        let table = &picture.notice.ranges;
        let places: BTreeSet<usize> = pieces.iter().map(|piece| piece.at).collect();
        let ranges: Vec<&RangeInfo> = places.iter().map(|at| &table[*at]).collect();
        let count = |is: &dyn Fn(&RangeInfo) -> bool| ranges.iter().filter(|it| is(it)).count();
        let of_members = |is: &dyn Fn(&RangeInfo, u64) -> bool| {
            members.iter().map(|id| count(&|range| is(range, *id))).collect()
        };
        let single = ranges.first().filter(|_| ranges.len() == 1);
        let told = ranges.iter().filter_map(|range| figures(picture, range.range));
        Self {
            from: pieces.first().map(|piece| shown(&piece.start)).unwrap_or_default(),
            to: pieces.last().and_then(|piece| piece.end.as_deref()).map(shown),
            range: single.map(|range| range.range),
            ranges_count: ranges.len(),
            first: places.first().copied().unwrap_or_default(),
            held: of_members(&|range, id| range.replicas.contains(&id)),
            led: of_members(&|range, id| range.leader == id),
            leaderless_count: count(&|range| range.leader == 0),
            changing_count: count(&|range| range.is_changing),
            survey: told.reduce(Figures::with),
            generation: single.map(|range| range.generation),
            parent: single.map(|range| range.parent),
        }
    }
}

/// Which rows of `/api/ranges` are asked for: `order=key` (the default) or `order=load`, and the number
/// of the first, `first=N`, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    is_by_load: bool,
    first: usize,
}

impl Page {
    /// By the part of an address behind the question mark.
    ///
    /// # Errors
    /// `BadQuery`.
    pub(super) fn read(query: &str) -> Result<Self, Refusal> {
        let mut page = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let bad = |name, wanted| Refusal::BadQuery { name, given: value.to_owned(), wanted };
            match name {
                "order" => match value {
                    "key" => page.is_by_load = false,
                    "load" => page.is_by_load = true,
                    _ => return Err(bad("order", "key or load")),
                },
                "first" => page.first = value.parse().map_err(|_| bad("first", "a number"))?,
                _ => {}
            }
        }
        Ok(page)
    }
}

/// `/api/ranges`: a table of ranges in the order of keys, range 0 last, or those with most load first.
#[derive(Debug, Serialize)]
pub(super) struct Ranges {
    ranges: Vec<RangeRow>,
    /// The number of the first.
    first: usize,
    ranges_count: usize,
    /// Rows of an answer, at most.
    rows_max: usize,
    /// Ranges behind those that are told of.
    more: usize,
    is_surveyed: bool,
}

#[derive(Debug, Serialize)]
struct RangeRow {
    range: u64,
    /// Keys from the first on, before the second if it is not `null`. Range 0, which has what others
    /// leave, may have several of them.
    spans: Vec<(String, Option<String>)>,
    /// Spans that are left out.
    spans_more: usize,
    leader: Option<Named>,
    replicas: Vec<Named>,
    /// Its leader is still seeing to it that these have it, and nobody else.
    is_changing: bool,
    /// The range it was split off; 0: of the founding, or off range 0.
    parent: u64,
    /// Counts changes of the span.
    generation: u64,
    /// Writes so far; not kept for range 0.
    writes: u64,
    survey: Option<Figures>,
}

impl Ranges {
    pub(super) fn of(picture: &Picture, page: Page) -> Self {
        let table = &picture.notice.ranges;
        let mut order: Vec<usize> = (0..table.len()).collect();
        if page.is_by_load {
            let load = |at: &usize| {
                let told = figures(picture, table[*at].range);
                told.map_or(0, |it| it.writes_per_second.saturating_add(it.reads_per_second))
            };
            order.sort_by_cached_key(|at| (std::cmp::Reverse(load(at)), *at));
        }
        let pieces = pieces(table);
        let first = page.first.min(table.len());
        let rows = order.into_iter().skip(first).take(ROWS_MAX);
        let rows: Vec<RangeRow> = rows.map(|at| RangeRow::of(picture, &pieces, at)).collect();
        Self {
            first,
            ranges_count: table.len(),
            rows_max: ROWS_MAX,
            more: table.len() - first - rows.len(),
            is_surveyed: picture.survey.is_some(),
            ranges: rows,
        }
    }
}

impl RangeRow {
    fn of(picture: &Picture, pieces: &[Piece], at: usize) -> Self {
        let range = &picture.notice.ranges[at];
        let mut spans: Vec<(String, Option<String>)> = match range.range {
            0 => pieces
                .iter()
                .filter(|piece| piece.at == at)
                .map(|piece| (shown(&piece.start), piece.end.as_deref().map(shown)))
                .collect(),
            _ => {
                let end = Some(&range.end).filter(|end| !end.is_empty());
                vec![(shown(&range.start), end.map(|end| shown(end)))]
            }
        };
        let spans_more = spans.len().saturating_sub(SPANS_TOLD_MAX);
        spans.truncate(SPANS_TOLD_MAX);
        let leader = Some(range.leader).filter(|leader| *leader != 0);
        Self {
            range: range.range,
            spans,
            spans_more,
            leader: leader.map(|leader| Named::of(picture, leader)),
            replicas: range.replicas.iter().map(|id| Named::of(picture, *id)).collect(),
            is_changing: range.is_changing,
            parent: range.parent,
            generation: range.generation,
            writes: range.writes,
            survey: figures(picture, range.range),
        }
    }
}

//! Reads: of one key, of lists, of counts, and a mix with writes.

use super::{Fill, Parameters, Plan, Source};
use crate::keys::{Keyspace, ValueLength};
use crate::operation::{Op, Span, end_of};
use crate::random::Random;

/// Of a hundred requests of the mix, so many are reads.
const MIXED_READS: u64 = 90;

struct Get {
    keyspace: Keyspace,
    is_serializable: bool,
    turn: u64,
}

impl Source for Get {
    fn next(&mut self, random: &mut Random) -> Op {
        self.turn += 1;
        let key = self.keyspace.key(self.keyspace.draw(self.turn, random));
        Op::Get { key, is_serializable: self.is_serializable }
    }
}

/// Reads of single keys.
pub(super) fn get(parameters: &Parameters, is_serializable: bool) -> anyhow::Result<Plan> {
    let keyspace = parameters.keyspace()?;
    let fill = vec![Fill { keyspace: keyspace.clone(), value: parameters.value }];
    let name = if is_serializable { "get-serializable" } else { "get" };
    Ok(Plan::new(name, fill, move |slot| Get {
        keyspace: keyspace.clone(),
        is_serializable,
        turn: slot as u64,
    }))
}

struct Mixed {
    get: Get,
    value: ValueLength,
}

impl Source for Mixed {
    fn next(&mut self, random: &mut Random) -> Op {
        match self.get.next(random) {
            Op::Get { key, .. } if random.below(100) >= MIXED_READS => {
                Op::Put { key, value_bytes: self.value.draw(random), lease: 0 }
            }
            op => op,
        }
    }
}

/// Nine reads to one write.
pub(super) fn mixed(parameters: &Parameters) -> anyhow::Result<Plan> {
    let (keyspace, value) = (parameters.keyspace()?, parameters.value);
    let fill = vec![Fill { keyspace: keyspace.clone(), value }];
    Ok(Plan::new("mixed", fill, move |slot| Mixed {
        get: Get { keyspace: keyspace.clone(), is_serializable: false, turn: slot as u64 },
        value,
    }))
}

struct Same(Op);

impl Source for Same {
    fn next(&mut self, _random: &mut Random) -> Op {
        self.0.clone()
    }
}

/// The prefix as a span, and the keys it needs. It lies apart from other workloads' keys, so that
/// the count is known.
fn listed(parameters: &Parameters) -> anyhow::Result<(Span, Vec<Fill>)> {
    let mut keyspace = parameters.keyspace()?;
    keyspace.prefix = format!("{}list-{}/", keyspace.prefix, keyspace.count);
    let expected_count = i64::try_from(keyspace.count)?;
    let span = Span { expected_count: Some(expected_count), ..Span::prefix(&keyspace.prefix) };
    Ok((span, vec![Fill { keyspace, value: parameters.value }]))
}

/// Lists of the first keys of the prefix.
pub(super) fn list(parameters: &Parameters) -> anyhow::Result<Plan> {
    let (span, fill) = listed(parameters)?;
    let op = Op::List(Span { limit: parameters.limit, ..span });
    Ok(Plan::new("list", fill, move |_| Same(op.clone())))
}

/// Lists of the whole prefix.
pub(super) fn list_all(parameters: &Parameters) -> anyhow::Result<Plan> {
    let (span, fill) = listed(parameters)?;
    Ok(Plan::new("list-all", fill, move |_| Same(Op::List(span.clone()))))
}

/// Streams of the whole prefix.
pub(super) fn list_stream(parameters: &Parameters) -> anyhow::Result<Plan> {
    let (span, fill) = listed(parameters)?;
    Ok(Plan::new("list-stream", fill, move |_| Same(Op::ListStream(span.clone()))))
}

/// Counts of the whole prefix.
pub(super) fn count(parameters: &Parameters) -> anyhow::Result<Plan> {
    let (span, fill) = listed(parameters)?;
    debug_assert_eq!(span.end, end_of(std::str::from_utf8(&span.key)?));
    Ok(Plan::new("count", fill, move |_| Same(Op::Count(span.clone()))))
}

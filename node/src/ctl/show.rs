//! Answers as tables and sentences for a terminal.

use std::collections::BTreeMap;

use flotilla_placement::units::{Bytes, Millis};
use flotilla_proto::internal::{
    Decision, DecisionsResponse, RangeInfo, RangeListResponse, RangeSurvey,
};

use crate::calendar;

/// Decisions that are told of one range.
const TOLD_OF_RANGE_MAX: usize = 5;

/// What is said of sizes where the asked node cannot know them.
pub(super) fn missing(is_surveyed: bool) -> &'static str {
    if is_surveyed {
        ""
    } else {
        "(sizes and load are known to the leader, which cannot be reached from here)\n"
    }
}

/// What is said of complaints, likewise.
pub(super) fn unasked(is_surveyed: bool) -> &'static str {
    if is_surveyed {
        ""
    } else {
        "(what cannot be helped is known to the leader, which cannot be reached from here)\n"
    }
}

pub(super) fn ranges(list: &RangeListResponse) -> String {
    let head = [
        "RANGE", "FROM", "TO", "LEADER", "REPLICAS", "SIZE", "KEYS", "WRITES/S", "BYTES/S",
        "READS/S", "LAG",
    ];
    let names = Names::of(list);
    let rows = list.ranges.iter().map(|range| {
        let (from, to) = match range.range {
            0 => ("what no other has".to_owned(), String::new()),
            _ => (shown(&range.start), end_of(range)),
        };
        let [bytes, keys, writes, write_bytes, reads, lag] = measures(range.survey.as_ref());
        let id = range.range.to_string();
        let (leader, replicas) = (names.leader(range), names.holders(range));
        vec![id, from, to, leader, replicas, bytes, keys, writes, write_bytes, reads, lag]
    });
    table(&head, rows)
}

/// A size that was not counted is marked.
fn measures(survey: Option<&RangeSurvey>) -> [String; 6] {
    let Some(survey) = survey else { return Default::default() };
    let about = if survey.is_counted { "" } else { "~" };
    [
        format!("{about}{}", Bytes(survey.bytes)),
        format!("{about}{}", survey.keys),
        survey.writes_per_second.to_string(),
        Bytes(survey.write_bytes_per_second).to_string(),
        survey.reads_per_second.to_string(),
        survey.lag_entries.to_string(),
    ]
}

pub(super) fn nodes(list: &RangeListResponse) -> String {
    let head = ["NODE", "NAME", "ZONE", "LEADS", "USED", "OF", "REQUESTS/S", "WRITES", "STATE"];
    let rows = list.nodes.iter().map(|node| {
        let drained = if node.is_draining { "drained, " } else { "" };
        if !list.is_surveyed {
            let mut row = vec![format!("{:x}", node.node), node.name.clone()];
            row.resize(head.len() - 1, String::new());
            row.push(drained.trim_end_matches(", ").to_owned());
            return row;
        }
        let silent = Millis(node.silent_ms);
        vec![
            format!("{:x}", node.node),
            node.name.clone(),
            node.zone.clone(),
            node.led.to_string(),
            Bytes(node.used_bytes).to_string(),
            Bytes(node.capacity_bytes).to_string(),
            node.requests_per_second.to_string(),
            format!("{}/s", Bytes(node.write_bytes_per_second)),
            format!("{drained}heard of {silent} ago"),
        ]
    });
    table(&head, rows)
}

pub(super) fn decisions(known: &DecisionsResponse) -> String {
    let mut text = String::new();
    for decision in &known.decisions {
        text.push_str(&line(decision));
    }
    for complaint in &known.complaints {
        text.push_str(&format!("! {}: {}\n", complaint.about, complaint.reason));
    }
    text
}

fn line(decision: &Decision) -> String {
    let outcome = match decision.outcome.as_str() {
        "" => "under way",
        outcome => outcome,
    };
    let Decision { time_ms, step, rule, reason, .. } = decision;
    format!("{}  {step}  [{rule}] {reason}: {outcome}\n", calendar::moment(*time_ms / 1_000, None))
}

pub(super) fn explain(list: &RangeListResponse, decisions: &[Decision], key: &str) -> String {
    let (ranges, names, key) = (&list.ranges, Names::of(list), key.as_bytes());
    let owns = |range: &&RangeInfo| {
        range.range != 0
            && range.start[..] <= *key
            && (range.end.is_empty() || *key < range.end[..])
    };
    let root = ranges.iter().find(|range| range.range == 0);
    let Some(range) = ranges.iter().find(owns).or(root) else {
        return "no range is known\n".to_owned();
    };
    let mut text = if range.range == 0 {
        "range 0, which the spine carries: no other range has the key\n".to_owned()
    } else {
        let (from, to) = (shown(&range.start), end_of(range));
        format!("range {}: keys from {from} to {to}\n", range.range)
    };
    let replicas = names.holders(range);
    text.push_str(&format!("led by {}, replicas on {replicas}\n", names.leader(range)));
    if range.range != 0 {
        text.push_str(&format!("{} writes so far\n", range.writes));
        text.push_str(&match range.parent {
            0 => "split off range 0, or made when the cluster was founded\n".to_owned(),
            parent => format!("split off range {parent}\n"),
        });
    }
    if let Some(survey) = &range.survey {
        let [bytes, keys, writes, write_bytes, reads, _] = measures(Some(survey));
        text.push_str(&format!(
            "{keys} keys, {bytes}; {writes} writes/s of {write_bytes}/s, {reads} reads/s\n"
        ));
    }
    let start = format!("key={}", flotilla_placement::units::Key(&range.start));
    let is_birth = |it: &&Decision| {
        range.range != 0
            && it.ranges == [range.parent]
            && it.step.starts_with("split ")
            && it.step.ends_with(&start)
    };
    let of_range = |it: &&Decision| it.ranges.contains(&range.range) || is_birth(it);
    let told: Vec<&Decision> = decisions.iter().filter(of_range).collect();
    for decision in &told[told.len().saturating_sub(TOLD_OF_RANGE_MAX)..] {
        text.push_str(&line(decision));
    }
    text
}

pub(super) fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut all = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|it| width(it).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in all {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// What people call the members: names where they tell them apart, else ids.
struct Names<'a>(BTreeMap<u64, &'a str>);

impl<'a> Names<'a> {
    fn of(list: &'a RangeListResponse) -> Self {
        let is_unique = |name: &str| {
            !name.is_empty() && list.nodes.iter().filter(|other| other.name == name).count() == 1
        };
        let named = list.nodes.iter().filter(|node| is_unique(&node.name));
        Self(named.map(|node| (node.node, node.name.as_str())).collect())
    }

    fn one(&self, node: u64) -> String {
        self.0.get(&node).map_or_else(|| format!("{node:x}"), |name| (*name).to_owned())
    }

    fn leader(&self, range: &RangeInfo) -> String {
        if range.leader == 0 { "unknown".to_owned() } else { self.one(range.leader) }
    }

    /// With a mark while they are not yet, or not only they.
    fn holders(&self, range: &RangeInfo) -> String {
        let mark = if range.is_changing { " (changing)" } else { "" };
        self.all(&range.replicas) + mark
    }

    fn all(&self, nodes: &[u64]) -> String {
        nodes.iter().map(|node| self.one(*node)).collect::<Vec<_>>().join(",")
    }
}

fn end_of(range: &RangeInfo) -> String {
    if range.end.is_empty() { "the end".to_owned() } else { shown(&range.end) }
}

/// Keys are bytes; what is not printable is escaped.
fn shown(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use flotilla_proto::internal::NodeInfo;

    use super::*;

    fn some_ranges() -> RangeListResponse {
        let survey = RangeSurvey {
            bytes: 3 << 20,
            keys: 90,
            is_counted: true,
            writes_per_second: 4,
            write_bytes_per_second: 512,
            reads_per_second: 6,
            lag_entries: 1,
        };
        let range = RangeInfo {
            range: 7,
            start: "b".into(),
            end: "m".into(),
            replicas: vec![0x1f, 2],
            is_changing: true,
            leader: 0x1f,
            parent: 3,
            generation: 1,
            writes: 12,
            survey: Some(survey),
        };
        let root = RangeInfo { leader: 2, replicas: vec![2], ..RangeInfo::default() };
        let node =
            |node, name: &str| NodeInfo { node, name: name.to_owned(), ..NodeInfo::default() };
        // The second is not told apart from another.
        let nodes = vec![node(0x1f, "n1"), node(2, "n2"), node(3, "n2")];
        let ranges = vec![range, root];
        RangeListResponse { ranges, nodes, is_surveyed: true, ..Default::default() }
    }

    fn decision(step: &str, ranges: Vec<u64>) -> Decision {
        Decision {
            id: 7,
            time_ms: 1_700_000_000_999,
            step: step.to_owned(),
            rule: "split_large".to_owned(),
            reason: "holds 9 keys (limit 5)".to_owned(),
            outcome: "done".to_owned(),
            ranges,
        }
    }

    #[test]
    fn a_key_is_explained_by_its_range_and_what_was_decided_of_it() {
        let decisions = [
            decision("split range=3 key=b", vec![3]),
            decision("split range=3 key=x", vec![3]),
            decision("transfer_leader range=7 to=2", vec![7]),
        ];
        let expected = "range 7: keys from b to m\nled by n1, replicas on n1,2 (changing)\n\
                        12 writes so far\nsplit off range 3\n\
                        90 keys, 3 MiB; 4 writes/s of 512 B/s, 6 reads/s\n\
                        2023-11-14T22:13:20Z  split range=3 key=b  [split_large] holds 9 keys \
                        (limit 5): done\n\
                        2023-11-14T22:13:20Z  transfer_leader range=7 to=2  [split_large] holds 9 \
                        keys (limit 5): done\n";
        assert_eq!(explain(&some_ranges(), &decisions, "cc"), expected);
        assert!(explain(&some_ranges(), &decisions, "m").starts_with("range 0"));
        assert_eq!(explain(&RangeListResponse::default(), &[], "m"), "no range is known\n");
    }

    #[test]
    fn ranges_are_a_table_with_what_is_known_of_each() {
        let text = ranges(&some_ranges());
        let words = |n| text.lines().nth(n).unwrap_or_default().split_whitespace();
        let expected = [
            "7",
            "b",
            "m",
            "n1",
            "n1,2",
            "(changing)",
            "3",
            "MiB",
            "90",
            "4",
            "512",
            "B",
            "6",
            "1",
        ];
        assert!(words(1).eq(expected), "{text}");
        assert_eq!(words(2).last(), Some("2"), "nothing is known of range 0: {text}");
    }
}

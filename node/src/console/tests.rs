//! Answers of pictures of clusters, small and large, and what an answer forbids a browser.

use std::collections::BTreeMap;

use bytes::Bytes;
use flotilla_core::NodeId;
use flotilla_core::mvcc::Head;
use flotilla_core::proto::internal::{Member, RangeInfo, RangeSurvey, SurveyView, SurveyedRange};
use flotilla_core::spine::Status;
use serde_json::Value;

use super::collect::{Picture, Survey};
use super::history::{History, Sample};
use super::map::{Map, Page, Ranges};
use super::{CELLS_MAX, HEAT_ROWS_MAX, ROWS_MAX, SPANS_TOLD_MAX, cluster, heat};
use crate::router::Notice;

const MEMBERS: [(u64, &str); 3] = [(0x1f, "n1"), (2, "n2"), (3, "n2")];

/// A cluster of three, two of which have the same name, with so many ranges beside range 0, all led by the
/// first.
fn picture(ranges_count: u64) -> Picture {
    let member =
        |(id, name): (u64, &str)| Member { id, name: name.to_owned(), ..Member::default() };
    let key = |n: u64| Bytes::from(format!("k{n:06}"));
    let range = |n: u64| RangeInfo {
        range: n,
        start: key(2 * n),
        end: key(2 * n + 1),
        leader: 0x1f,
        replicas: vec![0x1f, 2],
        ..RangeInfo::default()
    };
    let rest = RangeInfo { replicas: vec![2], leader: 2, ..RangeInfo::default() };
    let ranges: Vec<RangeInfo> = (1..=ranges_count).map(range).chain([rest]).collect();
    let survey = |range: &RangeInfo| SurveyedRange {
        range: range.range,
        survey: Some(RangeSurvey {
            bytes: 100,
            keys: 10,
            is_counted: true,
            writes_per_second: range.range,
            ..RangeSurvey::default()
        }),
    };
    let told = SurveyView { ranges: ranges.iter().map(survey).collect(), ..SurveyView::default() };
    let status = Status { is_leader: true, leader: Some(NodeId(0x1f)), term: 4, is_learner: false };
    let members = MEMBERS.map(member).to_vec();
    Picture {
        time_ms: 1,
        me: 2,
        cluster_id: 0xabc,
        head: Head { revision: 9, compact_revision: -1 },
        notice: Notice { status, members, ranges: ranges.into(), ..Notice::default() },
        seen: BTreeMap::new(),
        survey: Some(Survey::new(told)),
    }
}

fn json(answer: &impl serde::Serialize) -> Value {
    serde_json::to_value(answer).expect("plain data")
}

fn items<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("{name} of {value}"))
}

#[test]
fn one_range_is_one_cell_of_all_keys() {
    let map = json(&Map::of(&picture(0)));
    let [cell] = items(&map, "cells") else { panic!("one cell: {map}") };
    assert_eq!((&cell["from"], &cell["to"], &cell["range"]), (&"".into(), &Value::Null, &0.into()));
    // By name, and by id where names do not tell apart.
    let names: Vec<&str> =
        items(&map, "members").iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["2", "3", "n1"]);
    assert_eq!((&cell["held"], &cell["led"]), (&vec![1, 0, 0].into(), &vec![1, 0, 0].into()));
    assert_eq!(cell["survey"]["keys"], 10);
}

#[test]
fn a_thousand_ranges_share_cells_and_rows() {
    let picture = picture(1_000);
    let map = json(&Map::of(&picture));
    let cells = items(&map, "cells");
    assert_eq!(cells.len(), CELLS_MAX);
    assert!(cells.windows(2).all(|pair| pair[0]["to"] == pair[1]["from"]), "nothing is left out");
    let ranges: u64 = cells.iter().filter_map(|cell| cell["led"][2].as_u64()).sum();
    assert_eq!(ranges, 1_000, "each is led once");

    let ranges = json(&Ranges::of(&picture, Page::default()));
    let rows = items(&ranges, "ranges");
    assert_eq!((rows.len(), &ranges["more"]), (ROWS_MAX, &501.into()));
    assert_eq!(rows[0]["spans"][0], serde_json::json!(["k000002", "k000003"]));
    let last = Page::read("first=1000&order=key").expect("a page");
    let last = json(&Ranges::of(&picture, last));
    let [rest] = items(&last, "ranges") else { panic!("one row: {last}") };
    assert_eq!(rest["range"], 0);
    assert_eq!(items(rest, "spans").len(), SPANS_TOLD_MAX);
    assert_eq!(rest["spans_more"], 1_001 - SPANS_TOLD_MAX);
    let busiest = Page::read("order=load").expect("a page");
    assert_eq!(json(&Ranges::of(&picture, busiest))["ranges"][0]["range"], 1_000);

    let history = std::sync::Mutex::new(History::default());
    history.lock().expect("nobody panicked").push(Sample::of(&picture));
    let heat = json(&heat::Heat::of(&picture, &history));
    assert_eq!(items(&heat, "rows").len(), HEAT_ROWS_MAX);
    let writes = items(&heat["columns"][0], "writes_per_second");
    let writes: Vec<u64> = writes.iter().filter_map(Value::as_u64).collect();
    assert_eq!(writes.len(), HEAT_ROWS_MAX);
    assert!(writes.windows(9).all(|some| some[0] < some[8]), "later keys are busier: {writes:?}");
}

#[test]
fn without_the_leader_nothing_is_said_of_sizes() {
    let picture = Picture { survey: None, ..picture(2) };
    let cluster = json(&cluster::Cluster::of(&picture, false));
    assert_eq!((&cluster["is_surveyed"], &cluster["ranges_count"]), (&false.into(), &3.into()));
    assert_eq!(json(&Map::of(&picture))["cells"][0]["survey"], Value::Null);
    let history = std::sync::Mutex::new(History::default());
    history.lock().expect("nobody panicked").push(Sample::of(&picture));
    let heat = json(&heat::Heat::of(&picture, &history));
    assert_eq!(heat["columns"][0]["writes_per_second"], Value::Null);
    let members = json(&cluster::Members::of(&picture));
    assert!(items(&members, "members").iter().all(|it| it["is_reached"] == false), "{members}");
}

#[test]
fn what_is_asked_of_ranges_is_understood_or_refused() {
    assert_eq!(Page::read("other=1"), Ok(Page::default()));
    // Beyond the end there is nothing.
    let far = Page::read("first=18446744073709551615").expect("a page");
    let far = json(&Ranges::of(&picture(1), far));
    assert_eq!((items(&far, "ranges").len(), &far["more"]), (0, &0.into()));
    for wrong in ["order=up", "order", "first=-1", "first=x", "first=99999999999999999999999"] {
        assert!(Page::read(wrong).is_err(), "{wrong}");
    }
}

//! The commands that describe a cluster.

use crate::policy::Policy;
use crate::script::Error;
use crate::script::argument::Arguments;
use crate::survey::{Range, Replica, Survey};
use crate::units::{parse_bytes, parse_key, parse_millis};

pub(super) fn policy(policy: &mut Policy, words: &mut Arguments<'_>) -> Result<(), Error> {
    words.set_plain("replicas_count", &mut policy.replicas_count)?;
    words.set_plain("spine_voters_max", &mut policy.spine_voters_max)?;
    words.set("silent_ms_max", &mut policy.silent_ms_max, parse_millis)?;
    words.set("silent_ms_doubt", &mut policy.silent_ms_doubt, parse_millis)?;
    words.set_plain("node_used_percent_max", &mut policy.node_used_percent_max)?;
    words.set_plain("moves_max", &mut policy.moves_max)?;
    words.set_plain("moves_per_node_max", &mut policy.moves_per_node_max)?;
    words.set_plain("learners_per_range_max", &mut policy.learners_per_range_max)?;
    words.set_plain("lag_entries_max", &mut policy.lag_entries_max)?;
    words.set("learner_patience_ms", &mut policy.learner_patience_ms, parse_millis)?;
    words.set_plain("transfers_max", &mut policy.transfers_max)?;
    words.set_plain("steps_max", &mut policy.steps_max)?;
    words.set_plain("complaints_max", &mut policy.complaints_max)?;
    words.set_plain("is_auto_split", &mut policy.is_auto_split)?;
    words.set("split_bytes", &mut policy.split_bytes, parse_bytes)?;
    words.set_plain("split_keys", &mut policy.split_keys)?;
    words.set_plain("split_writes_per_second", &mut policy.split_writes_per_second)?;
    words.set(
        "split_write_bytes_per_second",
        &mut policy.split_write_bytes_per_second,
        parse_bytes,
    )?;
    words.set_plain("split_reads_per_second", &mut policy.split_reads_per_second)?;
    words.set("split_hot_age_ms", &mut policy.split_hot_age_ms, parse_millis)?;
    words.set_plain("splits_max", &mut policy.splits_max)?;
    words.set_plain("ranges_max", &mut policy.ranges_max)?;
    words.set_plain("is_auto_merge", &mut policy.is_auto_merge)?;
    words.set_plain("is_moving_replicas", &mut policy.is_moving_replicas)?;
    words.set_plain("is_moving_votes", &mut policy.is_moving_votes)?;
    words.set("merge_bytes", &mut policy.merge_bytes, parse_bytes)?;
    words.set_plain("merge_keys", &mut policy.merge_keys)?;
    words.set_plain("merge_writes_per_second", &mut policy.merge_writes_per_second)?;
    words.set(
        "merge_write_bytes_per_second",
        &mut policy.merge_write_bytes_per_second,
        parse_bytes,
    )?;
    words.set_plain("merge_reads_per_second", &mut policy.merge_reads_per_second)?;
    words.set("merge_quiet_ms", &mut policy.merge_quiet_ms, parse_millis)?;
    words.set("merge_age_ms", &mut policy.merge_age_ms, parse_millis)?;
    words.set("borders_fixed", &mut policy.borders_fixed, |text| {
        text.split(',').map(parse_key).collect()
    })?;
    words.set("replica_base_bytes", &mut policy.replica_base_bytes, parse_bytes)?;
    words.set_plain("balance_replicas_percent", &mut policy.balance_replicas_percent)?;
    words.set_plain(
        "leader_base_requests_per_second",
        &mut policy.leader_base_requests_per_second,
    )?;
    words.set_plain("balance_leaders_percent", &mut policy.balance_leaders_percent)?;
    words.set_plain("follow_load_percent", &mut policy.follow_load_percent)?;
    words.set_plain("follow_load_writes_per_second", &mut policy.follow_load_writes_per_second)
}

pub(super) fn node(survey: &mut Survey, words: &mut Arguments<'_>) -> Result<(), Error> {
    let id = words.next_parsed("a node id", |text| text.parse().ok())?;
    let node = survey.nodes.entry(id).or_default();
    words.set_plain("zone", &mut node.zone)?;
    words.set("silent", &mut node.silent_ms, parse_millis)?;
    words.set("capacity", &mut node.capacity_bytes, parse_bytes)?;
    words.set("used", &mut node.used_bytes, parse_bytes)?;
    words.set("writes", &mut node.write_bytes_per_second, parse_bytes)?;
    words.set_plain("requests", &mut node.requests_per_second)?;
    node.is_draining = (node.is_draining || words.flag("draining")) && !words.flag("staying");
    Ok(())
}

pub(super) fn range(survey: &mut Survey, words: &mut Arguments<'_>) -> Result<(), Error> {
    let id: u64 = words.next_parsed("a range id", |text| text.parse().ok())?;
    let span = match words.next_if_starts('[') {
        None => None,
        Some(text) => Some(
            span(text)
                .ok_or_else(|| Error::new(format!("a span such as [a,b) expected, not {text}")))?,
        ),
    };
    let is_new = !survey.ranges.contains_key(&id);
    if is_new && span.is_none() {
        return Err(Error::new(format!("range {id} needs a span")));
    }
    let fresh = Range { generation: 1, ..Range::default() };
    let range = survey.ranges.entry(id).or_insert(fresh);
    if let Some((start, end)) = span {
        range.start = start;
        range.end = end;
    }
    if let Some(replicas) = words.optional("replicas", replicas)? {
        range.leader = replicas.first().map(|replica| replica.node);
        range.replicas = replicas;
    }
    words.set("leader", &mut range.leader, leader)?;
    words.set_plain("generation", &mut range.generation)?;
    words.set("bytes", &mut range.bytes, parse_bytes)?;
    words.set_plain("keys", &mut range.keys)?;
    words.set_plain("writes", &mut range.load.writes_per_second)?;
    words.set("write_bytes", &mut range.load.write_bytes_per_second, parse_bytes)?;
    words.set_plain("reads", &mut range.load.reads_per_second)?;
    words.set("load_key", &mut range.load_split_key, |text| parse_key(text).map(Some))?;
    words.set("size_key", &mut range.size_split_key, |text| parse_key(text).map(Some))?;
    words.set("quiet", &mut range.quiet_ms, parse_millis)?;
    words.set("age", &mut range.age_ms, parse_millis)?;
    range.is_changing |= words.flag("changing");
    Ok(())
}

pub(super) fn spine(survey: &mut Survey, words: &mut Arguments<'_>) -> Result<(), Error> {
    let voters = words.optional("voters", replicas)?;
    let learners = words.optional("learners", replicas)?;
    if voters.is_some() || learners.is_some() {
        let voters = voters.unwrap_or_default().into_iter();
        let learners = learners.unwrap_or_default().into_iter();
        let learners = learners.map(|replica| Replica { is_learner: true, ..replica });
        survey.spine.replicas = voters.chain(learners).collect();
        survey.spine.leader = None;
    }
    words.set("leader", &mut survey.spine.leader, leader)?;
    survey.spine.is_changing |= words.flag("changing");
    Ok(())
}

pub(super) fn forget(survey: &mut Survey, words: &mut Arguments<'_>) -> Result<(), Error> {
    let kind = words.next_parsed("node or range", |text| {
        ["node", "range"].into_iter().find(|kind| *kind == text)
    })?;
    let id = words.next_parsed("an id", |text| text.parse().ok())?;
    let is_known = if kind == "node" {
        survey.spine.replicas.retain(|replica| replica.node != id);
        survey.nodes.remove(&id).is_some()
    } else {
        survey.ranges.remove(&id).is_some()
    };
    if is_known { Ok(()) } else { Err(Error::new(format!("there is no {kind} {id}"))) }
}

fn span(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (start, end) = text.strip_prefix('[')?.strip_suffix(')')?.split_once(',')?;
    Some((parse_key(start)?, parse_key(end)?))
}

fn leader(text: &str) -> Option<Option<u64>> {
    if text == "none" { Some(None) } else { text.parse().ok().map(Some) }
}

/// `1,2~50,3L,4L~5000`.
fn replicas(text: &str) -> Option<Vec<Replica>> {
    text.split(',').map(replica).collect()
}

fn replica(text: &str) -> Option<Replica> {
    let (text, lag_entries) = match text.split_once('~') {
        None => (text, 0),
        Some((text, lag)) => (text, lag.parse().ok()?),
    };
    let (text, is_learner) = match text.strip_suffix('L') {
        None => (text, false),
        Some(text) => (text, true),
    };
    Some(Replica { node: text.parse().ok()?, is_learner, lag_entries, learner_ms: 0 })
}

//! Two looks as one frame of text.

use flotilla_placement::units::Bytes;
use flotilla_proto::etcdserverpb::Member;
use flotilla_proto::internal::{RangeInfo, RangeListResponse};

use super::Look;
use crate::calendar;
use crate::ctl::{hot, show};
use crate::metrics::sample::Sample;
use crate::metrics::shown::Shown;

/// Ranges that are shown, those with most load.
const RANGES_SHOWN_MAX: usize = 15;

pub(super) fn frame(before: &Look, now: &Look) -> String {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(f64::MIN_POSITIVE);
    let revision = now
        .samples
        .values()
        .map(|sample| sample.sum("etcd_debugging_mvcc_current_revision", &[]))
        .fold(0.0, f64::max);
    let ranges_count = now.ranges.as_ref().map_or(0, |list| list.ranges.len());
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let at = calendar::moment(since.unwrap_or_default().as_secs(), None);
    let mut text = format!(
        "{at}  {} members, {ranges_count} ranges, revision {revision}\n\n",
        now.members.len()
    );
    let head = [
        "MEMBER",
        "NAME",
        "ROLE",
        "LEADS",
        "PUTS/S",
        "READS/S",
        "CALLS/S",
        "FAILED/S",
        "PENDING",
        "WATCHERS",
        "SLOW",
        "FLUSH p99",
        "REQUEST p99",
        "STORE",
        "MEMORY",
        "CPU",
    ];
    let rows = now.members.iter().map(|member| {
        let samples = (before.samples.get(&member.id), now.samples.get(&member.id));
        member_row(member, samples, seconds)
    });
    text.push_str(&show::table(&head, rows));
    if let Some(list) = &now.ranges {
        text.push('\n');
        text.push_str(&ranges(list));
    }
    if let Some(hot) = &now.hot {
        text.push('\n');
        text.push_str(&hot::text(hot));
    }
    text
}

fn member_row(
    member: &Member,
    samples: (Option<&Sample>, Option<&Sample>),
    seconds: f64,
) -> Vec<String> {
    let mut row = vec![format!("{:x}", member.id), member.name.clone()];
    let (Some(before), Some(now)) = samples else {
        // It has just come, or does not answer.
        row.push("not reached".to_owned());
        row.resize(16, String::new());
        return row;
    };
    let shown = Shown::between(before, now, seconds);
    let whole = |figure: f64| format!("{figure:.0}");
    let p99 = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), time);
    row.extend([
        shown.role.name().to_owned(),
        whole(shown.led),
        whole(shown.puts_per_second),
        whole(shown.reads_per_second),
        whole(shown.calls_per_second),
        whole(shown.failed_per_second),
        whole(shown.pending),
        whole(shown.watchers),
        whole(shown.slow_watchers),
        p99(shown.flush_p99_seconds),
        p99(shown.request_p99_seconds),
        bytes(shown.store_bytes),
        bytes(shown.memory_bytes),
        format!("{:.0}%", shown.cpus * 100.0),
    ]);
    row
}

fn bytes(count: f64) -> String {
    Bytes(count as u64).to_string()
}

/// The end of a bucket: what it says is "at most".
fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds.is_infinite() => "more".to_owned(),
        seconds if seconds < 1.0 => format!("<{:.3}ms", seconds * 1e3).replace(".000ms", "ms"),
        seconds => format!("<{seconds:.1}s"),
    }
}

/// Those with most load first.
fn ranges(list: &RangeListResponse) -> String {
    let load = |range: &RangeInfo| {
        let survey = range.survey.as_ref();
        survey.map_or(0, |it| it.writes_per_second.saturating_add(it.reads_per_second))
    };
    let mut busiest: Vec<&RangeInfo> = list.ranges.iter().collect();
    busiest.sort_by_key(|range| (std::cmp::Reverse(load(range)), range.range));
    let left_out = busiest.len().saturating_sub(RANGES_SHOWN_MAX);
    busiest.truncate(RANGES_SHOWN_MAX);
    let shown =
        RangeListResponse { ranges: busiest.into_iter().cloned().collect(), ..list.clone() };
    let mut text = show::ranges(&shown) + show::missing(list.is_surveyed);
    if left_out > 0 {
        text.push_str(&format!("and {left_out} with less load\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_a_row_of_what_happened_in_between() {
        let member = Member { id: 0x1f, name: "n1".to_owned(), ..Member::default() };
        let page = |puts: u32, ok: u32, bad: u32| {
            Sample::read(&format!(
                "etcd_server_is_leader 1\netcd_mvcc_put_total {puts}\n\
                 grpc_server_handled_total{{grpc_code=\"OK\"}} {ok}\n\
                 grpc_server_handled_total{{grpc_code=\"NotFound\"}} {bad}\n\
                 etcd_mvcc_db_total_size_in_bytes 2097152\n"
            ))
        };
        let (before, now) = (page(10, 5, 1), page(30, 9, 3));
        let row = member_row(&member, (Some(&before), Some(&now)), 2.0);
        assert_eq!(row.len(), 16);
        assert_eq!(
            (&row[..3], &row[4], &row[7]),
            (
                &["1f".to_owned(), "n1".to_owned(), "leader".to_owned()][..],
                &"10".to_owned(),
                &"1".to_owned()
            )
        );
        assert_eq!((row[11].as_str(), row[13].as_str()), ("-", "2 MiB"));
        let lost = member_row(&member, (Some(&before), None), 2.0);
        assert_eq!((lost.len(), lost[2].as_str()), (16, "not reached"));
        assert_eq!(member_row(&member, (Some(&now), Some(&before)), 2.0)[4], "0", "it began anew");
    }

    #[test]
    fn times_are_ends_of_buckets() {
        assert_eq!(time(0.001), "<1ms");
        assert_eq!(time(0.0128), "<12.800ms");
        assert_eq!((time(2.048).as_str(), time(f64::INFINITY).as_str()), ("<2.0s", "more"));
    }
}

//! The history of all keys in the order of revisions, for what looks at all of it: of what is here, and
//! of what other nodes tell of the ranges that are not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_core::Error;
use flotilla_core::mvcc::layout::{Record, Revision};
use flotilla_core::mvcc::{self, Below, Failure, HashKv, Head, KeptPage, ReplayLimits};
use flotilla_core::proto::Span;
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::internal::ask::What;
use flotilla_core::remote::{self, Backup, Wanted};
use flotilla_core::spine::replica::Question;
use flotilla_core::stage::Reach;

use super::{Context, others, read};

/// How long nobody may answer for a range that is lacking here.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The keys that are here, those that follow on each other put together, and the others by range.
pub(super) fn here_and_elsewhere(reach: &Reach) -> (Vec<Span>, Vec<Span>) {
    let pieces = reach.owners.pieces();
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        pieces.into_iter().partition(|(range, _)| reach.has(*range));
    let spans = |pieces: Vec<(_, Span)>| pieces.into_iter().map(|(_, span)| span);
    (joined(spans(here)), spans(elsewhere).collect())
}

/// Whether a key is one of these keys, whose spans are in order.
pub(super) fn contains(spans: &[Span], key: &[u8]) -> bool {
    let after = spans.partition_point(|span| span.start[..] <= *key);
    after > 0 && spans[after - 1].contains(key)
}

/// Reads all of it: what is here by `read_here`. `take` has the changes in order.
///
/// # Errors
/// `Overtaken` when a compaction went on faster; `RangesElsewhere` when nobody answers for a range.
pub(super) async fn gather<R, T>(
    context: &Context,
    backup: &mut Backup,
    read_here: impl Fn(Revision, &Backup, ReplayLimits) -> R,
    mut take: impl FnMut(Vec<Record>) -> T,
) -> Result<(), Failure>
where
    R: Future<Output = Result<KeptPage, Failure>>,
    T: Future<Output = Result<(), Error>>,
{
    let board = context.board();
    let mut deadline = Instant::now() + ANSWERED_WITHIN;
    loop {
        let mut records = Vec::new();
        while let Some(record) = backup.pop() {
            records.push(record);
        }
        if !records.is_empty() {
            take(records).await?;
        }
        let replacements = board.replacements();
        let reach = board.reach();
        let page = match backup.wanted(&reach.owners) {
            None => return Ok(()),
            Some(Wanted::Here { from, limits }) => Some(read_here(from, backup, limits).await?),
            // It has come meanwhile.
            Some(Wanted::Elsewhere(range, asked)) if reach.has(range) => {
                let compact_revision = reach.shown.head.compact_revision;
                let wanted = asked.clone();
                let page = read::elsewhere(context.store(), move |store| {
                    remote::backup_page(store, &wanted, compact_revision)
                });
                let page = page.await?;
                let span = Span::from_request(asked.key, asked.range_end);
                let is_same = board.replacements() == replacements && board.reach().has_all(&span);
                is_same.then_some(page)
            }
            Some(Wanted::Elsewhere(range, asked)) => {
                let what = What::Changes(asked.clone());
                let told = context.router.ask(Question { range, shown: reach.shown, what }).await?;
                match told.is_refused {
                    true => None,
                    false => remote::told_backup(&asked, remote::outcome(told)?),
                }
            }
        };
        match page {
            Some(page) => {
                backup.take(page);
                deadline = Instant::now() + ANSWERED_WITHIN;
                tokio::task::yield_now().await;
            }
            None if Instant::now() >= deadline => return Err(Error::RangesElsewhere.into()),
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// The hash of Maintenance.HashKV where ranges are lacking: that of a node that has all of them.
pub(super) async fn hash_kv(context: &Context, revision: i64) -> Result<(Head, u32), Failure> {
    let board = context.board();
    let replacements = board.replacements();
    let reach = board.reach();
    let head = reach.shown.head;
    let mut hash = HashKv::default();
    let Some(revision) = mvcc::hashed_revision(head, revision)? else {
        return Ok((head, hash.finish()));
    };
    let all = pb::RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        revision,
        limit: 1,
        keys_only: true,
        ..pb::RangeRequest::default()
    };
    let has_keys = !others::range(context, &all, None).await?.kvs.is_empty();
    let newest_at = if has_keys { revision } else { head.compact_revision };
    let (here, elsewhere) = here_and_elsewhere(&reach);
    let here = Arc::new(here);
    let compacted = (head.compact_revision, Below::Newest(newest_at));
    let mut backup = Backup::new(revision, compacted, elsewhere);
    let read_here = |from, backup: &Backup, limits| {
        let (to, compacted) = (backup.to(), (backup.compact_revision(), backup.below()));
        let spans = here.clone();
        let page = read::elsewhere(context.store(), move |store| {
            let is_here = |key: &[u8]| contains(&spans, key);
            store.with_snapshot(|view| mvcc::kept_page(view, &is_here, from, to, compacted, limits))
        });
        let here = here.clone();
        async move {
            let page = page.await?;
            // What has gone meanwhile would be missing.
            let reach = board.reach();
            let is_same =
                board.replacements() == replacements && here.iter().all(|span| reach.has_all(span));
            if is_same { Ok(page) } else { Err(Failure::Overtaken) }
        }
    };
    let add = |records: Vec<Record>| {
        records.iter().for_each(|record| hash.add(record));
        std::future::ready(Ok(()))
    };
    gather(context, &mut backup, read_here, add).await?;
    if backup.compact_revision() > head.compact_revision {
        return Err(Failure::Overtaken);
    }
    Ok((head, hash.finish()))
}

/// Spans in order, with those put together that follow on each other.
fn joined(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if last.end.as_ref() == Some(&span.start) => last.end = span.end,
            _ => joined.push(span),
        }
    }
    joined
}

//! Makes a snapshot: chooses the state, reads what is here, asks for what is not, and has it written.

use std::time::{Duration, Instant};

use flotilla_core::Error;
use flotilla_core::image::{Facts, Origin};
use flotilla_core::mvcc::Failure;
use flotilla_core::proto::Span;
use flotilla_core::proto::internal::ask::What;
use flotilla_core::remote::{self, Backup, Wanted};
use flotilla_core::spine::State;
use flotilla_core::spine::replica::Question;

use super::super::{Context, read};
use super::Refusal;
use super::image::{Image, Maker};
use crate::supervise::fatal;

/// Times a snapshot is begun anew, because a compaction overtook it or ranges were exchanged.
const ATTEMPTS_MAX: usize = 5;
/// How long the node may take to show the state that was chosen.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
/// How long nobody may answer for a range that is lacking here.
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The state of this node at one entry of the order, whichever ranges it has.
pub(super) async fn make(context: &Context) -> Result<Image, Refusal> {
    for _ in 0..ATTEMPTS_MAX {
        if let Some(image) = attempt(context).await? {
            return Ok(image);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Err(Error::Timeout.into())
}

/// `None` if it has to be begun anew.
async fn attempt(context: &Context) -> Result<Option<Image>, Refusal> {
    let board = context.board();
    let state =
        read::elsewhere(
            context.store(),
            |store| Ok(store.with_snapshot(|view| State::load(view))?),
        );
    let state = state.await.map_err(|failure| read::refusal(failure, Error::Timeout))?;
    let state = state.ok_or(Error::RangesElsewhere)?;
    let (facts, origin) = (Facts::of(&state), Origin::of(&state));
    let position = state.position();
    drop(state);
    // Ranges that are here may lack what was numbered for them by then.
    until_shown(context, position.index).await?;
    let replacements = board.replacements();
    let reach = board.reach();
    let pieces = reach.owners.pieces();
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        pieces.into_iter().partition(|(range, _)| reach.has(*range));
    let spans = |pieces: Vec<(_, Span)>| pieces.into_iter().map(|(_, span)| span);
    let here = joined(spans(here));
    let maker = Maker::begin(context.store().clone(), here.clone(), &facts, origin).await?;
    let reach = board.reach();
    if board.replacements() != replacements || !here.iter().all(|span| reach.has_all(span)) {
        return Ok(None);
    }
    let (to, compact_revision) = (position.revision, position.compact_revision);
    let mut backup = Backup::new(to, compact_revision, spans(elsewhere).collect());
    if !gather(context, &maker, &mut backup).await? {
        return Ok(None);
    }
    let compact_revision = backup.compact_revision();
    if compact_revision > to {
        return Ok(None);
    }
    Ok(Some(maker.finish(Facts { compact_revision, ..facts }).await?))
}

/// Reads and writes all of it. False if a compaction went on faster.
async fn gather(context: &Context, maker: &Maker, backup: &mut Backup) -> Result<bool, Refusal> {
    let board = context.board();
    let mut deadline = Instant::now() + ANSWERED_WITHIN;
    loop {
        let mut records = Vec::new();
        while let Some(record) = backup.pop() {
            records.push(record);
        }
        if !records.is_empty() {
            maker.write(records).await?;
        }
        let replacements = board.replacements();
        let reach = board.reach();
        let page = match backup.wanted(&reach.owners) {
            None => return Ok(true),
            Some(Wanted::Here { from, limits }) => {
                let page = maker.read(from, backup.to(), backup.compact_revision(), limits);
                Some(page.await)
            }
            // It has come meanwhile.
            Some(Wanted::Elsewhere(range, asked)) if reach.has(range) => {
                let compact_revision = reach.shown.head.compact_revision;
                let wanted = asked.clone();
                let page = read::elsewhere(context.store(), move |store| {
                    remote::backup_page(store, &wanted, compact_revision)
                });
                let page = page.await;
                let span = Span::from_request(asked.key, asked.range_end);
                let is_same = board.replacements() == replacements && board.reach().has_all(&span);
                is_same.then_some(page)
            }
            Some(Wanted::Elsewhere(range, asked)) => {
                let what = What::Changes(asked.clone());
                let told = context.router.ask(Question { range, shown: reach.shown, what }).await?;
                match (told.is_refused, remote::outcome(told)) {
                    (true, _) => None,
                    (false, Ok(told)) => remote::told_backup(&asked, told).map(Ok),
                    (false, Err(failure)) => Some(Err(failure)),
                }
            }
        };
        match page {
            Some(Ok(page)) => {
                backup.take(page);
                deadline = Instant::now() + ANSWERED_WITHIN;
                tokio::task::yield_now().await;
            }
            Some(Err(Failure::Overtaken)) => return Ok(false),
            Some(Err(Failure::View(error))) => fatal(&error.to_string()),
            Some(Err(Failure::Client(error))) => return Err(error.into()),
            None if Instant::now() >= deadline => return Err(Error::RangesElsewhere.into()),
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

async fn until_shown(context: &Context, index: u64) -> Result<(), Error> {
    let deadline = Instant::now() + SHOWN_WITHIN;
    while context.router.shown_index() < index {
        if Instant::now() >= deadline {
            return Err(Error::Timeout);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
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

//! Reads of ranges that this node does not show itself: page by page, here where it can be and
//! elsewhere where it must.

use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_core::mvcc::{self, Failure, Head};
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::internal::{Told, ask::What};
use flotilla_core::remote::{self, Attached, Gathering, Reading};
use flotilla_core::spine::replica::Question;
use flotilla_core::{Error, LeaseId};
use prost::Message as _;

use super::budget::Share;
use super::{Context, read};

/// How long a read tries to find a node that shows what it wants, and how often it looks.
const FOUND_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Answers a checked KV.Range at the state that this node knows of.
pub(super) async fn range(
    context: &Context,
    request: &pb::RangeRequest,
    share: Option<&Share>,
) -> Result<pb::RangeResponse, Failure> {
    let mut reading = Reading::new(context.board().reach().shown, request.clone())?;
    share.into_iter().for_each(Share::begin_again);
    let mut taken_count = 0;
    while step(context, &mut reading).await? {
        if let Some(share) = share {
            share.take(&reading.kvs()[taken_count..]).await?;
            taken_count = reading.kvs().len();
        }
    }
    Ok(reading.finish())
}

/// Reads a page. Whether there was one left.
pub(super) async fn step(context: &Context, reading: &mut Reading) -> Result<bool, Failure> {
    let deadline = Instant::now() + FOUND_WITHIN;
    let shown = reading.shown();
    loop {
        let replacements = context.board().replacements();
        let reach = context.board().reach();
        let Some((range, page)) = reading.next(&reach.owners) else { return Ok(false) };
        if reach.has(range) {
            let (head, wanted) = (shown.head, page.clone());
            let found =
                read::elsewhere(context.store(), move |store| remote::page(store, head, &wanted));
            let found = found.await?;
            if context.board().replacements() == replacements {
                let next = found.next.map(|cursor| cursor.start().clone());
                reading.take(&page, found.answer, next);
                return Ok(true);
            }
        } else {
            let question = Question { range, shown, what: What::Read(page.clone()) };
            if let Some(told) = ask(context, question).await? {
                let next = (!told.next.is_empty()).then_some(told.next);
                reading.take(&page, told.answer.unwrap_or_default(), next);
                return Ok(true);
            }
        }
        look_again(deadline).await?;
    }
}

/// Answers a checked KV.Txn that only reads, at the state that this node knows of.
pub(super) async fn txn(
    context: &Context,
    request: &pb::TxnRequest,
    share: Option<&Share>,
) -> Result<pb::TxnResponse, Failure> {
    let shown = context.board().reach().shown;
    let deadline = Instant::now() + FOUND_WITHIN;
    loop {
        let replacements = context.board().replacements();
        let mut gathering = Gathering::new(request);
        let mut is_refused = false;
        while let Some((range, rows)) = {
            let reach = context.board().reach();
            gathering.next(&reach.owners, |range| reach.has(range))
        } {
            let question = Question { range, shown, what: What::Rows(rows) };
            let Some(told) = ask(context, question).await? else {
                is_refused = true;
                break;
            };
            gathering.take(told.rows, told.next)?;
        }
        let reach = context.board().reach();
        if !is_refused && gathering.is_still_here(&reach.owners, |range| reach.has(range)) {
            let wanted = request.clone();
            let answer = read::elsewhere(context.store(), move |store| {
                mvcc::read_txn(&gathering.over(store)?, shown.head, &wanted)
            });
            let answer = answer.await?;
            if context.board().replacements() == replacements {
                Share::take_whole(share, answer.encoded_len()).await?;
                return Ok(answer);
            }
        }
        look_again(deadline).await?;
    }
}

/// The keys attached to a lease at the state that this node knows of, in ascending order.
pub(super) async fn lease_keys(
    context: &Context,
    lease: LeaseId,
) -> Result<(Head, Vec<Bytes>), Failure> {
    let shown = context.board().reach().shown;
    let mut attached = Attached::new(shown, lease);
    let mut deadline = Instant::now() + FOUND_WITHIN;
    loop {
        let replacements = context.board().replacements();
        let reach = context.board().reach();
        let Some((range, asked)) = attached.next(&reach.owners) else {
            return Ok((shown.head, attached.finish()));
        };
        let rows = if reach.has(range) {
            let wanted = asked.clone();
            let rows =
                read::elsewhere(context.store(), move |store| remote::attached(store, &wanted));
            let rows = rows.await?;
            (context.board().replacements() == replacements).then_some(rows)
        } else {
            let question = Question { range, shown, what: What::Rows(asked.clone()) };
            ask(context, question).await?.map(|told| told.rows)
        };
        match rows {
            Some(rows) => {
                attached.take(&asked, &rows)?;
                deadline = Instant::now() + FOUND_WITHIN;
            }
            None => look_again(deadline).await?,
        }
    }
}

async fn look_again(deadline: Instant) -> Result<(), Error> {
    if Instant::now() >= deadline {
        return Err(Error::Timeout);
    }
    tokio::time::sleep(LOOK_AGAIN).await;
    Ok(())
}

/// `None` is a refusal.
async fn ask(context: &Context, question: Question) -> Result<Option<Told>, Failure> {
    let told = context.router.ask(question).await?;
    if told.is_refused { Ok(None) } else { remote::outcome(told).map(Some) }
}

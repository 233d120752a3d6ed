//! Makes a snapshot: chooses the state, reads what is here, asks for what is not, and has it written.

use std::time::{Duration, Instant};

use flotilla_core::Error;
use flotilla_core::image::{Facts, Origin};
use flotilla_core::mvcc::{Below, Failure};
use flotilla_core::remote::Backup;
use flotilla_core::spine::State;

use super::super::{Context, history, read};
use super::Refusal;
use super::image::{Image, Maker};

/// Times a snapshot is begun anew, because a compaction overtook it or ranges were exchanged.
const ATTEMPTS_MAX: usize = 5;
/// How long the node may take to show the state that was chosen.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
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
    let (here, elsewhere) = history::here_and_elsewhere(&reach);
    let maker = Maker::begin(context.store().clone(), here.clone(), &facts, origin).await?;
    let reach = board.reach();
    if board.replacements() != replacements || !here.iter().all(|span| reach.has_all(span)) {
        return Ok(None);
    }
    let (to, compact_revision) = (position.revision, position.compact_revision);
    let compacted = (compact_revision, Below::Readable);
    let mut backup = Backup::new(to, compacted, elsewhere);
    let read = |from, backup: &Backup, limits| {
        let (to, compacted) = (backup.to(), (backup.compact_revision(), backup.below()));
        maker.read(from, to, compacted, limits)
    };
    match history::gather(context, &mut backup, read, |records| maker.write(records)).await {
        Ok(()) => {}
        Err(Failure::Overtaken) => return Ok(None),
        Err(failure) => return Err(read::refusal(failure, Error::Timeout).into()),
    }
    let compact_revision = backup.compact_revision();
    if compact_revision > to {
        return Ok(None);
    }
    Ok(Some(maker.finish(Facts { compact_revision, ..facts }).await?))
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

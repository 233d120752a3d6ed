//! Blocks of history of which this node does not show all keys: put together of what is here and what
//! other nodes tell.

use std::time::Duration;

use flotilla_core::mvcc::Failure;
use flotilla_core::proto::Span;
use flotilla_core::proto::internal::ask::What;
use flotilla_core::remote::{self, Assembly};
use flotilla_core::spine::replica::Question;
use flotilla_core::watch::{Block, BlockRequest};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::router::Router;
use crate::supervise::fatal;

/// A block that takes longer is given up, so that watchers of other keys get their turn.
const READ_WITHIN: Duration = Duration::from_secs(3);
/// How soon it is looked anew who owns the keys, and whether they can be read here.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Questions under way for one block.
const QUESTIONS_MAX: usize = 16;

/// Reads a block. `None` if it cannot be read at present, or if some of it is compacted.
pub(super) async fn read(router: &Router, request: BlockRequest) -> Option<Block> {
    let mut assembly = Assembly::new(request);
    let is_complete = tokio::time::timeout(READ_WITHIN, assemble(router, &mut assembly)).await;
    if is_complete == Ok(true) {
        return Some(assembly.finish());
    }
    tokio::time::sleep(LOOK_AGAIN).await;
    None
}

/// Reads all pieces. False if some of them are compacted.
async fn assemble(router: &Router, assembly: &mut Assembly) -> bool {
    let board = router.board();
    let mut asked = FuturesUnordered::new();
    while !assembly.is_complete() {
        let mut is_refused = false;
        while asked.len() < QUESTIONS_MAX && !is_refused {
            let replacements = board.replacements();
            let reach = board.reach();
            if reach.shown.head.revision < assembly.request().to {
                is_refused = true;
                break;
            }
            let Some((range, piece)) = assembly.next(&reach.owners) else { break };
            if !reach.has(range) {
                let what = What::Changes(piece.clone());
                let question = Question { range, shown: reach.shown, what };
                asked.push(async move { (piece, router.ask(question).await) });
                continue;
            }
            let page = match remote::changes(router.store(), &piece) {
                Ok(page) => page,
                Err(Failure::View(error)) => fatal(&error.to_string()),
                Err(Failure::Client(_) | Failure::Overtaken) => return false,
            };
            let span = Span::from_request(piece.key.clone(), piece.range_end.clone());
            if board.replacements() == replacements && board.reach().has_all(&span) {
                assembly.take(&piece, page);
            } else {
                assembly.put_back(&piece);
                is_refused = true;
            }
            tokio::task::yield_now().await;
        }
        if let Some((piece, told)) = asked.next().await {
            match told.map(|told| (told.is_refused, remote::outcome(told))) {
                Ok((false, Ok(told))) => is_refused |= !assembly.take_told(&piece, told),
                Ok((false, Err(_))) => return false,
                Ok((true, _)) | Err(_) => {
                    assembly.put_back(&piece);
                    is_refused = true;
                }
            }
        }
        if is_refused {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    true
}

//! The first thing a stopping node does: everything it leads gets another leader, so that clients of
//! the others wait for a round of messages instead of an election. Whoever has wrong data leads nothing
//! either.

use std::time::{Duration, Instant};

use actix::Addr;
use flotilla_core::NodeId;

use crate::range::{HandOver, SpineActor};
use crate::router::Board;

/// How long a node waits for the successors of what it leads.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);
/// A hand-over may be lost on its way, or be refused while a member is changed; it is asked for again
/// after this.
const HAND_OVER_AGAIN: Duration = Duration::from_millis(500);
/// How often it is looked who leads.
const LEADERS_POLL: Duration = Duration::from_millis(10);

/// Hands over the spine and every range that this node leads. Returns when others lead all of them,
/// when nobody else could, or after `HAND_OVER_TIMEOUT`: then elections find the leaders.
pub async fn hand_over(actor: &Addr<SpineActor>, board: &Board, node: NodeId) {
    if board.notice().members.len() < 2 {
        return;
    }
    let began = Instant::now();
    let mut again = began;
    loop {
        let led = led_by(board, node);
        let now = Instant::now();
        if led == 0 {
            tracing::info!(took_ms = (now - began).as_millis(), "others lead what this node led");
            return;
        }
        if now - began >= HAND_OVER_TIMEOUT {
            tracing::warn!(led, "leaderships that nobody took over");
            return;
        }
        if now >= again {
            // A full mailbox means that clients come first; it is asked for again.
            let _ = actor.try_send(HandOver);
            again = now + HAND_OVER_AGAIN;
        }
        tokio::time::sleep(LEADERS_POLL).await;
    }
}

/// How many groups the member leads, as far as this node knows.
fn led_by(board: &Board, node: NodeId) -> usize {
    let leads_spine = board.leader() == node.0;
    let ranges = board.notice().ranges;
    let led = ranges.iter().filter(|range| range.range != 0 && range.leader == node.0);
    usize::from(leads_spine) + led.count()
}

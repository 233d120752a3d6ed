//! The console: pages on which a browser shows an operator the cluster. It changes nothing.
//!
//! A thread of its own, apart from those that serve clients, looks at the cluster every few seconds:
//! at what this node knows, and at what the others tell of themselves over the peer port. Pages are
//! answered from the newest look, so what browsers ask for costs the cluster nothing. All that is
//! kept, and all that is told, is bounded by the limits below.

mod page;
mod serve;

mod admit;
mod refusal;

mod collect;
mod tell;

mod history;
mod keyspace;

mod cluster;
mod heat;
mod load;
mod map;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::runtime::{Accepting, CONNECTIONS_WAITING_MAX, ClientListener};
use crate::tls;
use admit::Doorkeeper;
use collect::Picture;
use history::History;

pub use tell::Teller;

/// Between two looks at the cluster, and between two samples of the history.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Samples that are kept: those of half an hour.
const SAMPLES_MAX: usize = 360;
/// Spans of keys that a sample tells apart. Neighbours are put together if there are more ranges.
const SPANS_PER_SAMPLE_MAX: usize = 512;
/// Bytes of all samples; the oldest go when there are more.
const HISTORY_BYTES_MAX: usize = 16 << 20;
/// Rows of an answer: ranges, decisions, leases, members.
const ROWS_MAX: usize = 500;
/// Cells of the strip of the keyspace. Neighbouring ranges share one if there are more.
const CELLS_MAX: usize = 160;
/// Rows of the heat map, likewise.
const HEAT_ROWS_MAX: usize = 48;
/// Spans of range 0 that are told of; it has what others leave.
const SPANS_TOLD_MAX: usize = 8;
/// Bytes of a key that are shown.
const KEY_BYTES_SHOWN_MAX: usize = 256;
/// Connections of browsers; who comes then is hung up on.
const CONNECTIONS_MAX: usize = 64;

/// The console of a node that has one.
pub struct Console(Option<Running>);

struct Running {
    accepting: Accepting,
    arbiter: actix::Arbiter,
}

/// What pages are made of.
struct Desk {
    teller: Teller,
    doorkeeper: Doorkeeper,
    picture: RwLock<Arc<Picture>>,
    history: Mutex<History>,
}

impl Console {
    /// Serves browsers on these listeners, if there are any.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub fn start(
        listeners: Vec<ClientListener>,
        ends: &tls::Ends,
        teller: Teller,
    ) -> anyhow::Result<Self> {
        if listeners.is_empty() {
            return Ok(Self(None));
        }
        let (sender, connections) = mpsc::channel(CONNECTIONS_WAITING_MAX);
        let desk = Arc::new(Desk {
            picture: RwLock::new(Arc::new(Picture::first(&teller))),
            history: Mutex::new(History::default()),
            doorkeeper: Doorkeeper::default(),
            teller,
        });
        let (arbiter, tls) = (actix::Arbiter::new(), ends.to_peers.clone());
        let is_started = arbiter.spawn_fn(move || {
            actix::spawn(collect::run(desk.clone(), tls));
            actix::spawn(serve::serve(desk, connections));
        });
        anyhow::ensure!(is_started, "the console did not start");
        let accepting = Accepting::start(listeners, ends, &[sender]);
        Ok(Self(Some(Running { accepting, arbiter })))
    }

    /// Ends it: it must not read a store that is being closed.
    pub fn stop(self) {
        let Some(Running { accepting, arbiter }) = self.0 else { return };
        drop(accepting);
        arbiter.stop();
        // A thread that panicked has ended the process already.
        let _ = arbiter.join();
    }
}

impl Desk {
    fn picture(&self) -> Arc<Picture> {
        self.picture.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

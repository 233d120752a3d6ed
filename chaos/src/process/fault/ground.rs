//! What faults have in common: which nodes are taken, so that a quorum is left unless a fault is
//! meant to leave none; how a leader's death is seen; what was done.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::history::Stamp;
use crate::process::fault::{Class, Effect};
use crate::process::options::Options;
use crate::process::run::Run;
use crate::process::target::Target;
use crate::sim::chance::Chance;

/// How long a node that was started again is waited for before the lane goes on.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// How long a new leader is waited for.
const LEADER_WITHIN: Duration = Duration::from_secs(15);
const POLL_EVERY: Duration = Duration::from_millis(50);

/// The ground on which faults are carried out.
#[derive(Debug)]
pub struct Ground {
    /// The run.
    pub run: Arc<Run>,
    /// Names of moments at which nodes can be stopped.
    pub failpoints: Vec<String>,
    /// What nodes are upgraded to.
    pub upgrade_to: Option<Target>,
    seats: Arc<Semaphore>,
    seats_count: u32,
    taken: Arc<Mutex<BTreeSet<usize>>>,
    done: Mutex<Vec<Done>>,
    deaths: Mutex<Vec<Death>>,
}

/// A fault that was carried out.
#[derive(Clone, Debug)]
pub struct Done {
    /// Which.
    pub class: Class,
    /// Whom it hit.
    pub who: String,
    /// When it began.
    pub since: Stamp,
    /// When it was over and repaired.
    pub until: Stamp,
    /// What was seen of it.
    pub effect: Effect,
}

/// A leader that could lead no more.
#[derive(Clone, Debug)]
pub struct Death {
    /// When.
    pub at: Stamp,
    /// By which class of faults.
    pub class: Class,
    /// Who it was.
    pub node: usize,
}

/// A node, or all of them, taken for one fault.
#[derive(Debug)]
pub struct Hold {
    /// The node; of all of them the first.
    pub node: usize,
    taken: Arc<Mutex<BTreeSet<usize>>>,
    _seat: OwnedSemaphorePermit,
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Ok(mut taken) = self.taken.lock() {
            taken.remove(&self.node);
        }
    }
}

impl Ground {
    /// Ground with as many seats as nodes can fail at once without an end to the service.
    pub fn new(run: Arc<Run>, options: &Options) -> Self {
        let minority = run.members().len().saturating_sub(1) / 2;
        let seats_count = u32::try_from(minority.max(1)).expect("few nodes");
        Self {
            run,
            failpoints: options.failpoints.clone(),
            upgrade_to: options.upgrade_to.clone(),
            seats: Arc::new(Semaphore::new(seats_count as usize)),
            seats_count,
            taken: Arc::default(),
            done: Mutex::default(),
            deaths: Mutex::default(),
        }
    }

    /// Takes one node: the leader if `wants_leader` and one is known, any that is free otherwise.
    /// Waits until that leaves a quorum.
    pub async fn hold(&self, wants_leader: bool, chance: &mut Chance) -> Hold {
        let seats = Arc::clone(&self.seats);
        let seat = seats.acquire_owned().await.expect("the seats stay");
        let members = self.run.members();
        let mut taken = self.taken.lock().expect("nobody panics with a seat");
        let free: Vec<usize> = members.into_iter().filter(|node| !taken.contains(node)).collect();
        let leader = self.run.monitor.leader().filter(|leader| free.contains(leader));
        let node = match leader.filter(|_| wants_leader) {
            Some(leader) => leader,
            None => *chance.pick(&free),
        };
        taken.insert(node);
        Hold { node, taken: Arc::clone(&self.taken), _seat: seat }
    }

    /// Takes one node, every other time the leader.
    pub async fn hold_someone(&self, chance: &mut Chance) -> Hold {
        let wants_leader = chance.one_in(2);
        self.hold(wants_leader, chance).await
    }

    /// Takes all seats, so that no other fault holds a node meanwhile.
    pub async fn hold_all(&self) -> OwnedSemaphorePermit {
        let seats = Arc::clone(&self.seats);
        seats.acquire_many_owned(self.seats_count).await.expect("the seats stay")
    }

    /// Writes down what was done.
    pub fn note(&self, done: Done) {
        self.done.lock().expect("nobody panics while noting").push(done);
    }

    /// Everything that was done.
    pub fn done(&self) -> Vec<Done> {
        let mut done = self.done.lock().expect("nobody panics while noting").clone();
        done.sort_by_key(|done| done.since);
        done
    }

    /// Writes down that the leader was hit, if `node` led a moment ago and was not alone.
    /// Returns whether it did.
    pub fn note_death(&self, node: usize, class: Class) -> bool {
        let led = self.run.monitor.leader() == Some(node) && self.run.members().len() > 1;
        if led {
            let at = self.run.recorder.clock.now();
            self.deaths.lock().expect("nobody panics while noting").push(Death { at, class, node });
        }
        led
    }

    /// Leaders that were hit.
    pub fn deaths(&self) -> Vec<Death> {
        self.deaths.lock().expect("nobody panics while noting").clone()
    }

    /// Waits for a term above `term`. Says who leads in it, or that nobody does.
    pub async fn wait_leader(&self, term: u64) -> Effect {
        let deadline = Instant::now() + LEADER_WITHIN;
        while Instant::now() < deadline {
            if self.run.monitor.term() > term
                && let Some(leader) = self.run.monitor.leader()
            {
                return Ok(format!("n{leader} leads in term {}", self.run.monitor.term()));
            }
            sleep(POLL_EVERY).await;
        }
        Err(format!("no leader after term {term} within {LEADER_WITHIN:?}"))
    }

    /// Starts a node again and waits a while for it to serve: other faults may keep it from that.
    pub async fn revive(&self, node: usize) -> anyhow::Result<()> {
        let mut held = self.run.node(node).await;
        if !held.is_started() {
            held.start(&self.run.target)?;
        }
        drop(held);
        if !self.run.wait_ready(node, READY_WITHIN).await {
            self.run.remark(format!("n{node} does not serve {READY_WITHIN:?} after its start"));
        }
        Ok(())
    }
}

//! Steps of a plan, carried out through the same doors that clients and operators use. Each is
//! checked once more against the survey, becomes a record of the spine, and only then is done; what
//! came of it is a record, too. Nothing else is done to its range meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use actix::prelude::*;
use flotilla_core::auth::Pass;
use flotilla_core::command::Command;
use flotilla_core::proto::etcdserverpb::MoveLeaderRequest;
use flotilla_core::proto::internal::{
    self, DecisionOutcome, MergeRequest, ReplicasRequest, SpineVote, SplitRequest,
};
use flotilla_core::time::Length;
use flotilla_core::{Error, GroupId, NodeId};
use flotilla_placement::{Decision, Policy, Step, Survey, check};

use super::Driver;
use crate::metrics;
use crate::range::Looked;
use crate::router::{Router, now_ms, on_record};

/// A leader that was asked to hand over is given so long: an election timeout or two, and the table
/// on this node has to follow.
const TRANSFER_WITHIN: Duration = Duration::from_secs(5);
/// A step that cannot be carried out is told of again after this.
const REFUSED_AGAIN_AFTER: Length = Length::from_secs(600);
/// Refused steps remembered for that.
const REFUSED_MAX: usize = 256;
/// No step takes this long: a decision without an outcome was left behind by a node that stopped.
const ABANDONED_AFTER_MS: u64 = 30_000;

/// What a step changes: nothing else is done to it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A range.
    Range(u64),
    /// The spine's group.
    Spine,
}

/// How a step is done.
#[derive(Debug)]
enum Work {
    Command(Command),
    Transfer(GroupId, NodeId),
}

/// A step has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Concluded {
    /// Of its decision.
    id: u64,
    result: Result<(), Error>,
}

impl Driver {
    /// Ranges of steps that are under way.
    pub(super) fn changing(&self) -> BTreeSet<u64> {
        let ranges = self.under_way.keys().filter_map(|target| match target {
            Target::Range(range) => Some(*range),
            Target::Spine => None,
        });
        ranges.collect()
    }

    pub(super) fn begin(
        &mut self,
        survey: &Survey,
        policy: &Policy,
        decision: &Decision,
        ctx: &mut Context<Self>,
    ) {
        let mut targets: Vec<Target> = decision.step.ranges().map(Target::Range).collect();
        if targets.is_empty() {
            targets.push(Target::Spine);
        }
        // The step was checked with those before it as done.
        let is_open = targets.iter().all(|target| !self.under_way.contains_key(target));
        if !is_open || check(survey, policy, &decision.step).is_err() {
            return;
        }
        let work = match decision.step {
            Step::Split { ref key, .. } => {
                Work::Command(Command::Split(SplitRequest { key: key.clone().into() }))
            }
            Step::TransferLeader { range, to } => Work::Transfer(GroupId(range), NodeId(to)),
            Step::MoveSpineLeader { to } => {
                Work::Command(Command::MoveLeader(MoveLeaderRequest { target_id: to }))
            }
            Step::Merge { left, right } => {
                Work::Command(Command::Merge(MergeRequest { left, right }))
            }
            // The range's leader does the rest by itself: the newcomer learns, and votes when it has
            // caught up.
            Step::AddLearner { range, node } => replicas(range, node, 0),
            Step::RemoveReplica { range, node } => replicas(range, 0, node),
            Step::Promote { .. } => {
                return self.refuse(decision, "the leader of a range sees to that by itself");
            }
            Step::AddSpineVoter { node } => vote(node, true),
            Step::DemoteSpineVoter { node } => vote(node, false),
        };
        let Decision { step, rule, reason } = decision;
        tracing::info!(%step, %rule, reason, "placement decides");
        metrics::decided(step, *rule);
        let record = self.record(decision);
        let id = record.id;
        self.under_way.extend(targets.into_iter().map(|target| (target, id)));
        let (router, me) = (self.router.clone(), ctx.address());
        actix::spawn(async move {
            let result = carry_out(&router, record, work).await;
            // The driver ends with the node.
            let _ = me.send(Concluded { id, result }).await;
        });
    }

    fn record(&self, decision: &Decision) -> internal::Decision {
        let Decision { step, rule, reason } = decision;
        let (text, reason) = (self.named(step.to_string()), self.named(reason.clone()));
        on_record(&text, rule.name(), &reason, step.ranges().collect())
    }

    /// Said loudly, but not with every plan.
    fn refuse(&mut self, decision: &Decision, why: &'static str) {
        metrics::step_refused();
        let now = self.meters.now();
        self.refused.retain(|_, at| now.since(*at) < REFUSED_AGAIN_AFTER);
        if self.refused.contains_key(&decision.step) || self.refused.len() >= REFUSED_MAX {
            return;
        }
        self.refused.insert(decision.step.clone(), now);
        let Decision { step, rule, reason } = decision;
        tracing::warn!(%step, %rule, reason, why, "placement wants what cannot be done");
        let outcome = format!("refused: {why}");
        let record = internal::Decision { outcome, ..self.record(decision) };
        let router = self.router.clone();
        actix::spawn(async move {
            // The log has it as well.
            let _ = router.submit(Pass::NODE, Command::Decide(record)).await;
        });
    }

    /// Decisions that nobody can tell the outcome of any more get one.
    pub(super) fn conclude_abandoned(&mut self, looked: &Looked, ctx: &mut Context<Self>) {
        let is_abandoned = |(id, time_ms): &&(u64, u64)| {
            now_ms().saturating_sub(*time_ms) >= ABANDONED_AFTER_MS
                && !self.under_way.values().any(|own| own == id)
        };
        let ids: Vec<u64> =
            looked.open_decisions.iter().filter(is_abandoned).map(|(id, _)| *id).collect();
        if ids.is_empty() || std::mem::replace(&mut self.is_concluding, true) {
            return;
        }
        let router = self.router.clone();
        let concluding = async move {
            for id in ids {
                let outcome = "not known: the node that decided it stopped".to_owned();
                // Lost, it is found again.
                let _ = router
                    .submit(Pass::NODE, Command::Conclude(DecisionOutcome { id, outcome }))
                    .await;
            }
        };
        ctx.spawn(concluding.into_actor(self).map(|(), driver, _| driver.is_concluding = false));
    }
}

fn replicas(range: u64, add: u64, remove: u64) -> Work {
    Work::Command(Command::Replicas(ReplicasRequest { range, add, remove }))
}

fn vote(node: u64, votes: bool) -> Work {
    Work::Command(Command::SpineVote(SpineVote { node, votes }))
}

/// Carries a step out, between two records. The node may have lost the lead meanwhile: then the
/// second goes to whoever leads.
async fn carry_out(router: &Router, record: internal::Decision, work: Work) -> Result<(), Error> {
    let id = record.id;
    router.submit(Pass::NODE, Command::Decide(record)).await?;
    let result = match work {
        Work::Command(command) => router.submit(Pass::NODE, command).await.map(|_| ()),
        Work::Transfer(range, to) => router.transfer(range, to, TRANSFER_WITHIN).await,
    };
    let outcome = match &result {
        Ok(()) => "done".to_owned(),
        Err(error) => format!("failed: {}", error.text()),
    };
    // If this is lost, the decision is found without an outcome.
    let _ = router.submit(Pass::NODE, Command::Conclude(DecisionOutcome { id, outcome })).await;
    result
}

impl Handler<Concluded> for Driver {
    type Result = ();

    fn handle(&mut self, concluded: Concluded, _: &mut Self::Context) {
        let Concluded { id, result } = concluded;
        if let Err(error) = result {
            tracing::info!(id, error = error.text(), "a step of placement came to nothing");
            metrics::step_failed();
        }
        self.under_way.retain(|_, own| *own != id);
    }
}

//! Placement at work. On every node: what it has and does, sent to the spine's leader about once a
//! second. On the node that leads the spine: a survey of all that, a plan (`flotilla_placement`), and
//! its steps carried out. What is decided here is only what to wait for.
//!
//! Nothing is remembered that a new leader would need: it goes on with what its own survey shows.

mod beat;
mod measure;
mod policy;
mod sizes;
mod steps;
mod surveyor;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use flotilla_core::NodeId;
use flotilla_core::proto::internal::{ComplaintInfo, Heartbeat, Member};
use flotilla_core::time::{Length, Time};
use flotilla_placement::{Plan, Policy, Survey, plan};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::config::Config;
use crate::metrics;
use crate::range::{Beat, Look, Looked, Meters, SpineActor};
use crate::router::{Overview, Router};
use beat::Beater;
use measure::{Found, Jobs};
use steps::Target;
use surveyor::Surveyor;

pub use measure::{Findings, Measurer};

/// How often a node tells of itself where there are few ranges.
const HEARTBEAT_EVERY: Length = Length::from_secs(1);
/// It rests longer for each range of the cluster, so that ranges nobody uses cost little: with ten
/// thousand it tells every eleven seconds.
const REST_PER_RANGE: Length = Length::from_ms(1);

/// What the driver works with.
pub struct Parts {
    /// Flags.
    pub config: Arc<Config>,
    /// Commands go through it, as a client's do.
    pub router: Router,
    /// The spine's replica on this node.
    pub spine: Addr<SpineActor>,
    /// What is asked of the ranges that are led here.
    pub meters: Arc<Meters>,
}

/// Drives placement on this node.
pub struct Driver {
    router: Router,
    spine: Addr<SpineActor>,
    meters: Arc<Meters>,
    policy: Policy,
    /// Between two plans; `None`: nothing is planned.
    interval: Option<Length>,
    beater: Beater,
    jobs: Jobs,
    surveyor: Surveyor,
    /// Steps by what they change, each with the id of its decision.
    under_way: BTreeMap<Target, u64>,
    is_concluding: bool,
    /// Steps that nothing here can carry out, and when they were refused last.
    refused: BTreeMap<flotilla_placement::Step, Time>,
    planned: Option<Time>,
    /// When the newest heartbeat was made, and how long it was to be the newest.
    looked: Option<Time>,
    rest: Length,
    is_planning: bool,
    is_looking: bool,
    /// What people call the members, by the id that plans have.
    names: BTreeMap<String, String>,
    heartbeats: Option<mpsc::Receiver<(NodeId, Heartbeat)>>,
    findings: Option<Findings>,
}

impl Driver {
    /// A driver around its parts. `heartbeats` are those that come to this node.
    pub fn new(
        parts: Parts,
        measurer: &Measurer,
        findings: Findings,
        heartbeats: mpsc::Receiver<(NodeId, Heartbeat)>,
    ) -> Self {
        let Parts { config, router, spine, meters } = parts;
        let policy = policy::of_config(&config);
        let (board, limit) = (router.board().clone(), policy::limit(&policy));
        let interval = u64::try_from(config.placement_interval.as_micros()).unwrap_or(u64::MAX);
        Self {
            beater: Beater::new(meters.clone(), board, config.zone.clone(), limit),
            router,
            spine,
            meters,
            policy,
            interval: (interval > 0).then_some(Length(interval)),
            jobs: measurer.jobs(),
            surveyor: Surveyor::default(),
            under_way: BTreeMap::new(),
            is_concluding: false,
            refused: BTreeMap::new(),
            planned: None,
            looked: None,
            rest: Length(0),
            is_planning: false,
            is_looking: false,
            names: BTreeMap::new(),
            heartbeats: Some(heartbeats),
            findings: Some(findings),
        }
    }

    /// Looks at the spine; `on_looked` goes on.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = self.meters.now();
        // The timer is not exact.
        let rest = Length(self.rest.0.saturating_sub(HEARTBEAT_EVERY.0 / 2));
        if self.looked.is_some_and(|at| now.since(at) < rest) {
            return;
        }
        if std::mem::replace(&mut self.is_looking, true) {
            return;
        }
        let looking = self.spine.send(Look).into_actor(self);
        ctx.spawn(looking.map(|looked, driver, ctx| {
            driver.is_looking = false;
            // The spine's actor ends with the node.
            if let Ok(looked) = looked {
                driver.on_looked(&looked, ctx);
            }
        }));
    }

    fn on_looked(&mut self, looked: &Looked, ctx: &mut Context<Self>) {
        let now = self.meters.now();
        self.looked = Some(now);
        self.rest = Length(HEARTBEAT_EVERY.0 + REST_PER_RANGE.0 * looked.ranges.len() as u64);
        let heartbeat = self.beater.beat(now, looked);
        metrics::led(&heartbeat, looked.ranges.len());
        while let Some(job) = self.beater.next_job(now) {
            if let Err(job) = self.jobs.try_send(job) {
                self.beater.not_taken(&job);
                break;
            }
        }
        if looked.status.is_leader {
            self.surveyor.lead(now, looked.status.term, self.rest);
            self.surveyor.hear(now, looked.status.leader.unwrap_or_default(), heartbeat);
            self.survey(now, looked, ctx);
        } else {
            self.leave();
            // A full mailbox means that clients come first.
            let _ = self.spine.try_send(Beat(heartbeat));
        }
    }

    /// Another node leads: what is under way here ends by itself.
    fn leave(&mut self) {
        self.planned = None;
        self.refused.clear();
        self.under_way.clear();
        self.router.board().overview().change(|overview| {
            if overview.is_surveyed {
                *overview = Overview::default();
            }
        });
    }

    fn survey(&mut self, now: Time, looked: &Looked, ctx: &mut Context<Self>) {
        let (ranges, nodes) =
            (self.surveyor.range_infos(now, looked), self.surveyor.node_infos(now, looked));
        self.router.board().overview().change(|overview| {
            overview.is_surveyed = true;
            (overview.ranges, overview.nodes) = (ranges, nodes);
            overview.leases_count = looked.leases_count;
            overview.leases_ending.clone_from(&looked.leases_ending);
        });
        self.names = names(&looked.members);
        self.conclude_abandoned(looked, ctx);
        let is_due = self.interval.is_some_and(|interval| {
            self.planned.is_none_or(|planned| now.since(planned) >= interval)
        });
        if !is_due || self.is_planning || !self.surveyor.is_ready(now) {
            return;
        }
        (self.planned, self.is_planning) = (Some(now), true);
        let policy = policy::for_cluster(&self.policy, looked);
        let changing = self.changing();
        let mut survey = self.surveyor.survey(now, looked, &policy, &changing);
        // They are served by whichever node is asked: who leads the range does not matter to them.
        survey.ranges.values_mut().for_each(|range| range.load.reads_per_second = 0);
        let planning = tokio::task::spawn_blocking(move || {
            let plan = plan(&survey, &policy);
            (survey, policy, plan)
        });
        let term = looked.status.term;
        ctx.spawn(planning.into_actor(self).map(move |planned, driver, ctx| {
            driver.is_planning = false;
            // A panic has ended the process, and a stopping node drops the work.
            if let Ok((survey, policy, plan)) = planned {
                driver.on_planned(term, &survey, &policy, plan, ctx);
            }
        }));
    }

    /// A text of a plan with its members named. Ids have so many digits that nothing else looks like
    /// one.
    fn named(&self, mut text: String) -> String {
        for (id, name) in &self.names {
            if text.contains(id.as_str()) {
                text = text.replace(id.as_str(), name);
            }
        }
        text
    }

    fn on_planned(
        &mut self,
        term: u64,
        survey: &Survey,
        policy: &Policy,
        plan: Plan,
        ctx: &mut Context<Self>,
    ) {
        let status = self.router.board().notice().status;
        if !status.is_leader || status.term != term {
            return;
        }
        let complaints = plan.complaints.into_iter().map(|complaint| ComplaintInfo {
            about: self.named(complaint.about.to_string()),
            reason: self.named(complaint.reason),
        });
        let complaints: Vec<ComplaintInfo> = complaints.collect();
        metrics::complaints(complaints.len());
        let overview = self.router.board().overview();
        for complaint in overview.change(|overview| {
            let news = complaints.iter().filter(|it| !overview.complaints.contains(it)).cloned();
            let news: Vec<ComplaintInfo> = news.collect();
            overview.complaints = complaints;
            news
        }) {
            tracing::info!(
                about = complaint.about,
                reason = complaint.reason,
                "placement cannot help"
            );
        }
        for decision in &plan.decisions {
            self.begin(survey, policy, decision, ctx);
        }
    }
}

/// Names where they tell members apart, else ids as they are shown everywhere.
fn names(members: &[Member]) -> BTreeMap<String, String> {
    let is_unique = |name: &str| members.iter().filter(|other| other.name == name).count() == 1;
    let name = |member: &Member| match member.name.as_str() {
        "" => format!("{:x}", member.id),
        name if is_unique(name) => name.to_owned(),
        _ => format!("{:x}", member.id),
    };
    members.iter().map(|member| (member.id.to_string(), name(member))).collect()
}

impl Actor for Driver {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let heartbeats = self.heartbeats.take().expect("an actor is started once");
        ctx.add_stream(ReceiverStream::new(heartbeats));
        let Findings(findings) = self.findings.take().expect("an actor is started once");
        ctx.add_stream(ReceiverStream::new(findings));
        ctx.run_interval(Duration::from_micros(HEARTBEAT_EVERY.0), |driver, ctx| driver.look(ctx));
        self.look(ctx);
    }
}

impl StreamHandler<(NodeId, Heartbeat)> for Driver {
    fn handle(&mut self, (from, heartbeat): (NodeId, Heartbeat), _: &mut Self::Context) {
        self.surveyor.hear(self.meters.now(), from, heartbeat);
    }

    fn finished(&mut self, _: &mut Self::Context) {
        // The spine's actor ends with the node.
    }
}

impl StreamHandler<Found> for Driver {
    fn handle(&mut self, found: Found, _: &mut Self::Context) {
        self.beater.learn(found);
    }

    fn finished(&mut self, _: &mut Self::Context) {
        // The thread is ended when the node stops, and the node goes on for a moment.
    }
}

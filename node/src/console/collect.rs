//! Looks at the cluster, again and again: at what this node knows, and at what the others tell.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use flotilla_core::mvcc::Head;
use flotilla_core::proto::internal::{HotResponse, Member, MemberView, RangeSurvey, SurveyView};
use futures::future::join_all;

use super::history::Sample as Moment;
use super::{Desk, LOOK_EVERY, Teller};
use crate::metrics::sample::Sample;
use crate::metrics::shown::Shown;
use crate::peer;
use crate::router::{Notice, now_ms};
use crate::tls::Connector;

/// A node that starts learns much at once, and rates are of two looks: the first ones come soon.
const SOON: Duration = Duration::from_secs(1);
const LOOKS_SOON: usize = 6;

/// The cluster at one look.
pub(super) struct Picture {
    /// When, in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// The asked node.
    pub(super) me: u64,
    pub(super) cluster_id: u64,
    pub(super) head: Head,
    /// Ranges, members and alarms as the asked node knows them.
    pub(super) notice: Notice,
    /// By id: the members that told.
    pub(super) seen: BTreeMap<u64, Seen>,
    /// Nothing while the spine's leader is not reached.
    pub(super) survey: Option<Survey>,
}

/// What a member told.
pub(super) struct Seen {
    pub(super) version: String,
    pub(super) hot: HotResponse,
    /// None at the first look at it.
    pub(super) shown: Option<Shown>,
    sample: Arc<Sample>,
    at: Instant,
}

/// What the spine's leader told.
pub(super) struct Survey {
    pub(super) told: SurveyView,
    /// By range.
    pub(super) ranges: BTreeMap<u64, RangeSurvey>,
}

impl Survey {
    pub(super) fn new(mut told: SurveyView) -> Self {
        let ranges = std::mem::take(&mut told.ranges).into_iter();
        let ranges = ranges.map(|it| (it.range, it.survey.unwrap_or_default())).collect();
        Self { told, ranges }
    }
}

impl Picture {
    /// What this node knows by itself, before the first look.
    pub(super) fn first(teller: &Teller) -> Self {
        let board = teller.router.board();
        Self {
            time_ms: now_ms(),
            me: board.member_id(),
            cluster_id: board.cluster_id(),
            head: teller.router.head(),
            notice: board.notice(),
            seen: BTreeMap::new(),
            survey: None,
        }
    }

    /// Takes what the members told. Of several that say they lead, the later term counts.
    fn with(mut self, told: Vec<MemberView>, before: &Self) -> Self {
        let at = Instant::now();
        for view in told {
            let MemberView { member, version, metrics, hot, survey, .. } = view;
            let sample = Arc::new(Sample::read(&metrics));
            let shown = before.seen.get(&member).map(|seen| {
                let seconds = at.duration_since(seen.at).as_secs_f64().max(f64::MIN_POSITIVE);
                Shown::between(&seen.sample, &sample, seconds)
            });
            let hot = hot.unwrap_or_default();
            self.seen.insert(member, Seen { version, hot, shown, sample, at });
            let known = self.survey.as_ref().map(|known| known.told.term);
            if let Some(survey) = survey.filter(|it| known.is_none_or(|known| it.term > known)) {
                self.survey = Some(Survey::new(survey));
            }
        }
        self
    }
}

/// Looks until the node stops.
pub(super) async fn run(desk: Arc<Desk>, tls: Connector) {
    for _ in 0..LOOKS_SOON {
        look(&desk, &tls).await;
        tokio::time::sleep(SOON).await;
    }
    loop {
        look(&desk, &tls).await;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(desk: &Desk, tls: &Connector) {
    let picture = Picture::first(&desk.teller);
    let (me, cluster_id) = (picture.me, picture.cluster_id);
    let others = picture.notice.members.iter().filter(|member| member.id != me);
    let others = others.map(|member| ask(tls, member, cluster_id));
    let (own, others) = futures::join!(own(&desk.teller), join_all(others));
    let told = own.into_iter().chain(others.into_iter().flatten()).collect();
    let picture = Arc::new(picture.with(told, &desk.picture()));
    let moment = Moment::of(&picture);
    desk.history.lock().unwrap_or_else(PoisonError::into_inner).push(moment);
    *desk.picture.write().unwrap_or_else(PoisonError::into_inner) = picture;
}

async fn own(teller: &Teller) -> Option<MemberView> {
    let teller = teller.clone();
    // Only a node that stops drops the work; a panic has ended the process.
    tokio::task::spawn_blocking(move || teller.view()).await.ok()
}

/// None if it is not reached, or is of a version that does not tell.
async fn ask(tls: &Connector, member: &Member, cluster_id: u64) -> Option<MemberView> {
    for url in &member.peer_urls {
        match peer::fetch_view(tls, url, cluster_id).await {
            Ok(view) if view.member == member.id => return Some(view),
            Ok(view) => tracing::debug!(url, member = view.member, "another member answered"),
            Err(error) => tracing::debug!(url, %error, "a member does not tell how it stands"),
        }
    }
    None
}

//! Clients: each makes one call at a time, once, at any node, and writes down what it knows of the
//! outcome. Also what the API of a node does with a call before and after the machine.

use flotilla_core::Error;
use flotilla_core::auth::Pass;
use flotilla_core::command::{Answer as CommandAnswer, Command, Outcome as CommandOutcome};
use flotilla_core::mvcc;
use flotilla_core::proto::etcdserverpb::{self as pb, RangeRequest, ResponseHeader, TxnRequest};

use super::event::{Event, NodeEvent};
use super::mutant::Mutant;
use super::node::Waiting;
use super::plan::{Focus, MS};
use super::world::{CLUSTER_ID, Phase, World};
use crate::history::{Answer, ClientId, Code, Operation, Outcome, Refused, Request};
use crate::model::Refusal;
use crate::traffic::Outlook;

/// Mean time between a client and a node, in microseconds.
const DISTANCE_MEAN: u64 = 300;
/// etcd's default of --max-txn-ops.
const TXN_OPS_MAX: usize = 128;

/// A client.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// The call it waits for.
    pub(super) waits_for: Option<usize>,
    /// Set while the client must be served by this node: which, and what is still to be done.
    pub(super) must: Option<(u64, Must)>,
}

/// Writes and reads that every node must serve at the end of a run, however little was served
/// before: enough for a verdict.
pub(super) const ROUNDS: u32 = 4;

/// What a client asks of a node at the end of a run, and how many rounds come after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Must {
    Write(u32),
    Read(u32),
    Nothing,
}

impl World {
    pub(super) fn begin_clients(&mut self) {
        for client in 0..self.plan.traffic.clients_count as usize {
            let wait = self.chance.below(500 * MS);
            if self.reduction.clients_max.is_some_and(|max| client >= max as usize) {
                self.queue.skip(1);
                continue;
            }
            self.clients.push(Client::default());
            self.after(wait, Event::Call(client));
        }
    }

    /// What a client named `name` in its values asks next.
    fn draw_request(&mut self, name: &str) -> Request {
        let mut chance = self.chance.fork(3);
        let mut outlook = Outlook {
            has_other_keys: false,
            hot: self.plan.traffic.hot,
            keys_count: self.plan.traffic.keys_count,
            weights: &self.plan.traffic.weights,
            revision_seen: self.revision_seen,
            leases: &self.leases,
            leases_count: &mut self.leases_count,
            attached_one_in: self.plan.traffic.attached_one_in,
            kept_one_in: self.plan.traffic.kept_one_in,
            is_about_past: self.plan.traffic.focus == Some(Focus::History),
        };
        outlook.draw_request(name, &mut chance)
    }

    /// A client makes its next call.
    pub(super) fn call(&mut self, client: usize) {
        if self.clients[client].waits_for.is_some() {
            return;
        }
        let number = self.operations.len();
        let (to, request) = match (self.phase, self.clients[client].must) {
            (Phase::Trouble, _) => {
                let up = self.up_ids();
                if up.is_empty() {
                    self.after(20 * MS, Event::Call(client));
                    return;
                }
                let to = *self.chance.pick(&up);
                (to, self.draw_request(&format!("c{number}")))
            }
            (Phase::Serving, Some((to, Must::Write(_)))) => {
                let put = pb::PutRequest {
                    key: format!("end{to}").into(),
                    value: format!("c{number}").into(),
                    ..pb::PutRequest::default()
                };
                (to, Request::Put(put))
            }
            (Phase::Serving, Some((to, Must::Read(_)))) => {
                let all = bytes::Bytes::from_static(&[0]);
                let range =
                    RangeRequest { key: all.clone(), range_end: all, ..RangeRequest::default() };
                (to, Request::Read(range))
            }
            _ => return,
        };
        let id = u32::try_from(client).expect("few clients");
        self.say(|| format!("call {number} of client {client} at node {to}: {request}"));
        self.operations.push(Operation {
            client: ClientId(id),
            invoked: self.now,
            returned: None,
            request,
            outcome: Outcome::Unknown,
        });
        self.clients[client].waits_for = Some(number);
        self.begin_call(number);
        let wait = 1 + self.chance.wait(DISTANCE_MEAN);
        if self.nodes[&to].running.is_some() {
            self.on_node(to, wait, NodeEvent::Request(number));
        }
        self.after(self.plan.traffic.patience, Event::GiveUp(number));
    }

    pub(super) fn give_up(&mut self, operation: usize) {
        let client = self.operations[operation].client.0 as usize;
        if self.clients[client].waits_for == Some(operation) {
            self.see("call given up");
            self.next_call(client);
        }
    }

    fn next_call(&mut self, client: usize) {
        self.clients[client].waits_for = None;
        let wait = 1 + self.chance.wait(self.plan.traffic.think_mean);
        self.after(wait, Event::Call(client));
    }

    pub(super) fn return_outcome(&mut self, operation: usize, outcome: Outcome) {
        let client = self.operations[operation].client.0 as usize;
        if self.clients[client].waits_for != Some(operation) {
            return;
        }
        self.say(|| match &outcome {
            Outcome::Answered(answer) => {
                format!("call {operation} is answered at revision {}", answer.revision())
            }
            Outcome::Refused(refused) => format!("call {operation} is refused: {}", refused.text),
            Outcome::Unknown => format!("call {operation} has an unknown outcome"),
        });
        if let Outcome::Answered(answer) = &outcome
            && !answer.fits(&self.operations[operation].request)
        {
            self.invariants
                .break_with(format!("call {operation} has another's answer: {answer:?}"));
            return;
        }
        if let Outcome::Answered(answer) = &outcome {
            self.check_permission(operation, answer);
        }
        self.learn(operation, &outcome);
        let record = &mut self.operations[operation];
        if outcome != Outcome::Unknown {
            record.returned = Some(self.now);
        }
        record.outcome = outcome;
        self.next_call(client);
    }

    /// What later calls are drawn from.
    fn learn(&mut self, operation: usize, outcome: &Outcome) {
        let Outcome::Answered(answer) = outcome else { return };
        self.trace.number(answer.revision().cast_unsigned());
        self.revision_seen = self.revision_seen.max(answer.revision());
        let client = self.operations[operation].client.0 as usize;
        match (&self.operations[operation].request, answer) {
            (Request::LeaseGrant(_), Answer::LeaseGrant(answer)) => {
                self.leases.insert(answer.id);
            }
            (Request::LeaseRevoke(request), _) => {
                self.leases.remove(&request.id);
            }
            (Request::Put(_), _) if self.phase == Phase::Serving => {
                if let Some((_, must)) = &mut self.clients[client].must
                    && let Must::Write(left) = *must
                {
                    *must = Must::Read(left);
                }
            }
            (Request::Read(_), _) if self.phase == Phase::Serving => {
                if let Some((_, must)) = &mut self.clients[client].must
                    && let Must::Read(left) = *must
                {
                    *must = left.checked_sub(1).map_or(Must::Nothing, Must::Write);
                }
            }
            _ => {}
        }
    }
}

// The API of a node.
impl World {
    pub(super) fn on_request(&mut self, id: u64, operation: usize) {
        // A node listens to clients once it has something to show.
        if self.up(id).stage.reach().shown.index == 0 {
            return;
        }
        let request = self.operations[operation].request.clone();
        let command = match request {
            Request::Read(request) => {
                if let Err(error) = mvcc::check_range(&request) {
                    return self.refuse(id, operation, error);
                }
                let is_local = request.serializable || self.is_mutant(Mutant::ReadWithoutIndex);
                return self.begin_read(id, operation, is_local);
            }
            Request::Txn(request) => {
                if let Err(error) = mvcc::check_txn(&request, TXN_OPS_MAX) {
                    return self.refuse(id, operation, error);
                }
                if mvcc::is_read_only(&request) {
                    let is_local =
                        mvcc::is_serializable(&request) || self.is_mutant(Mutant::ReadWithoutIndex);
                    return self.begin_read(id, operation, is_local);
                }
                if self.is_mutant(Mutant::TxnDecidedEarly) {
                    return self.decide_early(id, operation, request);
                }
                Command::Txn(request)
            }
            Request::Put(request) => {
                if let Err(error) = mvcc::check_put(&request) {
                    return self.refuse(id, operation, error);
                }
                Command::Put(request)
            }
            Request::DeleteRange(request) => {
                if let Err(error) = mvcc::check_delete(&request) {
                    return self.refuse(id, operation, error);
                }
                Command::DeleteRange(request)
            }
            Request::Compact(request) => Command::Compact(request),
            Request::LeaseGrant(request) => Command::LeaseGrant(request),
            Request::LeaseRevoke(request) => Command::LeaseRevoke(request),
            Request::LeaseKeepAlive(request) => Command::LeaseKeepAlive(request),
            Request::LeaseTimeToLive(request) => Command::LeaseTimeToLive(request),
            Request::LeaseLeases(_) => return,
        };
        match self.permit(id, operation) {
            Ok(pass) => self.submit(id, pass, command, Waiting::Call(operation)),
            Err(error) => self.refuse(id, operation, error),
        }
    }

    fn begin_read(&mut self, id: u64, operation: usize, is_local: bool) {
        if is_local {
            self.evaluate_read(id, operation);
        } else {
            self.submit_ticket(id, operation);
        }
    }

    pub(super) fn answer_ticket(&mut self, id: u64, n: u64, result: Result<(), Error>) {
        let running = self.up(id);
        let is_first = running.replied.insert(n);
        let Some(operation) = running.tickets.remove(&n).filter(|_| is_first) else {
            self.invariants.break_with(format!("node {id} answers ticket {n} twice"));
            return;
        };
        match result {
            Ok(()) => {
                let wait = self.chance.wait(20);
                self.on_node(id, wait, NodeEvent::Evaluate(operation));
            }
            Err(error) => self.answer_error(id, operation, error),
        }
    }

    pub(super) fn answer_call(
        &mut self,
        id: u64,
        operation: usize,
        outcome: CommandOutcome,
        decided: Option<bool>,
    ) {
        let answer = match outcome {
            Err(error) => {
                let is_unknown = !is_certain(error);
                if is_unknown && self.is_mutant(Mutant::UnknownRetried) && decided.is_none() {
                    return self.on_request(id, operation);
                }
                if error == Error::AuthOldRevision {
                    self.see("refused by the order because users changed");
                }
                return self.answer_error(id, operation, error);
            }
            Ok(answer) => answer,
        };
        let answer = match answer {
            CommandAnswer::Put(answer) => Answer::Put(answer),
            CommandAnswer::DeleteRange(answer) => Answer::DeleteRange(answer),
            CommandAnswer::Txn(mut answer) => {
                if let Some(branch) = decided {
                    answer.succeeded = branch;
                }
                Answer::Txn(answer)
            }
            CommandAnswer::Compact(answer) => Answer::Compact(answer),
            CommandAnswer::LeaseGrant(answer) => Answer::LeaseGrant(answer),
            CommandAnswer::LeaseRevoke(answer) => Answer::LeaseRevoke(answer),
            CommandAnswer::LeaseKeepAlive(answer) => Answer::LeaseKeepAlive(answer),
            CommandAnswer::LeaseTimeToLive(answer) => {
                let request = &self.operations[operation].request;
                let wants_keys =
                    matches!(request, Request::LeaseTimeToLive(request) if request.keys);
                if wants_keys && answer.granted_ttl != 0 {
                    self.up(id).without_keys.insert(operation, answer);
                    return self.submit_ticket(id, operation);
                }
                Answer::LeaseTimeToLive(answer)
            }
            CommandAnswer::MemberAdd(_)
            | CommandAnswer::MemberRemove(_)
            | CommandAnswer::MemberUpdate(_)
            | CommandAnswer::MemberPromote(_)
            | CommandAnswer::SpineVote(_)
            | CommandAnswer::MemberAttributes(_)
            | CommandAnswer::MemberDrain(_)
            | CommandAnswer::Decide(_)
            | CommandAnswer::Conclude(_)
            | CommandAnswer::Replicas(_)
            | CommandAnswer::ReplicasWanted(_)
            | CommandAnswer::Alarm(_)
            | CommandAnswer::MoveLeader(_)
            | CommandAnswer::Split(_)
            | CommandAnswer::Merge(_)
            | CommandAnswer::AuthChange(_)
            | CommandAnswer::AuthToken(_) => {
                self.invariants.break_with(format!("call {operation} has another's answer"));
                return;
            }
        };
        self.answer(id, operation, Outcome::Answered(answer));
    }

    pub(super) fn answer_error(&mut self, id: u64, operation: usize, error: Error) {
        if is_certain(error) {
            self.refuse(id, operation, error);
        } else {
            self.see("unknown outcome");
            self.answer(id, operation, Outcome::Unknown);
        }
    }

    fn refuse(&mut self, id: u64, operation: usize, error: Error) {
        let code = Code(i32::from(error.code() as u8));
        let refused = Refused { code, text: error.text().to_owned() };
        self.answer(id, operation, Outcome::Refused(refused));
    }

    pub(super) fn answer(&mut self, id: u64, operation: usize, mut outcome: Outcome) {
        if let Outcome::Answered(answer) = &mut outcome {
            fill_header(
                id,
                self.nodes[&id].running.as_ref().map_or(0, |it| it.status.term),
                answer,
            );
        }
        let wait = 1 + self.chance.wait(DISTANCE_MEAN);
        self.after(wait, Event::Return(operation, outcome));
    }

    /// The mutant that chooses the branch of a transaction when it arrives.
    fn decide_early(&mut self, id: u64, operation: usize, request: TxnRequest) {
        let probe = TxnRequest {
            compare: request.compare.clone(),
            success: Vec::new(),
            failure: Vec::new(),
        };
        let node = &self.nodes[&id];
        let head = node.running.as_ref().expect("it is up").stage.shown().head;
        let Ok(answer) = mvcc::read_txn(&node.store.view, head, &probe) else { return };
        let branch = answer.succeeded;
        let success = if branch { request.success } else { request.failure };
        let decided = TxnRequest { compare: Vec::new(), success, failure: Vec::new() };
        let waiting = Waiting::Decided(operation, branch);
        self.submit(id, Pass::NOBODY, Command::Txn(decided), waiting);
    }

    /// Something the simulator itself asks of a node.
    pub(super) fn ask(&mut self, id: u64, command: Command, own: super::node::OwnCommand) {
        self.submit(id, Pass::NODE, command, Waiting::Own(own));
    }
}

/// Whether a request that was refused like this has certainly changed nothing.
fn is_certain(error: Error) -> bool {
    Refusal::from_text(error.text()).is_some()
        || matches!(
            error,
            Error::TooManyRequests
                | Error::LeaderChanged
                | Error::RequestTooLarge
                | Error::NoSpace
                | Error::NotLeader
                | Error::UserEmpty
                | Error::PermissionDenied
                | Error::AuthOldRevision
        )
}

/// The node that talks to the client fills in what it knows.
fn fill_header(id: u64, term: u64, answer: &mut Answer) {
    let header: &mut Option<ResponseHeader> = match answer {
        Answer::Read(answer) => &mut answer.header,
        Answer::Put(answer) => &mut answer.header,
        Answer::DeleteRange(answer) => &mut answer.header,
        Answer::Txn(answer) => &mut answer.header,
        Answer::Compact(answer) => &mut answer.header,
        Answer::LeaseGrant(answer) => &mut answer.header,
        Answer::LeaseRevoke(answer) => &mut answer.header,
        Answer::LeaseKeepAlive(answer) => &mut answer.header,
        Answer::LeaseTimeToLive(answer) => &mut answer.header,
        Answer::LeaseLeases(answer) => &mut answer.header,
    };
    if let Some(header) = header {
        header.cluster_id = CLUSTER_ID;
        header.member_id = id;
        header.raft_term = term;
    }
}

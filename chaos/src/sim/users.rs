//! Users: authentication is turned on under traffic, permissions come and go at random at any node,
//! and every answer is held against the users and roles at its place in the order. No answer may tell
//! of a key, and no write may touch one, that its caller had no permission for there; and nothing is
//! let in by a permission that was gone when the call was made.
//!
//! What is attached to leases is left out: see docs/auth.md.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_core::Error;
use flotilla_core::auth::{Auth, Caller, Needs, News, Pass};
use flotilla_core::command::Command;
use flotilla_core::mvcc::lease_keys;
use flotilla_core::proto::authpb::{Permission, permission::Type};
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::internal::{AuthChange, auth_change::What};
use flotilla_core::spine::apply::Task;

use super::event::NodeEvent;
use super::mutant::Mutant;
use super::node::OwnCommand;
use super::plan::MS;
use super::world::{Phase, World};
use crate::history::{Answer, Outcome, Request};

/// A read that is not let in yet is tried again after this.
const AGAIN_PAUSE: u64 = MS;
/// Users beside root, and the role of each.
const NAMES: [(&str, &str); 2] = [("alice", "a"), ("bob", "b")];
/// One call in so many is made by nobody.
const NOBODY_ONE_IN: u64 = 16;

/// What is known of users and of who makes which call.
#[derive(Debug, Default)]
pub(super) struct Users {
    calls: BTreeMap<usize, Call>,
    /// Users and roles by the index of the change that made them so.
    states: BTreeMap<u64, Arc<Auth>>,
    /// The first entry after which the store is at a revision or above it.
    firsts: BTreeMap<i64, u64>,
    /// The newest entry that some node has folded.
    newest: u64,
}

#[derive(Debug)]
struct Call {
    caller: Caller,
    /// The newest change that some node had folded when the call was made.
    known: u64,
    /// What a read was let in with.
    pass: Pass,
}

impl Users {
    /// The users and roles after this entry.
    fn after(&self, index: u64) -> Option<&Arc<Auth>> {
        self.states.range(..=index).next_back().map(|(_, auth)| auth)
    }

    /// The entries after which the store is at a revision: the first, and the last if there is one.
    fn entries(&self, revision: i64) -> Option<(u64, u64)> {
        let (_, first) = self.firsts.range(revision..).next()?;
        let next = self.firsts.range(revision + 1..).next();
        Some((*first, next.map_or(u64::MAX, |(_, next)| next - 1)))
    }
}

// What the API of a node does.
impl World {
    /// A call is made.
    pub(super) fn begin_call(&mut self, operation: usize) {
        if self.users.is_none() {
            return;
        }
        let client = self.operations[operation].client.0 as usize;
        let caller = if self.phase > Phase::Trouble {
            Caller::user("root")
        } else if self.chance.one_in(NOBODY_ONE_IN) {
            Caller::default()
        } else {
            Caller::user(NAMES[client % NAMES.len()].0)
        };
        let users = self.users.as_mut().expect("there are users");
        let known = users.states.last_key_value().map_or(0, |(index, _)| *index);
        users.calls.insert(operation, Call { caller, known, pass: Pass::NOBODY });
    }

    /// What a command is let in with by a node.
    pub(super) fn permit(&mut self, id: u64, operation: usize) -> Result<Pass, Error> {
        let Some(users) = &self.users else { return Ok(Pass::NOBODY) };
        let Some(needs) = needs(&self.operations[operation].request) else {
            return Ok(Pass::NODE);
        };
        let node = &self.nodes[&id];
        let auth = node.running.as_ref().expect("it is up").replica.state().auth().clone();
        let keys_of = |lease| lease_keys(&node.store.view, lease).map_err(|_| Error::Stopped);
        let permitted = auth.check(&users.calls[&operation].caller, &needs, keys_of);
        if permitted == Err(Error::PermissionDenied) {
            self.see("permission denied");
        }
        match self.is_mutant(Mutant::PassForgotten) {
            true => permitted.map(|_| Pass::NODE),
            false => permitted,
        }
    }

    /// Whether a read may go on. Otherwise it is answered, or tried again.
    pub(super) fn permit_read(&mut self, id: u64, operation: usize) -> bool {
        if self.users.is_none() {
            return true;
        }
        let request = &self.operations[operation].request;
        // Users of these runs may see which leases there are.
        let Some(needs) = needs(request) else { return true };
        let shown = self.up(id).stage.reach().shown.index;
        let auth = self.up(id).replica.state().auth().clone();
        let users = self.users.as_mut().expect("there are users");
        let call = users.calls.get_mut(&operation).expect("it was made");
        match auth.check(&call.caller, &needs, |_| Ok::<_, Error>(Vec::new())) {
            Err(error) => {
                self.see("read denied");
                self.answer_error(id, operation, error);
                false
            }
            // Who may read since a moment ago must not see what was deleted before.
            Ok(_) if auth.changed_at() > shown => {
                self.on_node(id, AGAIN_PAUSE, NodeEvent::Evaluate(operation));
                false
            }
            Ok(pass) => {
                call.pass = pass;
                true
            }
        }
    }

    /// Answers a read, if it would still be let in.
    pub(super) fn answer_read(&mut self, id: u64, operation: usize, answer: Answer) {
        if let Some(users) = &self.users {
            let pass = users.calls[&operation].pass;
            let admission = self.up(id).replica.state().auth().admission();
            if admission.admits(pass).is_err() {
                self.see("read done again because users changed");
                return self.on_node(id, AGAIN_PAUSE, NodeEvent::Evaluate(operation));
            }
        }
        self.answer(id, operation, Outcome::Answered(answer));
    }
}

// What is seen of the order, and the check.
impl World {
    pub(super) fn on_auth(&mut self, id: u64, news: News) {
        let (Some(users), News::Changed(auth, _)) = (&mut self.users, news) else { return };
        let index = auth.changed_at();
        let known = users.states.entry(index).or_insert_with(|| auth.clone());
        if *known != auth {
            let text = format!("node {id} has other users than others after entry {index}");
            self.invariants.break_inside(text);
        }
    }

    pub(super) fn on_entry_folded(&mut self, task: &Task) {
        let Some(users) = &mut self.users else { return };
        if task.position.index > users.newest {
            users.newest = task.position.index;
            users.firsts.entry(task.position.revision).or_insert(task.position.index);
        }
    }

    pub(super) fn check_permission(&mut self, operation: usize, answer: &Answer) {
        let Some(users) = &self.users else { return };
        let call = &users.calls[&operation];
        let request = &self.operations[operation].request;
        let Some(mut needs) = needs(request) else { return };
        needs.leases.clear();
        let permits = |auth: Option<&Arc<Auth>>| {
            auth.is_none_or(|auth| {
                auth.check(&call.caller, &needs, |_| Ok::<_, Error>(Vec::new())).is_ok()
            })
        };
        let revision = answer.revision();
        let Some((first, last)) = users.entries(revision) else { return };
        let is_permitted = if has_effect(answer) {
            // A change in the same entry that comes before it would have made its pass void, unless
            // authentication was turned off.
            let is_off = users.after(first).is_some_and(|auth| !auth.is_enabled());
            is_off || permits(users.after(first - 1))
        } else {
            let is_local = match request {
                Request::Read(read) => read.serializable,
                Request::Txn(txn) => flotilla_core::mvcc::is_serializable(txn),
                _ => false,
            };
            let from = if is_local { first } else { first.max(call.known) };
            let later = users.states.range(from..=last.max(from)).map(|(_, auth)| auth);
            permits(users.after(from)) || later.into_iter().any(|auth| permits(Some(auth)))
        };
        if !is_permitted {
            let text = format!(
                "permission: call {operation} of {:?} at revision {revision} had none after entries {first} to \
                 {last}, with {} known when it was made and changes after {:?}: {request}",
                call.caller.user,
                call.known,
                users.states.keys().rev().take(8).collect::<Vec<_>>(),
            );
            self.invariants.break_with(text);
        }
    }
}

// Changes.
impl World {
    /// Root asks some node to change something about users. The first time, to make them.
    pub(super) fn change_users(&mut self) {
        let up = self.up_ids();
        let Some(id) = (!up.is_empty()).then(|| *self.chance.pick(&up)) else { return };
        if self.nodes[&id].paused_until > self.now || self.up(id).stage.shown().index == 0 {
            return;
        }
        let auth = self.up(id).replica.state().auth().clone();
        let changes = match auth.is_enabled() {
            false => first_changes(),
            true => vec![self.draw_change(&auth)],
        };
        for what in changes {
            let change = AuthChange { user: "root".to_owned(), what: Some(what) };
            self.ask(id, Command::AuthChange(change), OwnCommand::ChangeUsers);
        }
    }

    fn draw_change(&mut self, auth: &Auth) -> What {
        let (user, role) = *self.chance.pick(&NAMES);
        let known = auth.role(role).map_or(&[][..], |role| role.permissions());
        match self.chance.below(20) {
            0 => What::Disable(pb::AuthDisableRequest {}),
            1 | 2 => {
                let (name, role) = (user.to_owned(), role.to_owned());
                What::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name, role })
            }
            3..=6 => grant_role(user, role),
            7..=11 if !known.is_empty() => {
                let Permission { key, range_end, .. } = self.chance.pick(known).clone();
                let role = role.to_owned();
                let revoke = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
                What::RoleRevokePermission(revoke)
            }
            _ => {
                let keys_count = self.plan.traffic.keys_count;
                let key = format!("k{}", self.chance.below(keys_count));
                let range_end = match self.chance.below(4) {
                    0 => Bytes::new(),
                    1 => Bytes::from_static(b"\0"),
                    // The key after the last.
                    2 => Bytes::from_static(b"l"),
                    _ => format!("k{}", self.chance.below(keys_count)).into(),
                };
                let kind = *self.chance.pick(&[Type::Read, Type::Write, Type::Readwrite]);
                grant(role, kind, key.into(), range_end)
            }
        }
    }
}

/// Root, two users who may do everything, and then it counts.
fn first_changes() -> Vec<What> {
    let user = |name: &str| {
        let (name, hashed_password) = (name.to_owned(), "a hash".to_owned());
        What::UserAdd(pb::AuthUserAddRequest { name, hashed_password, ..Default::default() })
    };
    let mut changes = vec![user("root"), grant_role("root", "root")];
    for (name, role) in NAMES {
        changes.push(user(name));
        changes.push(What::RoleAdd(pb::AuthRoleAddRequest { name: role.to_owned() }));
        let all = Bytes::from_static(b"\0");
        changes.push(grant(role, Type::Readwrite, all.clone(), all));
        changes.push(grant_role(name, role));
    }
    changes.push(What::Enable(pb::AuthEnableRequest {}));
    changes
}

fn grant_role(user: &str, role: &str) -> What {
    let (user, role) = (user.to_owned(), role.to_owned());
    What::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role })
}

fn grant(role: &str, kind: Type, key: Bytes, range_end: Bytes) -> What {
    let perm = Some(Permission { perm_type: kind.into(), key, range_end });
    What::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name: role.to_owned(), perm })
}

/// What a call needs; `None` if any user may make it.
fn needs(request: &Request) -> Option<Needs> {
    match request {
        Request::Read(request) => Some(Needs::of_range(request)),
        Request::Put(request) => Some(Needs::of_put(request)),
        Request::DeleteRange(request) => Some(Needs::of_delete(request)),
        Request::Txn(request) => Some(Needs::of_txn(request)),
        Request::LeaseRevoke(request) => Some(Needs::of_lease(flotilla_core::LeaseId(request.id))),
        Request::Compact(_)
        | Request::LeaseGrant(_)
        | Request::LeaseKeepAlive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseLeases(_) => None,
    }
}

/// Whether an answer is that of a write which changed something.
fn has_effect(answer: &Answer) -> bool {
    match answer {
        Answer::Put(_) => true,
        Answer::DeleteRange(answer) => answer.deleted > 0,
        Answer::Txn(answer) => txn_has_effect(answer),
        _ => false,
    }
}

fn txn_has_effect(answer: &pb::TxnResponse) -> bool {
    use pb::response_op::Response;
    answer.responses.iter().any(|op| match &op.response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(answer)) => answer.deleted > 0,
        Some(Response::ResponseTxn(answer)) => txn_has_effect(answer),
        Some(Response::ResponseRange(_)) | None => false,
    })
}

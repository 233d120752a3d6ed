//! What a pass is worth where a request takes its place in the order.

use bytes::Bytes;

use super::*;
use crate::auth::{Admission, News};
use crate::proto::Span;
use crate::proto::internal::{
    AuthToken, Effect, LeaseGrant, LeaseRevoke, Predicate, Record, Ref, Refs, Share, TxnCommit,
    Write, record::Body, void::Reason,
};
use crate::spine::State;
use crate::spine::state::Verdict;
use crate::view::Batch;
use crate::{GroupId, NodeId};

/// A state into which records are folded, each in an entry of its own.
struct Spine {
    state: State,
    rows: Batch,
}

impl Spine {
    fn new() -> Self {
        let mut state = State::bootstrap(7, Vec::new());
        state.pre_split(&[Bytes::from_static(b"m")], &[NodeId(1)]);
        Self { state, rows: Batch::default() }
    }

    fn fold(&mut self, body: Body) -> Verdict {
        let index = self.state.position().index + 1;
        self.state.enter(index, 1);
        self.state.fold(&Record { body: Some(body), ..Record::default() }, &mut self.rows)
    }

    fn change(&mut self, what: What) {
        let verdict = self.fold(Body::AuthChange(change("root", what)));
        assert!(matches!(verdict, Verdict::AuthNews(News::Changed(..))), "{verdict:?}");
    }

    fn enable(&mut self) {
        for what in [user_add("root"), user_grant("root", "root"), enable()] {
            self.change(what);
        }
    }

    fn pass(&self) -> u64 {
        self.state.auth().changed_at()
    }

    fn write(&mut self, pass: u64) -> Verdict {
        let effect = Effect { key: Bytes::from_static(b"a"), ..Effect::default() };
        self.fold(Body::Write(Write { effects: vec![effect], pass }))
    }

    /// Numbers writes of range 1 up to a sequence number, all but some let in with `pass`.
    fn number(&mut self, upto: u64, pass: u64, others: &[(u64, u64)]) -> (i64, Vec<(u64, Reason)>) {
        let named = others.iter().map(|(seq, pass)| {
            let (seq, pass) = (*seq, *pass);
            Predicate { seq, pass, ..Predicate::default() }
        });
        let predicates = named.collect();
        let refs = vec![Ref { range: 1, upto, pass, predicates, ..Ref::default() }];
        let Verdict::Assigned(assigned) = self.fold(Body::Refs(Refs { refs })) else {
            panic!("references number");
        };
        let (range, run) = &assigned[0];
        assert_eq!(*range, GroupId(1));
        (run.revision, run.voids.iter().map(|void| (void.seq, void.reason())).collect())
    }
}

#[test]
fn a_pass_holds_until_something_changes() {
    let admission = Admission { is_enabled: true, changed_at: 7 };
    let admits = |pass| admission.admits(Pass::from_number(pass));
    assert_eq!(admits(7), Ok(()));
    assert_eq!(admits(6), Err(Error::AuthOldRevision));
    assert_eq!(admits(8), Err(Error::AuthOldRevision));
    assert_eq!(admission.admits(Pass::NOBODY), Err(Error::UserEmpty));
    assert_eq!(admission.admits(Pass::NODE), Ok(()));
    let off = Admission { is_enabled: false, changed_at: 7 };
    for pass in [0, 6, 7, 8] {
        assert_eq!(off.admits(Pass::from_number(pass)), Ok(()), "{pass}");
    }
}

#[test]
fn a_write_of_range_0_is_void_if_users_changed_since_it_was_let_in() {
    let mut spine = Spine::new();
    assert_eq!(spine.write(0), Verdict::Numbered(2));
    spine.enable();
    assert_eq!(spine.write(0), Verdict::Rejected(Error::UserEmpty));
    let pass = spine.pass();
    assert_eq!(spine.write(pass), Verdict::Numbered(3));
    spine.change(user_add("x"));
    assert_eq!(spine.write(pass), Verdict::Rejected(Error::AuthOldRevision));
    assert_eq!(spine.state.position().revision, 3, "what is void has no revision");
    spine.change(disable());
    assert_eq!(spine.write(pass), Verdict::Numbered(4), "nobody is asked any more");
}

#[test]
fn a_write_of_another_range_is_void_if_users_changed_before_its_number() {
    let mut spine = Spine::new();
    assert_eq!(spine.number(2, 0, &[]), (2, vec![]));
    spine.enable();
    let old = spine.pass();
    spine.change(user_add("x"));
    let new = spine.pass();
    // Committed in its log before, numbered after: 3 as nobody, 4 and 5 with an old pass.
    let (nobody, changed) = (Reason::NoUser, Reason::AuthChanged);
    let numbered = spine.number(6, old, &[(3, 0), (6, new)]);
    assert_eq!(numbered, (4, vec![(3, nobody), (4, changed), (5, changed)]));
    // The other way around: what is said of all holds, and one that is named does not.
    assert_eq!(spine.number(9, new, &[(8, old)]), (5, vec![(8, changed)]));
    assert_eq!(spine.state.position().revision, 6);
    // Repeated, with more: what has its number keeps it.
    assert_eq!(spine.number(10, 0, &[]), (0, vec![(10, nobody)]));
}

#[test]
fn a_transaction_over_several_ranges_is_void_as_a_whole() {
    let mut spine = Spine::new();
    spine.enable();
    let old = spine.pass();
    spine.change(user_add("x"));
    let commit = |pass| {
        let shares = vec![Share { range: 1, prepared_at: 5, ..Share::default() }];
        Body::TxnCommit(TxnCommit { shares, pass, ranges: vec![1], ..TxnCommit::default() })
    };
    assert_eq!(spine.fold(commit(old)), Verdict::Rejected(Error::AuthOldRevision));
    assert_eq!(spine.fold(commit(0)), Verdict::Rejected(Error::UserEmpty));
    let new = spine.pass();
    assert_eq!(spine.fold(commit(new)), Verdict::Committed(2));
}

#[test]
fn a_lease_is_ended_by_whoever_may_or_by_time() {
    let mut spine = Spine::new();
    spine.enable();
    let old = spine.pass();
    for id in [1, 2] {
        assert_eq!(spine.fold(Body::LeaseGrant(LeaseGrant { id, ttl: 5 })), Verdict::Done);
    }
    spine.change(user_add("x"));
    let revoke = |id, pass, expired_in_term| {
        Body::LeaseRevoke(LeaseRevoke { id, pass, expired_in_term, ..LeaseRevoke::default() })
    };
    assert_eq!(spine.fold(revoke(1, old, 0)), Verdict::Rejected(Error::AuthOldRevision));
    assert_eq!(spine.fold(revoke(1, 0, 0)), Verdict::Rejected(Error::UserEmpty));
    assert_eq!(spine.fold(revoke(1, 0, 1)), Verdict::Done, "it expired");
    let new = spine.pass();
    assert_eq!(spine.fold(revoke(2, new, 0)), Verdict::Done);
}

/// A password that was right is of no use if it was changed before the token has its place.
#[test]
fn a_token_is_given_only_if_nothing_changed_since_the_password_was_looked_at() {
    let mut spine = Spine::new();
    let token = |pass| {
        let (user, letters) = ("root".to_owned(), "abc".to_owned());
        Body::AuthToken(AuthToken { user, letters, pass })
    };
    assert_eq!(spine.fold(token(0)), Verdict::Rejected(Error::AuthNotEnabled));
    spine.enable();
    let old = spine.pass();
    spine.change(password("root", "another"));
    assert_eq!(spine.fold(token(old)), Verdict::Rejected(Error::AuthOldRevision));
    let given = spine.fold(token(spine.pass()));
    let text = format!("abc.{}", spine.state.position().index);
    let user = "root".to_owned();
    assert_eq!(given, Verdict::AuthNews(News::Token { user, token: text }));
}

#[test]
fn changes_have_no_revision_and_are_in_the_store() {
    let mut spine = Spine::new();
    spine.state.write_all(&mut spine.rows);
    spine.enable();
    spine.change(role_add("r"));
    spine.change(role_grant("r", Type::Read, "a", "b"));
    spine.change(user_add("u"));
    spine.change(user_grant("u", "r"));
    spine.change(user_add("gone"));
    spine.change(user_delete("gone"));
    assert_eq!(spine.state.position().revision, 1);
    spine.state.position().write(&mut spine.rows);
    let mut store = crate::memory::MemoryView::new();
    store.apply(&spine.rows);
    let loaded = State::load(&store).unwrap().unwrap();
    assert_eq!(loaded.auth(), spine.state.auth());
    assert_eq!(loaded, spine.state);
    let span = Span::key(Bytes::from_static(b"a"));
    let user = loaded.auth().user("u").unwrap();
    assert!(loaded.auth().grants(user).allow(&span, crate::auth::Access::Read));
}

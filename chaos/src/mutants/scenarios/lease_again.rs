//! A lease expires; while its end is on its way, a client ends it and grants another with its id. What
//! was decided of the first must not end the second.

use flotilla_core::proto::internal::{LeaseGrant, LeaseRevoke, Member, Record, record::Body};
use flotilla_core::spine::State;
use flotilla_core::view::Batch;

use super::found;
use crate::sim::Finding;

const ID: i64 = 5;
const TERM: u64 = 1;

/// See the module.
pub fn lease_again() -> Result<(), Finding> {
    let mut state = State::bootstrap(1, vec![Member { id: 1, ..Member::default() }]);
    let mut rows = Batch::default();
    let mut index = 1;
    let mut fold = |state: &mut State, body: Body| {
        index += 1;
        state.enter(index, TERM);
        state.fold(&Record { body: Some(body), ..Record::default() }, &mut rows);
    };
    let grant = Body::LeaseGrant(LeaseGrant { id: ID, ttl: 10 });
    fold(&mut state, grant.clone());
    let granted_at = state.leases()[&ID].granted_at;
    fold(&mut state, Body::LeaseRevoke(LeaseRevoke { id: ID, ..LeaseRevoke::default() }));
    fold(&mut state, grant);
    let late = LeaseRevoke { id: ID, expired_in_term: TERM, granted_at, ..LeaseRevoke::default() };
    fold(&mut state, Body::LeaseRevoke(late));
    if !state.leases().contains_key(&ID) {
        return found("the end of a lease that had gone ended the next one with its id");
    }
    Ok(())
}

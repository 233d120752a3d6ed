//! Whether an answer is one that etcd may give, field by field, where the model has already
//! answered. Allows what etcd leaves open and nothing else.

use std::collections::BTreeSet;
use std::fmt;

use flotilla_proto::etcdserverpb::response_op::Response;
use flotilla_proto::etcdserverpb::{
    LeaseTimeToLiveResponse, RangeResponse, ResponseHeader, TxnResponse,
};
use flotilla_proto::mvccpb::KeyValue;

use crate::history::{Answer, print_pair};
use crate::model::Step;
use crate::model::read::{ReadOrder, SortKey};

/// The first field in which an answer is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where it is, as `responses[2].range.count`.
    pub field: String,
    /// What the model says, or allows.
    pub expected: String,
    /// What was answered.
    pub found: String,
}

/// Compares an answer with the model's.
///
/// Of the header only the revision is compared, and it must be there; the headers inside a
/// transaction carry nothing else. The remaining TTL of a lease is left out, for it depends on a
/// clock, but whether there is a lease is not. Lists that etcd does not order are compared as
/// sets.
pub fn agrees(expected: &Step, found: &Answer) -> Result<(), Difference> {
    header("header", &expected.answer, found)?;
    match (&expected.answer, found) {
        (Answer::Read(model), Answer::Read(answer)) => {
            let order = expected.orders.first().unwrap_or(&ReadOrder::Total);
            read("", model, order, answer)
        }
        (Answer::Put(model), Answer::Put(answer)) => {
            optional_pair("prev_kv", &model.prev_kv, &answer.prev_kv)
        }
        (Answer::DeleteRange(model), Answer::DeleteRange(answer)) => {
            same("deleted", &model.deleted, &answer.deleted)?;
            pairs("prev_kvs", &model.prev_kvs, &answer.prev_kvs)
        }
        (Answer::Txn(model), Answer::Txn(answer)) => {
            txn("", model, &mut expected.orders.iter(), answer)
        }
        (Answer::LeaseGrant(model), Answer::LeaseGrant(answer)) => {
            same("ID", &model.id, &answer.id)?;
            same("TTL", &model.ttl, &answer.ttl)?;
            same("error", &model.error, &answer.error)
        }
        (Answer::LeaseKeepAlive(model), Answer::LeaseKeepAlive(answer)) => {
            same("ID", &model.id, &answer.id)?;
            same("TTL", &model.ttl, &answer.ttl)
        }
        (Answer::LeaseTimeToLive(model), Answer::LeaseTimeToLive(answer)) => {
            time_to_live(model, answer)
        }
        (Answer::LeaseLeases(model), Answer::LeaseLeases(answer)) => {
            let ids = |it: &flotilla_proto::etcdserverpb::LeaseLeasesResponse| {
                let mut ids: Vec<i64> = it.leases.iter().map(|lease| lease.id).collect();
                ids.sort_unstable();
                ids
            };
            same("leases", &ids(model), &ids(answer))
        }
        (Answer::Compact(_), Answer::Compact(_))
        | (Answer::LeaseRevoke(_), Answer::LeaseRevoke(_)) => Ok(()),
        (model, answer) => Err(Difference {
            field: "answer".to_owned(),
            expected: format!("{model:?}"),
            found: format!("{answer:?}"),
        }),
    }
}

fn header(field: &str, model: &Answer, answer: &Answer) -> Result<(), Difference> {
    match answer.header() {
        None => Err(differs(field, "a header", "none")),
        Some(found) => same(&format!("{field}.revision"), &model.revision(), &found.revision),
    }
}

fn read(
    at: &str,
    model: &RangeResponse,
    order: &ReadOrder,
    answer: &RangeResponse,
) -> Result<(), Difference> {
    same(&format!("{at}count"), &model.count, &answer.count)?;
    same(&format!("{at}more"), &model.more, &answer.more)?;
    match order {
        ReadOrder::Total => pairs(&format!("{at}kvs"), &model.kvs, &answer.kvs),
        ReadOrder::Tied(candidates) => {
            tied(&format!("{at}kvs"), &model.kvs, candidates, &answer.kvs)
        }
    }
}

/// The sort keys must be the model's, position by position, and the pairs distinct candidates.
fn tied(
    field: &str,
    model: &[KeyValue],
    candidates: &[(SortKey, KeyValue)],
    answer: &[KeyValue],
) -> Result<(), Difference> {
    if model.len() != answer.len() {
        return pairs(field, model, answer);
    }
    let mut seen = BTreeSet::new();
    for (position, found) in answer.iter().enumerate() {
        let wanted = &candidates[position].0;
        let is_candidate = candidates.iter().any(|(key, pair)| key == wanted && pair == found);
        if !is_candidate || !seen.insert(&found.key) {
            return Err(differs(
                &format!("{field}[{position}]"),
                &format!("{} or another pair that sorts alike", print_pair(&model[position])),
                &print_pair(found),
            ));
        }
    }
    Ok(())
}

fn txn<'o>(
    at: &str,
    model: &TxnResponse,
    orders: &mut impl Iterator<Item = &'o ReadOrder>,
    answer: &TxnResponse,
) -> Result<(), Difference> {
    same(&format!("{at}succeeded"), &model.succeeded, &answer.succeeded)?;
    same(&format!("{at}responses.len"), &model.responses.len(), &answer.responses.len())?;
    for (position, (model, answer)) in model.responses.iter().zip(&answer.responses).enumerate() {
        let at = format!("{at}responses[{position}].");
        response(&at, model.response.as_ref(), orders, answer.response.as_ref())?;
    }
    Ok(())
}

fn response<'o>(
    at: &str,
    model: Option<&Response>,
    orders: &mut impl Iterator<Item = &'o ReadOrder>,
    answer: Option<&Response>,
) -> Result<(), Difference> {
    match (model, answer) {
        (Some(Response::ResponseRange(model)), Some(Response::ResponseRange(answer))) => {
            let at = format!("{at}range.");
            inner_header(&at, &model.header, &answer.header)?;
            read(&at, model, orders.next().unwrap_or(&ReadOrder::Total), answer)
        }
        (Some(Response::ResponsePut(model)), Some(Response::ResponsePut(answer))) => {
            let at = format!("{at}put.");
            inner_header(&at, &model.header, &answer.header)?;
            optional_pair(&format!("{at}prev_kv"), &model.prev_kv, &answer.prev_kv)
        }
        (
            Some(Response::ResponseDeleteRange(model)),
            Some(Response::ResponseDeleteRange(answer)),
        ) => {
            let at = format!("{at}delete_range.");
            inner_header(&at, &model.header, &answer.header)?;
            same(&format!("{at}deleted"), &model.deleted, &answer.deleted)?;
            pairs(&format!("{at}prev_kvs"), &model.prev_kvs, &answer.prev_kvs)
        }
        (Some(Response::ResponseTxn(model)), Some(Response::ResponseTxn(answer))) => {
            let at = format!("{at}txn.");
            inner_header(&at, &model.header, &answer.header)?;
            txn(&at, model, orders, answer)
        }
        (model, answer) => {
            Err(differs(&format!("{at}response"), &format!("{model:?}"), &format!("{answer:?}")))
        }
    }
}

fn inner_header(
    at: &str,
    model: &Option<ResponseHeader>,
    answer: &Option<ResponseHeader>,
) -> Result<(), Difference> {
    if model == answer {
        return Ok(());
    }
    Err(differs(&format!("{at}header"), &format!("{model:?}"), &format!("{answer:?}")))
}

fn time_to_live(
    model: &LeaseTimeToLiveResponse,
    answer: &LeaseTimeToLiveResponse,
) -> Result<(), Difference> {
    same("ID", &model.id, &answer.id)?;
    same("grantedTTL", &model.granted_ttl, &answer.granted_ttl)?;
    if model.granted_ttl == 0 {
        same("TTL", &model.ttl, &answer.ttl)?;
    }
    let mut keys = answer.keys.clone();
    keys.sort();
    same("keys", &model.keys, &keys)
}

fn pairs(field: &str, model: &[KeyValue], answer: &[KeyValue]) -> Result<(), Difference> {
    for (position, (model, answer)) in model.iter().zip(answer).enumerate() {
        if model != answer {
            let field = format!("{field}[{position}]");
            return Err(differs(&field, &print_pair(model), &print_pair(answer)));
        }
    }
    same(&format!("{field}.len"), &model.len(), &answer.len())
}

fn optional_pair(
    field: &str,
    model: &Option<KeyValue>,
    answer: &Option<KeyValue>,
) -> Result<(), Difference> {
    if model == answer {
        return Ok(());
    }
    let print = |pair: &Option<KeyValue>| pair.as_ref().map_or("none".to_owned(), print_pair);
    Err(differs(field, &print(model), &print(answer)))
}

fn same<T: PartialEq + fmt::Debug>(field: &str, model: &T, answer: &T) -> Result<(), Difference> {
    if model == answer {
        return Ok(());
    }
    Err(differs(field, &format!("{model:?}"), &format!("{answer:?}")))
}

fn differs(field: &str, expected: &str, found: &str) -> Difference {
    Difference { field: field.to_owned(), expected: expected.to_owned(), found: found.to_owned() }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} should be {}, is {}", self.field, self.expected, self.found)
    }
}

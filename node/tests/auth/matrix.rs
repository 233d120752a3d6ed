//! Every method that is served, called by everybody: without a token, with one that is garbage, with
//! one that has ended, as a user without the permission, as one who has it, and as root. Deny by
//! default: a method without a row here fails the test, and so does one of the descriptors that is
//! not served.
//!
//! `FLOTILLA_TEST_AUTH_SERVER` names another binary that is to be held to the same table, such as an
//! etcd of version 3.7.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use flotilla::api::Method;
use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::{internal, v3electionpb, v3lockpb};
use pb::request_op::Request as Op;
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;

use crate::harness::{self, Cluster};
use crate::wire::{Refusal, Wire, block_on};

const TOKEN_TTL: Duration = Duration::from_secs(3);

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// Everybody, whatever the token.
    Everybody,
    /// Everybody without a token or with a good one.
    WithoutBadToken,
    /// Every user.
    Users,
    /// Who has permission for the keys in the request.
    Permitted,
    /// Root.
    Root,
}

use Who::{Everybody, Permitted, Root, Users, WithoutBadToken};

/// Who may call a method, and a request that does as little as possible.
fn row(method: Method, peer_url: &str) -> (Who, Bytes) {
    let key = Bytes::from_static(b"a1");
    // It stays attached.
    let put = pb::PutRequest { key: key.clone(), lease: LEASE, ..Default::default() };
    let range = pb::RangeRequest { key: key.clone(), ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: key.clone(), prev_kv: true, ..Default::default() };
    let inner = pb::TxnRequest {
        failure: vec![pb::RequestOp { request: Some(Op::RequestPut(put.clone())) }],
        ..Default::default()
    };
    let txn = pb::TxnRequest {
        success: vec![pb::RequestOp { request: Some(Op::RequestTxn(inner)) }],
        ..Default::default()
    };
    let watch = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(
            pb::WatchCreateRequest { key: key.clone(), ..Default::default() },
        )),
    };
    let (id, nobody) = (LEASE, "nobody".to_owned());
    let bytes = |message: &dyn Fn() -> Vec<u8>| Bytes::from(message());
    let empty = Bytes::new();
    let leader_key = Bytes::from_static(LEASE_KEY);
    let leader =
        v3electionpb::LeaderKey { name: key.clone(), key: leader_key, rev: 1, lease: LEASE };
    let leader = Some(leader);
    match method {
        Method::Range | Method::RangeStream => (Permitted, bytes(&|| range.encode_to_vec())),
        Method::Put => (Permitted, bytes(&|| put.encode_to_vec())),
        Method::DeleteRange => (Permitted, bytes(&|| delete.encode_to_vec())),
        Method::Txn => (Permitted, bytes(&|| txn.encode_to_vec())),
        Method::Watch => (Permitted, bytes(&|| watch.encode_to_vec())),
        Method::Compact => {
            let compact = pb::CompactionRequest { revision: 1, physical: false };
            (Root, bytes(&|| compact.encode_to_vec()))
        }
        Method::LeaseGrant => {
            let grant = pb::LeaseGrantRequest { ttl: 100, id: 0 };
            (Users, bytes(&|| grant.encode_to_vec()))
        }
        Method::LeaseKeepAlive => {
            (Permitted, bytes(&|| pb::LeaseKeepAliveRequest { id }.encode_to_vec()))
        }
        Method::LeaseTimeToLive => {
            let ask = pb::LeaseTimeToLiveRequest { id, keys: true };
            (Permitted, bytes(&|| ask.encode_to_vec()))
        }
        Method::LeaseLeases => (Permitted, empty),
        Method::LeaseRevoke => {
            (Permitted, bytes(&|| pb::LeaseRevokeRequest { id }.encode_to_vec()))
        }
        Method::MemberList | Method::Status => (Users, empty),
        Method::Alarm => (Users, empty),
        Method::MemberAdd => {
            let peer_ur_ls = vec![peer_url.to_owned()];
            let add = pb::MemberAddRequest { peer_ur_ls, ..Default::default() };
            (Root, bytes(&|| add.encode_to_vec()))
        }
        Method::MemberRemove | Method::MemberUpdate | Method::MemberPromote => (Root, empty),
        Method::Defragment | Method::Hash | Method::HashKv | Method::Snapshot => (Root, empty),
        Method::MoveLeader | Method::Downgrade => (Root, empty),
        Method::AuthStatus => (WithoutBadToken, empty),
        Method::Authenticate => {
            let (name, password) = ("root".to_owned(), "root-password".to_owned());
            let request = pb::AuthenticateRequest { name, password };
            (Everybody, bytes(&|| request.encode_to_vec()))
        }
        Method::AuthEnable | Method::AuthDisable | Method::UserList | Method::RoleList => {
            (Root, empty)
        }
        Method::UserGet => {
            (Root, bytes(&|| pb::AuthUserGetRequest { name: nobody.clone() }.encode_to_vec()))
        }
        Method::RoleGet => {
            (Root, bytes(&|| pb::AuthRoleGetRequest { role: nobody.clone() }.encode_to_vec()))
        }
        Method::UserAdd => {
            let add = pb::AuthUserAddRequest { name: "root".to_owned(), ..Default::default() };
            (Root, bytes(&|| add.encode_to_vec()))
        }
        Method::UserDelete
        | Method::UserChangePassword
        | Method::UserGrantRole
        | Method::UserRevokeRole
        | Method::RoleAdd
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission => (Root, empty),
        Method::Lock => {
            let lock = v3lockpb::LockRequest { name: key, lease: LEASE };
            (Permitted, bytes(&|| lock.encode_to_vec()))
        }
        Method::Unlock => {
            let unlock = v3lockpb::UnlockRequest { key: Bytes::from_static(LEASE_KEY) };
            (Permitted, bytes(&|| unlock.encode_to_vec()))
        }
        Method::Campaign => {
            let campaign = v3electionpb::CampaignRequest { name: key, lease: LEASE, value: empty };
            (Permitted, bytes(&|| campaign.encode_to_vec()))
        }
        Method::Proclaim => {
            let proclaim = v3electionpb::ProclaimRequest { leader, value: empty };
            (Permitted, bytes(&|| proclaim.encode_to_vec()))
        }
        Method::Leader | Method::Observe => {
            let ask = v3electionpb::LeaderRequest { name: key };
            (Permitted, bytes(&|| ask.encode_to_vec()))
        }
        Method::Resign => {
            let resign = v3electionpb::ResignRequest { leader };
            (Permitted, bytes(&|| resign.encode_to_vec()))
        }
        Method::HealthCheck | Method::HealthWatch | Method::HealthList => (Everybody, empty),
        Method::RangeList | Method::Decisions | Method::Hot | Method::Split | Method::Merge => {
            (Root, empty)
        }
        Method::Transfer => {
            let transfer = internal::TransferRequest { range: 0, node: nobody };
            (Root, bytes(&|| transfer.encode_to_vec()))
        }
        Method::MoveReplica => {
            let change = internal::MoveReplicaRequest { add: nobody, ..Default::default() };
            (Root, bytes(&|| change.encode_to_vec()))
        }
        Method::WantReplicas => (Root, empty),
        Method::Drain => {
            let drain = internal::DrainRequest { node: nobody, is_draining: true };
            (Root, bytes(&|| drain.encode_to_vec()))
        }
    }
}

/// A lease to which `a1` is attached.
const LEASE: i64 = 77;
/// What its holder's key in a lock or an election is called, if that is called `a1`.
const LEASE_KEY: &[u8] = b"a1/4d";

/// Whether a call got past all questions about who makes it.
fn is_let_in(outcome: &Result<Bytes, Refusal>) -> bool {
    let Err((code, text)) = outcome else { return true };
    let is_about_users = ["user name is empty", "auth store is old", "invalid auth token"];
    !matches!(code, Code::PermissionDenied | Code::Unauthenticated)
        && !text.contains("permission denied")
        && !is_about_users.iter().any(|words| text.contains(words))
}

/// A refusal in etcd's words; some of etcd's own services give the inner error, and a watcher has its
/// refusal in words.
fn says(method: Method, outcome: &Result<Bytes, Refusal>, code: Code, words: &str) -> bool {
    let Err((got, text)) = outcome else { return false };
    // What is made of other calls has their words, and no code of its own.
    let is_composed = ["v3lockpb.Lock", "v3electionpb.Election"].contains(&method.service());
    let code = if is_composed { Code::Unknown } else { code };
    let in_stream = format!("rpc error: code = {code:?} desc = etcdserver: {words}");
    (*got == code && *text == format!("etcdserver: {words}"))
        || *text == in_stream
        || (is_other_server() && *text == format!("auth: {words}"))
}

fn is_other_server() -> bool {
    std::env::var_os("FLOTILLA_TEST_AUTH_SERVER").is_some()
}

#[test]
fn every_method_of_the_descriptors_is_in_the_table() {
    let set = FileDescriptorSet::decode(flotilla_proto::DESCRIPTOR_SET).expect("descriptors");
    let mut described = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            described
                .extend(service.method.iter().map(|method| format!("{name}/{}", method.name())));
        }
    }
    let served = Method::ALL.iter().map(|it| format!("{}/{}", it.service(), it.name()));
    assert_eq!(served.collect::<BTreeSet<_>>(), described);
}

#[test]
fn everybody_calls_everything() {
    let other = std::env::var_os("FLOTILLA_TEST_AUTH_SERVER").map(PathBuf::from);
    let binary = other.clone().unwrap_or_else(harness::flotilla);
    let ttl = format!("--auth-token-ttl={}", TOKEN_TTL.as_secs());
    let cluster = Cluster::start_with(&binary, 1, &["--bcrypt-cost=4", &ttl]);
    // A member that is there already cannot be added.
    let peer_url = cluster.nodes[0].peer_url();
    block_on(async {
        let wire = Wire::connect(&cluster.endpoint(0)).await;
        let grant = pb::LeaseGrantRequest { ttl: 1_000, id: LEASE };
        let granted: Result<pb::LeaseGrantResponse, _> =
            wire.ask("/etcdserverpb.Lease/LeaseGrant", &grant, None).await;
        granted.expect("a lease");
        let put =
            pb::PutRequest { key: Bytes::from_static(b"a1"), lease: LEASE, ..Default::default() };
        let put: Result<pb::PutResponse, _> = wire.ask("/etcdserverpb.KV/Put", &put, None).await;
        put.expect("a put before authentication is on");
        wire.set_up().await;
        let ended = wire.authenticate("root", "root-password").await.expect("a token");
        tokio::time::sleep(TOKEN_TTL + Duration::from_secs(2)).await;

        let mut wrong = Vec::new();
        // What ends the lease that others need, and authentication itself, comes last.
        let is_last = |method: &Method| {
            matches!(method, Method::LeaseRevoke | Method::DeleteRange | Method::AuthDisable)
        };
        let (last, first): (Vec<Method>, Vec<Method>) =
            Method::ALL.iter().copied().partition(is_last);
        let mut last = last;
        last.sort_by_key(|method| match method {
            Method::LeaseRevoke => 0,
            Method::DeleteRange => 1,
            _ => 2,
        });
        for method in first.into_iter().chain(last) {
            if other.is_some() && !method.service().starts_with("etcdserverpb") {
                continue;
            }
            let (who, request) = row(method, &peer_url);
            let path = format!("/{}/{}", method.service(), method.name());
            let token = async |name: &str| {
                let token = wire.authenticate(name, &format!("{name}-password")).await;
                token.expect("a password")
            };
            let call = async |token: Option<&str>| wire.call(&path, request.clone(), token).await;
            let mut check = |caller: &str, is_good: bool, outcome: &Result<Bytes, Refusal>| {
                if !is_good {
                    wrong.push(format!("{path} by {caller}: {outcome:?}"));
                }
            };

            let outcome = call(None).await;
            let is_good = match who {
                Everybody | WithoutBadToken => is_let_in(&outcome),
                Users | Permitted | Root => {
                    says(method, &outcome, Code::InvalidArgument, "user name is empty")
                }
            };
            check("nobody", is_good, &outcome);
            for (caller, bad) in [
                ("garbage", "garbage"),
                ("garbage with a dot", "abc.1"),
                ("a token that ended", ended.as_str()),
            ] {
                let outcome = call(Some(bad)).await;
                let is_good = match who {
                    Everybody => is_let_in(&outcome),
                    WithoutBadToken | Users | Permitted | Root => {
                        says(method, &outcome, Code::Unauthenticated, "invalid auth token")
                    }
                };
                check(caller, is_good, &outcome);
            }
            for (name, is_permitted) in [("nothing", false), ("u", true)] {
                if name == "u" && method == Method::AuthDisable {
                    continue;
                }
                let outcome = call(Some(&token(name).await)).await;
                let is_good = match who {
                    Everybody | WithoutBadToken | Users => is_let_in(&outcome),
                    Permitted if is_permitted => is_let_in(&outcome),
                    Permitted | Root => {
                        says(method, &outcome, Code::PermissionDenied, "permission denied")
                    }
                };
                check(name, is_good, &outcome);
            }
            let outcome = call(Some(&token("root").await)).await;
            check("root", is_let_in(&outcome), &outcome);
        }
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
        wire.put("anything", None).await.expect("authentication was turned off in the end");
    });
}

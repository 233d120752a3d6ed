//! What a client can see of a store, to be compared with what another store shows.

use std::time::{Duration, Instant};

use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::mvccpb::KeyValue;
use futures::StreamExt;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::traffic::channel;

const PASSWORD: &str = "secret";
pub(crate) const LEASE: i64 = 77;
const LEASE_SECONDS: i64 = 5_000;
/// How long a node may take until it knows the token that another gave.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);

/// A user of a store.
pub(crate) struct Client {
    pub(crate) channel: Channel,
    token: Option<String>,
}

/// What is compared.
#[derive(Debug, PartialEq)]
pub(crate) struct State {
    pub revision: i64,
    pub kvs: Vec<KeyValue>,
    pub leases: Vec<i64>,
    pub granted_ttl: i64,
    pub attached: Vec<bytes::Bytes>,
    pub users: Vec<String>,
    pub roles: Vec<String>,
}

impl Client {
    pub(crate) async fn nobody(url: &str) -> Self {
        Self { channel: channel(url).await, token: None }
    }

    pub(crate) async fn root(url: &str) -> Self {
        let channel = channel(url).await;
        let (name, password) = ("root".to_owned(), PASSWORD.to_owned());
        let request = pb::AuthenticateRequest { name, password };
        let answer = AuthClient::new(channel.clone()).authenticate(request).await;
        let token = Some(answer.expect("root's password holds").into_inner().token);
        let client = Self { channel, token };
        let deadline = Instant::now() + KNOWN_WITHIN;
        while client.range("a", 0).await.is_err() {
            assert!(Instant::now() < deadline, "the token is not known");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        client
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().expect("ASCII"));
        }
        request
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    pub(crate) async fn put(&self, key: &str, value: &str, lease: i64) -> i64 {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let request = pb::PutRequest { key, value, lease, ..Default::default() };
        let answer = self.kv().put(self.request(request)).await.expect("a put").into_inner();
        answer.header.expect("a header").revision
    }

    pub(crate) async fn delete(&self, key: &str) {
        let request = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.kv().delete_range(self.request(request)).await.expect("a delete");
    }

    pub(crate) async fn compact(&self, revision: i64) {
        let request = pb::CompactionRequest { revision, physical: true };
        self.kv().compact(self.request(request)).await.expect("a compaction");
    }

    /// One key at a revision; 0 is the newest.
    pub(crate) async fn range(
        &self,
        key: &str,
        revision: i64,
    ) -> Result<pb::RangeResponse, Status> {
        let request =
            pb::RangeRequest { key: key.to_owned().into(), revision, ..Default::default() };
        Ok(self.kv().range(self.request(request)).await?.into_inner())
    }

    /// All keys at a revision.
    pub(crate) async fn all(&self, revision: i64) -> Result<pb::RangeResponse, Status> {
        let (key, range_end) = (vec![0].into(), vec![0].into());
        let request = pb::RangeRequest { key, range_end, revision, ..Default::default() };
        Ok(self.kv().range(self.request(request)).await?.into_inner())
    }

    pub(crate) async fn state(&self) -> State {
        let all = self.all(0).await.expect("all keys");
        let mut lease = LeaseClient::new(self.channel.clone());
        let leases = lease.lease_leases(self.request(pb::LeaseLeasesRequest {})).await;
        let mut leases: Vec<i64> =
            leases.expect("leases").into_inner().leases.into_iter().map(|it| it.id).collect();
        leases.sort_unstable();
        let request = pb::LeaseTimeToLiveRequest { id: LEASE, keys: true };
        let lease = lease.lease_time_to_live(self.request(request)).await.expect("a lease");
        let pb::LeaseTimeToLiveResponse { granted_ttl, mut keys, .. } = lease.into_inner();
        // In etcd they have no order.
        keys.sort();
        let mut auth = AuthClient::new(self.channel.clone());
        let users = auth.user_list(self.request(pb::AuthUserListRequest {})).await;
        let roles = auth.role_list(self.request(pb::AuthRoleListRequest {})).await;
        State {
            revision: all.header.expect("a header").revision,
            kvs: all.kvs,
            leases,
            granted_ttl,
            attached: keys,
            users: users.expect("users").into_inner().users,
            roles: roles.expect("roles").into_inner().roles,
        }
    }

    /// What a watcher of everything from a revision on is told first: places of events, or the compact
    /// revision that ended it.
    pub(crate) async fn watch(
        &self,
        from: i64,
        count: usize,
    ) -> Result<Vec<(i64, bytes::Bytes)>, i64> {
        let create = pb::WatchCreateRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            start_revision: from,
            ..Default::default()
        };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // A stream of requests that does not end by itself.
        let stream = futures::stream::iter([request]).chain(futures::stream::pending());
        let stream = self.request(stream);
        let mut answers = WatchClient::new(self.channel.clone())
            .watch(stream)
            .await
            .expect("a watch")
            .into_inner();
        let mut seen = Vec::new();
        while seen.len() < count {
            let answer = tokio::time::timeout(KNOWN_WITHIN, answers.message()).await;
            let answer = answer.expect("an answer in time").expect("an answer").expect("one more");
            if answer.compact_revision > 0 {
                return Err(answer.compact_revision);
            }
            let kvs = answer.events.into_iter().filter_map(|event| event.kv);
            seen.extend(kvs.map(|kv| (kv.mod_revision, kv.key)));
        }
        Ok(seen)
    }

    /// Writes, deletes, compacts, grants, and in the end turns authentication on. Gives the compact
    /// revision.
    pub(crate) async fn seed(&self) -> i64 {
        for n in 0..40 {
            self.put(&format!("k/{}", n % 10), &format!("value {n}"), 0).await;
        }
        let compacted = self.put("a", "1", 0).await;
        self.delete("k/3").await;
        self.put("k/4", &"long ".repeat(3_000), 0).await;
        self.compact(compacted).await;
        let grant = pb::LeaseGrantRequest { id: LEASE, ttl: LEASE_SECONDS };
        let mut lease = LeaseClient::new(self.channel.clone());
        lease.lease_grant(self.request(grant)).await.expect("a lease");
        self.put("leased/1", "x", LEASE).await;
        self.put("leased/2", "y", LEASE).await;
        let mut auth = AuthClient::new(self.channel.clone());
        let role = pb::AuthRoleAddRequest { name: "reader".to_owned() };
        auth.role_add(role).await.expect("a role");
        for name in ["root", "guest"] {
            let request = pb::AuthUserAddRequest {
                name: name.to_owned(),
                password: PASSWORD.to_owned(),
                ..Default::default()
            };
            auth.user_add(request).await.expect("a user");
        }
        let root = pb::AuthRoleAddRequest { name: "root".to_owned() };
        auth.role_add(root).await.expect("a role");
        let (user, role) = ("root".to_owned(), "root".to_owned());
        let grant = pb::AuthUserGrantRoleRequest { user, role };
        auth.user_grant_role(grant).await.expect("a grant");
        auth.auth_enable(pb::AuthEnableRequest {}).await.expect("authentication");
        compacted
    }
}

/// Who is nobody may do nothing.
pub(crate) async fn assert_auth_is_on(url: &str) {
    let refused = Client::nobody(url).await.range("a", 0).await.expect_err("nobody is refused");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

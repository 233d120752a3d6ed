//! Members by a meeting place: a running cluster, of etcd or of this program, where an operator has
//! written under a token how many members a new cluster is to have. Each writes its addresses beside
//! that and waits for the others; whoever comes too late is told that the cluster is full.
//!
//! The keys are those of etcd's v3 discovery, so that members of both programs could use one place.

use std::time::Duration;

use flotilla_core::membership::identity;
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_proto::etcdserverpb::auth_client::AuthClient;
use flotilla_proto::etcdserverpb::kv_client::KvClient;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::channel;
use crate::config::{Config, DiscoveryService, Tls, Url};
use crate::tls::{self, Connector};

/// Where all meeting places are.
const REGISTRY: &str = "/_etcd/registry";
/// Between two looks whether the others are there.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Before a meeting place that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// More members than that are a typing error.
const MEMBERS_MAX: usize = 64;

/// Why there is no cluster to found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody wrote down how many members there are to be.
    #[error("discovery: size key not found")]
    NoSize,
    /// What is written there is no number of members.
    #[error("discovery: size key is bad")]
    BadSize,
    /// All places are taken.
    #[error("discovery: cluster is full")]
    Full,
    /// A member wrote what is no list of addresses.
    #[error("discovery: invalid cluster URL {0}")]
    BadMember(String),
    /// The certificates for the meeting place cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// The meeting place does not let this node in.
    #[error("discovery: {0}")]
    Refused(String),
}

/// Enters this node under the token and waits until all members have; a place that does not answer
/// is asked until it does.
///
/// # Errors
/// See `Error`.
pub(super) async fn meet(
    service: &DiscoveryService,
    config: &Config,
) -> Result<Vec<(String, Url)>, Error> {
    let tls = Connector::open(&Tls::of_client(service.trusted_ca.clone(), service.pair.clone()))?;
    let mut place = Place { service, tls, folder: folder(&service.token), client: None };
    let size = loop {
        if let Some(found) = place.ask(Place::size).await? {
            break found?;
        }
    };
    let key = own_key(&service.token, &config.initial_advertise_peer_urls);
    let entry = own_entry(config);
    let mut is_entered = false;
    loop {
        let Some(members) = place.ask(Place::members).await? else { continue };
        let is_in = members.iter().take(size).any(|(member, _)| *member == key);
        if members.len() >= size {
            return if is_in { cluster(&members[..size]) } else { Err(Error::Full) };
        }
        if !is_entered {
            let put = pb::PutRequest {
                key: key.clone().into(),
                value: entry.clone().into(),
                ..pb::PutRequest::default()
            };
            let entered = place.ask(async |place| place.put(put.clone()).await).await?;
            is_entered = entered.is_some();
            continue;
        }
        tracing::info!(size, found = members.len(), "waiting for members at the meeting place");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The meeting place of one new cluster.
struct Place<'a> {
    service: &'a DiscoveryService,
    tls: Connector,
    /// Keys of this cluster begin so.
    folder: String,
    /// A connection, and the token of the user, as long as both are of use.
    client: Option<(KvClient<Channel>, Option<AsciiMetadataValue>)>,
}

/// Why a question had no answer.
enum Unanswered {
    /// It may have one later.
    Later(String),
    /// It never will.
    Never(Error),
}

impl From<Status> for Unanswered {
    fn from(status: Status) -> Self {
        use tonic::Code;
        let text = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => {
                Self::Never(Error::Refused(text))
            }
            _ => Self::Later(text),
        }
    }
}

impl Place<'_> {
    /// None if nobody answers for now, after a pause.
    async fn ask<T>(
        &mut self,
        question: impl AsyncFnOnce(&mut Self) -> Result<T, Unanswered>,
    ) -> Result<Option<T>, Error> {
        let answer = match self.connect().await {
            Ok(()) => question(self).await,
            Err(unanswered) => Err(unanswered),
        };
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(Unanswered::Never(error)) => Err(error),
            Err(Unanswered::Later(reason)) => {
                self.client = None;
                tracing::warn!(reason, "the meeting place does not answer; asking again");
                tokio::time::sleep(ASK_AGAIN).await;
                Ok(None)
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Unanswered> {
        if self.client.is_some() {
            return Ok(());
        }
        let service = self.service;
        let mut reasons = Vec::new();
        for url in &service.endpoints {
            let tune = |endpoint: tonic::transport::Endpoint| {
                endpoint
                    .timeout(service.request_timeout)
                    .http2_keep_alive_interval(service.keepalive_time)
                    .keep_alive_timeout(service.keepalive_timeout)
            };
            match channel::connect(&self.tls, url, tune, service.dial_timeout).await {
                Ok(channel) => {
                    let token = self.authenticate(channel.clone()).await?;
                    self.client = Some((KvClient::new(channel), token));
                    return Ok(());
                }
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Err(Unanswered::Later(reasons.join("; ")))
    }

    async fn authenticate(
        &self,
        channel: Channel,
    ) -> Result<Option<AsciiMetadataValue>, Unanswered> {
        let Some(user) = &self.service.user else { return Ok(None) };
        let (name, password) = (user.name.clone(), user.password.clone());
        let request = pb::AuthenticateRequest { name, password };
        let answer = AuthClient::new(channel).authenticate(request).await?.into_inner();
        let token = answer.token.parse();
        token.map(Some).map_err(|_| Unanswered::Later("a token of other letters".to_owned()))
    }

    fn client<T>(&mut self, message: T) -> (&mut KvClient<Channel>, Request<T>) {
        let (client, token) = self.client.as_mut().expect("a question is asked when connected");
        let mut request = Request::new(message);
        if let Some(token) = token {
            request.metadata_mut().insert("token", token.clone());
        }
        (client, request)
    }

    /// How many members there are to be.
    async fn size(&mut self) -> Result<Result<usize, Error>, Unanswered> {
        let key = format!("{}/_config/size", self.folder).into();
        let (client, request) =
            self.client(pb::RangeRequest { key, ..pb::RangeRequest::default() });
        let answer = client.range(request).await?.into_inner();
        let Some(kv) = answer.kvs.first() else { return Ok(Err(Error::NoSize)) };
        let size = std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok());
        Ok(size.filter(|size| (1..=MEMBERS_MAX).contains(size)).ok_or(Error::BadSize))
    }

    /// Who has entered: keys and entries, the earliest first.
    async fn members(&mut self) -> Result<Vec<(String, String)>, Unanswered> {
        let prefix = format!("{}/members/", self.folder);
        let mut range_end = prefix.clone().into_bytes();
        *range_end.last_mut().expect("it ends in a slash") += 1;
        let (client, request) = self.client(pb::RangeRequest {
            key: prefix.into(),
            range_end: range_end.into(),
            sort_order: pb::range_request::SortOrder::Ascend as i32,
            sort_target: pb::range_request::SortTarget::Create as i32,
            ..pb::RangeRequest::default()
        });
        let kvs = client.range(request).await?.into_inner().kvs;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(kvs.iter().map(|kv| (text(&kv.key), text(&kv.value))).collect())
    }

    async fn put(&mut self, put: pb::PutRequest) -> Result<(), Unanswered> {
        let (client, request) = self.client(put);
        client.put(request).await?;
        Ok(())
    }
}

fn folder(token: &str) -> String {
    format!("{REGISTRY}/{}", token.trim_matches('/'))
}

/// A member has one place, however often it starts before the others are there.
pub(super) fn own_key(token: &str, peer_urls: &[Url]) -> String {
    let urls: Vec<String> = peer_urls.iter().map(|url| url.as_str().to_owned()).collect();
    let id = identity::member_id(&urls, token);
    format!("{}/members/{:x}", folder(token), id.0)
}

fn own_entry(config: &Config) -> String {
    let urls = config.initial_advertise_peer_urls.iter();
    urls.map(|url| format!("{}={url}", config.name)).collect::<Vec<_>>().join(",")
}

/// What the entries say together.
fn cluster(members: &[(String, String)]) -> Result<Vec<(String, Url)>, Error> {
    let mut cluster = Vec::new();
    for (_, entry) in members {
        for pair in entry.split(',').filter(|pair| !pair.is_empty()) {
            let bad = || Error::BadMember(entry.clone());
            let (name, url) = pair.split_once('=').ok_or_else(bad)?;
            cluster.push((name.to_owned(), Url::parse(url).map_err(|_| bad())?));
        }
    }
    Ok(cluster)
}

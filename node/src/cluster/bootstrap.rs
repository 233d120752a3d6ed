//! From a data directory and a configuration to a member: the same as before, a founder of a new
//! cluster, or one that joins a running cluster.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use flotilla_core::group::{Position, Recovered};
use flotilla_core::membership::identity;
use flotilla_core::proto::internal::{ConfState, Member};
use flotilla_core::range::stored::Stored;
use flotilla_core::snapshot::NODE_LOCAL;
use flotilla_core::spine::State;
use flotilla_core::view::{Batch, Column, View, ViewError};
use flotilla_core::{GroupId, NodeId};
use futures::future::join_all;
use tokio::time::timeout;

use super::discovery;
use crate::config::{Config, InitialClusterState};
use crate::peer::{self, RemoteMembers};
use crate::store::{self, Store};
use crate::tls::Connector;
use crate::{range, wal};

/// Meta row, local to the node, that says which member of which cluster the directory belongs to.
const IDENTITY_ROW: [u8; 2] = [NODE_LOCAL, b'i'];

/// How long a founder waits for others that may know it already. Those that do not run yet hang up
/// at once.
const FOUNDERS_ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// It cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// Log and store do not belong together.
    #[error("the data directory is damaged: {0}")]
    Damaged(String),
    /// This node's peer URLs are not among the initial members.
    #[error("couldn't find local name \"{0}\" in the initial cluster configuration")]
    NotInitialMember(String),
    /// What `--initial-cluster` says of this node is not what it announces.
    #[error("--initial-cluster has {0}={1} but missing from --initial-advertise-peer-urls={2}")]
    PeerUrlsDiffer(String, String, String),
    /// No member of the running cluster answers.
    #[error("cannot fetch cluster info from peer urls: {0}")]
    NoPeerAnswers(String),
    /// The cluster runs already, with this node in it: what it held and voted for is lost.
    #[error("member {0} has already been bootstrapped: remove it from the cluster and add it anew")]
    AlreadyBootstrapped(NodeId),
    /// The running cluster does not expect this node.
    #[error(
        "no member of cluster {0:x} has the peer urls {1}: add the member first, \
         then start it with --initial-cluster-state existing"
    )]
    NotExpected(u64, String),
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    /// The first members are to be discovered, and are not.
    #[error(transparent)]
    Discovery(#[from] discovery::Error),
}

/// A member, ready to run.
pub struct Bootstrapped {
    /// Its id.
    pub node: NodeId,
    /// Its cluster's id.
    pub cluster_id: u64,
    /// Where its store stands.
    pub state: State,
    /// What its log remembers.
    pub recovered: Recovered,
    /// Members as peers described them; empty unless the node joins.
    pub remote_members: Vec<Member>,
}

/// Works out who this node is, and writes it down on its first start.
///
/// # Errors
/// See `Error`.
pub async fn bootstrap(
    config: &Config,
    tls: &Connector,
    store: &Store,
    wal: &mut wal::Recovered,
    peer_listeners: &[peer::Listener],
) -> Result<Bootstrapped, Error> {
    let log = wal.groups.remove(&GroupId::SPINE);
    let identity = store.get(Column::Meta, &IDENTITY_ROW)?;
    match identity {
        Some(identity) => restart(config, tls, store, &identity, log).await,
        None if log.is_some() => {
            Err(Error::Damaged("there is a log, but the store is empty".to_owned()))
        }
        None => match config.initial_cluster_state {
            InitialClusterState::New => {
                // Founders that start together must not wait for each other's answers.
                tokio::select! {
                    founded = found(config, tls, store) => founded,
                    never = peer::turn_away(peer_listeners) => match never {},
                }
            }
            InitialClusterState::Existing => join(config, tls, store).await,
        },
    }
}

/// A member whose log is gone has lost its votes and what it acknowledged since the store was last
/// flushed. Must be asked before the log is opened, which would make a new one. The first start
/// makes the log before it writes down who the member is, so an interrupted one is no such case.
///
/// # Errors
/// The store names a member, but there is no log.
pub fn refuse_lost_log(store: &Store, wal_dir: &Path) -> Result<(), Error> {
    let is_member = store.get(Column::Meta, &IDENTITY_ROW)?.is_some();
    let has_log = std::fs::read_dir(wal_dir).is_ok_and(|mut files| files.next().is_some());
    if is_member && !has_log {
        let text =
            format!("the store names a member, but the log is missing: {}", wal_dir.display());
        return Err(Error::Damaged(text));
    }
    Ok(())
}

async fn restart(
    config: &Config,
    tls: &Connector,
    store: &Store,
    identity: &[u8],
    log: Option<wal::GroupLog>,
) -> Result<Bootstrapped, Error> {
    let (node, cluster_id) = read_identity(identity)?;
    let stored = State::load(store)?;
    let has_state = stored.is_some();
    let state = stored.unwrap_or_else(|| State::empty(cluster_id));
    if state.cluster_id() != cluster_id {
        let text = format!("it names clusters {cluster_id:x} and {:x}", state.cluster_id());
        return Err(Error::Damaged(text));
    }
    // Without its log the member has forgotten its votes and must not take part.
    if log.is_none() && state.position().index > Recovered::FIRST.index {
        return Err(Error::Damaged("the store holds a state, but the log is missing".to_owned()));
    }
    let mut recovered = match log {
        Some(log) => range::from_wal(log).map_err(Error::Damaged)?,
        None => Recovered::default(),
    };
    let Position { index, term } = {
        let position = state.position();
        Position { index: position.index, term: position.term }
    };
    recovered.applied = Position { index, term };
    recovered.conf = if has_state { state.conf().clone() } else { Default::default() };
    // A node that was stopped while it joined knows its peers from the command line only.
    let remote_members = match has_state {
        true => Vec::new(),
        false => {
            let config = discovery::with_running_members(config).await?;
            fetch(&config, tls).await?.members
        }
    };
    tracing::info!(member = %node, cluster = format_args!("{cluster_id:x}"), index, "restarting");
    Ok(Bootstrapped { node, cluster_id, state, recovered, remote_members })
}

/// One of the first members of a cluster.
pub(super) struct Founder {
    /// Its id.
    pub(super) node: NodeId,
    /// All of them, without names: these are announced.
    pub(super) members: Vec<Member>,
}

impl Founder {
    /// Of a configuration.
    ///
    /// # Errors
    /// It contradicts itself, or does not name this node.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        config.check_first_start()?;
        let mut members: Vec<Member> = Vec::new();
        let mut me = None;
        for (name, urls) in config.initial_members() {
            let peer_urls: Vec<String> = urls.iter().map(|url| url.as_str().to_owned()).collect();
            let id = identity::member_id(&peer_urls, &config.initial_cluster_token);
            if name == config.name {
                me = Some(id);
            }
            members.push(Member { id: id.0, peer_urls, ..Member::default() });
        }
        let node = me.ok_or_else(|| Error::NotInitialMember(config.name.clone()))?;
        Ok(Self { node, members })
    }

    /// The ids of all.
    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.members.iter().map(|member| NodeId(member.id)).collect()
    }
}

/// A founder: all founders write the same state, so that none has to speak to another first.
async fn found(config: &Config, tls: &Connector, store: &Store) -> Result<Bootstrapped, Error> {
    let config = &*discovery::with_members(config).await?;
    let founder = Founder::new(config)?;
    let (node, ids) = (founder.node, founder.ids());
    refuse_second_start(config, tls, node).await?;
    let keys: Vec<Bytes> = config.initial_split_keys.iter().cloned().map(Bytes::from).collect();
    // Founders that cut the keyspace in different ways found different clusters.
    let cluster_id = identity::cluster_id(&ids, &keys, config.range_replicas);
    let mut state = State::bootstrap(cluster_id, founder.members);
    state.want_replicas(config.range_replicas);
    state.pre_split(&keys, &ids);
    let mut batch = Batch::default();
    state.write_all(&mut batch);
    let held = state.ranges().iter().filter(|(_, known)| known.replicas.contains(&node));
    for (range, known) in held {
        let voters = known.replicas.iter().map(|node| node.0).collect();
        let conf = ConfState { voters, ..ConfState::default() };
        Stored::first(conf, known.span.clone()).write(range, &mut batch);
    }
    write_identity(&mut batch, node, cluster_id);
    store.apply(&batch)?;
    store.flush()?;
    tracing::info!(member = %node, cluster = format_args!("{cluster_id:x}"), "founding a cluster");
    let recovered = Recovered::first(state.conf().clone());
    Ok(Bootstrapped { node, cluster_id, state, recovered, remote_members: Vec::new() })
}

/// A member that comes back with an empty directory has forgotten its votes, and what it
/// acknowledged; as a founder it would be taken for the one it was.
async fn refuse_second_start(config: &Config, tls: &Connector, node: NodeId) -> Result<(), Error> {
    let others =
        other_urls(config).map(|url| timeout(FOUNDERS_ANSWER_WITHIN, peer::fetch(tls, url)));
    let answers = join_all(others).await.into_iter().flatten().flatten();
    let known = answers.flat_map(|remote| remote.members);
    for member in known {
        // A member that has started once has announced where clients reach it.
        if member.id == node.0 && !member.client_urls.is_empty() {
            return Err(Error::AlreadyBootstrapped(node));
        }
    }
    Ok(())
}

async fn join(config: &Config, tls: &Connector, store: &Store) -> Result<Bootstrapped, Error> {
    let config = &*discovery::with_running_members(config).await?;
    let RemoteMembers { cluster_id, members } = fetch(config, tls).await?;
    let mut own_urls: Vec<String> =
        config.initial_advertise_peer_urls.iter().map(|url| url.as_str().to_owned()).collect();
    own_urls.sort();
    let me = members.iter().find(|member| {
        let mut urls = member.peer_urls.clone();
        urls.sort();
        urls == own_urls
    });
    let Some(me) = me else {
        return Err(Error::NotExpected(cluster_id, own_urls.join(",")));
    };
    let node = NodeId(me.id);
    let mut batch = Batch::default();
    write_identity(&mut batch, node, cluster_id);
    store.apply(&batch)?;
    store.flush()?;
    tracing::info!(member = %node, cluster = format_args!("{cluster_id:x}"), "joining a cluster");
    let state = State::empty(cluster_id);
    let recovered = Recovered::joining();
    Ok(Bootstrapped { node, cluster_id, state, recovered, remote_members: members })
}

async fn fetch(config: &Config, tls: &Connector) -> Result<RemoteMembers, Error> {
    let mut last_error = io::Error::from(io::ErrorKind::NotFound).to_string();
    for url in other_urls(config) {
        match peer::fetch(tls, url).await {
            Ok(remote) if !remote.members.is_empty() => return Ok(remote),
            Ok(_) => last_error = format!("{url} has no members yet"),
            Err(error) => last_error = format!("{url}: {error}"),
        }
    }
    Err(Error::NoPeerAnswers(last_error))
}

fn other_urls(config: &Config) -> impl Iterator<Item = &str> {
    let own = &config.initial_advertise_peer_urls;
    let others = config.initial_cluster.iter().filter(|(_, url)| !own.contains(url));
    others.map(|(_, url)| url.as_str())
}

/// Which member of which cluster a directory belongs to; `None` if it is nobody's yet.
///
/// # Errors
/// The store cannot be read, or the row is damaged.
pub fn identity(view: &dyn View) -> Result<Option<(NodeId, u64)>, Error> {
    let row = view.get(Column::Meta, &IDENTITY_ROW)?;
    row.map(|row| read_identity(&row)).transpose()
}

fn read_identity(row: &[u8]) -> Result<(NodeId, u64), Error> {
    let damaged = || Error::Damaged("the row that names this member is malformed".to_owned());
    let word = |at: usize| row.get(at..at + 8).and_then(|word| word.try_into().ok());
    let node = NodeId(u64::from_be_bytes(word(0).ok_or_else(damaged)?));
    Ok((node, u64::from_be_bytes(word(8).ok_or_else(damaged)?)))
}

/// Says in a batch who the node is.
pub(super) fn write_identity(batch: &mut Batch, node: NodeId, cluster_id: u64) {
    let mut value = Vec::with_capacity(16);
    value.extend_from_slice(&node.0.to_be_bytes());
    value.extend_from_slice(&cluster_id.to_be_bytes());
    batch.put(Column::Meta, Bytes::copy_from_slice(&IDENTITY_ROW), value);
}

//! Watches that are held open and whose every event is checked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use bytes::Bytes;
use flotilla_proto::etcdserverpb as pb;
use flotilla_proto::etcdserverpb::watch_request::RequestUnion;
use flotilla_proto::mvccpb::event::EventType;
use prost::Message as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::check::{Check, WatchCheck};
use crate::connect::Pool;
use crate::wire::{Method, Status, Stream};

/// How long the store may take to confirm all watches.
const CREATE_TIMEOUT: Duration = Duration::from_secs(120);
/// Watch requests sent on a stream before it is asked for answers.
const CREATE_BATCH: usize = 1000;

/// Keys to watch.
#[derive(Clone, Debug)]
pub struct WatchSpan {
    /// First key.
    pub key: Bytes,
    /// End, exclusive; empty for one key.
    pub end: Bytes,
}

/// What the watches have seen.
#[derive(Default)]
pub struct Seen {
    /// Watches confirmed.
    pub created: AtomicU64,
    /// Events delivered.
    pub events: AtomicU64,
    /// Watches or streams that ended by themselves.
    pub ended: AtomicU64,
    changed: Notify,
    /// Revision and arrival of each event, if they are kept.
    log: Option<Mutex<Vec<(i64, Instant)>>>,
}

impl Seen {
    /// Events delivered so far.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Revision and arrival of each event so far; empty unless the group was opened to keep them.
    pub fn take_log(&self) -> Vec<(i64, Instant)> {
        let log = self.log.as_ref().map(|log| log.lock().unwrap_or_else(PoisonError::into_inner));
        log.map(|mut log| std::mem::take(&mut *log)).unwrap_or_default()
    }

    /// Waits until so many events were delivered.
    ///
    /// # Errors
    /// They were not within `limit`.
    pub async fn wait_events(&self, count: u64, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let changed = self.changed.notified();
            if self.events() >= count {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || tokio::time::timeout(left, changed).await.is_err() {
                let events = self.events();
                ensure!(events >= count, "{events} of {count} events within {limit:?}");
            }
        }
    }
}

/// Watches held open until this is dropped.
pub struct WatchGroup {
    /// What they saw.
    pub seen: Arc<Seen>,
    _readers: JoinSet<()>,
}

impl WatchGroup {
    /// Opens the watches, at most `per_stream` on each stream, and waits until all are confirmed.
    ///
    /// # Errors
    /// A stream cannot be opened, or the store does not confirm in time.
    pub async fn open(
        pool: &Pool,
        check: &Arc<Check>,
        spans: &[WatchSpan],
        per_stream: usize,
    ) -> anyhow::Result<Self> {
        Self::open_with(Seen::default(), pool, check, spans, per_stream).await
    }

    /// As `open`, and keeps when each event arrived.
    ///
    /// # Errors
    /// As `open`.
    pub async fn open_logged(
        pool: &Pool,
        check: &Arc<Check>,
        spans: &[WatchSpan],
        per_stream: usize,
    ) -> anyhow::Result<Self> {
        let seen = Seen { log: Some(Mutex::default()), ..Seen::default() };
        Self::open_with(seen, pool, check, spans, per_stream).await
    }

    async fn open_with(
        seen: Seen,
        pool: &Pool,
        check: &Arc<Check>,
        spans: &[WatchSpan],
        per_stream: usize,
    ) -> anyhow::Result<Self> {
        let seen = Arc::new(seen);
        let mut readers = JoinSet::new();
        for (n, spans) in spans.chunks(per_stream.max(1)).enumerate() {
            let stream = pool.channel(n).stream(Method::Watch).await?;
            readers.spawn(read(stream, spans.to_vec(), check.clone(), seen.clone()));
        }
        let group = Self { seen, _readers: readers };
        let deadline = Instant::now() + CREATE_TIMEOUT;
        while group.seen.created.load(Ordering::Relaxed) < spans.len() as u64 {
            if group.seen.ended.load(Ordering::Relaxed) > 0 || Instant::now() > deadline {
                let created = group.seen.created.load(Ordering::Relaxed);
                bail!("{created} of {} watches were created", spans.len());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(group)
    }
}

/// A request to watch `span`.
#[must_use]
pub fn create_request(span: &WatchSpan) -> Vec<u8> {
    let create = pb::WatchCreateRequest {
        key: span.key.clone(),
        range_end: span.end.clone(),
        ..Default::default()
    };
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }.encode_to_vec()
}

async fn read(mut stream: Stream, spans: Vec<WatchSpan>, check: Arc<Check>, seen: Arc<Seen>) {
    let mut unsent = spans.chunks(CREATE_BATCH);
    let mut outstanding = 0usize;
    let mut watches: HashMap<i64, WatchCheck> = HashMap::new();
    loop {
        if outstanding == 0
            && let Some(batch) = unsent.next()
        {
            outstanding = batch.len();
            batch.iter().for_each(|span| stream.send(&create_request(span)));
        }
        let message = match stream.next().await {
            Ok(Some(message)) => message,
            Ok(None) | Err(Status { .. }) => {
                seen.ended.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        let Ok(response) = pb::WatchResponse::decode(message) else {
            check.wrong(|| "a malformed watch response".into());
            return;
        };
        if response.created {
            outstanding = outstanding.saturating_sub(1);
            seen.created.fetch_add(1, Ordering::Relaxed);
        }
        if response.canceled {
            let why = response.cancel_reason.clone();
            check.wrong(|| format!("a watch was cancelled: {why}"));
            seen.ended.fetch_add(1, Ordering::Relaxed);
        }
        if response.events.is_empty() {
            continue;
        }
        let watch = watches.entry(response.watch_id).or_default();
        for event in &response.events {
            let Some(pair) = &event.kv else { continue };
            if event.r#type() == EventType::Put {
                watch.on_put(&check, &pair.key, pair.mod_revision, pair.version);
            } else {
                watch.on_delete(&check, &pair.key, pair.mod_revision);
            }
        }
        if let Some(log) = &seen.log {
            let now = Instant::now();
            let revisions = response.events.iter().filter_map(|event| event.kv.as_ref());
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.extend(revisions.map(|pair| (pair.mod_revision, now)));
        }
        seen.events.fetch_add(response.events.len() as u64, Ordering::Relaxed);
        seen.changed.notify_waiters();
    }
}

//! What large answers may take of this node's memory, all together and for one client. Small answers are
//! free: leases, writes, locks and small reads never wait for lists. A list that finds no room
//! waits for others to be sent, for a moment, and is then refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flotilla_core::Error;
use flotilla_core::proto::mvccpb::KeyValue;
use http_body_util::BodyExt;
use tokio::sync::Notify;
use tokio::time;
use tonic::body::Body;

use crate::metrics::{ANSWER_BYTES, ANSWERS_REFUSED};

/// Answers of so many bytes take nothing.
const FREE_BYTES: usize = 256 << 10;
/// How long a list waits for room.
const ROOM_WITHIN: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 1_000 });
/// Of so many parts of the budget one client gets one, while others have large answers under way.
const CLIENT_PARTS: usize = 2;

/// The bytes of large answers that are being put together, or not sent yet.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    taken: Mutex<Taken>,
    freed: Notify,
}

/// Bytes by the client's address; local sockets are one client.
type Clients = BTreeMap<Option<IpAddr>, usize>;

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    clients: Clients,
}

impl Taken {
    fn of(&self, client: Option<IpAddr>) -> usize {
        self.clients.get(&client).copied().unwrap_or(0)
    }
}

impl Budget {
    /// Of so many bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, taken: Mutex::default(), freed: Notify::new() }
    }

    /// For the answer to one call.
    pub(super) fn share(self: &Arc<Self>, client: Option<IpAddr>) -> Arc<Share> {
        Arc::new(Share { budget: self.clone(), client, answer: Mutex::default() })
    }

    fn try_take(&self, client: Option<IpAddr>, bytes: usize) -> bool {
        let mut taken = locked(&self.taken);
        let of_client = taken.of(client) + bytes;
        let all = taken.bytes + bytes;
        let is_alone = of_client == all;
        if all > self.bytes_max || (!is_alone && of_client > self.bytes_max / CLIENT_PARTS) {
            return false;
        }
        taken.bytes = all;
        taken.clients.insert(client, of_client);
        metrics::gauge!(ANSWER_BYTES).set(all as f64);
        true
    }

    fn give_back(&self, client: Option<IpAddr>, bytes: usize) {
        let mut taken = locked(&self.taken);
        taken.bytes -= bytes;
        match taken.of(client) - bytes {
            0 => _ = taken.clients.remove(&client),
            left => _ = taken.clients.insert(client, left),
        }
        metrics::gauge!(ANSWER_BYTES).set(taken.bytes as f64);
        drop(taken);
        self.freed.notify_waiters();
    }
}

/// What one answer takes, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    client: Option<IpAddr>,
    answer: Mutex<Answer>,
}

#[derive(Debug, Default)]
struct Answer {
    /// Bytes it has.
    read: usize,
    /// Bytes it takes: none, or all that it has.
    taken: usize,
}

impl Share {
    /// The answer has more keys.
    ///
    /// # Errors
    /// There is no room, and there was none for a while.
    pub(super) async fn take(&self, kvs: &[KeyValue]) -> Result<(), Error> {
        self.take_bytes(memory_bytes(kvs)).await
    }

    /// The answer has more bytes.
    ///
    /// # Errors
    /// As `take`.
    pub(super) async fn take_bytes(&self, more: usize) -> Result<(), Error> {
        let bytes = {
            let mut answer = locked(&self.answer);
            answer.read += more;
            if answer.read <= FREE_BYTES {
                return Ok(());
            }
            answer.read - answer.taken
        };
        let has_room = async {
            loop {
                let mut freed = std::pin::pin!(self.budget.freed.notified());
                // From here on it misses none.
                freed.as_mut().enable();
                if self.budget.try_take(self.client, bytes) {
                    return;
                }
                freed.await;
            }
        };
        if bytes > self.budget.bytes_max || time::timeout(ROOM_WITHIN, has_room).await.is_err() {
            metrics::counter!(ANSWERS_REFUSED).increment(1);
            return Err(Error::AnswersTooLarge);
        }
        locked(&self.answer).taken += bytes;
        Ok(())
    }

    /// Gives everything back: the answer is read again.
    pub(super) fn begin_again(&self) {
        let Answer { taken, .. } = std::mem::take(&mut *locked(&self.answer));
        if taken > 0 {
            self.budget.give_back(self.client, taken);
        }
    }

    /// The answer has these bytes, and no others: it was read as a whole, perhaps again.
    ///
    /// # Errors
    /// As `take`.
    pub(super) async fn take_whole(share: Option<&Self>, bytes: usize) -> Result<(), Error> {
        let Some(share) = share else { return Ok(()) };
        share.begin_again();
        share.take_bytes(bytes).await
    }

    /// Has the answer hold what it takes until it is sent, or the client has gone. The HTTP/2 library
    /// takes all of an answer at once, and lets go of its bytes as the client takes them.
    pub(super) fn hold(self: Arc<Self>, answer: http::Response<Body>) -> http::Response<Body> {
        if locked(&self.answer).taken == 0 {
            return answer;
        }
        let held = move |bytes| Bytes::from_owner(Held { bytes, _share: self.clone() });
        answer.map(|body| Body::new(body.map_frame(move |frame| frame.map_data(&held))))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.begin_again();
    }
}

/// Bytes that keys take in an answer, about.
pub(super) fn memory_bytes(kvs: &[KeyValue]) -> usize {
    kvs.iter().map(|kv| size_of::<KeyValue>() + kv.key.len() + kv.value.len()).sum()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that take their share until the last of them is sent.
struct Held {
    bytes: Bytes,
    _share: Arc<Share>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ONE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
    const OTHER: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
    const MIB: usize = 1 << 20;

    fn taken(budget: &Budget) -> usize {
        locked(&budget.taken).bytes
    }

    #[tokio::test]
    async fn one_client_gets_all_while_it_is_alone_and_half_beside_others() {
        let budget = Arc::new(Budget::new(100 * MIB));
        let share = budget.share(ONE);
        share.take_bytes(90 * MIB).await.unwrap();
        assert_eq!(share.take_bytes(11 * MIB).await, Err(Error::AnswersTooLarge));
        share.begin_again();
        assert_eq!(taken(&budget), 0);
        share.take_bytes(100 * MIB).await.unwrap();
        share.begin_again();

        let other = budget.share(OTHER);
        other.take_bytes(10 * MIB).await.unwrap();
        share.take_bytes(50 * MIB).await.unwrap();
        let second = budget.share(ONE);
        assert_eq!(second.take_bytes(MIB).await, Err(Error::AnswersTooLarge), "the same client");
        budget.share(None).take_bytes(40 * MIB).await.unwrap();
        drop(other);
        share.take_bytes(50 * MIB).await.unwrap();
        drop(share);
        assert_eq!(taken(&budget), 0);
        assert!(locked(&budget.taken).clients.is_empty());
        second.begin_again();
        assert_eq!(second.take_bytes(101 * MIB).await, Err(Error::AnswersTooLarge));
    }

    #[tokio::test]
    async fn small_answers_find_room_where_there_is_none() {
        let budget = Arc::new(Budget::new(MIB));
        let all = budget.share(ONE);
        all.take_bytes(MIB).await.unwrap();
        let small = budget.share(OTHER);
        for _ in 0..FREE_BYTES / 1024 {
            small.take_bytes(1024).await.unwrap();
        }
        assert_eq!(taken(&budget), MIB);
        drop(all);
        // From there on all of it counts.
        small.take_bytes(1).await.unwrap();
        assert_eq!(taken(&budget), FREE_BYTES + 1);
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_for_it() {
        let budget = Arc::new(Budget::new(100 * MIB));
        let (first, second) = (budget.share(ONE), budget.share(OTHER));
        first.take_bytes(80 * MIB).await.unwrap();
        let began = time::Instant::now();
        let waiting = tokio::spawn(async move { second.take_bytes(40 * MIB).await });
        time::sleep(ROOM_WITHIN / 2).await;
        drop(first);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert!(began.elapsed() < ROOM_WITHIN);
        assert_eq!(taken(&budget), 0);
    }

    #[tokio::test]
    async fn an_answer_holds_its_share_until_its_last_byte_is_dropped() {
        let budget = Arc::new(Budget::new(100 * MIB));
        let share = budget.share(ONE);
        share.take_bytes(60 * MIB).await.unwrap();
        let body = Body::new(http_body_util::Full::new(Bytes::from_static(b"all of it")));
        let answer = share.hold(http::Response::new(body));
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(bytes, "all of it");
        let last = bytes.slice(8..);
        drop(bytes);
        assert_eq!(taken(&budget), 60 * MIB);
        drop(last);
        assert_eq!(taken(&budget), 0);
    }
}

//! Maintenance.Snapshot: the logical state at one revision, as a database that etcd's tools read.
//!
//! It is made in a file without a name, which needs room on the disk, and sent from there: by then
//! its length is known, and a slow client holds up nothing. The SHA-256 of all of it follows as a
//! message of its own, as etcd's clients expect it.

mod image;
mod make;

use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use flotilla_core::Error;
use flotilla_core::proto::etcdserverpb as pb;
use futures::{Stream, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::Context;
use super::guard::Client;
use super::status::IntoStatus;
use crate::CLUSTER_VERSION;
use crate::metrics::upstream;
use image::Image;

/// Bytes of the image in one message.
const BLOB_BYTES: usize = 32 << 10;
/// Messages made ahead of the client.
const BLOBS_AHEAD_MAX: usize = 4;
/// Snapshots that are made or sent at the same time; each takes disk space.
const UNDER_WAY_MAX: usize = 2;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// A place among those under way.
struct Place;

impl Place {
    fn take() -> Result<Self, Error> {
        let take = |count: usize| (count < UNDER_WAY_MAX).then_some(count + 1);
        let taken = UNDER_WAY.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.map(|_| Self).map_err(|_| Error::TooManyRequests)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The client is told so.
    #[error(transparent)]
    Client(#[from] Error),
    /// The disk has no room for it, or fails.
    #[error("etcdserver: the snapshot cannot be made: {0}")]
    Disk(#[from] std::io::Error),
    /// The disk has no room for it beside what the node needs.
    #[error(
        "etcdserver: no room on the disk for the snapshot: {free_bytes} bytes are free, and \
         {reserve_bytes} are kept for the node"
    )]
    Full {
        /// Free bytes of the file system.
        free_bytes: u64,
        /// What is left to the node.
        reserve_bytes: u64,
    },
}

impl IntoStatus for Refusal {
    fn into_status(self) -> Status {
        match self {
            Self::Client(error) => error.into_status(),
            other => Status::new(Code::ResourceExhausted, other.to_string()),
        }
    }
}

pub(super) fn snapshot(
    context: Arc<Context>,
    _: Client,
    _: pb::SnapshotRequest,
) -> impl Stream<Item = Result<pb::SnapshotResponse, Status>> + Send {
    let begun = async move {
        let place = Place::take().map_err(Error::into_status)?;
        let began = Instant::now();
        let image = make::make(&context).await.map_err(Refusal::into_status)?;
        ::metrics::histogram!(upstream::BACKUP_SECONDS).record(began.elapsed());
        Ok::<_, Status>(send(image, place))
    };
    stream::once(begun).try_flatten()
}

fn send(image: Image, place: Place) -> impl Stream<Item = Result<pb::SnapshotResponse, Status>> {
    let (sender, receiver) = mpsc::channel(BLOBS_AHEAD_MAX);
    tokio::task::spawn_blocking(move || {
        let _place = place;
        if let Err(error) = write(image, &sender) {
            // Whoever went away needs no answer.
            let _ = sender.blocking_send(Err(Refusal::from(error).into_status()));
        }
    });
    stream::unfold(receiver, |mut receiver| async move {
        let message = receiver.recv().await?;
        Some((message, receiver))
    })
}

/// Sends an image and its hash. Stops early when nobody takes the messages any more.
fn write(
    Image { mut file, bytes }: Image,
    messages: &mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
) -> std::io::Result<()> {
    let mut remaining_bytes = bytes;
    let mut hash = Sha256::new();
    file.seek(SeekFrom::Start(0))?;
    while remaining_bytes > 0 {
        let len = remaining_bytes.min(BLOB_BYTES as u64);
        let mut blob = BytesMut::zeroed(usize::try_from(len).expect("no more than a blob"));
        file.read_exact(&mut blob)?;
        hash.update(&blob);
        remaining_bytes -= len;
        if send_blob(messages, remaining_bytes, blob.freeze()).is_break() {
            return Ok(());
        }
    }
    let hash = Bytes::copy_from_slice(&hash.finalize());
    // Whoever went away by now needs no last message.
    let _ = send_blob(messages, 0, hash);
    Ok(())
}

fn send_blob(
    messages: &mpsc::Sender<Result<pb::SnapshotResponse, Status>>,
    remaining_bytes: u64,
    blob: Bytes,
) -> ControlFlow<()> {
    let version = CLUSTER_VERSION.to_owned();
    let message = pb::SnapshotResponse { header: None, remaining_bytes, blob, version };
    match messages.blocking_send(Ok(message)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn image(bytes: usize) -> Image {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; bytes]).unwrap();
        Image { file, bytes: bytes as u64 }
    }

    #[test]
    fn blobs_say_how_much_follows_and_the_hash_comes_last() {
        for bytes in [4096, BLOB_BYTES, BLOB_BYTES + 4096, 5 * BLOB_BYTES] {
            let (sender, mut receiver) = mpsc::channel(1);
            let writer = std::thread::spawn(move || write(image(bytes), &sender).unwrap());
            let mut messages = Vec::new();
            while let Some(message) = receiver.blocking_recv() {
                messages.push(message.unwrap());
            }
            writer.join().unwrap();
            let last = messages.pop().unwrap();
            let mut sent = Vec::new();
            for message in messages {
                sent.extend_from_slice(&message.blob);
                assert_eq!(message.remaining_bytes as usize, bytes - sent.len());
            }
            assert_eq!(sent, vec![7; bytes]);
            assert_eq!((last.remaining_bytes, &last.blob[..]), (0, &Sha256::digest(&sent)[..]));
        }
    }

    #[test]
    fn a_client_that_goes_away_ends_the_sending() {
        let (sender, mut receiver) = mpsc::channel(1);
        let writer = std::thread::spawn(move || write(image(64 * BLOB_BYTES), &sender));
        receiver.blocking_recv().unwrap().unwrap();
        drop(receiver);
        writer.join().unwrap().unwrap();
    }

    #[test]
    fn no_more_than_some_are_under_way() {
        let places: Vec<Place> = (0..UNDER_WAY_MAX).map(|_| Place::take().unwrap()).collect();
        assert!(matches!(Place::take(), Err(Error::TooManyRequests)));
        drop(places);
        assert!(Place::take().is_ok());
    }
}

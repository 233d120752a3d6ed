//! Maintenance.Snapshot: the whole replicated state at one moment, as a stream of bytes.
//!
//! The image is `MAGIC`, then one part for each row in the order of columns and keys: the column's
//! number (1 byte), the lengths of key and value (4 bytes each, big-endian), key and value. The
//! byte `END`, the number of rows (8 bytes) and zeros up to a multiple of 512 bytes end it. The
//! SHA-256 of all this follows as a message of its own. etcd's tools save it, but cannot read it.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use flotilla_core::Error;
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::view::{Column, View, ViewError};
use futures::{Stream, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tonic::Status;

use super::guard::Client;
use super::status::IntoStatus;
use super::{Context, read};
use crate::CLUSTER_VERSION;
use crate::metrics::upstream;
use crate::store::{Store, is_local};
use crate::supervise::fatal;

/// Begins an image; the last byte counts its formats.
const MAGIC: &[u8; 8] = b"FLOTIMG\x01";
/// Stands in the place of a column's number behind the last row.
const END: u8 = 0xff;
/// Bytes of a part beside its key and value.
const ROW_HEAD_BYTES: u64 = 1 + 4 + 4;
/// Bytes behind the rows, without padding.
const END_BYTES: u64 = 1 + 8;
/// etcd's tools expect a whole number of these.
const ALIGNMENT_BYTES: u64 = 512;
/// Bytes of the image in one message.
const BLOB_BYTES: usize = 32 << 10;
/// Messages made ahead of the client.
const BLOBS_AHEAD_MAX: usize = 4;

pub(super) fn snapshot(
    context: Arc<Context>,
    _: Client,
    _: pb::SnapshotRequest,
) -> impl Stream<Item = Result<pb::SnapshotResponse, Status>> + Send {
    let begun = async move {
        read::until_whole(&context).await.map_err(Error::into_status)?;
        Ok::<_, Status>(begin(context.store().clone()))
    };
    stream::once(begun).try_flatten()
}

fn begin(store: Store) -> impl Stream<Item = Result<pb::SnapshotResponse, Status>> + Send {
    let (sender, receiver) = mpsc::channel(BLOBS_AHEAD_MAX);
    tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let written = store.with_snapshot(|view| write(view, &sender));
        ::metrics::histogram!(upstream::BACKUP_SECONDS).record(began.elapsed());
        if let Err(error) = written {
            fatal(&error.to_string());
        }
    });
    stream::unfold(receiver, |mut receiver| async move {
        let message = receiver.recv().await?;
        Some((Ok(message), receiver))
    })
}

/// Reads the state twice: the first message already says how many bytes follow. Stops early when
/// nobody takes the messages any more.
fn write(view: &dyn View, messages: &mpsc::Sender<pb::SnapshotResponse>) -> Result<(), ViewError> {
    let mut image_bytes = MAGIC.len() as u64 + END_BYTES;
    each_row(view, &mut |_, key, value| {
        image_bytes += ROW_HEAD_BYTES + key.len() as u64 + value.len() as u64;
        ControlFlow::Continue(())
    })?;
    let mut image = Image {
        messages,
        remaining_bytes: image_bytes.next_multiple_of(ALIGNMENT_BYTES),
        blob: BytesMut::with_capacity(BLOB_BYTES),
        hash: Sha256::new(),
    };
    let mut rows_count = 0_u64;
    let mut flow = image.put(MAGIC);
    each_row(view, &mut |column, key, value| {
        rows_count += 1;
        flow = image.put_row(column, key, value);
        flow
    })?;
    if flow.is_continue() {
        // Whoever went away by now needs no last message.
        let _ = image.end(rows_count);
    }
    Ok(())
}

/// Called for each row of each column; `Break` ends the walk.
type VisitRow<'a> = &'a mut dyn FnMut(Column, &[u8], &[u8]) -> ControlFlow<()>;

fn each_row(view: &dyn View, visit: VisitRow<'_>) -> Result<(), ViewError> {
    for column in Column::ALL {
        let mut flow = ControlFlow::Continue(());
        view.scan(column, Bound::Unbounded, Bound::Unbounded, &mut |key, value| {
            if !is_local(column, key) {
                flow = visit(column, key, value);
            }
            flow
        })?;
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

/// An image on its way.
struct Image<'a> {
    messages: &'a mpsc::Sender<pb::SnapshotResponse>,
    /// Bytes of the image that were not sent.
    remaining_bytes: u64,
    blob: BytesMut,
    hash: Sha256,
}

impl Image<'_> {
    fn put_row(&mut self, column: Column, key: &[u8], value: &[u8]) -> ControlFlow<()> {
        let mut head = [0; ROW_HEAD_BYTES as usize];
        let mut rest = &mut head[..];
        rest.put_u8(column as u8);
        rest.put_u32(u32::try_from(key.len()).expect("keys are far smaller"));
        rest.put_u32(u32::try_from(value.len()).expect("values are far smaller"));
        self.put(&head)?;
        self.put(key)?;
        self.put(value)
    }

    fn put(&mut self, mut bytes: &[u8]) -> ControlFlow<()> {
        while !bytes.is_empty() {
            let room = BLOB_BYTES - self.blob.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.blob.put_slice(now);
            bytes = later;
            if self.blob.len() == BLOB_BYTES {
                self.send_blob()?;
            }
        }
        ControlFlow::Continue(())
    }

    fn end(mut self, rows_count: u64) -> ControlFlow<()> {
        self.put(&[END])?;
        self.put(&rows_count.to_be_bytes())?;
        let unsent = self.blob.len() as u64;
        let padding = self.remaining_bytes - unsent;
        self.put(&vec![0; usize::try_from(padding).expect("less than the alignment")])?;
        if !self.blob.is_empty() {
            self.send_blob()?;
        }
        let hash = self.hash.finalize();
        send(self.messages, 0, Bytes::copy_from_slice(&hash))
    }

    fn send_blob(&mut self) -> ControlFlow<()> {
        let blob = self.blob.split().freeze();
        self.blob.reserve(BLOB_BYTES);
        self.hash.update(&blob);
        self.remaining_bytes -= blob.len() as u64;
        send(self.messages, self.remaining_bytes, blob)
    }
}

fn send(
    messages: &mpsc::Sender<pb::SnapshotResponse>,
    remaining_bytes: u64,
    blob: Bytes,
) -> ControlFlow<()> {
    let version = CLUSTER_VERSION.to_owned();
    let message = pb::SnapshotResponse { header: None, remaining_bytes, blob, version };
    match messages.blocking_send(message) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

#[cfg(test)]
mod tests {
    use flotilla_core::memory::MemoryView;
    use flotilla_core::view::Batch;

    use super::*;

    fn take(view: MemoryView) -> Vec<pb::SnapshotResponse> {
        let (sender, mut receiver) = mpsc::channel(BLOBS_AHEAD_MAX);
        let writer = std::thread::spawn(move || write(&view, &sender).unwrap());
        let mut messages = Vec::new();
        while let Some(message) = receiver.blocking_recv() {
            messages.push(message);
        }
        writer.join().unwrap();
        messages
    }

    fn check(messages: &[pb::SnapshotResponse]) -> Vec<u8> {
        let (last, blobs) = messages.split_last().unwrap();
        let mut image = Vec::new();
        let total: usize = blobs.iter().map(|message| message.blob.len()).sum();
        for message in blobs {
            image.extend_from_slice(&message.blob);
            assert_eq!(message.remaining_bytes as usize, total - image.len());
        }
        assert_eq!(last.remaining_bytes, 0);
        assert_eq!(last.blob[..], Sha256::digest(&image)[..]);
        assert_eq!((image.len() + last.blob.len()) % 512, 32, "as etcdctl checks it");
        image
    }

    #[test]
    fn an_image_holds_every_row_but_the_local_ones() {
        let mut view = MemoryView::new();
        let mut batch = Batch::default();
        batch.put(Column::Key, "a", "1");
        batch.put(Column::Meta, crate::store::LOCAL_PREFIX.to_vec(), "mine");
        batch.put(Column::Meta, "m", "2");
        view.apply(&batch);
        let image = check(&take(view));
        let mut wanted = MAGIC.to_vec();
        wanted.extend_from_slice(b"\x00\x00\x00\x00\x01\x00\x00\x00\x01a1");
        wanted.extend_from_slice(b"\x04\x00\x00\x00\x01\x00\x00\x00\x01m2");
        wanted.extend_from_slice(b"\xff\x00\x00\x00\x00\x00\x00\x00\x02");
        wanted.resize(512, 0);
        assert_eq!(image, wanted);
    }

    #[test]
    fn sizes_around_a_blob_add_up() {
        let overhead = MAGIC.len() + 9 + 1 + 9;
        let lengths = [0, 1, BLOB_BYTES - overhead - 1, BLOB_BYTES - overhead];
        for length in lengths.into_iter().chain([BLOB_BYTES - overhead + 1, 3 * BLOB_BYTES]) {
            let mut view = MemoryView::new();
            let mut batch = Batch::default();
            batch.put(Column::Key, "k", vec![7; length]);
            view.apply(&batch);
            check(&take(view));
        }
    }

    #[test]
    fn a_client_that_goes_away_ends_the_writing() {
        let mut view = MemoryView::new();
        let mut batch = Batch::default();
        for n in 0..64_u8 {
            batch.put(Column::Key, vec![n], vec![0; BLOB_BYTES]);
        }
        view.apply(&batch);
        let (sender, mut receiver) = mpsc::channel(1);
        let writer = std::thread::spawn(move || write(&view, &sender));
        receiver.blocking_recv().unwrap();
        drop(receiver);
        writer.join().unwrap().unwrap();
    }
}

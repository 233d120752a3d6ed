//! The stream between nodes, from its first byte on, with frames that their checksums vouch for and
//! frames that they do not. docs/fuzzing.md has the table.

use bytes::BytesMut;
use flotilla_core::proto::DESCRIPTOR_SET;
use flotilla_core::proto::internal::{
    PeerFrame, PeerHello, SnapshotAck, SnapshotChunk, SnapshotHeader,
};
use flotilla_fuzz::{Messages, Target, damaged, number};
use futures::executor::block_on;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use super::frame::{HELLO_BYTES_MAX, Reader, put};

fn stream_of(contents: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for content in contents {
        stream.extend((content.len() as u32).to_le_bytes());
        stream.extend(crc32c::crc32c(content).to_le_bytes());
        stream.extend(content);
    }
    stream
}

/// Reads to the end, and answers the frames.
fn read_all<M: Message + Default>(stream: &[u8]) -> Vec<M> {
    block_on(async {
        let mut reader = Reader::new(stream);
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = reader.next().await {
            frames.push(frame);
        }
        frames
    })
}

fn contents() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let messages = Messages::new(DESCRIPTOR_SET);
    let frame = messages.encoded("flotilla.internal.PeerFrame");
    let hello = messages.encoded("flotilla.internal.PeerHello");
    let chunk = messages.encoded("flotilla.internal.SnapshotChunk");
    vec(prop_oneof![4 => frame, 1 => hello, 1 => chunk], 0..5)
}

#[test]
fn fuzz_peer_frames_come_back() {
    Target::new("peer/frames_come_back").run(contents(), |contents| {
        let frames: Vec<_> =
            contents.iter().map_while(|content| PeerFrame::decode(&content[..]).ok()).collect();
        let mut stream = BytesMut::new();
        frames.iter().for_each(|frame| put(frame, &mut stream));
        assert_eq!(read_all::<PeerFrame>(&stream), frames);
    });
}

/// A stream that is damaged anywhere ends there: what came before it is what was sent.
#[test]
fn fuzz_peer_stream() {
    let frames = contents().prop_map(|contents| stream_of(&contents));
    Target::new("peer/stream").cases(512).run(damaged(frames), |stream| {
        read_all::<PeerHello>(&stream);
        read_all::<PeerFrame>(&stream);
    });
}

/// Somebody who knows the form sends what nobody else does.
#[test]
fn fuzz_peer_content() {
    let contents = vec((damaged(contents().prop_map(|all| all.concat())), number()), 0..4);
    Target::new("peer/content").cases(512).run(contents, |contents| {
        let mut stream = Vec::new();
        for (content, claimed) in contents {
            let at = stream.len();
            stream.extend(stream_of(&[content]));
            if claimed > 1 << 20 {
                // A length that is not kept: memory is given for what has come, not for what is said.
                stream[at..at + 4].copy_from_slice(&(claimed as u32).to_le_bytes());
            }
        }
        read_all::<PeerHello>(&stream);
        read_all::<PeerFrame>(&stream);
        read_all::<SnapshotHeader>(&stream);
        read_all::<SnapshotChunk>(&stream);
        read_all::<SnapshotAck>(&stream);
    });
}

/// Somebody unknown is given no more memory than a greeting takes. A list of empty addresses takes twelve
/// times as much as it has on its way.
#[test]
fn fuzz_peer_greeting() {
    let target = Target::new("peer/greeting").cases(32).bytes_max(24 << 20);
    target.run((0..2_000_000_usize, any::<bool>()), |(addresses, is_honest)| {
        let hello = PeerHello { from: 3, ..PeerHello::default() };
        let content = [hello.encode_to_vec(), [0x2a, 0].repeat(addresses)].concat();
        let stream =
            if is_honest { stream_of(&[hello.encode_to_vec()]) } else { stream_of(&[content]) };
        let read = block_on(Reader::new(&stream[..]).hello());
        match read {
            Ok(read) => assert_eq!(read.map(|hello| hello.from), Some(3)),
            Err(_) => assert!(stream.len() > HELLO_BYTES_MAX),
        }
    });
}

//! The last packets, for whoever wants to know what was said: a ring that is written as a pcap
//! file at the end.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Packets that are kept.
const PACKETS_MAX: usize = 20_000;
/// Bytes of each that are kept: the headers, and the beginning of what is inside.
const BYTES_MAX: usize = 160;
/// Microsecond stamps, in the byte order of the writer.
const MAGIC: u32 = 0xa1b2_c3d4;
const ETHERNET: u32 = 1;

/// The last packets.
#[derive(Debug, Default)]
pub(super) struct Ring {
    packets: VecDeque<Packet>,
}

#[derive(Debug)]
struct Packet {
    at: SystemTime,
    length: usize,
    head: Vec<u8>,
}

impl Ring {
    pub(super) fn push(&mut self, frame: &[u8]) {
        if self.packets.len() == PACKETS_MAX {
            self.packets.pop_front();
        }
        let head = frame[..frame.len().min(BYTES_MAX)].to_vec();
        self.packets.push_back(Packet { at: SystemTime::now(), length: frame.len(), head });
    }

    pub(super) fn write(&self, file: &Path) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let mut word = |word: u32| bytes.extend(word.to_ne_bytes());
        // Version 2.4, no zone, no accuracy, the longest packet, the kind of link.
        for value in [MAGIC, 2 | 4 << 16, 0, 0, 65_535, ETHERNET] {
            word(value);
        }
        for packet in &self.packets {
            let since = packet.at.duration_since(UNIX_EPOCH).unwrap_or_default();
            let length = u32::try_from(packet.length).unwrap_or(u32::MAX);
            let kept = u32::try_from(packet.head.len()).unwrap_or(0);
            let seconds = u32::try_from(since.as_secs()).unwrap_or(u32::MAX);
            for value in [seconds, since.subsec_micros(), kept, length] {
                bytes.extend(value.to_ne_bytes());
            }
            bytes.extend(&packet.head);
        }
        std::fs::write(file, bytes)
    }
}

//! The log's settings. Owns their names, units, defaults and the limits that follow from them.

use std::path::PathBuf;
use std::time::Duration;

use super::error::Error;
use super::format::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, UNIT_BYTES};

#[derive(Clone, Debug)]
pub struct Options {
    /// Where the log lives; created if missing. Nothing else may be in it.
    pub dir: PathBuf,
    /// Length of a segment file. A multiple of 4096 from 64 KiB to 256 MiB.
    pub segment_bytes: u64,
    /// A batch takes no further append once it is this large. At most an eighth of a segment.
    pub batch_bytes_max: u64,
    /// Appends that may wait for the log's thread.
    pub queue_appends_max: usize,
    /// Bytes of appends that may wait for the log's thread. One append may always wait.
    pub queue_bytes_max: u64,
    /// Freed segments kept for use as new ones. They are quicker to write than new files.
    pub recycled_segments_max: usize,
    /// When the segments together are longer than this and at least half of that is dead, entries
    /// of idle groups are copied forward so that old segments can go.
    pub retained_bytes_max: u64,
    /// After so long without a flush, what did not need one is written, and the last flush is
    /// confirmed: from then on recovery can tell damage to it from a crash during it.
    pub confirm_delay: Duration,
    /// A wait before every flush, for measurements; zero otherwise.
    pub flush_delay: Duration,
    /// False only for `--unsafe-no-fsync`: then appends are reported done once the operating
    /// system has them, and after a loss of power the log may refuse to open.
    pub is_flushed: bool,
}

impl Options {
    pub const SEGMENT_BYTES: u64 = 64 << 20;
    pub const BATCH_BYTES_MAX: u64 = 4 << 20;
    pub const QUEUE_APPENDS_MAX: usize = 16 << 10;
    pub const QUEUE_BYTES_MAX: u64 = 64 << 20;
    pub const RECYCLED_SEGMENTS_MAX: usize = 2;
    pub const RETAINED_BYTES_MAX: u64 = 512 << 20;
    pub const CONFIRM_DELAY: Duration = Duration::from_millis(100);

    /// The defaults.
    pub fn new(dir: PathBuf) -> Options {
        Options {
            dir,
            segment_bytes: Options::SEGMENT_BYTES,
            batch_bytes_max: Options::BATCH_BYTES_MAX,
            queue_appends_max: Options::QUEUE_APPENDS_MAX,
            queue_bytes_max: Options::QUEUE_BYTES_MAX,
            recycled_segments_max: Options::RECYCLED_SEGMENTS_MAX,
            retained_bytes_max: Options::RETAINED_BYTES_MAX,
            confirm_delay: Options::CONFIRM_DELAY,
            flush_delay: Duration::ZERO,
            is_flushed: true,
        }
    }

    /// The largest append, in bytes as recorded: an eighth of a segment. A frame holds at most a
    /// batch (an eighth), the append that overfilled it (an eighth), copied entries (an eighth)
    /// and a checkpoint, so at least half a segment is left for the checkpoint.
    pub fn append_bytes_max(&self) -> u64 {
        self.segment_bytes / 8
    }

    /// Living entries copied forward in one frame; a single larger entry is copied nevertheless.
    pub(super) fn copy_bytes_max(&self) -> u64 {
        (256 << 10).min(self.append_bytes_max())
    }

    /// Makes segments long enough for appends of this many bytes.
    pub fn make_room_for(&mut self, append_bytes: u64) {
        let needed = append_bytes.saturating_mul(8).next_multiple_of(UNIT_BYTES);
        self.segment_bytes = self.segment_bytes.max(needed);
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let refuse = |name, problem: String| Err(Error::Option { name, problem });
        let is_segment_sound = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX)
            .contains(&self.segment_bytes)
            && self.segment_bytes.is_multiple_of(UNIT_BYTES);
        if !is_segment_sound {
            return refuse(
                "segment_bytes",
                format!(
                    "{} is no multiple of {UNIT_BYTES} from {SEGMENT_BYTES_MIN} to \
                     {SEGMENT_BYTES_MAX}",
                    self.segment_bytes
                ),
            );
        }
        if self.batch_bytes_max == 0 || self.batch_bytes_max > self.append_bytes_max() {
            return refuse(
                "batch_bytes_max",
                format!("{} is not from 1 to {}", self.batch_bytes_max, self.append_bytes_max()),
            );
        }
        if self.queue_appends_max == 0 {
            return refuse("queue_appends_max", "it is 0".to_owned());
        }
        Ok(())
    }
}

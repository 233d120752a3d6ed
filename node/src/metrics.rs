//! Every metric of a node: its name, unit and meaning, in one place.

/// Time to apply one batch of committed entries, in seconds.
pub const APPLY_SECONDS: &str = "flotilla_apply_seconds";
/// Frames for peers that were dropped because too many waited.
pub const PEER_FRAMES_DROPPED: &str = "flotilla_peer_frames_dropped_total";
/// Bytes written to peers.
pub const PEER_SENT_BYTES: &str = "flotilla_peer_sent_bytes_total";
/// Time the disk took for one flush of the log, in seconds. etcd's name.
pub const WAL_FSYNC_SECONDS: &str = "etcd_disk_wal_fsync_duration_seconds";

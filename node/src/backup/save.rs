//! Takes a backup of a running cluster.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use flotilla_proto::etcdserverpb::SnapshotRequest;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;

use super::file::{self, Hash};
use crate::ctl::{self, Target};

/// Writes beside the file, looks at what was written, and gives it its name.
pub(super) fn save(target: &Target, path: &Path) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let part = PathBuf::from(format!("{}.part", path.display()));
    let result = runtime.block_on(receive(target, &part)).and_then(|()| {
        file::open(&part, Hash::Required).context("what was received is not whole")?;
        fs::rename(&part, path).with_context(|| format!("cannot write {}", path.display()))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(format!("Snapshot saved at {}\n", path.display()))
    });
    if result.is_err() {
        // It may not be there.
        let _ = fs::remove_file(&part);
    }
    result
}

async fn receive(target: &Target, part: &Path) -> anyhow::Result<()> {
    let dialer = target.dialer().await?;
    let channel = dialer.streaming(target.url()).await?;
    let mut client = MaintenanceClient::with_interceptor(channel, dialer.token());
    let answer = client.snapshot(SnapshotRequest {}).await.map_err(ctl::describe)?;
    let mut messages = answer.into_inner();
    let file = File::create(part).with_context(|| format!("cannot write {}", part.display()))?;
    let mut file = BufWriter::new(file);
    while let Some(message) = messages.message().await.map_err(ctl::describe)? {
        file.write_all(&message.blob)?;
    }
    file.into_inner().map_err(|error| error.into_error())?.sync_all()?;
    Ok(())
}

//! Takes a backup of a running cluster.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use flotilla_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use flotilla_proto::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::file::{self, Hash};
use crate::ctl::{self, Target};

/// How long a node may not know a token, and how often it is asked.
const TOKEN_KNOWN_WITHIN: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Writes beside the file, looks at what was written, and gives it its name.
pub(super) fn save(target: &Target, path: &Path) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let part = PathBuf::from(format!("{}.part", path.display()));
    let made = File::create(&part).with_context(|| format!("cannot write {}", part.display()));
    let result = made.and_then(|file| runtime.block_on(receive(target, file))).and_then(|()| {
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

/// Writes what a node sends, and makes it durable.
pub(super) async fn receive(target: &Target, file: File) -> anyhow::Result<()> {
    let dialer = target.dialer().await?;
    let channel = dialer.streaming(target.url()).await?;
    let mut client = MaintenanceClient::with_interceptor(channel, dialer.token());
    let deadline = Instant::now() + TOKEN_KNOWN_WITHIN;
    let (mut messages, mut next) = loop {
        match begin(&mut client).await {
            // A node that lags behind does not know the token yet that it has just given.
            Err(status) if status.code() == Code::Unauthenticated && Instant::now() < deadline => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            begun => break begun.map_err(ctl::describe)?,
        }
    };
    let mut file = BufWriter::new(file);
    while let Some(message) = next {
        file.write_all(&message.blob)?;
        next = messages.message().await.map_err(ctl::describe)?;
    }
    file.into_inner().map_err(|error| error.into_error())?.sync_all()?;
    Ok(())
}

type Messages = Streaming<SnapshotResponse>;

/// The stream, and the first message of it.
async fn begin(
    client: &mut MaintenanceClient<InterceptedService<Channel, impl Interceptor>>,
) -> Result<(Messages, Option<SnapshotResponse>), Status> {
    let mut messages = client.snapshot(SnapshotRequest {}).await?.into_inner();
    let first = messages.message().await?;
    Ok((messages, first))
}

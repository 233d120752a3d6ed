//! What was made of files, made anew when they change. One that does not read leaves the old one in
//! force: a rotation that goes wrong must not cut off a running cluster.

use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use super::files::{self, Error, Stamp};
use crate::config::Tls;

/// How often the files are looked at. What was written holds for handshakes after that.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A value made of the files that a side names.
pub(super) struct Watched<T> {
    current: Arc<RwLock<Arc<T>>>,
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self { current: self.current.clone() }
    }
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Makes it, and goes on looking on a thread of its own until it is dropped, so that no
    /// handshake waits for a disk.
    pub(super) fn open(
        tls: &Tls,
        make: impl Fn(&Tls) -> Result<T, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        // Looked at first: what is written between the two is seen as a change.
        let seen = files::stamps(tls);
        let current = Arc::new(RwLock::new(Arc::new(make(tls)?)));
        if !seen.is_empty() {
            let (tls, weak) = (tls.clone(), Arc::downgrade(&current));
            let thread = std::thread::Builder::new().name("certificates".to_owned());
            let spawned = thread.spawn(move || watch(&tls, seen, &weak, &make));
            spawned.map_err(|source| Error::Open { path: "/proc/self/task".into(), source })?;
        }
        Ok(Self { current })
    }

    /// The newest that could be made.
    pub(super) fn current(&self) -> Arc<T> {
        // Nothing panics while it is locked.
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

fn watch<T>(
    tls: &Tls,
    mut seen: Vec<Stamp>,
    current: &Weak<RwLock<Arc<T>>>,
    make: &impl Fn(&Tls) -> Result<T, Error>,
) {
    loop {
        std::thread::sleep(LOOK_INTERVAL);
        let Some(current) = current.upgrade() else { return };
        let now = files::stamps(tls);
        if now == seen {
            continue;
        }
        seen = now;
        match make(tls) {
            Ok(made) => {
                *current.write().unwrap_or_else(std::sync::PoisonError::into_inner) =
                    Arc::new(made);
                tracing::info!("certificates were read anew");
            }
            // The other half of a pair may be written next, which is a change again.
            Err(error) => {
                tracing::warn!(%error, "certificates have changed and cannot be used: the old ones stay");
            }
        }
    }
}

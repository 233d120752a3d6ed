//! Hashing and comparing passwords, which takes long on purpose: on threads that may block, a few at
//! a time, and never under a lock.

use std::sync::{Arc, OnceLock};

use flotilla_core::Error;
use tokio::sync::Semaphore;
use tokio::task;
use zeroize::Zeroizing;

/// Passwords hashed or compared at the same time. Each keeps a core busy for its time.
pub const HASHES_AT_ONCE: usize = 2;
/// Passwords that may wait for that; further ones are refused.
pub const HASHES_WAITING_MAX: usize = 128;
/// Bcrypt takes no more of a password into account.
const PASSWORD_BYTES_MAX: usize = 72;

/// A password on its way. It is not shown, and its bytes are overwritten when it is dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Its text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Hashes and compares.
pub(super) struct Passwords {
    cost: u32,
    at_once: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Stands in for that of a user who does not exist.
    nobodys: Arc<OnceLock<String>>,
}

impl Passwords {
    pub(super) fn new(cost: u32) -> Self {
        Self {
            cost,
            at_once: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            waiting: Arc::new(Semaphore::new(HASHES_AT_ONCE + HASHES_WAITING_MAX)),
            nobodys: Arc::new(OnceLock::new()),
        }
    }

    pub(super) async fn hash(&self, password: Password) -> Result<String, Error> {
        if password.0.len() > PASSWORD_BYTES_MAX {
            return Err(Error::PasswordTooLong);
        }
        let cost = self.cost;
        self.work(move || hashed(password.0.as_bytes(), cost)).await?.ok_or(Error::AuthFailed)
    }

    /// Whether it is the password with that hash; without one it is not.
    pub(super) async fn verify(
        &self,
        password: Password,
        hash: Option<String>,
    ) -> Result<bool, Error> {
        let (cost, nobodys) = (self.cost, self.nobodys.clone());
        self.work(move || {
            let is_somebody = hash.is_some();
            let hash = hash.unwrap_or_else(|| {
                let hash = nobodys.get_or_init(|| hashed(b"nobody", cost).unwrap_or_default());
                hash.clone()
            });
            bcrypt::verify(password.0.as_bytes(), &hash).unwrap_or(false) && is_somebody
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let waiting = self.waiting.clone().try_acquire_owned();
        let waiting = waiting.map_err(|_| Error::TooManyRequests)?;
        let turn = self.at_once.clone().acquire_owned().await.map_err(|_| Error::Stopped)?;
        // The turn ends with the work, though its client may be gone before.
        let done = task::spawn_blocking(move || {
            let _held = (waiting, turn);
            work()
        });
        done.await.map_err(|_| Error::Stopped)
    }
}

/// In the form that etcd writes.
fn hashed(password: &[u8], cost: u32) -> Option<String> {
    let parts = bcrypt::hash_with_result(password, cost).ok()?;
    Some(parts.format_for_version(bcrypt::Version::TwoA))
}

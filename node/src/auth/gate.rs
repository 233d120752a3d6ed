//! The node's gate: finds out who a client is, and holds what it takes to say what that one may do.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use flotilla_core::Error;
use flotilla_core::auth::{Auth, Caller, Forget, News, Pass, Tokens, token_index};
use flotilla_core::time::{Length, Time};

use super::jwt::Signer;
use super::passwords::Passwords;
use super::{Credentials, Password};
use crate::config::{Config, TokenProvider};

/// How often it is looked whether this node has come to the entry that gave a token.
const TOKEN_POLL: Duration = Duration::from_millis(5);
/// How long a token may be ahead of this node.
const TOKEN_AHEAD_MAX: Duration = Duration::from_secs(5);
/// Letters of a simple token.
const TOKEN_LETTERS: usize = 16;

/// One for each node, shared by all of its threads.
pub struct Gate {
    /// As folded; what the store shows may be older.
    auth: RwLock<Arc<Auth>>,
    is_enabled: AtomicBool,
    changed_at: AtomicU64,
    provider: Provider,
    passwords: Passwords,
    started: Instant,
}

enum Provider {
    /// Tokens that the order gives, and every node remembers.
    Simple(Mutex<Tokens>),
    /// Tokens that are signed, and that nobody remembers.
    Signed(Box<Signer>),
    /// None: only certificates tell who a client is.
    Nothing,
}

impl Gate {
    /// A gate for a node whose state stands at `auth`.
    ///
    /// # Errors
    /// A key cannot be read, or is not of the kind that the method takes.
    pub fn open(config: &Config, auth: Arc<Auth>) -> anyhow::Result<Self> {
        let provider = match &config.auth_token {
            TokenProvider::Simple => {
                let lifetime = u64::try_from(config.auth_token_ttl.as_micros())?;
                Provider::Simple(Mutex::new(Tokens::new(Length(lifetime))))
            }
            TokenProvider::Jwt(options) => Provider::Signed(Box::new(Signer::open(options)?)),
            TokenProvider::Nothing => Provider::Nothing,
        };
        Ok(Self {
            is_enabled: AtomicBool::new(auth.is_enabled()),
            changed_at: AtomicU64::new(auth.changed_at()),
            auth: RwLock::new(auth),
            provider,
            passwords: Passwords::new(config.bcrypt_cost),
            started: Instant::now(),
        })
    }

    /// Takes what the folded state says, in its order.
    pub fn tell(&self, news: News) {
        match news {
            News::Changed(auth, forget) => {
                // A check that finds authentication off must not find users that count.
                let is_enabled = auth.is_enabled();
                let changed_at = auth.changed_at();
                *self.auth.write().unwrap_or_else(PoisonError::into_inner) = auth;
                self.changed_at.store(changed_at, Ordering::Release);
                self.is_enabled.store(is_enabled, Ordering::Release);
                let Some(mut tokens) = self.tokens() else { return };
                match forget {
                    Forget::Nothing => {}
                    Forget::User(user) => tokens.forget_user(&user),
                    Forget::All => tokens.clear(),
                }
            }
            News::Token { user, token } => {
                if let Some(mut tokens) = self.tokens() {
                    tokens.add(self.now(), token, user);
                }
            }
        }
    }

    /// The spine index of the last change of users, roles or permissions, at least of the one that
    /// `is_enabled` told of before; 0 if there was none. Costs next to nothing.
    pub fn changed_at(&self) -> u64 {
        self.changed_at.load(Ordering::Acquire)
    }

    /// Whether requests need a user. Costs next to nothing.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled.load(Ordering::Acquire)
    }

    /// Users, roles and permissions, as far as this node has folded.
    pub fn auth(&self) -> Arc<Auth> {
        self.auth.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether what was let in with this pass would be let in again.
    ///
    /// # Errors
    /// See `Admission::admits`.
    pub fn admits(&self, pass: Pass) -> Result<(), Error> {
        if pass == Pass::NOBODY && !self.is_enabled() {
            return Ok(());
        }
        self.auth().admission().admits(pass)
    }

    /// Who a client is. `committed` tells up to which index of the spine this node has folded: a
    /// token from beyond is waited for.
    ///
    /// # Errors
    /// A token that stands for nobody. Not to show one is no error here.
    pub async fn caller(
        &self,
        credentials: &Credentials,
        committed: impl Fn() -> u64,
    ) -> Result<Caller, Error> {
        if !self.is_enabled() {
            return Ok(Caller::default());
        }
        let Some(token) = credentials.token() else {
            let user = credentials.common_name().map(str::to_owned);
            return Ok(Caller { user, revision: None });
        };
        match &self.provider {
            Provider::Simple(tokens) => {
                let index = token_index(token).ok_or(Error::InvalidAuthToken)?;
                let deadline = Instant::now() + TOKEN_AHEAD_MAX;
                while committed() < index {
                    if Instant::now() >= deadline {
                        return Err(Error::InvalidAuthToken);
                    }
                    tokio::time::sleep(TOKEN_POLL).await;
                }
                let user = lock(tokens).user(self.now(), token);
                user.map(Caller::user).ok_or(Error::InvalidAuthToken)
            }
            Provider::Signed(signer) => signer.read(token).ok_or(Error::InvalidAuthToken),
            Provider::Nothing => Err(Error::InvalidAuthToken),
        }
    }

    /// Letters for a new simple token; `None` if tokens are of another kind.
    pub fn draw_letters(&self) -> Option<String> {
        const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let Provider::Simple(_) = &self.provider else { return None };
        let letter = || char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
        Some((0..TOKEN_LETTERS).map(|_| letter()).collect())
    }

    /// A signed token for a user whose password was found right.
    ///
    /// # Errors
    /// This node has no key to sign with, or gives no tokens.
    pub fn sign(&self, user: &str, auth_revision: u64) -> Result<String, Error> {
        match &self.provider {
            Provider::Signed(signer) => signer.sign(user, auth_revision),
            Provider::Simple(_) | Provider::Nothing => Err(Error::AuthFailed),
        }
    }

    /// The hash of a new password.
    ///
    /// # Errors
    /// It is too long, or too many are being hashed.
    pub async fn hash(&self, password: Password) -> Result<String, Error> {
        self.passwords.hash(password).await
    }

    /// Looks at a user's password, against the state returned. Takes as long for a user who does not
    /// exist.
    ///
    /// # Errors
    /// Authentication is off, there is no such user with this password, or the user has none, or too
    /// many are being looked at.
    pub async fn check_password(&self, name: &str, password: Password) -> Result<Arc<Auth>, Error> {
        let auth = self.auth();
        if !auth.is_enabled() {
            return Err(Error::AuthNotEnabled);
        }
        let user = auth.user(name);
        if user.is_some_and(|user| user.is_without_password()) {
            return Err(Error::NoPasswordUser);
        }
        let hash = user.map(|user| user.password_hash().to_owned());
        match self.passwords.verify(password, hash).await? {
            true => Ok(auth),
            false => Err(Error::AuthFailed),
        }
    }

    fn tokens(&self) -> Option<MutexGuard<'_, Tokens>> {
        match &self.provider {
            Provider::Simple(tokens) => Some(lock(tokens)),
            Provider::Signed(_) | Provider::Nothing => None,
        }
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

fn lock(tokens: &Mutex<Tokens>) -> MutexGuard<'_, Tokens> {
    tokens.lock().unwrap_or_else(PoisonError::into_inner)
}

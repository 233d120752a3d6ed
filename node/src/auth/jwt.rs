//! Signed tokens (JWT): a user's name, the auth revision at which the password was found right, and
//! when the token ends.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use flotilla_core::Error;
use flotilla_core::auth::Caller;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::config::JwtOptions;

/// Makes and reads tokens of one method.
pub(super) struct Signer {
    algorithm: Algorithm,
    /// `None` on a node that only reads tokens.
    private: Option<EncodingKey>,
    public: DecodingKey,
    lifetime: Duration,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    username: String,
    revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
}

impl Signer {
    pub(super) fn open(options: &JwtOptions) -> anyhow::Result<Self> {
        let algorithm = match options.method.as_str() {
            "HS256" => Algorithm::HS256,
            "HS384" => Algorithm::HS384,
            "HS512" => Algorithm::HS512,
            "RS256" => Algorithm::RS256,
            "RS384" => Algorithm::RS384,
            "RS512" => Algorithm::RS512,
            "PS256" => Algorithm::PS256,
            "PS384" => Algorithm::PS384,
            "PS512" => Algorithm::PS512,
            "ES256" => Algorithm::ES256,
            "ES384" => Algorithm::ES384,
            "EdDSA" => Algorithm::EdDSA,
            other => bail!("--auth-token: the method {other:?} of signing tokens is not served"),
        };
        let public = options.public_key.as_deref().map(read).transpose()?;
        let private = options.private_key.as_deref().map(read).transpose()?;
        let kind = &options.method;
        let wrong = || format!("--auth-token: a key is not of the kind that {kind} takes");
        let (private, public) = match algorithm {
            // One key for both.
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => {
                let key = private.context("--auth-token: priv-key is missing")?;
                (Some(EncodingKey::from_secret(&key)), DecodingKey::from_secret(&key))
            }
            Algorithm::ES256 | Algorithm::ES384 => {
                let private = private.as_deref().map(EncodingKey::from_ec_pem);
                let public = public.context("--auth-token: pub-key is missing")?;
                let public = DecodingKey::from_ec_pem(&public).with_context(wrong)?;
                (private.transpose().with_context(wrong)?, public)
            }
            Algorithm::EdDSA => {
                let private = private.as_deref().map(EncodingKey::from_ed_pem);
                let public = public.context("--auth-token: pub-key is missing")?;
                let public = DecodingKey::from_ed_pem(&public).with_context(wrong)?;
                (private.transpose().with_context(wrong)?, public)
            }
            _ => {
                let private = private.as_deref().map(EncodingKey::from_rsa_pem);
                let public = public.context("--auth-token: pub-key is missing")?;
                let public = DecodingKey::from_rsa_pem(&public).with_context(wrong)?;
                (private.transpose().with_context(wrong)?, public)
            }
        };
        let signer = Self { algorithm, private, public, lifetime: options.lifetime };
        if signer.private.is_some() {
            // Keys that do not belong together are found when the node starts.
            let token = signer.sign("probe", 0)?;
            ensure!(signer.read(&token).is_some(), "--auth-token: the keys are no pair");
        }
        Ok(signer)
    }

    pub(super) fn sign(&self, user: &str, revision: u64) -> Result<String, Error> {
        let private = self.private.as_ref().ok_or(Error::TokenVerifyOnly)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let exp = Some((now + self.lifetime).as_secs());
        let claims = Claims { username: user.to_owned(), revision, exp };
        let token = jsonwebtoken::encode(&Header::new(self.algorithm), &claims, private);
        token.map_err(|_| Error::AuthFailed)
    }

    /// Whose token it is; `None` if it was not signed as it should be, or has ended.
    pub(super) fn read(&self, token: &str) -> Option<Caller> {
        let mut validation = Validation::new(self.algorithm);
        validation.required_spec_claims.clear();
        validation.leeway = 0;
        validation.validate_aud = false;
        let read = jsonwebtoken::decode::<Claims>(token, &self.public, &validation).ok()?;
        let Claims { username, revision, .. } = read.claims;
        Some(Caller { user: Some(username), revision: Some(revision) })
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("--auth-token: {}", path.display()))
}

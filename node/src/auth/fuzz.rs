//! What strangers show of themselves: tokens of either kind in headers of any content.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::auth::{Auth, token_index};
use flotilla_fuzz::{Target, damaged, number};
use futures::executor::block_on;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::jwt::Signer;
use super::{Credentials, Gate};
use crate::config::{Config, JwtOptions};

fn signer(method: &str, secret: PathBuf) -> Signer {
    let lifetime = Duration::from_secs(300);
    let method = method.to_owned();
    Signer::open(&JwtOptions { method, public_key: None, private_key: Some(secret), lifetime })
        .unwrap()
}

/// A token is read as it was signed, or not at all, whatever was done to it.
#[test]
fn fuzz_auth_signed_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "a secret that nobody knows").unwrap();
    let signers = ["HS256", "HS512"].map(|method| signer(method, secret.clone()));
    let tokens: Vec<Vec<u8>> = ["root", "", "é\0\"}", &"n".repeat(900)]
        .iter()
        .flat_map(|user| signers.iter().map(|signer| signer.sign(user, 7).unwrap().into_bytes()))
        .chain([
            // Nobody's signature, in the words of RFC 7515.
            b"eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QiLCJyZXZpc2lvbiI6N30.".to_vec(),
            b"eyJhbGciOiJIUzI1NiJ9.bm8.bm8".to_vec(),
        ])
        .collect();
    let valid = tokens[..8].to_vec();
    let target = Target::new("auth/signed_tokens").cases(512);
    target.run(damaged(proptest::sample::select(tokens)), |token| {
        let token = String::from_utf8_lossy(&token);
        for signer in &signers {
            if let Some(caller) = signer.read(&token) {
                // Bits behind the last whole byte of base64 mean nothing, and are refused as well.
                assert!(valid.contains(&token.as_bytes().to_vec()), "{token} {caller:?}");
            }
        }
    });
}

#[test]
fn fuzz_auth_headers() {
    let token = (proptest::string::string_regex("[a-zA-Z]{0,16}").unwrap(), number())
        .prop_map(|(letters, index)| format!("Bearer {letters}.{index}").into_bytes());
    let name = proptest::sample::select(vec!["token", "authorization", "other"]);
    let gate = Gate::open(&Config::default(), Arc::new(Auth::restored(true, 1))).unwrap();
    let inputs = proptest::collection::vec((name, damaged(token)), 0..3);
    Target::new("auth/headers").cases(512).run(inputs, |values| {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        let credentials = Credentials::read(&headers, None);
        assert!(!format!("{credentials:?}").contains("Bearer"));
        if let Some(token) = credentials.token() {
            assert_eq!(token_index(token).is_some(), token_index(token).is_some());
            // Everything is folded, so that nothing is waited for.
            let caller = block_on(gate.caller(&credentials, || u64::MAX));
            assert!(caller.is_err(), "no token was ever given");
        }
    });
}

//! Who a client is found to be, and what passwords cost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_core::Error;
use flotilla_core::auth::{Auth, Caller, Forget, News};
use flotilla_core::proto::etcdserverpb as pb;
use flotilla_core::proto::internal::{AuthChange, auth_change::What};
use http::HeaderMap;

use super::{Credentials, Gate, HASHES_AT_ONCE, HASHES_WAITING_MAX, Password};
use crate::config::{Config, TokenProvider};

const COST: u32 = 4;

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

fn gate(provider: TokenProvider) -> Gate {
    let config = Config { auth_token: provider, bcrypt_cost: COST, ..Config::default() };
    Gate::open(&config, Arc::new(Auth::default())).unwrap()
}

/// Authentication is on; root's password is this.
fn enabled(hash: &str) -> Arc<Auth> {
    let mut auth = Auth::default();
    let (name, hashed_password) = ("root".to_owned(), hash.to_owned());
    let root = pb::AuthUserAddRequest { name, hashed_password, ..Default::default() };
    let (user, role) = ("root".to_owned(), "root".to_owned());
    let changes = [
        What::UserAdd(root),
        What::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role }),
        What::Enable(pb::AuthEnableRequest {}),
    ];
    for (index, what) in (2..).zip(changes) {
        auth.change(&AuthChange { user: "root".to_owned(), what: Some(what) }, index).unwrap();
    }
    Arc::new(auth)
}

fn shown(name: &'static str, value: &str) -> Credentials {
    let mut headers = HeaderMap::new();
    headers.insert(name, value.parse().unwrap());
    Credentials::read(&headers, Some("by certificate".into()))
}

#[test]
fn a_token_is_read_from_where_etcd_reads_it() {
    let token = |credentials: Credentials| credentials.token().map(str::to_owned);
    assert_eq!(token(shown("token", "a.1")).as_deref(), Some("a.1"));
    assert_eq!(token(shown("token", "Bearer a.1")).as_deref(), Some("a.1"));
    assert_eq!(token(shown("authorization", "a.1")).as_deref(), Some("a.1"));
    assert_eq!(token(shown("authorization", "Bearer a.1")).as_deref(), Some("a.1"));
    assert_eq!(token(shown("other", "a.1")), None);
    let mut headers = HeaderMap::new();
    headers.insert("token", "first".parse().unwrap());
    headers.insert("authorization", "second".parse().unwrap());
    assert_eq!(token(Credentials::read(&headers, None)).as_deref(), Some("first"));
    let text = format!("{:?}", shown("token", "secret"));
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn who_a_client_is_depends_on_what_it_shows() {
    block_on(async {
        let gate = gate(TokenProvider::Simple);
        let committed = || 9;
        let caller = async |credentials: &Credentials| gate.caller(credentials, committed).await;
        // Off: nobody is asked, whatever is shown.
        assert_eq!(caller(&shown("token", "garbage")).await, Ok(Caller::default()));
        gate.tell(News::Changed(enabled(""), Forget::Nothing));
        let token = News::Token { user: "alice".to_owned(), token: "abc.7".to_owned() };
        gate.tell(token.clone());
        assert_eq!(caller(&shown("token", "abc.7")).await, Ok(Caller::user("alice")));
        for bad in ["garbage", "abc.8", "abd.7", ""] {
            let refused = caller(&shown("token", bad)).await;
            assert_eq!(refused, Err(Error::InvalidAuthToken), "{bad:?}");
        }
        // A token comes before a certificate, and a certificate before nothing.
        assert_eq!(caller(&shown("other", "")).await, Ok(Caller::user("by certificate")));
        assert_eq!(caller(&Credentials::default()).await, Ok(Caller::default()));

        gate.tell(News::Changed(enabled(""), Forget::User("bob".to_owned())));
        assert_eq!(caller(&shown("token", "abc.7")).await, Ok(Caller::user("alice")));
        gate.tell(News::Changed(enabled(""), Forget::User("alice".to_owned())));
        assert_eq!(caller(&shown("token", "abc.7")).await, Err(Error::InvalidAuthToken));
    });
}

#[test]
fn a_token_from_beyond_what_is_folded_is_waited_for() {
    block_on(async {
        let gate = gate(TokenProvider::Simple);
        gate.tell(News::Changed(enabled(""), Forget::Nothing));
        let began = Instant::now();
        let committed = || {
            if began.elapsed() < Duration::from_millis(100) {
                return 6;
            }
            let (user, token) = ("alice".to_owned(), "abc.7".to_owned());
            gate.tell(News::Token { user, token });
            7
        };
        let caller = gate.caller(&shown("token", "abc.7"), committed).await;
        assert_eq!(caller, Ok(Caller::user("alice")));
    });
}

#[test]
fn passwords_are_compared_and_nobody_has_one() {
    block_on(async {
        let gate = gate(TokenProvider::Simple);
        let check = async |name: &str, password: &str| {
            let password = Password::from(password.to_owned());
            gate.check_password(name, password).await.map(|_| ())
        };
        assert_eq!(check("root", "secret").await, Err(Error::AuthNotEnabled));
        let hash = gate.hash(Password::from("secret".to_owned())).await.unwrap();
        assert!(hash.starts_with("$2a$04$"), "{hash}");
        gate.tell(News::Changed(enabled(&hash), Forget::Nothing));
        assert_eq!(check("root", "secret").await, Ok(()));
        assert_eq!(check("root", "Secret").await, Err(Error::AuthFailed));
        assert_eq!(check("root", "").await, Err(Error::AuthFailed));
        assert_eq!(check("somebody", "nobody").await, Err(Error::AuthFailed));
        let long = Password::from("p".repeat(73));
        assert_eq!(gate.hash(long).await, Err(Error::PasswordTooLong));
        assert!(gate.hash(Password::from(String::new())).await.is_ok(), "as etcd takes it");
    });
}

#[test]
fn too_many_passwords_are_refused() {
    block_on(async {
        let gate = gate(TokenProvider::Simple);
        let count = HASHES_AT_ONCE + HASHES_WAITING_MAX + 5;
        let hashes = (0..count).map(|_| gate.hash(Password::from("p".to_owned())));
        let hashed = futures::future::join_all(hashes).await;
        let refused = hashed.iter().filter(|it| **it == Err(Error::TooManyRequests)).count();
        assert_eq!(refused, 5);
        assert!(gate.hash(Password::from("p".to_owned())).await.is_ok(), "there is room again");
    });
}

#[test]
fn without_tokens_only_certificates_count() {
    block_on(async {
        let gate = gate(TokenProvider::Nothing);
        gate.tell(News::Changed(enabled(""), Forget::Nothing));
        let refused = gate.caller(&shown("token", "abc.7"), || 9).await;
        assert_eq!(refused, Err(Error::InvalidAuthToken));
        let caller = gate.caller(&shown("other", ""), || 9).await;
        assert_eq!(caller, Ok(Caller::user("by certificate")));
        assert_eq!((gate.draw_letters(), gate.sign("root", 1)), (None, Err(Error::AuthFailed)));
    });
}

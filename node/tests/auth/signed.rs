//! Signed tokens.

use flotilla_proto::etcdserverpb as pb;
use tonic::Code;

use crate::harness::{self, Cluster};
use crate::wire::{Wire, block_on};

#[test]
fn a_signed_token_is_good_until_users_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    std::fs::write(&key, "a secret that both nodes have").expect("a file");
    let token = format!("--auth-token=jwt,sign-method=HS256,priv-key={},ttl=1h", key.display());
    let mut cluster = Cluster::start_with(&harness::flotilla(), 1, &["--bcrypt-cost=4", &token]);
    let old = block_on(async {
        let wire = Wire::connect(&cluster.endpoint(0)).await;
        wire.set_up().await;
        let root = wire.authenticate("root", "root-password").await.expect("a token");
        let user = wire.authenticate("u", "u-password").await.expect("a token");
        assert_eq!(user.split('.').count(), 3, "{user}");
        wire.put("a1", Some(&user)).await.expect("permitted");
        wire.put("a1", Some(&format!("Bearer {user}"))).await.expect("permitted");
        let denied = wire.put("b1", Some(&user)).await.expect_err("never permitted");
        assert_eq!(denied.0, Code::PermissionDenied);
        // The same claims without a signature, and with another one's.
        let (claims, signature) = user.rsplit_once('.').expect("three parts");
        let others = root.rsplit_once('.').expect("three parts").1;
        assert_ne!(signature, others);
        for forged in [claims.to_owned(), format!("{claims}."), format!("{claims}.{others}")] {
            let refused = wire.put("a1", Some(&forged)).await.expect_err("forged");
            assert_eq!(refused.0, Code::Unauthenticated, "{forged}");
        }
        // Root is root by name, at whatever revision; who has permission has it at the present one.
        wire.grant(Some(&root)).await;
        let old = wire.put("a1", Some(&user)).await.expect_err("users have changed");
        let text = "etcdserver: revision of auth store is old";
        assert_eq!(old, (Code::InvalidArgument, text.to_owned()));
        let user = wire.authenticate("u", "u-password").await.expect("a token");
        wire.put("a1", Some(&user)).await.expect("permitted");
        user
    });
    // Nobody has to remember it.
    cluster.kill(0);
    cluster.restart(0);
    block_on(async {
        let wire = Wire::connect(&cluster.endpoint(0)).await;
        wire.put("a1", Some(&old)).await.expect("permitted");
        let status: pb::AuthStatusResponse = wire
            .ask("/etcdserverpb.Auth/AuthStatus", &pb::AuthStatusRequest {}, None)
            .await
            .expect("a status");
        assert!(status.enabled);
    });
}

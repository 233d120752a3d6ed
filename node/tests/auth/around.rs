//! No node is a way around: tokens and permissions are those of the cluster, whichever node a client
//! talks to and whichever range its keys are in.

use flotilla_proto::etcdserverpb as pb;
use tonic::Code;

use crate::harness::{self, Cluster};
use crate::wire::{Wire, block_on};

const ROUNDS: usize = 15;

fn is_denied<T: std::fmt::Debug>(outcome: Result<T, (Code, String)>, what: &str) {
    // The order refuses what was let in on a node that had not heard.
    let denied = outcome.expect_err(what);
    let is_denial = denied == (Code::PermissionDenied, "etcdserver: permission denied".to_owned());
    let is_old =
        denied == (Code::InvalidArgument, "etcdserver: revision of auth store is old".to_owned());
    assert!(is_denial || is_old, "{what}: {denied:?}");
}

#[test]
fn what_is_revoked_at_one_node_is_refused_at_all() {
    // Keys from a5 on are in a range of their own.
    let flags = ["--bcrypt-cost=4", "--initial-split-keys=a5,zz", "--log-level=debug"];
    let mut cluster = Cluster::start_with(&harness::flotilla(), 3, &flags);
    block_on(async {
        let mut wires = Vec::new();
        for n in 0..3 {
            wires.push(Wire::connect(&cluster.endpoint(n)).await);
        }
        wires[0].set_up().await;
        // A token is known wherever its client goes next.
        let root = wires[0].authenticate("root", "root-password").await.expect("a token");
        let user = wires[1].authenticate("u", "u-password").await.expect("a token");
        for round in 0..ROUNDS {
            let (admin, other) = (&wires[round % 3], &wires[(round + 1) % 3]);
            for key in ["a1", "a7"] {
                let put = retried(|| other.put(key, Some(&user))).await;
                put.unwrap_or_else(|error| panic!("round {round}: {key} is permitted: {error:?}"));
                other.get(key, Some(&user)).await.expect("permitted");
            }
            admin.revoke(Some(&root)).await;
            for wire in &wires {
                for key in ["a1", "a7"] {
                    is_denied(wire.put(key, Some(&user)).await, "a put after it was revoked");
                    is_denied(wire.get(key, Some(&user)).await, "a get after it was revoked");
                }
            }
            admin.grant(Some(&root)).await;
            is_denied(other.put("b1", Some(&user)).await, "never permitted");
        }

        // Writers at all nodes while permission comes and goes: after a revocation was acknowledged,
        // and until the next grant is asked for, nothing is let in.
        for round in 0..ROUNDS {
            let writers = wires.iter().enumerate().map(|(n, wire)| {
                let user = &user;
                async move {
                    for key in ["a1", "a7", "a2", "a8"] {
                        let _ = wire.put(&format!("{key}-{n}"), Some(user)).await;
                    }
                }
            });
            let writers = futures::future::join_all(writers);
            let (_, ()) = tokio::join!(writers, wires[round % 3].revoke(Some(&root)));
            let before = all(&wires[0], &root).await;
            for wire in &wires {
                is_denied(wire.put("a9", Some(&user)).await, "a put after it was revoked");
                is_denied(wire.put("a0", Some(&user)).await, "a put after it was revoked");
            }
            assert_eq!(all(&wires[1], &root).await, before, "nothing was written");
            wires[round % 3].grant(Some(&root)).await;
        }
    });

    // Users outlive a restart of everything; simple tokens do not.
    for n in 0..3 {
        cluster.kill(n);
    }
    for n in 0..3 {
        cluster.spawn(n);
    }
    cluster.wait_all_ready();
    block_on(async {
        let wire = Wire::connect(&cluster.endpoint(2)).await;
        let nobody = wire.put("a1", None).await.expect_err("authentication is on");
        assert_eq!(nobody.1, "etcdserver: user name is empty");
        let user = wire.authenticate("u", "u-password").await.expect("a token");
        wire.put("a1", Some(&user)).await.expect("permitted");
        is_denied(wire.put("b1", Some(&user)).await, "never permitted");
        let wrong = [("u", "wrong"), ("unknown", "wrong"), ("u", "")];
        for (name, password) in wrong {
            let refused = wire.authenticate(name, password).await.expect_err("not the password");
            let text = "etcdserver: authentication failed, invalid user ID or password";
            assert_eq!(refused, (Code::InvalidArgument, text.to_owned()), "{name}");
        }
    });
    // CVE-2021-28235: no log has a password.
    for node in &cluster.nodes {
        assert!(!node.log().contains("-password"), "{} logs passwords", node.name);
    }
}

/// A write that was let in before the last change of users took its place after it is refused, and
/// its client asks again.
async fn retried<T, F>(write: impl Fn() -> F) -> Result<T, (Code, String)>
where
    F: Future<Output = Result<T, (Code, String)>>,
{
    for _ in 0..20 {
        match write().await {
            Err((_, text)) if text == "etcdserver: revision of auth store is old" => {}
            outcome => return outcome,
        }
    }
    write().await
}

async fn all(wire: &Wire, token: &str) -> Vec<(bytes::Bytes, i64)> {
    let (key, range_end) = (bytes::Bytes::from_static(b"a"), bytes::Bytes::from_static(b"b"));
    let request = pb::RangeRequest { key, range_end, ..Default::default() };
    let answer: pb::RangeResponse =
        wire.ask("/etcdserverpb.KV/Range", &request, Some(token)).await.expect("root reads");
    answer.kvs.into_iter().map(|kv| (kv.key, kv.mod_revision)).collect()
}

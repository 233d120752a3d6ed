//! Who is who: the ids of members and of the cluster, computed from peer addresses as etcd
//! computes them, so that tools which know a cluster by its ids keep knowing it. Pure arithmetic;
//! never decides whether a member may join.

use bytes::Bytes;
use flotilla_proto::ids::NodeId;
use sha1::{Digest, Sha1};

use super::url::Url;
use crate::spine::state::REPLICAS_WANTED;

/// The id of a member named in the first cluster, from its peer addresses and the cluster's
/// token. The order of the addresses does not matter. Source: etcd membership/member.go.
pub fn member_id(peer_urls: &[String], cluster_token: &str) -> NodeId {
    salted_member_id(peer_urls, cluster_token)
}

/// The id of a member added to a running cluster: the moment of the request, in seconds since
/// 1970, takes the token's place, so that an address used before gets a fresh id. Two requests
/// for one address within a second collide, and the second is refused as already present.
pub fn added_member_id(peer_urls: &[String], added_at_unix_seconds: i64) -> NodeId {
    salted_member_id(peer_urls, &added_at_unix_seconds.to_string())
}

/// The id of a cluster, from the ids of its first members and the keys at which it was cut into
/// ranges, which is etcd's id if there are none. It stays the same when members and ranges come and
/// go, hence is computed once and stored.
pub fn cluster_id(members: &[NodeId], cuts: &[Bytes], range_replicas: usize) -> u64 {
    let mut sorted = members.to_vec();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for member in sorted {
        hash.update(member.0.to_be_bytes());
    }
    for cut in cuts {
        hash.update((cut.len() as u64).to_be_bytes());
        hash.update(cut);
    }
    // As etcd has it, where nothing is told.
    if range_replicas != REPLICAS_WANTED {
        hash.update((range_replicas as u64).to_be_bytes());
    }
    first_eight_bytes(hash)
}

/// The id of a cluster that begins with a backup, from what it would be without one and a digest of
/// all that is restored: founders that begin with different states found different clusters.
pub fn restored_cluster_id(founded: u64, digest: &[u8]) -> u64 {
    let mut hash = Sha1::new();
    hash.update(founded.to_be_bytes());
    hash.update(digest);
    first_eight_bytes(hash)
}

/// Whether a request to add a member names usable addresses: at least one, each of a known
/// scheme, with a port unless it is a socket, and without a path.
pub fn peer_urls_valid(peer_urls: &[String]) -> bool {
    !peer_urls.is_empty() && peer_urls.iter().all(|url| Url::parse(url).is_ok())
}

fn salted_member_id(peer_urls: &[String], salt: &str) -> NodeId {
    let mut sorted: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut hash = Sha1::new();
    for url in sorted {
        hash.update(url);
    }
    hash.update(salt);
    NodeId(first_eight_bytes(hash))
}

fn first_eight_bytes(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let (head, _) = digest.split_first_chunk::<8>().expect("a SHA-1 digest has twenty bytes");
    u64::from_be_bytes(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(urls: &[&str]) -> Vec<String> {
        urls.iter().map(|url| (*url).to_owned()).collect()
    }

    fn first_member(peer_url: &str, token: &str) -> NodeId {
        member_id(&urls(&[peer_url]), token)
    }

    #[test]
    fn the_default_cluster_has_the_ids_everyone_has_seen() {
        let member = first_member("http://localhost:2380", "etcd-cluster");
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id(&[member], &[], REPLICAS_WANTED), 0xcdf8_1819_4e3a_8c32);
    }

    /// Printed by etcd 3.4.23 for three nodes on loopback and for a learner added to them.
    #[test]
    fn three_nodes_and_a_learner_have_the_ids_etcd_gave_them() {
        let ports = [10380, 20380, 30380];
        let members = ports.map(|port| first_member(&format!("http://127.0.0.1:{port}"), "tok-3"));
        let expected =
            [0x211b_e90d_701e_badc, 0x9f03_93e2_56e4_81bf, 0x3245_c8eb_3d59_9995].map(NodeId);
        assert_eq!(members, expected);
        assert_eq!(cluster_id(&members, &[], REPLICAS_WANTED), 0xcd10_7037_e1d4_ab82);
        let learner = urls(&["http://127.0.0.1:40381", "http://127.0.0.1:40380"]);
        assert_eq!(added_member_id(&learner, 1_795_224_273), NodeId(0x5e90_ddc5_c438_871a));
    }

    #[test]
    fn the_order_of_addresses_and_of_members_does_not_matter() {
        let forth = urls(&["http://a:1", "http://b:2"]);
        let back = urls(&["http://b:2", "http://a:1"]);
        assert_eq!(member_id(&forth, "t"), member_id(&back, "t"));
        assert_eq!(added_member_id(&forth, 7), added_member_id(&back, 7));
        let (a, b) = (NodeId(5), NodeId(u64::MAX));
        assert_eq!(
            cluster_id(&[a, b], &[], REPLICAS_WANTED),
            cluster_id(&[b, a], &[], REPLICAS_WANTED)
        );
        let cut = |key: &'static str| Bytes::from_static(key.as_bytes());
        assert_ne!(
            cluster_id(&[a], &[], REPLICAS_WANTED),
            cluster_id(&[a], &[cut("b")], REPLICAS_WANTED)
        );
        assert_ne!(
            cluster_id(&[a], &[cut("bc")], REPLICAS_WANTED),
            cluster_id(&[a], &[cut("b"), cut("c")], REPLICAS_WANTED)
        );
        assert_ne!(
            cluster_id(&[a, b], &[], REPLICAS_WANTED),
            cluster_id(&[a], &[], REPLICAS_WANTED)
        );
    }

    #[test]
    fn clusters_restored_from_different_states_are_different() {
        let restored = restored_cluster_id(7, b"one");
        assert_eq!(restored, restored_cluster_id(7, b"one"));
        for other in [7, restored_cluster_id(7, b"other"), restored_cluster_id(8, b"one")] {
            assert_ne!(restored, other);
        }
    }

    #[test]
    fn token_and_moment_make_the_same_address_another_member() {
        let url = urls(&["http://a:1"]);
        assert_ne!(member_id(&url, "one"), member_id(&url, "two"));
        assert_ne!(added_member_id(&url, 1), added_member_id(&url, 2));
        // An added member has no token, so a token that looks like a moment gives the same id.
        assert_eq!(added_member_id(&url, 1_700_000_000), member_id(&url, "1700000000"));
    }

    #[test]
    fn addresses_of_an_added_member_are_checked() {
        let good: [&[&str]; 3] =
            [&["http://a:1"], &["https://a:1", "http://[::1]:2"], &["unix:///x", "unixs://y:0"]];
        for list in good {
            assert!(peer_urls_valid(&urls(list)), "{list:?}");
        }
        let bad: [&[&str]; 7] = [
            &[],
            &["foo"],
            &[""],
            &["http://a"],
            &["http://a:1/b"],
            &["tcp://a:1"],
            &["http://a:1", "a:1"],
        ];
        for list in bad {
            assert!(!peer_urls_valid(&urls(list)), "{list:?}");
        }
    }
}

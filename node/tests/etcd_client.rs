//! The everyday calls of the Rust crate `etcd-client`, on one node and on three. The crate spreads
//! its calls over all nodes it is given, so on three nodes most calls meet a follower.

mod harness;

use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmType, Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error,
    EventType, GetOptions, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, ResignOptions,
    SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchFilterType, WatchOptions, WatchResponse,
    WatchStream,
};
use harness::Cluster;
use sha2::{Digest, Sha256};

/// No single answer may take longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const SHA256_BYTES: usize = 32;

#[tokio::test]
async fn everyday_calls_on_one_node() {
    Box::pin(everyday_calls(1)).await;
}

#[tokio::test]
async fn everyday_calls_on_three_nodes() {
    Box::pin(everyday_calls(3)).await;
}

/// With an etcd it is so, as a member answers what it has applied itself (P18).
#[tokio::test]
async fn who_was_answered_finds_what_he_did_at_the_same_node() {
    for flags in [vec![], vec!["--initial-split-keys=d,h,m,s,x"]] {
        let cluster = Cluster::start_with(&harness::flotilla(), 3, &flags);
        let flags = &flags;
        let nodes = cluster.endpoints().into_iter().enumerate().map(|(node, url)| async move {
            let mut client = connect(&[url]).await;
            for (n, letter) in ('a'..='z').cycle().take(400).enumerate() {
                let key = format!("{letter}{n} through {node}");
                let answer = client.put(key.clone(), "v", None).await.expect("it is put");
                let revision = answer.header().expect("a header").revision();
                let here = Some(GetOptions::new().with_serializable());
                let found = client.get(key.clone(), here).await.expect("it is read");
                let there = found.kvs().first().map(etcd_client::KeyValue::mod_revision);
                assert_eq!(there, Some(revision), "{key}, with {flags:?}");
                assert!(found.header().expect("a header").revision() >= revision);
            }
        });
        futures::future::join_all(nodes).await;
    }
}

async fn everyday_calls(size: usize) {
    let cluster = Cluster::start(&harness::flotilla(), size);
    let mut client = connect(&cluster.endpoints()).await;
    keys(&mut client).await;
    reads(&mut client).await;
    deletes(&mut client).await;
    transactions(&mut client).await;
    leases(&mut client).await;
    watches(&mut client).await;
    watch_of_the_past(&mut client).await;
    compaction(&mut client).await;
    members(&mut client, &cluster).await;
    for endpoint in cluster.endpoints() {
        let mut client = connect(&[endpoint]).await;
        maintenance(&mut client).await;
        backup(&mut client).await;
    }
    same_hash_everywhere(&mut client, &cluster).await;
    alarms(&mut client).await;
    if size > 1 {
        move_leader(&cluster).await;
        keys(&mut client).await;
    }
    locks_and_elections(&mut client).await;
}

async fn connect(endpoints: &[String]) -> Client {
    Client::connect(endpoints, None).await.expect("ready nodes take connections")
}

async fn keys(client: &mut Client) {
    // The scenario runs twice.
    client.delete("keys/", Some(DeleteOptions::new().with_prefix())).await.expect("delete");
    let put = client.put("keys/a", "one", None).await.expect("put");
    let created = put.header().expect("header").revision();
    assert!(put.prev_key().is_none());
    let put = client.put("keys/a", "two", Some(PutOptions::new().with_prev_key())).await;
    let put = put.expect("put");
    let changed = put.header().expect("header").revision();
    assert_eq!(changed, created + 1);
    let before = put.prev_key().expect("the key was there");
    assert_eq!((before.value(), before.version()), (&b"one"[..], 1));

    let got = client.get("keys/a", None).await.expect("get");
    assert_eq!((got.count(), got.more(), got.kvs().len()), (1, false, 1));
    let kv = &got.kvs()[0];
    assert_eq!(
        (kv.key(), kv.value(), kv.version(), kv.lease()),
        (&b"keys/a"[..], &b"two"[..], 2, 0)
    );
    assert_eq!((kv.create_revision(), kv.mod_revision()), (created, changed));

    let options = PutOptions::new().with_ignore_value();
    client.put("keys/a", "", Some(options)).await.expect("put");
    let got = client.get("keys/a", None).await.expect("get");
    assert_eq!((got.kvs()[0].value(), got.kvs()[0].version()), (&b"two"[..], 3));
    let options = PutOptions::new().with_ignore_value();
    let error = client.put("keys/none", "", Some(options)).await.expect_err("no such key");
    assert_status(&error, 3, "etcdserver: key not found");

    let got = client.get("keys/none", None).await.expect("get");
    assert_eq!((got.count(), got.kvs().len()), (0, 0));
    let error = client.put("", "value", None).await.expect_err("an empty key");
    assert_status(&error, 3, "etcdserver: key is not provided");
}

async fn reads(client: &mut Client) {
    let values = ["d", "b", "e", "a", "c"];
    let mut revisions = Vec::new();
    for (number, value) in values.iter().enumerate() {
        let put = client.put(format!("reads/{number}"), *value, None).await.expect("put");
        revisions.push(put.header().expect("header").revision());
    }
    let mut read = async |options: GetOptions| {
        let got = client.get("reads/", Some(options)).await.expect("get");
        let keys: String = got.kvs().iter().map(|kv| char::from(kv.key()[6])).collect();
        (keys, got.count(), got.more())
    };
    let prefix = || GetOptions::new().with_prefix();
    let all = |keys: &str| (keys.to_owned(), 5, false);
    assert_eq!(read(prefix()).await, all("01234"));
    assert_eq!(read(prefix().with_sort(SortTarget::Value, SortOrder::Ascend)).await, all("31402"));
    assert_eq!(read(prefix().with_sort(SortTarget::Key, SortOrder::Descend)).await, all("43210"));
    assert_eq!(read(prefix().with_sort(SortTarget::Mod, SortOrder::Descend)).await, all("43210"));
    assert_eq!(read(prefix().with_limit(2)).await, ("01".to_owned(), 5, true));
    assert_eq!(read(prefix().with_limit(5)).await, all("01234"));
    let options = prefix().with_sort(SortTarget::Value, SortOrder::Descend).with_limit(2);
    assert_eq!(read(options).await, ("20".to_owned(), 5, true));
    assert_eq!(read(prefix().with_count_only()).await, all(""));
    assert_eq!(read(prefix().with_min_mod_revision(revisions[3])).await, all("34"));
    assert_eq!(read(prefix().with_max_create_revision(revisions[1])).await, all("01"));
    let past = prefix().with_revision(revisions[1]);
    assert_eq!(read(past).await, ("01".to_owned(), 2, false));
    assert_eq!(read(GetOptions::new().with_range("reads/3")).await, ("012".to_owned(), 3, false));

    let options = prefix().with_keys_only();
    let got = client.get("reads/", Some(options)).await.expect("get");
    assert!(got.kvs().iter().all(|kv| kv.value().is_empty() && kv.version() == 1));
    let options = prefix().with_serializable();
    client.get("reads/", Some(options)).await.expect("any node answers from its own state");
    let future = GetOptions::new().with_revision(revisions[4] + 1_000);
    let error = client.get("reads/0", Some(future)).await.expect_err("a future revision");
    assert_status(&error, 11, "etcdserver: mvcc: required revision is a future revision");

    // The same read as a stream: pieces in order, count and header in the last.
    let mut stream = client.kv_client().get_stream("reads/", Some(prefix())).await.expect("stream");
    let (mut streamed, mut count, mut header) = (Vec::new(), 0, None);
    while let Some(mut piece) = soon(stream.message()).await.expect("a piece") {
        streamed.extend(piece.take_kvs().into_iter().map(|kv| kv.into_key_value().1));
        count = piece.count();
        header = piece.take_header();
    }
    assert_eq!((streamed, count), (values.map(|value| value.as_bytes().to_vec()).to_vec(), 5));
    assert!(header.expect("the last piece has a header").revision() >= revisions[4]);
}

async fn deletes(client: &mut Client) {
    for key in ["deletes/a", "deletes/b", "deletes/c", "deletes/d"] {
        client.put(key, "value", None).await.expect("put");
    }
    let deleted = client.delete("deletes/a", None).await.expect("delete");
    assert_eq!((deleted.deleted(), deleted.prev_kvs().len()), (1, 0));
    let revision = deleted.header().expect("header").revision();
    let deleted = client.delete("deletes/a", None).await.expect("delete");
    assert_eq!(deleted.deleted(), 0);
    assert_eq!(deleted.header().expect("header").revision(), revision, "nothing changed");
    let options = DeleteOptions::new().with_range("deletes/d").with_prev_key();
    let deleted = client.delete("deletes/a", Some(options)).await.expect("delete");
    let keys: Vec<_> = deleted.prev_kvs().iter().map(|kv| kv.key()[8]).collect();
    assert_eq!((deleted.deleted(), keys), (2, b"bc".to_vec()));
    let options = DeleteOptions::new().with_prefix();
    let deleted = client.delete("deletes/", Some(options)).await.expect("delete");
    assert_eq!(deleted.deleted(), 1);
}

async fn transactions(client: &mut Client) {
    let create = || {
        Txn::new()
            .when([Compare::version("txn/a", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("txn/a", "one", None), TxnOp::get("txn/a", None)])
            .or_else([TxnOp::get("txn/a", None)])
    };
    let answer = client.txn(create()).await.expect("txn");
    assert!(answer.succeeded());
    let revision = answer.header().expect("header").revision();
    let [TxnOpResponse::Put(put), TxnOpResponse::Get(got)] = &answer.op_responses()[..] else {
        panic!("one answer for each operation: {answer:?}");
    };
    assert_eq!(put.header().expect("header").revision(), revision);
    assert_eq!(got.kvs()[0].mod_revision(), revision, "a read sees what was put before it");

    let answer = client.txn(create()).await.expect("txn");
    assert!(!answer.succeeded());
    assert_eq!(answer.header().expect("header").revision(), revision, "nothing changed");
    let [TxnOpResponse::Get(got)] = &answer.op_responses()[..] else {
        panic!("the other branch: {answer:?}");
    };
    assert_eq!(got.kvs()[0].value(), b"one");

    let compares = [
        Compare::value("txn/a", CompareOp::Equal, "one"),
        Compare::mod_revision("txn/a", CompareOp::Less, revision + 1),
        Compare::create_revision("txn/a", CompareOp::Greater, 0),
        Compare::lease("txn/a", CompareOp::Equal, 0),
        Compare::version("txn/", CompareOp::NotEqual, 0).with_prefix(),
    ];
    let inner = Txn::new()
        .when([Compare::value("txn/a", CompareOp::Equal, "one")])
        .and_then([TxnOp::delete("txn/a", None)]);
    let txn = Txn::new()
        .when(compares)
        .and_then([TxnOp::put("txn/b", "two", None), TxnOp::txn(inner)])
        .or_else([]);
    let answer = client.txn(txn).await.expect("txn");
    assert!(answer.succeeded());
    let [TxnOpResponse::Put(_), TxnOpResponse::Txn(inner)] = &answer.op_responses()[..] else {
        panic!("a put and a transaction: {answer:?}");
    };
    assert!(inner.succeeded());
    let [TxnOpResponse::Delete(deleted)] = &inner.op_responses()[..] else {
        panic!("a delete: {inner:?}");
    };
    assert_eq!(deleted.deleted(), 1);
    assert_eq!(answer.header().expect("header").revision(), revision + 1, "one revision for all");

    let twice = [TxnOp::put("txn/c", "1", None), TxnOp::put("txn/c", "2", None)];
    let error = client.txn(Txn::new().and_then(twice)).await.expect_err("a key put twice");
    assert_status(&error, 3, "etcdserver: duplicate key given in txn request");
}

async fn leases(client: &mut Client) {
    let granted = client.lease_grant(600, None).await.expect("grant");
    assert_eq!(granted.ttl(), 600);
    let id = granted.id();
    assert!(id > 0);
    let options = LeaseGrantOptions::new().with_id(7_587);
    let other = client.lease_grant(60, Some(options.clone())).await.expect("grant");
    assert_eq!(other.id(), 7_587);
    let error = client.lease_grant(60, Some(options)).await.expect_err("the id is taken");
    assert_status(&error, 9, "etcdserver: lease already exists");
    for key in ["leases/b", "leases/a"] {
        client.put(key, "", Some(PutOptions::new().with_lease(id))).await.expect("put");
    }
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(id, Some(options)).await.expect("time to live");
    assert_eq!((left.id(), left.granted_ttl()), (id, 600));
    assert!((1..=600).contains(&left.ttl()), "{}", left.ttl());
    let mut keys = left.keys().to_vec();
    keys.sort();
    assert_eq!(keys, [b"leases/a", b"leases/b"]);

    let (mut keeper, mut answers) = client.lease_keep_alive(id).await.expect("keep alive");
    assert_eq!(keeper.id(), id);
    for _ in 0..3 {
        keeper.keep_alive().await.expect("keep alive");
        let kept = soon(answers.message()).await.expect("an answer").expect("an open stream");
        assert_eq!((kept.id(), kept.ttl()), (id, 600));
    }

    let mut listed: Vec<i64> =
        client.leases().await.expect("leases").leases().iter().map(|lease| lease.id()).collect();
    listed.sort_unstable();
    let mut expected = vec![id, 7_587];
    expected.sort_unstable();
    assert_eq!(listed, expected);

    client.lease_revoke(id).await.expect("revoke");
    let got = client.get("leases/", Some(GetOptions::new().with_prefix())).await.expect("get");
    assert_eq!(got.count(), 0, "keys go with their lease");
    let left = client.lease_time_to_live(id, None).await.expect("time to live");
    assert_eq!((left.ttl(), left.granted_ttl()), (-1, 0));
    let error = client.lease_revoke(id).await.expect_err("revoked already");
    assert_status(&error, 5, "etcdserver: requested lease not found");
    let options = PutOptions::new().with_lease(id);
    let error = client.put("leases/c", "", Some(options)).await.expect_err("no such lease");
    assert_status(&error, 5, "etcdserver: requested lease not found");
    assert!(client.lease_keep_alive(id).await.is_err(), "a lease that is gone is not kept");
    client.lease_revoke(7_587).await.expect("revoke");

    // A lease that nobody keeps expires, and its keys are deleted.
    let short = client.lease_grant(2, None).await.expect("grant").id();
    let options = PutOptions::new().with_lease(short);
    let put = client.put("leases/short", "", Some(options)).await.expect("put");
    // A watch without a revision begins where its node stands, which may be before the put.
    let after = put.header().expect("header").revision() + 1;
    let options = WatchOptions::new().with_start_revision(after);
    let mut stream = client.watch("leases/short", Some(options)).await.expect("watch");
    assert!(next(&mut stream).await.created());
    let expired = next(&mut stream).await;
    assert_eq!(expired.events()[0].event_type(), EventType::Delete);
}

async fn watches(client: &mut Client) {
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = client.watch("watches/", Some(options)).await.expect("watch");
    let created = next(&mut stream).await;
    assert!(created.created() && created.events().is_empty());
    let id = created.watch_id();

    let put = client.put("watches/a", "one", None).await.expect("put");
    let first = put.header().expect("header").revision();
    let answer = next(&mut stream).await;
    assert_eq!((answer.watch_id(), answer.events().len()), (id, 1));
    let event = &answer.events()[0];
    assert_eq!(event.event_type(), EventType::Put);
    assert!(event.prev_kv().is_none(), "the key was created");
    assert_eq!(event.kv().expect("kv").mod_revision(), first);

    // A transaction is one answer.
    let ops = [TxnOp::put("watches/a", "two", None), TxnOp::put("watches/b", "one", None)];
    client.txn(Txn::new().and_then(ops)).await.expect("txn");
    let answer = next(&mut stream).await;
    let events: Vec<_> = answer
        .events()
        .iter()
        .map(|event| {
            let kv = event.kv().expect("kv");
            (kv.key().to_vec(), kv.mod_revision(), event.prev_kv().map(|kv| kv.value().to_vec()))
        })
        .collect();
    let expected = [
        (b"watches/a".to_vec(), first + 1, Some(b"one".to_vec())),
        (b"watches/b".to_vec(), first + 1, None),
    ];
    assert_eq!(events, expected);

    let deleted = client.delete("watches/a", None).await.expect("delete");
    let last = deleted.header().expect("header").revision();
    let answer = next(&mut stream).await;
    let event = &answer.events()[0];
    assert_eq!(event.event_type(), EventType::Delete);
    let kv = event.kv().expect("kv");
    assert_eq!((kv.key(), kv.value(), kv.mod_revision()), (&b"watches/a"[..], &b""[..], last));
    assert_eq!(event.prev_kv().expect("prev_kv").value(), b"two");

    // Every event was delivered, so progress on request reports the store's revision.
    stream.request_progress().await.expect("progress");
    let progress = next(&mut stream).await;
    assert!(progress.events().is_empty() && !progress.created() && !progress.canceled());
    assert_eq!(progress.watch_id(), -1, "it speaks for the whole stream");
    assert!(progress.header().expect("header").revision() >= last);

    // A second watcher on the same stream, which wants no puts.
    let options =
        WatchOptions::new().with_prefix().with_watch_id(77).with_filters([WatchFilterType::NoPut]);
    stream.watch("filtered/", Some(options)).await.expect("watch");
    let created = next(&mut stream).await;
    assert!(created.created());
    assert_eq!(created.watch_id(), 77);
    client.put("filtered/a", "one", None).await.expect("put");
    client.delete("filtered/a", None).await.expect("delete");
    let answer = next(&mut stream).await;
    assert_eq!((answer.watch_id(), answer.events().len()), (77, 1));
    assert_eq!(answer.events()[0].event_type(), EventType::Delete);

    stream.cancel(id).await.expect("cancel");
    let canceled = next(&mut stream).await;
    assert!(canceled.canceled());
    assert_eq!((canceled.watch_id(), canceled.cancel_reason()), (id, ""));
    client.put("watches/b", "unseen", None).await.expect("put");
    client.put("filtered/b", "unseen", None).await.expect("put");
    client.delete("filtered/b", None).await.expect("delete");
    let answer = next(&mut stream).await;
    assert_eq!(answer.watch_id(), 77, "a cancelled watcher is silent");
}

async fn watch_of_the_past(client: &mut Client) {
    let mut revisions = Vec::new();
    for number in 0..5 {
        let put = client.put("past", number.to_string(), None).await.expect("put");
        revisions.push(put.header().expect("header").revision());
    }
    let options = WatchOptions::new().with_start_revision(revisions[2]);
    let mut stream = client.watch("past", Some(options)).await.expect("watch");
    assert!(next(&mut stream).await.created());
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let answer = next(&mut stream).await;
        seen.extend(answer.events().iter().map(|event| event.kv().expect("kv").mod_revision()));
    }
    assert_eq!(seen, revisions[2..]);

    let options = WatchOptions::new().with_start_revision(revisions[4] + 2);
    let mut stream = client.watch("past", Some(options)).await.expect("watch");
    assert!(next(&mut stream).await.created());
    client.put("past", "too early", None).await.expect("put");
    client.put("past", "in time", None).await.expect("put");
    let answer = next(&mut stream).await;
    assert_eq!(answer.events()[0].kv().expect("kv").value(), b"in time");
}

async fn compaction(client: &mut Client) {
    let put = client.put("compaction", "one", None).await.expect("put");
    let first = put.header().expect("header").revision();
    client.put("compaction", "two", None).await.expect("put");
    let options = CompactionOptions::new().with_physical();
    client.compact(first + 1, Some(options)).await.expect("compact");
    let options = GetOptions::new().with_revision(first);
    let error = client.get("compaction", Some(options)).await.expect_err("forgotten");
    assert_status(&error, 11, "etcdserver: mvcc: required revision has been compacted");
    let options = GetOptions::new().with_revision(first + 1);
    let got = client.get("compaction", Some(options)).await.expect("the floor is readable");
    assert_eq!(got.kvs()[0].value(), b"two");
    let error = client.compact(first + 1, None).await.expect_err("compacted already");
    assert_status(&error, 11, "etcdserver: mvcc: required revision has been compacted");
    let error = client.compact(first + 1_000, None).await.expect_err("a future revision");
    assert_status(&error, 11, "etcdserver: mvcc: required revision is a future revision");

    let options = WatchOptions::new().with_start_revision(first);
    let mut stream = client.watch("compaction", Some(options)).await.expect("watch");
    assert!(next(&mut stream).await.created());
    let canceled = next(&mut stream).await;
    assert!(canceled.canceled());
    assert_eq!(canceled.compact_revision(), first + 1);
}

async fn members(client: &mut Client, cluster: &Cluster) {
    let answer = client.member_list().await.expect("member list");
    let header = answer.header().expect("header");
    assert!(header.cluster_id() != 0 && header.member_id() != 0);
    let mut listed: Vec<_> = answer
        .members()
        .iter()
        .map(|member| {
            assert!(member.id() != 0 && !member.is_learner());
            (member.name(), member.client_urls().to_vec(), member.peer_urls().to_vec())
        })
        .collect();
    listed.sort();
    let expected: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| (node.name.as_str(), vec![node.client_url()], vec![node.peer_url()]))
        .collect();
    assert_eq!(listed, expected);
    let error = client.member_promote(header.member_id()).await.expect_err("a voter");
    assert_status(&error, 9, "etcdserver: can only promote a learner member");
    let error = client.member_remove(12_345).await.expect_err("no such member");
    assert_status(&error, 5, "etcdserver: member not found");
}

async fn maintenance(client: &mut Client) {
    let status = client.status().await.expect("status");
    assert!(status.version().starts_with("3."), "{}", status.version());
    assert!(status.db_size() > 0 && status.raft_used_db_size() > 0);
    assert!(status.leader() != 0 && status.raft_term() > 0);
    assert!(status.raft_index() >= status.raft_applied_index() && status.raft_applied_index() > 0);
    assert!(!status.is_learner());
    assert_eq!(status.errors(), [""; 0]);
    client.hash().await.expect("hash");
    client.defragment().await.expect("defragment");
    client.get("anything", None).await.expect("a node serves after it was defragmented");
    let error = client.move_leader(12_345).await.expect_err("no such member");
    let is_leader = client.status().await.expect("status").leader() == own_id(client).await;
    let text = if is_leader { "bad leader transferee" } else { "not leader" };
    assert_status(&error, 9, &format!("etcdserver: {text}"));
}

/// The whole backup of a node: its pieces count down, and end with the checksum of all of them.
async fn backup(client: &mut Client) {
    let mut stream = client.snapshot().await.expect("snapshot");
    let (mut image, mut remaining) = (Vec::new(), None);
    while let Some(piece) = soon(stream.message()).await.expect("a piece") {
        if let Some(before) = remaining {
            assert!(piece.remaining_bytes() <= before);
        }
        remaining = Some(piece.remaining_bytes());
        image.extend_from_slice(piece.blob());
    }
    assert_eq!(remaining, Some(0));
    assert_eq!(image.len() % 512, SHA256_BYTES, "a checksum behind whole blocks");
    let (image, checksum) = image.split_at(image.len() - SHA256_BYTES);
    assert!(!image.is_empty());
    assert_eq!(Sha256::digest(image).as_slice(), checksum);
}

async fn same_hash_everywhere(client: &mut Client, cluster: &Cluster) {
    let put = client.put("hash", "value", None).await.expect("put");
    let revision = put.header().expect("header").revision();
    let mut hashes = Vec::new();
    for endpoint in cluster.endpoints() {
        let mut client = connect(&[endpoint]).await;
        client.get("hash", None).await.expect("a linearizable read has the put");
        let answer = client.hash_kv(revision).await.expect("hash");
        assert_eq!(answer.hash_revision(), revision);
        hashes.push((answer.hash(), answer.compact_version()));
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let error = client.hash_kv(revision + 1_000).await.expect_err("a future revision");
    assert_status(&error, 11, "etcdserver: mvcc: required revision is a future revision");
}

async fn alarms(client: &mut Client) {
    let mut alarm = async |action, kind| {
        let answer = client.alarm(action, kind, None).await.expect("alarm");
        answer.alarms().len()
    };
    assert_eq!(alarm(AlarmAction::Get, AlarmType::None).await, 0);
    assert_eq!(alarm(AlarmAction::Activate, AlarmType::Nospace).await, 1);
    assert_eq!(alarm(AlarmAction::Get, AlarmType::Nospace).await, 1);
    let error = client.put("alarms", "value", None).await.expect_err("no space");
    assert_status(&error, 8, "etcdserver: mvcc: database space exceeded");
    client.delete("alarms", None).await.expect("a delete gives space back");
    let answer = client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, None).await;
    assert_eq!(answer.expect("alarm").alarms().len(), 1);
    client.put("alarms", "value", None).await.expect("there is space again");
}

async fn move_leader(cluster: &Cluster) {
    let mut nodes = Vec::new();
    for endpoint in cluster.endpoints() {
        let mut client = connect(&[endpoint]).await;
        nodes.push((own_id(&mut client).await, client));
    }
    let before = nodes[0].1.status().await.expect("status");
    let target = nodes.iter().map(|(id, _)| *id).find(|id| *id != before.leader());
    let target = target.expect("a follower");
    for (id, client) in &mut nodes {
        if *id != before.leader() {
            let error = client.move_leader(target).await.expect_err("not the leader");
            assert_status(&error, 9, "etcdserver: not leader");
        }
    }
    let (_, leader) = nodes.iter_mut().find(|(id, _)| *id == before.leader()).expect("the leader");
    leader.move_leader(target).await.expect("move leader");
    let after = leader.status().await.expect("status");
    assert_eq!(after.leader(), target, "it answers when leadership has moved");
    assert!(after.raft_term() > before.raft_term());
}

async fn locks_and_elections(client: &mut Client) {
    let held = client.lock("lock", None).await.expect("nobody has it");
    assert!(held.key().starts_with(b"lock/"));
    client.unlock(held.key()).await.expect("unlock");
    let lease = client.lease_grant(60, None).await.expect("a lease").id();
    let elected = client.campaign("election", "value", lease).await.expect("nobody else stands");
    let leader = elected.leader().expect("a leader").clone();
    assert_eq!((leader.name(), leader.lease()), (&b"election"[..], lease));
    let seen = client.leader("election").await.expect("there is one");
    assert_eq!(seen.kv().expect("a key").value(), b"value");
    let options = || Some(ResignOptions::new().with_leader(leader.clone()));
    client.resign(options()).await.expect("it leads");
    client.leader("election").await.expect_err("nobody leads");
}

/// The id of the one node that a client is connected to.
async fn own_id(client: &mut Client) -> u64 {
    client.status().await.expect("status").header().expect("header").member_id()
}

async fn next(stream: &mut WatchStream) -> WatchResponse {
    soon(stream.message()).await.expect("an answer").expect("an open stream")
}

async fn soon<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(ANSWER_WITHIN, answer).await.expect("an answer in time")
}

#[track_caller]
fn assert_status(error: &Error, code: i32, text: &str) {
    let Error::GRpcStatus(status) = error else { panic!("not a status: {error:?}") };
    assert_eq!((i32::from(status.code()), status.message()), (code, text));
}

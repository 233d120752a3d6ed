//! With the feature `services` the crate must have a gRPC server for each service of
//! golden/services.tsv, and each must answer to its name on the wire.
#![cfg(feature = "services")]

use std::collections::BTreeSet;

use flotilla_proto::etcdserverpb::{
    auth_server, cluster_server, kv_server, lease_server, maintenance_server, watch_server,
};
use flotilla_proto::health::health_server;
use flotilla_proto::v3electionpb::election_server;
use flotilla_proto::v3lockpb::lock_server;

const SERVICES: &str = include_str!("golden/services.tsv");

#[test]
fn servers_answer_to_the_names_on_the_wire() {
    let generated = BTreeSet::from([
        kv_server::SERVICE_NAME,
        watch_server::SERVICE_NAME,
        lease_server::SERVICE_NAME,
        cluster_server::SERVICE_NAME,
        maintenance_server::SERVICE_NAME,
        auth_server::SERVICE_NAME,
        lock_server::SERVICE_NAME,
        election_server::SERVICE_NAME,
        health_server::SERVICE_NAME,
    ]);
    let wanted: BTreeSet<String> = SERVICES
        .lines()
        .skip(1)
        .map(|row| row.split('\t').take(2).collect::<Vec<_>>().join("."))
        .collect();
    assert!(generated.iter().copied().eq(&wanted), "wanted {wanted:?}, is {generated:?}");
}

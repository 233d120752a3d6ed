//! Members found by the records of a small DNS server, and what goes wrong there. The meeting place
//! is tried with whole nodes, in `tests/discovery.rs`.

use std::net::{Ipv4Addr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};
use tokio::net::UdpSocket;

use super::{service, set_members, srv};
use crate::config::{Config, Url};

const TTL_SECONDS: u32 = 60;

fn name(text: &str) -> Name {
    Name::from_utf8(text).expect("a name of the DNS")
}

fn srv_record(service: &str, port: u16, host: &str) -> Record {
    Record::from_rdata(name(service), TTL_SECONDS, RData::SRV(SRV::new(0, 0, port, name(host))))
}

fn address_record(host: &str, last: u8) -> Record {
    let address = RData::A(A(Ipv4Addr::new(127, 0, 0, last)));
    Record::from_rdata(name(host), TTL_SECONDS, address)
}

/// A server that knows these records and nothing else, and a resolver that asks nobody else.
async fn dns(records: Vec<Record>) -> TokioResolver {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let at = socket.local_addr().expect("a port");
    tokio::spawn(serve(socket, records));
    let mut connection = ConnectionConfig::udp();
    connection.port = at.port();
    let server = NameServerConfig::new(at.ip(), true, vec![connection]);
    let config = ResolverConfig::from_name_servers(vec![server]);
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.build().expect("a resolver")
}

async fn serve(socket: UdpSocket, records: Vec<Record>) {
    let mut bytes = [0; 4_096];
    loop {
        let (length, from): (usize, SocketAddr) =
            socket.recv_from(&mut bytes).await.expect("a question");
        let question = Message::from_vec(&bytes[..length]).expect("a message of the DNS");
        let asked = question.queries.first().expect("a question").clone();
        let is_asked = |it: &&Record| it.name == *asked.name();
        let known: Vec<&Record> = records.iter().filter(is_asked).collect();
        let mut answer = question.into_response();
        if known.is_empty() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        let is_of_type = |it: &&&Record| it.data.record_type() == asked.query_type();
        answer.add_answers(known.iter().filter(is_of_type).map(|it| (*it).clone()));
        let bytes = answer.to_vec().expect("it can be written");
        socket.send_to(&bytes, from).await.expect("somebody listens");
    }
}

fn urls(texts: &[&str]) -> Vec<Url> {
    texts.iter().map(|text| Url::parse(text).expect("an address")).collect()
}

fn texts(members: &[(String, Url)]) -> Vec<String> {
    members.iter().map(|(name, url)| format!("{name}={url}")).collect()
}

const PLAIN: &str = "_etcd-server._tcp.flotilla.test.";
const SECURE: &str = "_etcd-server-ssl._tcp.flotilla.test.";

#[tokio::test]
async fn members_are_named_by_records_and_this_node_by_its_address() {
    let resolver = dns(vec![
        srv_record(PLAIN, 2380, "n1.flotilla.test."),
        srv_record(PLAIN, 2380, "n2.flotilla.test."),
        srv_record(PLAIN, 2390, "n2.flotilla.test."),
        address_record("n1.flotilla.test.", 1),
        address_record("n2.flotilla.test.", 2),
    ])
    .await;
    let find = async |name: &'static str, own: &'static [&'static str]| {
        let found = srv::find_with(&resolver, "flotilla.test", "", name, &urls(own)).await;
        let mut found = texts(&found.expect("members"));
        found.sort();
        found
    };
    let (n1, n2) = ("http://n1.flotilla.test:2380", "http://n2.flotilla.test:2380");
    let n3 = "http://n2.flotilla.test:2390";
    // By the text of its address, and by what that resolves to.
    for own in [&["http://n2.flotilla.test:2380"][..], &["http://127.0.0.2:2380"]] {
        let found = find("b", own).await;
        assert!(found.contains(&format!("b={n2}")), "{own:?}: {found:?}");
        assert_eq!(found.len(), 3);
        let strangers: Vec<&String> = found.iter().filter(|it| !it.starts_with("b=")).collect();
        for url in [n1, n3] {
            assert!(strangers.iter().any(|it| it.ends_with(url)), "{found:?}");
        }
    }
    // Whose name is a number shares it with nobody.
    let found = find("0", &["http://127.0.0.2:2380"]).await;
    assert_eq!(found.iter().filter(|it| it.starts_with("0=")).count(), 1, "{found:?}");
    assert!(find("c", &["http://127.0.0.3:2380"]).await.iter().all(|it| !it.starts_with("c=")));
}

#[tokio::test]
async fn each_service_says_whether_its_members_speak_tls() {
    let suffixed = "_etcd-server-ssl-east._tcp.flotilla.test.";
    let resolver = dns(vec![
        srv_record(PLAIN, 1, "n1.flotilla.test."),
        srv_record(SECURE, 2, "n1.flotilla.test."),
        srv_record(suffixed, 3, "n1.flotilla.test."),
        address_record("n1.flotilla.test.", 1),
    ])
    .await;
    let find = async |suffix: &'static str| {
        let found = srv::find_with(&resolver, "flotilla.test.", suffix, "x", &[]).await;
        texts(&found.expect("members"))
    };
    let both = ["0=https://n1.flotilla.test:2", "1=http://n1.flotilla.test:1"];
    assert_eq!(find("").await, both);
    assert_eq!(find("east").await, ["0=https://n1.flotilla.test:3"]);
}

#[tokio::test]
async fn a_domain_without_records_is_told_with_both_questions() {
    let resolver = dns(vec![address_record("n1.flotilla.test.", 1)]).await;
    let found = srv::find_with(&resolver, "flotilla.test", "", "x", &[]).await;
    let error = found.expect_err("there is none").to_string();
    for service in ["_etcd-server-ssl ", "_etcd-server "] {
        let told = format!("error querying DNS SRV records for {service}");
        assert!(error.contains(&told), "{error}");
    }
}

#[test]
fn this_node_is_announced_as_the_others_see_it() {
    let mut config = Config { name: "b".to_owned(), ..Config::default() };
    let found = ["http://n1.flotilla.test:2380", "http://n2.flotilla.test:2380"];
    let found = urls(&found);
    let members = vec![("b".to_owned(), found[1].clone()), ("0".to_owned(), found[0].clone())];
    set_members(&mut config, members);
    assert_eq!(config.initial_advertise_peer_urls, found[1..]);
    assert!(config.check_first_start().is_ok());
}

#[test]
fn a_place_at_the_meeting_place_is_the_one_etcd_would_take() {
    // Read back from an etcd 3.7.3 that had met another under this token.
    let key = service::own_key("tok", &urls(&["http://127.0.0.1:23951"]));
    assert_eq!(key, "/_etcd/registry/tok/members/faa8d0f7dbfb059d");
}

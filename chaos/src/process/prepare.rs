//! Everything that is there before the first process: the folder, the network, the disks, the
//! nodes; and which of the faults that were asked for are possible here.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::Context as _;

use crate::process::disk::Disk;
use crate::process::fault::{Class, Needs};
use crate::process::net::Network;
use crate::process::node::Node;
use crate::process::options::{Options, RANGE_REPLICAS};

/// Nodes beyond the founding members, for faults that grow the cluster.
const SPARE_NODES: usize = 2;
/// Port for clients of a node with an address of its own.
const CLIENT_PORT: u16 = 2379;
/// Port for peers of such a node.
const PEER_PORT: u16 = 2380;

/// Nodes that were never started, and what can be done to them.
#[derive(Debug)]
pub struct Prepared {
    /// The network between them.
    pub network: Network,
    /// The founding members first.
    pub nodes: Vec<Node>,
    /// Classes of faults that are possible.
    pub classes: Vec<Class>,
    /// The other classes that were asked for, and why they are not possible.
    pub impossible: Vec<(Class, String)>,
    /// What else a reader should know of the surroundings.
    pub notes: Vec<String>,
}

/// Prepares a run.
///
/// # Errors
/// The folder cannot be written, or there is no free port.
pub fn prepare(options: &Options, folder: &Path) -> anyhow::Result<Prepared> {
    let mut notes = Vec::new();
    let grows = options.classes.iter().any(|class| class.needs() == Needs::SpareNodes);
    let nodes_count = options.nodes_count + if grows { SPARE_NODES } else { 0 };
    let network = match Network::prepare(nodes_count, options.is_loopback, options.seed) {
        Ok(network) => network,
        Err(error) => {
            notes.push(format!("no network namespaces or TAP devices here: {error:#}"));
            Network::Loopback
        }
    };
    let wants_faulty = options.classes.iter().any(|class| class.needs() == Needs::FaultyDisk);
    let is_faulty = wants_faulty && !options.is_plain_disk;
    let mut nodes = Vec::new();
    let mut faulty_count = 0;
    for index in 0..nodes_count {
        let name = format!("n{index}");
        let home = folder.join(&name);
        std::fs::create_dir_all(&home).with_context(|| format!("make {}", home.display()))?;
        let disk = if is_faulty {
            Disk::faulty(&home, options.has_strict_names, options.seed ^ index as u64)
                .unwrap_or_else(|error| {
                    notes.push(format!("n{index} has an ordinary disk: {error:#}"));
                    Disk::Plain(home.join("data"))
                })
        } else {
            Disk::Plain(home.join("data"))
        };
        faulty_count += usize::from(disk.is_faulty());
        let (client, peer) = match network.address(index) {
            Some(address) => ((address, CLIENT_PORT), (address, PEER_PORT)),
            None => ((Ipv4Addr::LOCALHOST, free_port()?), (Ipv4Addr::LOCALHOST, free_port()?)),
        };
        let url = |(address, port): (Ipv4Addr, u16)| format!("http://{address}:{port}");
        let mut node = Node::new(&name, (url(client), url(peer)), disk, home.join("log"));
        node.namespace = network.namespace(index);
        nodes.push(node);
    }
    let founders: Vec<String> = nodes[..options.nodes_count]
        .iter()
        .map(|node| format!("{}={}", node.name, node.peer_url))
        .collect();
    for node in &mut nodes[..options.nodes_count] {
        node.initial_cluster = founders.join(",");
    }
    let has_faulty_disks = faulty_count == nodes_count;
    let mut classes = Vec::new();
    let mut impossible = Vec::new();
    for class in &options.classes {
        match obstacle(class.needs(), options, &network, has_faulty_disks) {
            None => classes.push(*class),
            Some(reason) => impossible.push((*class, reason)),
        }
    }
    Ok(Prepared { network, nodes, classes, impossible, notes })
}

/// Why what a class needs is not there.
fn obstacle(
    needs: Needs,
    options: &Options,
    network: &Network,
    has_faulty_disks: bool,
) -> Option<String> {
    let members = options.nodes_count;
    match needs {
        Needs::Nothing => None,
        Needs::ThreeMembers | Needs::SpareNodes => {
            (members < 3).then(|| "it needs three members".to_owned())
        }
        Needs::Switch if !network.is_switched() => {
            Some("there is no switch between the nodes".to_owned())
        }
        Needs::Switch => (members < 2).then(|| "there is only one node".to_owned()),
        Needs::FaultyDisk => {
            (!has_faulty_disks).then(|| "there is no file system that forgets".to_owned())
        }
        Needs::ControlGroups => super::fault::missing_control_groups(),
        Needs::Failpoints => {
            options.failpoints.is_empty().then(|| "--failpoints names none".to_owned())
        }
        Needs::OtherProgram => {
            options.upgrade_to.is_none().then(|| "--upgrade-to names no program".to_owned())
        }
        Needs::Ranges | Needs::RangesElsewhere if !options.target.is_flotilla => {
            Some("the target has no ranges".to_owned())
        }
        Needs::Ranges => None,
        Needs::RangesElsewhere => {
            (members <= RANGE_REPLICAS).then(|| "every member holds every range".to_owned())
        }
    }
}

/// A port of the loopback that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

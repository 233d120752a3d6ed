//! The network of a run: either the loopback of this machine, with nothing between the nodes that
//! could be disturbed, or a packet switch of the harness, with a network namespace for each node.
//! Clients live in this process's namespace and reach the nodes through the same switch, on a
//! port of their own.

mod link;
mod namespace;
mod pcap;
mod switch;
mod tap;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Context as _;

pub use link::{Link, Pipe};
pub use switch::{Counts, Switch};

use namespace::Namespace;
use tap::Tap;

/// Most ports of a switch: the last byte of an address names one.
const PORTS_MAX: usize = 200;

/// What lies between the nodes.
#[derive(Debug)]
pub enum Network {
    /// All nodes share this process's network.
    Loopback,
    /// Each node has a network of its own.
    Switched(Switched),
}

/// A switch, and a namespace on each of its ports but the last.
#[derive(Debug)]
pub struct Switched {
    /// The switch. Dropped first: its thread holds the devices.
    switch: Switch,
    namespaces: Vec<Namespace>,
    subnet: [u8; 3],
}

impl Network {
    /// Makes the network of `nodes_count` nodes.
    ///
    /// # Errors
    /// Namespaces or TAP devices are not allowed here.
    pub fn prepare(nodes_count: usize, is_loopback: bool, seed: u64) -> anyhow::Result<Network> {
        if is_loopback {
            return Ok(Network::Loopback);
        }
        Switched::new(nodes_count, seed).map(Network::Switched)
    }

    /// Address of a node, if it has one of its own.
    pub fn address(&self, node: usize) -> Option<Ipv4Addr> {
        match self {
            Network::Loopback => None,
            Network::Switched(switched) => Some(address(switched.subnet, node)),
        }
    }

    /// Name of a node's namespace, if it has one.
    pub fn namespace(&self, node: usize) -> Option<String> {
        match self {
            Network::Loopback => None,
            Network::Switched(switched) => {
                switched.namespaces.get(node).map(|namespace| namespace.name().to_owned())
            }
        }
    }

    /// The switch between the nodes, if there is one. Node `n` is on port `n`.
    pub fn switch(&self) -> Option<&Switch> {
        match self {
            Network::Loopback => None,
            Network::Switched(switched) => Some(&switched.switch),
        }
    }

    /// True if there is a switch between the nodes.
    pub fn is_switched(&self) -> bool {
        self.switch().is_some()
    }

    /// Ends whatever disturbs it.
    pub fn heal(&self) {
        if let Some(switch) = self.switch() {
            switch.heal();
        }
    }

    /// Writes the last packets to a file, if there is a switch.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_packets(&self, file: &Path) -> anyhow::Result<()> {
        match self.switch() {
            Some(switch) => switch.write_packets(file).context("write the last packets"),
            None => Ok(()),
        }
    }
}

impl Switched {
    fn new(nodes_count: usize, seed: u64) -> anyhow::Result<Self> {
        anyhow::ensure!(nodes_count < PORTS_MAX, "at most {PORTS_MAX} ports");
        let process = std::process::id();
        let byte = |n: u32| u8::try_from(n % 250).expect("below 250");
        // Runs that go on beside each other have different subnets.
        let subnet = [10, 100 + byte(process / 250) % 100, byte(process)];
        let ports_count = nodes_count + 1;
        let mut namespaces = Vec::new();
        let mut taps = Vec::new();
        for node in 0..nodes_count {
            let namespace = Namespace::new(&format!("flotilla-{process}-{node}"))?;
            taps.push(Tap::new(Some(&namespace), subnet, node, ports_count)?);
            namespaces.push(namespace);
        }
        taps.push(Tap::new(None, subnet, nodes_count, ports_count)?);
        Ok(Self { switch: Switch::start(taps, seed)?, namespaces, subnet })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Loopback => {
                f.write_str("All nodes and clients share the loopback of this machine.")
            }
            Network::Switched(switched) => {
                let [a, b, c] = switched.subnet;
                let counts = switched.switch.counts();
                write!(
                    f,
                    "Each node has a network namespace with an address in {a}.{b}.{c}.0/24; a \
                     packet switch in this process joins them and the clients. It passed {} \
                     packets and lost {}.",
                    counts.passed, counts.lost
                )
            }
        }
    }
}

fn address(subnet: [u8; 3], port: usize) -> Ipv4Addr {
    let [a, b, c] = subnet;
    Ipv4Addr::new(a, b, c, u8::try_from(port + 1).expect("few ports"))
}

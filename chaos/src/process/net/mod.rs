//! The network of a run: either the loopback of this machine, with nothing between the nodes that
//! could be disturbed, or a packet switch of the harness, with a network namespace for each node.

/// What lies between the nodes.
#[derive(Debug)]
pub enum Network {
    /// All nodes share this process's network.
    Loopback,
}

impl Network {
    /// Later.
    pub fn prepare(_n: usize, _l: bool, _s: u64) -> anyhow::Result<Network> {
        Ok(Network::Loopback)
    }
    /// Later.
    pub fn address(&self, _n: usize) -> Option<std::net::Ipv4Addr> {
        None
    }
    /// Later.
    pub fn namespace(&self, _n: usize) -> Option<String> {
        None
    }
    /// Later.
    pub fn is_switched(&self) -> bool {
        false
    }
    /// Ends whatever disturbs it.
    pub fn heal(&self) {}
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("All nodes and clients share the loopback of this machine.")
    }
}

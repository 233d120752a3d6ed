//! Checks that matter only while the data directory holds no member yet: does the list of first
//! members name this node, and under the addresses it advertises? Later starts take the members
//! from their own state, hence ignore the list, however stale it is.

use std::collections::{BTreeMap, BTreeSet};

use super::error::Error;
use super::{Config, InitialClusterState, Url};

impl Config {
    /// To be called before a node founds or joins a cluster. Addresses are compared as text:
    /// names are not resolved. Source: etcd config.VerifyBootstrap and VerifyJoinExisting.
    pub fn check_first_start(&self) -> Result<(), Error> {
        if !self.initial_cluster.iter().any(|(name, _)| *name == self.name) {
            return Err(Error::LocalName(self.name.clone()));
        }
        if self.initial_cluster_state == InitialClusterState::New {
            self.check_advertised()?;
        }
        self.check_duplicates()
    }

    /// The first members: names and their peer addresses, both sorted.
    pub fn initial_members(&self) -> BTreeMap<&str, Vec<&Url>> {
        let mut members: BTreeMap<&str, Vec<&Url>> = BTreeMap::new();
        for (name, url) in &self.initial_cluster {
            members.entry(name).or_default().push(url);
        }
        members
    }

    fn check_advertised(&self) -> Result<(), Error> {
        let own = || self.initial_cluster.iter().filter(|(name, _)| *name == self.name);
        let advertised = &self.initial_advertise_peer_urls;
        if let Some((name, url)) = own().find(|(_, url)| !advertised.contains(url)) {
            return Err(Error::NotAdvertised {
                entry: format!("{name}={url}"),
                urls: join(advertised.iter().map(Url::to_string)),
            });
        }
        if let Some(url) = advertised.iter().find(|url| !own().any(|(_, listed)| listed == *url)) {
            return Err(Error::NotInCluster {
                url: url.to_string(),
                entries: join(own().map(|(name, url)| format!("{name}={url}"))),
            });
        }
        Ok(())
    }

    fn check_duplicates(&self) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        if self.initial_cluster.iter().all(|(_, url)| seen.insert(url)) {
            return Ok(());
        }
        let entries = self.initial_cluster.iter().map(|(name, url)| format!("{name}={url}"));
        Err(Error::DuplicateUrl(join(entries)))
    }
}

fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<String>>().join(",")
}

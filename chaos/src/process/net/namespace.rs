//! A named network namespace, for as long as this value lives.

use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd as _;

/// A namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one, with its loopback up.
    pub(super) fn new(name: &str) -> anyhow::Result<Self> {
        ip(&["netns", "add", name])?;
        let namespace = Self { name: name.to_owned() };
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Runs something inside, on a thread that ends with it.
    pub(super) fn enter<T: Send>(
        &self,
        inside: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let file = File::open(format!("/run/netns/{}", self.name))?;
        let task = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("enter a network namespace")?;
            inside()
        };
        std::thread::scope(|scope| scope.spawn(task).join().expect("nothing in there panics"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left of it after a failure is only a name.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Runs the tool that manages networks.
pub(super) fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("start `ip` of iproute2")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), error.trim());
    Ok(())
}

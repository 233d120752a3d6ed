//! A TAP device on a port of the switch: what its namespace sends is read here as frames, and
//! what is written here arrives there. Addresses are fixed, so that nobody has to ask for one.

use anyhow::Context as _;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::namespace::{Namespace, ip};

/// A device.
pub(super) struct Tap {
    pub(super) device: SyncDevice,
}

impl Tap {
    /// Makes the device of `port`, in a namespace or in that of this process.
    pub(super) fn new(
        namespace: Option<&Namespace>,
        subnet: [u8; 3],
        port: usize,
        ports_count: usize,
    ) -> anyhow::Result<Self> {
        let name = match namespace {
            Some(_) => "tap0".to_owned(),
            None => format!("flotilla{}", std::process::id() % 10_000_000),
        };
        let make = || {
            let device =
                DeviceBuilder::new().name(&name).layer(Layer::L2).enable(false).build_sync();
            device.with_context(|| format!("make the TAP device {name}"))
        };
        let device = match namespace {
            Some(namespace) => namespace.enter(make)?,
            None => make()?,
        };
        device.set_nonblocking(true)?;
        let address = |port| super::address(subnet, port).to_string();
        let inside = |arguments: &[&str]| match namespace {
            Some(namespace) => ip(&[&["-n", namespace.name()], arguments].concat()),
            None => ip(arguments),
        };
        inside(&["link", "set", &name, "address", &mac_text(port)])?;
        inside(&["addr", "add", &format!("{}/24", address(port)), "dev", &name])?;
        inside(&["link", "set", &name, "up"])?;
        for other in (0..ports_count).filter(|other| *other != port) {
            let (address, mac) = (address(other), mac_text(other));
            inside(&["neigh", "replace", &address, "lladdr", &mac, "dev", &name])?;
        }
        Ok(Self { device })
    }
}

/// Hardware address of a port.
pub(super) fn mac(port: usize) -> [u8; 6] {
    [0x02, 0xf1, 0x07, 0x11, 0x1a, u8::try_from(port).expect("few ports")]
}

fn mac_text(port: usize) -> String {
    mac(port).map(|byte| format!("{byte:02x}")).join(":")
}

//! The switch is a test instrument, so it is tested first: with TCP between two namespaces.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{Link, Network, Switched};

const PORT: u16 = 7_000;
const PATIENCE: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(700);

/// A network of two nodes, each of which sends back what it is sent; or a loud word that there
/// is none.
fn network() -> Option<Switched> {
    match Network::prepare(2, false, 1) {
        Ok(Network::Switched(switched)) => {
            for node in 0..2 {
                let address = (super::address(switched.subnet, node), PORT);
                let bind = || Ok(TcpListener::bind(address)?);
                // A socket stays in the namespace in which it was made.
                let listener = switched.namespaces[node].enter(bind).unwrap();
                std::thread::spawn(move || {
                    for stream in listener.incoming() {
                        let mut stream = stream.unwrap();
                        std::thread::spawn(move || {
                            let mut byte = [0];
                            while stream.read(&mut byte).is_ok_and(|length| length == 1) {
                                let _ = stream.write_all(&byte);
                            }
                        });
                    }
                });
            }
            Some(switched)
        }
        Ok(Network::Loopback) => unreachable!("a switch was asked for"),
        Err(error) => {
            eprintln!("!!!! NOT TESTED, there are no namespaces or TAP devices here: {error:#}");
            None
        }
    }
}

fn connect(switched: &Switched, from: Option<usize>, to: usize) -> std::io::Result<TcpStream> {
    let address = SocketAddr::new(IpAddr::V4(super::address(switched.subnet, to)), PORT);
    let connect = |within| TcpStream::connect_timeout(&address, within);
    match from {
        None => connect(SHORT),
        Some(from) => {
            switched.namespaces[from].enter(|| Ok(connect(SHORT))).expect("the namespace is there")
        }
    }
}

fn echo(stream: &mut TcpStream) -> std::io::Result<Duration> {
    let began = Instant::now();
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[7])?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    Ok(began.elapsed())
}

#[test]
fn a_switch_joins_cuts_and_delays() {
    let Some(switched) = network() else { return };
    let switch = &switched.switch;
    let clients = switch.client_port();
    for (from, to) in [(None, 0), (None, 1), (Some(0), 1), (Some(1), 0)] {
        let mut stream = connect(&switched, from, to).unwrap();
        echo(&mut stream).unwrap();
    }

    // One direction is enough to make TCP fail; clients do not notice.
    let cut = switch.disturb(vec![(0, 1)], Link { is_cut: true, ..Link::default() });
    assert!(connect(&switched, Some(0), 1).is_err());
    assert!(connect(&switched, Some(1), 0).is_err());
    echo(&mut connect(&switched, None, 0).unwrap()).unwrap();
    assert!(switch.counts_of(&[(0, 1)]).lost > 0);
    assert_eq!(switch.counts_of(&[(clients, 0), (0, clients)]).lost, 0);

    // A connection that exists survives.
    switch.end(cut);
    let mut stream = connect(&switched, Some(0), 1).unwrap();
    let delay = Duration::from_millis(60);
    let slow = switch.disturb(vec![(0, 1)], Link { delay, ..Link::default() });
    assert!(echo(&mut stream).unwrap() >= delay);
    switch.disturb(vec![(1, 0)], Link { delay, ..Link::default() });
    assert!(echo(&mut stream).unwrap() >= 2 * delay);
    switch.end(slow);

    // Loss and disorder cost time and nothing else.
    switch.heal();
    let bad = Link { lost_ppm: 200_000, doubled_ppm: 200_000, ..Link::default() };
    switch.disturb(vec![(0, 1), (1, 0)], Link { overtaken_ppm: 200_000, ..bad });
    for _ in 0..10 {
        echo(&mut stream).unwrap();
    }
    assert!(switch.counts_of(&[(0, 1), (1, 0)]).delayed > 0);
}

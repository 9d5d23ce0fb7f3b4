//! Which events move which counters.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;

use super::super::gate::{Activity, Gate, OWN_NAMESPACE};
use super::{exchange_once, in_namespace, pair, wait_for};

fn gate() -> Gate {
    Gate::open(Path::new(OWN_NAMESPACE)).unwrap()
}

/// Reads before and after `happens` and returns both.
fn around<T>(gate: &mut Gate, happens: impl FnOnce() -> T) -> (Activity, Activity, T) {
    let before = gate.read().unwrap();
    let kept = happens();
    (before, gate.read().unwrap(), kept)
}

#[test]
fn nothing_moves_while_nothing_happens_and_reading_moves_nothing() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _kept = pair(&listener);
        let mut gate = gate();
        let (before, after, ()) = around(&mut gate, || ());
        assert_eq!(before, after);
        assert_eq!(gate.tcp().unwrap(), after.tcp);
    });
}

#[test]
fn tcp_connects_accepts_listens_and_ends_move_tcp_only() {
    in_namespace(|| {
        let mut gate = gate();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (before, after, listener) = around(&mut gate, || TcpListener::bind(address).unwrap());
            assert_ne!(before.tcp.in_use, after.tcp.in_use, "a listener");
            let (before, after, ends) = around(&mut gate, || pair(&listener));
            assert_eq!(after.tcp.active_opens, before.tcp.active_opens + 1);
            assert_eq!(after.tcp.passive_opens, before.tcp.passive_opens + 1);
            assert_eq!(after.tcp.established, before.tcp.established + 2);
            let (before, after, ()) = around(&mut gate, || drop(ends));
            assert_eq!(after.tcp.established, before.tcp.established - 2);
            assert_eq!(after.udp, before.udp);
        }
    });
}

#[test]
fn one_opened_and_one_closed_between_two_looks_is_seen() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let old = pair(&listener);
        let mut gate = gate();
        let (before, after, _new) = around(&mut gate, || {
            drop(old);
            pair(&listener)
        });
        assert_eq!(before.tcp.established, after.tcp.established);
        assert_ne!(before.tcp, after.tcp);
    });
}

#[test]
fn a_refused_connect_is_seen() {
    in_namespace(|| {
        let mut gate = gate();
        let (before, after, _) = around(&mut gate, || TcpStream::connect("127.0.0.1:1").unwrap_err());
        assert_eq!(after.tcp.attempts_failed, before.tcp.attempts_failed + 1);
        assert_eq!(after.tcp.active_opens, before.tcp.active_opens + 1);
    });
}

#[test]
fn bytes_on_an_open_connection_and_its_half_close_are_not_seen() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut connecting, mut accepting) = pair(&listener);
        let mut gate = gate();
        let (before, after, ()) = around(&mut gate, || {
            exchange_once(&mut connecting, &mut accepting, 1_000, 500);
        });
        assert_eq!(before.tcp, after.tcp);
    });
}

#[test]
fn udp_sockets_that_connect_send_or_close_are_seen_over_both_families() {
    in_namespace(|| {
        let mut gate = gate();
        for (address, nobody) in [("127.0.0.1:0", "127.0.0.1:9"), ("[::1]:0", "[::1]:9")] {
            let (before, after, socket) = around(&mut gate, || UdpSocket::bind(address).unwrap());
            assert_ne!(before.udp.in_use, after.udp.in_use);
            let (before, after, ()) = around(&mut gate, || socket.connect(nobody).unwrap());
            assert_eq!(before, after, "a bound socket that connects without sending is not seen");
            let (before, after, _) = around(&mut gate, || socket.send(b"x").unwrap());
            assert_ne!(before.udp.datagrams_out, after.udp.datagrams_out);
            let (before, after, ()) = around(&mut gate, || drop(socket));
            wait_for("the socket to be unhashed", || (gate.read().unwrap().udp != before.udp).then_some(()));
            assert_eq!(before.tcp, after.tcp);
        }
    });
}

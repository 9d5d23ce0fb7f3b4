//! Dumps and look-ups of sockets that the test opened, by netlink and by text.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr as UnixAddress;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use super::super::gate::OWN_NAMESPACE;
use super::super::inet::{InetSocket, States, TcpState};
use super::super::net_text;
use super::super::sock_diag::{Dumper, Info};
use super::super::unix::{UnixKind, UnixSocket};
use super::{exchange_once, in_namespace, inode, pair, wait_for};
use crate::event::Protocol;

/// One socket of each kind that matters; local and remote as they must be shown.
struct Zoo {
    kept: Vec<Box<dyn std::any::Any>>,
    tcp: Vec<Seen>,
    udp: Vec<Seen>,
}

type Seen = (SocketAddr, Option<SocketAddr>, TcpState, u64);

fn zoo() -> Zoo {
    let mut zoo = Zoo { kept: Vec::new(), tcp: Vec::new(), udp: Vec::new() };
    for (bound, target) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
        let listener = TcpListener::bind(bound).unwrap();
        let port = listener.local_addr().unwrap().port();
        let connecting = TcpStream::connect((target, port)).unwrap();
        let (accepting, _) = listener.accept().unwrap();
        let (here, there) = (connecting.local_addr().unwrap(), connecting.peer_addr().unwrap());
        zoo.tcp.push((listener.local_addr().unwrap(), None, TcpState::Listen, inode(&listener)));
        zoo.tcp.push((here, Some(there), TcpState::Established, inode(&connecting)));
        // The accepting socket of the dual-stack listener is IPv6 with mapped addresses: shown as IPv4.
        zoo.tcp.push((there, Some(here), TcpState::Established, inode(&accepting)));
        let unconnected = UdpSocket::bind(bound).unwrap();
        let connected = UdpSocket::bind((target, 0)).unwrap();
        let to = SocketAddr::new(target.parse().unwrap(), unconnected.local_addr().unwrap().port());
        connected.connect(to).unwrap();
        let here = connected.local_addr().unwrap();
        zoo.udp.push((unconnected.local_addr().unwrap(), None, TcpState::Close, inode(&unconnected)));
        zoo.udp.push((here, Some(to), TcpState::Established, inode(&connected)));
        zoo.kept.push(Box::new((listener, connecting, accepting, unconnected, connected)));
    }
    zoo.tcp.sort();
    zoo.udp.sort();
    zoo
}

fn seen(into: &mut Vec<Seen>) -> impl FnMut(&InetSocket) {
    |socket| into.push((socket.local, socket.remote, socket.state, socket.inode))
}

#[test]
fn netlink_shows_every_socket_of_both_families_once() {
    in_namespace(|| {
        let zoo = zoo();
        let mut dumper = Dumper::open().unwrap();
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        dumper.tcp(States::SOCKETS, Info::Without, seen(&mut tcp)).unwrap();
        dumper.udp(States::ALL, seen(&mut udp)).unwrap();
        tcp.sort();
        udp.sort();
        assert_eq!(tcp, zoo.tcp);
        assert_eq!(udp, zoo.udp);
    });
}

#[test]
fn text_shows_the_same_sockets_as_netlink() {
    in_namespace(|| {
        let zoo = zoo();
        let net = Path::new(OWN_NAMESPACE);
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        net_text::tcp(net, seen(&mut tcp)).unwrap();
        net_text::udp(net, seen(&mut udp)).unwrap();
        tcp.sort();
        udp.sort();
        assert_eq!(tcp, zoo.tcp);
        assert_eq!(udp, zoo.udp);
    });
}

#[test]
fn a_state_set_leaves_out_listeners() {
    in_namespace(|| {
        let zoo = zoo();
        let mut states = Vec::new();
        let mut dumper = Dumper::open().unwrap();
        dumper.tcp(States::CONNECTIONS, Info::Without, |socket| states.push(socket.state)).unwrap();
        assert_eq!(states, vec![TcpState::Established; 6]);
        drop(zoo);
    });
}

#[test]
fn info_brings_counters_and_uid_and_cookie_are_told() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut connecting, mut accepting) = pair(&listener);
        exchange_once(&mut connecting, &mut accepting, 1_000, 500);
        let mut dumper = Dumper::open().unwrap();
        let mut found = Vec::new();
        dumper.tcp(States::CONNECTIONS, Info::With, |socket| found.push(*socket)).unwrap();
        let here = connecting.local_addr().unwrap();
        let socket = found.iter().find(|socket| socket.local == here).unwrap();
        let counters = socket.counters.unwrap();
        assert_eq!((counters.sent(), counters.bytes_received), (1_000, 500));
        assert_eq!(socket.uid, rustix::process::getuid().as_raw());
        let cookie = rustix::net::sockopt::socket_cookie(&connecting).unwrap();
        assert_eq!(socket.cookie, Some(cookie));
        let again = dumper.find_tcp(here, socket.remote.unwrap(), 0, Info::With).unwrap();
        assert_eq!(again.unwrap().counters.map(|again| again.bytes_acked), Some(counters.bytes_acked));
    });
}

#[test]
fn a_look_up_finds_mini_sockets_and_is_not_content_with_a_listener() {
    in_namespace(|| {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let (connecting, accepting) = pair(&listener);
            let (here, there) = (connecting.local_addr().unwrap(), connecting.peer_addr().unwrap());
            let mut dumper = Dumper::open().unwrap();
            drop(connecting);
            drop(accepting);
            let mini = wait_for("a mini-socket", || {
                let found = dumper.find_tcp(here, there, 0, Info::Without).unwrap();
                found.filter(|socket| socket.state == TcpState::TimeWait)
            });
            assert_eq!(mini.inode, 0);
            assert!((50_000..=60_100).contains(&mini.expires_ms), "{}", mini.expires_ms);
            wait_for("the accepting end to be gone", || {
                dumper.find_tcp(there, here, 0, Info::Without).unwrap().is_none().then_some(())
            });
        }
    });
}

#[test]
fn an_error_of_the_kernel_leaves_the_dumper_usable() {
    in_namespace(|| {
        let mut dumper = Dumper::open().unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        for _ in 0..3 {
            assert_eq!(dumper.find_tcp(nowhere, nowhere, 0, Info::With), Ok(None));
            assert_eq!(dumper.tcp(States::ALL, Info::With, |_| ()).unwrap().sockets, 0);
        }
    });
}

#[test]
fn a_dump_that_spans_many_datagrams_is_complete() {
    in_namespace(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pairs: Vec<_> = (0..1_000).map(|_| pair(&listener)).collect();
        let mut tables = Dumper::open().unwrap();
        let mut inodes = std::collections::HashSet::new();
        let dumped = tables.tcp(States::SOCKETS, Info::With, |socket| assert!(inodes.insert(socket.inode)));
        assert_eq!(dumped.unwrap().sockets, 2_001);
        assert!(pairs.iter().all(|(a, b)| inodes.contains(&inode(a)) && inodes.contains(&inode(b))));
        let mut by_text = 0;
        let dumped = net_text::tcp(Path::new(OWN_NAMESPACE), |_| by_text += 1).unwrap();
        assert_eq!((by_text, dumped.sockets, dumped.skipped), (2_001, 2_001, 0));
    });
}

#[test]
fn unix_sockets_are_shown_with_path_state_and_peer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a socket");
    let listener = UnixListener::bind(&path).unwrap();
    let connecting = UnixStream::connect(&path).unwrap();
    let (accepting, _) = listener.accept().unwrap();
    let name = format!("rano-test-{}", std::process::id());
    let abstract_address = UnixAddress::from_abstract_name(&name).unwrap();
    let datagram = UnixDatagram::bind_addr(&abstract_address).unwrap();
    let path = path.to_string_lossy().into_owned();
    let socket = |of: u64, kind, state, path: Option<&str>, peer| UnixSocket {
        kind,
        state,
        inode: of,
        peer,
        path: path.map(str::to_owned),
        cookie: None,
    };
    let (one, two) = (inode(&connecting), inode(&accepting));
    let expected = [
        socket(inode(&listener), UnixKind::Stream, TcpState::Listen, Some(&path), None),
        socket(one, UnixKind::Stream, TcpState::Established, None, Some(two)),
        socket(two, UnixKind::Stream, TcpState::Established, Some(&path), Some(one)),
        socket(inode(&datagram), UnixKind::Datagram, TcpState::Close, Some(&format!("@{name}")), None),
    ];
    let mut by_netlink = Vec::new();
    Dumper::open().unwrap().unix(|socket| by_netlink.push(socket.clone())).unwrap();
    let mut by_text = Vec::new();
    net_text::unix(Path::new(OWN_NAMESPACE), |socket| by_text.push(socket.clone())).unwrap();
    for expected in expected {
        let found = by_netlink.iter().find(|socket| socket.inode == expected.inode).unwrap();
        assert_eq!(UnixSocket { cookie: None, ..found.clone() }, expected);
        assert!(found.cookie.is_some());
        let found = by_text.iter().find(|socket| socket.inode == expected.inode).unwrap();
        // Datagram sockets are "connected" in text once bound; the state is the least of it.
        assert_eq!((found.kind, &found.path), (expected.kind, &expected.path));
        assert!(expected.kind == UnixKind::Datagram || found.state == expected.state, "{found:?}");
    }
}

#[test]
fn text_is_parsed_to_the_letter() {
    let line = b"   0: 0100007F:1F90 0200000A:01BB 01 0000000A:00000014 00:00000000 00000000  1000        0 12345 1 ffff 20";
    let socket = net_text::parse_inet(line, Protocol::Tcp).unwrap();
    assert_eq!(socket.uid, 1_000);
    assert_eq!(socket.inode, 12_345);
    assert_eq!((socket.send_queue, socket.receive_queue), (10, 20));
    if cfg!(target_endian = "little") {
        assert_eq!(socket.local, SocketAddr::from(([127, 0, 0, 1], 8080)));
        assert_eq!(socket.remote, Some(SocketAddr::from(([10, 0, 0, 2], 443))));
    }
}

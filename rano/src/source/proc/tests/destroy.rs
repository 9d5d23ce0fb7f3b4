//! What is heard of sockets as they end, and that what is not heard is counted.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::closing::same_host;
use super::super::destroy::{DestroyListener, DestroySettings, Destroyed};
use super::super::inet::States;
use super::super::sock_diag::{Dumper, Info};
use super::super::throttle::RateLimits;
use super::{become_ordinary_user, in_namespace, pair, raise_descriptor_limit, wait_for};
use crate::event::Protocol;

fn unlimited() -> RateLimits {
    RateLimits { per_second: 1_000_000, burst: 1_000_000, ..RateLimits::default() }
}

fn readable(listener: &DestroyListener) -> bool {
    let at_once = Timespec::default();
    poll(&mut [PollFd::from_borrowed_fd(listener.wake_fd(), PollFlags::IN)], Some(&at_once)).unwrap() == 1
}

fn hear(listener: &DestroyListener, heard: &mut Vec<Destroyed>, enough: impl Fn(&[Destroyed]) -> bool) {
    wait_for("destroy messages", || {
        listener.drain(heard);
        enough(heard).then_some(())
    });
}

#[test]
fn an_end_is_heard_with_the_cookie_the_socket_had_and_wakes_the_reader_once() {
    in_namespace(|| {
        let listener = DestroyListener::start(DestroySettings::default()).unwrap();
        assert!(!readable(&listener));
        let server = TcpListener::bind("[::1]:0").unwrap();
        let (connecting, accepting) = pair(&server);
        let here = connecting.local_addr().unwrap();
        let there = accepting.local_addr().unwrap();
        let cookie = rustix::net::sockopt::socket_cookie(&connecting).unwrap();
        drop(accepting);
        drop(connecting);
        let mut heard = Vec::new();
        wait_for("the wake-up", || readable(&listener).then_some(()));
        hear(&listener, &mut heard, |heard| heard.len() == 2);
        assert!(!readable(&listener), "drained");
        let end = heard.iter().find(|end| end.local == here).unwrap();
        assert_eq!((end.cookie, end.remote, end.protocol), (cookie, Some(there), Protocol::Tcp));
        assert!(same_host(end));
        assert!(end.at.unix_ms > 1_700_000_000_000 && end.at.boot_ns > 0);
    });
}

#[test]
fn udp_is_heard_if_asked_for() {
    in_namespace(|| {
        for udp in [true, false] {
            let settings = DestroySettings { udp, ..DestroySettings::default() };
            let listener = DestroyListener::start(settings).unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.1:9").unwrap();
            let here = socket.local_addr().unwrap();
            drop(socket);
            drop(TcpListener::bind("127.0.0.1:0").unwrap());
            let mut heard = Vec::new();
            hear(&listener, &mut heard, |heard| heard.iter().any(|end| end.protocol == Protocol::Tcp));
            listener.stop(&mut heard);
            let expected = udp.then(|| SocketAddr::from(([127, 0, 0, 1], 9)));
            let found = heard.iter().find(|end| end.protocol == Protocol::Udp && end.local == here);
            assert_eq!(found.and_then(|end| end.remote), expected);
        }
    });
}

#[test]
fn an_ordinary_user_hears_the_same_and_can_look_at_every_table() {
    in_namespace(|| {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let (connecting, accepting) = pair(&server);
        become_ordinary_user();
        let listener = DestroyListener::start(DestroySettings::default()).unwrap();
        let mut tables = Dumper::open().unwrap();
        let dumped = tables.tcp(States::SOCKETS, Info::With, |socket| assert_eq!(socket.uid, 0)).unwrap();
        assert_eq!((dumped.sockets, dumped.skipped), (3, 0));
        tables.udp(States::ALL, |_| ()).unwrap();
        tables.unix(|_| ()).unwrap();
        drop((connecting, accepting));
        hear(&listener, &mut Vec::new(), |heard| heard.len() == 2);
    });
}

#[test]
fn listeners_and_unconnected_sockets_have_no_remote_end() {
    in_namespace(|| {
        let listener = DestroyListener::start(DestroySettings::default()).unwrap();
        drop(TcpListener::bind("127.0.0.1:0").unwrap());
        drop(UdpSocket::bind("[::1]:0").unwrap());
        let mut heard = Vec::new();
        hear(&listener, &mut heard, |heard| heard.len() == 2);
        assert!(heard.iter().all(|end| end.remote.is_none()));
    });
}

#[test]
fn the_last_moments_are_heard_by_stopping() {
    in_namespace(|| {
        // Other tests keep the processors busy, and the kernel makes the messages when it can.
        let (quiet, farewell) = (Duration::from_millis(500), Duration::from_secs(5));
        let settings = DestroySettings { quiet, farewell, ..DestroySettings::default() };
        let listener = DestroyListener::start(settings).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let pairs: Vec<_> = (0..50).map(|_| pair(&server)).collect();
        drop(pairs);
        let mut heard = Vec::new();
        let health = listener.stop(&mut heard);
        assert_eq!(heard.len(), 100);
        assert_eq!((health.received, health.lost, health.listening, health.failed), (100, 0, false, None));
    });
}

/// The kernel's own count of what did not fit makes the sum right to the message.
#[test]
fn five_thousand_ends_at_once_are_heard_or_counted_as_lost() {
    in_namespace(|| {
        raise_descriptor_limit();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        for receive_buffer in [0, 2_304, 8 << 20] {
            let settings =
                DestroySettings { receive_buffer, rate: unlimited(), ..DestroySettings::default() };
            let listener = DestroyListener::start(settings).unwrap();
            let sockets: Vec<_> = (0..2_500).map(|_| pair(&server)).collect();
            drop(sockets);
            let total = wait_for("all ends", || {
                let health = listener.health();
                (health.received + health.lost >= 5_000).then_some(health)
            });
            assert_eq!(total.received + total.lost, 5_000, "{total:?}");
            let mut heard = Vec::new();
            let health = listener.stop(&mut heard);
            assert_eq!(health.received + health.lost, 5_000, "and no more come");
            assert_eq!(heard.len() as u64, health.received);
            println!("receive buffer {receive_buffer}: received {}, lost {}", health.received, health.lost);
            if receive_buffer == 8 << 20 {
                assert_eq!(health.lost, 0);
            }
        }
    });
}

#[test]
fn a_full_queue_is_counted_and_keeps_the_oldest() {
    in_namespace(|| {
        let settings = DestroySettings { queue: 10, ..DestroySettings::default() };
        let listener = DestroyListener::start(settings).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = server.local_addr().unwrap();
        drop(server);
        wait_for("the first", || (listener.health().received == 1).then_some(()));
        let sockets: Vec<_> = (0..24).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        drop(sockets);
        wait_for("the others", || (listener.health().received == 25).then_some(()));
        assert_eq!(listener.health().queue_full, 15);
        let mut heard = Vec::new();
        listener.drain(&mut heard);
        assert_eq!(heard.len(), 10);
        assert_eq!(heard[0].local, first);
    });
}

#[test]
fn too_many_messages_make_it_leave_count_what_is_opened_and_come_back() {
    in_namespace(|| {
        let rate = RateLimits {
            per_second: 100,
            burst: 50,
            first_back_off: Duration::from_millis(200),
            longest_back_off: Duration::from_millis(400),
        };
        let listener =
            DestroyListener::start(DestroySettings { rate, ..DestroySettings::default() }).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        drop((0..40).map(|_| pair(&server)).collect::<Vec<_>>());
        wait_for("it to leave", || (!listener.health().listening).then_some(()));
        let before = listener.health();
        assert_eq!((before.gaps, before.opened_unwatched), (1, 0));
        // Unwatched: 5 connections, both ends of each opened here.
        drop((0..5).map(|_| pair(&server)).collect::<Vec<_>>());
        wait_for("it to come back", || listener.health().listening.then_some(()));
        let after = listener.health();
        assert_eq!((after.gaps, after.opened_unwatched), (1, 10));
        assert!(after.away >= Duration::from_millis(200), "{:?}", after.away);
        assert_eq!(listener.health().away, after.away, "the gap is over");
        let mut heard = Vec::new();
        listener.drain(&mut heard);
        heard.clear();
        let (connecting, accepting) = pair(&server);
        let here = connecting.local_addr().unwrap();
        drop((connecting, accepting));
        hear(&listener, &mut heard, |heard| heard.iter().any(|end| end.local == here));
    });
}

#[test]
fn it_stays_away_while_it_is_busy_and_counts_until_it_is_stopped() {
    in_namespace(|| {
        let rate = RateLimits {
            per_second: 10,
            burst: 10,
            first_back_off: Duration::from_millis(20),
            longest_back_off: Duration::from_mins(10),
        };
        let listener =
            DestroyListener::start(DestroySettings { rate, ..DestroySettings::default() }).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let mut unwatched = Vec::new();
        drop((0..10).map(|_| pair(&server)).collect::<Vec<_>>());
        wait_for("it to leave", || (!listener.health().listening).then_some(()));
        wait_for("a review", || {
            unwatched.push((TcpStream::connect(address).unwrap(), server.accept().unwrap()));
            (listener.health().opened_unwatched > 0).then_some(())
        });
        unwatched.push((TcpStream::connect(address).unwrap(), server.accept().unwrap()));
        let health = listener.stop(&mut Vec::new());
        assert_eq!(health.gaps, 1, "busy at the review, so it did not come back");
        assert_eq!(health.opened_unwatched, 2 * unwatched.len() as u64);
        assert!(health.away >= Duration::from_millis(20));
    });
}

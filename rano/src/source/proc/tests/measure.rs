//! What a look costs beside `ss`. Run with `cargo test --release -p rano --lib measure -- --ignored --nocapture`.

use std::hint::black_box;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::super::destroy::{DestroyListener, DestroySettings};
use super::super::gate::{Gate, OWN_NAMESPACE};
use super::super::inet::States;
use super::super::net_text;
use super::super::sock_diag::{Dumper, Info};
use super::super::throttle::RateLimits;
use super::{in_namespace, pair, raise_descriptor_limit, wait_for};

fn thread_time() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)).unwrap()
}

fn children_time() -> Duration {
    // SAFETY: all zeros is a valid `rusage`, a struct of plain integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills the `rusage` that the pointer leads to.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) }, 0);
    let time = |time: libc::timeval| {
        Duration::new(time.tv_sec.try_into().unwrap(), u32::try_from(time.tv_usec).unwrap() * 1_000)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The median of eleven, user and system together.
fn report(what: &str, clock: impl Fn() -> Duration, mut run: impl FnMut()) {
    let mut times: Vec<_> = (0..11)
        .map(|_| {
            let before = clock();
            run();
            clock().saturating_sub(before)
        })
        .collect();
    times.sort();
    println!("    {what:<44} {:>9.3} ms", times[5].as_secs_f64() * 1e3);
}

fn ss(arguments: &str) {
    let status = Command::new("ss").arg(arguments).stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "ss is part of iproute2");
}

/// A process that has inherited connections; one alone may not have the descriptors for 20,000 sockets.
struct Holder(std::process::Child);

impl Holder {
    fn start(listener: &TcpListener, connections: usize) -> Self {
        let pairs: Vec<_> = (0..connections).map(|_| pair(listener)).collect();
        for (one, other) in &pairs {
            for socket in [one, other] {
                rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
            }
        }
        Self(Command::new("sleep").arg("100").spawn().unwrap())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
#[ignore = "a measurement"]
fn dumps_gates_and_ss() {
    in_namespace(|| {
        raise_descriptor_limit();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut holders = Vec::new();
        for (holds, sockets) in [(0, 0), (1, 1_000), (20, 20_000)] {
            holders.extend((holders.len()..holds).map(|_| Holder::start(&listener, 500)));
            println!("{sockets} established sockets");
            let mut dumper = Dumper::open().unwrap();
            for (name, info) in [("dump of TCP", Info::Without), ("dump of TCP with INFO", Info::With)] {
                report(name, thread_time, || {
                    dumper.tcp(States::CONNECTIONS, info, |socket| _ = black_box(socket.inode)).unwrap();
                });
            }
            report("dump of TCP, listeners too", thread_time, || {
                dumper.tcp(States::SOCKETS, Info::Without, |socket| _ = black_box(socket.inode)).unwrap();
            });
            report("dump of UDP", thread_time, || {
                dumper.udp(States::ALL, |socket| _ = black_box(socket.inode)).unwrap();
            });
            report("text of TCP", thread_time, || {
                net_text::tcp(Path::new(OWN_NAMESPACE), |socket| _ = black_box(socket.inode)).unwrap();
            });
            let mut gate = Gate::open(Path::new(OWN_NAMESPACE)).unwrap();
            report("gate, TCP only", thread_time, || _ = black_box(gate.tcp().unwrap()));
            report("gate", thread_time, || _ = black_box(gate.read().unwrap()));
            report("ss -tn", children_time, || ss("-tn"));
            report("ss -tni", children_time, || ss("-tni"));
            report("ss -tnp", children_time, || ss("-tnp"));
        }
    });
}

#[test]
#[ignore = "a measurement"]
fn how_fast_destroy_messages_are_read_and_what_they_cost_others() {
    in_namespace(|| {
        raise_descriptor_limit();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let storm = |connections: u32| {
            let started = Instant::now();
            for _ in 0..connections {
                let connecting = TcpStream::connect(address).unwrap();
                drop(server.accept().unwrap());
                drop(connecting);
            }
            started.elapsed() / connections
        };
        println!("    connect and close, nobody listens: {:?}", storm(20_000));
        let rate = RateLimits { per_second: 10_000_000, burst: 10_000_000, ..RateLimits::default() };
        for receive_buffer in [0, 4 << 20] {
            let settings =
                DestroySettings { receive_buffer, rate, queue: 1 << 20, ..DestroySettings::default() };
            let listener = DestroyListener::start(settings).unwrap();
            println!("    connect and close, buffer {receive_buffer}: {:?}", storm(20_000));
            let health = wait_for("all ends", || {
                let health = listener.health();
                (health.received + health.lost >= 40_000).then_some(health)
            });
            println!("        received {} + lost {} of 40000", health.received, health.lost);
        }
        let kept: Vec<_> = (0..20).map(|_| Holder::start(&server, 500)).collect();
        let settings = DestroySettings { rate, queue: 1 << 20, ..DestroySettings::default() };
        let listener = DestroyListener::start(settings).unwrap();
        let started = Instant::now();
        drop(kept);
        let closed = started.elapsed();
        wait_for("all ends", || {
            let health = listener.health();
            (health.received + health.lost >= 20_000).then_some(())
        });
        println!(
            "    20000 closed in {closed:?}, heard after {:?}: {:?}",
            started.elapsed(),
            listener.health()
        );
    });
}

/// What it takes to read the bytes of open connections, one by one and by listing all sockets.
#[test]
#[ignore = "a measurement"]
fn measure_counting() {
    use crate::source::counting::{self, By};
    in_namespace(|| {
        raise_descriptor_limit();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut dumper = Dumper::open().unwrap();
        let mut pairs = Vec::new();
        for connections in [1_usize, 100, 1_000, 9_000] {
            while pairs.len() < connections {
                pairs.push(pair(&listener));
            }
            let open: Vec<_> = pairs
                .iter()
                .map(|(one, _)| crate::source::Open {
                    id: crate::source::SocketId::Cookie {
                        netns: 1,
                        cookie: rustix::net::sockopt::socket_cookie(one).unwrap(),
                    },
                    is_pending: false,
                    ends: Some((one.local_addr().unwrap(), one.peer_addr().unwrap())),
                })
                .collect();
            println!("  {connections} open");
            for (what, questions) in [("one by one", usize::MAX), ("all listed", 0)] {
                report(what, thread_time, || {
                    let mut found = 0;
                    counting::tcp(&mut dumper, 1, open.iter().copied(), By::Cookie, questions, |_, bytes| {
                        black_box(bytes);
                        found += 1;
                    })
                    .unwrap();
                    assert_eq!(found, connections);
                });
            }
        }
    });
}

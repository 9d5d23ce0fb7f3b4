//! What listening for destroyed sockets costs a stranger: the time of a connection from connect to close, at a pace at
//! which rano listens and at full speed, where it is to stop listening.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::measure::{Observer, median, pin_myself, ratio};
use super::table::Table;
use crate::system::find_in_path;

const ROUNDS: usize = 5;
/// Name, time from one connection to the next, connections a round. A round has a destination of its own, whose 28,000
/// ephemeral ports it must not use up.
const PACES: [(&str, Duration, usize); 2] =
    [("500 a second", Duration::from_millis(2), 1_000), ("full speed", Duration::ZERO, 15_000)];

pub(crate) fn measure(rano: &Path) -> Result<Table> {
    let mut table = Table::new(&["pace", "nobody", "rano", "ratio", "ss -E", "ratio"]);
    let ss = find_in_path("ss");
    if ss.is_none() {
        table.skip("ss: not installed");
    }
    let scratch = tempfile::tempdir()?;
    pin_myself(0);
    let mut stranger = Stranger { listener: TcpListener::bind("0.0.0.0:0")?, rounds: 0 };
    for (pace, gap, count) in PACES {
        let (mut alone, mut with_rano, mut with_ss) = (Vec::new(), Vec::new(), Vec::new());
        // Taking turns, so that a slow moment of the machine hits all.
        for _ in 0..ROUNDS {
            alone.push(stranger.round(gap, count)?);
            let observer = Observer::start(rano, scratch.path(), &["--source", "proc", "--no-sqlite"])?;
            with_rano.push(stranger.round(gap, count)?);
            drop(observer);
            if let Some(ss) = &ss {
                let listener = Listener::start(ss)?;
                with_ss.push(stranger.round(gap, count)?);
                drop(listener);
            }
        }
        let (alone, with_rano) = (median(alone), median(with_rano));
        let mut cells =
            vec![pace.into(), microseconds(alone), microseconds(with_rano), ratio(with_rano, alone)];
        if with_ss.is_empty() {
            cells.extend(["–".into(), "–".into()]);
        } else {
            let with_ss = median(with_ss);
            cells.extend([microseconds(with_ss), ratio(with_ss, alone)]);
        }
        table.row(cells);
    }
    Ok(table)
}

/// Both ends in one thread, so that all the kernel does for a connection is in its time.
struct Stranger {
    listener: TcpListener,
    rounds: u8,
}

impl Stranger {
    /// The median time of connect, accept and the two closes.
    fn round(&mut self, gap: Duration, count: usize) -> Result<Duration> {
        self.rounds += 1;
        let port = self.listener.local_addr()?.port();
        let to = SocketAddr::from((Ipv4Addr::new(127, 1, 1, self.rounds), port));
        let mut times = Vec::with_capacity(count);
        let mut due = Instant::now();
        for _ in 0..count {
            // A sleep would let the CPU cool down, which costs more than what is measured.
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            due += gap;
            let begin = Instant::now();
            let client = TcpStream::connect(to)?;
            let server = self.listener.accept()?;
            drop(client);
            drop(server);
            times.push(begin.elapsed());
        }
        Ok(median(times))
    }
}

/// `ss -E`, which shows sockets as they are destroyed, with the same messages of the kernel.
struct Listener(Child);

impl Listener {
    fn start(ss: &Path) -> Result<Self> {
        let mut command = Command::new(ss);
        command.arg("-tnE").stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().context("start ss -E")?;
        std::thread::sleep(Duration::from_secs(1));
        Ok(Self(child))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn microseconds(duration: Duration) -> String {
    format!("{:.1} µs", duration.as_secs_f64() * 1e6)
}

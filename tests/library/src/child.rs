//! A process named claude, which connects to a listener of its parent's as often as it is told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Outcome;

/// From the parent's side.
pub struct Claude {
    child: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
    /// Where the copy of this program lies.
    directory: std::path::PathBuf,
}

impl Claude {
    pub fn start() -> Outcome<Self> {
        let peer = peer()?;
        let directory = std::env::temp_dir().join(format!("rano-library-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let program = directory.join("claude");
        std::fs::copy(std::env::current_exe()?, &program)?;
        let mut command = Command::new(&program);
        command.arg0("claude").arg(peer.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().ok_or("no pipe")?;
        let reports = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, orders, reports, directory })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// So many connections more. They are open when this returns.
    pub fn open(&mut self, count: usize) -> Outcome {
        self.order(&count.to_string())
    }

    /// All of them.
    pub fn close(&mut self) -> Outcome {
        self.order("close")
    }

    fn order(&mut self, what: &str) -> Outcome {
        writeln!(self.orders, "{what}")?;
        let mut report = String::new();
        self.reports.read_line(&mut report)?;
        if report == "done\n" { Ok(()) } else { Err(format!("the child says {report:?}").into()) }
    }
}

impl Drop for Claude {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What its connections lead to: a thread that keeps the other ends, for as long as this process runs.
fn peer() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    Ok(address)
}

/// The child: obeys until its orders end.
pub fn run(address: &str) -> Outcome {
    let mut open = Vec::new();
    for order in std::io::stdin().lines() {
        match order?.as_str() {
            "close" => open.clear(),
            count => {
                for _ in 0..count.parse()? {
                    open.push(TcpStream::connect(address)?);
                }
            }
        }
        println!("done");
        std::io::stdout().flush()?;
    }
    Ok(())
}

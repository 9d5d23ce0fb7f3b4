//! Counters for Prometheus, served on this machine until Ctrl-C, in its text format.
//!
//! `cargo run --example metrics -- 127.0.0.1:9464 & curl http://127.0.0.1:9464/metrics`

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use rano::{Monitor, Snapshot};

/// Whoever asks has to do so at once: one is answered after the other.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9464".to_owned());
    let monitor = Monitor::builder().start().wait()?;
    let listener = TcpListener::bind(&address)?;
    println!("http://{}/metrics", listener.local_addr()?);
    for client in listener.incoming() {
        let snapshot = monitor.snapshot().wait()?;
        // A client that goes away is its own affair.
        let _ = client.and_then(|client| answer(&client, &metrics(&snapshot)));
    }
    Ok(())
}

fn answer(mut client: &TcpStream, text: &str) -> std::io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut request = String::new();
    BufReader::new(std::io::Read::take(client, 4096)).read_line(&mut request)?;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
    write!(client, "{head}Content-Length: {}\r\n\r\n{text}", text.len())
}

fn metrics(snapshot: &Snapshot) -> String {
    let Snapshot { totals, missed, processes, .. } = snapshot;
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, values: &[(String, u64)]| {
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let one = |value: u64| [(String::new(), value)];
    let by_provider: Vec<_> = totals
        .providers
        .iter()
        .map(|(provider, connects)| (format!("{{provider=\"{}\"}}", escaped(provider)), *connects))
        .collect();
    let gaps: Vec<_> =
        missed.present().map(|(gap, count)| (format!("{{what=\"{}\"}}", gap.name()), count)).collect();
    metric("rano_connects_total", "counter", &by_provider);
    metric("rano_closes_total", "counter", &one(totals.closes));
    metric("rano_fails_total", "counter", &one(totals.fails));
    metric("rano_sent_bytes_total", "counter", &one(totals.bytes.sent));
    metric("rano_received_bytes_total", "counter", &one(totals.bytes.received));
    metric("rano_missed_total", "counter", &gaps);
    metric("rano_active_connections", "gauge", &one(totals.active));
    metric("rano_watched_processes", "gauge", &one(u64::try_from(processes.len()).unwrap_or(u64::MAX)));
    text
}

/// As the value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

//! What a connection has sent and received while it is open: in the history, in `report` and in the summary, also of a
//! session that was killed.

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::actor::{Totals, Transport};
use super::scene::Scene;
use super::wait_until;

const FLUSH: [&str; 2] = ["--db-flush-ms", "100"];

/// How rano is ended while the connection is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    InOrder,
    Killed,
}

/// What `report` says of one process in the latest session: others may be watched on this machine.
fn report(scene: &Scene, pid: u32) -> Result<Value> {
    let filter = format!("pid:{pid}");
    let finished = scene.launch()?.args(["report", "--json", "--filter", &filter]).run()?;
    finished.expect_code(0)?;
    Ok(serde_json::from_str(&finished.stdout)?)
}

/// In the sums of a report; all connections of a scene stay on the machine.
fn within(report: &Value) -> Result<Totals> {
    let sum =
        |key: &str| report["summary"]["loopback"][key].as_u64().with_context(|| format!("{key}: {report}"));
    Ok(Totals { sent: sum("bytes_sent")?, received: sum("bytes_recv")? })
}

/// A connection over `transport` that stays open while rano ends.
pub fn check(mut scene: Scene, source: &str, transport: Transport, ending: Ending) -> Result<()> {
    let size = if transport == Transport::Tcp { 40_000_000 } else { 1_000 };
    let address = match transport {
        Transport::Tcp => scene.tcp,
        Transport::Udp => scene.server.serve(transport, "127.0.0.1:0", super::actor::Service::Answer)?,
    };
    let log = scene.directory().join("log.jsonl").display().to_string();
    let logs = ["--log-file", &log, "--log-format", "json"];
    let rano = scene.observe(&[&["--source", source, "--no-dns"], &FLUSH[..], &logs].concat())?;
    let mut claude = scene.agent("claude")?;
    let pid = claude.pid();
    let (connection, tuple) = claude.connect(transport, address)?;
    let mut totals = Totals::default();
    // What is read first may be a part of it.
    for _ in 0..2 {
        totals = claude.exchange(connection, size, 700)?;
        let expected = totals;
        wait_until("the bytes of an open connection in the report", || {
            Ok(within(&report(&scene, pid)?)? == expected)
        })?;
    }
    rano.wait_for_event("connect", tuple)?;
    let summary = match ending {
        Ending::Killed => {
            rano.signal(Signal::KILL)?;
            rano.wait()?;
            None
        }
        Ending::InOrder => Some(rano.interrupt()?.expect_code(0)?.stdout.clone()),
    };
    let after = report(&scene, pid)?;
    ensure!(within(&after)? == totals, "{totals:?}: {after}");
    ensure!(after["sessions"][0]["clean_exit"] == (ending == Ending::InOrder), "{after}");
    let text = scene.launch()?.args(["report"]).run()?.stdout;
    ensure!(text.contains("still open, bytes so far"), "{text}");
    let rows = scene.database()?.events_of(transport, tuple)?;
    let [row] = &rows[..] else { anyhow::bail!("{rows:?}") };
    let stored = (row.event.as_str(), row.bytes_sent, row.bytes_recv);
    let expected = (Some(i64::try_from(totals.sent)?), Some(i64::try_from(totals.received)?));
    ensure!(stored == ("connect", expected.0, expected.1), "{rows:?}");
    if let Some(summary) = summary {
        ensure!(summary.contains("still open, bytes so far"), "{summary}");
        let of_session = scene.database()?.count("SELECT bytes_sent FROM sessions")?;
        ensure!(u64::try_from(of_session)? >= totals.sent, "{of_session}");
        let logged = std::fs::read_to_string(&log)?;
        let last: Value = serde_json::from_str(logged.lines().last().context("an empty log")?)?;
        let has = |key: &str, count| last[key].as_u64().is_some_and(|sum| sum >= count);
        ensure!(has("loopback_sent", totals.sent) && has("loopback_recv", totals.received), "{last}");
        // The lines of events stay as they are: a sum over them counts nothing twice.
        ensure!(!logged.lines().any(|line| line.contains(r#""event":"connect""#) && line.contains("bytes_")));
    }
    Ok(())
}

//! Sums of a session as text of `OpenMetrics` (<https://github.com/prometheus/OpenMetrics>). Labels are words of rano's
//! own and providers, which are few; never a name or a process.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::report::gaps;
use crate::health::Gap;
use crate::store::query::paths::Paths;
use crate::store::query::report::Counts;
use crate::store::query::sessions::StoredSession;

/// Providers with rows of their own; the others are summed up.
const PROVIDERS_MAX: usize = 32;

/// What the text is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `paths` are all of `session`; the answer ends with its `# EOF`.
pub fn text(session: Option<&StoredSession>, paths: &Paths, is_running: bool) -> String {
    let mut sums: BTreeMap<(&str, &str), Counts> = BTreeMap::new();
    let rows = paths.rows.iter().map(|row| (row.provider.as_str(), row.class.as_str(), &row.counts));
    let others =
        paths.others.iter().map(|(provider, class, counts)| (provider.as_str(), class.as_str(), counts));
    let mut known: Vec<&str> = Vec::new();
    for (provider, class, counts) in rows.chain(others) {
        if !known.contains(&provider) && known.len() < PROVIDERS_MAX {
            known.push(provider);
        }
        let provider = if known.contains(&provider) { provider } else { "other" };
        sums.entry((provider, class)).or_default().add(counts);
    }
    let mut out = String::new();
    head(&mut out, "rano_events", "counter", "Events of the session by what happened.");
    for ((provider, class), counts) in &sums {
        let Counts { connects, closes, fails, accepts, listens, .. } = *counts;
        let events = [
            ("connect", connects),
            ("close", closes),
            ("fail", fails),
            ("accept", accepts),
            ("listen", listens),
        ];
        for (event, count) in events {
            let labels = [("provider", *provider), ("class", *class), ("event", event)];
            sample(&mut out, "rano_events_total", &labels, count);
        }
    }
    head(&mut out, "rano_traffic_bytes", "counter", "Bytes of connections that ended.");
    for ((provider, class), counts) in &sums {
        for (direction, bytes) in [("sent", counts.bytes_sent), ("received", counts.bytes_received)] {
            let labels = [("provider", *provider), ("class", *class), ("direction", direction)];
            sample(&mut out, "rano_traffic_bytes_total", &labels, bytes);
        }
    }
    let (active, alerts) = session.map_or((0, 0), |session| (session.active, session.alerts));
    head(&mut out, "rano_active", "gauge", "Connections without a close.");
    sample(&mut out, "rano_active", &[], if is_running { active } else { 0 });
    head(&mut out, "rano_alerts", "counter", "Alerts of the session.");
    sample(&mut out, "rano_alerts_total", &[], alerts);
    head(&mut out, "rano_gap", "counter", "What may be missing, by reason.");
    let missed = gaps(session.map_or(&[][..], std::slice::from_ref));
    for gap in Gap::ALL {
        sample(&mut out, "rano_gap_total", &[("gap", gap.name())], missed.get(gap));
    }
    head(&mut out, "rano_running", "gauge", "Whether the session goes on.");
    sample(&mut out, "rano_running", &[], u64::from(is_running));
    out.push_str("# EOF\n");
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let unit = if name.ends_with("_bytes") { format!("# UNIT {name} bytes\n") } else { String::new() };
    write!(out, "# TYPE {name} {kind}\n{unit}# HELP {name} {help}\n")
        .expect("writing into a String cannot fail");
}

fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", label(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    writeln!(out, "{name}{labels} {value}").expect("writing into a String cannot fail");
}

/// A label's value: quotes, backslashes and line ends are escaped.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

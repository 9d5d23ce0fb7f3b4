//! What is worth a look at the end of an observation, by the rules of `attention.rs`. One row an endpoint and agent.

use std::collections::BTreeMap;

use unicode_width::UnicodeWidthStr as _;

use super::escape::fit;
use super::human::{ShortSize, Size};
use super::line::shorten;
use crate::attention::{Cause, Facts, causes, gravity};
use crate::event::{Address, Bytes, Class, Protocol};
use crate::totals::EndpointTally;

/// Columns that where to and who may take at least.
const LEAST: usize = 16;

/// An endpoint, with everything that goes by its name.
#[derive(Debug, Clone)]
struct Row {
    end: String,
    who: String,
    bytes: Bytes,
    class: Class,
    connects: u64,
    fails: u64,
    alert: bool,
    is_new: bool,
    most: u64,
    causes: Vec<Cause>,
}

impl Row {
    fn of(tally: &EndpointTally) -> Self {
        Self {
            end: end(tally),
            who: who(tally),
            bytes: tally.bytes,
            class: tally.class,
            connects: tally.connects,
            fails: tally.fails,
            alert: tally.alert,
            is_new: tally.is_new,
            most: tally.bytes.sent,
            causes: Vec::new(),
        }
    }

    fn add(&mut self, other: Self) {
        self.bytes.sent = self.bytes.sent.saturating_add(other.bytes.sent);
        self.bytes.received = self.bytes.received.saturating_add(other.bytes.received);
        self.connects += other.connects;
        self.fails += other.fails;
        self.alert |= other.alert;
        self.is_new &= other.is_new;
        if other.most > self.most {
            (self.who, self.most) = (other.who, other.most);
        }
    }

    fn facts(&self) -> Facts {
        Facts {
            class: self.class,
            is_new: self.is_new,
            is_alerted: self.alert,
            connects: self.connects,
            fails: self.fails,
            bytes_sent: self.bytes.sent,
        }
    }
}

fn end(tally: &EndpointTally) -> String {
    let port = match (&tally.remote, tally.domain_port) {
        (_, Some(port)) => format!(":{port}"),
        (Address::Ip(remote), None) => format!(":{}", remote.port()),
        (Address::Host(_) | Address::Path(_), None) => String::new(),
    };
    let end = tally
        .name
        .as_ref()
        .map_or_else(|| tally.remote.to_string(), |known| format!("{}{port}", known.shown()));
    match tally.protocol {
        Protocol::Tcp | Protocol::Unix => end,
        other => format!("{end}/{}", other.name()),
    }
}

fn who(tally: &EndpointTally) -> String {
    let program = tally.process.as_ref().map(|process| (&process.program, process.id));
    match (&tally.agent, program) {
        (Some((agent, agent_id)), Some((program, id))) if *agent_id != id => {
            format!("{agent}({})›{program}({})", agent_id.pid, id.pid)
        }
        (Some((agent, agent_id)), _) => format!("{agent}({})", agent_id.pid),
        (None, Some((program, id))) => format!("{program}({})", id.pid),
        (None, None) => "unknown".to_owned(),
    }
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    Everything,
    /// A person who asked for some events only is told of alerts and of what is new all the same.
    Worst,
}

/// Lines of at most `width` columns, and how many rows there would be; the first `top` are shown, the worst first.
pub fn lines<'a>(
    endpoints: impl Iterator<Item = &'a EndpointTally>,
    concern: Concern,
    top: usize,
    width: usize,
) -> (Vec<String>, usize) {
    let mut rows: BTreeMap<(String, Option<String>), Row> = BTreeMap::new();
    for tally in endpoints {
        // Whom this machine asks for names is of no interest, unless there was an alert.
        if tally.class == Class::Dns && !tally.alert {
            continue;
        }
        let row = Row::of(tally);
        let agent = tally.agent.as_ref().map(|(agent, _)| agent.to_string());
        match rows.get_mut(&(row.end.clone(), agent.clone())) {
            Some(known) => known.add(row),
            None => drop(rows.insert((row.end.clone(), agent), row)),
        }
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    for row in &mut rows {
        row.causes = causes(&row.facts());
    }
    let counts = |cause: &Cause| concern == Concern::Everything || matches!(cause, Cause::Alert | Cause::New);
    rows.retain(|row| row.causes.iter().any(counts));
    rows.sort_by(|a, b| {
        let order = gravity(&b.causes, &b.facts()).cmp(&gravity(&a.causes, &a.facts()));
        order.then_with(|| a.end.cmp(&b.end))
    });
    let all = rows.len();
    rows.truncate(top);
    (table(&rows, width), all)
}

/// Where to, sent, who, why: in columns, of which the first gives way from its beginning, which says least.
fn table(rows: &[Row], width: usize) -> Vec<String> {
    let cells: Vec<[String; 4]> = rows
        .iter()
        .map(|row| {
            let sent = match row.bytes {
                Bytes { sent: 0, received: 0 } => String::new(),
                Bytes { sent, received } if width < 100 => {
                    format!("↑{} ↓{}", ShortSize(sent), ShortSize(received))
                }
                Bytes { sent, received } => format!("↑{} ↓{}", Size(sent), Size(received)),
            };
            let why: Vec<&str> = row.causes.iter().map(|cause| cause.words()).collect();
            [fit(&row.end, usize::MAX), fit(&row.who, usize::MAX), sent, why.join(", ")]
        })
        .collect();
    let widest = |at: usize| cells.iter().map(|row| row[at].width()).max().unwrap_or(0);
    let mut widths = [widest(0), widest(1), widest(2), widest(3)];
    let gaps = 6;
    for at in [0, 1] {
        let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
        widths[at] = widths[at].saturating_sub(excess).max(LEAST.min(widths[at]));
    }
    let pad = |text: &str, width: usize| format!("{text}{}", " ".repeat(width.saturating_sub(text.width())));
    cells
        .iter()
        .map(|[end, who, sent, why]| {
            let end = pad(&shorten(end, widths[0]), widths[0]);
            let who = pad(&super::escape::cut(who, widths[1]), widths[1]);
            format!("{end}  {who}  {}  {why}", pad(sent, widths[2])).trim_end().to_owned()
        })
        .collect()
}

/// Failures by reason and endpoint, the most frequent first: `12 ECONNREFUSED  192.0.2.1:22`. And how many there are.
pub fn failures<'a>(endpoints: impl Iterator<Item = &'a EndpointTally>, top: usize) -> (Vec<String>, usize) {
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    for tally in endpoints.filter(|tally| tally.fails > 0) {
        let error = tally.error.map_or_else(
            || "unknown".to_owned(),
            |errno| crate::errno::name(errno).map_or_else(|| format!("errno {errno}"), str::to_owned),
        );
        *counts.entry((error, end(tally))).or_default() += tally.fails;
    }
    let mut rows: Vec<((String, String), u64)> = counts.into_iter().collect();
    rows.sort_by(|(a_key, a), (b_key, b)| b.cmp(a).then_with(|| a_key.cmp(b_key)));
    let all = rows.len();
    let lines = rows.iter().take(top);
    (lines.map(|((error, end), count)| format!("{count} {error}  {}", fit(end, usize::MAX))).collect(), all)
}

//! The summary at the end of an observation: sums, rankings, and what may be missing.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::event::{Bytes, Class};
use crate::output::escape::{Escaped, Line};
use crate::output::human::Size;
use crate::output::json;
use crate::output::notable::{self, Concern};
use crate::output::style::Styles;
use crate::summary::Summary;
use crate::totals::{ClassTotals, Strays};
use crate::update::Hidden;

/// What the bytes of open connections are, after the sums.
fn so_far(open: u64, uncounted: u64) -> String {
    match (open, uncounted) {
        (0, _) => String::new(),
        (open, 0) => format!("   ({open} still open, bytes so far)"),
        (open, uncounted) => format!("   ({open} still open, bytes so far; of {uncounted} not known)"),
    }
}

/// A heading and its lines, if there are any.
fn list(out: &mut String, styles: &Styles, title: &str, lines: &[String], all: usize) -> std::fmt::Result {
    let heading = styles.heading;
    if !lines.is_empty() {
        writeln!(out, "  {heading}{title}{heading:#}")?;
    }
    for line in lines {
        writeln!(out, "    {line}")?;
    }
    if !lines.is_empty() && all > lines.len() {
        writeln!(out, "    … and {} more", all - lines.len())?;
    }
    Ok(())
}

/// What the connections were that only their end revealed; `None` if there was none.
fn strays(strays: &Strays) -> Option<String> {
    let Strays { look_ups, tcp, udp, failed, bytes, .. } = strays;
    let word = |count: u64, one: &str, many: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{count} {many}")),
    };
    let arrow = |arrow, bytes: u64| (bytes > 0).then(|| format!(" {arrow}{}", Size(bytes)));
    let carried =
        [arrow('↑', bytes.sent), arrow('↓', bytes.received)].into_iter().flatten().collect::<String>();
    let kinds = [
        word(*look_ups, "look-up", "look-ups"),
        word(*tcp, "tcp", "tcp").map(|tcp| tcp + &carried),
        word(*udp, "udp", "udp"),
        word(*failed, "failed", "failed"),
    ];
    let kinds: Vec<String> = kinds.into_iter().flatten().collect();
    let largest = strays.largest.as_ref().filter(|_| *tcp > 1);
    let largest = largest.map(|(remote, _)| format!("; largest {}", Escaped(&remote.to_string())));
    let all = strays.total();
    (all > 0).then(|| format!("{all} not attributed: {}{}", kinds.join(", "), largest.unwrap_or_default()))
}

/// The same in JSON.
#[derive(Serialize)]
struct StraysJson {
    look_ups: u64,
    tcp: u64,
    udp: u64,
    failed: u64,
    bytes_sent: u64,
    bytes_recv: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    largest: Option<String>,
}

impl StraysJson {
    fn of(strays: &Strays) -> Option<Self> {
        let Strays { look_ups, tcp, udp, failed, bytes, largest } = strays;
        let largest = largest.as_ref().map(|(remote, _)| remote.to_string());
        (strays.total() > 0).then_some(Self {
            look_ups: *look_ups,
            tcp: *tcp,
            udp: *udp,
            failed: *failed,
            bytes_sent: bytes.sent,
            bytes_recv: bytes.received,
            largest,
        })
    }
}

impl Summary {
    /// Text as the terminal and pretty logs show it. `hidden`: what `--filter` kept back there, of all that is summed
    /// up here. Tables are at most `width` columns wide where what they say allows.
    pub fn render(&self, styles: &Styles, hidden: Option<&Hidden>, width: usize) -> String {
        let mut text = String::new();
        self.write(&mut text, styles, hidden, width).expect("writing into a String cannot fail");
        text
    }

    fn write(
        &self,
        out: &mut String,
        styles: &Styles,
        hidden: Option<&Hidden>,
        width: usize,
    ) -> std::fmt::Result {
        let totals = &self.totals;
        let heading = styles.heading;
        writeln!(out, "{heading}Summary{heading:#}")?;
        writeln!(out, "  connects {}", totals.connects)?;
        writeln!(out, "  closes   {}", totals.closes)?;
        if totals.fails > 0 {
            writeln!(out, "  fails    {}", totals.fails)?;
        }
        if totals.accepts > 0 {
            writeln!(out, "  accepts  {}", totals.accepts)?;
        }
        if totals.listens > 0 {
            writeln!(out, "  listens  {}", totals.listens)?;
        }
        writeln!(out, "  active   {} (peak {})", totals.active, totals.peak)?;
        if let Some(Hidden { filter, events }) = hidden {
            writeln!(out, "  hidden   {events} events, not {}", Line(filter))?;
        }
        match (totals.alerts, totals.alerts_held_back) {
            (0, _) => {}
            (alerts, 0) => writeln!(out, "  alerts   {alerts}")?,
            (alerts, held_back) => writeln!(out, "  alerts   {alerts} ({held_back} more held back)")?,
        }
        let so_far = so_far(totals.active, totals.uncounted);
        let (sent, received) = (Size(totals.bytes.sent), Size(totals.bytes.received));
        writeln!(out, "  sent     {sent}   received {received}{so_far}")?;
        if totals.loopback != Bytes::default() {
            let Bytes { sent, received } = totals.loopback;
            writeln!(out, "  loopback {}   received {}", Size(sent), Size(received))?;
        }
        if let Some(ClassTotals { connects, bytes }) =
            totals.classes.get(&Class::Dns).filter(|dns| dns.connects > 0)
        {
            writeln!(
                out,
                "  look-ups {connects}   sent {}   received {}",
                Size(bytes.sent),
                Size(bytes.received)
            )?;
        }
        if let Some(strays) = strays(&totals.strays) {
            writeln!(out, "  {strays}")?;
        }
        if !self.excludes.is_empty() {
            let excludes = self.excludes.join(", ");
            writeln!(out, "  left out {} (excluded: {})", totals.left_out, Escaped(&excludes))?;
        }
        if !totals.providers.is_empty() {
            writeln!(out, "  {heading}Providers{heading:#}")?;
            let mut providers: Vec<_> = totals.providers.iter().collect();
            providers.sort_by(|(a_name, a), (b_name, b)| b.cmp(a).then_with(|| a_name.cmp(b_name)));
            for (provider, count) in providers {
                writeln!(out, "    {count} {}", Escaped(provider))?;
            }
        }
        let concern = if hidden.is_some() { Concern::Worst } else { Concern::Everything };
        let (notable, all) =
            notable::lines(totals.endpoints.all(), concern, self.top, width.saturating_sub(4));
        list(out, styles, "Look at these", &notable, all)?;
        self.top_domains(out, styles)?;
        self.top_ips(out, styles)?;
        self.endpoints(out, styles)?;
        let (failures, all) = notable::failures(totals.endpoints.all(), self.top);
        list(out, styles, "Failures", &failures, all)?;
        self.completeness(out, styles)
    }

    fn top_ips(&self, out: &mut String, styles: &Styles) -> std::fmt::Result {
        let ranking = &self.totals.remote_ips;
        if ranking.is_empty() || self.top == 0 {
            return Ok(());
        }
        let heading = styles.heading;
        writeln!(out, "  {heading}Top IPs{heading:#}")?;
        for (ip, count) in ranking.top(self.top) {
            writeln!(out, "    {count} {ip}")?;
        }
        let hidden = ranking.len().saturating_sub(self.top);
        if hidden > 0 {
            writeln!(out, "    … and {hidden} more")?;
        }
        Ok(())
    }

    fn top_domains(&self, out: &mut String, styles: &Styles) -> std::fmt::Result {
        let ranking = &self.totals.domains;
        if ranking.is_empty() || self.top == 0 {
            return Ok(());
        }
        let heading = styles.heading;
        writeln!(out, "  {heading}Top Domains{heading:#}")?;
        for (name, count) in ranking.top(self.top) {
            writeln!(out, "    {count} {}", Escaped(&name))?;
        }
        let hidden = ranking.len().saturating_sub(self.top);
        if hidden > 0 {
            writeln!(out, "    … and {hidden} more")?;
        }
        Ok(())
    }

    fn endpoints(&self, out: &mut String, styles: &Styles) -> std::fmt::Result {
        let is_empty = |class: &ClassTotals| class.connects == 0 && class.bytes == Bytes::default();
        let mut classes: Vec<_> =
            self.totals.classes.iter().filter(|(_, totals)| !is_empty(totals)).collect();
        if classes.is_empty() {
            return Ok(());
        }
        classes.sort_by_key(|(class, totals)| (Reverse(totals.connects), **class));
        let heading = styles.heading;
        writeln!(out, "  {heading}Endpoints{heading:#}")?;
        let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
        let counts = widest(&mut classes.iter().map(|(_, totals)| totals.connects.to_string().len()));
        let names = widest(&mut classes.iter().map(|(class, _)| class.name().len()));
        let sizes = classes.iter().flat_map(|(_, totals)| [totals.bytes.sent, totals.bytes.received]);
        let sizes = widest(&mut sizes.map(|size| Size(size).to_string().len()));
        for (class, ClassTotals { connects, bytes }) in classes {
            let (sent, received) = (Size(bytes.sent).to_string(), Size(bytes.received).to_string());
            let paint = styles.class(*class);
            let padding = " ".repeat(names - class.name().len());
            writeln!(
                out,
                "    {connects:>counts$} {paint}{}{paint:#}{padding}   sent {sent:>sizes$}   received {received:>sizes$}",
                class.name()
            )?;
        }
        Ok(())
    }

    fn completeness(&self, out: &mut String, styles: &Styles) -> std::fmt::Result {
        let heading = styles.heading;
        writeln!(out, "  {heading}Completeness{heading:#}")?;
        match &self.health.reason {
            Some(reason) => writeln!(out, "    source {} ({})", self.health.kind.name(), Escaped(reason))?,
            None => writeln!(out, "    source {}", self.health.kind.name())?,
        }
        writeln!(out, "    names {}", Escaped(&self.names))?;
        let mut complete = true;
        let warning = styles.warning;
        for (gap, count) in self.health.gaps.present() {
            complete = false;
            writeln!(out, "    {warning}{count}{warning:#} {}", gap.meaning())?;
        }
        for (bound, count) in self.health.bounds.present() {
            complete &= !bound.is_gap();
            let paint = if bound.is_gap() { warning } else { styles.dim };
            writeln!(out, "    {paint}{count}{paint:#} {}", bound.meaning())?;
        }
        if self.log_lost > 0 {
            complete = false;
            writeln!(
                out,
                "    {warning}{}{warning:#} log lost: lines that could not be written to a log file",
                self.log_lost
            )?;
        }
        if let Some(path) = &self.history_moved {
            complete = false;
            let path = path.display().to_string();
            writeln!(out, "    {warning}history{warning:#} goes on in {}", Escaped(&path))?;
        }
        if !self.has_watched {
            writeln!(out, "    {warning}no process ever matched{warning:#}")?;
        } else if complete {
            writeln!(out, "    nothing missed ({})", Escaped(&self.health.watched.to_string()))?;
        }
        self.seal(out)
    }

    /// What to keep elsewhere, so that `rano verify` can tell whether the history was changed.
    fn seal(&self, out: &mut String) -> std::fmt::Result {
        match &self.seal_head {
            Some(head) => writeln!(out, "    sealed: {head}"),
            None => Ok(()),
        }
    }

    /// One JSON object, for JSON logs.
    pub fn json(&self, run_id: &str) -> String {
        #[derive(Serialize)]
        struct SummaryJson<'a> {
            v: u32,
            r#type: &'static str,
            run_id: &'a str,
            connects: u64,
            closes: u64,
            fails: u64,
            accepts: u64,
            listens: u64,
            active: u64,
            active_uncounted: u64,
            peak_active: u64,
            alerts: u64,
            alerts_held_back: u64,
            excludes: &'a [String],
            excluded_processes: u64,
            excluded_connections: u64,
            bytes_sent: u64,
            bytes_recv: u64,
            loopback_sent: u64,
            loopback_recv: u64,
            providers: &'a BTreeMap<std::sync::Arc<str>, u64>,
            endpoints: BTreeMap<&'static str, EndpointJson>,
            source: &'static str,
            source_reason: Option<&'a str>,
            names: &'a str,
            matched: bool,
            transports: &'a [&'static str],
            views: &'a [String],
            #[serde(skip_serializing_if = "Option::is_none")]
            history_moved: Option<std::borrow::Cow<'a, str>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            seal_head: Option<&'a str>,
            missed: BTreeMap<&'static str, u64>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            bounds: BTreeMap<&'static str, u64>,
            #[serde(skip_serializing_if = "Option::is_none")]
            not_attributed: Option<StraysJson>,
        }
        #[derive(Serialize)]
        struct EndpointJson {
            connects: u64,
            bytes_sent: u64,
            bytes_recv: u64,
        }
        let endpoint = |totals: &ClassTotals| EndpointJson {
            connects: totals.connects,
            bytes_sent: totals.bytes.sent,
            bytes_recv: totals.bytes.received,
        };
        let totals = &self.totals;
        json::text(&SummaryJson {
            v: crate::output::event_json::VERSION,
            r#type: "summary",
            run_id,
            connects: totals.connects,
            closes: totals.closes,
            fails: totals.fails,
            accepts: totals.accepts,
            listens: totals.listens,
            active: totals.active,
            active_uncounted: totals.uncounted,
            peak_active: totals.peak,
            alerts: totals.alerts,
            alerts_held_back: totals.alerts_held_back,
            excludes: &self.excludes,
            excluded_processes: totals.left_out.processes,
            excluded_connections: totals.left_out.connections,
            bytes_sent: totals.bytes.sent,
            bytes_recv: totals.bytes.received,
            loopback_sent: totals.loopback.sent,
            loopback_recv: totals.loopback.received,
            providers: &totals.providers,
            endpoints: totals.classes.iter().map(|(class, sums)| (class.name(), endpoint(sums))).collect(),
            source: self.health.kind.name(),
            source_reason: self.health.reason.as_deref(),
            names: &self.names,
            matched: self.has_watched,
            transports: &self.health.watched.transports,
            views: &self.health.watched.views,
            history_moved: self.history_moved.as_ref().map(|path| path.to_string_lossy()),
            seal_head: self.seal_head.as_deref(),
            missed: self
                .health
                .gaps
                .present()
                .map(|(gap, count)| (gap.name(), count))
                .chain((self.log_lost > 0).then_some(("log_lost", self.log_lost)))
                .collect(),
            bounds: self.health.bounds.present().map(|(bound, count)| (bound.name(), count)).collect(),
            not_attributed: StraysJson::of(&totals.strays),
        })
    }
}

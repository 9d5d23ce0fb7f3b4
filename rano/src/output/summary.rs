//! The summary at the end of an observation: sums, rankings, and what may be missing.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::event::{Bytes, Class};
use crate::output::escape::{Escaped, Line};
use crate::output::human::Size;
use crate::output::json;
use crate::output::style::Styles;
use crate::summary::Summary;
use crate::totals::ClassTotals;
use crate::update::Hidden;

/// What the bytes of open connections are, after the sums.
fn so_far(open: u64, uncounted: u64) -> String {
    match (open, uncounted) {
        (0, _) => String::new(),
        (open, 0) => format!("   ({open} still open, bytes so far)"),
        (open, uncounted) => format!("   ({open} still open, bytes so far; of {uncounted} not known)"),
    }
}

impl Summary {
    /// Text as the terminal and pretty logs show it. `hidden`: what `--filter` kept back there, of all that is summed
    /// up here.
    pub fn render(&self, styles: &Styles, hidden: Option<&Hidden>) -> String {
        let mut text = String::new();
        self.write(&mut text, styles, hidden).expect("writing into a String cannot fail");
        text
    }

    fn write(&self, out: &mut String, styles: &Styles, hidden: Option<&Hidden>) -> std::fmt::Result {
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
        self.top_domains(out, styles)?;
        self.top_ips(out, styles)?;
        self.endpoints(out, styles)?;
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
        for (class, ClassTotals { connects, bytes }) in classes {
            let (sent, received) = (Size(bytes.sent), Size(bytes.received));
            writeln!(out, "    {connects} {}   sent {sent}   received {received}", class.name())?;
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
        })
    }
}

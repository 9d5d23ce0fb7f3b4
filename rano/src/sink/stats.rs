//! Live stats: rolling state only, so that their cost does not grow with history.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashSet;
use unicode_width::UnicodeWidthStr as _;

use crate::event::{Address, Domain, Event, EventKind, Moment};
use crate::output::escape::fit;
use crate::output::style::Styles;
use crate::totals::Totals;

/// How the block looks and how often it is made.
#[derive(Debug, Clone, Copy)]
pub struct StatsSettings {
    pub interval: Duration,
    /// Columns of a bar.
    pub width: usize,
    /// Most lines of a view.
    pub top: usize,
}

/// The state behind the block.
pub struct LiveStats {
    settings: StatsSettings,
    next: Option<Moment>,
    providers: BTreeMap<Arc<str>, ProviderStats>,
    closes: u64,
    duration_sum: Duration,
}

#[derive(Default)]
struct ProviderStats {
    connects: u64,
    domains: Distinct<Arc<str>>,
    ips: Distinct<IpAddr>,
}

impl LiveStats {
    pub fn new(settings: StatsSettings) -> Self {
        Self { settings, next: None, providers: BTreeMap::new(), closes: 0, duration_sum: Duration::ZERO }
    }

    pub fn event(&mut self, event: &Event) {
        match event.kind {
            EventKind::Connect => {
                let stats = self.providers.entry(Arc::clone(&event.provider)).or_default();
                stats.connects += 1;
                if let Some(ip) = event.remote.as_ref().and_then(Address::ip_addr) {
                    stats.ips.add(ip);
                }
                if let Domain::Observed { name, .. } = &event.domain {
                    stats.domains.add(Arc::clone(name));
                }
            }
            EventKind::Close => {
                if let Some(duration) = event.duration {
                    self.closes += 1;
                    self.duration_sum += duration;
                }
            }
            EventKind::Fail | EventKind::Accept | EventKind::Listen => {}
        }
    }

    pub fn next_tick(&self) -> Moment {
        self.next.unwrap_or_default()
    }

    /// Whether the block is due; the next one is then due an interval later.
    pub fn due(&mut self, now: Moment) -> bool {
        let Some(next) = self.next else {
            self.schedule(now);
            return false;
        };
        let due = now.boot_ns >= next.boot_ns;
        if due {
            self.schedule(now);
        }
        due
    }

    fn schedule(&mut self, now: Moment) {
        let interval = u64::try_from(self.settings.interval.as_nanos()).unwrap_or(u64::MAX);
        self.next = Some(Moment { boot_ns: now.boot_ns.saturating_add(interval), unix_ms: now.unix_ms });
    }

    /// The lines of the provider view, none wider than `columns`.
    pub fn render(&self, totals: &Totals, columns: usize, styles: &Styles) -> Vec<String> {
        let heading = styles.heading;
        let mut lines = vec![format!("{heading}Live Stats [provider]{heading:#}")];
        let mut providers: Vec<_> = self.providers.iter().collect();
        providers
            .sort_by(|(a_name, a), (b_name, b)| b.connects.cmp(&a.connects).then_with(|| a_name.cmp(b_name)));
        let most = providers.first().map_or(0, |(_, stats)| stats.connects);
        let shown = &providers[..providers.len().min(self.settings.top)];
        let names: Vec<String> = shown.iter().map(|(name, _)| fit(name, 24)).collect();
        let name_width = names.iter().map(|name| name.width()).max().unwrap_or(0);
        for (name, (_, stats)) in names.iter().zip(shown) {
            let counts =
                format!("{} (domains={}, ips={})", stats.connects, stats.domains.count(), stats.ips.count());
            let padding = name_width - name.width();
            let room = columns.saturating_sub(name_width + counts.width() + 2);
            let bar = bar(stats.connects, most, self.settings.width.min(room));
            let paint = styles.provider;
            lines.push(format!("{paint}{name}{paint:#}{:padding$} {bar} {counts}", ""));
        }
        let hidden = providers.len() - shown.len();
        if hidden > 0 {
            lines.push(format!("… and {hidden} more"));
        }
        let average = self.duration_sum.as_millis() / u128::from(self.closes.max(1));
        lines.push(format!("active={} peak={} avg_dur={average}ms", totals.active, totals.peak));
        lines
    }
}

/// `███░`: `width` columns, of which `value / most` are full; a value above zero shows at least one.
fn bar(value: u64, most: u64, width: usize) -> String {
    let width_wide = width as u128;
    let filled = (u128::from(value) * width_wide).div_ceil(u128::from(most.max(1))).min(width_wide);
    let filled = usize::try_from(filled).unwrap_or(width);
    "█".repeat(filled) + &"░".repeat(width - filled)
}

/// How many different values there were, up to a bound above which it says `4096+`.
struct Distinct<K>(FxHashSet<K>);

impl<K> Default for Distinct<K> {
    fn default() -> Self {
        Self(FxHashSet::default())
    }
}

impl<K: Eq + std::hash::Hash> Distinct<K> {
    const MAX: usize = 4096;

    fn add(&mut self, key: K) {
        if self.0.len() < Self::MAX {
            self.0.insert(key);
        }
    }

    fn count(&self) -> String {
        let more = if self.0.len() == Self::MAX { "+" } else { "" };
        format!("{}{more}", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_exactly_as_wide_as_asked_and_show_the_smallest_value() {
        assert_eq!(bar(3, 4, 4), "███░");
        assert_eq!(bar(0, 4, 4), "░░░░");
        assert_eq!(bar(1, 1_000_000, 4), "█░░░");
        assert_eq!(bar(u64::MAX, u64::MAX, 4), "████");
        assert_eq!(bar(1, 0, 0), "");
    }
}

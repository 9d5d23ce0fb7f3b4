//! Where names come from: what was asked for, what works here, and what is said where it is less.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::Run;
use crate::config::{DomainMode, EndpointEntry, Field, Settings};
use crate::names::accounts;
use crate::names::book::Book;
use crate::names::classes::Classes;
use crate::names::feed::Feed;
use crate::names::lookups::Lookups;
use crate::names::pcap;
use crate::names::pointers::{PointerSettings, Pointers};
use crate::names::resolver::{Resolver, ResolverFiles};
use crate::names::unknown::UnknownEndpoints;
use crate::pipeline::Names;
use crate::source::Source;
use crate::source::named::Named;

/// How much later than the look at which it is due a socket may be found.
const LOOK_TAKES: Duration = Duration::from_secs(2);
/// What packets tell of a connection comes with its first ones; only then is it asked for.
const PACKETS_TAKE: Duration = Duration::from_millis(400);

/// Who reads packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packets {
    Ebpf,
    Pcap,
    File(PathBuf),
    Nobody,
}

/// What was found out about the sources of names.
pub(super) struct NameSources {
    pub(super) packets: Packets,
    /// Names that are told from outside of the source of events.
    feed: Option<Feed>,
    /// Why it is not more, where nobody asked for it.
    reason: Option<String>,
    /// What works less well than was asked for.
    pub(super) warnings: Vec<String>,
}

impl NameSources {
    /// Whether the source of events is to tell names, too.
    pub(super) fn wants_ebpf(&self, settings: &Settings) -> bool {
        let by_mode = matches!(settings.domain_mode, DomainMode::Auto | DomainMode::Ebpf);
        by_mode && self.packets == Packets::Nobody && !settings.once
    }

    /// The source of events is eBPF, and tells names too, or does not for a reason.
    pub(super) fn ebpf(&mut self, settings: &Settings, without: Option<&str>) {
        match without {
            None => self.packets = Packets::Ebpf,
            Some(why) => {
                self.reason = Some(format!("no names by eBPF: {why}"));
                self.not_ebpf(settings, why);
            }
        }
    }

    /// Names by eBPF cannot be had: the next best, if it was them that were asked for.
    pub(super) fn not_ebpf(&mut self, settings: &Settings, why: &str) {
        if settings.domain_mode != DomainMode::Ebpf {
            return;
        }
        self.reason = None;
        match pcap::open_live() {
            Ok(feed) => {
                self.warnings.push(format!("warning: no names by eBPF: {why}; taking them with libpcap"));
                (self.packets, self.feed) = (Packets::Pcap, Some(feed));
            }
            Err(error) => self.warnings.push(format!(
                "warning: no names by eBPF: {why}; nor with libpcap: {error:#}; {}",
                what_is_left(settings)
            )),
        }
    }

    /// The source with the names that others tell.
    pub(super) fn around(&mut self, source: Box<dyn Source>) -> Box<dyn Source> {
        match self.feed.take() {
            Some(feed) => Box::new(Named::new(source, feed)),
            None => source,
        }
    }
}

fn what_is_left(settings: &Settings) -> &'static str {
    if settings.dns { "names come from reverse look-ups" } else { "there are no names" }
}

impl Run<'_> {
    /// Before the source of events is opened, which may give up the privileges that it takes.
    pub(super) fn name_sources(&self) -> Result<NameSources> {
        let settings = self.settings;
        let mut sources =
            NameSources { packets: Packets::Nobody, feed: None, reason: None, warnings: Vec::new() };
        if let Some(path) = &settings.pcap_file {
            let named_by = self.named_by(Field::pcap_file);
            let feed = pcap::open_file(path, self.files, named_by)
                .map_err(|error| self.cannot_read("capture file", path, named_by, error))?;
            (sources.packets, sources.feed) = (Packets::File(path.clone()), Some(feed));
        } else if settings.domain_mode == DomainMode::Pcap && !settings.once && settings.replay.is_none() {
            match pcap::open_live() {
                Ok(feed) => (sources.packets, sources.feed) = (Packets::Pcap, Some(feed)),
                Err(error) => sources
                    .warnings
                    .push(format!("warning: no names with libpcap: {error:#}; {}", what_is_left(settings))),
            }
        }
        Ok(sources)
    }

    /// What the pipeline makes of names.
    pub(super) fn names(&self, sources: &mut NameSources) -> Names {
        let settings = self.settings;
        let hold = Duration::from_millis(settings.interval_ms).saturating_add(LOOK_TAKES);
        let told = settings.replay.is_some() || sources.packets != Packets::Nobody;
        let pointers = self.pointers(sources);
        let entries: Vec<_> = self.configuration.endpoints.entries.iter().map(EndpointEntry::entry).collect();
        let precious = if settings.alerts { settings.alert_domain.clone() } else { Vec::new() };
        let lookups = Lookups::new(accounts::of_resolvers(Path::new(accounts::PASSWD)), precious);
        Names {
            book: if told { Book::new(hold).with_lookups(lookups) } else { Book::closed_for_good() },
            from: self.from(sources),
            pointers,
            classes: Classes::new(&entries),
            unknown: settings.alerts.then(UnknownEndpoints::default),
        }
    }

    fn pointers(&self, sources: &mut NameSources) -> Pointers {
        let settings = self.settings;
        if settings.replay.is_some() {
            return Pointers::recorded();
        }
        // A single look does not wait for answers.
        if !settings.dns || settings.once {
            return Pointers::none();
        }
        let patience = match sources.packets {
            Packets::Ebpf | Packets::Pcap => PACKETS_TAKE,
            Packets::File(_) | Packets::Nobody => Duration::ZERO,
        };
        match Resolver::new(ResolverFiles::default()) {
            Ok(resolver) => {
                Pointers::asking(resolver, PointerSettings { patience, private: settings.ptr_private })
            }
            Err(error) => {
                sources.warnings.push(format!("warning: no reverse look-ups: {error}"));
                Pointers::none()
            }
        }
    }

    /// In words, for the banner and the summary.
    fn from(&self, sources: &NameSources) -> String {
        let settings = self.settings;
        let asks = settings.dns && !settings.once && settings.replay.is_none();
        let packets = match &sources.packets {
            Packets::Ebpf => Some("ebpf".to_owned()),
            Packets::Pcap => Some("pcap".to_owned()),
            Packets::File(path) => Some(format!("capture file {}", path.display())),
            Packets::Nobody if settings.replay.is_some() => Some("recording".to_owned()),
            Packets::Nobody => None,
        };
        let from = match (packets, asks) {
            (Some(packets), true) => format!("{packets}, ptr where it tells none"),
            (Some(packets), false) => packets,
            (None, true) => "ptr".to_owned(),
            (None, false) if settings.once => "none: a single look does not wait for them".to_owned(),
            (None, false) => "none".to_owned(),
        };
        match &sources.reason {
            Some(reason) => format!("{from} ({reason})"),
            None => from,
        }
    }
}

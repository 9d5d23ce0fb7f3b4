//! Where names come from: what was asked for, what works here, and what is said where it is less.

use std::collections::HashMap;
use std::path::Path;
#[cfg(feature = "cli")]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::glob::Glob;
use crate::names::accounts;
#[cfg(feature = "cli")]
use crate::names::asking::{self, Asker};
use crate::names::book::Book;
use crate::names::classes::{ClassEntry, Classes};
#[cfg(feature = "cli")]
use crate::names::feed::Feed;
use crate::names::known::KnownNames;
use crate::names::lookups::Lookups;
#[cfg(feature = "cli")]
use crate::names::pcap;
use crate::names::pointers::{PointerSettings, Pointers};
use crate::names::resolver::{self, Resolver, ResolverFiles};
use crate::names::unknown::UnknownEndpoints;
use crate::pipeline::Names;
use crate::source::Source;
#[cfg(feature = "cli")]
use crate::source::named::Named;

/// Who is to read packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum NameMode {
    /// The source of events where it can, else nobody.
    #[default]
    Auto,
    /// Nobody.
    Reverse,
    /// As [`Self::Auto`], and a warning where it cannot.
    Ebpf,
    #[cfg(feature = "cli")]
    Pcap,
}

/// What is asked for.
#[derive(Default)]
pub(crate) struct NameSettings {
    pub(crate) mode: NameMode,
    /// Reverse look-ups are made.
    pub(crate) reverse: bool,
    /// For private addresses, too.
    pub(crate) private: bool,
    /// All that is known of names is in a recording.
    pub(crate) recorded: bool,
    /// A single look reads no packets,
    pub(crate) once: bool,
    /// and waits for reverse look-ups only if this is said.
    pub(crate) once_waits: bool,
    pub(crate) classes: Vec<ClassEntry>,
    /// Names that are kept before others.
    pub(crate) precious: Vec<Glob>,
    /// Unknown endpoints are told of.
    pub(crate) unknown: bool,
    /// What agents are known to use, by the agent's name.
    pub(crate) endpoints: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// Names out of a capture.
    #[cfg(feature = "cli")]
    pub(crate) capture: Option<(PathBuf, Feed)>,
}

/// How much later than the look at which it is due a socket may be found.
const LOOK_TAKES: Duration = Duration::from_secs(2);
/// What packets tell of a connection comes with its first ones; only then is it asked for.
const PACKETS_TAKE: Duration = Duration::from_millis(400);

/// Who reads packets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Packets {
    Ebpf,
    #[cfg(feature = "cli")]
    Pcap,
    #[cfg(feature = "cli")]
    File(PathBuf),
    /// Nobody, but the questions of what is watched are seen, and asked again.
    #[cfg(feature = "cli")]
    Asked,
    Nobody,
}

/// What was found out about the sources of names.
pub(super) struct NameSources<'a> {
    settings: &'a NameSettings,
    packets: Packets,
    /// Names that are told from outside of the source of events.
    #[cfg(feature = "cli")]
    feed: Option<Feed>,
    /// Why it is not more, where nobody asked for it.
    reason: Option<String>,
    /// What works less well than was asked for.
    pub(super) warnings: Vec<String>,
}

impl<'a> NameSources<'a> {
    /// Before the source of events is opened, which may give up the privileges that it takes.
    #[cfg_attr(not(feature = "cli"), expect(unused_mut, reason = "the command alone has feeds"))]
    pub(super) fn new(settings: &'a mut NameSettings) -> Self {
        #[cfg(feature = "cli")]
        let capture = settings.capture.take();
        let mut sources = Self {
            settings,
            packets: Packets::Nobody,
            #[cfg(feature = "cli")]
            feed: None,
            reason: None,
            warnings: Vec::new(),
        };
        #[cfg(feature = "cli")]
        if let Some((path, feed)) = capture {
            (sources.packets, sources.feed) = (Packets::File(path), Some(feed));
        } else if sources.settings.mode == NameMode::Pcap && !sources.settings.once {
            match pcap::open_live() {
                Ok(feed) => (sources.packets, sources.feed) = (Packets::Pcap, Some(feed)),
                Err(error) => {
                    let left = sources.what_is_left();
                    sources.warnings.push(format!("warning: no names with libpcap: {error:#}; {left}"));
                }
            }
        }
        sources
    }

    /// Whether the source of events is to tell names, too.
    pub(super) fn wants_ebpf(&self) -> bool {
        let by_mode = matches!(self.settings.mode, NameMode::Auto | NameMode::Ebpf);
        by_mode && self.packets == Packets::Nobody && !self.settings.once
    }

    /// The source of events is eBPF, and tells names too, or does not for a reason.
    pub(super) fn ebpf(&mut self, without: Option<&str>) {
        match without {
            None => self.packets = Packets::Ebpf,
            Some(why) => {
                self.reason = Some(format!("no names by eBPF: {why}"));
                self.not_ebpf(why);
            }
        }
    }

    /// Names by eBPF cannot be had: the next best, if it was them that were asked for.
    pub(super) fn not_ebpf(&mut self, why: &str) {
        if self.settings.mode != NameMode::Ebpf {
            return;
        }
        self.reason = None;
        #[cfg(feature = "cli")]
        match pcap::open_live() {
            Ok(feed) => {
                self.warnings.push(format!("warning: no names by eBPF: {why}; taking them with libpcap"));
                (self.packets, self.feed) = (Packets::Pcap, Some(feed));
            }
            Err(error) => {
                let left = self.what_is_left();
                self.warnings
                    .push(format!("warning: no names by eBPF: {why}; nor with libpcap: {error:#}; {left}"));
            }
        }
        #[cfg(not(feature = "cli"))]
        self.warnings.push(format!("warning: no names by eBPF: {why}; {}", self.what_is_left()));
    }

    /// The source of events sees what is looked up; who asks the same.
    #[cfg(feature = "cli")]
    pub(super) fn asking(&mut self) -> Option<Asker> {
        let wants = self.settings.mode != NameMode::Reverse && self.settings.reverse;
        if !wants || self.packets != Packets::Nobody {
            return None;
        }
        match asking::start() {
            Ok((feed, asker)) => {
                (self.packets, self.feed) = (Packets::Asked, Some(feed));
                Some(asker)
            }
            Err(error) => {
                self.warnings.push(format!("warning: the command's look-ups are not followed: {error:#}"));
                None
            }
        }
    }

    fn what_is_left(&self) -> &'static str {
        if self.settings.reverse { "names come from reverse look-ups" } else { "there are no names" }
    }

    /// The source with the names that others tell.
    #[cfg(feature = "cli")]
    pub(super) fn around(&mut self, source: Box<dyn Source>) -> Box<dyn Source> {
        match self.feed.take() {
            Some(feed) => Box::new(Named::new(source, feed)),
            None => source,
        }
    }

    /// The source: nobody else tells names.
    #[cfg(not(feature = "cli"))]
    #[expect(clippy::unused_self, reason = "the command has others")]
    pub(super) fn around(&mut self, source: Box<dyn Source>) -> Box<dyn Source> {
        source
    }

    /// What the pipeline makes of names. A socket may be found `interval` after its packets.
    pub(super) fn names(&mut self, interval: Duration) -> Names {
        let hold = interval.saturating_add(LOOK_TAKES);
        let told = self.settings.recorded || self.packets != Packets::Nobody;
        let pointers = self.pointers();
        let precious = self.settings.precious.clone();
        let lookups = Lookups::new(accounts::of_resolvers(Path::new(accounts::PASSWD)), precious);
        #[cfg(feature = "cli")]
        let lookups = if self.packets == Packets::Asked { lookups.asked() } else { lookups };
        Names {
            book: if told { Book::new(hold).with_lookups(lookups) } else { Book::closed_for_good() },
            from: self.from(),
            pointers,
            known: if self.asks_for_known() {
                KnownNames::asking(self.settings.endpoints.clone())
            } else {
                KnownNames::none()
            },
            classes: self.classes(),
            unknown: self.settings.unknown.then(UnknownEndpoints::default),
        }
    }

    /// Where packets are read, they say more.
    fn asks_for_known(&self) -> bool {
        let reads_none = match self.packets {
            Packets::Nobody => true,
            #[cfg(feature = "cli")]
            Packets::Asked => true,
            #[cfg(feature = "cli")]
            Packets::Pcap | Packets::File(_) => false,
            Packets::Ebpf => false,
        };
        reads_none && self.settings.reverse && !self.settings.once && !self.settings.recorded
    }

    /// What a recording's machine asked is not known.
    fn classes(&self) -> Classes {
        let classes = Classes::new(&self.settings.classes);
        if self.settings.recorded { classes } else { classes.with_resolvers(resolver::of_this_machine()) }
    }

    fn pointers(&mut self) -> Pointers {
        if self.settings.recorded {
            return Pointers::recorded();
        }
        if !self.asks() {
            return Pointers::none();
        }
        let patience = match self.packets {
            Packets::Ebpf => PACKETS_TAKE,
            #[cfg(feature = "cli")]
            Packets::Pcap | Packets::Asked => PACKETS_TAKE,
            #[cfg(feature = "cli")]
            Packets::File(_) => Duration::ZERO,
            Packets::Nobody => Duration::ZERO,
        };
        match Resolver::new(ResolverFiles::default()) {
            Ok(resolver) => {
                Pointers::asking(resolver, PointerSettings { patience, private: self.settings.private })
            }
            Err(error) => {
                self.warnings.push(format!("warning: no reverse look-ups: {error}"));
                Pointers::none()
            }
        }
    }

    /// Reverse look-ups. A single look may not wait for answers.
    fn asks(&self) -> bool {
        self.settings.reverse && (!self.settings.once || self.settings.once_waits)
    }

    /// In words, for the banner and the summary.
    fn from(&self) -> String {
        let asks = self.asks() && !self.settings.recorded;
        let packets = match &self.packets {
            Packets::Ebpf => Some("ebpf".to_owned()),
            #[cfg(feature = "cli")]
            Packets::Pcap => Some("pcap".to_owned()),
            #[cfg(feature = "cli")]
            Packets::File(path) => Some(format!("capture file {}", path.display())),
            #[cfg(feature = "cli")]
            Packets::Asked => Some("the command's own look-ups, asked again".to_owned()),
            Packets::Nobody => self.settings.recorded.then(|| "recording".to_owned()),
        };
        let from = match (packets, asks) {
            (Some(packets), true) => format!("{packets}, ptr where it tells none"),
            (Some(packets), false) => packets,
            (None, true) if self.settings.endpoints.is_empty() || self.settings.once => "ptr".to_owned(),
            (None, true) => "ptr, and the endpoints that agents are known to use (~)".to_owned(),
            (None, false) if self.settings.once && !self.settings.once_waits => {
                "none: a single look does not wait for them".to_owned()
            }
            (None, false) => "none".to_owned(),
        };
        match &self.reason {
            Some(reason) => format!("{from} ({reason})"),
            None => from,
        }
    }
}

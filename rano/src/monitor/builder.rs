//! What to observe, said before it begins.

use std::sync::Arc;
use std::time::Duration;

use super::Monitor;
use super::answer::Answer;
use super::error::Error;
use super::names::NameMode;
use super::setup::Setup;
use crate::event::Class;
use crate::event::Source;
use crate::names::classes::{Authority, ClassEntry};
use crate::process::agents;
use crate::process::matching::{Origin, Wanted};
use crate::process::provider::{ProviderEntry, Providers};

/// Events that wait for the slowest reader.
const CAPACITY: usize = 4096;
/// Shorter intervals would only cost.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Says what a [`Monitor`] is to observe. Without any pattern or pid it watches the agents that rano knows by name.
#[must_use = "an observation begins with start"]
pub struct Builder {
    pub(super) setup: Setup,
    pub(super) capacity: usize,
    providers: Vec<ProviderEntry>,
}

impl Default for Builder {
    fn default() -> Self {
        Self { setup: Setup::default(), capacity: CAPACITY, providers: Vec::new() }
    }
}

impl Builder {
    /// Watches processes in whose executable, name or command line this stands, whatever its case. May be said several
    /// times.
    pub fn pattern(mut self, pattern: impl Into<String>) -> Self {
        match &mut self.setup.targets.wanted {
            Wanted::Patterns(patterns) => patterns.push(pattern.into()),
            wanted @ Wanted::Agents(_) => *wanted = Wanted::Patterns(vec![pattern.into()]),
        }
        self
    }

    /// Watches this process, which may be the caller's own. Without any pattern, only what is said so is watched.
    pub fn pid(mut self, pid: u32) -> Self {
        self.setup.targets.pids.push(pid);
        self
    }

    /// Leaves out processes in whose executable, `argv[0]` or script this stands when they begin to run it, and what
    /// they start; after `cmd:` the command line counts.
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.setup.targets.exclude_patterns.push(pattern.into());
        self
    }

    /// Whether what a watched process starts is watched too. It is, unless this says otherwise.
    pub fn descendants(mut self, watched: bool) -> Self {
        self.setup.targets.descendants = watched;
        self
    }

    /// What tells of connections; [`Source::Auto`] unless this is said.
    pub fn source(mut self, source: Source) -> Self {
        self.setup.source = source;
        self
    }

    /// How often a polling source looks: a second unless this is said, 10 ms at least. The kernel's programs need no
    /// looks.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.setup.polling.interval = interval.max(INTERVAL_MIN);
        self
    }

    /// UDP beside TCP. It is, unless this says otherwise.
    pub fn udp(mut self, wanted: bool) -> Self {
        self.setup.scope.udp = wanted;
        self
    }

    /// Transports beside TCP and UDP: ICMP, raw and packet sockets, SCTP and the like. They are, unless this says
    /// otherwise.
    pub fn other(mut self, wanted: bool) -> Self {
        self.setup.scope.other = wanted;
        self
    }

    /// Listeners too, and what they accept.
    pub fn listening(mut self, wanted: bool) -> Self {
        self.setup.scope.listening = wanted;
        self
    }

    /// Unix sockets too.
    pub fn unix(mut self, wanted: bool) -> Self {
        self.setup.scope.unix = wanted;
        self
    }

    /// Connections too whose process is not known. They are counted in any case.
    pub fn unattributed(mut self, wanted: bool) -> Self {
        self.setup.scope.unattributed = wanted;
        self
    }

    /// Whether reverse look-ups are made for addresses whose name no packet told. They are, unless this says otherwise.
    pub fn reverse_lookups(mut self, wanted: bool) -> Self {
        self.setup.names.reverse = wanted;
        self
    }

    /// Whether names are looked for at all, in packets and by look-ups. They are, unless this says otherwise.
    pub fn names(mut self, wanted: bool) -> Self {
        self.setup.names.mode = if wanted { NameMode::Auto } else { NameMode::Reverse };
        self.setup.names.reverse = wanted;
        self
    }

    /// Names that belong to a class of endpoints: domains with all below them, or globs. They go before what rano
    /// knows.
    pub fn endpoints<T: Into<String>>(mut self, class: Class, names: impl IntoIterator<Item = T>) -> Self {
        let names = names.into_iter().map(Into::into).collect();
        self.setup.names.classes.push(ClassEntry { class, names, authority: Authority::User });
        self
    }

    /// A provider, and what stands in the names of processes that act for it. Beside those that rano knows.
    pub fn provider<T: Into<String>>(
        mut self,
        name: impl Into<String>,
        patterns: impl IntoIterator<Item = T>,
    ) -> Self {
        let patterns = patterns.into_iter().map(Into::into).collect();
        self.providers.push(ProviderEntry { name: name.into(), patterns, origin: Origin::User });
        self
    }

    /// How many events wait for the slowest reader, 4096 unless this is said; a power of two at least as large is used.
    /// What finds no room makes the oldest go, which that reader is told
    /// ([`ConnectionEvent::Missed`](crate::ConnectionEvent::Missed)).
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events;
        self
    }

    /// Leaves the privileges of the observing threads, and the limits of the process, as they are.
    ///
    /// Otherwise each thread that the monitor starts gives up what it does not need, once everything is open; the
    /// threads of the program itself keep theirs. One thing is the whole process's: to attach to the kernel, its limit
    /// of locked memory (`RLIMIT_MEMLOCK`) is raised, without which Linux up to 5.10 has no room for the programs'
    /// tables.
    pub fn keep_privileges(mut self) -> Self {
        self.setup.keep_privileges = true;
        self
    }

    /// Begins to observe, on a thread named `rano-monitor`. Answered when what is there already has been read: from
    /// then on nothing is overlooked that the source can see.
    pub fn start(mut self) -> Answer<Monitor> {
        let scope = self.setup.scope;
        self.setup.set_scope(scope);
        if !self.providers.is_empty() {
            let built_in = |(name, patterns)| ProviderEntry { name, patterns, origin: Origin::Builtin };
            let known = agents::built_in_providers().into_iter().map(built_in);
            let providers = std::mem::take(&mut self.providers);
            self.setup.providers = Providers::new(known.chain(providers)).with_agents(agents::built_in());
        }
        match Monitor::begin(self) {
            Ok(answer) => answer,
            Err(error) => Answer::ready(Err(Error::Start(Arc::new(error)))),
        }
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Setup { targets, source, scope, .. } = &self.setup;
        f.debug_struct("Builder")
            .field("targets", targets)
            .field("source", source)
            .field("scope", scope)
            .finish_non_exhaustive()
    }
}

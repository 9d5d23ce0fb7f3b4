//! How an observation is put together and run: by a [`Monitor`](super::Monitor) on a thread of its own, by the command
//! on its own thread, in the same way.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use rustix::thread::CapabilitySet;

use super::names::{NameSettings, NameSources};
use crate::alerts::{Judge, SeenEndpoints};
use crate::event::Source;
use crate::event::SourceKind;
use crate::health::SourceHealth;
use crate::names::known;
use crate::pipeline::{Names, Pipeline, Scope};
use crate::privileges;
use crate::process::agents;
use crate::process::matching::{Rules, Targets, Wanted};
use crate::process::provider::Providers;
use crate::process::redact::Redaction;
use crate::process::tree::Tree;
use crate::sink::Sink;
use crate::source;
use crate::source::ebpf::{EbpfSettings, EbpfSource};
use crate::source::proc::processes::ProcessScanner;
use crate::source::proc::{PROC, ProcSettings, ProcSource};
#[cfg(feature = "cli")]
use crate::source::replay::Replay;
#[cfg(feature = "cli")]
use crate::source::seccomp::SeccompSource;
#[cfg(feature = "cli")]
use crate::source::seccomp::child::{Child, Running};
use crate::stop::Stop;
use crate::summary::Summary;
use crate::totals::View;

/// How often a polling source looks.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes for notifications of ended sockets.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The library runs no commands.
#[cfg(not(feature = "cli"))]
type Running = std::convert::Infallible;

/// Everything that is asked for.
pub(crate) struct Setup {
    pub(crate) targets: Targets,
    pub(crate) providers: Providers,
    pub(crate) redaction: Redaction,
    pub(crate) scope: Scope,
    pub(crate) polling: ProcSettings,
    pub(crate) source: Source,
    /// Only this rung of the kernel's programs, for tests.
    pub(crate) rung: Option<SourceKind>,
    pub(crate) ring_bytes: u32,
    pub(crate) owners_max: u32,
    pub(crate) names: NameSettings,
    pub(crate) keep_privileges: bool,
    /// A command that is to be run, and what is known of the wish to end.
    #[cfg(feature = "cli")]
    pub(crate) command: Option<CommandSetup>,
    /// What is played instead of what happens.
    #[cfg(feature = "cli")]
    pub(crate) replay: Option<Replay>,
}

impl Default for Setup {
    fn default() -> Self {
        let mut setup = Self {
            targets: Targets::default(),
            providers: Providers::default(),
            redaction: Redaction::On,
            scope: Scope {
                udp: true,
                other: true,
                listening: false,
                unix: false,
                unattributed: false,
                pending: false,
            },
            polling: ProcSettings {
                interval: INTERVAL,
                udp: true,
                other: true,
                listening: false,
                unix: false,
                unattributed: false,
                only_unix: false,
                once: false,
                every_end: false,
                receive_buffer: RECEIVE_BUFFER,
            },
            source: Source::Auto,
            rung: None,
            ring_bytes: 0,
            owners_max: 0,
            names: NameSettings { reverse: true, ..NameSettings::default() },
            keep_privileges: false,
            #[cfg(feature = "cli")]
            command: None,
            #[cfg(feature = "cli")]
            replay: None,
        };
        setup.set_scope(setup.scope);
        setup
    }
}

/// A command that is to be run under observation.
#[cfg(feature = "cli")]
pub(crate) struct CommandSetup {
    pub(crate) child: Child,
    /// Raised when it has ended, or if `waits` when all that it started has.
    pub(crate) stop: Stop,
    pub(crate) waits: bool,
}

/// Why an observation does not begin.
#[derive(Debug)]
pub(crate) enum NotOpened {
    /// The kernel's programs were asked for and nothing else.
    Ebpf(anyhow::Error),
    /// The calls of a command were asked for and nothing else.
    Seccomp(String),
    Other(anyhow::Error),
}

impl Setup {
    /// What is shown, and so what is looked for.
    pub(crate) fn set_scope(&mut self, scope: Scope) {
        self.scope = scope;
        let Scope { udp, other, listening, unix, unattributed, pending } = scope;
        let ProcSettings { interval, only_unix, receive_buffer, every_end, .. } = self.polling;
        self.polling = ProcSettings {
            interval,
            udp,
            other,
            listening,
            unix,
            unattributed,
            only_unix,
            once: pending,
            every_end,
            receive_buffer,
        };
    }

    /// A process that was asked for and is not there.
    pub(super) fn missing_pid(&self) -> Result<Option<u32>> {
        let processes = ProcessScanner::new(Path::new(PROC))?;
        let mut pids = self.targets.pids.iter().copied();
        Ok(pids.find(|&pid| processes.identify(pid).is_none()))
    }

    /// Who is watched. This process, and those above it, only if they are asked for by pid.
    pub(crate) fn rules(&self) -> Result<Rules> {
        let mut never = ProcessScanner::new(Path::new(PROC))?.self_and_ancestors();
        never.retain(|process| !self.targets.pids.contains(&process.pid));
        Ok(Rules::new(self.targets.clone(), never))
    }

    /// Opens the source. Its privileges are given up when it is run.
    pub(crate) fn open(mut self, rules: Rules) -> Result<Opened, NotOpened> {
        let mut settings = std::mem::take(&mut self.names);
        settings.endpoints = match &self.targets.wanted {
            Wanted::Agents(roster) => known::by_agent(roster.agents()),
            Wanted::Patterns(_) => known::by_agent(&agents::built_in()),
        };
        let mut names = NameSources::new(&mut settings);
        let Sourced { source, is_replay, running } = self.source(&mut names)?;
        let source = names.around(source);
        let joined = names.names(self.polling.interval);
        let warnings = names.warnings;
        let Self { providers, redaction, scope, keep_privileges, .. } = self;
        let tree = Tree::new(rules, providers, redaction);
        Ok(Opened { source, names: joined, warnings, tree, scope, keep_privileges, is_replay, running })
    }

    #[cfg(feature = "cli")]
    fn source(&mut self, names: &mut NameSources<'_>) -> Result<Sourced, NotOpened> {
        if let Some(replay) = self.replay.take() {
            return Ok(Sourced { source: Box::new(replay), is_replay: true, running: None });
        }
        if let Some(command) = self.command.take() {
            return self.with_command(names, command);
        }
        Ok(Sourced { source: self.ladder(names, None)?, is_replay: false, running: None })
    }

    #[cfg(not(feature = "cli"))]
    fn source(&mut self, names: &mut NameSources<'_>) -> Result<Sourced, NotOpened> {
        Ok(Sourced { source: self.ladder(names, None)?, is_replay: false, running: None })
    }

    /// With a command there is one rung more: its calls. The command's process is there afterwards, and waits.
    #[cfg(feature = "cli")]
    fn with_command(&self, names: &mut NameSources<'_>, command: CommandSetup) -> Result<Sourced, NotOpened> {
        let CommandSetup { mut child, stop, waits } = command;
        let sees_calls = matches!(self.source, Source::Auto | Source::Seccomp);
        let mut refused = None;
        if self.source == Source::Auto {
            match EbpfSource::start(self.ebpf(names.wants_ebpf())) {
                Ok(source) => {
                    if names.wants_ebpf() {
                        names.ebpf(source.without_names());
                    }
                    let running = child.start(&stop, waits).map_err(NotOpened::Other)?;
                    return Ok(Sourced {
                        source: Box::new(source),
                        is_replay: false,
                        running: Some(running),
                    });
                }
                Err(error) => refused = Some(format!("no eBPF: {error:#}")),
            }
        }
        if sees_calls {
            match SeccompSource::start(&mut child, self.polling, refused.clone()) {
                Ok(mut source) => {
                    if names.wants_ebpf() {
                        names.not_ebpf(refused.as_deref().unwrap_or("--source seccomp was asked for"));
                    }
                    source.ask_with(names.asking());
                    let running = child.start(&stop, waits).map_err(NotOpened::Other)?;
                    source.listen_to(running.handle());
                    return Ok(Sourced {
                        source: Box::new(source),
                        is_replay: false,
                        running: Some(running),
                    });
                }
                Err(why) if self.source == Source::Seccomp => return Err(NotOpened::Seccomp(why)),
                Err(why) => {
                    refused = Some(refused.map_or(why.clone(), |refused| format!("{refused}; {why}")));
                }
            }
        }
        let source = self.ladder(names, refused)?;
        let running = child.start(&stop, waits).map_err(NotOpened::Other)?;
        Ok(Sourced { source, is_replay: false, running: Some(running) })
    }

    /// The best that works here, unless one was asked for. `refused`: everything but polling was tried.
    fn ladder(
        &self,
        names: &mut NameSources<'_>,
        refused: Option<String>,
    ) -> Result<Box<dyn source::Source>, NotOpened> {
        let reason = match self.source {
            _ if refused.is_some() => refused,
            Source::Seccomp => {
                return Err(NotOpened::Seccomp(
                    "seccomp sees the calls of a command that rano runs".to_owned(),
                ));
            }
            Source::Proc => None,
            Source::Auto if self.polling.once => None,
            Source::Auto | Source::Ebpf => match EbpfSource::start(self.ebpf(names.wants_ebpf())) {
                Ok(source) => {
                    if names.wants_ebpf() {
                        names.ebpf(source.without_names());
                    }
                    return Ok(Box::new(source));
                }
                Err(error) if self.source == Source::Ebpf => return Err(NotOpened::Ebpf(error)),
                Err(error) => Some(format!("no eBPF: {error:#}")),
            },
        };
        if names.wants_ebpf() {
            names.not_ebpf(reason.as_deref().unwrap_or("--source proc was asked for"));
        }
        let mut source = ProcSource::start(self.polling).map_err(NotOpened::Other)?;
        if let Wanted::Agents(agents) = &self.targets.wanted {
            source = source.with_marks_of(agents.agents());
        }
        Ok(Box::new(source.instead_of(reason)))
    }

    fn ebpf(&self, names: bool) -> EbpfSettings {
        EbpfSettings {
            polling: self.polling,
            rung: self.rung,
            ring_bytes: self.ring_bytes,
            owners_max: self.owners_max,
            names,
            keep_privileges: self.keep_privileges,
        }
    }
}

/// A source, and what runs beside it.
struct Sourced {
    source: Box<dyn source::Source>,
    is_replay: bool,
    running: Option<Running>,
}

/// An observation that can begin.
pub(crate) struct Opened {
    source: Box<dyn source::Source>,
    names: Names,
    warnings: Vec<String>,
    tree: Tree,
    scope: Scope,
    keep_privileges: bool,
    is_replay: bool,
    /// A command that waits to be let go.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the command alone runs commands"))]
    running: Option<Running>,
}

/// What becomes of it.
#[derive(Default)]
pub(crate) struct Outputs {
    /// In the order in which they see everything; the last one shows notices and the summary.
    pub(crate) sinks: Vec<Box<dyn Sink>>,
    pub(crate) judge: Option<Judge>,
    /// What is counted for them.
    pub(crate) views: Vec<View>,
    /// Lines of rankings.
    pub(crate) top: usize,
    /// What the summary says is excluded.
    pub(crate) excludes: Vec<String>,
    /// What agents have reached before, if that is known.
    pub(crate) seen: Option<SeenEndpoints>,
    /// What is said first.
    pub(crate) notices: Vec<String>,
    /// What is said if nobody is there to watch.
    pub(crate) idle_notice: Option<String>,
    /// Called when watching has begun.
    pub(crate) ready: Option<Box<dyn FnOnce() + Send>>,
}

impl Opened {
    pub(crate) fn health(&self) -> SourceHealth {
        self.source.health()
    }

    /// Where names come from, in words.
    pub(crate) fn names_from(&self) -> &str {
        &self.names.from
    }

    /// The command that waits to be let go.
    #[cfg(feature = "cli")]
    pub(crate) fn take_command(&mut self) -> Option<Running> {
        self.running.take()
    }

    /// The same with another source around the one it has.
    #[cfg(feature = "cli")]
    pub(crate) fn around(
        mut self,
        with: impl FnOnce(Box<dyn source::Source>) -> Box<dyn source::Source>,
    ) -> Self {
        self.source = with(self.source);
        self
    }

    /// Observes on this thread, which gives up its privileges, until `stop` is raised or the source has no more.
    pub(crate) fn observe(mut self, outputs: Outputs, stop: &Stop) -> Result<Summary> {
        let Outputs { sinks, judge, views, top, excludes, seen, notices, idle_notice, ready } = outputs;
        self.give_up_privileges();
        let mut pipeline = Pipeline::new(self.tree, self.scope, sinks)
            .with_excludes(excludes)
            .with_views(&views)
            .with_seen(seen)
            .with_names(self.names)
            .with_warnings(std::mem::take(&mut self.warnings).into_iter().chain(notices).collect());
        if let Some(notice) = idle_notice {
            pipeline = pipeline.with_idle_notice(notice);
        }
        if let Some(ready) = ready {
            pipeline = pipeline.with_ready(ready);
        }
        if let Some(judge) = judge {
            pipeline = pipeline.with_judge(judge);
        }
        pipeline.run(&mut *self.source, stop, top)
    }

    /// Everything is open, and the kernel's programs do so themselves once they have looked at what was there before.
    fn give_up_privileges(&self) {
        if self.keep_privileges {
            return;
        }
        if self.is_replay {
            privileges::keep_only(CapabilitySet::empty());
        } else if matches!(self.source.kind(), SourceKind::Proc | SourceKind::Seccomp) {
            privileges::keep_only(privileges::OTHERS_PROCESSES);
        }
    }
}

//! `rano` without a command: observe until told to stop.

mod alerting;
mod screen;

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Context;
use super::beside::{Begun, Beside, Talk, nothing_beside};
use super::pids::check_pids;
use super::policy::Gating;
use super::ready::Ready;
use super::seal_key;
use crate::config::{
    Configuration, DomainMode, EndpointEntry, Exclude, Field, LogFormat, Origin, RungChoice, Settings,
};
use crate::event::{Moment, Source, SourceKind};
use crate::exit::{Code, Failure};
use crate::files::{Existing, Files, NAME_WHAT_EXISTS, NamedBy, Problem, Reading, Refusal, Rights};
use crate::health::SourceHealth;
use crate::monitor::{CommandSetup, NameMode, NameSettings, NotOpened, Opened, Outputs, Setup};
use crate::names::pcap;
use crate::output::banner::{Banner, Unseen, few};
use crate::output::escape::Escaped;
use crate::output::style::Styles;
use crate::pipeline::Scope;
use crate::process::matching::{Targets, Wanted};
use crate::process::redact::{self, Redaction};
use crate::signals;
use crate::sink::Sink;
use crate::sink::log_file::{LogFile, OpenLog};
use crate::sink::store::{LostHistory, OnMove, StoreSink};
use crate::sink::terminal::{Format, Terminal};
use crate::source;
use crate::source::reopening::Reopening;
use crate::source::replay::{Recorder, Replay};
use crate::source::seccomp::child::{Child, Handle};
use crate::stop::{ReopenLogs, Stop};
use crate::store::{OpenError, OpenProblem, Session, Store, StoreOptions};
use alerting::Known;

pub fn run(configuration: &Configuration, context: &Context) -> Result<ExitCode> {
    #[cfg(feature = "kernel-log")]
    super::kernel_log::begin();
    if configuration.settings.source == Source::Seccomp {
        let failure =
            Failure::new(Code::Usage, "--source seccomp sees the calls of a command that rano runs");
        return Err(failure.hint("rano run --source seccomp -- CMD").into());
    }
    let stop = Stop::new()?;
    signals::raise_on_closed_stdout(&stop)?;
    observe(configuration, context, &stop, Talk::OnStdout, nothing_beside())
}

/// Observes until `stop` is raised.
pub(super) fn observe(
    configuration: &Configuration,
    context: &Context,
    stop: &Stop,
    talk: Talk,
    beside: Beside<'_>,
) -> Result<ExitCode> {
    let ready = Ready::of(configuration, context)?;
    let reopen = ReopenLogs::new()?;
    signals::raise_on_signals(stop, &reopen, None)?;
    let is_long = !configuration.settings.once && talk == Talk::OnStdout;
    let _keyboard = if is_long { signals::keys::raise_on_q(stop)? } else { None };
    check_pids(&configuration.settings.pid)?;
    let mut setup = setup(configuration);
    let rules = setup.rules()?;
    let run = Run::new(configuration, context, rules.watching().to_vec());
    let logs = run.log_files(&reopen)?;
    run.take_inputs(&mut setup)?;
    let opened = run.recorded(setup.open(rules).map_err(not_opened)?)?;
    let terminal = run.terminal(stop, talk);
    let ready = Box::new(move || ready.tell());
    let is_written = run.observe(opened, logs, terminal, (stop, reopen), ready, beside)?;
    Ok(if is_written { Code::Fine } else { Code::CannotOpen }.into())
}

/// A command to be run under observation.
pub(super) struct Command {
    pub(super) child: Child,
    /// Its own name first.
    pub(super) words: Vec<OsString>,
    /// Until all that it started has ended.
    pub(super) waits: bool,
    /// What it is judged by.
    pub(super) gating: Option<Gating>,
}

/// The same for a command, which is let go when watching has begun.
pub(super) fn observe_command(
    configuration: &Configuration,
    context: &Context,
    command: Command,
    ready: Ready,
) -> Result<Handle> {
    let Command { child, words, waits, gating } = command;
    let stop = Stop::new()?;
    let reopen = ReopenLogs::new()?;
    let mut setup = setup(configuration);
    // All that descends from the process that starts the command.
    setup.targets.wanted = Wanted::Patterns(Vec::new());
    setup.targets.pids = vec![child.supervisor()];
    setup.targets.descendants = true;
    let rules = setup.rules()?;
    let mut run = Run::new(configuration, context, Vec::new());
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    run.watching = vec![redact::command_line(&words, redaction(run.settings))];
    run.is_command = true;
    run.policies = gating.as_ref().map(Gating::files).unwrap_or_default();
    let mut further = run.log_files(&reopen)?;
    run.take_inputs(&mut setup)?;
    setup.command = Some(CommandSetup { child, stop: stop.clone(), waits });
    let mut opened = setup.open(rules).map_err(not_opened)?;
    let mut running = opened.take_command().context("a command is started with its observation")?;
    let handle = running.handle();
    let to_command = handle.clone();
    signals::raise_on_signals(&stop, &reopen, Some(Box::new(move |signal| to_command.signal(signal))))?;
    let opened = run.recorded(opened)?;
    further.extend(gating.map(|gating| gating.sink(&run.id, &opened.health(), handle.clone())));
    let terminal = run.terminal_of_command(&stop);
    let go = Box::new(move || {
        ready.tell();
        running.go();
    });
    run.observe(opened, further, terminal, (&stop, reopen), go, nothing_beside())?;
    Ok(handle)
}

impl Run<'_> {
    /// With everything open, to the end; whether all of the output could be written.
    fn observe(
        &self,
        opened: Opened,
        further: Vec<Box<dyn Sink>>,
        terminal: Terminal,
        (stop, reopen): (&Stop, ReopenLogs),
        ready: Box<dyn FnOnce() + Send>,
        beside: Beside<'_>,
    ) -> Result<bool> {
        let run = self;
        let known = run.known();
        let (store, lost, rights) = run.store(opened.health())?;
        let database = store.as_ref().map(|store| Arc::new(Mutex::new(store.path())));
        let on_move = run.registration(store.as_ref(), database.clone());
        run.banner(&opened.health(), opened.names_from(), &terminal.stderr_styles());
        let kept = beside(Begun { run_id: run.id.clone(), database, rights })?;
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        let flush = Duration::from_millis(run.settings.db_flush_ms);
        sinks.extend(store.map(|store| Box::new(StoreSink::new(store, on_move, flush)) as Box<dyn Sink>));
        sinks.extend(lost.map(|lost| Box::new(lost) as Box<dyn Sink>));
        sinks.extend(further);
        sinks.push(Box::new(terminal));
        let opened = opened.around(|source| Box::new(Reopening::new(source, reopen)));
        let summary = opened.observe(Outputs { ready: Some(ready), ..run.outputs(sinks, known) }, stop)?;
        drop(kept);
        Ok(!summary.output_failed)
    }
}

/// What is asked for, but for files that are read.
fn setup(configuration: &Configuration) -> Setup {
    let settings = &configuration.settings;
    let mut setup = Setup {
        targets: Targets {
            wanted: configuration.wanted(),
            exclude_patterns: excludes(settings),
            pids: settings.pid.clone(),
            descendants: settings.descendants,
        },
        providers: configuration.providers(),
        redaction: redaction(settings),
        source: settings.source,
        rung: match settings.rung {
            RungChoice::Any => None,
            RungChoice::Fentry => Some(SourceKind::EbpfFentry),
            RungChoice::Kprobe => Some(SourceKind::EbpfKprobe),
            RungChoice::Tracepoint => Some(SourceKind::EbpfTracepoint),
        },
        ring_bytes: settings.ring_bytes,
        owners_max: settings.owners_max,
        names: names(configuration),
        ..Setup::default()
    };
    setup.polling.interval = Duration::from_millis(settings.interval_ms);
    setup.polling.receive_buffer = settings.notify_buffer;
    setup.set_scope(scope(settings));
    setup
}

fn names(configuration: &Configuration) -> NameSettings {
    let settings = &configuration.settings;
    NameSettings {
        mode: match settings.domain_mode {
            _ if settings.replay.is_some() => NameMode::Reverse,
            DomainMode::Auto => NameMode::Auto,
            DomainMode::Ptr => NameMode::Reverse,
            DomainMode::Pcap => NameMode::Pcap,
            DomainMode::Ebpf => NameMode::Ebpf,
        },
        reverse: settings.dns,
        private: settings.ptr_private,
        recorded: settings.replay.is_some(),
        once: settings.once,
        once_waits: settings.once && !settings.is_json(),
        classes: configuration.endpoints.entries.iter().map(EndpointEntry::entry).collect(),
        precious: if settings.alerts { settings.alert_domain.clone() } else { Vec::new() },
        unknown: settings.alerts,
        // With the agents, once they are known.
        endpoints: HashMap::new(),
        capture: None,
    }
}

fn scope(settings: &Settings) -> Scope {
    Scope {
        udp: settings.udp,
        other: settings.other,
        listening: settings.listening,
        unix: settings.unix,
        unattributed: settings.unattributed,
        pending: settings.once,
    }
}

fn redaction(settings: &Settings) -> Redaction {
    if settings.redact { Redaction::On } else { Redaction::Off }
}

fn excludes(settings: &Settings) -> Vec<String> {
    settings.exclude_pattern.iter().map(|Exclude(pattern)| pattern.clone()).collect()
}

/// One observation, from the settings to what they mean.
struct Run<'a> {
    configuration: &'a Configuration,
    settings: &'a Settings,
    context: &'a Context,
    started: Moment,
    /// `<pid>-<start in Unix milliseconds>`.
    id: String,
    /// What is watched, in words.
    watching: Vec<String>,
    files: &'a Files,
    /// Of a command that has standard output and the terminal.
    is_command: bool,
    /// Files of the policy that it is judged by, with their hashes.
    policies: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(configuration: &'a Configuration, context: &'a Context, watching: Vec<String>) -> Self {
        let started = source::now();
        Self {
            configuration,
            settings: &configuration.settings,
            context,
            started,
            id: format!("{}-{}", std::process::id(), started.unix_ms),
            watching,
            files: &context.environment.files,
            is_command: false,
            policies: Vec::new(),
        }
    }

    /// Opens the files that are read: a capture, a recording.
    fn take_inputs(&self, setup: &mut Setup) -> Result<()> {
        if let Some(path) = &self.settings.pcap_file {
            let named_by = self.named_by(Field::pcap_file);
            let feed = pcap::open_file(path, self.files, named_by)
                .map_err(|error| self.cannot_read("capture file", path, named_by, error))?;
            setup.names.capture = Some((path.clone(), feed));
        }
        if let Some(path) = &self.settings.replay {
            let named_by = self.named_by(Field::replay);
            let file = self
                .files
                .open(path, named_by, Reading::Data)
                .map_err(|problem| self.cannot_read("recording", path, named_by, problem.into()))?;
            let lines = BufReader::with_capacity(64 * 1024, file);
            setup.replay = Some(Replay::new(Box::new(lines), path.display().to_string()));
        }
        Ok(())
    }

    /// With a recording made of it, if one was asked for.
    fn recorded(&self, opened: Opened) -> Result<Opened> {
        let Some(path) = self.settings.record.as_ref().filter(|_| self.settings.replay.is_none()) else {
            return Ok(opened);
        };
        let named_by = self.named_by(Field::record);
        let (file, _) = self
            .files
            .create(path, named_by, Existing::Truncate)
            .map_err(|problem| self.cannot_use("recording", path, named_by, problem))?;
        Ok(opened.around(|source| Box::new(Recorder::new(source, file))))
    }

    fn outputs(&self, sinks: Vec<Box<dyn Sink>>, known: Known) -> Outputs {
        Outputs {
            sinks,
            judge: self.judge(known.seen.as_ref()),
            seen: known.seen,
            notices: known.notices,
            views: if self.wants_stats() { self.views() } else { Vec::new() },
            top: self.settings.stats_top,
            excludes: self.redacted_excludes(),
            idle_notice: (!self.is_command).then(|| self.idle_notice()),
            ready: None,
        }
    }

    /// A pattern as it may be stored.
    fn redacted(&self, argument: &str) -> String {
        redact::command_line(&[argument.to_owned()], redaction(self.settings))
    }

    fn redacted_arguments(&self) -> Vec<String> {
        let arguments: Vec<String> =
            self.context.arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        redact::arguments(&arguments, redaction(self.settings))
    }

    /// The same as it may be shown and stored.
    fn redacted_excludes(&self) -> Vec<String> {
        excludes(self.settings).iter().map(|pattern| self.redacted(pattern)).collect()
    }

    /// What is left out, with who says so where it is not the command line: a line in a file is soon forgotten.
    fn excluding(&self) -> Option<String> {
        let excludes = self.redacted_excludes().join(", ");
        match self.configuration.origin(Field::exclude_pattern) {
            _ if excludes.is_empty() => None,
            Origin::Flag | Origin::Default => Some(excludes),
            origin => Some(format!("{excludes} ({origin})")),
        }
    }

    fn idle_notice(&self) -> String {
        let (yet, after) = if self.settings.once { ("", "") } else { (" yet", "; waiting for one") };
        let excluding = self.excluding().map(|excludes| format!(", without {excludes}")).unwrap_or_default();
        format!(
            "nothing matches{yet}: {}{}{after} (list processes: ps -eo pid,comm,args)",
            Escaped(&few(&self.watching)),
            Escaped(&excluding)
        )
    }

    /// Where the history goes. A single look keeps none unless somebody named one.
    fn history(&self) -> Option<&Path> {
        let is_kept = !self.settings.once || self.configuration.is_given(Field::sqlite);
        self.settings.sqlite.as_deref().filter(|_| is_kept)
    }

    /// A limit of file sizes is like a disk that fills up: the observation goes on without what it does not allow.
    fn store(&self, health: SourceHealth) -> Result<(Option<Store>, Option<LostHistory>, Rights)> {
        let mut rights = self.files.rights();
        let Some(path) = self.history() else { return Ok((None, None, rights)) };
        let named_by = self.named_by(Field::seal_key);
        let seal_key = self.settings.seal_key.as_ref();
        let seal_key = seal_key.map(|path| seal_key::read_file(path, named_by, self.context)).transpose()?;
        let options = StoreOptions {
            path: path.to_owned(),
            rights: self.files.rights(),
            batch_size: self.settings.db_batch_size,
            flush_interval: Duration::from_millis(self.settings.db_flush_ms),
            queue_max: self.settings.db_queue_max,
            retain: self.settings.retain,
            seal_key,
        };
        let session = Session {
            run_id: self.id.clone(),
            name: self.settings.session_name.clone(),
            started_at: self.started.unix_ms,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            user: self.context.environment.user_name(),
            args: self.redacted_arguments(),
            patterns: self.watching.iter().map(|pattern| self.redacted(pattern)).collect(),
            excludes: self.redacted_excludes(),
            config_files: self.config_files(),
            source: health.kind,
            source_reason: health.reason,
        };
        let named_by = self.named_by(Field::sqlite);
        let started = Store::start(&options, &session);
        let started = match (started, self.files.other_rights(named_by)) {
            (Err(error), Some(other)) if error.problem == OpenProblem::PermissionDenied => {
                rights = other.clone();
                Store::start(&StoreOptions { rights: other, ..options }, &session)
            }
            (started, _) => started,
        };
        match started {
            Ok(store) => Ok((Some(store), None, rights)),
            Err(error) if error.problem == OpenProblem::SizeLimit => {
                let why = format!("{error} ({})", error.hint());
                Ok((None, Some(LostHistory::new(&Escaped(&why).to_string())), rights))
            }
            Err(error) => Err(self.no_store(&error, named_by).into()),
        }
    }

    fn no_store(&self, error: &OpenError, named_by: NamedBy) -> Failure {
        let is_permission = error.problem == OpenProblem::PermissionDenied;
        let hint = if is_permission { self.roots_rights(named_by) } else { None };
        Failure::new(Code::CannotOpen, error.to_string()).hint(hint.unwrap_or(error.hint()))
    }

    /// The next step where the user who invoked sudo may not open what his configuration names.
    fn roots_rights(&self, named_by: NamedBy) -> Option<&'static str> {
        let is_his = matches!(self.files.rights(), Rights::User(_)) && named_by == NamedBy::Configuration;
        is_his.then_some(
            "what is not named on the command line is opened with your own rights: name it there to use root's",
        )
    }

    fn cannot_use(&self, what: &str, path: &Path, named_by: NamedBy, problem: Problem) -> Failure {
        let hint = if problem.is_permission() { self.roots_rights(named_by) } else { None };
        let failure = Failure::new(Code::CannotOpen, format!("open {what} {}", path.display()));
        failure.because(problem).hint(hint.unwrap_or(problem.hint()))
    }

    /// The same of a file that is only read.
    fn cannot_read(&self, what: &str, path: &Path, named_by: NamedBy, error: anyhow::Error) -> Failure {
        let problem = error.downcast_ref::<Problem>().copied();
        let roots =
            problem.filter(|problem| problem.is_permission()).and_then(|_| self.roots_rights(named_by));
        let hint = roots.unwrap_or_else(|| problem.map_or(NAME_WHAT_EXISTS, Problem::reading_hint));
        Failure::new(Code::CannotOpen, format!("open {what} {}", path.display())).because(error).hint(hint)
    }

    /// Who named the path that an option is.
    fn named_by(&self, field: Field) -> NamedBy {
        self.configuration.origin(field).named_by()
    }

    /// Enters the session as running, for as long as the answer is kept, and again where its history goes on elsewhere.
    fn registration(&self, store: Option<&Store>, database: Option<Arc<Mutex<PathBuf>>>) -> OnMove {
        let (context, id) = (self.context.clone(), self.id.clone());
        let register = move |path: &Path| super::history::register(&context, &id, path);
        let mut registration = store.and_then(|store| register(&store.path()));
        Box::new(move |path| {
            // The entry is a file of that session's name: the old one goes first.
            drop(registration.take());
            registration = register(path);
            if let Some(database) = &database {
                path.clone_into(&mut database.lock().unwrap_or_else(PoisonError::into_inner));
            }
        })
    }

    fn config_files(&self) -> Vec<String> {
        let files = self.configuration.files_used.iter().map(|path| path.display().to_string());
        files.chain(self.policies.iter().cloned()).collect()
    }

    fn log_files(&self, reopen: &ReopenLogs) -> Result<Vec<Box<dyn Sink>>> {
        let format = match self.settings.log_format {
            LogFormat::Auto if self.settings.is_json() => Format::Json,
            LogFormat::Auto | LogFormat::Pretty => Format::Pretty,
            LogFormat::Json => Format::Json,
        };
        let named_by = self.named_by(Field::log_file);
        let mut paths: Vec<_> = self.settings.log_file.iter().map(|path| (path.clone(), named_by)).collect();
        if let Some(directory) = &self.settings.log_dir {
            let named_by = self.named_by(Field::log_dir);
            self.files.make_directory(directory, named_by).map_err(|problem| {
                let failure = self.cannot_use("log directory", directory, named_by, problem);
                let is_roots = problem.is_permission() && self.roots_rights(named_by).is_some();
                match problem {
                    Problem::System(_) if !is_roots => failure.hint(Refusal::NotDirectory.hint()),
                    Problem::System(_) | Problem::Refused(_) => failure,
                }
            })?;
            let ending = if format == Format::Json { "jsonl" } else { "log" };
            paths.push((directory.join(format!("rano-{}.{ending}", self.id)), named_by));
        }
        paths
            .into_iter()
            .map(|(path, named_by)| {
                let file = OpenLog::open(self.files, path.clone(), named_by)
                    .map_err(|problem| self.cannot_use("log file", &path, named_by, problem))?;
                let log = LogFile::new(file, format, self.shown(), self.id.clone(), reopen.clone());
                Ok(Box::new(log) as Box<dyn Sink>)
            })
            .collect()
    }

    /// What polling misses, and what would help. Who asked for it knows.
    fn unseen(&self, kind: SourceKind) -> Option<Unseen> {
        let is_wish =
            self.settings.source == Source::Proc || self.settings.replay.is_some() || self.settings.once;
        if kind != SourceKind::Proc || is_wish || self.context.environment.is_root || self.is_command {
            return None;
        }
        let remedy = source::examine::missing_grant().map(|command| command + ", or ").unwrap_or_default();
        Some(Unseen {
            what: "other users' processes, and the owner of a connection that is shorter than a poll",
            remedy: format!("{remedy}rano run -- CMD"),
        })
    }

    fn banner(&self, health: &SourceHealth, names: &str, styles: &Styles) {
        if !self.settings.banner {
            return;
        }
        let polls = health.kind == SourceKind::Proc && self.settings.replay.is_none() && !self.settings.once;
        Banner {
            run_id: &self.id,
            watching: &self.watching,
            excluding: self.excluding().as_deref(),
            source: health.kind,
            source_reason: health.reason.as_deref(),
            names,
            interval: polls.then(|| Duration::from_millis(self.settings.interval_ms)),
            history: self.history(),
            unseen: self.unseen(health.kind),
            files: &self.config_files(),
            notes: &self.configuration.notes,
        }
        .print(styles);
    }
}

fn not_opened(error: NotOpened) -> anyhow::Error {
    match error {
        NotOpened::Ebpf(error) => {
            let failure = Failure::new(Code::NoPrivileges, "cannot observe with eBPF");
            failure.because(error).hint(ebpf_hint()).into()
        }
        NotOpened::Seccomp(why) => {
            Failure::new(Code::NoPrivileges, why).hint("rano run without --source takes the next best").into()
        }
        NotOpened::Other(error) => error,
    }
}

/// What would help.
fn ebpf_hint() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "run it outside the container or sandbox, or use --source proc"
    } else {
        "run it as root: sudo rano --source ebpf"
    }
}

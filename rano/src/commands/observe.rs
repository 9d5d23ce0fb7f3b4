//! `rano` without a command: observe until told to stop.

mod names;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Context;
use crate::config::{Configuration, LogFormat, Origin, RungChoice, Settings, SourceChoice};
use crate::event::{Moment, SourceKind};
use crate::exit::{Code, Failure};
use crate::output::banner::Banner;
use crate::output::escape::Escaped;
use crate::output::style::Styles;
use crate::pipeline::{Pipeline, Scope};
use crate::process::ProcessId;
use crate::process::matching::{self, Rules, Targets};
use crate::process::provider::{ProviderEntry, Providers};
use crate::process::redact::{self, Redaction};
use crate::process::tree::Tree;
use crate::signals;
use crate::sink::Sink;
use crate::sink::alerts::{AlertRules, Judge};
use crate::sink::log_file::LogFile;
use crate::sink::stats::{LiveStats, Room, StatsSettings, View};
use crate::sink::store::{OnMove, StoreSink};
use crate::sink::terminal::{Format, Stream, Terminal, TerminalSettings};
use crate::source::ebpf::{EbpfSettings, EbpfSource};
use crate::source::proc::processes::ProcessScanner;
use crate::source::proc::{PROC, ProcSettings, ProcSource};
use crate::source::replay::{Recorder, Replay};
use crate::source::{self, Source};
use crate::stop::Stop;
use crate::store::{Session, Store, StoreOptions};
use names::NameSources;

pub fn run(configuration: &Configuration, context: &Context) -> Result<ExitCode> {
    let stop = Stop::new()?;
    signals::raise_on_signals(&stop)?;
    signals::raise_on_closed_stdout(&stop)?;
    let run = Run::new(configuration, context);
    let rules = run.rules()?;
    let tree = Tree::new(rules, run.providers(), run.redaction());
    let logs = run.log_files()?;
    let mut name_sources = run.name_sources()?;
    let mut source = run.source(&mut name_sources)?;
    let names = run.names(&mut name_sources);
    let store = run.store(&*source)?;
    let on_move = run.registration(store.as_ref());
    let terminal = run.terminal(&stop);
    run.banner(&*source, &names.from, &terminal.stderr_styles());
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    sinks.extend(store.map(|store| Box::new(StoreSink::new(store, on_move)) as Box<dyn Sink>));
    sinks.extend(logs.into_iter().map(|log| Box::new(log) as Box<dyn Sink>));
    sinks.push(Box::new(terminal));
    let mut pipeline =
        Pipeline::new(tree, run.scope(), source.kind(), sinks).with_idle_notice(run.idle_notice());
    pipeline = pipeline.with_names(names).with_warnings(name_sources.warnings);
    if let Some(judge) = run.judge() {
        pipeline = pipeline.with_judge(judge);
    }
    let summary = pipeline.run(&mut *source, &stop, run.settings.stats_top)?;
    Ok(if summary.output_failed { Code::CannotOpen } else { Code::Fine }.into())
}

/// One observation, from the settings to what they mean.
struct Run<'a> {
    configuration: &'a Configuration,
    settings: &'a Settings,
    context: &'a Context,
    started: Moment,
    /// `<pid>-<start in Unix milliseconds>`.
    id: String,
    /// Owner of the files that are made, under sudo.
    owner: Option<(u32, u32)>,
}

impl<'a> Run<'a> {
    fn new(configuration: &'a Configuration, context: &'a Context) -> Self {
        let started = source::now();
        Self {
            configuration,
            settings: &configuration.settings,
            context,
            started,
            id: format!("{}-{}", std::process::id(), started.unix_ms),
            owner: context.environment.invoking_user.as_ref().map(|user| (user.uid, user.gid)),
        }
    }

    fn rules(&self) -> Result<Rules> {
        let processes = ProcessScanner::new(Path::new(PROC))?;
        let own_line = processes.self_and_ancestors();
        for &pid in &self.settings.pid {
            check_pid(pid, &processes, &own_line)?;
        }
        let patterns = match self.configuration.origin("pattern") {
            Some(Origin::Default) | None => Vec::new(),
            Some(_) => self.settings.pattern.clone(),
        };
        let targets = Targets {
            patterns,
            exclude_patterns: self.settings.exclude_pattern.clone(),
            pids: self.settings.pid.clone(),
            descendants: self.settings.descendants,
        };
        Ok(Rules::new(targets, own_line))
    }

    fn providers(&self) -> Providers {
        Providers::new(self.configuration.providers.entries.iter().map(|entry| ProviderEntry {
            name: entry.name.clone(),
            patterns: entry.patterns.clone(),
            origin: if entry.is_user() { matching::Origin::User } else { matching::Origin::Builtin },
        }))
    }

    fn redaction(&self) -> Redaction {
        if self.settings.redact { Redaction::On } else { Redaction::Off }
    }

    /// One of rano's own arguments as it may be stored.
    fn redacted(&self, argument: &str) -> String {
        redact::command_line(&[argument.to_owned()], self.redaction())
    }

    /// What is watched, in words.
    fn watching(&self) -> Vec<String> {
        let pids = self.settings.pid.iter().map(|pid| format!("pid {pid}"));
        let default = matches!(self.configuration.origin("pattern"), Some(Origin::Default) | None);
        if default && !self.settings.pid.is_empty() {
            return pids.collect();
        }
        self.settings.pattern.iter().cloned().chain(pids).collect()
    }

    fn idle_notice(&self) -> String {
        let (yet, after) = if self.settings.once { ("", "") } else { (" yet", "; waiting for one") };
        format!(
            "nothing matches{yet}: {}{after} (list processes: ps -eo pid,comm,args)",
            Escaped(&self.watching().join(", "))
        )
    }

    fn scope(&self) -> Scope {
        Scope {
            udp: self.settings.udp,
            listening: self.settings.listening,
            unix: self.settings.unix,
            unattributed: self.settings.unattributed,
            pending: self.settings.once,
        }
    }

    fn source(&self, names: &mut NameSources) -> Result<Box<dyn Source>> {
        if let Some(path) = &self.settings.replay {
            let replay = Replay::open(path).map_err(|error| cannot_open("recording", path, error))?;
            return Ok(names.around(Box::new(replay)));
        }
        let settings = ProcSettings {
            interval: Duration::from_millis(self.settings.interval_ms),
            udp: self.settings.udp,
            listening: self.settings.listening,
            unix: self.settings.unix,
            unattributed: self.settings.unattributed,
            only_unix: false,
            once: self.settings.once,
            receive_buffer: self.settings.notify_buffer,
        };
        let source = self.live_source(settings, names)?;
        let source = names.around(source);
        match &self.settings.record {
            Some(path) => {
                let file = create(path, self.owner, Existing::Truncate)
                    .map_err(|error| cannot_open("recording", path, error))?;
                Ok(Box::new(Recorder::new(source, file)))
            }
            None => Ok(source),
        }
    }

    /// The ladder: the best that works here, unless one was asked for.
    fn live_source(&self, polling: ProcSettings, names: &mut NameSources) -> Result<Box<dyn Source>> {
        let reason = match self.settings.source {
            SourceChoice::Proc => None,
            SourceChoice::Auto if polling.once => None,
            SourceChoice::Auto | SourceChoice::Ebpf => match EbpfSource::start(self.ebpf(polling, names)) {
                Ok(source) => {
                    if names.wants_ebpf(self.settings) {
                        names.ebpf(self.settings, source.without_names());
                    }
                    return Ok(Box::new(source));
                }
                Err(error) if self.settings.source == SourceChoice::Ebpf => {
                    let failure = Failure::new(Code::NoPrivileges, "cannot observe with eBPF");
                    return Err(failure.because(error).hint(ebpf_hint()).into());
                }
                Err(error) => Some(format!("no eBPF: {error:#}")),
            },
        };
        if names.wants_ebpf(self.settings) {
            names.not_ebpf(self.settings, reason.as_deref().unwrap_or("--source proc was asked for"));
        }
        Ok(Box::new(ProcSource::start(polling)?.instead_of(reason)))
    }

    fn ebpf(&self, polling: ProcSettings, names: &NameSources) -> EbpfSettings {
        let rung = match self.settings.rung {
            RungChoice::Any => None,
            RungChoice::Fentry => Some(SourceKind::EbpfFentry),
            RungChoice::Kprobe => Some(SourceKind::EbpfKprobe),
            RungChoice::Tracepoint => Some(SourceKind::EbpfTracepoint),
        };
        EbpfSettings {
            polling,
            rung,
            ring_bytes: self.settings.ring_bytes,
            names: names.wants_ebpf(self.settings),
            files_of: self.owner.map(|(uid, _)| uid),
        }
    }

    fn store(&self, source: &dyn Source) -> Result<Option<Store>> {
        let Some(path) = &self.settings.sqlite else { return Ok(None) };
        let options = StoreOptions {
            path: path.clone(),
            owner: self.owner,
            batch_size: self.settings.db_batch_size,
            flush_interval: Duration::from_millis(self.settings.db_flush_ms),
            queue_max: self.settings.db_queue_max,
            retain: self.settings.retain,
        };
        let health = source.health();
        let session = Session {
            run_id: self.id.clone(),
            name: self.settings.session_name.clone(),
            started_at: self.started.unix_ms,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            user: self.context.environment.user_name(),
            args: self.context.arguments.iter().map(|arg| self.redacted(&arg.to_string_lossy())).collect(),
            patterns: self.watching().iter().map(|pattern| self.redacted(pattern)).collect(),
            config_files: self.config_files(),
            source: health.kind,
            source_reason: health.reason,
        };
        let started = Store::start(&options, &session).map_err(|error| {
            let hint = error.hint();
            Failure::new(Code::CannotOpen, error.to_string()).hint(hint)
        })?;
        Ok(Some(started))
    }

    /// Enters the session as running, for as long as the answer is kept, and again where its history goes on elsewhere.
    fn registration(&self, store: Option<&Store>) -> OnMove {
        let (context, id) = (self.context.clone(), self.id.clone());
        let register = move |path: &Path| super::history::register(&context, &id, path);
        let mut registration = store.and_then(|store| register(&store.path()));
        Box::new(move |path| {
            // The entry is a file of that session's name: the old one goes first.
            drop(registration.take());
            registration = register(path);
        })
    }

    fn config_files(&self) -> Vec<String> {
        self.configuration.files_used.iter().map(|path| path.display().to_string()).collect()
    }

    fn format(&self) -> Format {
        if self.settings.json { Format::Json } else { Format::Pretty }
    }

    fn log_files(&self) -> Result<Vec<LogFile>> {
        let format = match self.settings.log_format {
            LogFormat::Auto => self.format(),
            LogFormat::Pretty => Format::Pretty,
            LogFormat::Json => Format::Json,
        };
        let mut paths: Vec<PathBuf> = self.settings.log_file.iter().cloned().collect();
        if let Some(directory) = &self.settings.log_dir {
            make_directory(directory, self.owner)?;
            let ending = if format == Format::Json { "jsonl" } else { "log" };
            paths.push(directory.join(format!("rano-{}.{ending}", self.id)));
        }
        paths
            .into_iter()
            .map(|path| {
                let file = create(&path, self.owner, Existing::Append)
                    .map_err(|error| cannot_open("log file", &path, error))?;
                Ok(LogFile::new(path, file, format, self.id.clone()))
            })
            .collect()
    }

    fn terminal(&self, stop: &Stop) -> Terminal {
        let interval = Duration::from_millis(self.settings.stats_interval_ms);
        let wants_stats = !self.settings.json && (self.settings.once || !interval.is_zero());
        let stats = StatsSettings {
            interval,
            width: self.settings.stats_width,
            top: self.settings.stats_top,
            views: self.views(),
            cycle: Duration::from_millis(self.settings.stats_cycle_ms),
        };
        let settings = TerminalSettings {
            format: self.format(),
            show_events: !self.settings.summary_only,
            run_id: self.id.clone(),
            stats: wants_stats.then(|| LiveStats::new(stats)),
            bell: self.settings.alert_bell,
            room: terminal_room,
        };
        let stdout = Stream {
            is_terminal: io::stdout().is_terminal(),
            styles: self.styles(io::stdout().is_terminal()),
            writer: Box::new(io::stdout()),
        };
        let stderr = Stream {
            is_terminal: io::stderr().is_terminal() && !self.context.environment.is_dumb_terminal(),
            styles: self.styles(io::stderr().is_terminal()),
            writer: Box::new(io::stderr()),
        };
        Terminal::new(stdout, stderr, settings, stop.clone())
    }

    fn views(&self) -> Vec<View> {
        let unasked = matches!(self.configuration.origin("stats_view"), Some(Origin::Default) | None);
        if unasked && self.settings.stats_cycle_ms > 0 {
            View::ALL.into()
        } else {
            self.settings.stats_view.clone()
        }
    }

    /// `None` where nothing can raise an alert.
    fn judge(&self) -> Option<Judge> {
        let rules = AlertRules {
            domains: self.settings.alert_domain.clone(),
            max_connections: self.settings.alert_max_connections,
            max_per_provider: self.settings.alert_max_per_provider,
            duration: self.settings.alert_duration_ms.map(Duration::from_millis),
            unknown_domain: self.settings.alert_unknown_domain,
            cooldown: Duration::from_millis(self.settings.alert_cooldown_ms),
        };
        (self.settings.alerts && !rules.is_empty()).then(|| Judge::new(rules))
    }

    fn styles(&self, is_terminal: bool) -> Styles {
        super::styles(self.configuration, &self.context.environment, is_terminal)
    }

    fn banner(&self, source: &dyn Source, names: &str, styles: &Styles) {
        if !self.settings.banner {
            return;
        }
        let health = source.health();
        let polls = health.kind == SourceKind::Proc && self.settings.replay.is_none() && !self.settings.once;
        Banner {
            run_id: &self.id,
            watching: &self.watching(),
            source: health.kind,
            source_reason: health.reason.as_deref(),
            names,
            interval: polls.then(|| Duration::from_millis(self.settings.interval_ms)),
            history: self.settings.sqlite.as_deref(),
            files: &self.config_files(),
            notes: &self.configuration.notes,
        }
        .print(styles);
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

fn check_pid(pid: u32, processes: &ProcessScanner, own_line: &[ProcessId]) -> Result<()> {
    let list = "list processes with `ps -eo pid,comm,args`";
    let refused = |why: &str| Failure::new(Code::Usage, format!("--pid {pid}: {why}")).hint(list);
    if pid == std::process::id() {
        return Err(refused("that is rano itself, which it never watches").into());
    }
    if own_line.iter().any(|ancestor| ancestor.pid == pid) {
        return Err(refused("rano was started from it, and never watches what it was started from").into());
    }
    if processes.identify(pid).is_none() {
        return Err(refused("no such process").into());
    }
    Ok(())
}

/// What to do with what a file already holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Append,
    Truncate,
}

/// Opens a private file (0600) for writing. As root no symlink is followed, and a file that is made belongs to
/// `owner`.
fn create(path: &Path, owner: Option<(u32, u32)>, existing: Existing) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .mode(0o600)
        .append(existing == Existing::Append)
        .write(true)
        .truncate(existing == Existing::Truncate);
    // A named pipe that nobody reads is to be told, not waited for.
    let mut flags = libc::O_NONBLOCK;
    if rustix::process::geteuid().is_root() {
        flags |= libc::O_NOFOLLOW;
    }
    options.custom_flags(flags);
    let file = match options.clone().create_new(true).open(path) {
        Ok(file) => {
            if let Some((uid, gid)) = owner {
                fchown(&file, Some(uid), Some(gid))?;
            }
            file
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path).map_err(unread)?,
        Err(error) => return Err(error),
    };
    // A pipe whose reader has stopped does not stop rano; terminals are as always.
    if !file.metadata()?.file_type().is_fifo() {
        rustix::fs::fcntl_setfl(&file, rustix::fs::fcntl_getfl(&file)? - rustix::fs::OFlags::NONBLOCK)?;
    }
    Ok(file)
}

/// What opening a named pipe without a reader fails with (open(2), ENXIO) says little.
fn unread(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::ENXIO) {
        io::Error::new(error.kind(), "it is a pipe that nobody reads")
    } else {
        error
    }
}

/// Next step where there is no directory for logs.
const LOG_DIRECTORY: &str = "name a directory; it is made if the one that it lies in exists";

fn make_directory(path: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            if let Some((uid, gid)) = owner {
                std::os::unix::fs::chown(path, Some(uid), Some(gid))
                    .with_context(|| format!("give {} to its user", path.display()))?;
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(cannot_open("log directory", path, "it is not a directory").hint(LOG_DIRECTORY).into())
        }
        Err(error) => Err(cannot_open("log directory", path, error).hint(LOG_DIRECTORY).into()),
    }
}

fn cannot_open(
    what: &str,
    path: &Path,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Failure {
    Failure::new(Code::CannotOpen, format!("open {what} {}", path.display()))
        .because(error)
        .hint("name a file in a directory that exists and that you can write to")
}

/// Size of the terminal that stderr is; 80 by 24 where it does not say.
fn terminal_room() -> Room {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
    let or = |cells: Option<u16>, usual| cells.filter(|cells| *cells > 0).map_or(usual, usize::from);
    Room { columns: or(size.map(|size| size.ws_col), 80), rows: or(size.map(|size| size.ws_row), 24) }
}

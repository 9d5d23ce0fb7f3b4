//! `rano serve`: a page on this machine that shows what is observed, or what was.

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command, value_parser};

use super::beside::{Begun, Talk};
use super::{Context, history, load, observe, print, say};
use crate::config::spec::Group;
use crate::config::{Configuration, Field, FormatChoice, flags};
use crate::exit::{Code, Failure};
use crate::files::{Existing, NamedBy, Reading};
use crate::output::escape::Line;
use crate::serve::{Bound, Listen, Serving, Settings, Token};
use crate::signals;
use crate::stop::{ReopenLogs, Stop};

/// How long an event waits to be written where a page shows it, in milliseconds.
const FLUSH_MS: u64 = 50;

/// More than any token.
const TOKEN_MAX: u64 = 4096;

/// Options that mean nothing beside a page, by field.
const WITHOUT: [Field; 6] =
    [Field::once, Field::with_summary, Field::format, Field::local, Field::filter, Field::summary_only];

pub fn command(hidden: bool) -> Command {
    let observing = move |option: &crate::config::spec::OptionSpec| {
        let has_meaning = option.group != Group::Stats && !WITHOUT.iter().any(|field| option.is(*field));
        has_meaning && (hidden || !option.is_hidden())
    };
    Command::new("serve")
        .about("Show what is observed on a page in your browser")
        .long_about(
            "Show what is observed on a page in your browser: a map of agents, programs and endpoints, every connection, \
             sessions and what changed between them. It observes as rano does, with the same options, until Ctrl-C. With \
             --attach it shows a session that is running, with --read-only a history. The address that it prints holds a \
             token; without it nobody gets an answer.",
        )
        .args_override_self(true)
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS:PORT|unix:PATH")
                .value_parser(value_parser!(Listen))
                .default_value("127.0.0.1:0")
                .help("Where to serve; port 0 takes any that is free")
                .long_help(
                    "Where to serve; port 0 takes any that is free. Whoever can reach an address that is not this \
                     machine's own can read what is sent, the token too: there is no encryption.",
                ),
        )
        .arg(
            Arg::new("token_file")
                .long("token-file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Take the token from this file; it is made if it is missing")
                .long_help(
                    "Take the token from this file; it is made if it is missing. With it and a port of your choice, an \
                     open page goes on after a restart, and a program that collects metrics can read the token.",
                ),
        )
        .args(history::view_flags())
        .args(flags::flags(observing))
        .after_help(
            "Examples:\n  rano serve\n  rano serve --pattern aider\n  rano serve --read-only --sqlite night.sqlite\n  \
             rano serve --listen 127.0.0.1:4210 --token-file ~/.rano-token\n  \
             rano serve --listen unix:/run/user/1000/rano.sock",
        )
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let mut configuration = load(matches, context)?;
    let page = Page::open(matches, context)?;
    if let Some(run) = matches.get_one::<String>("attach") {
        return page.attached(run, &configuration, context);
    }
    if matches.get_flag("read_only") {
        let found = history::find(&configuration, context);
        found.announce();
        return page.alone(found.path, found.named_by, None, context);
    }
    // A page is no place for these, wherever they were set.
    configuration.settings.once = false;
    configuration.settings.format = FormatChoice::Auto;
    configuration.settings.stats_interval_ms = 0;
    if !configuration.is_given(Field::db_flush_ms) {
        configuration.settings.db_flush_ms = FLUSH_MS;
    }
    let stop = Stop::new()?;
    let beside = move |begun: Begun| -> Result<Box<dyn Any>> {
        let Begun { run_id, database, rights } = begun;
        let Some(database) = database else {
            return Err(Failure::new(Code::Usage, "without a history there is nothing to serve")
                .hint("leave out --no-sqlite, or name another file with --sqlite")
                .into());
        };
        // Not by opening the file: that would end SQLite's locks on it, see `store/held.rs`.
        Ok(Box::new(page.start(database, Some(run_id), Box::new(move || rights.take()), context)?))
    };
    observe::observe(&configuration, context, &stop, Talk::OnStderr, Box::new(beside))
}

/// A page before it knows what to show.
struct Page {
    bound: Bound,
    token: Token,
    is_open: bool,
}

impl Page {
    fn open(matches: &ArgMatches, context: &Context) -> Result<Self> {
        let listen = matches.get_one::<Listen>("listen").expect("it has a default");
        let token = match matches.get_one::<PathBuf>("token_file") {
            Some(path) => token_of(path, context)?,
            None => Token::random().context("ask the kernel for random numbers")?,
        };
        let bound = listen.bind(&context.environment.files).map_err(|error| {
            Failure::new(Code::CannotOpen, format!("listen at {}", Line(&listen.to_string())))
                .because(error)
                .hint("name another place with --listen; port 0 takes any that is free")
        })?;
        Ok(Self { bound, token, is_open: listen.is_open() })
    }

    /// A session that somebody else observes, or that ended.
    fn attached(self, run: &str, configuration: &Configuration, context: &Context) -> Result<ExitCode> {
        let running = history::running(context);
        let named_by = configuration.origin(Field::sqlite).named_by();
        if let Some(entry) = running.iter().find(|entry| entry.run_id == run)
            && named_by == NamedBy::Configuration
        {
            return self.alone(entry.database.clone(), named_by, Some(run.to_owned()), context);
        }
        let found = history::find(configuration, context);
        found.announce();
        self.alone(found.path, found.named_by, Some(run.to_owned()), context)
    }

    /// Serves without observing, until a signal.
    fn alone(
        self,
        path: PathBuf,
        named_by: NamedBy,
        following: Option<String>,
        context: &Context,
    ) -> Result<ExitCode> {
        let stop = Stop::new()?;
        signals::raise_on_signals(&stop, &ReopenLogs::new()?, None)?;
        history::check(&path, named_by, following.as_deref(), context)?;
        let (readers, named) = (context.clone(), path.clone());
        let take = move || readers.environment.files.take_rights_to_read(&named, named_by);
        let serving = self.start(Arc::new(Mutex::new(path)), following, Box::new(take), context)?;
        stop.wait();
        drop(serving);
        Ok(Code::Fine.into())
    }

    fn start(
        self,
        database: Arc<Mutex<PathBuf>>,
        following: Option<String>,
        take_rights: Box<dyn FnOnce() -> io::Result<()> + Send>,
        context: &Context,
    ) -> Result<Serving> {
        let url = self.bound.url(&self.token);
        if self.is_open {
            say(
                "warning: others than this machine can reach this address, and nothing that is sent is encrypted\n",
            );
        }
        let lookers = context.clone();
        let settings = Settings {
            database,
            following,
            running: Box::new(move || history::running_ids(&lookers)),
            take_rights,
            token: self.token,
        };
        let serving = Serving::start(self.bound, settings).context("start to serve")?;
        print(&format!("{url}\n"))?;
        Ok(serving)
    }
}

/// The token in a file, which is made for its owner alone if it is missing.
fn token_of(path: &std::path::Path, context: &Context) -> Result<Token> {
    use std::io::{Read as _, Write as _};
    let files = &context.environment.files;
    let failed = |error: anyhow::Error| {
        Failure::new(Code::CannotOpen, format!("open token file {}", Line(&path.display().to_string())))
            .because(error)
            .hint("name a file that you can read, or one to be made in a directory that exists")
    };
    if files.exists(path) {
        let mut text = String::new();
        let file = files
            .open(path, NamedBy::CommandLine, Reading::Data)
            .map_err(|problem| failed(problem.into()))?;
        file.take(TOKEN_MAX).read_to_string(&mut text).map_err(|error| failed(error.into()))?;
        let wrong = || {
            Failure::new(Code::Usage, format!("no token in {}", Line(&path.display().to_string())))
                .hint("it is one line of 16 to 256 letters, digits, '-', '.', '_' or '~'; remove the file to have one made")
        };
        return Ok(Token::parse(&text).ok_or_else(wrong)?);
    }
    let token = Token::random().context("ask the kernel for random numbers")?;
    let created = files.create(path, NamedBy::CommandLine, Existing::Truncate);
    let (mut file, _) = created.map_err(|problem| failed(problem.into()))?;
    writeln!(file, "{}", token.text()).map_err(|error| failed(error.into()))?;
    Ok(token)
}

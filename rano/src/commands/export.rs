//! `rano export`: the history to a file or a pipe.

use std::io::BufWriter;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Context, history, load, not_printed};
use crate::exit::{Code, Failure};
use crate::filter;
use crate::glob::Glob;
use crate::output::export::{Csv, Guard, JsonLines};
use crate::output::parquet::Parquet;
use crate::output::stream;
use crate::output::table::grouped;
use crate::store::query::export::{
    CONNECTION_FIELDS, DEFAULT_FIELDS, ExportError, FIELDS, Field, Filter, RowWriter,
};
use crate::store::{History, OpenError, OpenProblem};

/// A short export says nothing about its progress.
const QUIET: Duration = Duration::from_secs(2);

/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

pub fn command() -> Command {
    let flag = |id: &'static str, name: &'static str, help: &'static str| {
        Arg::new(id).long(name).action(ArgAction::SetTrue).help(help)
    };
    Command::new("export")
        .about("Write the stored events as CSV, JSON lines or Parquet")
        .args_override_self(true)
        .arg(
            Arg::new("format")
                .long("format")
                .value_name("FORMAT")
                .required(true)
                .value_parser(PossibleValuesParser::new(["csv", "jsonl", "parquet"]))
                .help("Shape of the output"),
        )
        .args(history::range_flags())
        .args(history::local_flag())
        .arg(
            Arg::new("run_id")
                .long("run-id")
                .value_name("RUN")
                .help("Only the session with this run id or name"),
        )
        .arg(Arg::new("provider").long("provider").value_name("NAME").help("Only events of this provider"))
        .arg(
            Arg::new("domain")
                .long("domain")
                .value_name("GLOB")
                .action(ArgAction::Append)
                .value_parser(filter::domain)
                .help("Only events with such a domain, as *.example.com; repeatable"),
        )
        .arg(history::filter_flag())
        .arg(
            Arg::new("fields")
                .long("fields")
                .value_name("NAMES")
                .value_delimiter(',')
                .action(ArgAction::Append)
                .value_parser(|name: &str| wanted(name))
                .help("Fields to write, in this order; +NAME adds one to the default, all takes all"),
        )
        .arg(
            Arg::new("rows")
                .long("rows")
                .value_name("WHAT")
                .value_parser(PossibleValuesParser::new(["events", "connections"]))
                .default_value("events")
                .help("What a row is: an event, or a connection from its begin to its end"),
        )
        .arg(flag("no_header", "no-header", "Leave the line of names out of CSV"))
        .arg(flag("raw", "raw", "Leave CSV cells alone that a spreadsheet would take for a formula"))
        .args(history::database_flag())
        .after_help(format!(
            "Fields: {}, class (the same as endpoint_type)\nThe first {DEFAULT_FIELDS} of them are the default for events; for \
             connections: {}.\nA connection stands where it ended, with the time at which it began; its event is close, fail, \
             or connect while it is open. --filter then holds of its last event.\n\n\
             Examples:\n  rano export --format csv --since 7d > week.csv\n  \
             rano export --format jsonl --domain '*.example.com' | jq .remote_ip\n  \
             rano export --format csv --fields +bytes_sent,+class\n  \
             rano export --format csv --rows connections > connections.csv\n  \
             rano export --format parquet --fields all > events.parquet",
            names(),
            CONNECTION_FIELDS.join(", ")
        ))
}

fn names() -> String {
    FIELDS.iter().map(|field| field.name).collect::<Vec<_>>().join(", ")
}

/// A part of `--fields`.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    All,
    Only(&'static Field),
    Added(&'static Field),
}

fn wanted(text: &str) -> Result<Wanted, String> {
    let text = text.trim();
    if text == "all" {
        return Ok(Wanted::All);
    }
    let (name, make): (&str, fn(&'static Field) -> Wanted) = match text.strip_prefix('+') {
        Some(name) => (name, Wanted::Added),
        None => (text, Wanted::Only),
    };
    let found = Field::named(name.trim());
    found.map(make).ok_or_else(|| format!("no such field (fields: {})", names()))
}

/// What is added to nothing is added to the default; what the list has already is not added.
fn fields(matches: &ArgMatches, default: Vec<&'static Field>) -> Vec<&'static Field> {
    let asked: Vec<Wanted> = matches.get_many("fields").into_iter().flatten().copied().collect();
    let names_some = asked.iter().any(|part| !matches!(part, Wanted::Added(_)));
    let mut fields = if names_some { Vec::new() } else { default };
    for part in asked {
        match part {
            Wanted::All => fields.extend(&FIELDS),
            Wanted::Added(field) if fields.contains(&field) => {}
            Wanted::Only(field) | Wanted::Added(field) => fields.push(field),
        }
    }
    fields
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let configuration = load(matches, context)?;
    let (since, until) = history::range(matches, &configuration)?;
    let text = |name: &str| matches.get_one::<String>(name).cloned();
    let filter = Filter {
        since,
        until,
        run: text("run_id"),
        provider: text("provider"),
        domains: matches.get_many::<Glob>("domain").into_iter().flatten().cloned().collect(),
        matching: matches.get_one("filter").cloned(),
        ..Filter::default()
    };
    let of_connections = text("rows").as_deref() == Some("connections");
    let default = if of_connections {
        CONNECTION_FIELDS.iter().filter_map(|name| Field::named(name)).collect()
    } else {
        FIELDS.iter().take(DEFAULT_FIELDS).collect()
    };
    let fields = fields(matches, default);
    let format = text("format").expect("it is required");
    if format == "parquet" {
        check_parquet(matches, &fields)?;
    }
    let path = history::database_to_read(&configuration, context)?;
    let history = History::open(&path).map_err(|error| history::cannot_open(&error))?;
    let failed = |error: ExportError| -> anyhow::Error {
        match error {
            ExportError::NoSession => history::no_session(filter.run.as_deref().unwrap_or(""), &path).into(),
            ExportError::Output(error) => not_printed(error),
            ExportError::Database(error) => {
                let problem = history.checked::<()>(Err(error)).err().unwrap_or(OpenProblem::Damaged);
                history::cannot_open(&OpenError { path: path.clone(), problem }).into()
            }
        }
    };
    let mut progress = Progress::new(history.most_events(&filter).map_err(failed)?);
    let tick = |count| progress.tick(count);
    let stdout = || BufWriter::with_capacity(1 << 16, stream::exported());
    match format.as_str() {
        "csv" => {
            let mut csv = Csv::new(stdout(), guard(matches));
            if !matches.get_flag("no_header") {
                csv.header(&fields).map_err(not_printed)?;
            }
            write(&history, &filter, &fields, of_connections, &mut csv, tick).map_err(failed)?;
            csv.finish().map_err(not_printed)?;
        }
        "jsonl" => {
            let mut lines = JsonLines::new(stdout());
            write(&history, &filter, &fields, of_connections, &mut lines, tick).map_err(failed)?;
            lines.finish().map_err(not_printed)?;
        }
        _ => {
            let mut parquet = Parquet::new(stream::exported(), &fields).map_err(not_printed)?;
            write(&history, &filter, &fields, of_connections, &mut parquet, tick).map_err(failed)?;
            // Without its end nobody can take the file for whole.
            if !history.was_written() {
                parquet.finish().map_err(not_printed)?;
            }
        }
    }
    progress.clear();
    if let Err(problem) = history.checked(Ok(())) {
        return Err(history::cannot_open(&OpenError { path, problem }).into());
    }
    if history.was_written() {
        let message =
            "an observation began while the history was being exported; what was written may be wrong";
        return Err(Failure::new(Code::Findings, message).hint("run the same command again").into());
    }
    Ok(Code::Fine.into())
}

fn write(
    history: &History,
    filter: &Filter,
    fields: &[&Field],
    of_connections: bool,
    writer: &mut impl RowWriter,
    tick: impl FnMut(u64),
) -> Result<u64, ExportError> {
    if of_connections {
        history.export_connections(filter, fields, writer, tick)
    } else {
        history.export(filter, fields, writer, tick)
    }
}

/// What is done to the cells of CSV.
fn guard(matches: &ArgMatches) -> Guard {
    Guard { formulas: !matches.get_flag("raw"), terminal: stream::stdout_is_terminal() }
}

/// What makes no sense of a binary file with named columns.
fn check_parquet(matches: &ArgMatches, fields: &[&Field]) -> Result<()> {
    let refused = |message: String| Failure::new(Code::Usage, message);
    for (id, flag) in [("no_header", "--no-header"), ("raw", "--raw")] {
        if matches.get_flag(id) {
            return Err(refused(format!("{flag} is for CSV: Parquet has typed columns with names")).into());
        }
    }
    let twice = fields.iter().enumerate().find(|(index, field)| fields[..*index].contains(field));
    if let Some((_, field)) = twice {
        return Err(refused(format!("Parquet has each field once: '{}' is named twice", field.name)).into());
    }
    if stream::stdout_is_terminal() {
        let hint = "send it to a file: rano export --format parquet > events.parquet";
        return Err(refused("Parquet is not for a terminal".to_owned()).hint(hint).into());
    }
    Ok(())
}

/// A line on standard error that is rewritten, if that is a terminal and standard output is none.
struct Progress {
    begin: Instant,
    last: Instant,
    /// `None` where nobody is to see it.
    most: Option<u64>,
    shown: bool,
}

impl Progress {
    fn new(most: u64) -> Self {
        let wanted = stream::stderr_is_terminal() && !stream::stdout_is_terminal();
        let now = Instant::now();
        Self { begin: now, last: now, most: wanted.then_some(most), shown: false }
    }

    fn tick(&mut self, count: u64) {
        let Some(most) = self.most else { return };
        // A look at the clock now and then is enough.
        if !count.is_multiple_of(4096) {
            return;
        }
        let now = Instant::now();
        if now - self.begin < QUIET || now - self.last < PROGRESS_INTERVAL {
            return;
        }
        self.last = now;
        self.shown = true;
        stream::say_in_place(Some(&format!("{} of at most {} events", grouped(count), grouped(most))));
    }

    fn clear(&self) {
        if self.shown {
            stream::say_in_place(None);
        }
    }
}

//! `rano config`: what is set, who set it, what is wrong with it, and where files are looked for.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value as Json, json};
use unicode_width::UnicodeWidthStr as _;

use super::{Context, load, print, print_own};
use crate::config::search::{Candidate, Content, Status};
use crate::config::spec::Group;
use crate::config::{
    self, Checked, Configuration, Finding, Origin, ProvidersConfig, Resolved, flags, presets, sample,
};
use crate::exit::Code;
use crate::output::escape::{Escaped, Line};
use crate::output::json;

pub fn command(hidden: bool) -> Command {
    let as_json = || Arg::new("as_json").long("json").action(ArgAction::SetTrue).help("Print JSON");
    Command::new("config")
        .about("Show what is set and where it comes from")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("show")
                .about("Print every option and provider with its origin")
                .long_about(
                    "Print every option and provider with its origin. It takes the flags of a run, and shows what \
                     that run would use; --json is about the shape of this list.",
                )
                .args_override_self(true)
                .arg(as_json())
                .args(
                    flags::flags(move |option| hidden || !option.is_hidden())
                        .filter(|flag| flag.get_id() != "json"),
                ),
        )
        .subcommand(
            Command::new("check")
                .about("Look for mistakes in every file, preset and variable")
                .long_about(
                    "Look for mistakes in every file, preset and variable. Errors, which stop a start, give the exit \
                     code 1; warnings, which do not, give 0.",
                )
                .args_override_self(true)
                .arg(as_json())
                .args(flags::flags(|option| option.group == Group::Configuration)),
        )
        .subcommand(
            Command::new("sample").about("Print a config file with every key, its default and its help"),
        )
        .subcommand(
            Command::new("paths")
                .about("List the files that are looked for, lowest first")
                .args_override_self(true)
                .arg(as_json())
                .args(flags::flags(|option| option.group == Group::Configuration)),
        )
}

pub fn run(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let (name, matches) = matches.subcommand().context("config needs a command")?;
    match name {
        "check" => check(matches, context),
        "sample" => {
            print_own(&sample::sample())?;
            Ok(Code::Fine.into())
        }
        "show" => {
            let configuration = load(matches, context)?;
            let as_json = matches.get_flag("as_json");
            print(&if as_json { json::pretty(&shown_json(&configuration)) } else { shown(&configuration) })?;
            Ok(Code::Fine.into())
        }
        "paths" => {
            let candidates = config::paths(matches, &context.environment);
            let as_json = matches.get_flag("as_json");
            print(&if as_json { json::pretty(&paths_json(&candidates)) } else { paths(&candidates) })?;
            Ok(Code::Fine.into())
        }
        other => unreachable!("clap knows no config command {other}"),
    }
}

/// What `rano --list-presets` prints.
pub fn list_presets(context: &Context) -> Result<ExitCode> {
    let presets = presets::all(&context.environment);
    let rows: Vec<(String, String)> = presets
        .iter()
        .map(|preset| {
            let mut text = Escaped(&preset.description).to_string();
            if let Some(path) = &preset.path {
                let path = path.to_string_lossy();
                let blank = if text.is_empty() { "" } else { " " };
                text = format!("{text}{blank}({})", Escaped(&path));
            }
            (Escaped(&preset.name).to_string(), text)
        })
        .collect();
    let width = rows.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, description) in rows {
        let padding = width - name.width();
        writeln!(text, "{name}{:padding$}  {description}", "").expect("writing into a String cannot fail");
    }
    print(&text)?;
    Ok(Code::Fine.into())
}

/// Findings are what was asked for: they go to stdout.
fn check(matches: &ArgMatches, context: &Context) -> Result<ExitCode> {
    let found = config::check(matches, &context.environment);
    let text =
        if matches.get_flag("as_json") { json::pretty(&checked_json(&found)) } else { checked(&found) };
    print(&text)?;
    let code = if found.findings.iter().any(Finding::is_error) { Code::Findings } else { Code::Fine };
    Ok(code.into())
}

fn checked(Checked { findings, notes, files }: &Checked) -> String {
    let (errors, warnings): (Vec<&Finding>, Vec<&Finding>) =
        findings.iter().partition(|finding| finding.is_error());
    let mut lines = Vec::new();
    for (findings, what) in [(errors, "error"), (warnings, "warning")] {
        if !findings.is_empty() {
            lines.push(format!("{} {what}(s) found:", findings.len()));
            lines.extend(findings.iter().map(|finding| format!("  {finding}")));
        }
    }
    if files.is_empty() {
        lines.push("no files to check (`rano config paths` lists where they are looked for)".to_owned());
    }
    let wrong = |path: &PathBuf| findings.iter().any(|finding| finding.path == *path);
    let right = files.iter().filter(|path| !wrong(path));
    lines.extend(right.map(|path| format!("  ✓ {}", Escaped(&path.to_string_lossy()))));
    lines.extend(notes.iter().map(|note| format!("  note: {}", Line(note))));
    lines.join("\n") + "\n"
}

fn checked_json(Checked { findings, notes, files }: &Checked) -> Json {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let rows: Vec<Json> = findings
        .iter()
        .map(|finding| {
            let severity = if finding.is_error() { "error" } else { "warning" };
            let mut row = json!({
                "severity": severity,
                "path": finding.path.to_string_lossy(),
                "message": finding.message,
            });
            if let (Some(line), Some(row)) = (finding.line, row.as_object_mut()) {
                row.insert("line".into(), line.into());
            }
            row
        })
        .collect();
    json!({
        "errors": errors,
        "warnings": findings.len() - errors,
        "findings": rows,
        "notes": notes,
        "files": files.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
    })
}

/// What is worth showing: all that a config file can say, and a hidden option if somebody set it.
fn is_shown(option: &Resolved) -> bool {
    option.spec.in_file && (!option.spec.is_hidden() || *option.origin() != Origin::Default)
}

/// `key = value   # origin`, which is a config file; the providers after it are a rano.toml, as comments.
fn shown(configuration: &Configuration) -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    for option in configuration.options.iter().filter(|option| is_shown(option)) {
        for (key, value, origin) in option.lines() {
            let value = format!("{key} = {}", Line(&value.to_string()));
            rows.push((value, Escaped(&origin.to_string()).to_string()));
        }
    }
    let providers = provider_rows(&configuration.providers);
    let text = format!("{}\n# [providers]\n{}", aligned(&rows, ""), aligned(&providers, "# "));
    let endpoints: Vec<(String, String)> = configuration
        .endpoints
        .entries
        .iter()
        .map(|entry| {
            let names = Json::from(entry.names.as_slice());
            (
                format!("{} = {}", entry.class.name(), json::text(&names)),
                Escaped(&entry.origin.to_string()).to_string(),
            )
        })
        .collect();
    if endpoints.is_empty() { text } else { format!("{text}\n# [endpoints]\n{}", aligned(&endpoints, "# ")) }
}

fn provider_rows(providers: &ProvidersConfig) -> Vec<(String, String)> {
    let mut rows = vec![(
        format!("mode = \"{}\"", providers.mode.name()),
        Escaped(&providers.mode_origin.to_string()).to_string(),
    )];
    for entry in &providers.entries {
        let name = Escaped(&entry.name).to_string();
        let patterns = Json::from(entry.patterns.as_slice());
        rows.push((
            format!("{name} = {}", json::text(&patterns)),
            Escaped(&entry.origin.to_string()).to_string(),
        ));
    }
    rows
}

/// A long value does not push all origins away.
fn aligned(rows: &[(String, String)], before: &str) -> String {
    let width = rows.iter().map(|(value, _)| value.chars().count()).max().unwrap_or(0).min(60);
    rows.iter()
        .fold(String::new(), |text, (value, origin)| format!("{text}{before}{value:width$}   # {origin}\n"))
}

/// Key to value and origin; under `providers` the mode and, for each provider, a list of patterns and origin.
fn shown_json(configuration: &Configuration) -> Json {
    let mut object = Map::new();
    for option in configuration.options.iter().filter(|option| is_shown(option)) {
        for (key, value, origin) in option.lines() {
            let row = json!({ "value": Json::from(&value), "origin": origin.to_string() });
            object.insert(key.to_owned(), row);
        }
    }
    let ProvidersConfig { mode, mode_origin, entries, .. } = &configuration.providers;
    let mut providers = Map::new();
    providers.insert("mode".into(), json!({ "value": mode.name(), "origin": mode_origin.to_string() }));
    for entry in entries {
        let row = json!({ "value": entry.patterns, "origin": entry.origin.to_string() });
        if let Json::Array(rows) = providers.entry(entry.name.clone()).or_insert_with(|| json!([])) {
            rows.push(row);
        }
    }
    object.insert("providers".into(), Json::Object(providers));
    let mut endpoints = Map::new();
    for entry in &configuration.endpoints.entries {
        let row = json!({ "value": entry.names, "origin": entry.origin.to_string() });
        if let Json::Array(rows) = endpoints.entry(entry.class.name()).or_insert_with(|| json!([])) {
            rows.push(row);
        }
    }
    object.insert("endpoints".into(), Json::Object(endpoints));
    Json::Object(object)
}

fn content(candidate: &Candidate) -> &'static str {
    match candidate.content {
        Content::Options => "options",
        Content::Providers => "providers",
    }
}

fn status(candidate: &Candidate) -> (&'static str, Option<&'static str>) {
    match candidate.status {
        Status::Found => ("found", None),
        Status::Missing => ("missing", None),
        Status::Ignored(reason) => ("ignored", Some(reason)),
        Status::OutOfReach => ("out of reach", Some("its directory may not be entered")),
    }
}

fn paths(candidates: &[Candidate]) -> String {
    candidates.iter().fold(String::new(), |text, candidate| {
        let (status, reason) = status(candidate);
        let path = candidate.path.to_string_lossy();
        let mut line = format!("{:9}  {status:12}  {}", content(candidate), Escaped(&path));
        if candidate.named_by != Origin::Default {
            line = format!("{line}   # {}", Escaped(&candidate.named_by.to_string()));
        }
        if let Some(reason) = reason {
            line = format!("{line}   ({reason})");
        }
        format!("{text}{line}\n")
    })
}

fn paths_json(candidates: &[Candidate]) -> Json {
    candidates
        .iter()
        .map(|candidate| {
            let (status, reason) = status(candidate);
            let mut row = json!({
                "content": content(candidate),
                "path": candidate.path.to_string_lossy(),
                "status": status,
                "origin": candidate.named_by.to_string(),
            });
            if let (Some(reason), Some(row)) = (reason, row.as_object_mut()) {
                row.insert("reason".into(), reason.into());
            }
            row
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::World;

    const RUNS: [&[&str]; 4] = [
        &[],
        &["--no-sqlite", "--no-udp", "--no-descendants", "--color=always", "--pid=5,6", "--json"],
        &["--sqlite=x.db", "--no-color", "--theme=mono", "--session-name=s 1", "--pattern=a", "--pattern=b"],
        &[
            "--no-redact",
            "--notify-buffer=4096",
            "--exclude-pattern=z",
            "--log-file=l",
            "--stats-interval-ms=0",
        ],
    ];

    /// A JSON value as a config file would give it.
    fn as_text(value: &Json) -> String {
        match value {
            Json::Null => String::new(),
            Json::String(text) => text.clone(),
            Json::Array(items) => items.iter().map(as_text).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        }
    }

    #[test]
    fn what_is_shown_gives_the_same_settings_again() {
        for flags in RUNS {
            let configuration = World::new().load(flags).unwrap();
            let shown_again = World::config(&shown(&configuration)).load(&[]).unwrap();
            assert_eq!(shown_again.settings, configuration.settings, "{flags:?}");

            // An override has to come after the value that it hides, and JSON knows no order.
            let json = shown_json(&configuration);
            let mut lines: Vec<_> = json
                .as_object()
                .unwrap()
                .iter()
                .filter(|(key, _)| !matches!(key.as_str(), "providers" | "endpoints"))
                .map(|(key, row)| format!("{key}={}", as_text(&row["value"])))
                .collect();
            lines.sort_by_key(|line| line.starts_with("no_"));
            let json_again = World::config(&lines.join("\n")).load(&[]).unwrap();
            assert_eq!(json_again.settings, configuration.settings, "{flags:?}");
        }
    }

    #[test]
    fn every_row_has_its_origin() {
        let configuration = World::config("stats_top=7").load(&["--no-sqlite"]).unwrap();
        let json = shown_json(&configuration);
        assert_eq!(json["no_sqlite"], json!({ "value": true, "origin": "flag" }));
        assert_eq!(json["interval_ms"], json!({ "value": 1000, "origin": "default" }));
        assert_eq!(json["pid"], json!({ "value": [], "origin": "default" }));
        assert!(json["stats_top"]["origin"].as_str().unwrap().ends_with("config.conf:1"));
        let anthropic = json!([{ "value": ["claude", "anthropic"], "origin": "default" }]);
        assert_eq!(json["providers"]["anthropic"], anthropic);
        assert!(shown(&configuration).lines().all(|line| line.len() < 2 || line.contains('#')));
    }

    #[test]
    fn show_takes_the_flags_of_a_run_and_json_is_its_own() {
        let arguments = ["rano", "config", "show", "--json", "--interval-ms", "500", "--no-udp"];
        let matches = crate::commands::command().try_get_matches_from(arguments).unwrap();
        let (_, config) = matches.subcommand().unwrap();
        let (_, show) = config.subcommand().unwrap();
        assert!(show.get_flag("as_json"));
        let environment = crate::config::Environment::default();
        let settings = crate::config::load(show, &environment).unwrap().settings;
        assert_eq!((settings.interval_ms, settings.udp, settings.is_json()), (500, false, false));
    }

    #[test]
    fn hostile_values_are_shown_escaped() {
        let configuration = World::new().load(&["--session-name=\x1b[31mred\nline"]).unwrap();
        assert!(shown(&configuration).contains("session_name = \\x1b[31mred\\nline"));
    }
}

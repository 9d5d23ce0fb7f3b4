mod untrusted;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::spec::{Effect, OptionSpec};
use super::value::Value;
use super::*;
use crate::commands::command;
use crate::event::Source;
use crate::output::style::Theme;
use crate::totals::View;

/// A home with `work` in it, files, variables and a command line.
pub(crate) struct World {
    home: TempDir,
    variables: Vec<(&'static str, &'static str)>,
    is_root: bool,
}

impl World {
    pub(crate) fn new() -> Self {
        let home = TempDir::new().unwrap();
        fs::create_dir_all(home.path().join(".config/rano")).unwrap();
        fs::create_dir(home.path().join("work")).unwrap();
        Self { home, variables: Vec::new(), is_root: false }
    }

    pub(crate) fn config(text: &str) -> Self {
        Self::new().file(".config/rano/config.conf", text)
    }

    pub(crate) fn file(self, path: &str, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(path), text).unwrap();
        self
    }

    fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    fn environment(&self) -> Environment {
        let mut environment = Environment::of(self.home.path(), &self.variables);
        environment.is_root = self.is_root;
        environment
    }

    pub(crate) fn load(&self, flags: &[&str]) -> Result<Configuration, Vec<Finding>> {
        load(&matches(flags), &self.environment())
    }

    fn settings(&self, flags: &[&str]) -> Settings {
        self.load(flags).unwrap().settings
    }

    /// Severity, path under the home, line and message of each finding.
    fn findings(&self, flags: &[&str]) -> Vec<String> {
        let findings = self.load(flags).map_or_else(|findings| findings, |loaded| loaded.warnings);
        let home = format!("{}/", self.home.path().display());
        findings.iter().map(|finding| finding.to_string().replace(&home, "")).collect()
    }

    fn providers(&self) -> Vec<(String, Vec<String>, bool)> {
        let entries = self.load(&[]).unwrap().providers.entries;
        entries
            .into_iter()
            .map(|entry| (entry.name.clone(), entry.patterns.clone(), entry.is_user()))
            .collect()
    }
}

fn matches(flags: &[&str]) -> ArgMatches {
    command().try_get_matches_from([&["rano"], flags].concat()).unwrap()
}

fn rejected(flags: &[&str]) -> String {
    let error = command().try_get_matches_from([&["rano"], flags].concat()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn spellings() -> impl Iterator<Item = (&'static OptionSpec, &'static spec::Spelling)> {
    layers::keys().map(|(_, spec, spelling)| (spec, spelling))
}

#[test]
fn the_table_is_sound() {
    command().debug_assert();
    let mut keys = HashSet::new();
    for (spec, spelling) in spellings() {
        let key = spelling.key;
        assert!(keys.insert(key), "{key} is there twice");
        assert!(key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{key}");
        assert_eq!(spelling.flag().replace('-', "_"), key);
        assert_eq!(spelling.variable(), format!("RANO_{}", key.to_uppercase()));
        assert!(!spelling.help.is_empty() && spelling.help.len() <= 72, "{key}: {}", spelling.help);
        assert!(!spelling.help.ends_with('.'), "{key}: a help line has no full stop");
        assert!(spelling.help.starts_with(|first: char| first.is_ascii_uppercase()), "{key}");
        assert!(spec.details.is_empty() || spec.details.ends_with('.'), "{key}: details are sentences");
    }
    assert_eq!(Field::ALL.len(), OPTIONS.len());
    for (position, (field, spec)) in Field::ALL.iter().zip(OPTIONS).enumerate() {
        assert!(spec.is(*field) && *field as usize == position, "{}", spec.name);
        let first = spec.spellings[0].effect;
        assert!(matches!(first, Effect::Set | Effect::Invert), "{} is shown by its first key", spec.name);
        assert_ne!(spec.default_text().map(|_| spec.default_value()), Some(Value::Absent), "{}", spec.name);
    }
}

#[test]
fn every_default_is_a_setting() {
    let settings = World::new().settings(&[]);
    assert_eq!(settings.pattern[..3], ["claude", "codex", "gemini"]);
    assert_eq!(settings.interval_ms, 1000);
    assert!(settings.udp && settings.descendants && settings.banner && settings.redact);
    assert!(!settings.listening && !settings.is_json() && !settings.once);
    assert_eq!(settings.sqlite, Some("observer.sqlite".into()));
    assert_eq!((settings.db_batch_size, settings.db_flush_ms, settings.db_queue_max), (200, 1000, 10_000));
    assert_eq!((settings.stats_interval_ms, settings.stats_width, settings.stats_top), (2000, 40, 5));
    assert_eq!(settings.stats_view, [View::Provider]);
    assert_eq!((settings.color, settings.theme), (ColorChoice::Auto, Theme::Vivid));
    assert_eq!((settings.source, settings.log_format), (Source::Auto, LogFormat::Auto));
    assert_eq!((settings.log_file, settings.session_name, settings.exclude_pattern.len()), (None, None, 0));
}

#[test]
fn a_higher_layer_wins_and_is_named_as_the_origin() {
    let world = World::config("\ninterval_ms = 200  # fast\n");
    let origin = |world: &World, flags: &[&str]| {
        let loaded = world.load(flags).unwrap();
        let home = format!("{}/", world.home.path().display());
        (loaded.settings.interval_ms, loaded.origin(Field::interval_ms).to_string().replace(&home, ""))
    };
    assert_eq!(origin(&World::new(), &[]), (1000, "default".into()));
    assert_eq!(origin(&world, &[]), (200, "config file .config/rano/config.conf:2".into()));
    let world = world.variable("RANO_INTERVAL_MS", "300");
    assert_eq!(origin(&world, &[]), (300, "environment RANO_INTERVAL_MS".into()));
    assert_eq!(origin(&world, &["--interval-ms", "400"]), (400, "flag".into()));
}

#[test]
fn an_empty_variable_is_unset() {
    let world = World::config("interval_ms=200").variable("RANO_INTERVAL_MS", "").variable("NO_COLOR", "");
    assert_eq!(world.settings(&[]).interval_ms, 200);
    assert_eq!(world.settings(&[]).color, ColorChoice::Auto);
}

#[test]
fn a_boolean_can_be_turned_off_again() {
    let world = World::config("json=yes\nno_redact = 1");
    assert!(world.settings(&[]).is_json() && !world.settings(&[]).redact);
    assert!(!world.settings(&["--json=false"]).is_json());
    assert!(!world.settings(&["--json", "--json=no"]).is_json());
    assert!(world.settings(&["--json=false", "--json"]).is_json());
    assert!(world.settings(&["--no-redact=false"]).redact);
    assert!(!World::config("json=true").variable("RANO_JSON", "0").settings(&[]).is_json());
}

#[test]
fn of_an_opposing_pair_the_higher_layer_wins_and_on_the_command_line_the_later() {
    let udp = |config: &str, flags: &[&str]| World::config(config).settings(flags).udp;
    assert!(!udp("no_udp=true", &[]));
    assert!(udp("no_udp=true", &["--include-udp"]));
    assert!(!udp("include_udp=true", &["--no-udp"]));
    assert!(!udp("", &["--include-udp", "--no-udp"]));
    assert!(udp("", &["--no-udp", "--include-udp"]));
    assert!(udp("no_udp=true\ninclude_udp=true", &[]), "in a file the later line");

    let sqlite = |config: &str, flags: &[&str]| World::config(config).settings(flags).sqlite;
    assert_eq!(sqlite("sqlite=a.db", &["--no-sqlite"]), None);
    assert_eq!(sqlite("no_sqlite=true", &["--sqlite", "b.db"]), Some("b.db".into()));
    assert_eq!(sqlite("sqlite=a.db\nno_sqlite=true", &["--no-sqlite=false"]), Some("a.db".into()));
    assert_eq!(sqlite("", &["--sqlite", "b.db", "--no-sqlite"]), None);
}

#[test]
fn colour_is_declined_by_no_color_and_insisted_on_by_a_flag() {
    let world = World::config("color=always").variable("NO_COLOR", "1");
    assert_eq!(world.settings(&[]).color, ColorChoice::Never);
    assert_eq!(world.load(&[]).unwrap().origin(Field::color).to_string(), "environment NO_COLOR");
    assert_eq!(world.settings(&["--color", "always"]).color, ColorChoice::Always);
    assert_eq!(world.settings(&["--color=always", "--no-color"]).color, ColorChoice::Never);
    let world = world.variable("RANO_COLOR", "always");
    assert_eq!(world.settings(&[]).color, ColorChoice::Always);
}

#[test]
fn a_list_replaces_the_list_of_a_lower_layer() {
    let world = World::config("pattern = aider , cline,\npid=7,8");
    assert_eq!(world.settings(&[]).pattern, ["aider", "cline"]);
    assert_eq!(world.settings(&["--pattern", "a,b", "--pattern=c"]).pattern, ["a,b", "c"]);
    assert_eq!(world.settings(&["--pid", "1,2", "--pid", "3"]).pid, [1, 2, 3]);
    assert_eq!(world.settings(&[]).pid, [7, 8]);
    let world = world.variable("RANO_PATTERN", "x,y");
    assert_eq!(world.settings(&[]).pattern, ["x", "y"]);
}

#[test]
fn bad_flags_are_refused_by_name() {
    assert!(rejected(&["--patern", "x"]).contains("'--patern'"));
    assert!(rejected(&["--interval-ms", "5"]).ends_with("must be >= 10"));
    assert!(rejected(&["--interval-ms", "-5"]).ends_with("must be a non-negative integer"));
    assert!(rejected(&["--pid", "0"]).ends_with("must be >= 1"));
    assert!(rejected(&["--pid", "99999999999"]).ends_with("must be <= 2147483647"));
    assert!(rejected(&["--pattern", ""]).contains("--pattern"));
    assert!(rejected(&["--exclude-pattern", "  "]).ends_with("must not be empty"));
    assert!(rejected(&["--exclude-pattern", "cmd: "]).ends_with("must not be empty"));
    assert!(rejected(&["--log-file", ""]).contains("--log-file"));
    assert!(rejected(&["--db-batch-size", "0"]).ends_with("must be >= 1"));
    assert!(rejected(&["--stats-width", "401"]).ends_with("must be <= 400"));
    assert!(rejected(&["--source", "magic"]).contains("'magic'"));
    assert!(rejected(&["--json=maybe"]).contains("must be a boolean"));
    assert!(rejected(&["--json", "config", "show"]).contains("'config'"));
    assert!(rejected(&["extra"]).contains("'extra'"));
}

#[test]
fn what_is_wrong_in_a_config_file_is_told_by_line() {
    let world = World::config(
        "# a comment\nintervall_ms=1\ninterval_ms=abc\njson=maybe\ntheme=red\ndb_batch_size=0\n\
         stats_view=invalid\nlog_file=/nonexistent/rano.log\nnonsense\nconfig=x\npattern=\n=1\nzzz=1\n",
    );
    let at = |line: usize, message: &str| format!("✗ .config/rano/config.conf:{line}: {message}");
    let expected = [
        at(2, "unknown key 'intervall_ms' (possible typo?): the nearest is 'interval_ms'").replace('✗', "⚠"),
        at(3, "'interval_ms' must be a non-negative integer, got 'abc'"),
        at(4, "'json' must be a boolean (true/false/yes/no/1/0), got 'maybe'"),
        at(5, "'theme' must be one of [vivid, mono, colorblind], got 'red'"),
        at(6, "'db_batch_size' must be >= 1, got 0"),
        at(7, "'stats_view' contains invalid value 'invalid'"),
        at(8, "log_file parent directory '/nonexistent' does not exist"),
        at(9, "expected key=value, got 'nonsense'"),
        at(10, "'config' cannot be set in a config file"),
        at(11, "'pattern' must not be empty"),
        at(12, "unknown key '' (possible typo?)").replace('✗', "⚠"),
        at(13, "unknown key 'zzz' (possible typo?)").replace('✗', "⚠"),
    ];
    assert_eq!(world.findings(&[]), expected);
}

#[test]
fn a_warning_does_not_stop_the_start_and_an_error_in_a_variable_does() {
    let world = World::config("intervall_ms=1\ninterval_ms=250");
    assert_eq!(world.load(&[]).unwrap().warnings.len(), 1);
    assert_eq!(world.settings(&[]).interval_ms, 250);
    let world = World::new().variable("RANO_STATS_TOP", "x");
    let expected = "✗ environment: 'RANO_STATS_TOP' must be a non-negative integer, got 'x'";
    assert_eq!(world.findings(&[]), [expected]);
}

#[test]
fn a_misspelt_variable_is_a_warning_and_one_of_another_program_is_none() {
    let world = World::new()
        .variable("RANO_INTERVALL_MS", "500")
        .variable("RANO_JSNO", "1")
        .variable("RANO_THEME", "mono")
        .variable("RANO_UPDATE_URL", "x")
        .variable("RANO_THEM", "");
    let warnings: Vec<_> = world.load(&[]).unwrap().warnings.iter().map(ToString::to_string).collect();
    let expected = [
        "⚠ environment: unknown variable 'RANO_INTERVALL_MS' (possible typo?): the nearest is 'RANO_INTERVAL_MS'",
        "⚠ environment: unknown variable 'RANO_JSNO' (possible typo?): the nearest is 'RANO_JSON'",
    ];
    assert_eq!(warnings, expected);
}

#[test]
fn values_keep_a_hash_that_begins_no_comment_and_paths_know_home() {
    let world = World::config("\u{feff}pattern=c#,x # not this\r\nsqlite = ~/a.db\r\nlog_dir=~other/x\r\n");
    let settings = world.settings(&[]);
    assert_eq!(settings.pattern, ["c#", "x"]);
    assert_eq!(settings.sqlite, Some(world.path("a.db")));
    assert_eq!(settings.log_dir, Some("~other/x".into()));
}

#[test]
fn a_config_path_that_cannot_be_read_is_an_error_of_its_own() {
    let severity = |world: &World, flags: &[&str]| world.load(flags).unwrap_err()[0].severity;
    let world = World::new();
    let directory = world.path("work");
    assert_eq!(severity(&world, &["--config", "/nonexistent.conf"]), Severity::CannotOpen);
    assert_eq!(severity(&world, &["--config", directory.to_str().unwrap()]), Severity::Error);
    assert_eq!(severity(&world, &["--config-toml", "/nonexistent.toml"]), Severity::CannotOpen);

    let world = World::new().file("latin1.conf", b"interval_ms=100\npattern=caf\xe9\n");
    let named = world.path("latin1.conf");
    assert_eq!(
        world.findings(&["--config", named.to_str().unwrap()]),
        ["✗ latin1.conf:2: is not UTF-8 text"]
    );
    fs::create_dir(world.path(".config/rano/config.conf")).unwrap();
    assert_eq!(world.findings(&[]), ["✗ .config/rano/config.conf: is a directory"]);
    let world = World::new().file(".rano.toml", vec![b'#'; (1 << 20) + 1]);
    assert_eq!(world.findings(&[]), ["✗ .rano.toml: is larger than 1024 KiB"]);
}

#[test]
fn a_pipe_in_the_place_of_a_file_does_not_hang_the_start() {
    let world = World::new();
    let mode = rustix::fs::Mode::RUSR;
    let pipe = world.path("work/rano.toml");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert_eq!(world.findings(&[]), ["⚠ work/rano.toml: cannot be read: not a regular file; left out"]);
}

#[test]
fn no_config_leaves_out_every_file_that_was_not_named() {
    let world = World::config("interval_ms=abc").file(".rano.toml", "x = [").file("named.toml", "");
    let named = world.path("named.toml");
    let flags = ["--no-config", "--config-toml", named.to_str().unwrap()];
    assert_eq!(world.load(&flags).unwrap().files_used, [named]);
    let world = World::config("interval_ms=abc").file("other.conf", "interval_ms=77");
    let other = world.path("other.conf");
    assert_eq!(world.settings(&["--config", other.to_str().unwrap()]).interval_ms, 77);
}

#[test]
fn paths_lists_every_place_in_order_and_why_it_does_not_count() {
    let mut world = World::config("").variable("RANO_CONFIG_TOML", "/etc/a.toml");
    world.is_root = true;
    let listed: Vec<_> = paths(&matches(&["--config-toml", "b.toml"]), &world.environment())
        .into_iter()
        .map(|candidate| (candidate.path, candidate.named_by.to_string(), candidate.status))
        .collect();
    let root = Status::Ignored("root does not read what an agent may have written");
    let expected = [
        (world.path(".config/rano/config.conf"), "default".into(), Status::Found),
        (world.path(".rano.toml"), "default".into(), Status::Missing),
        (world.path(".config/rano/rano.toml"), "default".into(), Status::Missing),
        (world.path("work/rano.toml"), "default".into(), root),
        ("/etc/a.toml".into(), "environment RANO_CONFIG_TOML".into(), Status::Missing),
        (world.path("work/b.toml"), "flag".into(), Status::Missing),
    ];
    assert_eq!(listed, expected);
}

fn entry(name: &str, patterns: &[&str], is_user: bool) -> (String, Vec<String>, bool) {
    (name.into(), patterns.iter().map(|&pattern| pattern.into()).collect(), is_user)
}

#[test]
fn merging_adds_to_the_built_in_providers_and_replacing_drops_them() {
    let text = "[providers]\nanthropic = [\"Claude\", \"acme\"]\nlocal = [\"ollama\"]\n";
    let merged = World::new().file(".rano.toml", text);
    assert_eq!(
        merged.providers(),
        [
            entry("anthropic", &["anthropic"], false),
            entry("openai", &["codex", "openai"], false),
            entry("google", &["gemini", "google"], false),
            entry("anthropic", &["Claude", "acme"], true),
            entry("local", &["ollama"], true),
        ]
    );
    let replaced = World::new().file(".rano.toml", format!("{text}mode = \"replace\"\n"));
    assert_eq!(
        replaced.providers(),
        [entry("anthropic", &["Claude", "acme"], true), entry("local", &["ollama"], true)]
    );
}

#[test]
fn a_later_file_wins_key_by_key() {
    let world = World::new()
        .file(".rano.toml", "[providers]\nmode='replace'\na=['one']\nb=['two']")
        .file(".config/rano/rano.toml", "[providers]\na=['three']");
    assert_eq!(world.providers(), [entry("b", &["two"], true), entry("a", &["three"], true)]);
    let world = world.file("flag.toml", "[providers]\nmode='merge'\nb=['four']");
    let flag = world.path("flag.toml");
    let loaded = world.load(&["--config-toml", flag.to_str().unwrap()]).unwrap();
    let names: Vec<_> = loaded.providers.entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["anthropic", "openai", "google", "a", "b"]);
    assert_eq!(loaded.files_used, [world.path(".rano.toml"), world.path(".config/rano/rano.toml"), flag]);
}

#[test]
fn the_file_in_the_working_directory_can_only_add() {
    let world = World::new().file(".rano.toml", "[providers]\nacme = ['AcmeBot']").file(
        "work/rano.toml",
        "[providers]\nmode = 'replace'\nanthropic = ['sonnet', 'codex']\n\
         evil = ['CLAUDE-code', 'laud', 'acmebot2', 'other']\n",
    );
    assert_eq!(
        world.providers(),
        [
            entry("anthropic", &["claude", "anthropic"], false),
            entry("openai", &["codex", "openai"], false),
            entry("google", &["gemini", "google"], false),
            entry("acme", &["AcmeBot"], true),
            entry("anthropic", &["sonnet"], false),
            entry("evil", &["other"], false),
        ]
    );
    let loaded = world.load(&[]).unwrap();
    let notes = loaded.notes.join("\n");
    for expected in ["can only add providers", "mode is not obeyed", "'codex'", "'laud'", "'acmebot2'"] {
        assert!(notes.contains(expected), "{expected}: {notes}");
    }
    assert_eq!(loaded.notes.len(), 6);
}

#[test]
fn a_named_file_has_the_last_word_over_the_working_directory() {
    let world = World::new()
        .file("work/rano.toml", "[providers]\nacme = ['x1']\nmore = ['x2']")
        .file("named.toml", "[providers]\nacme = ['y1']");
    let named = world.path("named.toml");
    let loaded = world.load(&["--config-toml", named.to_str().unwrap()]).unwrap();
    let added: Vec<_> = loaded.providers.entries[3..].iter().map(|entry| &entry.patterns[0]).collect();
    assert_eq!(added, ["y1", "x2"]);
}

#[test]
fn root_does_not_read_the_working_directory() {
    let mut world = World::new().file("work/rano.toml", "this is no TOML");
    world.is_root = true;
    let loaded = world.load(&[]).unwrap();
    assert!(loaded.files_used.is_empty());
    assert!(loaded.notes[0].ends_with("is not read: root does not read what an agent may have written"));
}

#[test]
fn what_is_wrong_in_a_providers_file_is_told_by_line() {
    let check = |text: &str, expected: &[&str]| {
        assert_eq!(World::new().file(".rano.toml", text).findings(&[]), expected, "{text}");
    };
    check(
        "[providers]\nmode = 'bad'",
        &["✗ .rano.toml:2: providers.mode must be one of [merge, replace], got 'bad'"],
    );
    check(
        "[providers]\nmode = 1",
        &["✗ .rano.toml:2: providers.mode must be one of [merge, replace], got integer"],
    );
    check("[providers]\nx = 'y'", &["✗ .rano.toml:2: providers.x must be an array of strings, got string"]);
    check(
        "[providers]\nx = [1]",
        &["✗ .rano.toml:2: providers.x must be an array of strings, got an item of type integer"],
    );
    check(
        "[providers]\nx = ['a',\n'']",
        &["✗ .rano.toml:3: providers.x contains an empty pattern, which matches everything"],
    );
    check("providers = 3", &["✗ .rano.toml:1: providers must be a table, got integer"]);
    check("[providers]\nunknown = ['a']", &["✗ .rano.toml:2: providers.unknown is the word for no provider"]);
    check(
        "\n[provider]\nx = ['a']",
        &["⚠ .rano.toml:2: unknown key 'provider' (possible typo?): the nearest is 'providers'"],
    );
    let world = World::new().file(".rano.toml", "[providers]\nx = [\"é\" oops]\n");
    let finding = &world.findings(&[])[0];
    assert!(finding.starts_with("✗ .rano.toml:2: TOML parse error: line 2, column 10: "), "{finding}");
}

#[test]
fn any_bytes_are_a_config_file_or_findings() {
    let mut state = 1u32;
    for _ in 0..300 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"=#[]\"'\n ,.abmode\xc3\xa9\x00~1"[(state >> 16) as usize % 21]
        })
        .take(60)
        .collect();
        let world = World::new().file(".config/rano/config.conf", &bytes).file("work/rano.toml", &bytes);
        let _ = world.load(&[]);
    }
}

#[test]
fn deep_nesting_is_a_parse_error() {
    let world = World::new().file("work/rano.toml", format!("x = {}", "[".repeat(500_000)));
    assert!(world.findings(&[])[0].contains("TOML parse error: line 1"));
}

#[test]
fn an_override_hides_a_value_and_keeps_it() {
    let loaded = World::config("sqlite=a.db").load(&["--no-sqlite"]).unwrap();
    let sqlite = &loaded.options[Field::sqlite as usize];
    assert_eq!(sqlite.value(), Value::Absent);
    let lines: Vec<_> = sqlite.lines().into_iter().map(|(key, value, _)| format!("{key}={value}")).collect();
    assert_eq!(lines, ["sqlite=a.db", "no_sqlite=true"]);
    assert_eq!(*sqlite.origin(), Origin::Flag);
}

#[test]
fn relative_places_are_shown_absolute() {
    assert_eq!(file::absolute(Path::new("x"), Some(Path::new("/w"))), Path::new("/w/x"));
    assert_eq!(file::absolute(Path::new("/x"), Some(Path::new("/w"))), Path::new("/x"));
}

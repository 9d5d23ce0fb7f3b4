//! Every option, once. A new one is an entry here; flag, key, variable, help, man page, completions and the field of
//! `Settings` follow.

use std::path::PathBuf;
use std::time::Duration;

use super::spec::Effect::{Invert, Override, Set};
use super::spec::Group::{Alerts, Capture, Configuration, History, Names, Output, Stats, Targets};
use super::spec::{Spelling, option, options};
use super::value::{ByteSize, Kind, Setting, Value, choices};
use crate::event::{Class, Source};
use crate::filter::Filter;
use crate::glob::Glob;
use crate::output::style::Theme;
use crate::process::agents;
use crate::totals::View;

choices! {
    /// Where names of addresses are to come from.
    pub enum DomainMode {
        /// From packets where the kernel's programs run, else from reverse look-ups.
        Auto = "auto",
        /// From reverse look-ups alone.
        Ptr = "ptr",
        /// From packets, by libpcap.
        Pcap = "pcap",
        /// From packets, by the kernel's programs.
        Ebpf = "ebpf",
    }
}

choices! {
    /// Which rung of kernel programs is to be taken.
    pub enum RungChoice {
        /// The best one.
        Any = "any",
        Fentry = "fentry",
        Kprobe = "kprobe",
        Tracepoint = "tracepoint",
    }
}

choices! {
    /// Shape of the events on standard output.
    pub enum FormatChoice {
        /// Lines on a terminal, else the long form.
        Auto = "auto",
        /// A row an event, as wide as the terminal.
        Line = "line",
        /// The long form.
        Pretty = "pretty",
        Json = "json",
    }
}

choices! {
    /// Shape of the log file.
    pub enum LogFormat {
        /// As stdout.
        Auto = "auto",
        Pretty = "pretty",
        Json = "json",
    }
}

choices! {
    /// When to write colours.
    pub enum ColorChoice {
        /// On a terminal.
        Auto = "auto",
        Always = "always",
        Never = "never",
    }
}

impl Setting for Source {
    const KIND: Kind = Kind::Choice(&words(&Self::WORDS));
    fn from_value(value: &Value) -> Option<Self> {
        let Value::Choice(chosen) = value else { return None };
        Self::WORDS.into_iter().find(|(_, word)| word == chosen).map(|(source, _)| source)
    }
}

const fn words<T, const N: usize>(pairs: &[(T, &'static str); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut at = 0;
    while at < N {
        words[at] = pairs[at].1;
        at += 1;
    }
    words
}

impl Setting for Theme {
    const KIND: Kind = Kind::Choice(&["vivid", "mono", "colorblind"]);
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Choice("vivid") => Some(Self::Vivid),
            Value::Choice("mono") => Some(Self::Mono),
            Value::Choice("colorblind") => Some(Self::Colorblind),
            _ => None,
        }
    }
}

impl Setting for Class {
    const KIND: Kind = Kind::Choice(&CLASSES);
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Choice(word) = value { Self::parse(word) } else { None }
    }
}

/// The words of [`Class::parse`].
const CLASSES: [&str; Class::ALL.len() + 1] = {
    let mut words = ["github"; Class::ALL.len() + 1];
    let mut at = 0;
    while at < Class::ALL.len() {
        words[at] = Class::ALL[at].name();
        at += 1;
    }
    words
};

impl Setting for View {
    const KIND: Kind = Kind::Choice(&View::NAMES);
    fn from_value(value: &Value) -> Option<Self> {
        let Value::Choice(word) = value else { return None };
        Self::ALL.into_iter().find(|view| view.name() == *word)
    }
}

/// What is to be left out; with [`COMMAND_LINE`](crate::process::matching::COMMAND_LINE) in front, by command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclude(pub String);

impl Setting for Exclude {
    const KIND: Kind = Kind::Exclude;
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Text(text) = value { Some(Self(text.clone())) } else { None }
    }
}

const HOUR_MS: u64 = 3_600_000;
/// More connections than anybody can have.
const COUNT_MAX: u64 = 1_000_000_000;

options! {
    /// Watch processes that match this text; repeatable
    pattern: Vec<String> = option(Targets).value_name("SUBSTR").default_from(agents::names).details(
        "Case does not matter. Your text matches anywhere in a process's name or command line. Without one, rano \
         watches every agent that `rano agents` lists. It recognises these by name only: an editor on \
         claude.md is no agent.");
    /// Leave out processes whose program matches this text; repeatable
    exclude_pattern: Vec<Exclude> = option(Targets).value_name("SUBSTR").details(
        "Matches the executable, argv[0] or script: by name, or by path if the text has a /. cmd:TEXT matches the \
         whole command line. rano decides when a process starts a program; a later change of name changes nothing. \
         Children of an excluded process are left out too, unless they match a pattern. rano counts \
         what it leaves out.");
    /// Watch this process; repeatable
    pid: Vec<u32> = option(Targets).value_name("PID").range(1, i32::MAX as u64).details(
        "Replaces the default patterns, but not given ones.");
    /// Watch the children of watched processes
    descendants: bool = option(Targets).default("true").spelled(&[
        Spelling { key: "no_descendants", effect: Invert, help: "Watch matching processes only, not their children" },
    ]);

    /// Where events come from
    source: Source = option(Capture).value_name("SOURCE").default("auto").details(
        "auto takes the best source that works here and says why.");
    /// Time between two polls, in milliseconds
    interval_ms: u64 = option(Capture).value_name("MS").range(10, HOUR_MS).default("1000");
    /// Show UDP
    udp: bool = option(Capture).default("true").spelled(&[
        Spelling { key: "include_udp", effect: Set, help: "Show UDP, which is the default" },
        Spelling { key: "no_udp", effect: Invert, help: "Leave out UDP" },
    ]);
    /// Show transports beside TCP and UDP: ICMP, raw and packet sockets, SCTP, UDP-Lite, vsock and the like
    other: bool = option(Capture).default("true").spelled(&[
        Spelling { key: "include_other", effect: Set, help: "Show other transports too, which is the default" },
        Spelling { key: "no_other", effect: Invert, help: "Leave out transports beside TCP and UDP" },
    ]);
    /// Show listening sockets and accepted connections too
    listening: bool = option(Capture).default("false").spelled(&[
        Spelling { key: "include_listening", effect: Set, help: "Show listening sockets and accepted connections too" },
    ]);
    /// Show unix sockets too
    unix: bool = option(Capture).default("false").spelled(&[
        Spelling { key: "include_unix", effect: Set, help: "Show unix sockets too" },
    ]);
    /// Show connections without a known owner too
    unattributed: bool = option(Capture).default("false").spelled(&[
        Spelling {
            key: "include_unattributed", effect: Set, help: "Show connections without a known owner too",
        },
    ]).details("rano counts them in any case. On a shared machine most of them belong to other users.");
    /// Print what is open now, and exit
    once: bool = option(Capture).default("false").details(
        "rano waits up to 300 ms for names. It keeps no history unless you name one with --sqlite.");
    /// Print the summary too, with --once
    with_summary: bool = option(Capture).default("false");
    /// Write a line to this descriptor when watching has begun
    ready_fd: Option<u32> = option(Capture).value_name("FD").range(0, 1 << 20).not_in_file().advanced();
    /// Write a line to this file when watching has begun
    ready_file: Option<PathBuf> = option(Capture).value_name("FILE").not_in_file().advanced();

    /// Where names of addresses come from
    domain_mode: DomainMode = option(Names).value_name("MODE").default("auto").spelled(&[
        Spelling { key: "domain_mode", effect: Set, help: "Where names of addresses come from" },
        Spelling { key: "pcap", effect: Override("pcap"), help: "Take names from packets on all devices: --domain-mode pcap" },
    ]).details(
        "ebpf and pcap read DNS answers and the first bytes of TLS and QUIC connections; ptr looks up the name of \
         each address. auto means ebpf where kernel programs are the source, otherwise ptr. If a mode cannot run, \
         rano says why and takes the next: ebpf, pcap, ptr.");
    /// Look up names of addresses that have no better name
    dns: bool = option(Names).default("true").spelled(&[
        Spelling {
            key: "no_dns", effect: Invert, help: "Do no reverse look-ups; names seen in packets are still used",
        },
    ]);
    /// Look up private addresses and those of this machine too
    ptr_private: bool = option(Names).default("false").advanced();
    /// Take names from a capture file
    pcap_file: Option<PathBuf> = option(Names).value_name("FILE").not_in_file().hidden();

    /// Format of the events
    format: FormatChoice = option(Output).value_name("FORMAT").default("auto").spelled(&[
        Spelling { key: "format", effect: Set, help: "Format of the events" },
        Spelling { key: "json", effect: Override("json"), help: "Write events as JSON lines: --format json" },
    ]).details(
        "line is one row an event, as wide as the terminal; pretty is the long form; json is one object a line. auto \
         means line on a terminal, otherwise pretty. A row shows no look-up of a name if a connection of the same \
         process follows within a second.");
    /// Show local times instead of UTC
    local: bool = option(Output).default("false").details(
        "In rows of --format line, and in the text of report and sessions; there the times that you give are local too. \
         All other times stay UTC.");
    /// Show only events that match this filter
    filter: Option<Filter> = option(Output).value_name("EXPR").details(
        "For example type:llm_api, 'domain:*.example.com port:443' or 'process:curl | sent:>1M'; docs/filters.md has \
         all keys. It applies to standard output and log files; history, stats, alerts and summary keep everything.");
    /// Show no events, only the summary at the end
    summary_only: bool = option(Output).default("false");
    /// Append events and the summary to a file
    log_file: Option<PathBuf> = option(Output).value_name("FILE").needs_parent();
    /// Write events and the summary to a new file in a directory
    log_dir: Option<PathBuf> = option(Output).value_name("DIR");
    /// Format of log files; auto is the same as standard output
    log_format: LogFormat = option(Output).value_name("FORMAT").default("auto").advanced();
    /// When to use colours
    color: ColorChoice = option(Output).value_name("WHEN").default("auto").spelled(&[
        Spelling { key: "color", effect: Set, help: "When to use colours" },
        Spelling { key: "no_color", effect: Override("never"), help: "Use no colours" },
    ]).details("auto uses them on a terminal, unless the variable NO_COLOR is set.");
    /// Colours to use
    theme: Theme = option(Output).value_name("THEME").default("vivid");
    /// Print at the start what is watched, and how
    banner: bool = option(Output).default("true").spelled(&[
        Spelling { key: "no_banner", effect: Invert, help: "Print no banner at the start" },
    ]);
    /// Remove secrets from command lines before showing or storing them
    redact: bool = option(Output).default("true").advanced().spelled(&[
        Spelling { key: "no_redact", effect: Invert, help: "Keep secrets in command lines" },
    ]);

    /// Database of the history
    sqlite: Option<PathBuf> = option(History).value_name("FILE").default("observer.sqlite").spelled(&[
        Spelling { key: "sqlite", effect: Set, help: "Database of the history" },
        Spelling { key: "no_sqlite", effect: Override(""), help: "Keep no history" },
    ]);
    /// Name of this session in the history
    session_name: Option<String> = option(History).value_name("NAME");
    /// Remove sessions that ended longer ago than this (24h, 30d, 8w)
    retain: Option<Duration> = option(History).value_name("SPAN").details(
        "rano removes whole sessions, a little at a time. It leaves running sessions alone, also those of other \
         ranos. The file keeps its size; SQLite uses the space again.");
    /// Seal the history with the key in this file
    seal_key: Option<PathBuf> = option(History).value_name("FILE").details(
        "Only its owner may be able to read the file. Without a key, whoever can write the history can seal it \
         anew. rano verify needs the same key.");
    /// Events in one transaction
    db_batch_size: usize = option(History).value_name("N").range(1, 1_000_000).default("200").advanced();
    /// Longest time before an event is written, in milliseconds
    db_flush_ms: u64 = option(History).value_name("MS").range(0, HOUR_MS).default("1000").advanced();
    /// Events that may wait to be written; further ones are dropped and counted
    db_queue_max: usize = option(History).value_name("N").range(1, 10_000_000).default("10000").advanced();

    /// Time between two live stats, in milliseconds; 0 for none
    stats_interval_ms: u64 = option(Stats).value_name("MS").range(0, HOUR_MS).default("2000");
    /// Width of the bars
    stats_width: usize = option(Stats).value_name("COLUMNS").range(1, 400).default("40");
    /// Most lines in the live stats and in each list of the summary
    stats_top: usize = option(Stats).value_name("N").range(1, 10_000).default("5");
    /// What the live stats count by; repeatable
    stats_view: Vec<View> = option(Stats).value_name("VIEW").default("provider").details(
        "Several views are shown one below the other, or in turn with --stats-cycle-ms.");
    /// Time to show each view, in milliseconds; 0 shows all at once
    stats_cycle_ms: u64 = option(Stats).value_name("MS").range(0, HOUR_MS).default("0").details(
        "Without --stats-view all views take turns.");

    /// Alert on a name that matches this glob; repeatable
    alert_domain: Vec<Glob> = option(Alerts).value_name("GLOB").details(
        "* matches any text, ? one character, [ab] one of these. Case does not matter, and names in other scripts \
         match in either spelling. *.example.com does not match example.com itself. rano compares every name that it \
         knows of a connection, late ones too.");
    /// Alert when more connections than this are active
    alert_max_connections: Option<u64> = option(Alerts).value_name("N").range(0, COUNT_MAX);
    /// Alert when one provider has more active connections than this
    alert_max_per_provider: Option<u64> = option(Alerts).value_name("N").range(0, COUNT_MAX);
    /// Alert on a connection that stays open longer than this, in milliseconds
    alert_duration_ms: Option<u64> = option(Alerts).value_name("MS").range(0, 365 * 24 * HOUR_MS);
    /// Alert on a connection that sent more than this (500K, 10M, 1G)
    alert_sent: Option<ByteSize> = option(Alerts).value_name("SIZE").details(
        "K, M, G, KiB, MiB and GiB are powers of 1024. rano reads the bytes of open connections at least once a second.");
    /// Alert on an endpoint that this agent never reached before
    alert_new: bool = option(Alerts).default("false").details(
        "An endpoint is a name, or address and port if it has none. rano compares it with the earlier sessions of \
         the history. If there are none, it says so and gives no such alert in this session.");
    /// Alert on endpoints of this class (unknown, telemetry ...); repeatable
    alert_class: Vec<Class> = option(Alerts).value_name("CLASS").details(
        "For unknown the alert waits two seconds for a name.");
    /// Alert on an address without a name
    alert_unknown_domain: bool = option(Alerts).default("false").details(
        "A name may arrive after the connection; the alert waits two seconds for it.");
    /// Ring the terminal bell with each alert
    alert_bell: bool = option(Alerts).default("false");
    /// Time before an alert may repeat, in milliseconds
    alert_cooldown_ms: u64 = option(Alerts).value_name("MS").range(0, 24 * HOUR_MS).default("10000").details(
        "For each kind of alert and its subject: the name, the provider or the address. The summary counts alerts \
         that were held back; the history marks their connections all the same.");
    /// Turn alerts on
    alerts: bool = option(Alerts).default("true").spelled(&[
        Spelling { key: "no_alerts", effect: Invert, help: "Turn all alerts off" },
    ]);

    /// Read this config file instead of the usual one
    config: Option<PathBuf> = option(Configuration).value_name("FILE").not_in_file().spelled(&[
        Spelling { key: "config", effect: Set, help: "Read this config file instead of the usual one" },
        Spelling { key: "no_config", effect: Override(""), help: "Read only files named on the command line" },
    ]);
    /// Read providers, endpoints and agents from this file too
    config_toml: Option<PathBuf> = option(Configuration).value_name("FILE").not_in_file();

    /// Take options from a preset; repeatable, the last one wins
    preset: Vec<String> = option(Configuration).value_name("NAME").not_in_file().details(
        "A preset overrides the config file; variables and flags override a preset. --list-presets lists them.");

    /// Play recorded raw events instead of observing
    replay: Option<PathBuf> = option(Capture).value_name("FILE").not_in_file().hidden();
    /// Write raw events as they come from the source
    record: Option<PathBuf> = option(Capture).value_name("FILE").not_in_file().hidden();
    /// Room for records in the kernel, in bytes; 0 for the usual
    ring_bytes: u32 = option(Capture).value_name("BYTES").range(0, 1 << 30).default("0").hidden();
    /// Sockets that the kernel programs follow at a time; 0 for the usual
    owners_max: u32 = option(Capture).value_name("N").range(0, 1 << 24).default("0").hidden();
    /// Take no other rung of kernel programs than this
    rung: RungChoice = option(Capture).value_name("RUNG").default("any").hidden();
    /// Receive buffer for destroy notifications, in bytes; 0 for the usual
    notify_buffer: usize = option(Capture).value_name("BYTES").range(0, 1 << 30).default("4194304").hidden();
}

impl Settings {
    /// Events on standard output are objects for programs.
    pub fn is_json(&self) -> bool {
        self.format == FormatChoice::Json
    }
}

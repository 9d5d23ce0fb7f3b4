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
    let port = match (&connection.remote, connection.domain_port) {
        (_, Some(port)) => format!(":{port}"),
        (Some(Address::Ip(address)), None) => format!(":{}", address.port()),
        (Some(Address::Host(_) | Address::Path(_)) | None, None) => String::new(),
    };
    let end = match (&connection.name, &connection.remote) {
        // An address that a proxy was asked for.
        (Some(known), _) if known.name.contains(':') => format!("[{}]{port}", known.name),
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
        if let Some(proxy) = connection.via() {
            return Some(format!("via {proxy}"));
        }
        if let Some(pid) = connection.relay_for {
            return Some(format!("relay for {pid}"));
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
mod tests;

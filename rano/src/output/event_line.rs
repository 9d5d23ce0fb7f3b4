//! The pretty line of an event: one line, columns separated by ` | `, absent fields left out.

use std::fmt::Write as _;

use crate::connection::Connection;
use crate::event::{Address, Class, Event, EventKind, OwnerQuality, SocketState};
use crate::output::escape::Escaped;
use crate::output::human::{Size, timestamp_seconds};
use crate::output::style::Styles;
use crate::process::ancestry;

/// Appends the line, newline included.
pub fn write(line: &mut String, event: &Event, styles: &Styles) {
    let (marker, word) = match event.kind {
        EventKind::Connect => ('+', "connect"),
        EventKind::Close => ('-', "close  "),
        EventKind::Fail => ('!', "fail   "),
        EventKind::Accept => ('<', "accept "),
        EventKind::Listen => ('~', "listen "),
    };
    let connection = &*event.connection;
    let mut out = Columns { line };
    let dim = styles.dim;
    out.put(format_args!("{dim}{}{dim:#}", timestamp_seconds(event.at.unix_ms)));
    let paint = styles.event(event.kind);
    out.column(format_args!(
        "{paint}{marker} {}{paint:#}{}",
        word.trim_end(),
        &word[word.trim_end().len()..]
    ));
    let paint = styles.provider;
    out.column(format_args!("{paint}{}{paint:#}", Escaped(&connection.provider)));
    match &connection.process {
        Some(process) => {
            out.column(format_args!("pid={}", process.id.pid));
            out.column(format_args!("{}", Escaped(&process.program)));
        }
        None => out.column(format_args!("unknown")),
    }
    out.column(format_args!("{}", connection.protocol.name()));
    addresses(&mut out, event.kind, connection);
    if let Some(known) = &connection.name {
        let paint = styles.name;
        out.column(format_args!("domain={paint}{}{paint:#}", Escaped(&known.shown())));
    }
    if let Some(proxy) = connection.via() {
        out.column(format_args!("via={proxy}"));
    }
    if let Some(port) = connection.domain_port {
        out.column(format_args!("domain_port={port}"));
    }
    if let Some(pid) = connection.relay_for {
        out.column(format_args!("relay_for={pid}"));
    }
    details(&mut out, event.kind, connection, styles);
    line.push('\n');
}

fn addresses(out: &mut Columns<'_>, kind: EventKind, connection: &Connection) {
    let Connection { local, remote, .. } = connection;
    let end = |address: &Option<Address>| match address {
        Some(address) => Escaped(&address.to_string()).to_string(),
        None => "*".to_owned(),
    };
    if kind == EventKind::Listen {
        out.column(format_args!("{}", end(local)));
    } else if kind == EventKind::Accept {
        out.column(format_args!("{} <- {}", end(local), end(remote)));
    } else {
        out.column(format_args!("{} -> {}", end(local), end(remote)));
    }
}

fn details(out: &mut Columns<'_>, kind: EventKind, connection: &Connection, styles: &Styles) {
    if let Some(duration) = connection.duration() {
        let relation = if connection.has_least_duration() { '≥' } else { '=' };
        out.column(format_args!("dur{relation}{}ms", duration.as_millis()));
    }
    if let Some(bytes) = connection.bytes {
        out.column(format_args!("sent={}", Size(bytes.sent)));
        out.column(format_args!("recv={}", Size(bytes.received)));
    }
    if let Some(pid) = connection.peer_pid {
        out.column(format_args!("peer={pid}"));
    }
    if connection.class != Class::Unknown {
        out.column(format_args!("class={}", connection.class.name()));
    }
    if let Some(errno) = connection.error() {
        let paint = styles.fail;
        match crate::errno::name(errno) {
            Some(name) => out.column(format_args!("error={paint}{name}{paint:#}")),
            None => out.column(format_args!("error={paint}errno {errno}{paint:#}")),
        }
    }
    if connection.preexisting {
        out.column(format_args!("preexisting=true"));
    }
    if connection.is_late() {
        out.column(format_args!("late=true"));
    }
    // `established` is what a connect means; only the exception is worth a column.
    if let Some(state) = connection.state
        && kind == EventKind::Connect
        && state != SocketState::Established
    {
        out.column(format_args!("state={}", state.name()));
    }
    if let Some(process) = &connection.process
        && kind != EventKind::Close
        && process.ancestry.len() > 1
    {
        let dim = styles.dim;
        out.column(format_args!("{dim}{}{dim:#}", Escaped(&ancestry::pretty(process))));
    }
    if connection.owner_quality == OwnerQuality::Unattributed {
        out.column(format_args!("owner=unattributed"));
    }
}

struct Columns<'a> {
    line: &'a mut String,
}

impl Columns<'_> {
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.line.write_fmt(text).expect("writing into a String cannot fail");
    }

    fn column(&mut self, text: std::fmt::Arguments<'_>) {
        self.line.push_str(" | ");
        self.put(text);
    }
}

//! The filter language in SQL: the same answer from columns that `filter/matching.rs` gives from an event. A term is
//! true or false, never null, so that its negation is the other.

use std::borrow::Cow;
use std::net::IpAddr;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::Value;
use rusqlite::{Connection, Error};

use crate::filter::{Filter, Network, Node, NumberKey, Ordering, Range, Term, TextKey, WordKey};
use crate::glob::{self, Glob};

/// Whether an address lies in a network; SQLite has no such thing.
const IN_NETWORK: &str = "rano_in_network";
/// A name as people read it, for the patterns that are written so.
const READABLE: &str = "rano_readable";

/// A condition on the tables that an export joins, with what its question marks stand for.
#[derive(Debug, Default)]
pub(super) struct Condition {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
    on_sums: bool,
}

impl Condition {
    /// On events with their process, kind and endpoint.
    pub(super) fn of(filter: &Filter) -> Self {
        let mut condition = Self::default();
        condition.node(filter.root());
        condition
    }

    /// On sums with their actor and endpoint; `None` where they do not tell.
    pub(super) fn on_sums(filter: &Filter) -> Option<Self> {
        is_in_sums(filter.root()).then(|| {
            let mut condition = Self { on_sums: true, ..Self::default() };
            condition.node(filter.root());
            condition
        })
    }

    /// What the condition calls, to be there before it is asked.
    pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
        let flags = FunctionFlags::SQLITE_UTF8
            | FunctionFlags::SQLITE_DETERMINISTIC
            | FunctionFlags::SQLITE_INNOCUOUS
            | FunctionFlags::SQLITE_DIRECTONLY;
        connection.create_scalar_function(IN_NETWORK, 2, flags, in_network)?;
        connection.create_scalar_function(READABLE, 1, flags, |context| Ok(readable(context)))
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::All(nodes) => self.list(nodes, " AND ", "1"),
            Node::Any(nodes) => self.list(nodes, " OR ", "0"),
            Node::Not(node) => {
                self.sql.push_str("NOT ");
                self.sql.push('(');
                self.node(node);
                self.sql.push(')');
            }
            Node::Term(term) => {
                self.sql.push_str("ifnull(");
                self.term(term);
                self.sql.push_str(", 0)");
            }
        }
    }

    fn list(&mut self, nodes: &[Node], between: &str, of_none: &str) {
        if nodes.is_empty() {
            self.sql.push_str(of_none);
            return;
        }
        self.each(nodes, between, Self::node);
    }

    fn each<T>(&mut self, items: &[T], between: &str, mut write: impl FnMut(&mut Self, &T)) {
        self.sql.push('(');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.sql.push_str(between);
            }
            write(self, item);
        }
        self.sql.push(')');
    }

    fn term(&mut self, term: &Term) {
        match term {
            Term::Text(key, globs) => self.each(globs, " OR ", |this, glob| this.text(*key, glob)),
            Term::Word(key, words) => {
                self.sql.push_str(word_column(*key));
                self.sql.push_str(" IN ");
                self.each(words, ", ", |this, word| this.value((*word).to_owned()));
            }
            Term::Number(key, ranges) => self.each(ranges, " OR ", |this, range| this.range(*key, *range)),
            Term::Ip(networks) => self.each(networks, " OR ", Self::network),
            Term::Alert(alert) => {
                self.sql.push_str("kind.alert = ");
                self.value(*alert);
            }
            Term::Anywhere(text) => self.anywhere(text),
        }
    }

    fn value(&mut self, value: impl Into<Value>) {
        self.sql.push('?');
        self.values.push(value.into());
    }

    fn glob(&mut self, column: &str, pattern: String) {
        // SQLite's lower() is for ASCII alone, as is the language's.
        self.sql.extend(["ifnull(lower(", column, ") GLOB "]);
        self.value(pattern);
        self.sql.push_str(", 0)");
    }

    fn text(&mut self, key: TextKey, glob: &Glob) {
        match key {
            TextKey::Domain => self.glob(&domain_column(glob), glob.as_sql().to_owned()),
            TextKey::Provider => {
                let column = if self.on_sums { "actor.provider" } else { "process.provider" };
                self.glob(column, glob.as_sql().to_owned());
            }
            TextKey::Program => self.glob(PROGRAM, glob.as_sql().to_owned()),
            TextKey::Agent => self.glob("tool_call.agent", glob.as_sql().to_owned()),
            TextKey::Tool => self.glob("tool_call.tool", glob.as_sql().to_owned()),
            TextKey::Process => {
                self.glob("ifnull(process.comm, 'unknown')", glob.as_sql().to_owned());
                self.sql.push_str(" OR ");
                self.glob(PROGRAM, glob.as_sql().to_owned());
                self.sql.push_str(" OR ");
                self.glob("process.exe", glob.as_sql().to_owned());
                self.sql.push_str(" OR ");
                self.glob("process.exe", format!("*/{}", glob.as_sql()));
            }
        }
    }

    fn range(&mut self, key: NumberKey, range: Range) {
        let sign = match range.ordering {
            Ordering::Above => " > ",
            Ordering::AtLeast => " >= ",
            Ordering::Below => " < ",
            Ordering::AtMost => " <= ",
            Ordering::Equal => " = ",
        };
        self.sql.extend(["ifnull(", number_column(key), sign]);
        self.value(i64::try_from(range.than).unwrap_or(i64::MAX));
        self.sql.push_str(", 0)");
    }

    fn network(&mut self, network: &Network) {
        self.sql.extend([IN_NETWORK, "(endpoint.remote, "]);
        self.value(network.to_string());
        self.sql.push(')');
    }

    fn anywhere(&mut self, text: &str) {
        let columns = [
            "endpoint.domain",
            "ifnull(process.comm, 'unknown')",
            PROGRAM,
            "process.exe",
            "process.cmdline",
            ADDRESS,
        ];
        self.each(&columns, " OR ", |this, column| {
            this.sql.extend(["ifnull(instr(lower(", column, "), "]);
            this.value(text.to_owned());
            this.sql.push_str(") > 0, 0)");
        });
    }
}

/// Sums are kept by provider and command name, and by endpoint without its port.
fn is_in_sums(node: &Node) -> bool {
    match node {
        Node::All(nodes) | Node::Any(nodes) => nodes.iter().all(is_in_sums),
        Node::Not(node) => is_in_sums(node),
        Node::Term(term) => match term {
            Term::Text(TextKey::Domain | TextKey::Provider, _)
            | Term::Word(WordKey::Type | WordKey::Protocol, _)
            | Term::Ip(_) => true,
            Term::Text(TextKey::Process | TextKey::Program | TextKey::Agent | TextKey::Tool, _)
            | Term::Word(WordKey::State | WordKey::Event | WordKey::Source | WordKey::Quality, _)
            | Term::Number(..)
            | Term::Alert(_)
            | Term::Anywhere(_) => false,
        },
    }
}

/// What a person calls a process. That of rows that are older than this column is their comm.
pub(super) const PROGRAM: &str = "ifnull(process.program, ifnull(process.comm, 'unknown'))";

/// The remote end as it is shown.
const ADDRESS: &str = "CASE WHEN endpoint.protocol = 'unix' THEN endpoint.remote
    WHEN instr(endpoint.remote, ':') THEN '[' || endpoint.remote || ']:' || ifnull(event.remote_port, 0)
    ELSE endpoint.remote || ':' || ifnull(event.remote_port, 0) END";

fn word_column(key: WordKey) -> &'static str {
    match key {
        WordKey::Type => "ifnull(endpoint.type, 'unknown')",
        WordKey::Protocol => "endpoint.protocol",
        WordKey::State => "kind.state",
        WordKey::Event => "kind.event",
        WordKey::Source => "kind.source",
        WordKey::Quality => "kind.owner_quality",
    }
}

fn number_column(key: NumberKey) -> &'static str {
    match key {
        NumberKey::Pid => "process.pid",
        NumberKey::Port => "event.remote_port",
        NumberKey::Sent => "event.bytes_sent",
        NumberKey::Received => "event.bytes_recv",
        NumberKey::Duration => "event.duration_ms",
    }
}

/// What a pattern for names is compared with.
pub(super) fn domain_column(glob: &Glob) -> Cow<'static, str> {
    const COLUMN: &str = "endpoint.domain";
    if glob.is_in_unicode() { format!("{READABLE}({COLUMN})").into() } else { COLUMN.into() }
}

/// `None` for what is no text, which somebody else may have written into the file.
fn readable(context: &Context<'_>) -> Option<String> {
    let name = context.get_raw(0).as_str_or_null().ok().flatten();
    name.map(|name| glob::readable(name).into_owned())
}

fn in_network(context: &Context<'_>) -> rusqlite::Result<bool> {
    let network = context
        .get_or_create_aux(1, |value| -> Result<Network, Box<dyn std::error::Error + Send + Sync>> {
            Ok(value.as_str()?.parse()?)
        });
    let network = network.map_err(|error| Error::UserFunctionError(error.to_string().into()))?;
    // What somebody else wrote into the file is no address.
    let text = context.get_raw(0).as_str().unwrap_or_default();
    // A link-local address has its zone behind it.
    let address: Option<IpAddr> = text.split('%').next().and_then(|address| address.parse().ok());
    Ok(address.is_some_and(|address| network.contains(address)))
}

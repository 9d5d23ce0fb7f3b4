//! A headless watcher: a line for each connection of the agents that rano knows, or of what the arguments name, until
//! Ctrl-C.
//!
//! `cargo run --example watch -- claude codex`

use std::fmt::Debug;

use rano::{Address, Connection, ConnectionEvent, Monitor};

fn main() -> Result<(), rano::Error> {
    let builder = std::env::args().skip(1).fold(Monitor::builder(), rano::Builder::pattern);
    let monitor = builder.start().wait()?;
    let events = monitor.watch().wait()?;
    let snapshot = monitor.snapshot().wait()?;
    println!("by {}, {} processes", snapshot.source.name(), snapshot.processes.len());
    for connection in &snapshot.connections {
        say("=", connection);
    }
    for event in events {
        match &event {
            ConnectionEvent::New(connection) => say("+", connection),
            ConnectionEvent::Closed(connection) => say("-", connection),
            ConnectionEvent::Failed(connection) => say("!", connection),
            ConnectionEvent::Named { connection, .. } => say("~", connection),
            ConnectionEvent::Missed(count) => println!("{count} events came too fast to be shown"),
            _ => {}
        }
    }
    Ok(())
}

/// Names come from outside: written out with `{:?}` they do no harm.
fn say(what: &str, connection: &Connection) {
    let process = connection.process.as_ref();
    let name = connection.name.as_ref().map(|known| &known.name);
    println!(
        "{what} {} {} {} {}",
        or_dash(process.map(|process| &process.comm)),
        connection.provider,
        or_dash(connection.remote.as_ref().map(text)),
        or_dash(name),
    );
}

fn text(address: &Address) -> String {
    match address {
        Address::Ip(address) => address.to_string(),
        Address::Host(ip) => ip.to_string(),
        Address::Path(path) => path.to_string(),
    }
}

fn or_dash(value: Option<impl Debug>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:?}"))
}

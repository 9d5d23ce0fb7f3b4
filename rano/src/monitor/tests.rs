use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::event::Address;
use crate::event::Source;

/// A monitor of this process that polls.
fn monitor() -> Monitor {
    let builder = Monitor::builder().pid(std::process::id()).source(Source::Proc);
    builder.interval(Duration::from_millis(20)).reverse_lookups(false).start().wait().expect("a monitor")
}

fn is_of(connection: &Connection, local: std::net::SocketAddr) -> bool {
    connection.local == Some(Address::Ip(local))
}

#[test]
fn a_connection_of_its_own_process_is_told_listed_and_told_to_be_closed() {
    let monitor = monitor();
    let mut watch = monitor.watch().wait().expect("it runs");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let mut client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    let local = client.local_addr().expect("an address");
    let told = std::iter::from_fn(|| watch.wait()).find_map(|event| match event {
        ConnectionEvent::New(connection) if is_of(&connection, local) => Some(connection),
        _ => None,
    });
    let told = told.expect("it is told");
    assert_eq!(told.process.as_ref().map(|process| process.id.pid), Some(std::process::id()));
    let listed = monitor.connections_of(std::process::id()).wait().expect("it runs");
    assert!(listed.iter().any(|connection| connection.id == told.id));
    assert!(monitor.connections_of(u32::MAX).wait().expect("it runs").is_empty());
    let processes = monitor.processes().wait().expect("it runs");
    assert!(processes.iter().any(|process| process.id.pid == std::process::id()));
    client.write_all(b"x").expect("sent");
    drop(client);
    let closed = std::iter::from_fn(|| watch.wait())
        .any(|event| matches!(event, ConnectionEvent::Closed(connection) if connection.id == told.id));
    assert!(closed);
    let snapshot = monitor.snapshot().wait().expect("it runs");
    assert!(snapshot.connections.iter().all(|connection| connection.id != told.id));
    assert!(snapshot.totals.closes >= 1 && snapshot.source == crate::event::SourceKind::Proc);
    let totals = monitor.stop().wait().expect("it ended in order");
    assert!(totals.connects >= totals.closes && totals.closes >= 1, "{totals:?}");
}

#[test]
fn who_watches_is_told_of_the_end_and_whoever_reads_later_too() {
    let monitor = monitor();
    let watch = monitor.watch().wait().expect("it runs");
    let shared = Arc::clone(&monitor.shared);
    let reader = std::thread::spawn(move || watch.into_iter().count());
    drop(monitor);
    reader.join().expect("the stream ends");
    assert!(matches!(shared.connections(|_| true), Err(Error::Over)));
    assert!(matches!(shared.watch(), Err(Error::Over)));
}

#[test]
fn a_process_that_is_not_there_is_no_reason_to_wait() {
    let error =
        Monitor::builder().pid(u32::MAX).source(Source::Proc).start().wait().expect_err("nobody is there");
    assert!(matches!(error, Error::NoSuchProcess(u32::MAX)), "{error}");
}

#[test]
fn a_monitor_can_be_shared_and_its_stream_sent() {
    fn is_shared<T: Send + Sync + 'static>() {}
    fn is_sent<T: Send + Unpin + 'static>() {}
    is_shared::<Monitor>();
    is_sent::<Watch>();
    is_sent::<Answer<Monitor>>();
}

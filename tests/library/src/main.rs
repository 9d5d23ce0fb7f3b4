//! rano from outside of its workspace: real connections of a child named claude, watched from an async runtime. As root
//! it is all done twice: without privileges, then with them.
//!
//! `library-test` runs everything; `library-test watch SOURCE` is one run; under the name claude it is the child.

mod child;
mod threads;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use futures_util::StreamExt;
use rano::{Builder, Connection, ConnectionEvent, Monitor, Source, Watch};

use child::Claude;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// For each wait: on a busy machine, looks may be late.
const PATIENCE: Duration = Duration::from_secs(60);
const NOBODY: u32 = 65534;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [name, address] if name.ends_with("claude") => child::run(address),
        [_, "watch", "proc"] => observe(Source::Proc),
        [_, "watch", "ebpf"] => observe(Source::Ebpf),
        _ => run_all(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("library: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Each run is a process of its own: one that gave up privileges would have none for the next.
fn run_all() -> Outcome {
    let is_root = threads::is_root()?;
    let again = |source: &str, as_nobody: bool| -> Outcome {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["watch", source]);
        if as_nobody {
            command.uid(NOBODY).gid(NOBODY);
        }
        let status = command.status()?;
        if status.success() { Ok(()) } else { Err(format!("source {source}: {status}").into()) }
    };
    again("proc", is_root)?;
    if !is_root {
        println!("library: SKIPPED with privileges: not root");
        return Ok(());
    }
    again("proc", false)?;
    let probe = Monitor::builder().source(Source::Ebpf).keep_privileges().start().wait();
    match probe {
        Ok(monitor) => drop(monitor),
        Err(error) => {
            println!("library: SKIPPED with eBPF: {}", chain(&error));
            return Ok(());
        }
    }
    again("ebpf", false)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

fn observe(source: Source) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    let before = threads::capabilities()?;
    runtime.block_on(watches_connections(source))?;
    runtime.block_on(survives_a_lag(source))?;
    stops_with_its_stream(source)?;
    let after = threads::capabilities()?;
    // The runtime's threads are still there.
    drop(runtime);
    for (thread, had) in &before {
        if after.get(thread) != Some(had) {
            return Err(format!("thread {thread} had {had}, and now has {:?}", after.get(thread)).into());
        }
    }
    println!("library: {source:?} passed, {} capabilities kept", before.len());
    Ok(())
}

fn builder(source: Source) -> Builder {
    let builder = Monitor::builder().pattern("claude").source(source).reverse_lookups(false);
    builder.interval(Duration::from_millis(50))
}

async fn next(watch: &mut Watch) -> Outcome<ConnectionEvent> {
    // By the trait, which is what other programs' combinators use.
    let event = tokio::time::timeout(PATIENCE, StreamExt::next(watch)).await?;
    Ok(event.ok_or("the stream ended")?)
}

/// Waits until a connection of `claude` is told for which it holds.
async fn until(watch: &mut Watch, holds: impl Fn(&ConnectionEvent) -> bool) -> Outcome<ConnectionEvent> {
    loop {
        let event = next(watch).await?;
        if holds(&event) {
            return Ok(event);
        }
    }
}

fn is_of(connection: &Connection, claude: &Claude) -> bool {
    connection.process.as_ref().is_some_and(|process| process.id.pid == claude.pid())
}

async fn watches_connections(source: Source) -> Outcome {
    let monitor = builder(source).start().await?;
    let mut watch = monitor.watch().await?;
    let mut claude = Claude::start()?;
    claude.open(1)?;
    let is_new = |event: &ConnectionEvent| matches!(event, ConnectionEvent::New(new) if is_of(new, &claude));
    let new = until(&mut watch, is_new).await?;
    let new = new.connection().ok_or("no connection")?;
    // A reader on a thread of the runtime's.
    let listed = monitor.connections_of(claude.pid()).await?;
    if !listed.iter().any(|connection| connection.id == new.id) {
        return Err(format!("{new:?} is not among {listed:?}").into());
    }
    let snapshot = monitor.snapshot().await?;
    if !snapshot.processes.iter().any(|process| process.id.pid == claude.pid() && process.comm == "claude") {
        return Err(format!("claude is not among {:?}", snapshot.processes).into());
    }
    if threads::is_root()? {
        let observing = threads::capabilities_of("rano-monitor")?;
        if observing == threads::capabilities_of("tokio")? {
            return Err(format!("the observing thread still has {observing}").into());
        }
    }
    claude.close()?;
    let is_closed =
        |event: &ConnectionEvent| matches!(event, ConnectionEvent::Closed(old) if old.id == new.id);
    until(&mut watch, is_closed).await?;
    let totals = monitor.stop().await?;
    if totals.connects == 0 || totals.closes == 0 {
        return Err(format!("{totals:?}").into());
    }
    // What was told already comes first; then it is over.
    while let Some(event) = watch.next().await {
        drop(event);
    }
    Ok(())
}

async fn survives_a_lag(source: Source) -> Outcome {
    let monitor = builder(source).capacity(4).start().await?;
    let mut watch = monitor.watch().await?;
    let mut other = monitor.watch().await?;
    let mut claude = Claude::start()?;
    claude.open(200)?;
    // One reader follows, so that it is known when all were told; the other does not read.
    let mut told = 0;
    while told < 200 {
        match next(&mut other).await? {
            ConnectionEvent::New(connection) if is_of(&connection, &claude) => told += 1,
            ConnectionEvent::Missed(count) => told += count,
            _ => {}
        }
    }
    let ConnectionEvent::Missed(missed) = next(&mut watch).await? else {
        return Err("nothing was missed".into());
    };
    if missed < 190 {
        return Err(format!("{missed} missed, of 200 with room for 4").into());
    }
    let is_new = |event: &ConnectionEvent| matches!(event, ConnectionEvent::New(new) if is_of(new, &claude));
    until(&mut watch, is_new).await?;
    // What is open is known all the same.
    let listed = monitor.connections_of(claude.pid()).await?.len();
    if listed != 200 {
        return Err(format!("{listed} of 200 connections are listed").into());
    }
    Ok(())
}

/// Without any runtime.
fn stops_with_its_stream(source: Source) -> Outcome {
    let monitor = builder(source).start().wait()?;
    let watch = monitor.watch().wait()?;
    let reader = std::thread::spawn(move || watch.into_iter().count());
    drop(monitor);
    reader.join().map_err(|_| "the reader panicked")?;
    // The stream ends a moment before its thread.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while threads::names()?.iter().any(|name| name.starts_with("rano-monitor")) {
        if std::time::Instant::now() > end {
            return Err("the observing thread is still there".into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

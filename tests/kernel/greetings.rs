//! A TLS client that sends its greeting in unusual pieces: its connection has the name, or the loss of one is counted.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::{Service, Transport};
use crate::support::scene::Scene;
use crate::support::{PATIENCE, stage, wait_for_end};

crate::tests![
    a_first_segment_of_one_byte_is_read,
    a_greeting_in_more_than_a_hundred_segments_is_read,
    a_greeting_that_is_never_finished_is_counted,
];

/// Set in a client.
const MARKER: &str = "RANO_TEST_GREETING";
const EBPF: [&str; 5] = ["--json", "--source", "ebpf", "--domain-mode", "ebpf"];

/// A `ClientHello` in one record (RFC 8446, section 4.1.2), padded to be longer than the pieces are many.
pub(super) fn hello(name: &str) -> Vec<u8> {
    let sized = |body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap_or(0).to_be_bytes();
        [&length[..], body].concat()
    };
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &sized(body)].concat();
    let host = [&[0][..], &sized(name.as_bytes())].concat();
    let extensions = [extension(0, &sized(&host)), extension(21, &[0; 200])].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &sized(&[0x13, 0x01]), &[1, 0], &sized(&extensions)].concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

/// Plays the client: sends the beginning of the greeting up to each place that the arguments name, each piece once the
/// one before was taken.
pub fn play_if_asked() -> Option<ExitCode> {
    let name = std::env::var(MARKER).ok()?;
    Some(match greet(&name) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("greeting: {error:?}");
            ExitCode::FAILURE
        }
    })
}

fn greet(name: &str) -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let to: SocketAddr = arguments.next().context("where to")?.parse()?;
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let hello = hello(name);
    let mut sent = 0;
    for place in arguments {
        let place = place.parse::<usize>()?.min(hello.len());
        stream.write_all(&hello[sent..place])?;
        sent = place;
        while unacknowledged(&stream)? > 0 {
            std::thread::yield_now();
        }
    }
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

/// Bytes that the other side has not acknowledged (`SIOCOUTQ`, tcp(7)).
pub(super) fn unacknowledged(stream: &TcpStream) -> Result<i32> {
    let mut bytes = 0;
    // SAFETY: the call writes one number, for which there is room.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    ensure!(result == 0, "{}", io::Error::last_os_error());
    Ok(bytes)
}

/// Starts a client that greets and stays.
fn client(scene: &Scene, to: SocketAddr, name: &str, places: &[usize]) -> Result<Child> {
    let mut command = Command::new(stage::actor("claude")?);
    command.arg(to.to_string()).args(places.iter().map(usize::to_string));
    command.env_clear().env(MARKER, name).stdin(Stdio::piped());
    scene.place.apply(&mut command);
    command.spawn().context("start a client")
}

fn end(mut client: Child) -> Result<()> {
    drop(client.stdin.take());
    ensure!(wait_for_end(&client, PATIENCE)?, "the client does not end");
    ensure!(client.wait()?.success(), "the client failed");
    Ok(())
}

fn is_read(name: &str, places: &[usize]) -> Result<()> {
    let mut scene = crate::scene()?;
    let server = scene.server.serve(Transport::Tcp, "127.0.0.1:0", Service::Drain)?;
    let rano = scene.observe(&EBPF)?;
    let client = client(&scene, server, name, places)?;
    let pid = client.id();
    end(client)?;
    rano.stdout.wait_for("the end of a connection", |line| {
        line.contains(&format!("\"pid\":{pid},")) && line.contains("\"event\":\"close\"")
    })?;
    let finished = rano.interrupt()?;
    finished.expect_code(0)?;
    let query = format!(
        "SELECT coalesce(domain, '-') || ' ' || domain_source FROM events WHERE pid = {pid} AND event = 'close'"
    );
    let found = scene.database()?.text(&query)?;
    ensure!(found == format!("{name} sni"), "{found}: {}", finished.stderr);
    Ok(())
}

fn a_first_segment_of_one_byte_is_read() -> Result<()> {
    is_read("one-first.example", &[1, usize::MAX])
}

fn a_greeting_in_more_than_a_hundred_segments_is_read() -> Result<()> {
    let places: Vec<usize> = (2..250).step_by(2).chain([usize::MAX]).collect();
    is_read("many.example", &places)
}

fn a_greeting_that_is_never_finished_is_counted() -> Result<()> {
    for places in [&[1][..], &[5], &[100]] {
        let mut scene = crate::scene()?;
        let server = scene.server.serve(Transport::Tcp, "127.0.0.1:0", Service::Drain)?;
        let rano = scene.observe(&EBPF)?;
        let client = client(&scene, server, "cut.example", places)?;
        let pid = client.id();
        end(client)?;
        rano.stdout.wait_for("the end of a connection", |line| {
            line.contains(&format!("\"pid\":{pid},")) && line.contains("\"event\":\"close\"")
        })?;
        rano.interrupt()?.expect_code(0)?;
        let lost = scene.database()?.count("SELECT names_lost FROM sessions")?;
        ensure!(lost >= 1, "{places:?}: {lost} names lost");
    }
    Ok(())
}

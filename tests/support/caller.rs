//! A command for `rano run`: the test executable under another name makes calls as its arguments say.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

use super::wait_until;

/// Set in a process that is to make calls.
pub const MARKER: &str = "RANO_TEST_CALLER";
/// What is sent on each connection.
pub const PAYLOAD: &[u8] = b"0123456789";

/// `None` in the test runner itself.
pub fn play_if_asked() -> Option<ExitCode> {
    std::env::var_os(MARKER)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Some(match play(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("caller: {error:?}");
            ExitCode::FAILURE
        }
    })
}

fn play(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["connect", to, times] => connect_often(to, times.parse()?),
        ["processes", to, processes, times] => {
            let children: Result<Vec<Child>> =
                (0..processes.parse()?).map(|_| start(&["connect", to, times])).collect();
            children?.into_iter().try_for_each(end_well)
        }
        ["threads", to, threads, times] => std::thread::scope(|scope| {
            let times = times.parse()?;
            let threads: Vec<_> =
                (0..threads.parse()?).map(|_| scope.spawn(move || connect_often(to, times))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        }),
        ["refused", to] => {
            ensure!(TcpStream::connect(to).is_err(), "somebody listens at {to}");
            Ok(())
        }
        ["named", to] => {
            let to = to.to_socket_addrs()?.find(SocketAddr::is_ipv4).context("no address")?;
            connect_often(&to.to_string(), 1)
        }
        ["datagrams", to, times] => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            (0..times.parse::<usize>()?).try_for_each(|_| socket.send_to(PAYLOAD, to).map(drop))?;
            Ok(())
        }
        ["secretly", to] => {
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
            connect_often(to, 1)
        }
        ["ring"] => {
            io_uring::IoUring::new(4)?;
            Ok(())
        }
        // Says that it began, and connects until it is told to end.
        ["until", to, begun, end] => {
            let mut count = 0;
            while !Path::new(end).exists() {
                connect_often(to, 1)?;
                count += 1;
                if count == 1 {
                    std::fs::write(begun, b"")?;
                }
            }
            std::fs::write(begun, format!("{count}"))?;
            Ok(())
        }
        // Leaves a process behind.
        ["leave", rest @ ..] => start(rest).map(drop),
        ["wait", end] => wait_until("the end", || Ok(Path::new(end).exists())),
        other => bail!("no such part: {other:?}"),
    }
}

fn start(arguments: &[&str]) -> Result<Child> {
    Command::new(std::env::current_exe()?).args(arguments).spawn().context("start a child")
}

fn end_well(mut child: Child) -> Result<()> {
    let status = child.wait()?;
    ensure!(status.success(), "a child ended with {status}");
    Ok(())
}

fn connect_often(to: &str, times: usize) -> Result<()> {
    for _ in 0..times {
        let mut stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
        stream.write_all(PAYLOAD)?;
        stream.shutdown(std::net::Shutdown::Write)?;
        // The server closes when it has read everything.
        let _ = stream.read(&mut [0; 16]);
    }
    Ok(())
}

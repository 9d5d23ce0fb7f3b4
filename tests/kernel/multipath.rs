//! Multipath TCP: a further subflow is connected by the kernel, on behalf of the process that has the socket.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use crate::support::lookups::program;
use crate::support::scene::Scene;
use crate::support::trial::skip;
use crate::support::{PATIENCE, stage, wait_for_end};

crate::tests![a_further_subflow_is_its_openers, a_further_subflow_of_a_stranger_is_not_told];

/// Set in a process that connects to itself.
const MARKER: &str = "RANO_TEST_MULTIPATH";
/// Where further subflows come from.
const OTHER_ADDRESS: &str = "127.0.0.2";

pub fn play_if_asked() -> Option<ExitCode> {
    std::env::var_os(MARKER)?;
    Some(match play() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("multipath: {error:?}");
            ExitCode::FAILURE
        }
    })
}

/// Connects, exchanges a little, by which the other side agrees to further subflows, and stays until its input ends.
fn play() -> Result<()> {
    let new = || {
        let protocol = Some(ipproto::MPTCP);
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, protocol)
    };
    let listener = new()?;
    rustix::net::bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    rustix::net::listen(&listener, 8)?;
    let listener = TcpListener::from(listener);
    let to = listener.local_addr()?;
    let server = std::thread::spawn(move || -> io::Result<()> {
        let mut stream = listener.accept()?.0;
        let mut byte = [0];
        while stream.read(&mut byte)? > 0 {
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let client = new()?;
    rustix::net::connect(&client, &to)?;
    let mut client = TcpStream::from(client);
    for _ in 0..4 {
        client.write_all(b"x")?;
        client.read_exact(&mut [0])?;
    }
    println!("{}", to.port());
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(client);
    server.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    Ok(())
}

/// Lets sockets of the scene's network namespace have further subflows.
fn allow_subflows(scene: &Scene) -> Result<()> {
    let ip = program("ip")?;
    if !std::path::Path::new("/proc/sys/net/mptcp").exists() {
        return Err(skip("no Multipath TCP in this kernel"));
    }
    for arguments in [
        &["mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2"][..],
        &["mptcp", "endpoint", "add", OTHER_ADDRESS, "dev", "lo", "subflow"],
    ] {
        let mut command = Command::new(&ip);
        command.args(arguments);
        scene.place.apply(&mut command);
        ensure!(command.status().context("run ip")?.success(), "ip {arguments:?}");
    }
    Ok(())
}

/// Plays one under that name until `seen` holds, given its pid and the server's port.
fn connect(scene: &Scene, name: &str, seen: impl FnOnce(u32, u16) -> Result<()>) -> Result<()> {
    let mut command = Command::new(stage::actor(name)?);
    command.env_clear().env(MARKER, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
    scene.place.apply(&mut command);
    let mut process = command.spawn().with_context(|| format!("start {name}"))?;
    let mut line = String::new();
    io::BufRead::read_line(
        &mut io::BufReader::new(process.stdout.take().context("it was piped")?),
        &mut line,
    )?;
    let port = line.trim().parse().with_context(|| format!("{name} said '{line}'"))?;
    seen(process.id(), port)?;
    drop(process.stdin.take());
    ensure!(wait_for_end(&process, PATIENCE)?, "{name} does not end");
    ensure!(process.wait()?.success(), "{name} failed");
    Ok(())
}

fn a_further_subflow_is_its_openers() -> Result<()> {
    let mut scene = crate::scene()?;
    allow_subflows(&scene)?;
    let rano = scene.observe(&["--source", "ebpf"])?;
    let mut server = 0;
    connect(&scene, "claude", |pid, port| {
        server = port;
        let (pid, from, to) =
            (format!("pid={pid} "), format!("{OTHER_ADDRESS}:"), format!("127.0.0.1:{port}"));
        rano.stdout.wait_for("a connect of the further subflow", |line| {
            [" connect ", &pid, &from, &to].iter().all(|part| line.contains(part))
        })?;
        Ok(())
    })?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    // Other tests' agents are seen too.
    let query = format!(
        "SELECT group_concat(local_ip || ' ' || event || ' ' || owner_quality || ' ' || pid_count, ', ') \
         FROM (SELECT local_ip, event, owner_quality, count(DISTINCT pid) AS pid_count FROM events \
               WHERE remote_port = {server} AND comm = 'claude' GROUP BY local_ip, event ORDER BY local_ip, event)"
    );
    let found = scene.database()?.text(&query)?;
    let both = |ip: &str| format!("{ip} close exact 1, {ip} connect exact 1");
    ensure!(found == format!("{}, {}", both("127.0.0.1"), both(OTHER_ADDRESS)), "{found}");
    Ok(())
}

fn a_further_subflow_of_a_stranger_is_not_told() -> Result<()> {
    let mut scene = crate::scene()?;
    allow_subflows(&scene)?;
    let rano = scene.observe(&["--source", "ebpf"])?;
    let mut server = 0;
    connect(&scene, "stranger", |pid, port| {
        server = port;
        let port = format!(":{port:04X}");
        crate::support::wait_until("the further subflow", || {
            let listed = std::fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
            Ok(listed.lines().any(|line| line.contains(" 0200007F:") && line.contains(&port)))
        })
    })?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    let told = database.count(&format!("SELECT count(*) FROM events WHERE remote_port = {server}"))?;
    let counted = database.count("SELECT kernel_unfollowed + unattributed FROM sessions")?;
    ensure!((told, counted) == (0, 0), "{told} told, {counted} counted");
    Ok(())
}

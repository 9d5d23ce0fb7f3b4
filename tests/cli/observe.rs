//! Who talks to whom, as an ordinary user, against what the client itself reports.

use anyhow::{Context as _, Result, ensure};

use crate::support::actor::{Actor, Birth, Descendant, Ending, Service, Totals, Transport, Tuple};
use crate::support::database::{Database, EventRow};
use crate::support::namespace::{Place, User};
use crate::support::rano::{Launch, mentions};
use crate::support::scene::{FAST, Scene};

crate::tests![
    tcp_over_ipv4_is_seen_once_with_owner_and_bytes,
    tcp_over_ipv6_is_seen_once_with_owner_and_bytes,
    udp_over_ipv4_is_seen_once_with_owner,
    udp_over_ipv6_is_seen_once_with_owner,
    a_reset_connection_is_closed_too,
    a_mapped_address_is_shown_as_ipv4,
    a_child_of_a_child_acts_for_its_agent,
    children_are_left_out_on_request,
    a_shell_that_becomes_an_agent_is_tracked_from_then_on,
    an_agent_that_execs_stays_tracked,
    an_orphan_of_a_watched_session_is_tracked,
    a_stranger_is_not_shown,
    an_excluded_process_is_not_shown,
    a_pid_given_replaces_the_default_patterns,
    a_pattern_given_matches_the_command_line,
    an_editor_on_a_file_named_after_an_agent_is_none,
    an_older_connection_is_preexisting_and_has_no_duration,
    accepts_are_shown_on_request_only,
    listeners_are_shown_on_request,
    once_prints_what_is_open_and_ends,
    who_watched_nobody_says_so,
    an_agent_in_another_network_namespace_is_seen,
    a_provider_of_rano_toml_wins_over_unknown,
    a_notice_says_that_nothing_matches_yet,
];

/// The connect and the close of a connection, and nothing else.
fn connect_and_close(
    database: &Database,
    transport: Transport,
    tuple: Tuple,
) -> Result<(EventRow, EventRow)> {
    let rows = database.events_of(transport, tuple)?;
    let kinds: Vec<_> = rows.iter().map(|row| row.event.as_str()).collect();
    ensure!(kinds == ["connect", "close"], "{tuple:?} has {rows:#?}");
    let [connect, close] = rows.try_into().ok().context("two rows")?;
    Ok((connect, close))
}

fn expect_owner(row: &EventRow, provider: &str, comm: &str, pid: u32) -> Result<()> {
    ensure!(
        row.pid == Some(pid) && row.provider == provider && row.comm.as_deref() == Some(comm),
        "{row:#?}"
    );
    ensure!(row.owner_quality == "polled" && row.source == "proc", "{row:#?}");
    Ok(())
}

fn check_transport(transport: Transport, at: &str) -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let address = scene.server.serve(transport, at, Service::Answer)?;
    let rano = scene.observe(&[])?;
    let mut clients = Vec::new();
    for (name, provider, sent, received) in [("claude", "anthropic", 3000, 9000), ("codex", "openai", 20, 1)]
    {
        let mut agent = scene.agent(name)?;
        let (connection, tuple) = agent.connect(transport, address)?;
        let totals = agent.exchange(connection, sent, received)?;
        rano.wait_for_event("connect", tuple)?;
        agent.close(connection, Ending::InOrder)?;
        clients.push((agent, name, provider, tuple, totals));
    }
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;

    let database = scene.database()?;
    for (agent, name, provider, tuple, Totals { sent, received }) in clients {
        let (connect, close) = connect_and_close(&database, transport, tuple)?;
        for row in [&connect, &close] {
            expect_owner(row, provider, name, agent.pid())?;
            ensure!(row.uid == Some(scene.place.uid()) && !row.preexisting, "{row:#?}");
            let path = row.ancestry_path.as_deref().unwrap_or_default();
            ensure!(path.ends_with(&format!(",{name}:{}", agent.pid())), "{row:#?}");
        }
        ensure!(close.duration_ms.is_some_and(|duration| (0..30_000).contains(&duration)), "{close:#?}");
        if transport == Transport::Tcp {
            let counted = (close.bytes_sent, close.bytes_recv);
            ensure!(counted == (Some(sent.try_into()?), Some(received.try_into()?)), "{close:#?}");
        }
    }
    Ok(())
}

fn tcp_over_ipv4_is_seen_once_with_owner_and_bytes() -> Result<()> {
    check_transport(Transport::Tcp, "127.0.0.1:0")
}

fn tcp_over_ipv6_is_seen_once_with_owner_and_bytes() -> Result<()> {
    check_transport(Transport::Tcp, "[::1]:0")
}

fn udp_over_ipv4_is_seen_once_with_owner() -> Result<()> {
    check_transport(Transport::Udp, "127.0.0.1:0")
}

fn udp_over_ipv6_is_seen_once_with_owner() -> Result<()> {
    check_transport(Transport::Udp, "[::1]:0")
}

fn a_reset_connection_is_closed_too() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&[])?;
    let mut claude = scene.agent("claude")?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    claude.close(connection, Ending::Reset)?;
    rano.wait_for_event("close", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    connect_and_close(&scene.database()?, Transport::Tcp, tuple)?;
    Ok(())
}

fn a_mapped_address_is_shown_as_ipv4() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&[])?;
    let mut claude = scene.agent("claude")?;
    let mapped = format!("[::ffff:127.0.0.1]:{}", scene.tcp.port()).parse()?;
    let (_, tuple) = claude.connect(Transport::Tcp, mapped)?;
    let as_ipv4 = |address: std::net::SocketAddr| {
        std::net::SocketAddr::new(address.ip().to_canonical(), address.port())
    };
    let tuple = Tuple { local: as_ipv4(tuple.local), remote: as_ipv4(tuple.remote) };
    rano.wait_for_event("connect", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    ensure!(scene.database()?.events_of(Transport::Tcp, tuple)?.len() == 1);
    Ok(())
}

/// `claude` → `bash` → `curl`.
fn agent_with_client(scene: &Scene) -> Result<(Actor, Descendant, Descendant)> {
    let mut claude = scene.agent("claude")?;
    let shell = claude.spawn(&claude.myself(), "bash")?;
    let curl = claude.spawn(&shell, "curl")?;
    Ok((claude, shell, curl))
}

fn a_child_of_a_child_acts_for_its_agent() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&[])?;
    let (mut claude, shell, curl) = agent_with_client(&scene)?;
    let (connection, tuple) = claude.connect_in(&curl, Transport::Tcp, scene.tcp)?;
    claude.exchange_in(&curl, connection, 50, 60)?;
    rano.wait_for_event("connect", tuple)?;
    claude.close_in(&curl, connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    rano.interrupt()?.expect_code(0)?;

    let (connect, close) = connect_and_close(&scene.database()?, Transport::Tcp, tuple)?;
    expect_owner(&connect, "anthropic", "curl", curl.pid)?;
    let path = format!(",claude:{},bash:{},curl:{}", claude.pid(), shell.pid, curl.pid);
    ensure!(connect.ancestry_path.as_deref().unwrap_or_default().ends_with(&path), "{connect:#?}");
    ensure!((close.bytes_sent, close.bytes_recv) == (Some(50), Some(60)), "{close:#?}");
    Ok(())
}

fn children_are_left_out_on_request() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--no-descendants"])?;
    let (mut claude, _, curl) = agent_with_client(&scene)?;
    let (_, excluded) = claude.connect_in(&curl, Transport::Tcp, scene.tcp)?;
    let (_, own) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", own)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    ensure!(scene.database()?.events_of(Transport::Tcp, excluded)?.is_empty());
    Ok(())
}

fn a_shell_that_becomes_an_agent_is_tracked_from_then_on() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&[])?;
    let mut shell = scene.agent("bash")?;
    let (_, before) = shell.connect(Transport::Tcp, scene.tcp)?;
    scene.let_it_look(&rano)?;
    let myself = shell.myself();
    shell.exec(&myself, "claude")?;
    let (_, after) = shell.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", after)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    let [connect] = database.events_of(Transport::Tcp, after)?.try_into().ok().context("one row")?;
    expect_owner(&connect, "anthropic", "claude", shell.pid())?;
    ensure!(database.events_of(Transport::Tcp, before)?.is_empty(), "the shell was no agent");
    Ok(())
}

fn an_agent_that_execs_stays_tracked() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut agent = scene.agent("claude")?;
    let rano = scene.observe(&[])?;
    let myself = agent.myself();
    agent.exec(&myself, "curl")?;
    let (_, tuple) = agent.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let [connect] = scene.database()?.events_of(Transport::Tcp, tuple)?.try_into().ok().context("one row")?;
    expect_owner(&connect, "anthropic", "curl", agent.pid())
}

/// First seen when its parent is gone: what is left of where it came from is its session.
fn an_orphan_of_a_watched_session_is_tracked() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&[])?;
    let mut claude = scene.agent("claude")?;
    let shell = claude.bear(&claude.myself(), "bash", Birth::Leader)?;
    scene.let_it_look(&rano)?;
    let curl = claude.bear(&shell, "curl", Birth::Orphan)?;
    let (_, tuple) = claude.connect_in(&curl, Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let [connect] = scene.database()?.events_of(Transport::Tcp, tuple)?.try_into().ok().context("one row")?;
    expect_owner(&connect, "anthropic", "curl", curl.pid)?;
    let path = format!(",claude:{},bash:{},curl:{}", claude.pid(), shell.pid, curl.pid);
    ensure!(connect.ancestry_path.as_deref().unwrap_or_default().ends_with(&path), "{connect:#?}");
    Ok(())
}

fn a_stranger_is_not_shown() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&[])?;
    let mut stranger = scene.agent("stranger")?;
    let (connection, _) = stranger.connect(Transport::Tcp, scene.tcp)?;
    scene.let_it_look(&rano)?;
    stranger.close(connection, Ending::InOrder)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    ensure!(database.events_of_pid(stranger.pid())?.is_empty());
    ensure!(database.count("SELECT count(*) FROM events WHERE provider <> 'google'")? == 0);
    Ok(())
}

fn an_excluded_process_is_not_shown() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--exclude-pattern", "curl"])?;
    let (mut claude, _, curl) = agent_with_client(&scene)?;
    let (_, excluded) = claude.connect_in(&curl, Transport::Tcp, scene.tcp)?;
    let (_, shown) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", shown)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    ensure!(scene.database()?.events_of(Transport::Tcp, excluded)?.is_empty());
    Ok(())
}

fn a_pid_given_replaces_the_default_patterns() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut stranger = scene.agent("stranger")?;
    let mut claude = scene.agent("claude")?;
    let (_, claudes) = claude.connect(Transport::Tcp, scene.tcp)?;
    let (_, strangers) = stranger.connect(Transport::Tcp, scene.tcp)?;
    let rano = scene.launch()?.args(FAST).args(["--pid", &stranger.pid().to_string()]).start()?;
    rano.wait_for_event("connect", strangers)?;
    rano.interrupt()?.expect_code(0)?;
    let database = scene.database()?;
    let [connect] = database.events_of(Transport::Tcp, strangers)?.try_into().ok().context("one row")?;
    expect_owner(&connect, "unknown", "stranger", stranger.pid())?;
    ensure!(database.events_of(Transport::Tcp, claudes)?.is_empty());
    Ok(())
}

fn a_pattern_given_matches_the_command_line() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&["--pattern", "gemini", "--pattern", "MY-bot"])?;
    let mut bot = Actor::start_with(&scene.place, "stranger", &["--name=my-bot".as_ref()])?;
    let (_, tuple) = bot.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

fn an_editor_on_a_file_named_after_an_agent_is_none() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let rano = scene.observe(&[])?;
    let mut editor = Actor::start_with(&scene.place, "vim", &["claude.md".as_ref()])?;
    editor.connect(Transport::Tcp, scene.tcp)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    ensure!(scene.database()?.events_of_pid(editor.pid())?.is_empty());
    Ok(())
}

fn an_older_connection_is_preexisting_and_has_no_duration() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let (connection, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let rano = scene.observe(&[])?;
    rano.wait_for_event("connect", tuple)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let (connect, close) = connect_and_close(&scene.database()?, Transport::Tcp, tuple)?;
    ensure!(connect.preexisting && close.preexisting && close.duration_ms.is_none(), "{close:#?}");
    Ok(())
}

/// The kinds of events of an agent that serves, when a stranger comes to it.
fn serving_agent(arguments: &[&str]) -> Result<Vec<String>> {
    let mut scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let rano = scene.observe(arguments)?;
    let address = claude.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let mut stranger = scene.agent("stranger")?;
    let (connection, _) = stranger.connect(Transport::Tcp, address)?;
    stranger.exchange(connection, 10, 10)?;
    scene.let_it_look(&rano)?;
    stranger.close(connection, Ending::InOrder)?;
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let rows = scene.database()?.events_of_pid(claude.pid())?;
    Ok(rows.into_iter().map(|row| row.event).collect())
}

fn accepts_are_shown_on_request_only() -> Result<()> {
    let events = serving_agent(&[])?;
    ensure!(events.is_empty(), "without being asked: {events:?}");
    Ok(())
}

fn listeners_are_shown_on_request() -> Result<()> {
    let events = serving_agent(&["--include-listening"])?;
    for kind in ["listen", "accept"] {
        ensure!(events.iter().filter(|event| *event == kind).count() == 1, "{events:?}");
    }
    ensure!(!events.iter().any(|event| event == "connect"), "{events:?}");
    Ok(())
}

fn once_prints_what_is_open_and_ends() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let mut claude = scene.agent("claude")?;
    let (_, tuple) = claude.connect(Transport::Tcp, scene.tcp)?;
    let finished = scene.launch()?.args(["--once", "--no-sqlite"]).run()?;
    finished.expect_code(0)?;
    let remote = tuple.remote.to_string();
    ensure!(finished.stdout.lines().filter(|line| mentions(line, &remote)).count() == 1, "{finished:#?}");
    ensure!(!scene.directory().join("observer.sqlite").exists());
    Ok(())
}

fn who_watched_nobody_says_so() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    let finished = Launch::new(&scene.place, scene.directory())?
        .args(["--no-sqlite", "--once"])
        .args(["--summary-only", "--pattern", "nobody-is-called-so"])
        .run()?;
    finished.expect_code(0)?;
    ensure!(finished.stdout.contains("no process ever matched"), "{finished:#?}");
    ensure!(!finished.stdout.contains("nothing missed"), "{finished:#?}");
    Ok(())
}

fn an_agent_in_another_network_namespace_is_seen() -> Result<()> {
    let mut scene = Scene::new(User::Ordinary)?;
    let elsewhere = scene.place.elsewhere()?;
    let mut server = Actor::start(&elsewhere, "server")?;
    let address = server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let mut claude = Actor::start(&elsewhere, "claude")?;
    let rano = scene.observe(&[])?;
    let (connection, tuple) = claude.connect(Transport::Tcp, address)?;
    rano.wait_for_event("connect", tuple)?;
    claude.close(connection, Ending::InOrder)?;
    rano.wait_for_event("close", tuple)?;
    rano.interrupt()?.expect_code(0)?;
    let (connect, _) = connect_and_close(&scene.database()?, Transport::Tcp, tuple)?;
    expect_owner(&connect, "anthropic", "claude", claude.pid())
}

fn a_provider_of_rano_toml_wins_over_unknown() -> Result<()> {
    let scene = Scene::new(User::Ordinary)?;
    std::fs::write(scene.directory().join("mine.toml"), "[providers]\nlocal_llm = [\"llama\"]\n")?;
    let mut llama = scene.agent("llama")?;
    let (_, tuple) = llama.connect(Transport::Tcp, scene.tcp)?;
    let arguments = ["--config-toml", "mine.toml", "--pattern", "llama"];
    let rano = Launch::new(&scene.place, scene.directory())?.args(FAST).args(arguments).start()?;
    let line = rano.wait_for_event("connect", tuple)?;
    ensure!(line.contains("| local_llm |"), "{line}");
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

fn a_notice_says_that_nothing_matches_yet() -> Result<()> {
    let place = Place::new(User::Ordinary)?;
    let directory = crate::support::stage::directory(&place)?;
    // Agents of the machine that runs the tests do not match this.
    let rano = Launch::new(&place, directory.path())?
        .args(FAST)
        .args(["--pattern", "no-such-agent-81aa3"])
        .start()?;
    rano.stderr.wait_for("a notice", |line| line.contains("no-such-agent-81aa3") && line.contains("wait"))?;
    rano.interrupt()?.expect_code(0)?;
    Ok(())
}

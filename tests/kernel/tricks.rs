//! Ways in which what an agent started may try to be taken for somebody else's: by root and by an ordinary user. Each
//! connection is told, with its process, the agent it belongs to and its provider.

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;

use crate::support::actor::{Service, Transport};
use crate::support::namespace::User;
use crate::support::rano::Rano;
use crate::support::scene::Scene;
use crate::support::trial::skip;
use crate::support::wait_until;
use crate::trickster::{Played, Trick};

crate::tests![
    however_a_process_was_cloned_it_is_its_forkers,
    however_often_a_program_is_changed_its_process_stays_watched,
    orphans_stay_their_agents,
    namespaces_hide_nobody,
    a_socket_is_its_openers_whoever_uses_it,
    a_socket_that_a_stranger_connected_is_its_first_watched_users,
    a_flood_of_processes_and_programs_is_told,
    a_sibling_whose_fork_was_lost_is_its_forkers,
    what_an_excluded_process_opens_is_counted_in_the_kernel,
    the_excluded_are_counted_once,
];

const EBPF: [&str; 2] = ["--source", "ebpf"];

/// A trick and who played it.
struct Case {
    trick: Trick,
    user: User,
    played: Played,
}

/// Plays them one after the other, as both users, under observation; then everybody ends.
fn play(arguments: &[&str], tricks: &[Trick]) -> Result<(Scene, Vec<Case>)> {
    let mut scene = crate::scene()?;
    // One that takes everybody at once.
    let server = scene.server.serve(Transport::Tcp, "127.0.0.1:0", Service::Answer)?;
    let arguments: Vec<&str> = EBPF.iter().chain(arguments).copied().collect();
    let rano = scene.observe(&arguments)?;
    let mut cases = Vec::new();
    for user in [User::Root, User::Ordinary] {
        let place = scene.place.with_user(user);
        for &trick in tricks {
            let played = Played::play(&place, trick, server)?;
            cases.push(Case { trick, user, played });
        }
    }
    for Case { trick, user, played } in &mut cases {
        played.end().with_context(|| format!("{trick:?} as {user:?}"))?;
    }
    finish(&mut scene, rano)?;
    Ok((scene, cases))
}

fn finish(scene: &mut Scene, rano: Rano) -> Result<()> {
    scene.let_it_look(&rano)?;
    rano.interrupt()?.expect_code(0)?;
    let lost = "SELECT kernel_dropped + kernel_unfollowed FROM sessions";
    ensure!(scene.database()?.count(lost)? == 0 || arguments_lose(scene)?, "records were lost");
    Ok(())
}

/// Whether the session was meant to lose some.
fn arguments_lose(scene: &Scene) -> Result<bool> {
    Ok(scene.database()?.text("SELECT args FROM sessions")?.contains("ring-bytes"))
}

/// Every connection of every trick is told as its process's and the agent's; skips where no trick of them works here.
fn check(arguments: &[&str], tricks: &[Trick]) -> Result<()> {
    let (scene, cases) = play(arguments, tricks)?;
    let mut wrong = Vec::new();
    let mut refused = Vec::new();
    for case in &cases {
        if let Some(why) = &case.played.refused {
            refused.push(format!("{:?} as {:?}: {why}", case.trick, case.user));
        } else if let Err(error) = is_told(&scene, case) {
            wrong.push(format!("{:?} as {:?}: {error}", case.trick, case.user));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    if refused.len() == cases.len() {
        return Err(skip(refused.join("; ")));
    }
    for line in refused {
        println!("not to be had here: {line}");
    }
    Ok(())
}

fn is_told(scene: &Scene, case: &Case) -> Result<()> {
    let Played { agent, connected, .. } = &case.played;
    ensure!(!connected.is_empty(), "nobody connected");
    for (pid, port) in connected {
        let rows = rows(scene, *pid, *port)?;
        let [connect, close] = &rows[..] else { bail!("{pid}, port {port}: {rows:?}") };
        ensure!(connect[0] == "connect" && close[0] == "close", "{rows:?}");
        for row in [connect, close] {
            let [_, provider, quality, ancestry] = row;
            ensure!(provider == "anthropic" && quality == "exact", "{row:?}");
            // The place in the tree is below the agent, whatever the parent is.
            let is_below = ancestry.split(',').any(|level| level.ends_with(&format!(":{agent}")));
            ensure!(is_below && ancestry.contains("runner:"), "{row:?} is not below {agent}");
        }
    }
    Ok(())
}

/// Event, provider, quality, ancestry.
fn rows(scene: &Scene, pid: u32, port: u16) -> Result<Vec<[String; 4]>> {
    let query = format!(
        "SELECT json_group_array(json_array(event, provider, owner_quality, ancestry_path)) FROM \
         (SELECT * FROM events WHERE pid = {pid} AND local_port = {port} AND NOT preexisting ORDER BY id)"
    );
    Ok(serde_json::from_str(&scene.database()?.text(&query)?)?)
}

fn however_a_process_was_cloned_it_is_its_forkers() -> Result<()> {
    check(
        &[],
        &[
            Trick::Sibling,
            Trick::SiblingByThread,
            Trick::SiblingExec,
            Trick::SiblingTwice,
            Trick::SharedMemory,
            Trick::SharedFiles,
            Trick::ByThread,
            Trick::Vfork,
            Trick::ChosenPid,
        ],
    )
}

fn however_often_a_program_is_changed_its_process_stays_watched() -> Result<()> {
    check(
        &["--exclude-pattern", "omit"],
        &[
            Trick::Called,
            Trick::Names,
            Trick::MemoryFile,
            Trick::Script,
            Trick::ThreadExec,
            Trick::ExecChain(20),
        ],
    )
}

fn orphans_stay_their_agents() -> Result<()> {
    check(&[], &[Trick::DoubleFork, Trick::AgentEnds, Trick::Generations(10)])
}

fn namespaces_hide_nobody() -> Result<()> {
    check(&[], &[Trick::NewNetwork, Trick::NewPids, Trick::NewUser, Trick::Chroot, Trick::AllNew])
}

fn a_socket_is_its_openers_whoever_uses_it() -> Result<()> {
    check(
        &[],
        &[Trick::PassToChild, Trick::InheritOverExec, Trick::Duplicate, Trick::Taken, Trick::GivenOpen],
    )
}

/// What a stranger connected is the agent's from its first use by the agent on, where that can be seen. While the
/// stranger itself is not judged yet, for some 20 ms after its exec, nobody knows that it is none of the agent's: then
/// one use alone does not tell. It is played until one that is told.
fn a_socket_that_a_stranger_connected_is_its_first_watched_users() -> Result<()> {
    let mut told = Vec::new();
    for _ in 0..10 {
        let (scene, cases) = play(&[], &[Trick::GivenConnected])?;
        let reason = scene.database()?.text("SELECT coalesce(source_reason, '') FROM sessions")?;
        if reason.contains("sockets that came from somebody else") {
            return Err(skip(reason));
        }
        told.clear();
        for Case { played, .. } in &cases {
            let [(_, port)] = played.connected[..] else { bail!("{:?}", played.connected) };
            let query = format!(
                "SELECT coalesce(group_concat(event || ' ' || owner_quality), '') FROM \
                 (SELECT * FROM events WHERE local_port = {port} AND pid = {} ORDER BY id)",
                played.agent
            );
            told.push(scene.database()?.text(&query)?);
        }
        if told.iter().any(|told| told == "connect inherited,close inherited") {
            return Ok(());
        }
        ensure!(told.iter().all(|told| told.is_empty() || told.contains("inherited")), "{told:?}");
    }
    bail!("{told:?}")
}

fn a_flood_of_processes_and_programs_is_told() -> Result<()> {
    check(&[], &[Trick::Flood(150), Trick::ExecChain(150), Trick::Generations(60)])
}

/// Room for what happens while rano reads, other tests' processes included, and too little for so many forks while it
/// does not.
const LITTLE_ROOM: [&str; 4] = ["--source", "ebpf", "--ring-bytes", "262144"];
const SIBLINGS: u32 = 3000;

/// While rano does not read, so many forks find no room that the last one's is not told; /proc says only who the parent
/// is.
fn a_sibling_whose_fork_was_lost_is_its_forkers() -> Result<()> {
    for user in [User::Root, User::Ordinary] {
        // Where others begin many programs at that moment, theirs fill the little room: then the connection is counted.
        let is_told = (0..5).try_fold(false, |is_told, _| if is_told { Ok(true) } else { lose_a_fork(user) });
        ensure!(
            is_told.with_context(|| format!("{user:?}"))?,
            "{user:?}: there was never room for a connection"
        );
    }
    Ok(())
}

/// Whether there was room for the connection that follows.
fn lose_a_fork(user: User) -> Result<bool> {
    let mut scene = crate::scene()?;
    let rano = scene.observe(&LITTLE_ROOM)?;
    let dropped = |scene: &Scene| scene.database()?.count("SELECT kernel_dropped FROM sessions");
    let place = scene.place.with_user(user);
    rano.signal(Signal::STOP)?;
    let trick = Trick::SiblingAfter(SIBLINGS);
    let played = Played::play(&place, trick, scene.tcp);
    rano.signal(Signal::CONT)?;
    let mut played = played?;
    // It has read the ring to its end, and /proc again, when it says so. Before, there is no room for a connection.
    wait_until("the loss is counted", || Ok(dropped(&scene)? > 0))?;
    let dropped_before = dropped(&scene)?;
    played.tell()?;
    played.listen(|_, connected| connected == 1)?;
    played.end()?;
    finish(&mut scene, rano)?;
    match is_told(&scene, &Case { trick, user, played }) {
        Err(_) if dropped(&scene)? > dropped_before => Ok(false),
        told => told.map(|()| true),
    }
}

fn left_out(scene: &Scene) -> Result<(i64, i64)> {
    let count = |column| scene.database()?.count(&format!("SELECT {column} FROM sessions"));
    Ok((count("excluded_processes")?, count("excluded_connections")?))
}

/// TCP, datagrams that are connected and datagrams that are not, each as often as it would be told.
fn what_an_excluded_process_opens_is_counted_in_the_kernel() -> Result<()> {
    let mut scene = crate::scene()?;
    let datagrams = scene.server.serve(Transport::Udp, "127.0.0.1:0", Service::Answer)?;
    let rano = scene.observe(&["--source", "ebpf", "--exclude-pattern", "omit-kernel"])?;
    let mut claude = scene.agent("claude")?;
    let omitted = claude.spawn(&claude.myself(), "omit-kernel-1")?;
    let below = claude.spawn(&omitted, "wget")?;
    scene.let_it_look(&rano)?;
    for who in [&omitted, &below] {
        for _ in 0..3 {
            claude.connect_in(who, Transport::Tcp, scene.tcp)?;
        }
        let (connection, _) = claude.connect_in(who, Transport::Udp, datagrams)?;
        claude.exchange_in(who, connection, 20, 20)?;
        claude.exchange_in(who, connection, 20, 20)?;
    }
    let (_, shown) = claude.connect(Transport::Tcp, scene.tcp)?;
    rano.wait_for_event("connect", shown)?;
    finish(&mut scene, rano)?;
    ensure!(left_out(&scene)? == (2, 8), "{:?}", left_out(&scene)?);
    let database = scene.database()?;
    for who in [&omitted, &below] {
        ensure!(database.events_of_pid(who.pid)?.is_empty());
    }
    Ok(())
}

/// What is open when rano starts is counted by looking, what is opened in the moment before the verdict by its records,
/// and what is opened then by the kernel programs.
fn the_excluded_are_counted_once() -> Result<()> {
    let mut scene = crate::scene()?;
    let mut claude = scene.agent("claude")?;
    let older = claude.spawn(&claude.myself(), "omit-once-1")?;
    let (kept, _) = claude.connect_in(&older, Transport::Tcp, scene.tcp)?;
    let rano = scene.observe(&["--source", "ebpf", "--exclude-pattern", "omit-once"])?;
    claude.exchange_in(&older, kept, 20, 20)?;
    // An attempt that does not wait asks the kernel several times.
    let newer = claude.spawn(&claude.myself(), "omit-once-2")?;
    for _ in 0..20 {
        claude.connect_in(&newer, Transport::Tcp, scene.tcp)?;
        claude.connect_in(&older, Transport::Tcp, scene.tcp)?;
    }
    finish(&mut scene, rano)?;
    ensure!(left_out(&scene)? == (2, 41), "{:?}", left_out(&scene)?);
    Ok(())
}

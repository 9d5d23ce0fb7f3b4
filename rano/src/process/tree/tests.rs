mod calls;

use super::node::DEAD_TRACKED;
use super::*;
use crate::moment::Moment;
use crate::process::matching::{Origin, Targets, Wanted};
use crate::process::provider::ProviderEntry;

/// Start time as a function of the pid, so that children are born after their parents.
fn id(pid: u32) -> ProcessId {
    ProcessId { pid, start_time: u64::from(pid) }
}

fn seen(id: ProcessId, parent: u32, command: &str) -> ProcessChange {
    told(id, parent, image(command), Birth::default(), Occasion::Found)
}

fn image(command: &str) -> Image {
    let argv: Vec<String> = command.split(' ').map(String::from).collect();
    Image { comm: argv[0].clone(), exe: format!("/bin/{}", argv[0]), argv, uid: 1000 }
}

fn told(id: ProcessId, parent: u32, image: Image, birth: Birth, occasion: Occasion) -> ProcessChange {
    ProcessChange::Seen { id, parent, image, at: Moment::default(), birth, occasion }
}

/// Another image with the same program, of a process that is known.
fn renamed(tree: &mut Tree, pid: u32, command: &str, comm: &str, argv: &str) -> Verdict {
    let argv = argv.split(' ').map(String::from).collect();
    let image = Image { comm: comm.into(), argv, ..image(command) };
    tree.apply(told(id(pid), 1, image, Birth::default(), Occasion::Renamed))
}

fn executed(tree: &mut Tree, pid: u32, command: &str) -> Verdict {
    tree.apply(told(id(pid), 1, image(command), Birth::default(), Occasion::Executed))
}

/// By a process that need not be its parent.
fn forked(tree: &mut Tree, pid: u32, parent: u32, forker: u32, command: &str) -> Verdict {
    let birth = Birth { forker: Some(id(forker)), ..Birth::default() };
    tree.apply(told(id(pid), parent, image(command), birth, Occasion::Forked))
}

fn gone(pid: u32) -> ProcessChange {
    ProcessChange::Gone { id: id(pid), at: Moment::default() }
}

fn tree(targets: Targets) -> Tree {
    Tree::new(Rules::new(targets, Vec::new()), Providers::default(), Redaction::On)
}

fn see(tree: &mut Tree, pid: u32, parent: u32, command: &str) -> Verdict {
    tree.apply(seen(id(pid), parent, command))
}

fn tracked(tree: &Tree) -> Vec<u32> {
    let mut pids: Vec<u32> = tree.tracked().map(|id| id.pid).collect();
    pids.sort_unstable();
    pids
}

fn provider(tree: &mut Tree, pid: u32) -> String {
    tree.process(id(pid)).expect("known").provider.to_string()
}

fn ancestry(tree: &mut Tree, pid: u32) -> String {
    crate::process::ancestry::path(&tree.process(id(pid)).expect("known").ancestry)
}

/// (pid, parent, command)
type Row = (u32, u32, &'static str);

const FAMILY: &[Row] = &[
    (1, 0, "init"),
    (10, 1, "bash"),
    (20, 10, "claude --token secret"),
    (21, 20, "sh -c curl"),
    (22, 21, "curl https://api.openai.com"),
    (23, 20, "safe-tool"),
    (24, 23, "git"),
    (25, 23, "codex"),
    (26, 25, "rg"),
    (27, 20, "myagent"),
    (28, 27, "vim gemini.txt"),
    (40, 10, "vim claude.md"),
    (50, 1, "python3 gemini"),
];

/// What is known at the end of every tracked process: pid, provider, ancestry, root.
fn outcome(order: &[Row]) -> Vec<(u32, String, String, u32)> {
    let mut tree = tree(Targets { exclude_patterns: vec!["safe-tool".into()], ..Targets::default() });
    for &(pid, parent, command) in order {
        see(&mut tree, pid, parent, command);
    }
    tracked(&tree)
        .into_iter()
        .map(|pid| {
            let root = tree.root(id(pid)).expect("tracked").pid;
            (pid, provider(&mut tree, pid), ancestry(&mut tree, pid), root)
        })
        .collect()
}

#[test]
fn a_family_is_tracked_from_its_roots_down_to_the_excluded() {
    let rows = outcome(FAMILY);
    let row = |pid: u32, provider: &str, ancestry: &str, root: u32| {
        (pid, provider.to_owned(), format!("init:1,{ancestry}"), root)
    };
    let expected = [
        row(20, "anthropic", "bash:10,claude:20", 20),
        row(21, "anthropic", "bash:10,claude:20,sh:21", 20),
        row(22, "anthropic", "bash:10,claude:20,sh:21,curl:22", 20),
        row(25, "openai", "bash:10,claude:20,safe-tool:23,codex:25", 20),
        row(26, "openai", "bash:10,claude:20,safe-tool:23,codex:25,rg:26", 20),
        row(27, "anthropic", "bash:10,claude:20,myagent:27", 20),
        row(28, "anthropic", "bash:10,claude:20,myagent:27,vim:28", 20),
        row(50, "google", "python3:50", 50),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn the_order_of_first_sightings_does_not_matter() {
    let expected = outcome(FAMILY);
    let mut order = FAMILY.to_vec();
    order.reverse();
    assert_eq!(outcome(&order), expected);
    // A fixed sequence of shuffles.
    let mut random: usize = 1;
    for _ in 0..500 {
        for at in (1..order.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            order.swap(at, (random >> 33) % (at + 1));
        }
        assert_eq!(outcome(&order), expected, "{order:?}");
    }
}

#[test]
fn a_late_parent_makes_its_children_tracked_and_says_so() {
    let mut tree = tree(Targets::default());
    assert_eq!(see(&mut tree, 30, 20, "git fetch"), Verdict::Ignored);
    assert_eq!(see(&mut tree, 20, 1, "claude"), Verdict::Tracked);
    assert_eq!(tree.newly_tracked(), [id(30)]);
    assert_eq!(tree.newly_tracked(), []);
    assert_eq!(tree.process(id(30)).expect("known").cmdline, "");
    assert_eq!(see(&mut tree, 30, 20, "git fetch"), Verdict::Tracked);
    assert_eq!(tree.process(id(30)).expect("known").cmdline, "git fetch");
    assert_eq!(tree.newly_tracked(), []);
}

#[test]
fn an_exec_into_an_agent_makes_its_children_tracked() {
    let mut tree = tree(Targets::default());
    for (pid, parent) in [(10, 1), (11, 10), (12, 11)] {
        assert_eq!(see(&mut tree, pid, parent, "bash"), Verdict::Ignored);
    }
    assert_eq!(see(&mut tree, 10, 1, "claude"), Verdict::Tracked);
    assert_eq!(tracked(&tree), [10, 11, 12]);
    assert_eq!(provider(&mut tree, 12), "anthropic");
    assert_eq!(tree.newly_tracked().len(), 2);
}

#[test]
fn tracked_stays_tracked_over_exec_reparenting_and_the_death_of_its_parent() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 20, 1, "claude");
    see(&mut tree, 21, 20, "bash");
    tree.apply(gone(20));
    assert_eq!(see(&mut tree, 21, 1, "make"), Verdict::Tracked);
    assert_eq!(see(&mut tree, 22, 21, "cc"), Verdict::Tracked);
    assert_eq!(provider(&mut tree, 21), "anthropic");
    assert_eq!(provider(&mut tree, 22), "anthropic");
    assert_eq!(ancestry(&mut tree, 22), "claude:20,make:21,cc:22");
    assert_eq!(tree.process(id(21)).expect("known").ppid, 1);
    assert_eq!(tree.root(id(22)), Some(id(20)));
}

#[test]
fn an_exec_keeps_the_provider_unless_the_new_image_has_its_own() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 20, 1, "claude");
    let first = tree.process(id(20)).expect("known");
    assert_eq!(see(&mut tree, 20, 1, "bash"), Verdict::Tracked);
    assert_eq!(provider(&mut tree, 20), "anthropic");
    see(&mut tree, 20, 1, "codex");
    assert_eq!(provider(&mut tree, 20), "openai");
    let last = tree.process(id(20)).expect("known");
    assert_ne!(first.key, last.key);
    see(&mut tree, 20, 1, "codex");
    assert!(Arc::ptr_eq(&last, &tree.process(id(20)).expect("known")), "one value for one image");
}

fn excluding(pattern: &str) -> Tree {
    tree(Targets { exclude_patterns: vec![pattern.into()], ..Targets::default() })
}

#[test]
fn an_exec_of_an_excluded_program_ends_tracking() {
    let mut tree = excluding("helper");
    see(&mut tree, 20, 1, "claude");
    see(&mut tree, 21, 20, "bash");
    assert_eq!(executed(&mut tree, 21, "helper"), Verdict::Excluded);
    assert_eq!(see(&mut tree, 22, 21, "git"), Verdict::Excluded);
    assert_eq!(see(&mut tree, 23, 20, "claude-helper"), Verdict::Excluded, "a root that is excluded");
    assert_eq!(see(&mut tree, 24, 20, "claude helper"), Verdict::Tracked, "an argument");
    assert_eq!(see(&mut tree, 25, 1, "helper"), Verdict::Ignored, "nobody's");
    assert_eq!(see(&mut tree, 26, 25, "git"), Verdict::Ignored);
    assert_eq!(tree.left_out(), 3);
    assert_eq!(tracked(&tree), [20, 24]);
}

#[test]
fn a_detour_over_an_excluded_program_is_no_way_out() {
    let mut tree = excluding("helper");
    see(&mut tree, 20, 1, "claude");
    assert_eq!(executed(&mut tree, 20, "helper"), Verdict::Excluded);
    assert_eq!(executed(&mut tree, 20, "curl"), Verdict::Tracked);
    assert_eq!(provider(&mut tree, 20), "anthropic");
    see(&mut tree, 21, 20, "bash");
    assert_eq!(executed(&mut tree, 21, "helper"), Verdict::Excluded);
    assert_eq!(see(&mut tree, 22, 21, "helper"), Verdict::Excluded);
    assert_eq!(executed(&mut tree, 22, "curl"), Verdict::Excluded, "an ancestor is excluded");
    assert_eq!(executed(&mut tree, 21, "curl"), Verdict::Tracked);
    assert_eq!(tree.left_out(), 3, "each once");
    executed(&mut tree, 21, "helper");
    assert_eq!(tree.left_out(), 3);
    // One that was never tracked is not for having been excluded.
    let both = Image { argv: vec!["helper".into()], ..image("claude") };
    let found = told(id(30), 1, both, Birth::default(), Occasion::Found);
    assert_eq!(tree.apply(found), Verdict::Excluded);
    assert_eq!(executed(&mut tree, 30, "bash"), Verdict::Ignored);
}

#[test]
fn another_name_neither_excludes_nor_ends_tracking() {
    let mut tree = excluding("git");
    see(&mut tree, 20, 1, "claude");
    assert_eq!(renamed(&mut tree, 20, "claude", "gitx", "git fetch"), Verdict::Tracked);
    see(&mut tree, 21, 20, "bash");
    assert_eq!(renamed(&mut tree, 21, "bash", "git", "git"), Verdict::Tracked);
    see(&mut tree, 22, 20, "git");
    assert_eq!(
        renamed(&mut tree, 22, "git", "claude", "claude"),
        Verdict::Excluded,
        "nor the other way round"
    );
    assert_eq!(renamed(&mut tree, 22, "git", "x", "x"), Verdict::Excluded);
    assert_eq!(tree.left_out(), 1);
}

#[test]
fn a_name_makes_a_root_and_its_loss_does_not_unmake_one() {
    for descendants in [true, false] {
        let mut tree = tree(Targets { descendants, ..Targets::default() });
        see(&mut tree, 20, 1, "claude");
        see(&mut tree, 21, 20, "node");
        renamed(&mut tree, 21, "node", "claude", "node");
        see(&mut tree, 22, 1, "node");
        assert_eq!(renamed(&mut tree, 22, "node", "claude", "node"), Verdict::Tracked);
        for pid in [20, 21, 22] {
            assert_eq!(
                renamed(&mut tree, pid, "node", "node", "node"),
                Verdict::Tracked,
                "{pid} {descendants}"
            );
        }
    }
}

#[test]
fn a_fork_belongs_to_its_forker_whoever_its_parent_is() {
    let mut tree = excluding("git");
    see(&mut tree, 10, 1, "bash");
    see(&mut tree, 20, 10, "claude");
    // CLONE_PARENT: a sibling of its forker.
    assert_eq!(forked(&mut tree, 21, 10, 20, "claude"), Verdict::Tracked);
    let exec = told(id(21), 10, image("curl"), Birth::default(), Occasion::Executed);
    assert_eq!(tree.apply(exec), Verdict::Tracked);
    let process = tree.process(id(21)).expect("known");
    assert_eq!((process.ppid, &*process.provider), (10, "anthropic"));
    assert_eq!(ancestry(&mut tree, 21), "bash:10,claude:20,curl:21");
    assert_eq!(tree.root(id(21)), Some(id(20)));
    // The same by one that is nobody's, with a parent that is tracked.
    see(&mut tree, 30, 20, "git");
    assert_eq!(forked(&mut tree, 31, 20, 30, "git"), Verdict::Excluded);
    assert_eq!(executed(&mut tree, 31, "curl"), Verdict::Excluded);
}

#[test]
fn a_forker_that_becomes_known_late_counts_all_the_same() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 10, 1, "bash");
    // Found with its parent, then its fork is told.
    assert_eq!(see(&mut tree, 21, 10, "curl"), Verdict::Ignored);
    assert_eq!(forked(&mut tree, 21, 10, 20, "curl"), Verdict::Ignored);
    assert_eq!(see(&mut tree, 20, 10, "claude"), Verdict::Tracked);
    assert_eq!(tree.newly_tracked(), [id(21)]);
    assert_eq!(ancestry(&mut tree, 21), "bash:10,claude:20,curl:21");
    // Not whoever gets the pid of a forker that is gone.
    assert_eq!(forked(&mut tree, 40, 10, 39, "curl"), Verdict::Ignored);
    assert_eq!(tree.apply(seen(ProcessId { pid: 39, start_time: 50 }, 1, "claude")), Verdict::Tracked);
    assert_eq!(tree.verdict(id(40)), Verdict::Ignored);
}

#[test]
fn a_fork_by_a_tracked_process_that_nobody_remembers_is_tracked() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 10, 1, "bash");
    for (pid, forker) in [(21, None), (22, Some(id(20)))] {
        let birth = Birth { forker, of_tracked: true, ..Birth::default() };
        let change = told(id(pid), 10, image("curl"), birth, Occasion::Found);
        assert_eq!(tree.apply(change), Verdict::Tracked, "{pid}");
        assert_eq!(executed(&mut tree, pid, "wget"), Verdict::Tracked, "{pid}");
        assert_eq!(provider(&mut tree, pid), "unknown");
    }
}

/// First seen after it was reparented.
fn orphaned(tree: &mut Tree, pid: u32, parent: u32, session: u32) -> Verdict {
    let birth = Birth { session: Some(session), ..Birth::default() };
    tree.apply(told(id(pid), parent, image("curl"), birth, Occasion::Found))
}

#[test]
fn an_orphan_belongs_to_who_began_its_session() {
    let mut tree = excluding("git");
    see(&mut tree, 1, 0, "init");
    see(&mut tree, 10, 1, "bash");
    see(&mut tree, 20, 10, "claude");
    see(&mut tree, 30, 20, "sh");
    assert_eq!(orphaned(&mut tree, 40, 1, 30), Verdict::Tracked);
    assert_eq!(ancestry(&mut tree, 40), "init:1,bash:10,claude:20,sh:30,curl:40");
    assert_eq!(tree.process(id(40)).expect("known").ppid, 1);
    assert_eq!(
        orphaned(&mut tree, 41, 1, 10),
        Verdict::Ignored,
        "the session of a shell that nobody watches"
    );
    assert_eq!(orphaned(&mut tree, 42, 1, 42), Verdict::Ignored, "its own");
    assert_eq!(orphaned(&mut tree, 43, 30, 10), Verdict::Tracked, "its parent says more");
    tree.apply(gone(30));
    assert_eq!(orphaned(&mut tree, 44, 1, 30), Verdict::Tracked, "the leader is gone, its session is not");
    see(&mut tree, 50, 20, "git");
    assert_eq!(orphaned(&mut tree, 51, 1, 50), Verdict::Excluded);
    let younger = ProcessId { pid: 60, start_time: 99 };
    tree.apply(seen(younger, 1, "claude"));
    assert_eq!(orphaned(&mut tree, 61, 1, 60), Verdict::Ignored, "who has the number now did not begin it");
}

#[test]
fn claims_do_not_move_the_bill() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 20, 1, "claude");
    let posing =
        Image { comm: "gemini".into(), argv: vec!["gemini".into(), "codex".into()], ..image("curl") };
    tree.apply(told(id(21), 20, posing, Birth::default(), Occasion::Executed));
    assert_eq!(provider(&mut tree, 21), "anthropic");
    see(&mut tree, 22, 20, "bash gemini-notes.sh");
    assert_eq!(provider(&mut tree, 22), "anthropic");
    see(&mut tree, 23, 20, "codex");
    assert_eq!(provider(&mut tree, 23), "openai", "it is another agent's");
    // What it writes over its arguments later is no program, even if it looks like one.
    see(&mut tree, 24, 20, "node x.js");
    renamed(&mut tree, 24, "node", "codex", "node /x/node_modules/@openai/codex/cli.js");
    assert_eq!(provider(&mut tree, 24), "anthropic");
    renamed(&mut tree, 23, "codex", "gemini", "gemini");
    assert_eq!(provider(&mut tree, 23), "openai");
    // Where there is nobody else, a claim is better than nothing.
    renamed(&mut tree, 20, "claude", "x", "x");
    assert_eq!(provider(&mut tree, 20), "anthropic");
    let native = Image { argv: vec!["claude".into()], ..image("2.0.1") };
    tree.apply(told(id(30), 1, native, Birth::default(), Occasion::Found));
    assert_eq!(provider(&mut tree, 30), "anthropic");
}

#[test]
fn a_guess_is_nobody_elses() {
    let wanted = Wanted::Patterns(vec!["helper".into(), "other".into(), "google_search".into()]);
    let mut tree = tree(Targets { wanted, ..Targets::default() });
    see(&mut tree, 20, 1, "env OPENAI_API_KEY=x helper");
    assert_eq!(provider(&mut tree, 20), "openai", "while it runs this");
    executed(&mut tree, 20, "helper");
    assert_eq!(provider(&mut tree, 20), "unknown");
    see(&mut tree, 30, 1, "other -m anthropic/x");
    see(&mut tree, 31, 30, "curl https://example.com");
    assert_eq!(provider(&mut tree, 30), "anthropic");
    assert_eq!(provider(&mut tree, 31), "unknown");
    see(&mut tree, 40, 1, "python3 google_search.py");
    see(&mut tree, 41, 40, "curl");
    assert_eq!(provider(&mut tree, 41), "unknown");
    // What is run, and an agent by its whole name, is no guess.
    see(&mut tree, 50, 30, "claude");
    see(&mut tree, 51, 50, "sh -c codex");
    executed(&mut tree, 51, "bash");
    assert_eq!(provider(&mut tree, 51), "anthropic");
}

#[test]
fn recordings_of_before_are_understood() {
    let old = r#"{"seen":{"id":{"pid":20,"start_time":20},"parent":1,"image":{"comm":"claude","exe":"","argv":["claude"],"uid":0},"at":{"boot_ns":0,"unix_ms":0}}}"#;
    let change: ProcessChange = serde_json::from_str(old).expect("it was written so");
    assert_eq!(
        serde_json::to_string(&change).expect("it can be written"),
        old,
        "nothing is added for nothing"
    );
    assert_eq!(tree(Targets::default()).apply(change), Verdict::Tracked);
}

#[test]
fn without_descendants_only_roots_are_tracked() {
    let mut tree = tree(Targets { descendants: false, ..Targets::default() });
    see(&mut tree, 20, 1, "claude");
    assert_eq!(see(&mut tree, 21, 20, "git"), Verdict::Ignored);
    see(&mut tree, 22, 20, "claude");
    assert_eq!(see(&mut tree, 22, 20, "git"), Verdict::Ignored, "it looked like its parent before its exec");
    assert_eq!(see(&mut tree, 20, 1, "bash"), Verdict::Tracked, "a root stays tracked over exec");
}

#[test]
fn rano_and_its_ancestors_are_never_tracked_and_pass_nothing_on() {
    let rules = Rules::new(
        Targets { wanted: Wanted::Patterns(vec!["claude".into()]), ..Targets::default() },
        vec![id(20), id(30)],
    );
    let mut tree = Tree::new(rules, Providers::default(), Redaction::On);
    assert_eq!(see(&mut tree, 20, 1, "claude"), Verdict::Ignored);
    assert_eq!(see(&mut tree, 30, 20, "rano --pattern claude"), Verdict::Ignored);
    assert_eq!(see(&mut tree, 31, 20, "git"), Verdict::Ignored);
    assert_eq!(see(&mut tree, 32, 20, "claude"), Verdict::Tracked);
    // Not the process that gets the pid later.
    assert_eq!(tree.apply(seen(ProcessId { pid: 30, start_time: 99 }, 1, "claude")), Verdict::Tracked);
}

#[test]
fn a_pid_that_was_asked_for_means_the_process_that_had_it_first() {
    let mut tree = tree(Targets { pids: vec![30], ..Targets::default() });
    assert_eq!(see(&mut tree, 30, 1, "anything"), Verdict::Tracked);
    assert_eq!(see(&mut tree, 31, 30, "git"), Verdict::Tracked);
    assert_eq!(provider(&mut tree, 31), "unknown");
    tree.apply(gone(30));
    assert_eq!(tree.apply(seen(ProcessId { pid: 30, start_time: 99 }, 1, "anything")), Verdict::Ignored);
}

#[test]
fn a_reused_pid_is_another_process() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 20, 1, "claude");
    let successor = ProcessId { pid: 20, start_time: 100 };
    assert_eq!(tree.apply(seen(successor, 1, "bash")), Verdict::Ignored);
    assert_eq!(tree.verdict(id(20)), Verdict::Tracked, "the dead one is remembered as it was");
    assert_eq!(see(&mut tree, 150, 20, "git"), Verdict::Ignored);
    assert_eq!(ancestry(&mut tree, 150), "bash:20,git:150");
    assert_eq!(tree.apply(gone(20)), Verdict::Tracked);
    assert_eq!(ancestry(&mut tree, 150), "bash:20,git:150", "its successor is not gone");
    let orphan = ProcessId { pid: 16, start_time: 50 };
    tree.apply(seen(orphan, 20, "older than the process with its parent's pid"));
    assert_eq!(ancestry_of(&mut tree, orphan), "older:16");
}

fn ancestry_of(tree: &mut Tree, id: ProcessId) -> String {
    crate::process::ancestry::path(&tree.process(id).expect("known").ancestry)
}

#[test]
fn the_dead_are_remembered_within_bounds() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 1, 0, "claude");
    let total = u32::try_from(DEAD_TRACKED + 10).expect("small");
    for pid in 2..total {
        see(&mut tree, pid, 1, "git");
        tree.apply(gone(pid));
    }
    assert!(tree.process(id(2)).is_none(), "the oldest is forgotten");
    assert_eq!(tree.process(id(total - 1)).expect("known").cmdline, "git");
    assert_eq!(tree.dead.len(), DEAD_TRACKED);
    assert_eq!(tree.live.len(), 1);
    // A chain in which every process outlives its parent.
    for pid in 10_000..20_000 {
        see(&mut tree, pid, if pid == 10_000 { 1 } else { pid - 1 }, "git");
        tree.apply(gone(pid - 1));
    }
    assert_eq!(tracked(&tree), [1, 19_999]);
    assert_eq!(tree.dead.len(), DEAD_TRACKED);
    assert!(ancestry_of(&mut tree, id(19_999)).len() < 16 * MAX_DEPTH);
    assert!(tree.waiting.is_empty());
}

#[test]
fn an_agent_that_was_forgotten_is_still_above_its_descendants() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 1, 0, "claude");
    see(&mut tree, 2, 1, "sh");
    tree.apply(gone(1));
    // Enough others die for it to be forgotten; the shell goes on, and so does what it starts.
    for pid in 10_000..10_000 + u32::try_from(DEAD_TRACKED).expect("small") {
        see(&mut tree, pid, 2, "git");
        tree.apply(gone(pid));
    }
    assert!(tree.process(id(1)).is_none());
    see(&mut tree, 20_000, 2, "curl");
    assert_eq!(ancestry_of(&mut tree, id(20_000)), "claude:1,sh:2,curl:20000");
    // However long the line, both its ends are there.
    for pid in 20_001..21_000 {
        see(&mut tree, pid, pid - 1, "git");
        tree.apply(gone(pid - 1));
    }
    let line = ancestry_of(&mut tree, id(20_999));
    assert!(line.starts_with("claude:1,sh:2,") && line.ends_with("git:20998,git:20999"), "{line}");
    assert_eq!(line.split(',').count(), MAX_DEPTH);
}

#[test]
fn parents_that_never_appear_leave_nothing_behind() {
    let mut tree = tree(Targets::default());
    for pid in 2..100 {
        see(&mut tree, pid, 1, "claude");
    }
    assert_eq!(ancestry(&mut tree, 50), "claude:50");
    for pid in 2..100 {
        tree.apply(gone(pid));
    }
    assert!(tree.waiting.is_empty() && tree.live.is_empty());
}

#[test]
fn cycles_of_parents_end() {
    let mut tree = tree(Targets::default());
    let same = |pid| ProcessId { pid, start_time: 5 };
    tree.apply(seen(same(2), 3, "bash"));
    tree.apply(seen(same(3), 2, "bash"));
    tree.apply(seen(same(4), 4, "bash"));
    assert_eq!(tree.apply(seen(same(2), 3, "claude")), Verdict::Tracked);
    assert_eq!(tree.verdict(same(3)), Verdict::Tracked);
    assert!(tree.root(same(3)).is_some() && tree.process(same(3)).is_some());
}

#[test]
fn secrets_do_not_reach_the_shared_process() {
    let mut tree = tree(Targets::default());
    see(&mut tree, 20, 1, "claude --token secret");
    assert_eq!(tree.process(id(20)).expect("known").cmdline, "claude --token [redacted]");
}

#[test]
fn a_users_provider_pattern_overrides_an_ancestors_provider_by_what_is_run() {
    let acme =
        ProviderEntry { name: "acme".into(), patterns: vec!["acme-gateway".into()], origin: Origin::User };
    let rules = Rules::new(Targets::default(), Vec::new());
    let mut tree = Tree::new(rules, Providers::new([acme]), Redaction::On);
    see(&mut tree, 20, 1, "claude");
    see(&mut tree, 21, 20, "acme-gateway");
    see(&mut tree, 22, 21, "curl https://api.openai.com");
    see(&mut tree, 23, 20, "curl https://acme-gateway/");
    assert_eq!(provider(&mut tree, 20), "unknown", "providers were replaced");
    assert_eq!(provider(&mut tree, 21), "acme");
    assert_eq!(provider(&mut tree, 22), "acme");
    assert_eq!(provider(&mut tree, 23), "acme", "no ancestor has another");
}

#[test]
fn untracked_processes_are_small() {
    // With hash table and name, 5,000 of them stay below 1 MiB.
    assert!(size_of::<Node>() <= 80, "{}", size_of::<Node>());
    let mut tree = tree(Targets::default());
    see(&mut tree, 20, 1, &format!("vim {}", "x".repeat(100_000)));
    assert!(tree.live[&20].detail.is_none());
}

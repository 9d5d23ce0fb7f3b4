use super::*;

fn image(comm: &str, exe: &str, argv: &[&str]) -> Image {
    Image {
        comm: comm.into(),
        exe: exe.into(),
        argv: argv.iter().map(|&a| a.to_owned()).collect(),
        uid: 1000,
    }
}

/// `command` is split at blanks; comm and executable follow from its first word.
fn command(line: &str) -> Image {
    let argv: Vec<&str> = line.split(' ').collect();
    let base = basename(argv[0]);
    image(&base[..base.len().min(15)], &format!("/usr/bin/{base}"), &argv)
}

fn rules(targets: Targets) -> Rules {
    Rules::new(targets, Vec::new())
}

fn user(pattern: &str) -> Rules {
    rules(Targets { wanted: Wanted::Patterns(vec![pattern.into()]), ..Targets::default() })
}

fn wanted(rules: &Rules, image: &Image) -> bool {
    rules.wants(&Subject::of(image))
}

#[test]
fn default_patterns_match_names() {
    let rules = rules(Targets::default());
    for line in [
        "claude --continue",
        "/home/u/.local/bin/Claude",
        "node /usr/bin/codex",
        "node --require x.js /usr/bin/codex",
        "node /usr/lib/node_modules/@anthropic-ai/claude-code/cli.js",
        "node /usr/lib/node_modules/@google/gemini-cli/dist/index.js",
        "python3 -m gemini_cli",
        "bun run /opt/bin/claude",
        "sh /usr/local/bin/gemini",
        "npx @openai/codex",
        "codex-x86_64-unknown-linux-musl",
    ] {
        assert!(wanted(&rules, &command(line)), "{line}");
    }
}

#[test]
fn built_in_agents_are_whole_names() {
    let rules = rules(Targets::default());
    for line in [
        "codex-cli",
        "claude-code",
        "node /x/node_modules/@openai/codex/bin/codex.js",
        "python3 -m gemini_cli.main",
    ] {
        assert!(wanted(&rules, &command(line)), "{line}");
    }
    for line in [
        "node test_gemini_api.js",
        "python3 ./gemini_bench.py",
        "sh claude.sh",
        "codexctl",
        "claude-squad",
        "geminid",
        "node /x/node_modules/@acme/claude-theme/x.js",
    ] {
        assert!(!wanted(&rules, &command(line)), "{line}");
    }
}

#[test]
fn default_patterns_do_not_match_arguments_and_directories() {
    let rules = rules(Targets::default());
    for line in [
        "vim claude.md",
        "grep claude",
        "tail -f /var/log/claude.log",
        "node /home/u/claude/server.js",
        "/home/u/codex/target/debug/server",
        "sh -c claude",
        "bash -c cd /claude && make",
        "curl https://gemini.google.com",
        "sudo claude",
        "tmux new-session claude",
        "npm install @anthropic-ai/claude-code",
    ] {
        assert!(!wanted(&rules, &command(line)), "{line}");
    }
}

#[test]
fn any_one_of_the_names_is_enough() {
    let rules = rules(Targets::default());
    // The native build lies in a file named after its version.
    assert!(wanted(&rules, &image("x", "/home/u/.local/share/claude/versions/2.0.1", &["claude"])));
    assert!(wanted(&rules, &image("claude", "/v/2.0.1", &["/v/2.0.1"])));
    assert!(wanted(&rules, &image("x", "/usr/bin/codex (deleted)", &["x"])));
    assert!(wanted(&rules, &image("MainThread", "/usr/bin/node", &["x", "/usr/bin/gemini"])));
    assert!(!wanted(&rules, &Image::default()));
}

#[test]
fn a_rewritten_title_is_read_as_words() {
    let rules = rules(Targets::default());
    assert!(wanted(&rules, &image("npm exec", "/usr/bin/node", &["npm exec @openai/codex"])));
    assert!(!wanted(&rules, &image("sshd-session", "/usr/sbin/sshd", &["sshd: claude [priv]"])));
    assert!(!wanted(&rules, &image("nginx", "/usr/sbin/nginx", &["/usr/sbin/nginx: claude pool"])));
    assert!(wanted(&rules, &image("x", "/opt/Claude App/claude", &["/opt/Claude App/claude"])));
}

#[test]
fn user_patterns_match_anywhere_whatever_their_case() {
    assert!(wanted(&user("CLAUDE.md"), &command("vim claude.MD")));
    assert!(wanted(&user("server.js --port"), &command("node server.js --port 1")));
    assert!(wanted(&user("École"), &command("ls ÉCOLE")));
    assert!(!wanted(&user("other"), &command("claude")), "given patterns replace the default ones");
    assert!(!wanted(&user(""), &command("claude")), "an empty pattern matches nothing");
}

#[test]
fn another_rano_is_no_agent_for_being_asked_for_the_same() {
    assert!(!wanted(&user("qwen"), &command("/usr/local/bin/rano --pattern qwen")));
    assert!(!wanted(&user("qwen"), &image("rano", "/opt/rano (deleted)", &["rano", "--pattern", "qwen"])));
    assert!(wanted(&user("qwen"), &command("less rano-qwen.log")));
    assert!(wanted(&user("rano"), &command("rano --pattern qwen")), "whoever asks for it gets it");
}

#[test]
fn pids_replace_default_patterns_but_not_given_ones() {
    let pids = rules(Targets { pids: vec![7], ..Targets::default() });
    assert!(!wanted(&pids, &command("claude")));
    assert_eq!(pids.watching(), ["pid 7"]);
    assert_eq!(rules(Targets::default()).watching()[..3], ["claude", "codex", "gemini"]);
    let given = Wanted::Patterns(vec!["Claude".into()]);
    let both = rules(Targets { pids: vec![7], wanted: given, ..Targets::default() });
    assert_eq!(both.watching(), ["Claude", "pid 7"]);
    assert!(wanted(&both, &command("claude")));
}

fn excluded(pattern: &str, image: &Image) -> bool {
    let rules = rules(Targets { exclude_patterns: vec![pattern.into()], ..Targets::default() });
    rules.excludes(&Subject::of(image))
}

#[test]
fn exclusion_goes_by_executable_argv_0_and_script() {
    for excluded_ones in [
        image("x", "/usr/bin/Helper-2", &["x"]),
        image("x", "/usr/bin/helper (deleted)", &["x"]),
        image("x", "/usr/bin/x", &["/opt/helper", "y"]),
        image("node", "/usr/bin/node", &["node", "-r", "x.js", "/opt/helper.js"]),
        image("node", "/usr/bin/node", &["node", "/opt/node_modules/@acme/helper/cli.js"]),
        image("x", "/usr/bin/python3.12", &["x", "-m", "helper.main"]),
        image("x", "", &["node", "/opt/helper"]),
    ] {
        assert!(excluded("Helper", &excluded_ones), "{excluded_ones:?}");
    }
    for others in [
        image("helper", "/usr/bin/x", &["x"]),
        command("claude --helper helper"),
        image("x", "/helper/x", &["/helper/x", "/helper"]),
        image("node", "/usr/bin/node", &["node", "/helper/x.js", "helper"]),
        Image::default(),
    ] {
        assert!(!excluded("helper", &others), "{others:?}");
    }
}

#[test]
fn an_exclude_with_a_slash_means_a_path() {
    let it = image("node", "/opt/tools/bin/node", &["node", "/srv/app/x.js", "/home/u"]);
    assert!(excluded("/opt/tools/", &it) && excluded("/APP/x", &it));
    assert!(!excluded("/home/u", &it), "an argument");
    assert!(!excluded("tools", &it), "a directory");
}

#[test]
fn an_exclude_of_the_command_line_says_so() {
    let it = command("claude --Helper x");
    assert!(excluded("cmd:--helper X", &it) && excluded("cmd:claude", &it));
    assert!(!excluded("cmd:other", &it));
    assert!(!excluded("cmd:", &it) && !excluded("", &it), "nothing is in everything");
}

#[test]
fn what_a_process_is_and_what_it_claims_to_be_are_two_places() {
    let place = |image: &Image, pattern: &str| Subject::of(image).place_of(pattern);
    let renamed = image("x", "/usr/bin/curl", &["gemini", "x"]);
    assert_eq!(place(&renamed, "gemini"), Some(Place::Name));
    assert_eq!(place(&renamed, "curl"), Some(Place::Program));
    // argv[0] says that it is an interpreter of a package.
    let posing = image("x", "/tmp/evil", &["node", "/x/node_modules/@google/gemini-cli/x.js"]);
    assert_eq!(place(&posing, "gemini"), Some(Place::Name));
    let package = image("x", "/usr/bin/node", &["x", "/x/node_modules/@google/gemini-cli/x.js"]);
    assert_eq!(place(&package, "gemini"), Some(Place::Program));
    let script = |name| image("node", "/usr/bin/node", &["node", name]);
    assert_eq!(place(&script("/usr/bin/codex"), "codex"), Some(Place::Program));
    assert_eq!(place(&script("codex.js"), "codex"), Some(Place::Program));
    assert_eq!(place(&script("/src/fix-codex-bug.js"), "codex"), Some(Place::Name));
    let released = image("x", "/home/u/.local/share/claude/versions/2.0.1", &["x"]);
    assert_eq!(place(&released, "claude"), Some(Place::Program));
    assert_eq!(place(&image("x", "/claude/bin/2to3", &["x"]), "claude"), None);
}

//! Which guests there are, and what each has to show.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::kernels::Kernel;
use super::results::{Outcome, Results};

/// Series of Debian's kernels: the oldest that is supported, and those of its releases and their backports.
pub(crate) const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "6.18"];

/// Ways of attaching. Each of these kernels has all of them.
pub(crate) const RUNGS: [&str; 3] = ["fentry", "kprobe", "tracepoint"];

/// How much each guest shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Size {
    /// What takes minutes, all guests together.
    Quick,
    /// What differs by rung, on every kernel.
    Table,
    /// Everything on everything, and the swarm as large as on a real machine.
    Full,
}

/// One guest.
pub(crate) struct Scenario<'a> {
    pub name: String,
    pub kernel: &'a Kernel,
    /// Of [`RUNGS`]; the others are not taken then.
    pub rung: Option<&'static str>,
    /// Kernel parameters.
    pub append: &'static str,
    /// What the shell does before the tests.
    before: &'static str,
    /// Only tests whose names contain it.
    tests: Option<&'static str>,
    /// Files of tests that are left out.
    skip: Vec<&'static str>,
    /// What must not be skipped: it is what the guest is for.
    required: &'static [&'static str],
    size: Size,
    pub patience: Duration,
}

/// A parameter from 5.12 on. Without `--full` one rung a kernel has it.
const PREEMPTED: [(&str, &str); 3] = [("6.1", "fentry"), ("6.12", "kprobe"), ("6.18", "tracepoint")];

/// Settings that leave programs and their maps less to do than a kernel does by itself. Root keeps all of it.
const STRICT: &str = "echo 2 >/proc/sys/kernel/unprivileged_bpf_disabled
echo 3 >/proc/sys/kernel/perf_event_paranoid
echo 2 >/proc/sys/kernel/kptr_restrict
echo 2 >/proc/sys/net/core/bpf_jit_harden
";
/// Rungs of the oldest and the newest kernel that are shown under them.
const STRICTLY: [(&str, &str); 2] = [("5.10", "kprobe"), ("6.18", "fentry")];

/// What only a kernel that was booted for it shows.
const ONLY_WHERE_BOOTED: &[&str] = &["lockdown"];
/// What takes an emulated machine ten minutes: only `--full` has them.
const LONG: &[&str] = &["flood", "floods", "views"];
/// What is the same on every rung is shown on one of the oldest kernel, and by the tests outside of guests.
const EVERYTHING: (&str, &str) = ("5.10", "kprobe");
const SAME_ON_EVERY_RUNG: &[&str] = &[
    "ladder",
    "loss",
    "names",
    "open_bytes",
    "privileges",
    "proxies",
    "run",
    "taken_away",
    "tool_calls",
    "tricks",
];
/// What differs by rung, and takes minutes: there and on one of the newest kernel, unless the table is asked for.
const SLOW: &[&str] = &["datagrams", "families"];
const SLOW_TOO: (&str, &str) = ("6.18", "fentry");
/// What takes minutes and is a table of the page: shown when that is written.
const PAGE: &[&str] = &["matrix"];
/// What differs by rung and is uncommon: on those two, and on one guest of the rung that they leave out.
const UNCOMMON: &[&str] = &["facts", "odd_sockets"];
const THIRD_RUNG: (&str, &str) = ("6.18", "tracepoint");

/// Shown on one kernel.
const LOCKED_DOWN: (&str, [(&str, &[&str]); 2]) = (
    "6.12",
    [
        ("lockdown=integrity", &["lockdown::for_integrity_it_costs_nothing"]),
        ("lockdown=confidentiality", &["lockdown::for_confidentiality_it_polls_and_says_why"]),
    ],
);

pub(crate) fn scenarios<'a>(kernels: &'a [Kernel], rungs: &[String], size: Size) -> Vec<Scenario<'a>> {
    let mut scenarios = Vec::new();
    let patience = Duration::from_secs(if size == Size::Full { 3600 } else { 1500 });
    for kernel in kernels {
        for rung in RUNGS.into_iter().filter(|rung| wants(rungs, rung)) {
            let skip: &[&[&str]] = if size == Size::Full {
                &[ONLY_WHERE_BOOTED]
            } else if EVERYTHING == (kernel.series, rung) {
                &[ONLY_WHERE_BOOTED, LONG]
            } else if size == Size::Table || SLOW_TOO == (kernel.series, rung) {
                &[ONLY_WHERE_BOOTED, LONG, SAME_ON_EVERY_RUNG]
            } else if THIRD_RUNG == (kernel.series, rung) {
                &[ONLY_WHERE_BOOTED, LONG, SAME_ON_EVERY_RUNG, SLOW]
            } else {
                &[ONLY_WHERE_BOOTED, LONG, SAME_ON_EVERY_RUNG, SLOW, UNCOMMON]
            };
            let of = |name: String, append| Scenario {
                name,
                kernel,
                rung: Some(rung),
                append,
                before: if STRICTLY.contains(&(kernel.series, rung)) { STRICT } else { "" },
                tests: None,
                skip: [skip.concat(), if size == Size::Quick { PAGE.to_vec() } else { Vec::new() }].concat(),
                required: &[],
                size,
                patience,
            };
            let preempted = PREEMPTED.contains(&(kernel.series, rung));
            if size == Size::Full || !preempted {
                scenarios.push(of(format!("{} {rung}", kernel.series), ""));
            }
            if preempted || size == Size::Full && kernel.series != "5.10" {
                scenarios.push(of(format!("{} {rung} preempted", kernel.series), "preempt=full"));
            }
        }
        if kernel.series == LOCKED_DOWN.0 && rungs.is_empty() {
            scenarios.extend(LOCKED_DOWN.1.into_iter().map(|(append, required)| Scenario {
                name: format!("{} {append}", kernel.series),
                kernel,
                rung: None,
                append,
                before: "mount -t securityfs s /sys/kernel/security\n",
                tests: Some("lockdown"),
                skip: Vec::new(),
                required,
                size,
                patience,
            }));
        }
    }
    // The longest first: what is left for the end should be short.
    scenarios.sort_by_key(|scenario| (scenario.tests.is_some(), scenario.skip.len()));
    scenarios
}

fn wants(rungs: &[String], rung: &str) -> bool {
    rungs.is_empty() || rungs.iter().any(|wanted| wanted == rung)
}

impl Scenario<'_> {
    /// What the guest's shell runs.
    pub(crate) fn command(&self, test: &Path, filter: Option<&str>) -> String {
        let mut script = self.before.to_owned();
        if let Some(rung) = self.rung {
            let _ = writeln!(script, "export RANO_TEST_RUNG={rung}");
        }
        if self.size != Size::Full {
            script.push_str("export RANO_TEST_SIZE=small\n");
        }
        let _ = write!(script, "ulimit -n 65536\n{} --color never --test-threads 2", test.display());
        if let Some(filter) = filter.or(self.tests) {
            let _ = write!(script, " {filter}");
        } else {
            for file in &self.skip {
                let _ = write!(script, " --skip {file}::");
            }
        }
        script.push('\n');
        script
    }

    /// Turns what may not be skipped into failures: everything at once, and what the guest is for. Whoever asks for
    /// single tests has the results as they are.
    pub(crate) fn expect(&self, results: &mut Results, filter: Option<&str>) {
        if filter.is_some() {
            return;
        }
        let skipped = |outcome: &Outcome| matches!(outcome, Outcome::Skipped(_));
        let all = results.tests.iter().all(|(_, outcome)| skipped(outcome));
        for (name, outcome) in &mut results.tests {
            if skipped(outcome) && (all || self.required.contains(&name.as_str())) {
                println!("  {name} must not be skipped here");
                *outcome = Outcome::Failed;
            }
        }
    }
}

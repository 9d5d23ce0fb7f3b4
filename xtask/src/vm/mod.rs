//! The kernel tests on Debian's kernels, in emulated machines: each kernel, each way of attaching, and systems that
//! leave programs less room. Needs `apt-get`, `dpkg`, QEMU and a static busybox; no privileges and no /dev/kvm.

mod costs;
mod guest;
mod image;
mod kernels;
mod page;
mod plan;
mod results;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::cargo::{self, Built};
use crate::system::find_in_path;
use guest::{Clock, Ended, Guest};
use image::Image;
use kernels::{Archive, Kernel};
use page::Shown;
use plan::{KERNELS, Scenario, Size};
use results::{Outcome, Results};

const USAGE: &str = "\
usage: cargo xtask vm [--full] [--write] [--bench] [--dev] [--kernel SERIES]... [--rung RUNG]... [-- TEST]
  --full     every test in each guest, 100,000 connections, every kernel with full preemption too
  --write    what differs by rung on every kernel, and what was seen put into docs/kernels.md
  --bench    instead of tests: instructions that the programs cost whoever connects, beside tcplife (package libbpf-tools)
  --dev      an unoptimised build: sooner there, slower in the guests
  --kernel   only this kernel, such as 6.12
  --rung     only this one: fentry, kprobe, tracepoint
  TEST       only tests whose names contain it
";

/// Guests at a time; each keeps one CPU busy.
const AT_ONCE: usize = 2;

/// What is needed, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 7] = [
    (guest::EMULATOR, "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("apt-get", "apt"),
    ("dpkg", "dpkg"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    ("strip", "binutils"),
];

pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let Some(options) = Options::parse(arguments) else {
        eprint!("{USAGE}");
        return Ok(ExitCode::from(2));
    };
    if let Some(reason) = cannot_run() {
        return Ok(skip_all(&reason));
    }
    let home = cargo::target_directory().join("vm");
    let _alone = alone(&home)?;
    let archive = match Archive::open(&home) {
        Ok(archive) => archive,
        Err(error) => return Ok(skip_all(&format!("{error:#}"))),
    };
    let mut tally = Tally::default();
    let mut kernels = Vec::new();
    for series in KERNELS.iter().filter(|series| options.wants_kernel(series)) {
        match archive.newest(series) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => tally.skip(&format!("linux {series}: {error:#}")),
        }
    }
    if kernels.is_empty() {
        return Ok(skip_all("there is no kernel to boot"));
    }
    if options.bench {
        return costs::measure(&home, &plan::scenarios(&kernels, &options.rungs, Size::Quick));
    }
    let built = cargo::build_test("kernel", options.profile)?;
    let base = base_image(&built)?;
    let scenarios = plan::scenarios(&kernels, &options.rungs, options.size);
    let shown = run_guests(&home, &base, &built, &scenarios, &options, &mut tally);
    if options.write {
        page::write(&cargo::workspace(), &shown)?;
    }
    println!("\nvm: {} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Options {
    size: Size,
    write: bool,
    bench: bool,
    profile: &'static str,
    kernels: Vec<String>,
    rungs: Vec<String>,
    filter: Option<String>,
}

impl Options {
    fn parse(arguments: &[OsString]) -> Option<Self> {
        let mut options = Self {
            size: Size::Quick,
            write: false,
            bench: false,
            profile: "release",
            kernels: Vec::new(),
            rungs: Vec::new(),
            filter: None,
        };
        let mut words = arguments.iter().map(|argument| argument.to_str());
        while let Some(word) = words.next() {
            match word? {
                "--full" => options.size = Size::Full,
                "--write" => options.write = true,
                "--bench" => options.bench = true,
                "--dev" => options.profile = "dev",
                "--kernel" => options.kernels.push(words.next()??.to_owned()),
                "--rung" => options.rungs.push(words.next()??.to_owned()),
                "--" => options.filter = Some(words.next()??.to_owned()),
                _ => return None,
            }
        }
        if options.write && options.size == Size::Quick {
            options.size = Size::Table;
        }
        Some(options)
    }

    fn wants_kernel(&self, series: &str) -> bool {
        self.kernels.is_empty() || self.kernels.iter().any(|wanted| wanted == series)
    }
}

/// Two runs would use the same guests' folders: waits until this is the only one, which it is as long as the file is
/// open.
fn alone(home: &Path) -> Result<File> {
    fs::create_dir_all(home).with_context(|| format!("make {}", home.display()))?;
    let path = home.join("lock");
    let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another run of this command in the same checkout");
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}

/// Why guests cannot be run here.
fn cannot_run() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("guests are x86-64, and so has to be the machine that builds for them".to_owned());
    }
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| find_in_path(program).is_none()).collect();
    if missing.is_empty() {
        return None;
    }
    let (programs, packages): (Vec<_>, Vec<_>) = missing.iter().copied().copied().unzip();
    Some(format!("not installed: {} (apt install {})", programs.join(", "), packages.join(" ")))
}

/// Loud, because nothing of what guests show is known then.
fn skip_all(reason: &str) -> ExitCode {
    eprintln!("\n*** SKIPPED: no test ran on other kernels: {reason} ***\n");
    println!("vm: 0 passed, 0 failed, {} skipped", KERNELS.len());
    ExitCode::SUCCESS
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Tally {
    fn skip(&mut self, what: &str) {
        eprintln!("\n*** SKIPPED: {what} ***\n");
        self.skipped += 1;
    }

    fn add(&mut self, results: &Results) {
        self.passed += results.count(|outcome| *outcome == Outcome::Passed);
        self.failed += results.count(|outcome| *outcome == Outcome::Failed);
        self.skipped += results.count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    }
}

/// What every guest has, without the end of the archive: a kernel's modules and the command come behind it.
fn base_image(built: &Built) -> Result<Vec<u8>> {
    let mut image = Image::base()?;
    image.peers()?;
    image.program(&built.test, &built.test)?;
    // Where the test program looks for it.
    image.program(&built.rano, &built.rano)?;
    image.finish()
}

fn run_guests(
    home: &Path,
    base: &[u8],
    built: &Built,
    scenarios: &[Scenario<'_>],
    options: &Options,
    tally: &mut Tally,
) -> Vec<Shown> {
    let begin = Instant::now();
    let mut shown = Vec::new();
    let waiting: Mutex<VecDeque<_>> = Mutex::new(scenarios.iter().collect());
    let (sender, ended) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let sender = sender.clone();
            scope.spawn(|| {
                let sender = sender;
                while let Some(scenario) = next(&waiting) {
                    let command = scenario.command(&built.test, options.filter.as_deref());
                    let ended = run_guest(home, base, scenario, &command, Clock::Host);
                    if sender.send((scenario, ended)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        shown.extend(
            ended
                .into_iter()
                .filter_map(|(scenario, ended)| tell(scenario, ended, options.filter.as_deref(), tally)),
        );
    });
    println!("{} guests in {} s", scenarios.len(), begin.elapsed().as_secs());
    shown
}

fn next<'a, T>(waiting: &Mutex<VecDeque<&'a T>>) -> Option<&'a T> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

/// `base` is an image without its end, `command` what the guest's shell runs.
fn run_guest(
    home: &Path,
    base: &[u8],
    scenario: &Scenario<'_>,
    command: &str,
    clock: Clock,
) -> Result<Ended> {
    let directory = home.join("guests").join(scenario.name.replace(' ', "-"));
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let mut image = Image::default();
    image.modules(scenario.kernel)?;
    image.file(&PathBuf::from("/command"), command.as_bytes(), 0o644)?;
    let initramfs = directory.join("initramfs");
    fs::write(&initramfs, [base, &image.finish()?].concat()).context("write the initramfs")?;
    let guest = Guest {
        vmlinux: &scenario.kernel.vmlinux(),
        initramfs: &initramfs,
        append: scenario.append,
        patience: scenario.patience,
        clock,
    };
    let mut ended = guest.run(&directory);
    if let Ok(Ended { status: None, timed_out: false, output, console, .. }) = &ended
        && output.is_empty()
    {
        println!("{}: booted again, for it did not come up:\n{console}", scenario.name);
        ended = guest.run(&directory);
    }
    fs::remove_file(&initramfs).context("remove the initramfs")?;
    ended
}

/// A line for each guest, and everything where something is wrong.
fn tell(
    scenario: &Scenario<'_>,
    ended: Result<Ended>,
    filter: Option<&str>,
    tally: &mut Tally,
) -> Option<Shown> {
    let Kernel { series, release, .. } = scenario.kernel;
    let ended = match ended {
        Ok(ended) => ended,
        Err(error) => {
            println!("{}: FAILED: {error:#}", scenario.name);
            tally.failed += 1;
            return None;
        }
    };
    let mut results = Results::parse(&ended.output);
    scenario.expect(&mut results, filter);
    tally.add(&results);
    let failed = results.count(|outcome| *outcome == Outcome::Failed);
    println!(
        "{} (linux {series}, {release}): {} passed, {failed} failed, {} skipped in {} s",
        scenario.name,
        results.count(|outcome| *outcome == Outcome::Passed),
        results.count(|outcome| matches!(outcome, Outcome::Skipped(_))),
        ended.took.as_secs(),
    );
    for (name, outcome) in &results.tests {
        if let Outcome::Skipped(reason) = outcome {
            println!("  skipped {name}: {reason}");
        }
    }
    if !results.complete {
        tally.failed += 1;
        let how = if ended.timed_out { "was too slow" } else { "ended before the tests did" };
        println!("  FAILED: the guest {how}; status {:?}; its console:\n{}", ended.status, ended.console);
    }
    if failed > 0 || !results.complete {
        println!("{}", ended.output);
    }
    Some(Shown { series, release: release.clone(), rung: scenario.rung, results })
}

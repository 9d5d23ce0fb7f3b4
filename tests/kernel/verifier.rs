//! What the kernel's verifier had to look at before it took each program. It stops at a million instructions, and how
//! many it needs for the same program differs widely between kernels.

use std::cell::RefCell;
use std::ffi::{c_int, c_long};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rano::internals::event::SourceKind;
use rano::internals::source::ebpf::{EbpfSettings, EbpfSource};
use rano::internals::source::proc::ProcSettings;

use crate::support::rano::RUNG;
use crate::support::stage;
use crate::support::trial::skip;

crate::tests![every_program_is_far_from_the_verifiers_limit];

/// Set in the process that loads the programs itself.
const MARKER: &str = "RANO_TEST_VERIFIER";
/// A tenth of what the kernel allows, because the next kernel may need several times as many.
const ENOUGH: u64 = 100_000;

pub fn play_if_asked() -> Option<ExitCode> {
    std::env::var_os(MARKER)?;
    let settings = EbpfSettings {
        polling: polling(),
        rung: rung(),
        ring_bytes: 0,
        owners_max: 0,
        names: true,
        keep_privileges: false,
    };
    Some(match EbpfSource::start(settings) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn rung() -> Option<SourceKind> {
    match std::env::var(RUNG).ok()?.as_str() {
        "fentry" => Some(SourceKind::EbpfFentry),
        "kprobe" => Some(SourceKind::EbpfKprobe),
        "tracepoint" => Some(SourceKind::EbpfTracepoint),
        _ => None,
    }
}

fn polling() -> ProcSettings {
    ProcSettings {
        interval: Duration::from_secs(1),
        udp: true,
        other: true,
        listening: true,
        unix: false,
        unattributed: false,
        only_unix: false,
        every_end: false,
        once: true,
        receive_buffer: 0,
    }
}

fn every_program_is_far_from_the_verifiers_limit() -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        return Err(skip("system calls are looked into on x86-64 only"));
    }
    let scene = crate::scene()?;
    let mut command = Command::new(stage::actor("verifier")?);
    command.env(MARKER, "1").stdin(Stdio::null()).stderr(Stdio::inherit());
    scene.place.apply(&mut command);
    let output = command.output().context("load the programs")?;
    ensure!(output.status.success(), "the programs do not load");
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.lines().count() > 5, "too few programs: {text}");
    for line in text.lines() {
        let (program, instructions) = line.split_once(' ').with_context(|| line.to_owned())?;
        // `cargo xtask vm` collects these.
        println!("fact: instructions {program} {instructions}");
        let instructions: u64 = instructions.parse()?;
        ensure!(instructions > 0 && instructions <= ENOUGH, "{program}: {instructions} instructions");
    }
    Ok(())
}

const PROG_LOAD: c_long = 5;
/// `BPF_LOG_STATS`: nothing but the sums.
const LOG_STATS: u32 = 4;
const LOG_BYTES: u16 = 4096;

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD` (`linux/bpf.h`).
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

thread_local! {
    static LOG: RefCell<[u8; LOG_BYTES as usize]> = const { RefCell::new([0; LOG_BYTES as usize]) };
}

/// Stands before the C library's in this test program, and so in the library that loads the programs: it asks for no
/// log when all goes well, and before 5.16 the log is the only place that has the number.
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
extern "C" fn syscall(
    number: c_long,
    first: c_long,
    second: c_long,
    third: c_long,
    fourth: c_long,
    fifth: c_long,
    sixth: c_long,
) -> c_long {
    let rest = [fourth, fifth, sixth];
    if number != libc::SYS_bpf || first != PROG_LOAD || std::env::var_os(MARKER).is_none() {
        return forward(number, [first, second, third, rest[0], rest[1], rest[2]]);
    }
    // SAFETY: for this command the second argument points to an attribute that is longer than these fields.
    let load = unsafe { &mut *(second as *mut Load) };
    let wants_log = load.log_level == 0;
    LOG.with_borrow_mut(|log| {
        if wants_log {
            log[0] = 0;
            load.log_level = LOG_STATS;
            load.log_size = u32::from(LOG_BYTES);
            load.log_buffer = log.as_mut_ptr() as u64;
        }
        let result = forward(number, [first, second, third, rest[0], rest[1], rest[2]]);
        if wants_log {
            (load.log_level, load.log_size, load.log_buffer) = (0, 0, 0);
            if result >= 0 {
                tell(&load.name, &log[..]);
            }
        }
        result
    })
}

fn tell(name: &[u8], log: &[u8]) {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    };
    let (name, log) = (text(name), text(log));
    let count =
        log.lines().find_map(|line| line.strip_prefix("processed ")?.split(' ').next().map(str::to_owned));
    // The library tries with small programs what the kernel can do.
    if let Some(count) = count.filter(|_| !name.is_empty() && !name.starts_with("aya_")) {
        println!("{name} {count}");
    }
}

#[cfg(target_arch = "x86_64")]
fn forward(number: c_long, arguments: [c_long; 6]) -> c_long {
    let result: c_long;
    // SAFETY: this is the system call that was asked for; whoever asked answers for its arguments.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") arguments[0], in("rsi") arguments[1], in("rdx") arguments[2],
            in("r10") arguments[3], in("r8") arguments[4], in("r9") arguments[5],
            lateout("rcx") _, lateout("r11") _,
        );
    }
    if (-4095..0).contains(&result) {
        // SAFETY: it takes nothing and always answers.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: the location is this thread's own.
        unsafe { *errno = c_int::try_from(-result).unwrap_or(libc::EIO) };
        return -1;
    }
    result
}

//! The terminal as a screen: taken, and given back as it was, whatever ends the view.

use std::io;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::cursor::{Hide, Show};
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui_core::layout::Rect;
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::SIGCONT;

use crate::output::stream::{self, FullScreen};

/// Somebody has to give the screen back.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// How long a process that asked to be stopped may still run, because others keep the kernel from it.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

/// What ended a wait for keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// Keys may be there, or the time is over.
    Enough,
    /// The terminal was closed.
    HungUp,
}

pub(super) struct Screen {
    /// Never dropped: it would show the cursor, and panic about a terminal that was closed.
    pub(super) terminal: ManuallyDrop<Terminal<CrosstermBackend<FullScreen>>>,
    /// It goes on after a stop.
    continued: Arc<AtomicBool>,
}

impl Screen {
    pub(super) fn take() -> io::Result<Self> {
        give_back_on_panic();
        let continued = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGCONT, Arc::clone(&continued))?;
        let screen = stream::take_screen();
        if let Err(error) = enter() {
            give_back();
            return Err(error);
        }
        let terminal = Terminal::new(CrosstermBackend::new(screen));
        let terminal = ManuallyDrop::new(terminal.inspect_err(|_| give_back())?);
        Ok(Self { terminal, continued })
    }

    /// The next frame is drawn from nothing: what is there may be anybody's.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        // Not by `Terminal::clear`, which asks the terminal where its cursor is and waits for the answer.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Whether it was stopped from outside and goes on: a shell may have changed the terminal since.
    pub(super) fn has_continued(&mut self) -> io::Result<bool> {
        let has_continued = self.continued.swap(false, Ordering::AcqRel);
        if has_continued {
            enter()?;
            self.clear()?;
        }
        Ok(has_continued)
    }

    /// Gives the terminal back, stops the process and its group as the terminal would, and takes it again when they go
    /// on.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        self.continued.store(false, Ordering::Release);
        let _ = rustix::process::kill_current_process_group(rustix::process::Signal::TSTP);
        // The signal takes effect in any thread, a moment later; where no shell could continue the group, in none.
        let asked = Instant::now();
        while !self.continued.load(Ordering::Acquire) && asked.elapsed() < STOP_PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.continued.store(false, Ordering::Release);
        stream::take_screen_again();
        enter()?;
        self.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Waits for keys. crossterm itself does not notice that a terminal was closed, and asks for its keys without end.
pub(super) fn wait(longest: Duration) -> io::Result<Waited> {
    let (stdin, stdout) = (io::stdin(), stream::stdout_end());
    // What crossterm reads. If standard input is no terminal, it reads the controlling one, which is drawn on.
    let stdin = rustix::termios::isatty(&stdin).then_some(stdin);
    let mut ends = match &stdin {
        Some(stdin) => {
            vec![PollFd::new(stdin, PollFlags::IN), PollFd::new(&stdout, PollFlags::empty())]
        }
        None => vec![PollFd::new(&stdout, PollFlags::IN)],
    };
    let longest = Timespec::try_from(longest).map_err(io::Error::other)?;
    match poll(&mut ends, Some(&longest)) {
        // A signal, such as the one that tells of a new size.
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let is_over = |end: &PollFd<'_>| end.revents().intersects(PollFlags::HUP | PollFlags::ERR);
    Ok(if ends.iter().any(is_over) { Waited::HungUp } else { Waited::Enough })
}

fn enter() -> io::Result<()> {
    IS_TAKEN.store(true, Ordering::Release);
    enable_raw_mode()?;
    execute!(stream::screen(), EnterAlternateScreen, EnableBracketedPaste, Hide)
}

/// Does nothing if it was given back before.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::AcqRel) {
        let _ = execute!(stream::screen(), Show, DisableBracketedPaste, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
    stream::free_screen();
}

/// Before a fault is told, the screen has to be one that keeps it.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            tell(panic);
        }));
    });
}

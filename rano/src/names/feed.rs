//! Evidence on its way to the pipeline: from a thread that watches packets, or out of a file.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use anyhow::{Context as _, Result};
use rustix::thread::CapabilitySet;

use super::Evidence;
use super::capture_file::{self, CaptureEvidence, Packets};
use crate::event::Moment;
use crate::files::{Files, NamedBy, Reading, Rights};
use crate::privileges;
use crate::stop::{Bell, Stop};

/// Evidence that may wait for the pipeline.
const WAITING_MAX: usize = 8192;

/// Two tools that look at the same thing may date it by so much differently: a capture may be ahead of what it is laid
/// beside by this.
const JITTER_MS: i64 = 5;

/// Where evidence comes from, other than from the source itself.
pub struct Feed(Kind);

enum Kind {
    Thread(Watch),
    File(Box<Laid>),
}

/// A thread that watches packets. It ends when this is dropped.
struct Watch {
    evidence: Receiver<Evidence>,
    bell: Bell,
    lost: Arc<AtomicU64>,
    stop: Stop,
}

/// The thread's side.
pub struct Sender {
    evidence: SyncSender<Evidence>,
    bell: Bell,
    lost: Arc<AtomicU64>,
    /// Raised when nobody wants any more.
    pub stop: Stop,
}

impl Sender {
    /// Never blocks: what finds no room is counted.
    pub fn send(&self, evidence: Evidence) {
        match self.evidence.try_send(evidence) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => self.lost(1),
        }
        self.bell.ring();
    }

    /// Waits for room; for what can wait itself.
    fn send_patiently(&self, evidence: Evidence) -> bool {
        self.bell.ring();
        let sent = self.evidence.send(evidence).is_ok();
        self.bell.ring();
        sent
    }

    pub fn lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }
}

impl Feed {
    /// From a thread that runs `watch` with `rights` until its stop is raised.
    pub fn from_thread(rights: Rights, watch: impl FnOnce(Sender) + Send + 'static) -> Result<Self> {
        let (sender, evidence) = sync_channel(WAITING_MAX);
        let (bell, lost, stop) = (Bell::new()?, Arc::new(AtomicU64::new(0)), Stop::new()?);
        let sender =
            Sender { evidence: sender, bell: bell.clone(), lost: Arc::clone(&lost), stop: stop.clone() };
        std::thread::Builder::new()
            .name("rano-packets".to_owned())
            .spawn(move || {
                // A pipe is opened by path; devices have been opened.
                if rights.take().is_err() {
                    return sender.lost(1);
                }
                privileges::keep_only(CapabilitySet::DAC_READ_SEARCH);
                watch(sender);
            })
            .context("start a thread for packets")?;
        Ok(Self(Kind::Thread(Watch { evidence, bell, lost, stop })))
    }

    /// Out of a capture file, or a pipe into which one is written. Who calls says which file an error is about.
    pub fn from_file(path: &Path, files: &Files, named_by: NamedBy) -> Result<Self> {
        let kind = files.look_through(path).map(|file| file.file_type());
        if kind.is_ok_and(|kind| kind.is_fifo() || kind.is_char_device()) {
            let path = path.to_path_buf();
            // A pipe that nobody writes to yet is no reason to wait with the rest.
            return Self::from_thread(files.rights(), move |sender| follow(&path, &sender));
        }
        let file = files.open(path, named_by, Reading::Data)?;
        let last_ms = capture_file::last_packet(&file)?;
        let evidence = CaptureEvidence::new(Packets::open(file)?);
        Ok(Self(Kind::File(Box::new(Laid { evidence, last_ms, ahead_ms: None }))))
    }

    /// Rings when evidence has come.
    pub fn bell(&self) -> Option<&Bell> {
        match &self.0 {
            Kind::Thread(watch) => Some(&watch.bell),
            Kind::File(_) => None,
        }
    }

    /// What has come by `now`, which is not the default.
    pub fn take(&mut self, now: Moment) -> Option<Evidence> {
        match &mut self.0 {
            Kind::Thread(watch) => watch.evidence.try_recv().ok(),
            Kind::File(laid) => laid.take(now),
        }
    }

    /// Packets with names that were lost or could not be read.
    pub fn lost(&self) -> u64 {
        match &self.0 {
            Kind::Thread(watch) => watch.lost.load(Ordering::Relaxed),
            Kind::File(laid) => laid.evidence.unread(),
        }
    }

    /// What is wrong with it, if anything is.
    pub fn problem(&self) -> Option<String> {
        match &self.0 {
            Kind::Thread(_) => None,
            Kind::File(laid) => {
                laid.evidence.broken().map(|what| format!("the capture file is cut short: {what}"))
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Not waited for: a thread that reads a pipe ends only when its writer does.
        self.stop.raise();
    }
}

/// A capture beside the time in which its names are wanted.
struct Laid {
    evidence: CaptureEvidence,
    /// When its last packet was seen.
    last_ms: Option<i64>,
    /// How much later than it says its evidence counts: nothing where it reaches into the observation. One that
    /// ended before is laid so that it ends as the observation begins, as if what it says had been learned just now.
    ahead_ms: Option<i64>,
}

impl Laid {
    fn take(&mut self, now: Moment) -> Option<Evidence> {
        let last_ms = self.last_ms?;
        let ahead_ms = *self.ahead_ms.get_or_insert_with(|| now.unix_ms.saturating_sub(last_ms).max(0));
        let at = self.evidence.peek()?.at();
        let age_ms = now.unix_ms.saturating_sub(at.unix_ms.saturating_add(ahead_ms));
        if age_ms < -JITTER_MS {
            return None;
        }
        let mut evidence = self.evidence.take()?;
        let age_ms = match evidence {
            // Rather a millisecond too old than too young: an answer comes just before the connection that it names.
            Evidence::Answer(_) => age_ms + 1,
            Evidence::Greeting(_) | Evidence::Pointer(_) => age_ms,
        };
        let until_now_ns = age_ms.saturating_mul(1_000_000);
        *evidence.at_mut() = Moment {
            boot_ns: now.boot_ns.saturating_add_signed(until_now_ns.saturating_neg()),
            unix_ms: now.unix_ms.saturating_sub(age_ms),
        };
        Some(evidence)
    }
}

/// Reads a capture as it is written, until its end.
fn follow(path: &Path, sender: &Sender) {
    let opened = Files::default().open(path, NamedBy::Configuration, Reading::Data);
    let packets = opened.ok().and_then(|file| Packets::open(file).ok());
    let Some(packets) = packets else { return sender.lost(1) };
    let mut evidence = CaptureEvidence::new(packets);
    while let Some(mut found) = evidence.take() {
        let now = crate::moment::now();
        let age_ms = now.unix_ms.saturating_sub(found.at().unix_ms).max(0);
        // Rather a millisecond too old than too young: an answer comes just before the connection that it names.
        let back = (age_ms.unsigned_abs() + 1).saturating_mul(1_000_000);
        *found.at_mut() = Moment { boot_ns: now.boot_ns.saturating_sub(back), unix_ms: now.unix_ms - age_ms };
        if sender.stop.is_raised() || !sender.send_patiently(found) {
            break;
        }
    }
    sender.lost(evidence.unread());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::capture_file::tests::{legacy, lookup};

    fn at(unix_ms: i64) -> Moment {
        Moment { boot_ns: 5_000_000_000 + unix_ms.unsigned_abs() * 1_000_000, unix_ms }
    }

    fn feed(packets: &[(u64, Vec<u8>)]) -> Feed {
        let file = tempfile::NamedTempFile::new().expect("made");
        std::fs::write(file.path(), legacy(101, packets)).expect("written");
        Feed::from_file(file.path(), &Files::default(), NamedBy::CommandLine).expect("a capture")
    }

    fn taken(feed: &mut Feed, now: Moment) -> Vec<Moment> {
        std::iter::from_fn(|| feed.take(now)).map(|evidence| evidence.at()).collect()
    }

    #[test]
    fn a_capture_that_was_made_meanwhile_is_told_as_time_goes_on() {
        let mut feed = feed(&[lookup(1_000, "a.example"), lookup(4_000, "b.example")].concat());
        assert_eq!(taken(&mut feed, at(900)), []);
        assert_eq!(taken(&mut feed, at(3_000)), [at(1_000)]);
        assert_eq!(taken(&mut feed, at(3_500)), []);
        assert_eq!(taken(&mut feed, at(9_000)), [at(4_000)]);
    }

    /// It may be ahead of what it is laid beside; what it says is not older for that.
    #[test]
    fn what_comes_a_little_early_keeps_its_time() {
        let packets = lookup(1_000, "a.example");
        assert_eq!(taken(&mut feed(&packets), at(995)), []);
        assert_eq!(taken(&mut feed(&packets), at(996)), [at(1_000)]);
        assert_eq!(taken(&mut feed(&packets), at(1_000)), [at(1_000)]);
    }

    #[test]
    fn a_capture_from_before_ends_as_the_observation_begins() {
        let mut feed = feed(&[lookup(1_000, "a.example"), lookup(4_000, "b.example")].concat());
        assert_eq!(taken(&mut feed, at(1_000_000)), [at(996_999), at(999_999)]);
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("made");
        std::fs::write(file.path(), "GET / HTTP/1.1").expect("written");
        let error = Feed::from_file(file.path(), &Files::default(), NamedBy::CommandLine)
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default();
        assert!(error.contains("no capture file"), "{error}");
        assert!(Feed::from_file(Path::new("/nonexistent"), &Files::default(), NamedBy::CommandLine).is_err());
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let (done, is_done) = std::sync::mpsc::channel();
        let mut feed = Feed::from_thread(Rights::here(), move |sender| {
            let mut file = feed_of_one();
            let evidence = file.take(at(1)).expect("there");
            for _ in 0..WAITING_MAX + 3 {
                sender.send(evidence.clone());
            }
            done.send(()).expect("awaited");
        })
        .expect("started");
        is_done.recv().expect("sent");
        assert_eq!((feed.lost(), taken(&mut feed, at(9)).len()), (3, WAITING_MAX));
    }

    fn feed_of_one() -> Feed {
        feed(&lookup(0, "a.example"))
    }
}

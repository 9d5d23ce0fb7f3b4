//! What is new, to those who listen: one reader of the database for all that want the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use rustc_hash::FxHashMap;
use serde_json::json;
use tokio::sync::broadcast;

use super::Shared;
use super::answer::{Trouble, ask};
use crate::filter::Filter;
use crate::output;
use crate::output::view;
use crate::store::query::export;
use crate::store::{History, Written};

/// How often it is asked whether the file was written: a look at two sizes.
const PULSE: Duration = Duration::from_millis(40);

/// Where much happens: people do not read faster, and the observation needs the machine.
const BUSY_PULSE: Duration = Duration::from_millis(500);

/// However much a look takes.
const SLOW_PULSE: Duration = Duration::from_secs(1);

/// Events that are told one by one in a pulse; of more, only how many.
const EVENTS_MAX: u64 = 100;

/// A session is told of at least so often while it goes on.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Messages that a listener may lag behind; then it is cut off.
const LAG: usize = 16;

/// How long a name that is not known yet is looked for.
const NAME_PATIENCE: Duration = Duration::from_secs(5);

/// Names that are looked for at a time.
const NAMES_MAX: usize = 500;

/// Different feeds at a time.
const FEEDS_MAX: usize = 64;

/// What a listener wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wish {
    pub(super) run_id: String,
    /// Text of the filter; empty for none.
    pub(super) filter: String,
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// Id of the last event that it knows of.
    pub(super) last: i64,
    /// As it is sent; shared by all that listen.
    pub(super) frame: Bytes,
}

impl Message {
    /// `data` is JSON on one line (html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
    pub(super) fn new(kind: &str, last: i64, data: &str) -> Self {
        Self { last, frame: format!("event: {kind}\nid: {last}\ndata: {data}\n\n").into() }
    }
}

/// The readers there are.
#[derive(Debug, Default)]
pub(super) struct Feeds(Mutex<FxHashMap<Wish, Weak<broadcast::Sender<Message>>>>);

impl Feeds {
    /// A place among those who listen for `wish`, from the event `after` on. `None` where too much is listened for.
    pub(super) fn join(
        &self,
        shared: &Arc<Shared>,
        wish: &Wish,
        filter: Option<Filter>,
        after: i64,
    ) -> Option<(Arc<broadcast::Sender<Message>>, broadcast::Receiver<Message>)> {
        let mut feeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|_, feed| feed.strong_count() > 0);
        if let Some(feed) = feeds.get(wish).and_then(Weak::upgrade) {
            let listener = feed.subscribe();
            return Some((feed, listener));
        }
        if feeds.len() >= FEEDS_MAX {
            return None;
        }
        let (sender, listener) = broadcast::channel(LAG);
        let sender = Arc::new(sender);
        feeds.insert(wish.clone(), Arc::downgrade(&sender));
        let reader = Reader {
            wish: wish.clone(),
            filter,
            last: after,
            nameless: Vec::new(),
            seen: Written::default(),
            told: None,
        };
        tokio::spawn(reader.run(Arc::clone(shared), Arc::downgrade(&sender)));
        Some((sender, listener))
    }
}

/// Reads for one feed.
struct Reader {
    wish: Wish,
    filter: Option<Filter>,
    last: i64,
    /// Events without a name, and since when they are waited for.
    nameless: Vec<(i64, Instant)>,
    seen: Written,
    told: Option<Instant>,
}

/// What a look at the database found.
#[derive(Default)]
struct Found {
    events: view::Events,
    named: view::Events,
    session: serde_json::Value,
    /// Events that are not told one by one, at most.
    skipped: i64,
    last: i64,
    /// What it took of a processor.
    cost: Duration,
}

impl Reader {
    /// Until nobody listens.
    async fn run(mut self, shared: Arc<Shared>, listeners: Weak<broadcast::Sender<Message>>) {
        let mut pulse = PULSE;
        loop {
            tokio::time::sleep(pulse).await;
            let Some(feed) = listeners.upgrade() else { return };
            let written = Written::of(&shared.database());
            let is_due = self.told.is_none_or(|told| told.elapsed() >= HEARTBEAT);
            if written == self.seen && !is_due {
                continue;
            }
            let Ok(found) = self.look(&shared).await else { continue };
            self.seen = written;
            self.told = Some(Instant::now());
            let is_busy = found.events.count >= EVENTS_MAX / 2;
            // At most a twentieth of a processor.
            pulse = if is_busy { BUSY_PULSE } else { PULSE }.max(found.cost * 20).min(SLOW_PULSE);
            let now = Instant::now();
            self.nameless.retain(|(id, since)| {
                now.duration_since(*since) < NAME_PATIENCE && !found.named.named.contains(id)
            });
            let room = if is_busy { 0 } else { NAMES_MAX.saturating_sub(self.nameless.len()) };
            self.nameless.extend(found.events.nameless.iter().take(room).map(|id| (*id, now)));
            self.last = found.last;
            let _ = feed.send(message(&found));
        }
    }

    async fn look(&self, shared: &Arc<Shared>) -> Result<Found, super::answer::Refusal> {
        let (wish, filter, last) = (self.wish.clone(), self.filter.clone(), self.last);
        let nameless: Vec<i64> = self.nameless.iter().map(|(id, _)| *id).collect();
        let begun = AtomicU64::new(0);
        ask(shared, move |shared, history| {
            // It may be asked again, in the same thread.
            let _ = begun.compare_exchange(0, own_time(), Ordering::Relaxed, Ordering::Relaxed);
            let mut found = news(shared, history, &wish, filter.as_ref(), last)?;
            if !nameless.is_empty() {
                let is_named = Filter::parse("domain:*").expect("a constant");
                let (ids, matching) = (nameless.clone(), Some(is_named));
                let again = export::Filter { matching, ids, ..export::Filter::default() };
                found.named = view::events(history, &again)?;
            }
            found.cost = Duration::from_nanos(own_time().saturating_sub(begun.load(Ordering::Relaxed)));
            Ok(found)
        })
        .await
    }
}

/// Nanoseconds that the calling thread has run.
fn own_time() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let nanos = time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}

fn news(
    shared: &Shared,
    history: &History,
    wish: &Wish,
    filter: Option<&Filter>,
    after: i64,
) -> Result<Found, Trouble> {
    let newest = history.last_event()?;
    let wanted = export::Filter {
        run: Some(wish.run_id.clone()),
        matching: filter.cloned(),
        after: Some(after),
        most: Some(EVENTS_MAX),
        ..export::Filter::default()
    };
    let events = if newest > after { view::events(history, &wanted)? } else { view::Events::default() };
    let is_cut = events.count >= EVENTS_MAX;
    let skipped = if is_cut { newest - events.last.unwrap_or(newest) } else { 0 };
    let session = history.session(&wish.run_id)?;
    let counts = history.session_counts(&wish.run_id)?;
    let rows: Vec<_> = session.into_iter().map(|session| (session, counts)).collect();
    let session = view::sessions(&rows, &shared.running());
    let session = session.get(0).cloned().unwrap_or_default();
    Ok(Found {
        events,
        named: view::Events::default(),
        session,
        skipped,
        last: newest.max(after),
        cost: Duration::ZERO,
    })
}

fn message(found: &Found) -> Message {
    let texts: Vec<&str> = [&found.named.text, &found.events.text]
        .into_iter()
        .map(String::as_str)
        .filter(|it| !it.is_empty())
        .collect();
    let rest = output::json::text(&json!({
        "last": found.last,
        "skipped": found.skipped,
        "session": found.session,
    }));
    let data = format!("{{\"events\":[{}],{}", texts.join(","), rest.trim_start_matches('{'));
    Message::new("events", found.last, &data)
}

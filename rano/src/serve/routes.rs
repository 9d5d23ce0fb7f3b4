//! What can be asked for. docs/api.md describes each route.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::get;
use futures_core::Stream;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::Shared;
use super::answer::{Refusal, Trouble, ask, text, typed};
use super::feed::{Message, Wish};
use super::guard::guard;
use crate::filter::Filter;
use crate::output::{diff as diff_output, metrics, page, view};
use crate::store::History;
use crate::store::query::diff::compare;
use crate::store::query::export;
use crate::store::query::report::{Selection, Sessions};
use crate::time_argument;

type Answer = Result<Response, Refusal>;

/// Sessions in the list.
const SESSIONS: u32 = 500;
/// Ways of the map, and of what findings are looked for in.
const PATHS: usize = 400;
/// Lines of a ranking.
const TOP: u32 = 20;
/// Columns of the time strip.
const PARTS: u32 = 240;
/// Events that a stream that comes back gets one by one.
const CATCH_UP: u64 = 2000;
/// Streams say so often that they live.
const ALIVE: Duration = Duration::from_secs(10);

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(|| async { typed("text/html; charset=utf-8", page::HTML) }))
        .route("/app.js", get(|| async { typed("text/javascript; charset=utf-8", page::SCRIPT) }))
        .route("/app.css", get(|| async { typed("text/css; charset=utf-8", page::STYLE) }))
        .route("/icon.svg", get(|| async { typed("image/svg+xml", page::ICON) }))
        .route("/api/sessions", get(sessions))
        .route("/api/snapshot", get(snapshot))
        .route("/api/graph", get(graph))
        .route("/api/connections", get(connections))
        .route("/api/events", get(events))
        .route("/api/diff", get(diff))
        .route("/api/stream", get(stream))
        .route("/metrics", get(openmetrics))
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "no such path") })
        .layer(from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

/// What selects events. All are optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    /// Run id or name; else the session that is followed, else the latest.
    run: Option<String>,
    since: Option<String>,
    until: Option<String>,
    filter: Option<String>,
    /// Ids of events.
    after: Option<i64>,
    before: Option<i64>,
    limit: Option<usize>,
}

type Parameters = Result<Query<Asked>, QueryRejection>;

/// The same, understood.
#[derive(Clone)]
struct Wanted {
    selection: Selection,
    after: Option<i64>,
    before: Option<i64>,
    limit: Option<usize>,
}

fn wanted(shared: &Shared, parameters: Parameters) -> Result<Wanted, Refusal> {
    let wrong = |why: String| Refusal::new(StatusCode::BAD_REQUEST, why);
    let Query(asked) = parameters.map_err(|error| wrong(error.body_text()))?;
    let now = now();
    let time = |text: Option<String>| {
        let text = text.filter(|text| !text.is_empty());
        text.map(|text| {
            time_argument::parse_moment(&text, now, &TimeZone::UTC).map_err(|error| wrong(error.to_string()))
        })
        .transpose()
    };
    let filter = asked.filter.filter(|text| !text.trim().is_empty());
    let filter =
        filter.map(|text| Filter::parse(&text).map_err(|error| wrong(error.to_string()))).transpose()?;
    let run = asked.run.filter(|run| !run.is_empty()).or_else(|| shared.following.clone());
    let selection = Selection {
        sessions: run.map_or(Sessions::Latest, Sessions::Named),
        since: time(asked.since)?,
        until: time(asked.until)?,
        filter,
    };
    if let (Some(since), Some(until)) = (selection.since, selection.until)
        && since >= until
    {
        return Err(wrong("since has to be before until".to_owned()));
    }
    Ok(Wanted { selection, after: asked.after, before: asked.before, limit: asked.limit })
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn absent(selection: &Selection) -> Refusal {
    match &selection.sessions {
        Sessions::Named(name) => Refusal::no_session(name),
        Sessions::Latest | Sessions::All => Refusal::new(StatusCode::NOT_FOUND, "no session yet"),
    }
}

/// The session's own id: a name may stand for another one later.
fn run_id(history: &History, selection: &Selection) -> Result<String, Trouble> {
    let sessions = history.selected(selection)?.unwrap_or_default();
    let session = sessions.into_iter().next().ok_or_else(|| absent(selection))?;
    Ok(session.run_id)
}

async fn sessions(State(shared): State<Arc<Shared>>) -> Answer {
    let answer = ask(&shared, |shared, history| {
        let mut rows = Vec::new();
        for session in history.sessions(SESSIONS)? {
            let counts = history.session_counts(&session.run_id)?;
            rows.push((session, counts));
        }
        Ok(json!({
            "v": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "database": shared.database().display().to_string(),
            "following": shared.following,
            "sessions": view::sessions(&rows, &shared.running()),
        }))
    });
    answer.await.map(|json| text(&json))
}

async fn snapshot(State(shared): State<Arc<Shared>>, parameters: Parameters) -> Answer {
    let Wanted { selection, .. } = wanted(&shared, parameters)?;
    let answer = ask(&shared, move |shared, history| {
        let running = shared.running();
        snapshot_of(history, &selection, &running)
    });
    answer.await.map(|json| text(&json))
}

fn snapshot_of(history: &History, selection: &Selection, running: &[String]) -> Result<Json, Trouble> {
    // What is written meanwhile is told again by the stream.
    let last = history.last_event()?;
    view::snapshot(
        history,
        selection,
        running,
        &view::Lengths { top: TOP, paths: PATHS, parts: PARTS },
        now(),
    )?
    .map(|mut json| {
        json["last"] = last.into();
        json
    })
    .ok_or_else(|| absent(selection).into())
}

async fn graph(State(shared): State<Arc<Shared>>, parameters: Parameters) -> Answer {
    let Wanted { selection, limit, .. } = wanted(&shared, parameters)?;
    let most = limit.unwrap_or(PATHS).min(10 * PATHS);
    let answer = ask(&shared, move |_, history| {
        let sessions = history.selected(&selection)?.ok_or_else(|| absent(&selection))?;
        let last = history.last_event()?;
        let mut json = view::graph(&history.paths(&sessions, &selection, most)?);
        json["last"] = last.into();
        Ok(json)
    });
    answer.await.map(|json| text(&json))
}

fn export_filter(history: &History, wanted: &Wanted) -> Result<export::Filter, Trouble> {
    Ok(export::Filter {
        run: Some(run_id(history, &wanted.selection)?),
        since: wanted.selection.since,
        until: wanted.selection.until,
        matching: wanted.selection.filter.clone(),
        after: wanted.after,
        before: wanted.before,
        ..export::Filter::default()
    })
}

async fn connections(State(shared): State<Arc<Shared>>, parameters: Parameters) -> Answer {
    let wanted = wanted(&shared, parameters)?;
    let answer = ask(&shared, move |_, history| {
        let filter = export_filter(history, &wanted)?;
        let last = history.last_event()?;
        let found = history.connections(&filter, wanted.limit.unwrap_or(1000).min(10_000))?;
        let mut json = view::connections(&found);
        json["last"] = last.into();
        Ok(json)
    });
    answer.await.map(|json| text(&json))
}

async fn events(State(shared): State<Arc<Shared>>, parameters: Parameters) -> Answer {
    let wanted = wanted(&shared, parameters)?;
    let answer = ask(&shared, move |_, history| {
        let most = wanted.limit.unwrap_or(1000).min(10_000) as u64;
        let mut filter = export_filter(history, &wanted)?;
        filter.most = Some(most);
        let events = view::events(history, &filter)?;
        let last = events.last.or(wanted.after).unwrap_or(0);
        let more = events.count == most;
        Ok(format!("{{\"events\":[{}],\"last\":{last},\"more\":{more}}}\n", events.text))
    });
    answer.await.map(|body| typed("application/json", body))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    old: String,
    new: String,
    threshold: Option<u64>,
    filter: Option<String>,
}

async fn diff(State(shared): State<Arc<Shared>>, pair: Result<Query<Pair>, QueryRejection>) -> Answer {
    let wrong = |why: String| Refusal::new(StatusCode::BAD_REQUEST, why);
    let Query(pair) = pair.map_err(|error| wrong(error.body_text()))?;
    let filter = pair.filter.clone().filter(|text| !text.trim().is_empty());
    let filter =
        filter.map(|text| Filter::parse(&text).map_err(|error| wrong(error.to_string()))).transpose()?;
    let answer = ask(&shared, move |_, history| {
        let snapshot = |name: &str| {
            let found = history.snapshot(name, filter.as_ref()).map_err(Trouble::from)?;
            found.ok_or_else(|| Trouble::from(Refusal::no_session(name)))
        };
        let (old, new) = (snapshot(&pair.old)?, snapshot(&pair.new)?);
        let threshold = pair.threshold.unwrap_or(50);
        let changes = compare(&old, &new, threshold);
        let question = diff_output::Question { threshold, filter: filter.as_ref() };
        Ok(diff_output::value(&old, &new, &changes, &question))
    });
    answer.await.map(|json| text(&json))
}

async fn openmetrics(State(shared): State<Arc<Shared>>) -> Answer {
    let answer = ask(&shared, |shared, history| {
        let sessions = shared.following.clone().map_or(Sessions::Latest, Sessions::Named);
        let selection = Selection { sessions, since: None, until: None, filter: None };
        let sessions = history.selected(&selection)?.unwrap_or_default();
        let paths = history.paths(&sessions, &selection, 0)?;
        let running = shared.running();
        let is_running = sessions.first().is_some_and(|session| running.contains(&session.run_id));
        Ok(metrics::text(sessions.first(), &paths, is_running))
    });
    answer.await.map(|body| typed(metrics::CONTENT_TYPE, body))
}

/// Server-sent events (html.spec.whatwg.org/multipage/server-sent-events.html), read by `fetch`, which can send the
/// token.
async fn stream(State(shared): State<Arc<Shared>>, headers: HeaderMap, parameters: Parameters) -> Answer {
    let mut wanted = wanted(&shared, parameters)?;
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    wanted.after = resumed.or(wanted.after);
    let asked = wanted.clone();
    let (run_id, newest) =
        ask(&shared, move |_, history| Ok((run_id(history, &asked.selection)?, history.last_event()?)))
            .await?;
    let filter = wanted.selection.filter.clone();
    let filter_text = filter.as_ref().map(|filter| filter.text().to_owned()).unwrap_or_default();
    let wish = Wish { run_id, filter: filter_text };
    let too_many = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many different streams are open");
    // First a place among the listeners, then what came before: nothing is lost in between.
    let (feed, mut listener) = shared.feeds.join(&shared, &wish, filter, newest).ok_or_else(too_many)?;
    let first = catch_up(&shared, &wanted, wanted.after.unwrap_or(newest)).await?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        pass_on(&mut listener, &sender, first).await;
        drop(feed);
    });
    let mut response = typed("text/event-stream", Body::from_stream(Received(receiver)));
    // What stands between must not collect it.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Until the reader goes away, or is too slow.
async fn pass_on(listener: &mut Receiver<Message>, sender: &mpsc::Sender<Bytes>, first: Message) {
    let mut last = first.last;
    if sender.send(first.frame).await.is_err() {
        return;
    }
    let mut alive = tokio::time::interval(ALIVE);
    loop {
        let frame = tokio::select! {
            () = sender.closed() => return,
            _ = alive.tick() => Bytes::from_static(b":\n\n"),
            heard = listener.recv() => match heard {
                Ok(message) => {
                    last = message.last;
                    message.frame
                }
                Err(RecvError::Lagged(missed)) => {
                    // It comes back when it has read what it has.
                    let data = json!({ "missed_messages": missed, "last": last }).to_string();
                    let _ = sender.send(Message::new("cut", last, &data).frame).await;
                    return;
                }
                Err(RecvError::Closed) => return,
            },
        };
        if sender.send(frame).await.is_err() {
            return;
        }
    }
}

/// What was stored since the event `after`, or the advice to begin anew.
async fn catch_up(shared: &Arc<Shared>, wanted: &Wanted, after: i64) -> Result<Message, Refusal> {
    let wanted = wanted.clone();
    ask(shared, move |_, history| {
        let newest = history.last_event()?;
        let mut filter = export_filter(history, &wanted)?;
        (filter.since, filter.until) = (None, None);
        filter.after = Some(after);
        filter.most = Some(CATCH_UP);
        let events = if newest > after { view::events(history, &filter)? } else { view::Events::default() };
        let is_too_much = events.count >= CATCH_UP || newest < after;
        let text = if is_too_much { "" } else { events.text.as_str() };
        let data = format!("{{\"events\":[{text}],\"last\":{newest},\"reset\":{is_too_much}}}");
        Ok(Message::new("events", newest, &data))
    })
    .await
}

/// What the task behind a stream sends.
struct Received(mpsc::Receiver<Bytes>);

impl Stream for Received {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|frame| frame.map(Ok))
    }
}

//! What the routes answer with.

use std::sync::Arc;

use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};

use super::Shared;
use crate::output;
use crate::store::query::export::ExportError;
use crate::store::{History, OpenError, OpenProblem};

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    code: StatusCode,
    why: String,
}

impl Refusal {
    pub(super) fn new(code: StatusCode, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }

    pub(super) fn no_session(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("no session '{name}'"))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = text(&json!({ "error": self.why }));
        *response.status_mut() = self.code;
        if self.code == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// JSON as rano writes it everywhere.
pub(super) fn text(json: &Json) -> Response {
    typed("application/json", output::json::text(json) + "\n")
}

pub(super) fn typed(kind: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Why a question has no answer: the file, or what was asked.
pub(super) enum Trouble {
    Database(rusqlite::Error),
    Refused(Refusal),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ExportError> for Trouble {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::NoSession => Self::Refused(Refusal::no_session("")),
            ExportError::Database(error) => Self::Database(error),
            ExportError::Output(error) => {
                Self::Refused(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
            }
        }
    }
}

/// Asks the database, on a thread that may wait for the disk.
pub(super) async fn ask<T: Send + 'static>(
    shared: &Arc<Shared>,
    question: impl Fn(&Shared, &History) -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Refusal> {
    let gone = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is ending");
    let _turn = shared.questions.acquire().await.map_err(|_| gone())?;
    let asked = Arc::clone(shared);
    tokio::task::spawn_blocking(move || ask_now(&asked, question)).await.map_err(|_| gone())?
}

/// The same on this thread.
pub(super) fn ask_now<T>(
    shared: &Shared,
    question: impl Fn(&Shared, &History) -> Result<T, Trouble>,
) -> Result<T, Refusal> {
    let path = shared.database();
    let answer = History::ask(&path, |history| match question(shared, history) {
        Ok(answer) => Ok(Ok(answer)),
        Err(Trouble::Refused(refusal)) => Ok(Err(refusal)),
        Err(Trouble::Database(error)) => Err(error),
    });
    answer.map_err(|error| unreadable(&error))?
}

fn unreadable(error: &OpenError) -> Refusal {
    let code = match error.problem {
        OpenProblem::Missing | OpenProblem::Empty => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(code, error.to_string())
}

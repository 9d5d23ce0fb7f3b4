//! What is worth an alert, and what the history knows already.

use std::path::Path;
use std::time::Duration;

use super::Run;
use crate::alerts::{AlertRules, Judge, Reached, SeenEndpoints};
use crate::config::{ByteSize, Field};
use crate::output::escape::Escaped;
use crate::store::{History, OpenProblem};

/// Histories up to this size are read in a moment, and the summary then says what is new without being asked.
const READ_UNASKED: u64 = 16 << 20;

/// Endpoints that were reached before this session; `None` where that is not known.
#[derive(Default)]
pub(super) struct Known {
    pub(super) seen: Option<SeenEndpoints>,
    /// What there is to say of it.
    pub(super) notices: Vec<String>,
}

impl Run<'_> {
    /// Before the store opens the file: who closes a file elsewhere drops its locks.
    pub(super) fn known(&self) -> Known {
        let is_asked = self.settings.alert_new && self.settings.alerts;
        let silent = |why: &str| Known {
            seen: None,
            notices: if is_asked { vec![format!("--alert-new: {why}")] } else { Vec::new() },
        };
        let Some(path) = self.history() else {
            return silent("there is no history to compare with, so nothing is new");
        };
        let size = self.files.look_through(path).map_or(0, |file| file.len());
        if !is_asked && (size == 0 || size > READ_UNASKED) {
            return Known::default();
        }
        match self.reached(path) {
            Ok(seen) if seen.is_empty() => {
                silent("the history is empty; this session's endpoints will be known in the next one")
            }
            Ok(seen) => Known { seen: Some(seen), notices: Vec::new() },
            Err(why) => silent(&format!("cannot read the history: {}", Escaped(&why))),
        }
    }

    /// On a thread of its own, which keeps only the rights to read it.
    fn reached(&self, path: &Path) -> Result<SeenEndpoints, String> {
        let named_by = self.named_by(Field::sqlite);
        let read = || {
            self.files.take_rights_to_read(path, named_by).map_err(|error| error.to_string())?;
            let mut seen = SeenEndpoints::default();
            let rows = match History::ask(path, History::endpoints_reached) {
                Ok(rows) => rows,
                Err(error) if matches!(error.problem, OpenProblem::Missing | OpenProblem::Empty) => {
                    Vec::new()
                }
                Err(error) => return Err(error.to_string()),
            };
            for row in &rows {
                let name = row.name.as_deref();
                seen.add(Reached { agent: &row.agent, name, remote: row.remote });
            }
            Ok(seen)
        };
        std::thread::scope(|scope| {
            scope.spawn(read).join().unwrap_or_else(|_| Err("its reader ended early".to_owned()))
        })
    }

    /// `None` where nothing can raise an alert.
    pub(super) fn judge(&self, seen: Option<&SeenEndpoints>) -> Option<Judge> {
        let settings = self.settings;
        let rules = AlertRules {
            domains: settings.alert_domain.clone(),
            max_connections: settings.alert_max_connections,
            max_per_provider: settings.alert_max_per_provider,
            duration: settings.alert_duration_ms.map(Duration::from_millis),
            unknown_domain: settings.alert_unknown_domain,
            sent: settings.alert_sent.map(|ByteSize(size)| size),
            classes: settings.alert_class.clone(),
            seen: seen.filter(|_| settings.alert_new).cloned(),
            cooldown: Duration::from_millis(settings.alert_cooldown_ms),
        };
        (settings.alerts && !rules.is_empty()).then(|| Judge::new(rules))
    }
}

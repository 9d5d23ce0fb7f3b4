//! The bill of materials: what the binary is built from, in the form of `CycloneDX` 1.5.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Release, tools};
use crate::cargo::workspace;

/// A crate that is part of the binary.
pub(super) struct Package {
    pub name: String,
    pub version: String,
    /// An SPDX expression.
    pub licence: String,
    /// Where its sources are here.
    pub directory: PathBuf,
    description: Option<String>,
    /// SHA-256 of what the registry has; crates of the workspace have none.
    checksum: Option<String>,
}

/// What cargo builds into `rano`, without what is only for tests and without rano itself; the same on all platforms.
pub(super) fn shipped() -> Result<Vec<Package>> {
    let mut tree = cargo("tree");
    tree.args([
        "--package",
        "rano",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--format",
        "{p}",
    ]);
    let tree = tools::said(tree.args(["--target", "x86_64-unknown-linux-musl"]))?;
    let known = tools::said(cargo("metadata").args(["--format-version", "1"]))?;
    let known: Value = serde_json::from_str(&known).context("read cargo's metadata")?;
    let locked = fs::read_to_string(workspace().join("Cargo.lock")).context("read Cargo.lock")?;
    let mut packages = BTreeMap::new();
    for line in tree.lines() {
        let mut words = line.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let version = version.trim_start_matches('v');
        if name == "rano" || packages.contains_key(&(name.to_owned(), version.to_owned())) {
            continue;
        }
        let found = known["packages"].as_array().into_iter().flatten();
        let found = found.into_iter().find(|found| found["name"] == name && found["version"] == version);
        let found = found.with_context(|| format!("cargo does not know {name} {version}"))?;
        let manifest = Path::new(found["manifest_path"].as_str().unwrap_or_default());
        let package = Package {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: found["license"].as_str().unwrap_or("NOASSERTION").replace('/', " OR "),
            directory: manifest.parent().unwrap_or(manifest).to_owned(),
            description: found["description"].as_str().map(|text| text.trim().to_owned()),
            checksum: checksum(&locked, name, version),
        };
        packages.insert((package.name.clone(), package.version.clone()), package);
    }
    Ok(packages.into_values().collect())
}

fn cargo(task: &str) -> Command {
    let mut command = Command::new("cargo");
    command.arg(task).arg("--locked").arg("--manifest-path").arg(workspace().join("Cargo.toml"));
    command
}

/// What Cargo.lock says of a package.
fn checksum(locked: &str, name: &str, version: &str) -> Option<String> {
    let head = format!("name = \"{name}\"\nversion = \"{version}\"\n");
    let entry = locked.split("[[package]]\n").find(|entry| entry.starts_with(&head))?;
    let line = entry.lines().find_map(|line| line.strip_prefix("checksum = \""))?;
    Some(line.trim_end_matches('"').to_owned())
}

pub(super) fn write(to: &Path, release: &Release) -> Result<()> {
    let packages = shipped()?;
    let components: Vec<Value> = packages.iter().map(component).collect();
    let address = |package: &Package| reference(&package.name, &package.version);
    let own = reference("rano", &release.version);
    let date = tools::said(
        Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d"]).arg(format!("@{}", release.epoch)),
    )?;
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": date,
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": "rano",
                "version": release.version,
                "purl": own,
                "licenses": [{ "expression": "MIT OR Apache-2.0" }],
            },
        },
        "components": components,
        "dependencies": [{ "ref": own, "dependsOn": packages.iter().map(address).collect::<Vec<_>>() }],
    });
    let text = serde_json::to_string_pretty(&bill).context("write the bill of materials")? + "\n";
    fs::write(to, text).with_context(|| format!("write {}", to.display()))
}

fn reference(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn component(package: &Package) -> Value {
    let reference = reference(&package.name, &package.version);
    let mut component = json!({
        "type": "library",
        "bom-ref": reference,
        "name": package.name,
        "version": package.version,
        "purl": reference,
        "licenses": [{ "expression": package.licence }],
    });
    if let Some(description) = &package.description {
        component["description"] = json!(description);
    }
    if let Some(checksum) = &package.checksum {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    component
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shipped_has_checksums_and_no_test_tools() {
        let packages = shipped().unwrap();
        let named = |name: &str| packages.iter().find(|package| package.name == name);
        assert!(named("aya").is_some_and(|aya| aya.checksum.as_ref().is_some_and(|sum| sum.len() == 64)));
        assert!(named("rano-common").is_some_and(|own| own.checksum.is_none()));
        assert!(named("libtest-mimic").is_none(), "for tests only");
        assert!(named("rano").is_none(), "that is what it is the bill of");
        assert!(packages.iter().all(|package| package.licence != "NOASSERTION"));
    }
}

//! The threads of this process, as /proc has them.

use std::collections::BTreeMap;
use std::fs;

use crate::Outcome;

/// Effective capabilities by thread.
pub fn capabilities() -> Outcome<BTreeMap<String, String>> {
    each("status", |status| {
        status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default().trim().to_owned()
    })
}

/// Of the first thread whose name begins so.
pub fn capabilities_of(name: &str) -> Outcome<String> {
    let names = each("comm", |comm| comm.trim().to_owned())?;
    let thread = names.iter().find(|(_, found)| found.starts_with(name)).ok_or("no such thread")?.0;
    Ok(capabilities()?.remove(thread).ok_or("it has ended")?)
}

pub fn names() -> Outcome<Vec<String>> {
    Ok(each("comm", |comm| comm.trim().to_owned())?.into_values().collect())
}

fn each(file: &str, read: impl Fn(&str) -> String) -> Outcome<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        // One that ends meanwhile is no thread any more.
        if let Ok(text) = fs::read_to_string(thread.path().join(file)) {
            found.insert(thread.file_name().to_string_lossy().into_owned(), read(&text));
        }
    }
    Ok(found)
}

pub fn is_root() -> Outcome<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).ok_or("no Uid")?;
    Ok(uids.split_ascii_whitespace().nth(1) == Some("0"))
}

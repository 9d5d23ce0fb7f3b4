//! The one place that reads the environment, and the user on whose behalf rano runs.

use std::collections::HashMap;
use std::ffi::CString;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User};

use crate::files::{Files, Identity};

/// The user who typed `sudo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvokingUser {
    pub uid: u32,
    pub gid: u32,
    /// All his groups.
    pub groups: Vec<u32>,
    pub name: String,
    pub home: Option<PathBuf>,
}

impl InvokingUser {
    fn identity(&self) -> Identity {
        Identity { uid: self.uid, gid: self.gid, groups: self.groups.clone() }
    }
}

/// What the environment says, read once.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: HashMap<OsString, OsString>,
    /// Set under sudo: files belong to this user, and it is this user's configuration that is read.
    pub invoking_user: Option<InvokingUser>,
    /// Home of the invoking user, else `HOME`, else what the passwd database says.
    pub home: Option<PathBuf>,
    /// Effective user is root.
    pub is_root: bool,
    pub working_directory: Option<PathBuf>,
    /// The way to everything that has a path.
    pub files: Files,
}

impl Environment {
    /// Fails where sudo's user is known and his rights cannot be taken.
    pub fn read() -> io::Result<Self> {
        let variables: HashMap<_, _> = std::env::vars_os().collect();
        let variable =
            |name: &str| variables.get(OsStr::new(name)).filter(|value| !value.is_empty()).cloned();
        let number = |name: &str| -> Option<u32> { variable(name)?.to_str()?.parse().ok() };
        let is_root = rustix::process::geteuid().is_root();
        let invoking_user = number("SUDO_UID")
            .filter(|_| is_root)
            .and_then(|uid| invoking_user(uid, number("SUDO_GID"), variable));
        let home = match &invoking_user {
            Some(user) => user.home.clone(),
            None => variable("HOME")
                .map(PathBuf::from)
                .or_else(|| Some(User::from_uid(Uid::effective()).ok()??.dir)),
        };
        let files = Files::of(invoking_user.as_ref().map(InvokingUser::identity))?;
        let working_directory = std::env::current_dir().ok();
        Ok(Self { variables, invoking_user, home, is_root, working_directory, files })
    }

    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Names of all variables that are set and not empty, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let set = self.variables.iter().filter(|(_, value)| !value.is_empty());
        let mut names: Vec<_> = set.filter_map(|(name, _)| name.to_str()).collect();
        names.sort_unstable();
        names.into_iter()
    }

    /// Colour was declined for all programs (no-color.org).
    pub fn no_color(&self) -> bool {
        self.variable("NO_COLOR").is_some()
    }

    /// A terminal that understands no escape sequences, or none at all.
    pub fn is_dumb_terminal(&self) -> bool {
        self.variable("TERM").is_none_or(|term| term == "dumb")
    }

    /// Name of the user on whose behalf rano runs; his uid where nothing knows a name (containers).
    pub fn user_name(&self) -> String {
        if let Some(user) = &self.invoking_user {
            return user.name.clone();
        }
        match User::from_uid(Uid::effective()) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => self
                .variable("USER")
                .map_or_else(|| Uid::effective().to_string(), |name| name.to_string_lossy().into_owned()),
        }
    }

    /// The directory of rano's own configuration, `~/.config/rano`. `XDG_CONFIG_HOME` counts only if absolute, as the
    /// XDG base directory specification has it.
    pub fn config_directory(&self) -> Option<PathBuf> {
        let base = self
            .variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| Some(self.home.as_ref()?.join(".config")))?;
        Some(base.join("rano"))
    }
}

/// `None` where sudo was run by root itself. A user without an entry in the passwd database (containers) still owns
/// his files; what sudo says about him fills the gaps.
fn invoking_user(
    uid: u32,
    gid: Option<u32>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<InvokingUser> {
    if uid == 0 {
        return None;
    }
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let entry = user.as_ref();
    let gid = gid.or(entry.map(|user| user.gid.as_raw())).unwrap_or(uid);
    Some(InvokingUser {
        uid,
        gid,
        groups: entry.and_then(|user| groups(&user.name, gid)).unwrap_or_else(|| vec![gid]),
        name: variable("SUDO_USER")
            .map(|name| name.to_string_lossy().into_owned())
            .or(entry.map(|user| user.name.clone()))
            .unwrap_or_else(|| uid.to_string()),
        home: entry
            .map(|user| user.dir.clone())
            .or_else(|| variable("SUDO_HOME").or_else(|| variable("HOME")).map(PathBuf::from)),
    })
}

fn groups(name: &str, gid: u32) -> Option<Vec<u32>> {
    let name = CString::new(name).ok()?;
    let groups = nix::unistd::getgrouplist(&name, Gid::from_raw(gid)).ok()?;
    Some(groups.into_iter().map(Gid::as_raw).collect())
}

#[cfg(test)]
impl Environment {
    /// An ordinary user at `home` who has set `variables`.
    pub(crate) fn of(home: &std::path::Path, variables: &[(&str, &str)]) -> Self {
        Self {
            variables: variables.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            home: Some(home.to_owned()),
            working_directory: Some(home.join("work")),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_invoking_user_is_looked_up_in_the_passwd_database() {
        // uid 1 is `daemon` wherever there is a passwd database of the usual kind.
        if User::from_uid(Uid::from_raw(1)).ok().flatten().is_none() {
            println!("skipped: uid 1 is not in the passwd database");
            return;
        }
        let user = invoking_user(1, Some(77), |name| (name == "HOME").then(|| "/root".into())).unwrap();
        assert_eq!((user.uid, user.gid, user.name.as_str()), (1, 77, "daemon"));
        assert!(user.home.is_some_and(|home| home.is_absolute() && home != std::path::Path::new("/root")));
    }

    #[test]
    fn a_user_without_an_entry_still_owns_his_files() {
        let user = invoking_user(4_294_000_000, Some(5), |name| (name == "HOME").then(|| "/h".into()));
        let expected = InvokingUser {
            uid: 4_294_000_000,
            gid: 5,
            groups: vec![5],
            name: "4294000000".into(),
            home: Some("/h".into()),
        };
        assert_eq!(user, Some(expected));
    }

    #[test]
    fn root_under_sudo_is_no_invoking_user() {
        assert_eq!(invoking_user(0, Some(0), |_| None), None);
    }

    #[test]
    fn a_relative_xdg_directory_does_not_count() {
        let directory =
            |xdg| Environment::of("/home/x".as_ref(), &[("XDG_CONFIG_HOME", xdg)]).config_directory();
        assert_eq!(directory("/etc/xdg"), Some("/etc/xdg/rano".into()));
        assert_eq!(directory("relative"), Some("/home/x/.config/rano".into()));
        assert_eq!(directory(""), Some("/home/x/.config/rano".into()));
    }
}

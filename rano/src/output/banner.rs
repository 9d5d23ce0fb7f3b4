//! What is said at the start: what is watched, how, and where it is kept.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use crate::event::SourceKind;
use crate::output::escape::Escaped;
use crate::output::style::Styles;

/// The facts of a start.
pub struct Banner<'a> {
    pub run_id: &'a str,
    pub watching: &'a [String],
    pub source: SourceKind,
    pub source_reason: Option<&'a str>,
    pub history: Option<&'a Path>,
    pub files: &'a [String],
    pub notes: &'a [String],
}

impl Banner<'_> {
    /// To stderr; where that is closed there is nobody to tell.
    pub fn print(&self, styles: &Styles) {
        let text = self.render(styles);
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    fn render(&self, styles: &Styles) -> String {
        let heading = styles.heading;
        let mut text = format!("{heading}rano {}{heading:#}\n", env!("CARGO_PKG_VERSION"));
        let mut row = |name: &str, value: &str| {
            writeln!(text, "  {name:9}{}", Escaped(value)).expect("writing into a String cannot fail");
        };
        row("watching", &self.watching.join(", "));
        match self.source_reason {
            Some(reason) => row("source", &format!("{}: {reason}", self.source.name())),
            None => row("source", self.source.name()),
        }
        match self.history {
            Some(path) => row("history", &format!("{} (run {})", path.display(), self.run_id)),
            None => row("history", "none is kept"),
        }
        for file in self.files {
            row("config", file);
        }
        for note in self.notes {
            row("note", note);
        }
        text
    }
}

//! The shape of an option's declaration. One entry in `options.rs` makes the flag, the config key, the environment
//! variable, the default, the help, and the typed field of `Settings`.

use std::ffi::OsStr;

use super::options::Field;
use super::value::{Kind, Rejection, Value};

/// Headings of the help, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Targets,
    Capture,
    Names,
    Output,
    History,
    Stats,
    Alerts,
    Configuration,
}

impl Group {
    pub const fn title(self) -> &'static str {
        match self {
            Self::Targets => "Targets",
            Self::Capture => "Capture",
            Self::Names => "Names",
            Self::Output => "Output",
            Self::History => "History",
            Self::Stats => "Stats",
            Self::Alerts => "Alerts",
            Self::Configuration => "Configuration",
        }
    }
}

/// Where an option is told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    Everywhere,
    /// Not in `-h`.
    LongHelp,
    /// For tests and diagnosis: in no help, man page or completion.
    Hidden,
}

/// What giving a key does to the option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The value is the option's value.
    Set,
    /// A boolean, and the option is its opposite.
    Invert,
    /// A boolean that while true makes the option's value this word, or absent if the word is empty. Giving the
    /// option a value ends it.
    Override(&'static str),
}

/// What holds where nobody says anything.
#[derive(Debug, Clone, Copy)]
pub enum BuiltIn {
    Absent,
    Text(&'static str),
    /// It stands in another table.
    Made(fn() -> &'static str),
}

/// A key that acts on an option, what it does, and its help.
#[derive(Debug, Clone, Copy)]
pub struct Spelling {
    pub key: &'static str,
    pub effect: Effect,
    pub help: &'static str,
}

impl Spelling {
    /// `RANO_INTERVAL_MS`.
    pub fn variable(&self) -> String {
        format!("RANO_{}", self.key.to_ascii_uppercase())
    }

    /// `interval-ms`.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// Whether it takes a boolean, whatever the option holds.
    pub fn is_switch(&self, option: &OptionSpec) -> bool {
        match self.effect {
            Effect::Set => option.kind == Kind::Switch,
            Effect::Invert | Effect::Override(_) => true,
        }
    }
}

/// An option. Made by `option` and the `options!` table.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// The field of `Settings`.
    pub name: &'static str,
    pub kind: Kind,
    pub group: Group,
    /// As a config file would give it; absence may have a meaning.
    pub default: BuiltIn,
    pub value_name: &'static str,
    /// Bounds of a number, or of each number in a list; inclusive.
    pub range: (u64, u64),
    /// The first one is the usual one.
    pub spellings: &'static [Spelling],
    /// More than the help line says, for `--help` and the man page.
    pub details: &'static str,
    pub visibility: Visibility,
    /// A config file may set it.
    pub in_file: bool,
    /// The directory that will hold the file has to exist.
    pub needs_parent: bool,
}

/// The beginning of a declaration.
pub(super) const fn option(group: Group) -> OptionSpec {
    OptionSpec {
        name: "",
        kind: Kind::Switch,
        group,
        default: BuiltIn::Absent,
        value_name: "BOOL",
        range: (0, 0),
        spellings: &[],
        details: "",
        visibility: Visibility::Everywhere,
        in_file: true,
        needs_parent: false,
    }
}

impl OptionSpec {
    pub(super) const fn default(self, text: &'static str) -> Self {
        Self { default: BuiltIn::Text(text), ..self }
    }

    pub(super) const fn default_from(self, make: fn() -> &'static str) -> Self {
        Self { default: BuiltIn::Made(make), ..self }
    }

    pub(super) const fn value_name(self, value_name: &'static str) -> Self {
        Self { value_name, ..self }
    }

    pub(super) const fn range(self, min: u64, max: u64) -> Self {
        Self { range: (min, max), ..self }
    }

    pub(super) const fn spelled(self, spellings: &'static [Spelling]) -> Self {
        Self { spellings, ..self }
    }

    pub(super) const fn details(self, details: &'static str) -> Self {
        Self { details, ..self }
    }

    pub(super) const fn hidden(self) -> Self {
        Self { visibility: Visibility::Hidden, ..self }
    }

    pub(super) const fn advanced(self) -> Self {
        Self { visibility: Visibility::LongHelp, ..self }
    }

    pub(super) const fn not_in_file(self) -> Self {
        Self { in_file: false, ..self }
    }

    pub(super) const fn needs_parent(self) -> Self {
        Self { needs_parent: true, ..self }
    }

    /// What the table adds: the field's name and type, and the spelling that follows from it.
    pub(super) const fn declared(
        self,
        name: &'static str,
        kind: Kind,
        from_name: &'static [Spelling],
    ) -> Self {
        let spellings = if self.spellings.is_empty() { from_name } else { self.spellings };
        Self { name, kind, spellings, ..self }
    }

    /// Whether it is that one.
    pub fn is(&self, field: Field) -> bool {
        self.name == field.name()
    }

    pub fn is_hidden(&self) -> bool {
        self.visibility == Visibility::Hidden
    }

    /// Parse what a config file or a variable gives for `spelling`: a list's items stand between commas.
    pub fn parse(&self, spelling: &Spelling, raw: &OsStr) -> Result<Value, Rejection> {
        self.kind_of(spelling).parse(raw, self.range)
    }

    /// Parse what one flag gives: one item of a list.
    pub fn parse_one(&self, spelling: &Spelling, raw: &OsStr) -> Result<Value, Rejection> {
        self.kind_of(spelling).parse_one(raw, self.range)
    }

    /// The built-in default as text; `None` where it is none.
    pub fn default_text(&self) -> Option<&'static str> {
        match self.default {
            BuiltIn::Absent => None,
            BuiltIn::Text(text) => Some(text),
            BuiltIn::Made(make) => Some(make()),
        }
    }

    /// The built-in default.
    pub fn default_value(&self) -> Value {
        self.default_text().map_or(self.absent(), |text| {
            self.kind.parse(OsStr::new(text), self.range).expect("defaults are tested to parse")
        })
    }

    /// The value of an option that nobody gave one.
    pub fn absent(&self) -> Value {
        match self.kind {
            Kind::List(_) => Value::List(Vec::new()),
            Kind::Switch
            | Kind::Number
            | Kind::Text
            | Kind::Exclude
            | Kind::Glob
            | Kind::Path
            | Kind::Span
            | Kind::Size
            | Kind::Filter
            | Kind::Choice(_) => Value::Absent,
        }
    }

    fn kind_of(&self, spelling: &Spelling) -> Kind {
        if spelling.is_switch(self) { Kind::Switch } else { self.kind }
    }
}

/// The text of a documentation comment.
pub(super) const fn help_line(documentation: &'static str) -> &'static str {
    documentation.trim_ascii()
}

/// The table: a typed `Settings` and the data about each of its fields. A field's documentation is its help line.
macro_rules! options {
    ($(#[doc = $help:literal] $name:ident: $kind:ty = $spec:expr;)+) => {
        /// What a run goes by: every option's value after all layers. Times are in the unit of their name.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $(#[doc = $help] pub $name: $kind,)+
        }

        /// Which option, by its field of [`Settings`]: what is written wrong does not compile.
        #[allow(non_camel_case_types, reason = "a variant is called like the field")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Field { $($name,)+ }

        impl Field {
            /// In the order of [`OPTIONS`].
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }

        /// Every option, in the order of the help.
        pub static OPTIONS: &[$crate::config::spec::OptionSpec] = &[
            $($spec.declared(
                stringify!($name),
                <$kind as $crate::config::value::Setting>::KIND,
                &[$crate::config::spec::Spelling {
                    key: stringify!($name),
                    effect: $crate::config::spec::Effect::Set,
                    help: $crate::config::spec::help_line($help),
                }],
            ),)+
        ];

        impl Settings {
            /// `value` answers for every option with a value that its kind has parsed.
            pub(super) fn collect(value: impl Fn(Field) -> $crate::config::value::Value) -> Self {
                Self {
                    $($name: <$kind as $crate::config::value::Setting>::from_value(&value(Field::$name))
                        .expect("parsed by the kind of the field's own type, and within its range"),)+
                }
            }
        }
    };
}
pub(super) use options;

//! What can be asked for, by name.

use super::tree::{NumberKey, TextKey, WordKey};
use crate::event::{Class, EventKind, OwnerQuality, Protocol, SocketState, SourceKind};

/// What stands before the colon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Text(TextKey),
    Word(WordKey),
    Number(NumberKey),
    Ip,
    Alert,
}

/// A new key is an entry here, a place in `matching.rs` and a column in the store's translation.
pub(super) const KEYS: [(&str, Key); 22] = [
    ("type", Key::Word(WordKey::Type)),
    ("class", Key::Word(WordKey::Type)),
    ("protocol", Key::Word(WordKey::Protocol)),
    ("proto", Key::Word(WordKey::Protocol)),
    ("state", Key::Word(WordKey::State)),
    ("event", Key::Word(WordKey::Event)),
    ("source", Key::Word(WordKey::Source)),
    ("quality", Key::Word(WordKey::Quality)),
    ("domain", Key::Text(TextKey::Domain)),
    ("process", Key::Text(TextKey::Process)),
    ("program", Key::Text(TextKey::Program)),
    ("provider", Key::Text(TextKey::Provider)),
    ("agent", Key::Text(TextKey::Agent)),
    ("tool", Key::Text(TextKey::Tool)),
    ("pid", Key::Number(NumberKey::Pid)),
    ("port", Key::Number(NumberKey::Port)),
    ("sent", Key::Number(NumberKey::Sent)),
    ("recv", Key::Number(NumberKey::Received)),
    ("received", Key::Number(NumberKey::Received)),
    ("duration", Key::Number(NumberKey::Duration)),
    ("ip", Key::Ip),
    ("alert", Key::Alert),
];

impl Key {
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        KEYS.iter().find(|(known, _)| *known == name).map(|(_, key)| *key)
    }
}

/// All words that a key can have, in the order of their enumeration.
pub(super) fn words(key: WordKey) -> Vec<&'static str> {
    match key {
        WordKey::Type => Class::ALL.map(Class::name).to_vec(),
        WordKey::Protocol => Protocol::ALL.map(Protocol::name).to_vec(),
        WordKey::State => SocketState::ALL.map(SocketState::name).to_vec(),
        WordKey::Event => EventKind::ALL.map(EventKind::name).to_vec(),
        WordKey::Source => SourceKind::ALL.map(SourceKind::name).to_vec(),
        WordKey::Quality => OwnerQuality::ALL.map(OwnerQuality::name).to_vec(),
    }
}

/// Another word for some of them, as a pattern.
pub(super) fn alias(key: WordKey, word: &str) -> Option<&'static str> {
    match (key, word) {
        (WordKey::Type, "github") => Some(Class::CodeHost.name()),
        (WordKey::Source, "ebpf") => Some("ebpf-*"),
        _ => None,
    }
}

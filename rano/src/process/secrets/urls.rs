//! Addresses whose path is the secret: whoever knows a webhook's may write to it.

/// What of an address is secret behind a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Part {
    /// All of the path.
    Rest,
    /// From the first part that looks random.
    Random,
}

pub(in super::super) struct Marker {
    /// Stands in the address, in lower case.
    pub(in super::super) text: &'static str,
    pub(in super::super) part: Part,
}

const fn rest(text: &'static str) -> Marker {
    Marker { text, part: Part::Rest }
}

const fn random(text: &'static str) -> Marker {
    Marker { text, part: Part::Random }
}

pub(in super::super) const MARKERS: &[Marker] = &[
    rest("hooks.slack.com/services/"),
    rest("hooks.slack.com/workflows/"),
    rest("hooks.slack.com/triggers/"),
    rest("/api/webhooks/"),
    rest("webhook.office.com/"),
    rest("outlook.office.com/webhook/"),
    rest("hooks.zapier.com/hooks/"),
    rest("mcp.zapier.com/api/mcp/s/"),
    rest("/with/key/"),
    rest("/open-apis/bot/v2/hook/"),
    rest("hc-ping.com/"),
    random(".make.com/"),
    random("infura.io/v3/"),
    random("alchemy.com/v2/"),
    random("quiknode.pro/"),
    random("/webhook/"),
    random("/webhooks/"),
    random("/hooks/"),
    random("/hook/"),
];

/// Before the number of a bot, which a colon and its token follow: `/bot123456:AA…/sendMessage`.
pub(in super::super) const BOT: &str = "/bot";

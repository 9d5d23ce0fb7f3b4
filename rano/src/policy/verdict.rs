//! Everything that was reached, held against a policy: findings, and what was looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::finding::{Finding, Kind, Lack, Reached, Why};
use super::judge::{Judge, Ruling};
use super::toml_text::Sketch;
use super::{Contact, Place, Rule, Unnamed};
use crate::health::{Gap, Gaps};
use crate::words::{Class, SourceKind};

/// Findings that are told one by one.
const FINDINGS_MAX: usize = 1000;

/// A session that was looked at.
#[derive(Debug, Clone)]
pub struct Observed {
    pub run_id: Arc<str>,
    pub name: Option<String>,
    pub host: String,
    pub started_at: i64,
    pub ended_at: Option<i64>,
    /// The word of its source.
    pub source: String,
    pub source_reason: Option<String>,
    pub clean_exit: bool,
    pub is_running: bool,
    /// Connections that excludes left out.
    pub excluded: u64,
    pub gaps: Gaps,
    /// What was watched was a command that rano itself ran: that it connected to nothing is certain.
    pub is_command: bool,
}

/// What is to be said beside the findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// No session can have names that count.
    NoNames,
    /// So many connections are without bytes, which limits cannot see.
    BytesUnknown(u64),
    /// So many more findings are not listed.
    More(u64),
    /// Gaps that `complete = false` lets pass.
    LetPass(Gap, u64),
    /// Gaps that cost no connection.
    NoCost(Gap, u64),
    NothingReached,
}

/// The outcome.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Of the policy, as it was named.
    pub path: String,
    pub sha256: String,
    pub fail_on: Vec<Kind>,
    pub observed: Vec<Observed>,
    /// What was judged; not what is ignored.
    pub contacts: Vec<Reached>,
    /// Worst first.
    pub findings: Vec<Finding>,
    pub remarks: Vec<Remark>,
    /// Different endpoints, and those of them that rules allow.
    pub endpoints: u64,
    pub allowed: u64,
    /// Connections, failed ones included.
    pub connections: u64,
    pub ignored: u64,
}

impl Verdict {
    pub fn failing(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.fails)
    }

    pub fn fails(&self) -> bool {
        self.failing().next().is_some()
    }
}

/// What a gap means to a policy.
enum Weight {
    None,
    Remark,
    Lack,
}

/// What one endpoint came to.
#[derive(Default)]
struct Sum {
    sent: u64,
    received: u64,
    rule: Option<usize>,
    example: Option<Reached>,
}

/// Puts findings together.
struct Builder<'a> {
    judge: &'a Judge<'a>,
    fail_on: &'a [Kind],
    findings: Vec<Finding>,
    by_identity: BTreeMap<(Kind, String), usize>,
    used: BTreeSet<usize>,
    allowed_classes: BTreeSet<Class>,
    new_classes: BTreeMap<Class, (u64, Reached)>,
    sums: BTreeMap<String, Sum>,
}

impl Judge<'_> {
    /// Of each connection one contact, or of those that are alike together.
    pub fn verdict(&self, contacts: Vec<Contact>, observed: Vec<Observed>, fail_on: &[Kind]) -> Verdict {
        let policy = self.policy;
        let mut builder = Builder::new(self, fail_on);
        builder.allowed_classes.extend(policy.allow.iter().filter_map(|rule| rule.class));
        let literal = policy.allow.iter().filter_map(|rule| rule.domain.as_ref()?.literal());
        builder.allowed_classes.extend(literal.map(|name| self.classes.of(Some(&name), None)));
        let (mut judged, mut ignored, mut connections) = (Vec::new(), 0, 0);
        let (mut endpoints, mut open, mut without_bytes) = (BTreeSet::new(), BTreeSet::new(), 0);
        let mut by_run: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for contact in contacts {
            let count = contact.seen.count();
            connections += count;
            *by_run.entry(Arc::clone(&contact.run_id)).or_default() += count;
            let ruling = self.rule(&contact);
            if ruling == Ruling::Ignored {
                ignored += count;
                continue;
            }
            if contact.seen.bytes.is_none() && contact.seen.connects > 0 {
                without_bytes += contact.seen.connects;
            }
            let name = self.name(&contact).cloned();
            let reached = Reached { class: self.class(&contact), name, contact, more: 0 };
            endpoints.insert(reached.endpoint());
            if !matches!(ruling, Ruling::Allowed(_)) {
                open.insert(reached.endpoint());
            }
            builder.contact(&reached, ruling);
            judged.push(reached);
        }
        builder.classes();
        builder.sums();
        let mut remarks = builder.sessions(&observed, &by_run);
        builder.rules();
        let mut findings = builder.findings;
        findings.sort_by_cached_key(order);
        if findings.len() > FINDINGS_MAX {
            remarks.push(Remark::More((findings.len() - FINDINGS_MAX) as u64));
            findings.truncate(FINDINGS_MAX);
        }
        if without_bytes > 0
            && (!policy.limits.is_empty() || policy.allow.iter().any(|rule| rule.sent.is_some()))
        {
            remarks.push(Remark::BytesUnknown(without_bytes));
        }
        if connections == 0 {
            remarks.push(Remark::NothingReached);
        }
        Verdict {
            path: policy.path.display().to_string(),
            sha256: policy.sha256(),
            fail_on: fail_on.to_vec(),
            observed,
            contacts: judged,
            findings,
            remarks,
            allowed: (endpoints.len() - open.len()) as u64,
            endpoints: endpoints.len() as u64,
            connections,
            ignored,
        }
    }
}

impl Judge<'_> {
    /// Of one contact; of what all of them come to it says nothing.
    pub fn finding(&self, contact: Contact, fail_on: &[Kind]) -> Option<Finding> {
        let ruling = self.rule(&contact);
        let name = self.name(&contact).cloned();
        let reached = Reached { class: self.class(&contact), name, contact, more: 0 };
        let mut builder = Builder::new(self, fail_on);
        builder.contact(&reached, ruling);
        builder.findings.pop()
    }
}

/// What fails first, then by kind, then what was reached most often.
fn order(finding: &Finding) -> (bool, Kind, std::cmp::Reverse<u64>, String) {
    let count = finding.reached.as_ref().map_or(0, |reached| reached.contact.seen.count());
    let endpoint = finding.reached.as_ref().map(Reached::endpoint).unwrap_or_default();
    (!finding.fails, finding.kind, std::cmp::Reverse(count), endpoint)
}

impl<'a> Builder<'a> {
    fn new(judge: &'a Judge<'a>, fail_on: &'a [Kind]) -> Self {
        Self {
            judge,
            fail_on,
            findings: Vec::new(),
            by_identity: BTreeMap::new(),
            used: BTreeSet::new(),
            allowed_classes: BTreeSet::new(),
            new_classes: BTreeMap::new(),
            sums: BTreeMap::new(),
        }
    }

    fn fails(&self, kind: Kind) -> bool {
        self.fail_on.contains(&kind)
            || kind == Kind::Unnamed && self.judge.policy.defaults.unnamed == Unnamed::Fail
    }

    fn finding(&self, kind: Kind, why: Why, place: Option<&Place>) -> Finding {
        let place = place.cloned().unwrap_or_else(|| self.judge.policy.place());
        Finding { kind, fails: self.fails(kind), why, reached: None, run_id: None, place, allow: None }
    }

    /// Adds a finding about an endpoint, or counts it to one that is alike.
    fn add(&mut self, finding: Finding) {
        let key = (finding.kind, finding.identity());
        if let Some(&known) = self.by_identity.get(&key)
            && let (Some(known), Some(new)) = (&mut self.findings[known].reached, &finding.reached)
        {
            let is_same =
                known.contact.tool == new.contact.tool && known.contact.command == new.contact.command;
            known.more += u64::from(!is_same);
            known.contact.seen.add(&new.contact.seen);
            return;
        }
        self.by_identity.insert(key, self.findings.len());
        self.findings.push(finding);
    }

    fn contact(&mut self, reached: &Reached, ruling: Ruling) {
        let policy = self.judge.policy;
        let subject = |index: usize| policy.allow.get(index).map(Rule::subject).unwrap_or_default();
        let rule_for = |sketch: Sketch| Some(sketch.text());
        match ruling {
            Ruling::Ignored => {}
            Ruling::Allowed(rule) => {
                self.used.insert(rule);
                self.allowed_classes.insert(reached.class);
                self.sum(reached, Some(rule));
            }
            Ruling::Denied { rule, by, is_possible } => {
                let denied = &policy.deny[rule];
                let why = Why::Denied { rule: denied.subject(), is_possible };
                let name = by.or_else(|| reached.name.clone());
                let reached = Reached { name, ..reached.clone() };
                let finding = self.finding(Kind::Denied, why, Some(&denied.place));
                self.add(Finding { reached: Some(reached), ..finding });
            }
            Ruling::NewWho(rule) => {
                self.used.insert(rule);
                self.sum(reached, Some(rule));
                let near = &policy.allow[rule];
                let why = Why::OtherWho { allowed: near.audience().unwrap_or_default() };
                let allow = rule_for(Sketch::beside(near, &reached.contact.program));
                let finding = self.finding(Kind::NewWho, why, Some(&near.place));
                self.add(Finding { reached: Some(reached.clone()), allow, ..finding });
            }
            Ruling::NewDomain { expired } => {
                self.is_new(reached);
                let place = expired.and_then(|rule| policy.allow.get(rule)).map(|rule| &rule.place);
                let why = Why::NotAllowed { expired: expired.map(subject) };
                let finding = self.finding(Kind::NewDomain, why, place);
                let allow = rule_for(by_name(reached));
                self.add(Finding { reached: Some(reached.clone()), allow, ..finding });
            }
            Ruling::Unnamed { expired } => {
                if policy.defaults.unnamed == Unnamed::Allow && !self.fail_on.contains(&Kind::Unnamed) {
                    return;
                }
                self.is_new(reached);
                let weak = reached.contact.name.clone().or_else(|| reached.contact.others.first().cloned());
                let why = Why::NoName { weak, expired: expired.map(subject) };
                let finding = self.finding(Kind::Unnamed, why, None);
                let allow = rule_for(by_address(reached));
                self.add(Finding { reached: Some(reached.clone()), allow, ..finding });
            }
        }
    }

    fn is_new(&mut self, reached: &Reached) {
        self.sum(reached, None);
        if reached.class != Class::Unknown {
            let entry = self.new_classes.entry(reached.class).or_insert_with(|| (0, reached.clone()));
            if entry.0 > 0 {
                entry.1.contact.seen.add(&reached.contact.seen);
                entry.1.more += 1;
            }
            entry.0 += 1;
        }
    }

    fn sum(&mut self, reached: &Reached, rule: Option<usize>) {
        let Some(bytes) = reached.contact.seen.bytes else { return };
        let sum = self.sums.entry(reached.endpoint()).or_default();
        sum.sent = sum.sent.saturating_add(bytes.sent);
        sum.received = sum.received.saturating_add(bytes.received);
        sum.rule = sum.rule.or(rule);
        match &mut sum.example {
            Some(example) => example.contact.seen.add(&reached.contact.seen),
            None => sum.example = Some(reached.clone()),
        }
    }

    fn classes(&mut self) {
        for (class, (endpoints, reached)) in std::mem::take(&mut self.new_classes) {
            if self.allowed_classes.contains(&class) {
                continue;
            }
            let sketch = Sketch { class: Some(class.name().to_owned()), ..Sketch::default() };
            let finding = self.finding(Kind::NewClass, Why::NewClass { class, endpoints }, None);
            let allow = Some(sketch.text());
            self.findings.push(Finding { reached: Some(reached), allow, ..finding });
        }
    }

    fn sums(&mut self) {
        let policy = self.judge.policy;
        let limits = &policy.limits;
        for (_, sum) in std::mem::take(&mut self.sums) {
            let rule = sum.rule.map(|rule| &policy.allow[rule]);
            let of_rule = rule.and_then(|rule| rule.sent);
            let place = if of_rule.is_some() { rule.map(|rule| &rule.place) } else { limits.place.as_ref() };
            let each = [
                (true, sum.sent, of_rule.or(limits.sent_per_endpoint), "sent_per_endpoint"),
                (false, sum.received, limits.received_per_endpoint, "received_per_endpoint"),
            ];
            for (is_sent, bytes, limit, key) in each {
                let Some(limit) = limit.filter(|limit| bytes > *limit) else { continue };
                let why = Why::TooMuch { is_sent, bytes, limit };
                let finding = self.finding(Kind::Bytes, why, place);
                let mebibytes = bytes.div_ceil(1 << 20);
                let allow = if is_sent && of_rule.is_some() {
                    format!("sent = \"{mebibytes} MiB\"")
                } else {
                    format!("[limits]\n{key} = \"{mebibytes} MiB\"")
                };
                let reached = sum.example.clone();
                self.findings.push(Finding { reached, allow: Some(allow), ..finding });
            }
        }
    }

    /// Whether the record can be judged by; what it lacks and may lack.
    fn sessions(&mut self, observed: &[Observed], by_run: &BTreeMap<Arc<str>, u64>) -> Vec<Remark> {
        let policy = self.judge.policy;
        let require = &policy.require;
        let mut remarks = Vec::new();
        let mut lacks: Vec<(Option<Arc<str>>, Lack)> = Vec::new();
        if observed.is_empty() {
            lacks.push((None, Lack::Nothing));
        }
        let names_needed = policy.needs_better_names_than_polling();
        let polled = |session: &&Observed| session.source == SourceKind::Proc.name();
        if names_needed && observed.iter().filter(polled).count() == observed.len() && !observed.is_empty() {
            remarks.push(Remark::NoNames);
        }
        for session in observed {
            let mut lack = |what| lacks.push((Some(Arc::clone(&session.run_id)), what));
            if !require.sources.iter().any(|source| source.name() == session.source) {
                lack(Lack::Source(session.source.clone()));
            }
            let has_reached = by_run.get(&session.run_id).is_some_and(|count| *count > 0);
            if !has_reached && !session.is_command {
                lack(Lack::Nothing);
            }
            for (gap, count) in session.gaps.present() {
                match self.weight(gap, session) {
                    Weight::None => {}
                    Weight::Remark => remarks.push(Remark::NoCost(gap, count)),
                    Weight::Lack if require.complete => lack(Lack::Gap(gap, count)),
                    Weight::Lack => remarks.push(Remark::LetPass(gap, count)),
                }
            }
            if !require.complete {
                continue;
            }
            if session.is_running {
                lack(Lack::Running);
            } else if !session.clean_exit {
                lack(Lack::Unclean);
            }
            if session.excluded > 0 {
                lack(Lack::Excluded(session.excluded));
            }
            let reason = session.source_reason.as_deref().unwrap_or_default();
            for part in reason.split("; ").filter(|part| part.starts_with("left out: ")) {
                lack(Lack::LeftOut(part.trim_start_matches("left out: ").to_owned()));
            }
        }
        for (run_id, lack) in lacks {
            self.lack(run_id, lack);
        }
        remarks
    }

    fn weight(&self, gap: Gap, session: &Observed) -> Weight {
        match gap {
            // A connection without a name is judged as such.
            Gap::Unresolved => Weight::None,
            // Bytes and errors may be missing, no connection is.
            Gap::KernelSkipped if self.judge.policy.limits.is_empty() => Weight::Remark,
            // Only polling has to find who made a connection after it was made. The others count one of which they do
            // not know whose it is as unattributed.
            Gap::Vanished if session.source != SourceKind::Proc.name() => Weight::Remark,
            _ => Weight::Lack,
        }
    }

    fn lack(&mut self, run_id: Option<Arc<str>>, lack: Lack) {
        let policy = self.judge.policy;
        let allow = match &lack {
            Lack::Source(source) => {
                let words =
                    policy.require.sources.iter().map(|source| source.name()).chain([source.as_str()]);
                // Every rung of a family by the family's name.
                let words = words.map(|word| word.split_once('-').map_or(word, |(family, _)| family));
                let mut list: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
                list.dedup();
                Some(format!("[require]\nsource = [{}]", list.join(", ")))
            }
            Lack::Gap(..) | Lack::Unclean | Lack::Running | Lack::Excluded(_) | Lack::LeftOut(_) => {
                Some("[require]\ncomplete = false".to_owned())
            }
            Lack::Nothing | Lack::PolicyChanged | Lack::NoRoom(_) => None,
        };
        let finding = self.finding(Kind::Incomplete, Why::Lack(lack), policy.require.place.as_ref());
        self.findings.push(Finding { run_id, allow, ..finding });
    }

    /// Rules that allow nothing any more, or allowed nothing.
    fn rules(&mut self) {
        for (index, rule) in self.judge.policy.allow.iter().enumerate() {
            let subject = rule.subject();
            let finding = match rule.expires {
                Some(at) if rule.has_expired(self.judge.now) => {
                    self.finding(Kind::Expired, Why::RuleExpired { rule: subject, at }, Some(&rule.place))
                }
                _ if !self.used.contains(&index) => {
                    self.finding(Kind::Stale, Why::RuleUnused { rule: subject }, Some(&rule.place))
                }
                _ => continue,
            };
            self.findings.push(finding);
        }
    }
}

/// The rule of an endpoint by its name.
pub(super) fn by_name(reached: &Reached) -> Sketch {
    Sketch {
        domain: reached.name.as_ref().map(|known| known.name.to_string()),
        ports: reached.contact.port.into_iter().collect(),
        ..Sketch::default()
    }
}

/// The rule of an endpoint by its address; of a unix socket by its class.
pub(super) fn by_address(reached: &Reached) -> Sketch {
    match reached.contact.ip() {
        Some(ip) => Sketch {
            cidr: Some(format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })),
            ports: reached.contact.port.into_iter().collect(),
            ..Sketch::default()
        },
        None => Sketch { class: Some(reached.class.name().to_owned()), ..Sketch::default() },
    }
}

/// Adds what only the one knows who ran the command.
impl Verdict {
    pub fn add_lack(&mut self, lack: Lack, place: Place) {
        let finding = Finding {
            kind: Kind::Incomplete,
            fails: self.fail_on.contains(&Kind::Incomplete),
            why: Why::Lack(lack),
            reached: None,
            run_id: self.observed.first().map(|session| Arc::clone(&session.run_id)),
            place,
            allow: None,
        };
        self.findings.insert(0, finding);
    }
}

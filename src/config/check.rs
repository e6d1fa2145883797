//! Turns a parsed configuration into a validated one, and reports every value that cannot be one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::SignedDuration;
use secrecy::ExposeSecret as _;
use url::Url;

use super::{
    Audit, Config, Http, Identity, IdentityCenterConfig, Limits, Provider, Timing,
    file::{AuditTable, ConfigFile, HttpTable, IdentityCenterTable, IdentityEntry, LimitsTable, TimingTable},
    restart,
};
use crate::{
    diagnostics::did_you_mean,
    document::{At, Entry, Findings, identity_store_id, unprintable},
    identity_center::UserPin,
    invariant::{self, Written},
    model::{PrincipalId, ProjectName, SourceName},
    secret::{Env, Secrets},
};

/// What is used where the file says nothing.
const POLICY_DIR: &str = "access.d";
const LEDGER: &str = "/var/lib/dutybound/ledger.sqlite";
const LISTEN: &str = "127.0.0.1:9868";
/// In characters.
const SHORTEST_TOKEN: usize = 16;

pub(super) struct Checking<'a> {
    pub(super) found: Findings<'a>,
    /// The directory of the configuration file, where relative paths begin.
    pub(super) base: &'a Path,
    pub(super) env: &'a dyn Env,
    pub(super) secrets: Secrets,
}

const fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The policy directory, known even where other keys are wrong.
pub(super) fn policy_dir(file: &ConfigFile, base: &Path) -> PathBuf {
    base.join(file.policy_dir.as_ref().map_or(POLICY_DIR, |dir| dir.value.as_str()))
}

/// Whether a URL's host is this one, so that nobody else hears what is sent there.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// The projects that may stand without a parent, known even where other keys are wrong.
pub(super) fn roots(file: &ConfigFile) -> Option<BTreeSet<ProjectName>> {
    let names = &file.roots.as_ref()?.value;
    Some(
        names
            .iter()
            .map(|name| ProjectName(name.value.clone().into()))
            .collect(),
    )
}

/// The sources with a known API, known even where other keys are wrong.
pub(super) fn providers(file: &ConfigFile) -> BTreeMap<SourceName, Option<Provider>> {
    let sources = file.source.iter();
    sources
        .map(|(name, source)| {
            (
                SourceName(name.clone().into()),
                source.value.kind.as_ref().map(|kind| kind.value),
            )
        })
        .collect()
}

impl Checking<'_> {
    pub(super) fn invariants(&mut self, file: &ConfigFile, origin: &str) -> Vec<Written> {
        let state = |entry| invariant::lower(&mut self.found, entry, None, origin);
        file.invariant.iter().map(state).collect()
    }

    pub(super) fn config(
        &mut self,
        file: &ConfigFile,
        invariants: Vec<Written>,
        written: restart::Written,
    ) -> Option<Config> {
        let root = 0..0;
        let mode = self
            .found
            .required(file.mode.as_ref(), &root, "the file", "mode", "\"observe\"");
        let owner_id = self.found.required(
            file.owner_id.as_ref(),
            &root,
            "the file",
            "owner_id",
            "\"acme-production\"",
        );
        let owner_id = owner_id.and_then(|id| self.found.name(&id.value, id.span()));
        let heads = file.audit.as_ref().map_or(&None, |table| &table.value.heads);
        for path in [&file.policy_dir, &file.ledger, &file.pause_file, heads]
            .into_iter()
            .flatten()
        {
            if path.value.is_empty() || unprintable(&path.value) {
                self.found.error("bad-path", path.span(), "this is not a path", "");
            }
        }
        for root in file.roots.iter().flat_map(|list| &list.value) {
            self.found.name(&root.value, root.span());
        }
        let mut sources = BTreeMap::new();
        for (name, table) in &file.source {
            let valid = self.found.name(name, table.span()).is_some();
            if let Some(source) = self.source(table)
                && valid
            {
                sources.insert(SourceName(name.clone().into()), source);
            }
        }
        let table = file.identity_center.as_ref();
        let example = "a region and an account: add a section [identity_center]";
        if table.is_none() && !self.found.holes.explain(&root, "identity_center") {
            let message = "the file has no [identity_center]";
            self.found.error("missing-key", &root, message, example);
        }
        let identity_center = table.and_then(|table| self.identity_center(table));
        let identities = self.identities(file);
        let timing = self.timing(file.timing.as_ref());
        let limits = self.limits(file.limits.as_ref());
        let http = self.http(file.http.as_ref());
        let audit = self.audit(file.audit.as_ref());
        let notify = self.notify(file.notify.as_ref());
        let ledger = self
            .base
            .join(file.ledger.as_ref().map_or(LEDGER, |path| path.value.as_str()));
        let sinks = self.sinks(file, &ledger);
        let pause_file = match &file.pause_file {
            Some(path) => self.base.join(&path.value),
            None => ledger.with_file_name("pause"),
        };
        Some(Config {
            mode: mode?.value,
            owner_id: owner_id?.to_owned(),
            policy_dir: policy_dir(file, self.base),
            roots: roots(file),
            ledger,
            pause_file,
            sources,
            identity_center: identity_center?,
            identities,
            invariants,
            timing,
            limits,
            http,
            audit,
            sinks,
            notify,
            written,
        })
    }

    fn identity_center(&mut self, table: &Entry<IdentityCenterTable>) -> Option<IdentityCenterConfig> {
        let (at, t) = (table.span(), &table.value);
        let region = self
            .found
            .required(t.region.as_ref(), at, "[identity_center]", "region", "\"eu-central-1\"");
        let region = region.and_then(|region| {
            let valid = region.value.split('-').count() >= 3
                && region.value.ends_with(|c: char| c.is_ascii_digit())
                && region
                    .value
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if !valid {
                let hint = "write the region that hosts the instance, such as \"eu-central-1\"";
                self.found
                    .error("bad-region", region.span(), "this is not an AWS region", hint);
            }
            valid.then(|| region.value.clone())
        });
        let key = "expected_account_id";
        let account = t.expected_account_id.as_ref();
        let account = self
            .found
            .required(account, at, "[identity_center]", key, "\"111122223333\"");
        let account = account.and_then(|account| {
            let valid = account.value.is_valid();
            if !valid {
                let hint = "an account id is twelve digits, with its leading zeros";
                self.found
                    .error("bad-account", account.span(), "this is not an AWS account id", hint);
            }
            valid.then(|| account.value.0.clone())
        });
        if let Some(arn) = &t.instance_arn
            && !(arn.value.starts_with("arn:") && arn.value.contains(":sso:::instance/"))
        {
            let hint = "it looks like arn:aws:sso:::instance/ssoins-1234567890abcdef";
            self.found.error(
                "bad-arn",
                arn.span(),
                "this is not the ARN of an Identity Center instance",
                hint,
            );
        }
        if let Some(profile) = &t.profile {
            self.id(profile, "a profile's name");
        }
        let endpoint_url = t.endpoint_url.as_ref().and_then(|url| self.url(url));
        let requests_per_second = self.number(t.requests_per_second.as_ref(), 1..=19, 15);
        let assignments_in_flight = self.number(t.assignments_in_flight.as_ref(), 1..=10, 10);
        let operation_timeout = self.wait(t.operation_timeout.as_ref(), secs(10)..=HOUR, secs(300));
        let call_timeout = self.wait(t.call_timeout.as_ref(), secs(1)..=secs(120), secs(10));
        Some(IdentityCenterConfig {
            region: region?,
            expected_account_id: account?,
            instance_arn: t.instance_arn.as_ref().map(|arn| arn.value.clone()),
            profile: t.profile.as_ref().map(|profile| profile.value.clone()),
            endpoint_url,
            requests_per_second,
            assignments_in_flight,
            operation_timeout,
            call_timeout,
        })
    }

    fn identities(&mut self, file: &ConfigFile) -> Vec<Identity> {
        // What may stand once only, with the words for it, and where it stands first.
        let mut taken: HashMap<String, usize> = HashMap::new();
        let mut identities = Vec::new();
        for entry in &file.identity {
            let (at, i) = (entry.span(), &entry.value);
            let email = self
                .found
                .required(i.email.as_ref(), at, "[[identity]]", "email", "\"alice@example.com\"");
            let person = email.and_then(|email| self.found.person(email));
            if let (Some(email), Some(person)) = (email, &person) {
                self.once(&mut taken, format!("the person {person}"), email.span());
            }
            let sources = self.user_ids(file, i, &mut taken);
            let pin = self.user_pin(i, &mut taken);
            let holes = ["on_call", "identity_center", "user_name"];
            if i.on_call.is_none() && pin.is_none() && !holes.iter().any(|key| self.found.holes.explain(at, key)) {
                let hint = "add `on_call`, `identity_center` or `user_name`, or remove the entry";
                self.found
                    .error("missing-key", at, "[[identity]] maps the person to nothing", hint);
            }
            if let Some(person) = person {
                identities.push(Identity {
                    person,
                    sources,
                    identity_center: pin,
                });
            }
        }
        identities
    }

    fn user_ids(
        &mut self,
        file: &ConfigFile,
        entry: &IdentityEntry,
        taken: &mut HashMap<String, usize>,
    ) -> BTreeMap<SourceName, String> {
        let mut ids = BTreeMap::new();
        for (source, id) in entry.on_call.iter().flat_map(|table| &table.value) {
            self.id(id, "a user's id");
            if !file.source.contains_key(source) {
                let known = file.source.keys().map(String::as_str);
                let hint = did_you_mean(source, known).unwrap_or_else(|| format!("add a section [source.{source}]"));
                self.found.error(
                    "unknown-source",
                    id.span(),
                    format!("there is no source `{source}`"),
                    hint,
                );
            }
            self.once(taken, format!("the user {} of {source}", id.value), id.span());
            ids.insert(SourceName(source.clone().into()), id.value.clone());
        }
        ids
    }

    fn user_pin(&mut self, entry: &IdentityEntry, taken: &mut HashMap<String, usize>) -> Option<UserPin> {
        match (&entry.identity_center, &entry.user_name) {
            (Some(_), Some(name)) => {
                let message = "`identity_center` and `user_name` both name the user";
                self.found.error("two-pins", name.span(), message, "keep one");
                None
            }
            (Some(id), None) => {
                if !identity_store_id(&id.value) {
                    let hint = "an id looks like 906670e2f1-6b0e1b3c-1111-2222-3333-444455556666; \
                                for a user name write user_name";
                    self.found
                        .error("bad-id", id.span(), "this is not a user id of Identity Center", hint);
                }
                self.once(taken, format!("the Identity Center user {}", id.value), id.span());
                Some(UserPin::Id(PrincipalId(id.value.clone().into())))
            }
            (None, Some(name)) => {
                self.id(name, "a user name");
                self.once(
                    taken,
                    format!("the Identity Center user name {}", name.value),
                    name.span(),
                );
                Some(UserPin::UserName(name.value.clone()))
            }
            (None, None) => None,
        }
    }

    fn once(&mut self, taken: &mut HashMap<String, usize>, what: String, span: &Range<usize>) {
        if let Some(first) = taken.get(&what) {
            let line = self.found.source.line(*first);
            let hint = format!("the first is in line {line}; two entries must not speak of one user");
            self.found
                .error("duplicate-identity", span, format!("{what} has an entry already"), hint);
        } else {
            taken.insert(what, span.start);
        }
    }

    /// Text that is compared with what others send, so that nothing invisible may be in it.
    pub(super) fn id(&mut self, text: &At<String>, what: &str) {
        let valid = !text.value.is_empty()
            && text.value.len() <= 512
            && text.value.trim() == text.value
            && !text.value.chars().any(char::is_control);
        if !valid {
            self.found
                .error("bad-id", text.span(), format!("this is not {what}"), "");
        }
    }

    /// A URL to which a credential may be sent.
    pub(super) fn url(&mut self, text: &At<String>) -> Option<Url> {
        let Ok(mut url) = Url::parse(&text.value) else {
            let hint = "write it whole, such as \"https://api.example.com\"";
            self.found.error("bad-url", text.span(), "this is not a URL", hint);
            return None;
        };
        let loopback = is_loopback(&url);
        let extra = !url.username().is_empty() || url.password().is_some() || url.query().is_some();
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            let hint = "a credential is sent there, so write https; http is for loopback only";
            self.found
                .error("bad-url", text.span(), "this URL is not encrypted", hint);
            return None;
        }
        if extra || url.fragment().is_some() {
            let hint = "write scheme, host, port and path only";
            self.found.error(
                "bad-url",
                text.span(),
                "this URL has a user name, a query or a fragment",
                hint,
            );
            return None;
        }
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty();
        }
        Some(url)
    }

    pub(super) fn number(&mut self, number: Option<&At<u32>>, bounds: RangeInclusive<u32>, default: u32) -> u32 {
        let Some(number) = number else { return default };
        if !bounds.contains(&number.value) {
            let hint = format!("write between {} and {}", bounds.start(), bounds.end());
            self.found
                .error("out-of-range", number.span(), "this number is not allowed here", hint);
        }
        number.value
    }

    pub(super) fn length(
        &mut self,
        text: Option<&At<String>>,
        bounds: RangeInclusive<SignedDuration>,
        default: SignedDuration,
    ) -> SignedDuration {
        text.and_then(|text| self.found.duration(text, bounds))
            .unwrap_or(default)
    }

    pub(super) fn wait(
        &mut self,
        text: Option<&At<String>>,
        bounds: RangeInclusive<SignedDuration>,
        default: SignedDuration,
    ) -> Duration {
        self.length(text, bounds, default).unsigned_abs()
    }

    fn timing(&mut self, table: Option<&Entry<TimingTable>>) -> Timing {
        let default = Timing::default();
        let Some(t) = table.map(|table| &table.value) else {
            return default;
        };
        let second = secs(1);
        let timing = Timing {
            poll: self.length(t.poll.as_ref(), second..=HOUR, default.poll),
            horizon: self.length(t.horizon.as_ref(), DAY..=DAY * 80, default.horizon),
            max_staleness: self.length(t.max_staleness.as_ref(), second..=DAY * 80, default.max_staleness),
            notice: self.length(t.notice.as_ref(), SignedDuration::ZERO..=DAY, default.notice),
            patience: self.length(t.patience.as_ref(), SignedDuration::ZERO..=DAY, default.patience),
            audit: self.length(t.audit.as_ref(), second..=DAY, default.audit),
            max_clock_skew: self.length(t.max_clock_skew.as_ref(), second..=HOUR, default.max_clock_skew),
        };
        if timing.max_staleness > timing.horizon
            && let Some(at) = t.max_staleness.as_ref().or(t.horizon.as_ref())
        {
            let message = "a stored schedule would be trusted for longer than it reaches";
            let hint = "make `max_staleness` at most `horizon`";
            self.found.error("out-of-range", at.span(), message, hint);
        }
        timing
    }

    fn limits(&mut self, table: Option<&Entry<LimitsTable>>) -> Limits {
        let default = Limits::default();
        let Some(t) = table.map(|table| &table.value) else {
            return default;
        };
        let any = 0..=u32::MAX;
        let protected = t.protected.iter().flat_map(|list| &list.value);
        Limits {
            protected: protected.flat_map(|email| self.found.person(email)).collect(),
            surprising_grants: self.number(t.surprising_grants.as_ref(), any.clone(), default.surprising_grants),
            surprising_revokes: self.number(t.surprising_revokes.as_ref(), any.clone(), default.surprising_revokes),
            surprising_revokes_percent: self.number(
                t.surprising_revokes_percent.as_ref(),
                0..=100,
                default.surprising_revokes_percent,
            ),
            surprising_grants_per_entitlement: self.number(
                t.surprising_grants_per_entitlement.as_ref(),
                any.clone(),
                default.surprising_grants_per_entitlement,
            ),
            surprising_revokes_per_entitlement: self.number(
                t.surprising_revokes_per_entitlement.as_ref(),
                any,
                default.surprising_revokes_per_entitlement,
            ),
        }
    }

    fn audit(&mut self, table: Option<&Entry<AuditTable>>) -> Audit {
        let t = table.map(|table| &table.value);
        let retention = t.and_then(|t| t.retention.as_ref());
        let heads = t.and_then(|t| t.heads.as_ref());
        Audit {
            // Shorter than how far back passes themselves look at the record would be wrong.
            retention: retention.and_then(|text| self.found.duration(text, DAY * 90..=DAY * 36_500)),
            heads: heads.map(|path| self.base.join(&path.value)),
            heads_every: self.length(t.and_then(|t| t.heads_every.as_ref()), secs(60)..=DAY, HOUR),
        }
    }

    fn http(&mut self, table: Option<&Entry<HttpTable>>) -> Option<Http> {
        let t = table.map(|table| &table.value);
        let listen = t.and_then(|t| t.listen.as_ref());
        let address = listen
            .map_or(LISTEN, |listen| listen.value.as_str())
            .parse::<SocketAddr>();
        let enabled = t.and_then(|t| t.enabled.as_ref()).is_none_or(|enabled| enabled.value);
        let written = t.and_then(|t| t.token.as_ref());
        let token = written.and_then(|token| self.secret(token));
        if let (Some(written), Some(token)) = (written, &token)
            && self.secrets == Secrets::Read
            && token.expose_secret().chars().count() < SHORTEST_TOKEN
        {
            let message = format!("a token of fewer than {SHORTEST_TOKEN} characters can be guessed");
            let hint = "make one with `openssl rand -hex 32`";
            self.found.error("short-token", written.span(), &message, hint);
        }
        if let Some(listen) = listen {
            match &address {
                Ok(address) if address.ip().is_loopback() || written.is_some() => {}
                Ok(_) => {
                    let message = "the listener has no authentication, so it stays on loopback";
                    let hint = "write \"127.0.0.1:9868\", or demand a token: token = { file = \"/path\" }";
                    self.found.error("not-loopback", listen.span(), message, hint);
                }
                Err(_) => {
                    let hint = "write address and port, such as \"127.0.0.1:9868\" or \"[::1]:9868\"";
                    self.found
                        .error("bad-address", listen.span(), "this is not an address with a port", hint);
                }
            }
        }
        let address = address.ok().filter(|_| enabled)?;
        Some(Http { address, token })
    }
}

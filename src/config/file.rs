//! The configuration as the operator writes it. Every key is optional here, although a few are required, because a
//! missing key is one mistake among others. The doc comments are what editors show, by way of the JSON Schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Facility, HttpBody, Mode, Provider, SinkFormat, SinkKind};
use crate::{
    document::{AccountId, At, Entry, Until},
    invariant::file::InvariantEntry,
    notify::message::Kind,
    secret::SecretValue,
};

/// The operator's configuration of dutybound (`config.toml`).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// What the daemon may write to AWS. Required; begin with `observe`.
    #[schemars(required)]
    pub mode: Option<At<Mode>>,
    /// Names this installation in its ledger. Required; never change it.
    #[schemars(required, regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub owner_id: Option<At<String>>,
    /// The directory with one TOML file per project. Relative paths begin at this file. Default: `access.d`.
    pub policy_dir: Option<At<String>>,
    /// The only projects that may stand without a parent, so that no child escapes the limits above it by dropping its
    /// `parent`. Default: any.
    pub roots: Option<At<Vec<At<String>>>>,
    /// The SQLite file of the ledger. Default: `/var/lib/dutybound/ledger.sqlite`.
    pub ledger: Option<At<String>>,
    /// While a file exists here, nothing is written to AWS. Default: `pause` in the ledger's directory.
    pub pause_file: Option<At<String>>,
    /// On-call sources by the name that policy files use before the slash.
    #[serde(default)]
    pub source: BTreeMap<String, Entry<SourceTable>>,
    /// The Identity Center instance.
    #[schemars(required)]
    pub identity_center: Option<Entry<IdentityCenterTable>>,
    /// People whose ids elsewhere do not follow from their e-mail address.
    #[serde(default)]
    pub identity: Vec<Entry<IdentityEntry>>,
    /// A statement that holds for every plan, about any entitlements.
    #[serde(default)]
    pub invariant: Vec<Entry<InvariantEntry>>,
    /// When things happen.
    pub timing: Option<Entry<TimingTable>>,
    /// What passes without a person's approval.
    pub limits: Option<Entry<LimitsTable>>,
    /// The listener for the status page, metrics and health.
    pub http: Option<Entry<HttpTable>>,
    /// How the record is kept and how others can prove that it was not changed.
    pub audit: Option<Entry<AuditTable>>,
    /// Where the ledger's events are sent as they happen.
    #[serde(default)]
    pub sink: Vec<Entry<SinkTable>>,
    /// Messages to people, and reviews and reports on a cron schedule.
    pub notify: Option<Entry<NotifyTable>>,
}

/// One on-call source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceTable {
    /// Which API it speaks.
    #[schemars(required)]
    pub kind: Option<At<Provider>>,
    /// The provider's service region. Default: `us`.
    pub region: Option<At<ServiceRegion>>,
    /// Replaces the region's base URL. `https`, except on loopback.
    pub base_url: Option<At<String>>,
    /// PagerDuty: the API key, read-only if possible. Either this or `oauth`.
    pub token: Option<At<SecretValue>>,
    /// PagerDuty: an OAuth app instead of an API key.
    pub oauth: Option<Entry<OauthTable>>,
    /// Opsgenie: the API key, with read and configuration access.
    pub api_key: Option<At<SecretValue>>,
    /// When the key or secret expires, through the end of that day in UTC; providers do not tell. For the metric
    /// `dutybound_credential_expiry_timestamp_seconds` and its alert.
    pub expires: Option<At<Until>>,
    /// Requests a minute, kept below the provider's own limit, 1 to 960. Default: 480 for PagerDuty (which allows 960),
    /// 120 for Opsgenie.
    pub requests_per_minute: Option<At<u32>>,
    /// How long one request may take, 1s to 5m. Default: `30s`.
    pub timeout: Option<At<String>>,
}

/// A provider's service region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceRegion {
    /// United States.
    Us,
    /// European Union.
    Eu,
}

/// A PagerDuty OAuth app that signs in as itself (client credentials), with the scopes `oncalls.read`,
/// `schedules.read`, `users.read` and `escalation_policies.read`, and, to name who made an override, `audit_records.read`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OauthTable {
    /// The app's client id.
    #[schemars(required)]
    pub client_id: Option<At<String>>,
    /// The app's secret.
    #[schemars(required)]
    pub client_secret: Option<At<SecretValue>>,
    /// The account's subdomain: `acme` in acme.pagerduty.com.
    #[schemars(required)]
    pub subdomain: Option<At<String>>,
    /// Where tokens are asked for. Default: `https://identity.pagerduty.com/oauth/token`.
    pub token_url: Option<At<String>>,
}

/// The Identity Center instance. Credentials come from the ordinary AWS chain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityCenterTable {
    /// The region that hosts the instance.
    #[schemars(required)]
    pub region: Option<At<String>>,
    /// The account that must own the instance, twelve digits in quotes.
    #[schemars(required)]
    pub expected_account_id: Option<At<AccountId>>,
    /// Which instance, when the account sees several.
    pub instance_arn: Option<At<String>>,
    /// A profile of the ordinary AWS configuration files.
    pub profile: Option<At<String>>,
    /// Replaces the endpoints of both services. `https`, except on loopback.
    pub endpoint_url: Option<At<String>>,
    /// Requests a second over both services, 1 to 19; AWS allows 20 for the whole instance. Default: 15.
    pub requests_per_second: Option<At<u32>>,
    /// Account assignments under way at once, 1 to 10; AWS allows 10 for the whole instance, whoever asks. Default: 10.
    pub assignments_in_flight: Option<At<u32>>,
    /// How long one assignment may take before it is left to the next pass, 10s to 1h. Default: `5m`.
    pub operation_timeout: Option<At<String>>,
    /// How long one request may take, 1s to 2m. Default: `10s`.
    pub call_timeout: Option<At<String>>,
}

/// A person's ids elsewhere.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IdentityEntry {
    /// The person, as policy files name them.
    #[schemars(required)]
    pub email: Option<At<String>>,
    /// The person's user id by source; for Opsgenie a user name serves too.
    pub on_call: Option<Entry<BTreeMap<String, At<String>>>>,
    /// The person's user id in Identity Center. Either this or `user_name`.
    pub identity_center: Option<At<String>>,
    /// The person's user name in Identity Center.
    pub user_name: Option<At<String>>,
}

/// When things happen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimingTable {
    /// Time between reads of every schedule, which notice edits, 1s to 1h. Hand-offs do not wait for it.
    /// Default: `1m`.
    pub poll: Option<At<String>>,
    /// How far ahead schedules are read, 1d to 80d. Default: `14d`.
    pub horizon: Option<At<String>>,
    /// How long a stored schedule stands in for a source that cannot be read, up to `horizon`. Default: `24h`.
    pub max_staleness: Option<At<String>>,
    /// A change of a schedule counts as predicted once it has been known this long, 0s to 24h. Default: `15m`.
    pub notice: Option<At<String>>,
    /// How long an outgoing grant waits for the incoming one, 0s to 24h. Default: `10m`.
    pub patience: Option<At<String>>,
    /// Time between complete reads of AWS, which notice drift, 1s to 24h. Default: `10m`.
    pub audit: Option<At<String>>,
    /// New grants wait while a provider's clock and ours differ by more, 1s to 1h. Default: `60s`.
    pub max_clock_skew: Option<At<String>>,
}

/// What passes without a person's approval. Changes that the schedule predicted always pass.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsTable {
    /// Surprising grants in one pass. Default: 10.
    pub surprising_grants: Option<At<u32>>,
    /// Surprising revokes in one pass. Default: 5.
    pub surprising_revokes: Option<At<u32>>,
    /// Surprising revokes in one pass as a percentage of all grants, 0 to 100; looked at from ten grants on.
    /// Default: 25.
    pub surprising_revokes_percent: Option<At<u32>>,
    /// Surprising grants of one entitlement in one pass. Default: 5.
    pub surprising_grants_per_entitlement: Option<At<u32>>,
    /// Surprising revokes of one entitlement in one pass. Default: 3.
    pub surprising_revokes_per_entitlement: Option<At<u32>>,
    /// E-mail addresses of people from whom nothing is ever revoked. Default: nobody.
    pub protected: Option<At<Vec<At<String>>>>,
}

/// How the record is kept and how others can prove that it was not changed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditTable {
    /// How long the record of what has ended is kept, 90d to 36500d. Default: for ever.
    pub retention: Option<At<String>>,
    /// A file to which the head of the record's chain is appended, one JSON object a line. Put it where whoever can change
    /// the ledger cannot change it, or have it copied there. Default: none; heads are in the log.
    pub heads: Option<At<String>>,
    /// Time between heads, 1m to 24h. One is published when the daemon stops as well. Default: `1h`.
    pub heads_every: Option<At<String>>,
}

/// The listener for the status page, metrics and health.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpTable {
    /// `false` turns the listener off. Default: true.
    pub enabled: Option<At<bool>>,
    /// Address and port. Anything but loopback needs a `token`. Default: `127.0.0.1:9868`.
    pub listen: Option<At<String>>,
    /// What every page but `/healthz` and `/readyz` asks for: as a bearer token, or as the password of any user. At least
    /// 16 characters. Default: none; then the listener stays on loopback.
    pub token: Option<At<SecretValue>>,
}

/// Where the ledger's events are sent: each at least once, in their order, without a pass ever waiting for it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkTable {
    /// Names it in metrics and log, and in the file beside the ledger that says what it confirmed. Under a new name
    /// everything is sent again.
    #[schemars(required, regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub name: Option<At<String>>,
    /// What kind of receiver it is.
    #[schemars(required)]
    pub kind: Option<At<SinkKind>>,
    /// In which form events are sent. Default: `jsonl`, and `structured` for syslog.
    pub format: Option<At<SinkFormat>>,
    /// File: lines are appended to it. Other programs may rotate it at any time.
    pub path: Option<At<String>>,
    /// Syslog: `udp://host:port`, `tcp://host:port` or `unix:///dev/log`.
    pub to: Option<At<String>>,
    /// Syslog: the facility. Default: `authpriv`.
    pub facility: Option<At<Facility>>,
    /// HTTP: where batches are posted. `https`, except on loopback.
    pub url: Option<At<String>>,
    /// HTTP: one JSON object a line, or an array of them. Default: `ndjson`.
    pub body: Option<At<HttpBody>>,
    /// HTTP: sent as `Authorization: Bearer`.
    pub token: Option<At<SecretValue>>,
    /// HTTP: a further header, such as a collector's key.
    pub header: Option<Entry<HeaderTable>>,
    /// HTTP: signs each body with HMAC-SHA256, in the header `X-Dutybound-Signature`.
    pub signing_key: Option<At<SecretValue>>,
    /// HTTP: how long one request may take, 1s to 2m. Default: `10s`.
    pub timeout: Option<At<String>>,
}

/// A header with a secret.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderTable {
    /// Its name.
    #[schemars(required)]
    pub name: Option<At<String>>,
    /// Where its value is kept.
    #[schemars(required)]
    pub value: Option<At<SecretValue>>,
}

/// Messages to people, and reviews and reports on a cron schedule.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyTable {
    /// The time zone of times in messages, for projects and destinations without one of their own, and of cron patterns.
    /// Default: `UTC`.
    pub zone: Option<At<String>>,
    /// The hand-offs of a project within this time are one message to its channel, 0s to 1h. Default: `1m`.
    pub digest: Option<At<String>>,
    /// Trouble that passes sooner is not told, 0s to 1h. Default: `2m`.
    pub health_after: Option<At<String>>,
    /// Tell of membership windows as well, every time they open and close. Default: false.
    pub windows: Option<At<bool>>,
    /// What could not be delivered for this long is dropped, 1h to 7d. Default: `24h`.
    pub max_age: Option<At<String>>,
    /// How many messages may wait for one destination; beyond it the oldest are dropped. Default: 10000.
    pub max_messages: Option<At<u32>>,
    /// Where messages go, by a name of your choice.
    #[serde(default)]
    pub destination: BTreeMap<String, Entry<DestinationTable>>,
    /// Reviews on a cron schedule: one for each owner.
    #[serde(default)]
    pub review: Vec<Entry<ReviewTable>>,
    /// Reports on a cron schedule: access hours since the time before.
    #[serde(default)]
    pub report: Vec<Entry<ReportTable>>,
}

/// How a destination is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DestinationKind {
    /// A Slack incoming webhook, which posts into one channel.
    SlackWebhook,
    /// A Slack app with a bot token, which writes to people and into projects' channels.
    SlackBot,
    /// Anything else that takes signed JSON.
    Webhook,
}

/// Somewhere that messages go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DestinationTable {
    /// How it is reached.
    #[schemars(required)]
    pub kind: Option<At<DestinationKind>>,
    /// slack-webhook: its URL, which is a secret.
    pub secret_url: Option<At<SecretValue>>,
    /// slack-bot: the bot token, with the scopes `chat:write`, `im:write` and `users:read.email`.
    pub token: Option<At<SecretValue>>,
    /// slack-bot: the operator's channel, also for projects that name none of their own.
    pub channel: Option<At<String>>,
    /// slack-bot: replaces Slack's Web API. `https`, except on loopback. Default: `https://slack.com/api`.
    pub base_url: Option<At<String>>,
    /// webhook: where to. `https`, except on loopback.
    pub url: Option<At<String>>,
    /// webhook: the key with which every message is signed.
    pub key: Option<At<SecretValue>>,
    /// What it is told. Default for a slack-bot: `grant`, `handoff`, `gap`, `held`, `health`, `review`; for a slack-webhook
    /// `handoff`, `gap`, `held`, `health`; for a webhook everything.
    pub tells: Option<At<Vec<At<Kind>>>>,
    /// Only what concerns these projects. Default: everything.
    pub projects: Option<At<Vec<At<String>>>>,
    /// The time zone of its times, for projects without one of their own.
    pub zone: Option<At<String>>,
}

/// A review for each owner: what to look at when access is to be taken away.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReviewTable {
    /// When: minute, hour, day of month, month, day of week.
    #[schemars(required)]
    pub cron: Option<At<String>>,
    /// The pattern's time zone. Default: that of `[notify]`.
    pub zone: Option<At<String>>,
    /// How many days to look back, 1 to 365. Default: 90.
    pub days: Option<At<u32>>,
    /// Where one Markdown file for each owner is written, ready to be mailed. Default: none is.
    pub directory: Option<At<String>>,
}

/// Access hours from the time at which the pattern fired before until it fires.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportTable {
    /// When: minute, hour, day of month, month, day of week.
    #[schemars(required)]
    pub cron: Option<At<String>>,
    /// The pattern's time zone. Default: that of `[notify]`.
    pub zone: Option<At<String>>,
    /// What a line is about, as `dutybound report --by`. Default: `project`.
    pub by: Option<At<String>>,
    /// The files to write, as `dutybound report --format`. Default: `["json", "csv"]`.
    pub formats: Option<At<Vec<At<String>>>>,
    /// Where they are written. Default: none is.
    pub directory: Option<At<String>>,
}

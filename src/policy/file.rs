//! A policy file as its author writes it: one project, what it owns, who belongs to it, and which duty earns what.
//!
//! Every key is optional here, although many are required, because a missing key is one mistake among others and
//! must not hide them. The doc comments are what editors show, by way of the JSON Schema.

use std::ops::Range;

use schemars::JsonSchema;
use serde::Deserialize;

use super::delegation::RuleKind;
use crate::document::{AccountId, At, Entry, Since, Until};
use crate::invariant::file::InvariantEntry;

mod short;

pub use short::{ShortForm, TextOr};

/// One project of the access policy (`access.d/<project>.toml`).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// The project itself.
    #[schemars(required)]
    pub project: Option<Entry<ProjectSection>>,
    /// Something grantable that the project owns.
    #[serde(default)]
    pub entitlement: Vec<Entry<EntitlementEntry>>,
    /// A person who belongs to the project.
    #[serde(default)]
    pub member: Vec<Entry<MemberEntry>>,
    /// Binds an entitlement to the duty that earns it.
    #[serde(default)]
    pub rule: Vec<Entry<RuleEntry>>,
    /// A statement that holds for every plan, about what this project and those below it own.
    #[serde(default)]
    pub invariant: Vec<Entry<InvariantEntry>>,
}

/// The project itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectSection {
    /// The project's name, unique in the policy: up to 64 letters, digits, dots, dashes and underscores.
    #[schemars(required, regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub name: Option<At<String>>,
    /// The parent project, whose owners can justify transitively. Without one the project is a root of the tree.
    pub parent: Option<At<String>>,
    /// E-mail addresses of those who consent to what is granted; at least one.
    #[schemars(required, length(min = 1))]
    pub owners: Option<At<Vec<At<String>>>>,
    /// A warning that is shown wherever an entitlement of the project is shown.
    pub context: Option<At<String>>,
    /// The Slack channel that is told of hand-offs, gaps and held changes, by name or id.
    pub channel: Option<At<String>>,
    /// The time zone of times in messages about the project, such as `Europe/Berlin`.
    pub zone: Option<At<String>>,
    /// What the projects below this one may own and grant, added to what the projects above say. A key that is left out
    /// limits nothing.
    pub children: Option<Entry<ChildrenSection>>,
}

/// Limits for the projects below, not for the project itself. They also bind rules elsewhere to which something from
/// below is delegated.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChildrenSection {
    /// The only AWS accounts, twelve digits in quotes each. An empty list allows none.
    pub accounts: Option<At<Vec<At<AccountId>>>>,
    /// The only permission sets, as entitlements write them: by name or by ARN. A `*` stands for any characters or none.
    pub permission_sets: Option<At<Vec<At<String>>>>,
    /// The only Identity Center groups, as entitlements write them: by display name or by id. A `*` stands for any
    /// characters or none. An empty list allows none.
    pub groups: Option<At<Vec<At<String>>>>,
    /// The longest time from `since` to `until` of a member, such as `"180d"`. Every member then needs both keys.
    pub longest_membership: Option<At<String>>,
    /// Whether on-call rules may do without membership, by `requires = []`. Default: true.
    pub may_drop_member: Option<At<bool>>,
}

/// Something grantable: either `account` and `permission_set`, or `group`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntitlementEntry {
    /// Its name, unique in the project: up to 64 letters, digits, dots, dashes and underscores.
    #[schemars(required, regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub name: Option<At<String>>,
    /// The AWS account, twelve digits in quotes. Goes with `permission_set`.
    pub account: Option<At<AccountId>>,
    /// The permission set by name, or by ARN when it begins with `arn:`. Goes with `account`.
    pub permission_set: Option<At<String>>,
    /// An Identity Center group by display name or by id.
    pub group: Option<At<String>>,
    /// Remove everybody who holds it without a cause, whoever granted it. Default: false.
    pub exclusive: Option<At<bool>>,
    /// Never revoke below this many holders; what would is held. Default: 0.
    pub min_holders: Option<At<u32>>,
    /// Which changes go first when AWS keeps them waiting: those of entitlements with 1 before those with 9. Default: 5.
    #[schemars(range(min = 1, max = 9))]
    pub priority: Option<At<u32>>,
    /// Projects whose rules may name it too: each by its name, or as a table that narrows the consent or ends it.
    pub delegate_to: Option<At<Vec<At<TextOr<DelegateTable>>>>>,
}

/// Consent that another project's rules grant an entitlement, for some of its rules or for some time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DelegateTable {
    /// The project whose rules may name the entitlement.
    #[schemars(required)]
    pub project: Option<At<String>>,
    /// The last day of the consent, in UTC, or the instant at which it ends; what rests on it ends then. Without quotes.
    pub until: Option<At<Until>>,
    /// Only rules of this sort: `"on-call"` or `"members"`.
    pub rules: Option<At<RuleKind>>,
    /// Only on-call rules with one of these schedules, or of `escalation_policies`, as `"source/ID"` each.
    pub schedules: Option<At<Vec<At<String>>>>,
    /// Only on-call rules with one of these escalation policies, or of `schedules`, as `"source/ID"` each.
    pub escalation_policies: Option<At<Vec<At<String>>>>,
}

impl ShortForm for DelegateTable {
    const EXPECTED: &'static str = "a project's name or a table with `project`";
    const PATTERN: &'static str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";
}

impl At<TextOr<DelegateTable>> {
    /// The project's name and its place, where it has one.
    #[must_use]
    pub fn project(&self) -> Option<(&str, &Range<usize>)> {
        match &self.value {
            TextOr::Text(name) => Some((name, self.span())),
            TextOr::Table(table) => table.project.as_ref().map(|name| (name.value.as_str(), name.span())),
        }
    }
}

/// A person who belongs to the project.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberEntry {
    /// The person's e-mail address.
    #[schemars(required)]
    pub email: Option<At<String>>,
    /// Who vouches for them: an owner of this project or of one above it.
    pub added_by: Option<At<String>>,
    /// Why they belong, for whoever reads the record later.
    pub reason: Option<At<String>>,
    /// The first day of the membership, in UTC (2026-10-01), or the instant at which it begins. Without quotes. A limit
    /// that a project above sets on memberships is measured from here, because whether a policy loads must not depend on
    /// the day; so the membership earns nothing before it.
    pub since: Option<At<Since>>,
    /// The last day of the membership, in UTC (2027-03-31), or the instant at which it ends
    /// (2027-03-31T18:00:00+02:00). Without quotes.
    pub until: Option<At<Until>>,
    /// Trainings and other prerequisites that they have met, to be named in a rule's `requires`: each by its name, or as
    /// a table that says when it counts. Lists beside the policy files (`*.csv`, `*.json`) count too.
    pub completed: Option<At<Vec<At<TextOr<CompletedTable>>>>>,
}

/// A training that counts for some time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompletedTable {
    /// Its name.
    #[schemars(required)]
    pub training: Option<At<String>>,
    /// The first day on which it counts, in UTC, or the instant. Without quotes.
    pub since: Option<At<Since>>,
    /// The last day on which it counts, in UTC, or the instant at which it ends. Without quotes.
    pub until: Option<At<Until>>,
}

impl ShortForm for CompletedTable {
    const EXPECTED: &'static str = "a training's name or a table with `training`";
    const PATTERN: &'static str = "\\S";
}

/// Binds an entitlement to the duty that earns it: either `on_call` or `members`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleEntry {
    /// An entitlement of this project, or `project/name` for one that another project delegated to this one.
    #[schemars(required)]
    pub entitlement: Option<At<String>>,
    /// The schedule that earns it, as `"source/ID"`, or an escalation policy as a table.
    pub on_call: Option<At<TextOr<OnCallTable>>>,
    /// `true`: every member of the project earns it.
    pub members: Option<At<bool>>,
    /// Windows of time outside which a `members` rule does not hold.
    pub during: Option<Entry<DuringEntry>>,
    /// What else the person needs: `"member"`, and trainings from the member's `completed`.
    /// Default for on-call rules: `["member"]`.
    pub requires: Option<At<Vec<At<String>>>>,
    /// Grant this long before duty starts, such as `"10m"`. At most 24 hours. Default: 0.
    pub lead: Option<At<String>>,
    /// Keep this long after duty ends, such as `"15m"`. At most 24 hours. Default: 0.
    pub linger: Option<At<String>>,
    /// The last day of the rule, in UTC, or the instant at which it ends. Without quotes.
    pub until: Option<At<Until>>,
}

/// The windows of a membership rule: they start by a cron pattern and last `for` some time or `until` some hour.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DuringEntry {
    /// When windows start, in `zone`: minute, hour, day of month, month, day of week, such as `0 9 * * MON-FRI`.
    #[schemars(required)]
    pub cron: Option<At<String>>,
    /// How long each window lasts, elapsed, such as `"9h"`.
    #[serde(rename = "for")]
    pub length: Option<At<String>>,
    /// The time on the clock in `zone` at which each window ends, such as `"18:00"`.
    pub until: Option<At<String>>,
    /// The IANA time zone, such as `"Europe/Berlin"`.
    #[schemars(required)]
    pub zone: Option<At<String>>,
}

/// A schedule, or an escalation policy with the levels that count.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnCallTable {
    /// A schedule, as `"source/ID"`.
    pub schedule: Option<At<String>>,
    /// An escalation policy, as `"source/ID"`.
    pub escalation_policy: Option<At<String>>,
    /// The levels of the escalation policy that count, from 1. Default: all.
    pub levels: Option<At<Vec<At<u32>>>>,
    /// Whether people who stand in the escalation policy without a schedule count, for as long as they stand there.
    /// Default: false.
    pub permanent: Option<At<bool>>,
}

impl ShortForm for OnCallTable {
    const EXPECTED: &'static str = "\"source/ID\" or a table with `schedule` or `escalation_policy`";
    const PATTERN: &'static str = "^[A-Za-z0-9._-]+/[A-Za-z0-9_-]+$";
}

//! The vocabulary that every other module may use: people, intervals, schedules, shifts, entitlements, causes.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// A human, named by a canonical e-mail address: the ASCII letters in lower case, nothing else changed.
///
/// Two people are the same exactly when these strings are equal. There is no trimming, no removal of
/// plus-addresses and no Unicode folding, because a look-alike must never earn somebody else's access.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Person(String);

/// Why a text is not a canonical e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an e-mail address: {reason}")]
pub struct NotAnEmail {
    text: String,
    reason: &'static str,
}

impl Person {
    /// Reads an address as written by a person or a provider.
    ///
    /// # Errors
    /// [`NotAnEmail`] for anything without exactly one `@` between two non-empty parts, with white space or
    /// control characters, or longer than 254 bytes (the longest address that mail can carry, RFC 5321).
    pub fn parse(text: &str) -> Result<Self, NotAnEmail> {
        let refuse = |reason| {
            Err(NotAnEmail {
                text: text.chars().take(100).collect(),
                reason,
            })
        };
        if text.len() > 254 {
            return refuse("it is longer than 254 bytes");
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refuse("it contains white space or control characters");
        }
        match text.split_once('@') {
            Some((local, domain)) if !local.is_empty() && !domain.is_empty() && !domain.contains('@') => {
                Ok(Self(text.to_ascii_lowercase()))
            }
            _ => refuse("it needs one @ with something on both sides"),
        }
    }

    /// The canonical address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Person {
    type Error = NotAnEmail;
    fn try_from(text: String) -> Result<Self, NotAnEmail> {
        Self::parse(&text)
    }
}

impl From<Person> for String {
    fn from(person: Person) -> Self {
        person.0
    }
}

/// A non-empty half-open span of time, `[start, end)`.
///
/// `Timestamp::MIN` and `Timestamp::MAX` stand for "since always" and "for ever".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawInterval", into = "RawInterval")]
pub struct Interval {
    start: Timestamp,
    end: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct RawInterval {
    start: Timestamp,
    end: Timestamp,
}

impl From<Interval> for RawInterval {
    fn from(i: Interval) -> Self {
        Self {
            start: i.start,
            end: i.end,
        }
    }
}

impl TryFrom<RawInterval> for Interval {
    type Error = String;
    fn try_from(raw: RawInterval) -> Result<Self, String> {
        Self::new(raw.start, raw.end)
            .ok_or_else(|| format!("an interval must end after it starts: {} .. {}", raw.start, raw.end))
    }
}

impl Interval {
    /// All of time.
    pub const ALWAYS: Self = Self {
        start: Timestamp::MIN,
        end: Timestamp::MAX,
    };

    /// `None` when the span would be empty or reversed.
    #[must_use]
    pub fn new(start: Timestamp, end: Timestamp) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// The first instant inside.
    #[must_use]
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// The first instant after.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.end
    }

    /// Whether `t` lies inside; the end does not.
    #[must_use]
    pub fn contains(&self, t: Timestamp) -> bool {
        self.start <= t && t < self.end
    }

    /// The part that both spans share, if any.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// The same span, begun `lead` earlier and ended `linger` later, saturating at the ends of time.
    #[must_use]
    pub fn widen(&self, lead: SignedDuration, linger: SignedDuration) -> Self {
        Self {
            start: self.start.checked_sub(lead).unwrap_or(Timestamp::MIN),
            end: self.end.checked_add(linger).unwrap_or(Timestamp::MAX),
        }
    }

    /// How long it lasts.
    #[must_use]
    pub fn duration(&self) -> SignedDuration {
        self.start.duration_until(self.end)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// The name of an on-call source, as the operator calls it in `config.toml` and owners use it before the slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceName(pub String);

impl fmt::Display for SourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a schedule key points at. Ids are unique per kind only: PagerDuty says that a schedule and another
/// object may share an id, so the kind is part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// One on-call schedule.
    Schedule,
    /// All levels of one escalation policy; shifts carry their level.
    EscalationPolicy,
}

/// One on-call schedule or escalation policy at one source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScheduleKey {
    /// Where it lives.
    pub source: SourceName,
    /// What the id names.
    pub kind: ScheduleKind,
    /// The provider's id.
    pub id: String,
}

impl fmt::Display for ScheduleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ScheduleKind::Schedule => write!(f, "{}/{}", self.source, self.id),
            ScheduleKind::EscalationPolicy => write!(f, "{}/escalation-policy/{}", self.source, self.id),
        }
    }
}

/// A user as an on-call provider describes one. Nothing in it is trusted beyond equality of ids.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceUser {
    /// The provider's id of the user.
    pub id: String,
    /// A name to show people, when the provider gives one.
    pub name: Option<String>,
    /// The login e-mail exactly as given; never a contact method, which the user can edit.
    pub email: Option<String>,
    /// Whether the user can be on duty at all.
    pub state: SourceUserState,
}

impl SourceUser {
    /// How to name the user to people: name and id, or the id alone.
    #[must_use]
    pub fn label(&self) -> String {
        match self.name.as_ref().or(self.email.as_ref()) {
            Some(name) => format!("{} ({})", name.escape_debug(), self.id.escape_debug()),
            None => self.id.escape_debug().to_string(),
        }
    }
}

/// Whether a provider's user still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceUserState {
    /// An ordinary user.
    Active,
    /// Deleted, deactivated or unknown to the provider's own user directory.
    Deleted,
    /// Blocked by the provider's administrators.
    Blocked,
}

/// One person's turn on a schedule, from the provider's final view, after overrides.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shift {
    /// When. Clipped to the snapshot's window.
    pub interval: Interval,
    /// Whether `interval.start()` is a real start rather than the window's edge or "always".
    pub start_known: bool,
    /// Whether `interval.end()` is a real end rather than the window's edge or "until further notice".
    pub end_known: bool,
    /// Who.
    pub user: SourceUser,
    /// The escalation level, for shifts of an escalation policy.
    pub level: Option<u32>,
    /// A standing target of an escalation policy without any schedule (PagerDuty: `schedule: null`).
    pub permanent: bool,
    /// The override that put this person on call, where the provider tells: its id or kind, for people to read.
    pub via_override: Option<String>,
}

/// All shifts of one schedule over a stated window, read completely at a stated instant.
///
/// A partial read is an error and never a smaller snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What was read.
    pub schedule: ScheduleKey,
    /// When the read began, on this host's clock. Of two snapshots the one whose read began later wins.
    pub read_at: Timestamp,
    /// The span of time about which it says everything.
    pub window: Interval,
    /// Sorted; touching and overlapping turns of one user at one level are merged.
    pub shifts: Vec<Shift>,
    /// What a person should know about the read: entries ignored, a disabled schedule, one no policy uses.
    pub notices: Vec<String>,
    /// The provider's clock minus ours in milliseconds, from the `Date` header, where it gave one.
    pub clock_offset_ms: Option<i64>,
}

/// The name of a project, unique in `access.d`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProjectName(pub String);

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An entitlement by its owner's project and its name there, written `payments/prod-admin`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntitlementId {
    /// The project that owns it.
    pub project: ProjectName,
    /// Its name in that project.
    pub name: String,
}

impl fmt::Display for EntitlementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}

impl From<EntitlementId> for String {
    fn from(id: EntitlementId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for EntitlementId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once('/') {
            Some((project, name)) if !project.is_empty() && !name.is_empty() => Ok(Self {
                project: ProjectName(project.to_owned()),
                name: name.to_owned(),
            }),
            _ => Err(format!("{text:?} is not of the form project/entitlement")),
        }
    }
}

/// What an entitlement grants, as its owner wrote it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A permission set in an AWS account.
    Assignment {
        /// Twelve digits.
        account: String,
        /// Which permission set.
        permission_set: PermissionSetRef,
    },
    /// Membership of an Identity Center group.
    Group(GroupRef),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assignment {
                account,
                permission_set,
            } => write!(f, "{permission_set} in account {account}"),
            Self::Group(group) => write!(f, "group {group}"),
        }
    }
}

/// A permission set by name or by ARN.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PermissionSetRef {
    /// Its name, unique in the instance.
    Name(String),
    /// Its ARN.
    Arn(String),
}

impl fmt::Display for PermissionSetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Name(text) | Self::Arn(text)) = self;
        f.write_str(text)
    }
}

/// An Identity Center group by display name or by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupRef {
    /// Its display name.
    Name(String),
    /// Its id in the identity store.
    Id(String),
}

impl fmt::Display for GroupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Name(text) | Self::Id(text)) = self;
        f.write_str(text)
    }
}

/// What an entitlement grants, with every name looked up: the key under which AWS knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResolvedTarget {
    /// A permission set in an AWS account.
    Assignment {
        /// Twelve digits.
        account: String,
        /// The permission set's ARN.
        permission_set_arn: String,
    },
    /// Membership of a group.
    Group {
        /// The group's id in the identity store.
        group_id: String,
    },
}

impl fmt::Display for ResolvedTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assignment {
                account,
                permission_set_arn,
            } => write!(f, "{permission_set_arn} in account {account}"),
            Self::Group { group_id } => write!(f, "group {group_id}"),
        }
    }
}

/// The id of a user in the identity store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrincipalId(pub String);

impl fmt::Display for PrincipalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in a policy file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The file's path relative to the policy directory's parent, such as `access.d/payments.toml`.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why one person should hold one entitlement for a span of time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cause {
    /// What is to be held.
    pub entitlement: EntitlementId,
    /// By whom.
    pub person: Person,
    /// From when until when, with lead and linger, cut to the prerequisites' own validity.
    pub held: Interval,
    /// The part of it that is duty: the shift, the window or the membership itself.
    pub duty: Interval,
    /// Whether `held.end()` is a known end rather than the edge of what was read.
    pub end_known: bool,
    /// What earns it.
    pub basis: Basis,
    /// The project whose rule says so.
    pub project: ProjectName,
    /// Where the rule stands.
    pub rule: Origin,
    /// Where the membership stands that the rule demanded, with who added the person.
    pub member: Option<MemberRef>,
}

/// The membership that a cause rests on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberRef {
    /// Where the `[[member]]` entry stands.
    pub origin: Origin,
    /// Who vouched.
    pub added_by: Option<Person>,
}

/// What earns a grant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Being on call.
    OnCall {
        /// On which schedule.
        schedule: ScheduleKey,
        /// As which user of the provider.
        user_id: String,
        /// At which escalation level, for policies.
        level: Option<u32>,
        /// Through which override, where the provider tells.
        via_override: Option<String>,
    },
    /// Being a member, inside a declared window.
    Window,
    /// Being a member.
    Membership,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_equal_by_ascii_case_only() {
        assert_eq!(Person::parse("Alice@Example.COM"), Person::parse("alice@example.com"));
        assert_ne!(Person::parse("alice+x@example.com"), Person::parse("alice@example.com"));
        for bad in ["", "alice", "@x", "a@", "a@b@c", " a@b", "a@b\n", "a b@c"] {
            assert!(Person::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn intervals_are_half_open_and_never_empty() {
        let t = |s: &str| s.parse::<Timestamp>().unwrap();
        let (a, b) = (t("2026-03-02T09:00:00Z"), t("2026-03-02T10:00:00Z"));
        let i = Interval::new(a, b).unwrap();
        assert!(i.contains(a) && !i.contains(b));
        assert!(Interval::new(b, a).is_none() && Interval::new(a, a).is_none());
        assert!(
            serde_json::from_str::<Interval>(r#"{"start":"2026-03-02T10:00:00Z","end":"2026-03-02T09:00:00Z"}"#)
                .is_err()
        );
        assert_eq!(
            Interval::ALWAYS.widen(SignedDuration::from_secs(1), SignedDuration::from_secs(1)),
            Interval::ALWAYS
        );
    }
}

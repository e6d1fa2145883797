//! Schedules, shifts and snapshots: what on-call providers say.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::Interval;

/// The name of an on-call source, as the operator calls it in `config.toml` and owners use it before the slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceName(pub SmolStr);

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
    pub id: SmolStr,
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
    pub id: SmolStr,
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
    /// Who; the same for all turns that one read tells of them.
    pub user: Arc<SourceUser>,
    /// The escalation level, for shifts of an escalation policy.
    pub level: Option<u32>,
    /// A standing target of an escalation policy without any schedule (PagerDuty: `schedule: null`).
    pub permanent: bool,
    /// The override that put this person on call, where the provider tells: its id or kind, for people to read.
    pub via_override: Option<SmolStr>,
}

/// All shifts of one schedule over a stated window, read completely at a stated instant.
///
/// A partial read is an error and never a smaller snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
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

//! What PagerDuty knows.

mod shift_schedule;

pub(crate) use shift_schedule::Slot;
pub use shift_schedule::{CustomShift, ShiftRotation, ShiftSchedule};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::interval::{Rotation, Span, overlay};

/// A PagerDuty account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PagerDuty {
    /// Accepted API keys.
    pub tokens: Vec<String>,
    /// OAuth clients that may ask for app tokens.
    pub oauth_clients: Vec<OauthClient>,
    /// App tokens, those issued by the token endpoint included.
    pub oauth_tokens: Vec<OauthToken>,
    /// The account's time zone, the default of `/oncalls`.
    pub time_zone: String,
    /// People, deleted ones included.
    pub users: Vec<User>,
    /// Layer-based schedules.
    pub schedules: Vec<Schedule>,
    /// Shift-based schedules (v3). An upgrade moves a schedule here under the same id.
    pub shift_schedules: Vec<ShiftSchedule>,
    /// Escalation policies.
    pub escalation_policies: Vec<EscalationPolicy>,
    /// Requests accepted per minute and credential.
    pub requests_per_minute: u32,
    /// Requests to `/oncalls` accepted per minute and credential, beside the general limit; the real number is unknown.
    pub oncalls_per_minute: Option<u32>,
    /// Whether 429 and other answers carry the `ratelimit-*` headers.
    pub rate_limit_headers: bool,
    /// What the v2 path answers for the id of a shift-based schedule.
    pub shift_schedule_on_v2_path: ShiftOnV2,
    /// Whether `/oncalls` shows people on shift-based schedules: the specification says so, the upgrade guide does not.
    pub oncalls_cover_shift_schedules: bool,
    /// Whether `/oncalls` cuts shifts at since and until; undocumented.
    pub oncalls_cut_at_window: bool,
    /// Whether the account's plan has audit trails; without them the records are refused with 402.
    pub audit_trail: bool,
    /// What was changed, by whom.
    pub audit_records: Vec<AuditRecord>,
}

impl Default for PagerDuty {
    fn default() -> Self {
        Self {
            tokens: vec!["test-key".to_owned()],
            oauth_clients: Vec::new(),
            oauth_tokens: Vec::new(),
            time_zone: "Etc/UTC".to_owned(),
            users: Vec::new(),
            schedules: Vec::new(),
            shift_schedules: Vec::new(),
            escalation_policies: Vec::new(),
            requests_per_minute: 960,
            oncalls_per_minute: None,
            rate_limit_headers: true,
            shift_schedule_on_v2_path: ShiftOnV2::BadRequest,
            oncalls_cover_shift_schedules: true,
            oncalls_cut_at_window: false,
            audit_trail: true,
            audit_records: Vec::new(),
        }
    }
}

/// A change of a schedule. How real records speak about overrides is not documented, so these say only which ids they
/// mention.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditRecord {
    /// The record's own id.
    pub id: String,
    /// Which schedule.
    pub schedule: String,
    /// When it was executed.
    pub at: Timestamp,
    /// User id; none for an API key.
    pub actor: Option<String>,
    /// `browser`, `oauth`, `api_token`, `identity_provider` or `other`.
    pub method: String,
    /// The last four characters of an API key.
    pub truncated_token: Option<String>,
    /// `create`, `update`, `delete`.
    pub action: String,
    /// Ids of overrides that were added.
    pub mentions: Vec<String>,
}

impl AuditRecord {
    /// An update in the browser.
    pub fn new(id: &str, schedule: &str, actor: &str, at: Timestamp) -> Self {
        Self {
            id: id.to_owned(),
            schedule: schedule.to_owned(),
            at,
            actor: Some(actor.to_owned()),
            method: "browser".to_owned(),
            truncated_token: None,
            action: "update".to_owned(),
            mentions: Vec::new(),
        }
    }
}

impl PagerDuty {
    /// The layer-based schedule with this id.
    pub fn schedule_mut(&mut self, id: &str) -> Option<&mut Schedule> {
        self.schedules.iter_mut().find(|schedule| schedule.id == id)
    }

    /// Makes a layer-based schedule shift-based under the same id: its rotation with the overrides becomes a rotation,
    /// its entries become custom shifts, an entry without end one of ten years. False when there is no such schedule.
    pub fn upgrade(&mut self, id: &str) -> bool {
        let Some(at) = self.schedules.iter().position(|schedule| schedule.id == id) else {
            return false;
        };
        let old = self.schedules.remove(at);
        self.shift_schedules.push(ShiftSchedule::upgraded_from(old));
        true
    }
}

/// The answer of `GET /schedules/{id}` for a shift-based schedule; the documents leave it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShiftOnV2 {
    /// 400, as documented for the opposite direction.
    BadRequest,
    /// 200 with `type: schedule_v3` and no final schedule.
    OtherShape,
}

/// An OAuth client of the client-credentials flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthClient {
    /// `client_id`.
    pub id: String,
    /// `client_secret`.
    pub secret: String,
    /// Scopes it may get, the `as_account-us.subdomain` one included; others asked for are silently left out.
    pub scopes: Vec<String>,
}

/// An app token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthToken {
    /// The token as presented after `Bearer`.
    pub token: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// From then on it is answered with 401.
    pub expires: Timestamp,
}

/// A person.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    /// `P…`.
    pub id: String,
    /// Full name.
    pub name: String,
    /// Login e-mail; `None` leaves the field out.
    pub email: Option<String>,
    /// A deleted person: bare references with `deleted_at`, 404 on `/users/{id}`.
    pub deleted_at: Option<Timestamp>,
    /// Whether the invitation is still open.
    pub invitation_sent: bool,
}

impl User {
    /// A person in good standing.
    pub fn new(id: &str, name: &str, email: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            email: Some(email.to_owned()),
            ..Self::default()
        }
    }
}

/// One shift of a layer-based schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// User id.
    pub user: String,
    /// First instant.
    pub start: Timestamp,
    /// First instant after; `None` is rendered as null.
    pub end: Option<Timestamp>,
}

/// An override: its user is on call instead of whoever else would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Override id.
    pub id: String,
    /// User id.
    pub user: String,
    /// First instant.
    pub start: Timestamp,
    /// First instant after.
    pub end: Timestamp,
}

/// A layer-based schedule: entries and a rotation make its base, overrides split it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// `P…`.
    pub id: String,
    /// Shown name.
    pub name: String,
    /// IANA or Rails-like zone name.
    pub time_zone: String,
    /// Shifts given one by one.
    pub entries: Vec<Entry>,
    /// Shifts given by rule; with a single member it is one shift without end.
    pub rotation: Option<Rotation>,
    /// Overrides, later ones on top.
    pub overrides: Vec<Override>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            time_zone: "Etc/UTC".to_owned(),
            entries: Vec::new(),
            rotation: None,
            overrides: Vec::new(),
        }
    }
}

impl Schedule {
    /// An empty schedule in UTC.
    pub fn new(id: &str, name: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Adds a shift.
    pub fn with_entry(mut self, user: &str, start: Timestamp, end: impl Into<Option<Timestamp>>) -> Self {
        self.entries.push(Entry {
            user: user.to_owned(),
            start,
            end: end.into(),
        });
        self
    }

    /// Sets the rotation.
    pub fn with_rotation(mut self, rotation: Rotation) -> Self {
        self.rotation = Some(rotation);
        self
    }

    /// Adds an override.
    pub fn override_with(&mut self, user: &str, start: Timestamp, end: Timestamp) {
        let id = format!("PO{:04}", self.overrides.len() + 1);
        self.overrides.push(Override {
            id,
            user: user.to_owned(),
            start,
            end,
        });
    }

    /// The final view: whole shifts that overlap the window, in order of start.
    pub(crate) fn final_spans(&self, since: Timestamp, until: Timestamp) -> Vec<Span<String>> {
        let mut spans: Vec<Span<String>> = self
            .entries
            .iter()
            .map(|entry| Span {
                start: entry.start,
                end: entry.end,
                what: entry.user.clone(),
            })
            .collect();
        if let Some(rotation) = &self.rotation {
            match rotation.members.as_slice() {
                [only] if rotation.turns.is_none() => {
                    spans.push(Span {
                        start: rotation.start,
                        end: None,
                        what: only.clone(),
                    });
                }
                _ => spans.extend(rotation.shifts(since, until)),
            }
        }
        spans.sort_by_key(|span| span.start);
        for over in &self.overrides {
            let top = Span {
                start: over.start,
                end: Some(over.end),
                what: over.user.clone(),
            };
            spans = overlay(spans, top);
        }
        spans.retain(|span| span.overlaps(since, until));
        spans
    }

    /// Everybody who is on the schedule at some time, in order of appearance.
    pub(crate) fn people(&self) -> Vec<String> {
        let rotation = self.rotation.iter().flat_map(|rotation| rotation.members.iter());
        let entries = self.entries.iter().map(|entry| &entry.user);
        let overrides = self.overrides.iter().map(|over| &over.user);
        let mut people: Vec<String> = Vec::new();
        for user in rotation.chain(entries).chain(overrides) {
            if !people.contains(user) {
                people.push(user.clone());
            }
        }
        people
    }
}

/// An escalation policy: levels from 1, each with targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscalationPolicy {
    /// `P…`.
    pub id: String,
    /// Shown name.
    pub name: String,
    /// The targets of level 1, 2 and so on.
    pub levels: Vec<Vec<Target>>,
}

/// Whom a level of an escalation policy reaches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Whoever is on call on this schedule.
    Schedule(
        /// Schedule id.
        String,
    ),
    /// This person, permanently: schedule, start and end are null.
    User(
        /// User id.
        String,
    ),
}

//! What Opsgenie knows.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::interval::{Rotation, Span, overlay};

/// An Opsgenie account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Opsgenie {
    /// Accepted API keys with access to everything.
    pub keys: Vec<String>,
    /// Team integration keys, which see only the schedules they name.
    pub team_keys: Vec<TeamKey>,
    /// People.
    pub users: Vec<User>,
    /// Teams and escalations, which a period may name as its recipient.
    pub groups: Vec<Group>,
    /// Schedules.
    pub schedules: Vec<Schedule>,
    /// Rate limits by domain; empty is unlimited.
    pub limits: Vec<Limit>,
    /// Whether a schedule that does not exist is answered with 403 and 40301 instead of 404.
    pub missing_schedule_is_forbidden: bool,
    /// Whether a running period is split at now into a `historical` part and the rest.
    pub split_history_at_now: bool,
}

impl Default for Opsgenie {
    fn default() -> Self {
        Self {
            keys: vec!["test-key".to_owned()],
            team_keys: Vec::new(),
            users: Vec::new(),
            groups: Vec::new(),
            schedules: Vec::new(),
            limits: Vec::new(),
            missing_schedule_is_forbidden: false,
            split_history_at_now: false,
        }
    }
}

impl Opsgenie {
    /// The schedule with this id.
    pub fn schedule_mut(&mut self, id: &str) -> Option<&mut Schedule> {
        self.schedules.iter_mut().find(|schedule| schedule.id == id)
    }
}

/// A team integration's key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamKey {
    /// The key.
    pub key: String,
    /// Ids of the schedules it may see; 403 with code 40301 for others.
    pub schedules: Vec<String>,
}

/// The rate limit of one domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// `Configuration`, `Schedule-oncalls` or `Search`.
    pub domain: String,
    /// Requests per period.
    pub limit: u32,
    /// Length of the period in seconds.
    pub period_seconds: u32,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct User {
    /// User id.
    pub id: String,
    /// The e-mail.
    pub username: String,
    /// Full name.
    pub full_name: String,
    /// Blocked by an administrator.
    pub blocked: bool,
    /// Whether the e-mail was verified.
    pub verified: bool,
}

impl Default for User {
    fn default() -> Self {
        Self {
            id: String::new(),
            username: String::new(),
            full_name: String::new(),
            blocked: false,
            verified: true,
        }
    }
}

impl User {
    /// A verified person.
    pub fn new(id: &str, full_name: &str, username: &str) -> Self {
        Self {
            id: id.to_owned(),
            username: username.to_owned(),
            full_name: full_name.to_owned(),
            ..Self::default()
        }
    }
}

/// What a recipient is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecipientKind {
    /// A person.
    User,
    /// A team; flattened by on-calls only.
    Team,
    /// An escalation; flattened by on-calls only.
    Escalation,
    /// Another schedule.
    Schedule,
    /// Nobody.
    None,
}

impl RecipientKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Team => "team",
            Self::Escalation => "escalation",
            Self::Schedule => "schedule",
            Self::None => "none",
        }
    }
}

/// Who is on call in a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// What it is.
    pub kind: RecipientKind,
    /// Its id; empty for nobody.
    #[serde(default)]
    pub id: String,
}

impl Recipient {
    /// A person by id.
    pub fn user(id: &str) -> Self {
        Self {
            kind: RecipientKind::User,
            id: id.to_owned(),
        }
    }

    /// A team by id.
    pub fn team(id: &str) -> Self {
        Self {
            kind: RecipientKind::Team,
            id: id.to_owned(),
        }
    }

    /// An escalation by id.
    pub fn escalation(id: &str) -> Self {
        Self {
            kind: RecipientKind::Escalation,
            id: id.to_owned(),
        }
    }

    /// Nobody.
    pub fn none() -> Self {
        Self {
            kind: RecipientKind::None,
            id: String::new(),
        }
    }
}

/// A team or an escalation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Which of the two.
    pub kind: RecipientKind,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whom it reaches.
    pub members: Vec<Recipient>,
}

/// One period of a rotation's final timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// First instant.
    pub start: Timestamp,
    /// First instant after.
    pub end: Timestamp,
    /// Who is on call.
    pub recipient: Recipient,
    /// `default`, `override`, `forwarding`, `historical` or anything else.
    pub kind: String,
    /// The user id that forwards to the recipient (`forwarding` only).
    #[serde(default)]
    pub from_user: Option<String>,
}

/// A rotation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleRotation {
    /// Rotation id.
    pub id: String,
    /// Shown name.
    pub name: String,
    /// Position; null where it has none.
    pub order: Option<f64>,
    /// Periods given one by one.
    pub periods: Vec<Period>,
    /// Periods given by rule, of users by id.
    pub rotation: Option<Rotation>,
    /// Whether the `periods` field is left out altogether.
    pub without_periods: bool,
}

/// An override: its user is on call instead of whoever else would be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Its alias.
    pub alias: String,
    /// Who takes over; a user or nobody.
    pub user: Recipient,
    /// First instant.
    pub start: Timestamp,
    /// First instant after.
    pub end: Timestamp,
    /// The rotations it concerns by id; empty is all.
    #[serde(default)]
    pub rotations: Vec<String>,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// Schedule id.
    pub id: String,
    /// Shown name, usable as identifier.
    pub name: String,
    /// A disabled schedule reaches nobody.
    pub enabled: bool,
    /// IANA zone name; the timeline's window snaps to days, weeks and months of this zone.
    pub time_zone: String,
    /// Rotations, all of them on call at the same time.
    pub rotations: Vec<ScheduleRotation>,
    /// Overrides, later ones on top.
    pub overrides: Vec<Override>,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            enabled: true,
            time_zone: "Etc/UTC".to_owned(),
            rotations: Vec::new(),
            overrides: Vec::new(),
        }
    }
}

impl Schedule {
    /// An enabled schedule in UTC without rotations.
    pub fn new(id: &str, name: &str) -> Self {
        Self {
            id: id.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Adds a rotation by rule.
    pub fn with_rotation(mut self, rotation: Rotation) -> Self {
        let number = self.rotations.len() + 1;
        self.rotations.push(ScheduleRotation {
            id: format!("{}-rot-{number}", self.id),
            name: format!("Rot{number}"),
            order: u8::try_from(number).ok().map(f64::from),
            rotation: Some(rotation),
            ..ScheduleRotation::default()
        });
        self
    }

    /// Adds an override of all rotations.
    pub fn override_with(&mut self, user: Recipient, start: Timestamp, end: Timestamp) {
        let alias = format!("{}-override-{}", self.id, self.overrides.len() + 1);
        self.overrides.push(Override {
            alias,
            user,
            start,
            end,
            rotations: Vec::new(),
        });
    }

    /// The final view of one rotation: whole periods that overlap the window, in order of start.
    pub(crate) fn final_spans(
        &self,
        rotation: &ScheduleRotation,
        since: Timestamp,
        until: Timestamp,
    ) -> Vec<Span<Duty>> {
        let mut spans: Vec<Span<Duty>> = rotation.base_spans(since, until);
        for over in &self.overrides {
            if over.rotations.is_empty() || over.rotations.contains(&rotation.id) {
                let what = Duty {
                    recipient: over.user.clone(),
                    kind: "override".to_owned(),
                    from_user: None,
                };
                spans = overlay(
                    spans,
                    Span {
                        start: over.start,
                        end: Some(over.end),
                        what,
                    },
                );
            }
        }
        spans.retain(|span| span.overlaps(since, until));
        spans
    }
}

impl ScheduleRotation {
    /// The periods before overrides.
    pub(crate) fn base_spans(&self, since: Timestamp, until: Timestamp) -> Vec<Span<Duty>> {
        let mut spans: Vec<Span<Duty>> = self
            .periods
            .iter()
            .map(|period| Span {
                start: period.start,
                end: Some(period.end),
                what: Duty {
                    recipient: period.recipient.clone(),
                    kind: period.kind.clone(),
                    from_user: period.from_user.clone(),
                },
            })
            .collect();
        if let Some(rotation) = &self.rotation {
            spans.extend(rotation.shifts(since, until).into_iter().map(|span| Span {
                start: span.start,
                end: span.end,
                what: Duty {
                    recipient: Recipient::user(&span.what),
                    kind: "default".to_owned(),
                    from_user: None,
                },
            }));
        }
        spans.retain(|span| span.overlaps(since, until));
        spans.sort_by_key(|span| span.start);
        spans
    }
}

/// What a period says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Duty {
    pub(crate) recipient: Recipient,
    pub(crate) kind: String,
    pub(crate) from_user: Option<String>,
}

//! Decodes `GET /v2/schedules/{id}/timeline`: who is on call when, over a window that Opsgenie rounds.

use serde::Deserialize;

use super::users::Recipient;
use crate::model::Interval;
use crate::schedule::wire::{self, DecodeError, Instant, one_line};

#[derive(Deserialize)]
struct Body {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "_parent")]
    parent: Option<Parent>,
    #[serde(rename = "startDate")]
    start: Instant,
    #[serde(rename = "endDate")]
    end: Instant,
    #[serde(rename = "finalTimeline")]
    timeline: Final,
}

#[derive(Deserialize)]
struct Parent {
    id: Option<String>,
    enabled: Option<bool>,
}

#[derive(Deserialize)]
struct Final {
    rotations: Option<Vec<Rotation>>,
}

#[derive(Deserialize)]
struct Rotation {
    #[serde(default)]
    deleted: bool,
    /// May be missing altogether, which is a rotation with nobody in it.
    periods: Option<Vec<RawPeriod>>,
}

#[derive(Deserialize)]
struct RawPeriod {
    #[serde(rename = "startDate")]
    start: Instant,
    #[serde(rename = "endDate")]
    end: Instant,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "fromUser")]
    from: Option<String>,
    recipient: Option<Recipient>,
    #[serde(rename = "flattenedRecipients")]
    flattened: Option<Vec<Recipient>>,
}

/// The final timeline of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// What it covers: from the start of a week in the schedule's own zone.
    pub covered: Interval,
    /// Whether the schedule is enabled, where the answer says so.
    pub enabled: Option<bool>,
    /// Every period in which somebody or some group is on call, of all rotations together.
    pub periods: Vec<Period>,
    /// Periods that name nobody at all.
    pub nameless: usize,
}

impl Timeline {
    /// Whether some period names a group instead of people.
    pub(super) fn has_groups(&self) -> bool {
        self.periods.iter().any(|period| matches!(period.who, Who::Group(_)))
    }
}

/// A stretch of one rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// As listed; may be reversed.
    pub start: Instant,
    /// As listed.
    pub end: Instant,
    /// Who is on call.
    pub who: Who,
    /// The override or forwarding behind it, for people to read.
    pub via_override: Option<String>,
}

/// Who is on call in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// These people.
    People(Vec<Recipient>),
    /// A team, an escalation or another schedule, whose people the timeline does not list.
    Group(Recipient),
}

/// Reads the timeline.
///
/// The type of a period is free text to us: only who receives counts. With a forwarding the recipient is on call and
/// `fromUser` is not. A recipient of a type that we do not know makes the answer unusable, because dropping it
/// could take somebody's access away.
///
/// # Errors
/// [`DecodeError`] for another schedule, an unknown type of recipient, a window that ends before it begins, and
/// everything that is not the documented form.
pub fn decode(body: &[u8], id: &str) -> Result<Timeline, DecodeError> {
    let Body { data } = wire::json(body)?;
    let parent = data.parent.unwrap_or(Parent {
        id: None,
        enabled: None,
    });
    if let Some(other) = parent.id.filter(|other| other != id) {
        return Err(DecodeError::new(&format!("another schedule ({other})")));
    }
    let covered = Interval::new(data.start.0, data.end.0)
        .ok_or_else(|| DecodeError::new("a timeline that ends before it begins"))?;
    let rotations = data
        .timeline
        .rotations
        .ok_or_else(|| DecodeError::new("a finalTimeline without rotations"))?;
    let mut timeline = Timeline {
        covered,
        enabled: parent.enabled,
        periods: Vec::new(),
        nameless: 0,
    };
    for rotation in rotations.into_iter().filter(|rotation| !rotation.deleted) {
        for period in rotation.periods.unwrap_or_default() {
            let who = match (period.recipient, period.flattened.unwrap_or_default()) {
                // The past is listed person by person, after forwarding.
                (_, flattened) if all_users(&flattened)? => Some(Who::People(flattened)),
                (Some(recipient), _) if recipient.is_user()? => Some(Who::People(vec![recipient])),
                (Some(recipient), _) if recipient.is_nobody() => None,
                (Some(recipient), _) => Some(Who::Group(recipient)),
                (None, _) => {
                    timeline.nameless += 1;
                    None
                }
            };
            if let Some(who) = who {
                timeline.periods.push(Period {
                    start: period.start,
                    end: period.end,
                    who,
                    via_override: via(period.kind.as_deref(), period.from.as_deref()),
                });
            }
        }
    }
    Ok(timeline)
}

fn all_users(recipients: &[Recipient]) -> Result<bool, DecodeError> {
    for recipient in recipients {
        if !recipient.is_user()? {
            return Ok(false);
        }
    }
    Ok(!recipients.is_empty())
}

fn via(kind: Option<&str>, from: Option<&str>) -> Option<String> {
    match (kind, from) {
        (Some("override"), _) => Some("override".to_owned()),
        (_, Some(from)) => Some(format!("forwarding from {}", one_line(from))),
        (Some("forwarding"), None) => Some("forwarding".to_owned()),
        _ => None,
    }
}

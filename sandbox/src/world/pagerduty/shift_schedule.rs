//! Shift-based schedules (v3).

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::super::interval::{Rotation, Span, overlay};
use super::{Override, Schedule};

/// A shift-based schedule: several people may be on call at once, and slots may be empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShiftSchedule {
    /// `P…`.
    pub id: String,
    /// Shown name.
    pub name: String,
    /// IANA zone name.
    pub time_zone: String,
    /// Rotations, all of them on call at the same time.
    pub rotations: Vec<ShiftRotation>,
    /// Shifts outside any rotation.
    pub custom_shifts: Vec<CustomShift>,
}

impl Default for ShiftSchedule {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            time_zone: "Etc/UTC".to_owned(),
            rotations: Vec::new(),
            custom_shifts: Vec::new(),
        }
    }
}

/// A rotation of a shift-based schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShiftRotation {
    /// Rotation id.
    pub id: String,
    /// Who takes turns; an empty member id is an empty slot.
    pub rotation: Rotation,
    /// Whether every member is on call in every turn, instead of one after the other.
    #[serde(default)]
    pub every_member: bool,
    /// Overrides of this rotation; an empty user id empties the slot.
    #[serde(default)]
    pub overrides: Vec<Override>,
}

/// A shift outside any rotation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomShift {
    /// Shift id.
    pub id: String,
    /// Who is on call, all at once; an empty id is an empty slot.
    pub members: Vec<String>,
    /// First instant.
    pub start: Timestamp,
    /// First instant after.
    pub end: Timestamp,
}

/// Where an assignment of a shift-based schedule comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Slot {
    pub(crate) member: String,
    pub(crate) source: &'static str,
    pub(crate) rotation_id: Option<String>,
    pub(crate) shift_id: Option<String>,
    pub(crate) override_id: Option<String>,
}

impl ShiftSchedule {
    /// What an upgrade makes of a layer-based schedule.
    pub(super) fn upgraded_from(old: Schedule) -> Self {
        let rotation = old.rotation.map(|rotation| ShiftRotation {
            id: format!("{}R1", old.id),
            rotation,
            every_member: false,
            overrides: old.overrides,
        });
        let ten_years = SignedDuration::from_hours(10 * 365 * 24);
        let custom_shifts = old
            .entries
            .into_iter()
            .enumerate()
            .map(|(number, entry)| CustomShift {
                id: format!("{}S{number}", old.id),
                members: vec![entry.user],
                start: entry.start,
                end: entry
                    .end
                    .unwrap_or_else(|| entry.start.saturating_add(ten_years).unwrap_or(Timestamp::MAX)),
            })
            .collect();
        Self {
            id: old.id,
            name: old.name,
            time_zone: old.time_zone,
            rotations: rotation.into_iter().collect(),
            custom_shifts,
        }
    }

    /// The final view: whole assignments that overlap the window, in order of start.
    pub(crate) fn final_spans(&self, since: Timestamp, until: Timestamp) -> Vec<Span<Slot>> {
        let mut all = Vec::new();
        for rotation in &self.rotations {
            let lanes: Vec<Rotation> = if rotation.every_member {
                let alone = |member: &String| Rotation {
                    members: vec![member.clone()],
                    ..rotation.rotation.clone()
                };
                rotation.rotation.members.iter().map(alone).collect()
            } else {
                vec![rotation.rotation.clone()]
            };
            for lane in lanes {
                let slot = |member: String| Slot {
                    member,
                    source: "schedule_rotation",
                    rotation_id: Some(rotation.id.clone()),
                    shift_id: None,
                    override_id: None,
                };
                let mut spans: Vec<Span<Slot>> = lane
                    .shifts(since, until)
                    .into_iter()
                    .map(|span| Span {
                        start: span.start,
                        end: span.end,
                        what: slot(span.what),
                    })
                    .collect();
                for over in &rotation.overrides {
                    let what = Slot {
                        source: "schedule_rotation_override",
                        override_id: Some(over.id.clone()),
                        ..slot(over.user.clone())
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
                all.extend(spans);
            }
        }
        for shift in &self.custom_shifts {
            all.extend(shift.members.iter().map(|member| Span {
                start: shift.start,
                end: Some(shift.end),
                what: Slot {
                    member: member.clone(),
                    source: "custom_shift",
                    rotation_id: None,
                    shift_id: Some(shift.id.clone()),
                    override_id: None,
                },
            }));
        }
        all.retain(|span| span.overlaps(since, until));
        all.sort_by_key(|span| span.start);
        all
    }
}

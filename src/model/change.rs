//! Who changed a schedule: what a read newly showed, and what the provider's own record tells about it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::{Interval, ScheduleKey};

/// A read that showed somebody on duty who was not on duty by the read before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// On which schedule.
    pub schedule: ScheduleKey,
    /// The last read that did not show it.
    pub unseen_at: Timestamp,
    /// The first read that did.
    pub seen_at: Timestamp,
    /// What is new.
    pub turns: Vec<NewTurn>,
}

/// A time for which somebody is newly on duty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTurn {
    /// As which user of the provider.
    pub user_id: SmolStr,
    /// When.
    pub duty: Interval,
    /// Through which override, where the provider tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via_override: Option<SmolStr>,
}

/// A change of a schedule, as the provider's audit trail has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleChange {
    /// The provider's id of the record.
    pub record: String,
    /// When it was made, by the provider's clock.
    pub at: Timestamp,
    /// By whom: names with ids, for people. Empty where the provider names nobody, as with an API key.
    pub by: Vec<Actor>,
    /// How, such as `browser` or `api_token`.
    pub method: String,
    /// The last characters of the key that was used, where the provider tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What was done, such as `update`.
    pub action: String,
    /// The ids of everything that it names.
    pub names: Vec<String>,
}

/// Somebody who changed a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The provider's id.
    pub id: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What was found out about a sighting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authorship {
    /// The changes between the two reads, the latest first; at least one.
    Changes {
        /// Those that are kept.
        latest: Vec<ScheduleChange>,
        /// How many more there were.
        more: usize,
    },
    /// Nobody knows, for this reason.
    Unknown(String),
}

/// A sighting and what was found out about it, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribution {
    /// What was seen.
    #[serde(flatten)]
    pub sighting: Sighting,
    /// By whose doing.
    pub author: Authorship,
}

//! What people are told, as values: written to the queue as they are, and put into words when they are sent.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::{Interval, Person, ProjectName};

/// Sorts of messages; a destination is told the ones it lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// To a person: you have this access, until when and why.
    Grant,
    /// To a person: you no longer have it.
    Revoke,
    /// To a project: who took over from whom, once for each hand-off and not once for each person.
    Handoff,
    /// To a project: nobody will be on call, or somebody will not get what the duty earns; once for each gap.
    Gap,
    /// To a project: a guard holds a change, and later that it no longer does.
    Held,
    /// To the operator: a source, AWS, the ledger, the clock or the configuration is in trouble, and later that it is over.
    Health,
    /// To an owner: what to look at when access is to be taken away.
    Review,
    /// To the operator: access hours of a period.
    Report,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Grant,
        Self::Revoke,
        Self::Handoff,
        Self::Gap,
        Self::Held,
        Self::Health,
        Self::Review,
        Self::Report,
    ];

    /// As written in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Revoke => "revoke",
            Self::Handoff => "handoff",
            Self::Gap => "gap",
            Self::Held => "held",
            Self::Health => "health",
            Self::Review => "review",
            Self::Report => "report",
        }
    }

    /// Whether it is for one person.
    #[must_use]
    pub fn is_personal(self) -> bool {
        matches!(self, Self::Grant | Self::Revoke | Self::Review)
    }
}

/// One message, before it is known where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What sort.
    pub kind: Kind,
    /// Names what it says: the same thing has the same key, whenever it is thought of.
    pub key: String,
    /// When what it says happened.
    pub at: Timestamp,
    /// Whose person it is for, if it is for one.
    pub person: Option<Person>,
    /// Which project it is about, if it is about one.
    pub project: Option<ProjectName>,
    /// The project's channel, where its owners name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The project's time zone, where its owners name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What it says.
    pub content: Content,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Access came, or went.
    Access(Vec<Access>),
    /// Things that are to come or begun, and things that are over.
    Matters {
        /// What is so from now on.
        begun: Vec<Matter>,
        /// What no longer is.
        over: Vec<Matter>,
    },
    /// A review.
    Review {
        /// The time looked back on.
        period: Interval,
        /// What there is to look at, by project.
        projects: Vec<Found>,
        /// The whole of it as Markdown.
        markdown: String,
    },
    /// A report on access hours.
    Report {
        /// Of this time.
        period: Interval,
        /// The whole of it, with seconds.
        report: serde_json::Value,
    },
}

/// One entitlement that somebody has or no longer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Whether it came.
    pub granted: bool,
    /// What.
    pub entitlement: String,
    /// Who.
    pub person: Person,
    /// When.
    pub at: Timestamp,
    /// Until when at the latest known; `None` is until further notice.
    pub until: Option<Timestamp>,
    /// Why, with the place of the rule.
    pub because: String,
    /// The owner's warning.
    pub context: Option<String>,
    /// Whether role sessions may outlive it.
    pub sessions: bool,
}

/// Something that begins, is to begin or is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matter {
    /// In one sentence.
    pub message: String,
    /// When it will be so; `None` is now.
    pub during: Option<Interval>,
    /// Since when it is, or was, so.
    pub since: Option<Timestamp>,
    /// What ends it, where somebody can do that.
    pub release: Option<String>,
}

/// How much there is to look at in one project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which project.
    pub project: ProjectName,
    /// What sort, and how many.
    pub findings: Vec<(String, usize)>,
}

/// A short stable name for what `parts` say.
#[must_use]
pub fn key(kind: Kind, parts: &[&str]) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    let hex: String = hash
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}-{hex}", kind.as_str())
}

//! The words of a scenario file. Unknown ones are refused.

use dutybound_sandbox::{Fault, Service};
use jiff::SignedDuration;
use serde::Deserialize;
use toml::Table;

/// A file. Times in it are seconds from the moment that a step begins.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    /// What happens, and why it matters, for a person.
    pub(super) story: String,
    /// Where the schedule is kept: `pagerduty` (alice and bob, account assignment `payments/prod-admin`) or `opsgenie`
    /// (dave and erin, membership in the group of `data/on-call`).
    pub(super) provider: Service,
    /// Whether a first good apply has been made, so that whoever is on call holds the entitlement.
    pub(super) grants: bool,
    /// How long one turn of the rotation lasts.
    #[serde(default = "eight_hours")]
    pub(super) turn: SignedDuration,
    /// So many members `engineer-01`, `engineer-02` … besides.
    #[serde(default)]
    pub(super) engineers: usize,
    /// Merged into the configuration.
    #[serde(default)]
    pub(super) config: Table,
    /// Edits of the policy file.
    #[serde(default)]
    pub(super) policy: Vec<Replacement>,
    pub(super) step: Vec<Step>,
}

fn eight_hours() -> SignedDuration {
    SignedDuration::from_hours(8)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Replacement {
    pub(super) replace: String,
    pub(super) with: String,
}

/// First the world changes, then a command runs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// What this step is about.
    pub(super) what: String,
    /// Whether the faults of earlier steps are over.
    #[serde(default)]
    pub(super) faults_end: bool,
    /// Faults in the words of the sandbox, added to those in force.
    #[serde(default)]
    pub(super) faults: Vec<Fault>,
    /// Replaces all shifts of the schedule.
    pub(super) shifts: Option<Vec<Turn>>,
    /// Overrides added to the schedule.
    #[serde(default)]
    pub(super) overrides: Vec<Turn>,
    /// Whether the provider no longer has the schedule.
    #[serde(default)]
    pub(super) schedule_deleted: bool,
    /// Merged into what the sandbox knows of AWS.
    #[serde(default)]
    pub(super) aws: Table,
    /// Merged into the configuration.
    #[serde(default)]
    pub(super) config: Table,
    /// Edits of the policy file.
    #[serde(default)]
    pub(super) policy: Vec<Replacement>,
    /// Whether the first of the shifts given last ends before the command runs.
    #[serde(default)]
    pub(super) hand_off_passes: bool,
    /// The command; `{digest}` is the digest of the last plan that was shown.
    pub(super) run: String,
    /// What must be seen.
    pub(super) see: See,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    pub(super) who: Vec<String>,
    pub(super) from: i64,
    pub(super) to: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct See {
    /// Exit code.
    pub(super) exit: i32,
    /// Words that must have been said, whatever the golden text says.
    #[serde(default)]
    pub(super) says: Vec<String>,
    /// Every attempt to change AWS, such as `CreateAccountAssignment alice AdministratorAccess`, sorted.
    pub(super) writes: Vec<String>,
    /// Who truly holds what in AWS afterwards, such as `alice AdministratorAccess`.
    pub(super) holds: Vec<String>,
    /// Intervals in the ledger, such as `alice payments/prod-admin, ended`.
    pub(super) ledger: Vec<String>,
}

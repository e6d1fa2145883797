//! An owner's consent that another project's rules grant an entitlement.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Trigger;
use crate::model::{Origin, ProjectName, ScheduleKey};

/// One entry of `delegate_to`. A rule of the other project rests on that entry, among those that allow it, which lasts
/// longest, and ends with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Delegation {
    /// Whose rules may name the entitlement.
    pub project: ProjectName,
    /// The only sort of rule; `None` is both.
    pub rules: Option<RuleKind>,
    /// The only schedules and escalation policies; `None` is any. Always together with on-call rules.
    pub schedules: Option<BTreeSet<ScheduleKey>>,
    /// The first instant at which it no longer holds.
    pub until: Option<Timestamp>,
    /// Where it stands.
    pub origin: Origin,
}

/// The sorts of rule, by what earns the entitlement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RuleKind {
    /// `on_call`
    OnCall,
    /// `members`
    Members,
}

impl Delegation {
    /// Whether a rule with this trigger may rest on it. When it ends is another matter.
    #[must_use]
    pub fn allows(&self, trigger: &Trigger) -> bool {
        let kind = match trigger {
            Trigger::OnCall(_) => RuleKind::OnCall,
            Trigger::Members { .. } => RuleKind::Members,
        };
        let schedule = match (&self.schedules, trigger) {
            (None, _) => true,
            (Some(named), Trigger::OnCall(on_call)) => named.contains(&on_call.schedule),
            (Some(_), Trigger::Members { .. }) => false,
        };
        self.rules.is_none_or(|only| only == kind) && schedule
    }

    /// The rules that it allows, such as `on-call rules in pagerduty/PABC123`.
    #[must_use]
    pub fn scope(&self) -> String {
        let rules = match (&self.rules, &self.schedules) {
            (None, None) => "any rule",
            (Some(RuleKind::Members), _) => "membership rules",
            (Some(RuleKind::OnCall), _) | (None, Some(_)) => "on-call rules",
        };
        match &self.schedules {
            None => rules.to_owned(),
            Some(named) => {
                let named: Vec<String> = named.iter().map(ToString::to_string).collect();
                format!("{rules} in {}", named.join(", "))
            }
        }
    }
}

/// The one that lasts longest among those that allow a rule of `project` with this trigger; the first of equals.
pub(super) fn longest<'a>(
    all: impl IntoIterator<Item = &'a Delegation>,
    project: &ProjectName,
    trigger: &Trigger,
) -> Option<&'a Delegation> {
    let end = |d: &Delegation| d.until.unwrap_or(Timestamp::MAX);
    all.into_iter()
        .filter(|d| d.project == *project && d.allows(trigger))
        .reduce(|longest, d| if end(longest) < end(d) { d } else { longest })
}

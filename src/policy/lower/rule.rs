//! The values of one rule: what it names, what earns it, and with which margins.

use std::{collections::BTreeSet, ops::Range};

use jiff::SignedDuration;

use super::{
    super::{
        OnCall, Rule, Trigger,
        file::{OnCallTable, RuleEntry, TextOr},
    },
    Lowering, MEMBER,
};
use crate::{
    diagnostics::Diagnostic,
    document::{At, Entry},
    model::{EntitlementId, ProjectName, ScheduleKey, ScheduleKind, SourceName},
};

/// Longer than this before or after duty is not duty any more.
const LONGEST_MARGIN: SignedDuration = SignedDuration::from_hours(24);

impl Lowering<'_> {
    pub(super) fn rule(&mut self, entry: &Entry<RuleEntry>) -> Option<Rule> {
        let at = entry.span();
        let r = &entry.value;
        let entitlement = self
            .found
            .required(r.entitlement.as_ref(), at, "[[rule]]", "entitlement", "\"prod-admin\"");
        let entitlement = entitlement.map(|at| self.named(at));
        let trigger = self.trigger(entry);
        let lead = self.margin(r.lead.as_ref());
        let linger = self.margin(r.linger.as_ref());
        let until = self.until(r.until.as_ref());
        if r.on_call.is_none() && r.members.is_some() && r.during.is_none() && !self.found.holes.explain(at, "during") {
            for (key, margin) in [("lead", &r.lead), ("linger", &r.linger)] {
                if let Some(margin) = margin {
                    let message =
                        format!("`{key}` has no meaning here: a membership does not start and end like a shift");
                    self.found
                        .error("idle-key", margin.span(), message, "remove it, or add `during`");
                }
            }
        }
        let mut member = r.on_call.is_none() || r.requires.is_none();
        let mut trainings = BTreeSet::new();
        for required in r.requires.iter().flat_map(|list| &list.value) {
            // Trainings are recorded on members, so one who completed a training is a member.
            member = true;
            if required.value != MEMBER {
                let training = self.training(&required.value, required.span());
                let mention = training.iter().map(|name| (required.span().clone(), name.clone()));
                self.mentions.trainings.extend(mention);
                trainings.extend(training);
            }
        }
        if let (Some(_), Some(requires)) = (&r.on_call, &r.requires)
            && !member
            && !self.found.holes.explain(requires.span(), "")
        {
            let message = "whoever can edit this schedule can give anybody this entitlement";
            let hint = "write requires = [\"member\"] unless that is intended";
            let warning = Diagnostic::warning("one-key", self.found.source, requires.span().clone(), message);
            self.found.report.push(warning.label("drops the second key").hint(hint));
        }
        Some(Rule {
            entitlement: entitlement?,
            trigger: trigger?,
            member,
            trainings,
            lead,
            linger,
            until,
            delegation: None,
            origin: self.origin(at),
        })
    }

    /// An own entitlement by its name, another project's with the project in front.
    fn named(&mut self, at: &At<String>) -> EntitlementId {
        let (project, name) = match at.value.split_once('/') {
            Some((project, name)) => (ProjectName(project.into()), name),
            None => (self.project.clone(), at.value.as_str()),
        };
        let id = EntitlementId {
            project,
            name: name.into(),
        };
        self.mentions.entitlements.push((at.span().clone(), id.clone()));
        id
    }

    fn trigger(&mut self, entry: &Entry<RuleEntry>) -> Option<Trigger> {
        let r = &entry.value;
        if let Some(members) = &r.members
            && !members.value
        {
            let hint = "remove it; a rule is earned by on_call = \"source/ID\" or by members = true";
            self.found
                .error("idle-key", members.span(), "`members = false` says nothing", hint);
        }
        match (&r.on_call, &r.members) {
            (Some(_), Some(members)) => {
                let hint = "make two rules of it; either then earns the entitlement";
                self.found.error(
                    "two-triggers",
                    members.span(),
                    "a rule has `on_call` or `members`, not both",
                    hint,
                );
                None
            }
            (Some(on_call), None) => {
                if let Some(during) = &r.during {
                    let message = "`during` goes with `members`: the schedule says when somebody is on call";
                    self.found.error("idle-key", during.span(), message, "remove it");
                }
                self.on_call(on_call).map(Trigger::OnCall)
            }
            (None, Some(_)) => {
                let during = match &r.during {
                    Some(during) => Some(self.during(during)?),
                    None => None,
                };
                Some(Trigger::Members { during })
            }
            (None, None) => {
                let at = entry.span();
                if !self.found.holes.explain(at, "on_call") && !self.found.holes.explain(at, "members") {
                    let hint = "add on_call = \"source/ID\" or members = true";
                    self.found.error(
                        "missing-key",
                        at,
                        "[[rule]] does not say what earns the entitlement",
                        hint,
                    );
                }
                None
            }
        }
    }

    fn on_call(&mut self, on_call: &At<TextOr<OnCallTable>>) -> Option<OnCall> {
        let table = match &on_call.value {
            TextOr::Text(text) => {
                return Some(OnCall {
                    schedule: self.schedule(text, on_call.span(), ScheduleKind::Schedule)?,
                    levels: None,
                    permanent: false,
                });
            }
            TextOr::Table(table) => table,
        };
        let schedule = self.on_call_target(table, on_call.span());
        let levels = table.levels.as_ref().map(|levels| {
            if levels.value.is_empty() && !self.found.holes.explain(levels.span(), "") {
                self.found.error(
                    "bad-level",
                    levels.span(),
                    "no level would ever count",
                    "leave `levels` out for all",
                );
            }
            for level in levels.value.iter().filter(|level| level.value == 0) {
                self.found.error("bad-level", level.span(), "levels count from 1", "");
            }
            levels.value.iter().map(|level| level.value).collect()
        });
        Some(OnCall {
            schedule: schedule?,
            levels,
            permanent: table.permanent.as_ref().is_some_and(|permanent| permanent.value),
        })
    }

    fn on_call_target(&mut self, table: &OnCallTable, at: &Range<usize>) -> Option<ScheduleKey> {
        match (&table.schedule, &table.escalation_policy) {
            (Some(schedule), None) => {
                let only_policies = [
                    ("levels", table.levels.as_ref().map(At::span)),
                    ("permanent", table.permanent.as_ref().map(At::span)),
                ];
                for (key, span) in only_policies {
                    if let Some(span) = span {
                        let message = format!("`{key}` belongs to escalation policies; a schedule has none");
                        let hint = "remove it, or write { escalation_policy = \"source/ID\", levels = [1] }";
                        self.found.error("idle-key", span, message, hint);
                    }
                }
                self.schedule(&schedule.value, schedule.span(), ScheduleKind::Schedule)
            }
            (None, Some(policy)) => self.schedule(&policy.value, policy.span(), ScheduleKind::EscalationPolicy),
            (Some(_), Some(policy)) => {
                let hint = "make two rules of it";
                self.found.error(
                    "two-triggers",
                    policy.span(),
                    "this is a schedule or an escalation policy, not both",
                    hint,
                );
                None
            }
            (None, None) => {
                if !self.found.holes.explain(at, "schedule") && !self.found.holes.explain(at, "escalation_policy") {
                    let hint = "add `schedule` or `escalation_policy`";
                    self.found.error("missing-key", at, "`on_call` names nothing", hint);
                }
                None
            }
        }
    }

    pub(super) fn schedule(&mut self, text: &str, at: &Range<usize>, kind: ScheduleKind) -> Option<ScheduleKey> {
        // Ids become parts of URLs, so nothing else is let through.
        let plain = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        match text.split_once('/') {
            Some((source, id)) if !source.is_empty() && plain(id) => {
                let key = ScheduleKey {
                    source: SourceName(source.into()),
                    kind,
                    id: id.into(),
                };
                self.mentions.schedules.push((at.clone(), key.clone()));
                Some(key)
            }
            _ => {
                let hint =
                    "write source/ID, such as pagerduty/PABC123; an id has letters, digits, dashes and underscores";
                self.found
                    .error("bad-schedule", at, "this does not name a schedule", hint);
                None
            }
        }
    }

    fn margin(&mut self, text: Option<&At<String>>) -> SignedDuration {
        text.and_then(|text| self.found.duration(text, SignedDuration::ZERO..=LONGEST_MARGIN))
            .unwrap_or_default()
    }
}

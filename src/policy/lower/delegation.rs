//! The values of one delegation: to whom, for which rules, and until when.

use std::collections::BTreeSet;

use super::{
    super::{
        Delegation, RuleKind,
        file::{DelegateTable, TextOr},
    },
    DelegationMention, Lowering,
};
use crate::{
    document::At,
    model::{EntitlementId, ProjectName, ScheduleKey, ScheduleKind},
};

impl Lowering<'_> {
    pub(super) fn delegation(&mut self, id: &EntitlementId, value: &At<TextOr<DelegateTable>>) -> Option<Delegation> {
        let at = value.span();
        let mut until_at = at.clone();
        let delegation = match &value.value {
            TextOr::Text(name) => Delegation {
                project: ProjectName(name.clone().into()),
                rules: None,
                schedules: None,
                until: None,
                origin: self.origin(at),
            },
            TextOr::Table(table) => {
                let project = self
                    .found
                    .required(table.project.as_ref(), at, "`delegate_to`", "project", "\"sre\"");
                let schedules = self.delegated_schedules(table);
                until_at = table.until.as_ref().map_or(at, At::span).clone();
                let until = self.until(table.until.as_ref());
                Delegation {
                    project: ProjectName(project?.value.clone().into()),
                    rules: table.rules.as_ref().map(|rules| rules.value),
                    schedules,
                    until,
                    origin: self.origin(at),
                }
            }
        };
        self.mentions.delegations.push(DelegationMention {
            span: at.clone(),
            until: until_at,
            entitlement: id.clone(),
            delegation: delegation.clone(),
        });
        Some(delegation)
    }

    /// `None` also where one was not understood: there is an error, and no rule is refused on top of it.
    fn delegated_schedules(&mut self, table: &DelegateTable) -> Option<BTreeSet<ScheduleKey>> {
        let lists = [
            ("schedules", &table.schedules, ScheduleKind::Schedule),
            (
                "escalation_policies",
                &table.escalation_policies,
                ScheduleKind::EscalationPolicy,
            ),
        ];
        let mut keys: Option<BTreeSet<ScheduleKey>> = None;
        let mut understood = true;
        for (key, list, kind) in lists {
            let Some(list) = list else { continue };
            if table
                .rules
                .as_ref()
                .is_some_and(|rules| rules.value == RuleKind::Members)
            {
                let message = format!("`{key}` narrows on-call rules, and only membership rules are delegated");
                self.found
                    .error("idle-key", list.span(), message, "remove one of the two keys");
            }
            if list.value.is_empty() && !self.found.holes.explain(list.span(), "") {
                let hint = "leave it out for all, or name at least one as \"source/ID\"";
                self.found
                    .error("bad-schedule", list.span(), "no rule would ever be allowed", hint);
            }
            let keys = keys.get_or_insert_default();
            for text in &list.value {
                let key = self.schedule(&text.value, text.span(), kind);
                understood &= key.is_some();
                keys.extend(key);
            }
            understood &= !list.value.is_empty() && !self.found.holes.explain(list.span(), "");
        }
        keys.filter(|_| understood)
    }
}

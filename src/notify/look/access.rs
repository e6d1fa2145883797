//! Access that came and went, gathered into one message for each person and one for each hand-off of a project.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Look;
use crate::identity_center::ChangeKind;
use crate::ledger::EndedChange;
use crate::model::{Basis, ProjectName, ResolvedTarget};
use crate::notify::message::{Access, Content, Kind, key};
use crate::notify::outbox::Event;
use crate::plan::{Change, Foresight};
use crate::text;

/// What comes to one person within this time is one message.
const TOGETHER: SignedDuration = SignedDuration::from_secs(3);
impl Look<'_> {
    pub(super) fn take_in_changes(&mut self) {
        for done in self.seen.done {
            self.batch.taken.push((done.id, done.at));
            let old = self.pace.max_age < done.at.duration_until(self.now);
            let Some(access) = access(done).filter(|_| !old && self.is_told(&done.change)) else {
                continue;
            };
            let kind = if access.granted { Kind::Grant } else { Kind::Revoke };
            let project = &done.change.entitlement.project;
            if self.routes.wants(kind) {
                let audience = format!("{}/{project}/{}", kind.as_str(), access.person);
                self.batch.events.push((audience, done.at, access.clone()));
            }
            if self.routes.wants(Kind::Handoff) {
                let audience = format!("{}/{project}", Kind::Handoff.as_str());
                self.batch.events.push((audience, done.at, access));
            }
        }
    }

    /// Windows open and close every day for many people, who know them.
    fn is_told(&self, change: &Change) -> bool {
        self.pace.windows || change.causes.is_empty() || change.causes.iter().any(|c| c.right.basis != Basis::Window)
    }

    /// What has waited long enough goes out with everything else that waits for the same audience.
    pub(super) fn tell_events(&mut self) {
        let mut waiting: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
        for event in &self.known.events {
            waiting.entry(&event.audience).or_default().push(event);
        }
        if !self.batch.events.is_empty() {
            self.wake(self.now.saturating_add(TOGETHER).unwrap_or(self.now));
        }
        for (audience, events) in waiting {
            let Some((kind, of)) = audience.split_once('/') else {
                continue;
            };
            let Some(kind) = Kind::ALL.into_iter().find(|k| k.as_str() == kind) else {
                continue;
            };
            let patience = if kind == Kind::Handoff {
                self.pace.digest
            } else {
                TOGETHER
            };
            let due = events
                .first()
                .and_then(|first| first.at.checked_add(patience).ok())
                .unwrap_or(self.now);
            if self.now < due {
                self.wake(due);
                continue;
            }
            self.batch.told_events.extend(events.iter().map(|e| e.id));
            let mut access: Vec<Access> = events.iter().map(|e| e.access.clone()).collect();
            access.sort_by(|a, b| (&a.entitlement, &a.person, a.at).cmp(&(&b.entitlement, &b.person, b.at)));
            let ids: Vec<String> = events
                .iter()
                .map(|e| format!("{} {} {}", e.at, e.access.entitlement, e.access.person))
                .collect();
            let parts: Vec<&str> = std::iter::once(audience)
                .chain(ids.iter().map(String::as_str))
                .collect();
            let person = access.first().map(|a| a.person.clone()).filter(|_| kind.is_personal());
            let project = of.split_once('/').map_or(of, |(project, _)| project);
            let project = Some(ProjectName(project.into()));
            let mut message = self.message(kind, key(kind, &parts), project, Content::Access(access));
            message.person = person;
            self.send(message);
        }
    }
}

/// What a change is to the person; `None` for somebody whom we do not know on an exclusive entitlement.
fn access(done: &EndedChange) -> Option<Access> {
    let change = &done.change;
    let granted = change.kind == ChangeKind::Grant;
    let last = change.causes.iter().max_by_key(|c| c.held.end());
    let until = last
        .filter(|c| c.end_known && c.held.end() != Timestamp::MAX)
        .map(|c| c.held.end());
    let because = match (&change.foresight, last) {
        (Foresight::Ordered(why), _) => why.clone(),
        (_, Some(cause)) => format!("{} ({})", reason(&cause.right.basis, granted), cause.right.rule),
        (_, None) => "nothing earns it any more".to_owned(),
    };
    Some(Access {
        granted,
        entitlement: change.entitlement.to_string(),
        person: change.person.clone()?,
        at: done.at,
        until,
        because,
        context: change.context.clone().map(Into::into),
        sessions: matches!(change.target, ResolvedTarget::Assignment { .. }),
    })
}

fn reason(basis: &Basis, granted: bool) -> String {
    let (on_call, window, member) = if granted {
        ("being on call in", "a membership window", "membership")
    } else {
        (
            "the turn has ended in",
            "the membership window has ended",
            "the membership has ended",
        )
    };
    match basis {
        Basis::OnCall {
            schedule,
            level,
            via_override,
            ..
        } => {
            let level = level.map(|l| format!(" level {l}")).unwrap_or_default();
            let through = via_override
                .as_ref()
                .map(|via| format!(" {}", text::through(via)))
                .unwrap_or_default();
            format!("{on_call} {schedule}{level}{through}")
        }
        Basis::Window => window.to_owned(),
        Basis::Membership => member.to_owned(),
    }
}

//! What there is to tell: the ledger's record since the last look, and what people know already. Pure.
//!
//! From the record and not from the passes: it survives a kill between the change and the message, and nobody who changes
//! access has to know that somebody is told.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::Beat;
use super::message::{Access, Content, Kind, Matter, Message, key};
use super::outbox::{Batch, Condition, Event};
use super::route::Routes;
use crate::forecast::Gap;
use crate::guard::Guard;
use crate::identity_center::ChangeKind;
use crate::ledger::{Board, EndedChange, HoldRow};
use crate::model::{Basis, ProjectName, ResolvedTarget};
use crate::plan::Change;
use crate::policy::Policy;
use crate::problem::ProblemKind;
use crate::text;

/// What comes to one person within this time is one message.
const TOGETHER: SignedDuration = SignedDuration::from_secs(3);
/// A gap that stands open is told again after this long.
const REMIND: SignedDuration = SignedDuration::from_hours(7 * 24);

/// When things are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// The hand-offs of a project within this time are one message.
    pub digest: SignedDuration,
    /// Trouble that passes sooner is not told.
    pub health_after: SignedDuration,
    /// Whether membership windows are told like being on call.
    pub windows: bool,
    /// What happened longer ago is not told any more.
    pub max_age: SignedDuration,
}

/// What a look saw.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The policy in force, for channels and zones.
    pub policy: &'a Policy,
    /// Changes done since the last look.
    pub done: &'a [EndedChange],
    /// What is held; `None` when the ledger cannot be read.
    pub record: Option<(&'a [HoldRow], &'a Board)>,
    /// Gaps ahead; `None` when they were not looked for this time.
    pub gaps: Option<&'a [Gap]>,
    /// What the daemon knows besides.
    pub beat: &'a Beat,
    /// Why the ledger cannot be read.
    pub unreadable: Option<&'a str>,
}

/// What was so at the last look.
#[derive(Debug, Default)]
pub struct Known {
    /// Conditions by subject.
    pub conditions: BTreeMap<String, Condition>,
    /// Events that wait.
    pub events: Vec<Event>,
}

/// One thing that is so now.
struct Now {
    project: Option<ProjectName>,
    matter: Matter,
}

/// Works out what is to be told. Returns also when to look again because of what waits.
#[must_use]
pub fn look(
    seen: &Seen<'_>,
    known: &Known,
    routes: &Routes,
    pace: &Pace,
    now: Timestamp,
) -> (Batch, Option<Timestamp>) {
    let mut look = Look {
        seen,
        known,
        routes,
        pace,
        now,
        batch: Batch::default(),
        again: None,
    };
    look.take_in_changes();
    look.tell_events();
    look.holds();
    look.gaps();
    look.health();
    (look.batch, look.again)
}

struct Look<'a> {
    seen: &'a Seen<'a>,
    known: &'a Known,
    routes: &'a Routes,
    pace: &'a Pace,
    now: Timestamp,
    batch: Batch,
    again: Option<Timestamp>,
}

impl Look<'_> {
    fn take_in_changes(&mut self) {
        for done in self.seen.done {
            self.batch.taken.push((done.id, done.at));
            let old = self.pace.max_age < done.at.duration_until(self.now);
            let Some(access) = access(done).filter(|_| !old && self.is_told(&done.change)) else {
                continue;
            };
            let kind = if access.granted { Kind::Grant } else { Kind::Revoke };
            if self.routes.wants(kind) {
                let audience = format!("{}/{}", kind.as_str(), access.person);
                self.batch.events.push((audience, done.at, access.clone()));
            }
            if self.routes.wants(Kind::Handoff) {
                let audience = format!("{}/{}", Kind::Handoff.as_str(), done.change.entitlement.project);
                self.batch.events.push((audience, done.at, access));
            }
        }
    }

    /// Windows open and close every day for many people, who know them.
    fn is_told(&self, change: &Change) -> bool {
        self.pace.windows || change.causes.is_empty() || change.causes.iter().any(|c| c.basis != Basis::Window)
    }

    /// What has waited long enough goes out with everything else that waits for the same audience.
    fn tell_events(&mut self) {
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
            let project = match kind {
                Kind::Handoff => Some(ProjectName(of.to_owned())),
                _ => access
                    .first()
                    .and_then(|a| a.entitlement.split_once('/'))
                    .map(|(p, _)| ProjectName(p.to_owned())),
            };
            let mut message = self.message(kind, key(kind, &parts), project, Content::Access(access));
            message.person = person;
            self.send(message);
        }
    }

    fn holds(&mut self) {
        let Some((holds, _)) = self.seen.record else { return };
        let mut now = BTreeMap::new();
        // A hand-off in progress, and what the operator himself decided, is no news.
        let ordinary = [Guard::MakeBeforeBreak, Guard::Mode, Guard::Pause];
        for hold in holds.iter().filter(|h| !ordinary.contains(&h.held.guard)) {
            let held = &hold.held;
            let verb = match held.kind {
                ChangeKind::Grant => format!("granting {} to", held.entitlement),
                ChangeKind::Revoke => format!("revoking {} from", held.entitlement),
            };
            let subject = format!(
                "held/{}/{verb} {}/{}",
                held.entitlement.project,
                held.who,
                held.guard.as_str()
            );
            let matter = Matter {
                message: format!(
                    "{verb} {} is held by {}: {}",
                    held.who,
                    held.guard.as_str(),
                    held.reason
                ),
                during: None,
                since: Some(hold.since),
                release: Some(held.release.clone()),
            };
            now.insert(
                subject,
                Now {
                    project: Some(held.entitlement.project.clone()),
                    matter,
                },
            );
        }
        self.compare(Kind::Held, now, SignedDuration::ZERO);
    }

    fn gaps(&mut self) {
        let Some(gaps) = self.seen.gaps else { return };
        let mut now = BTreeMap::new();
        for gap in gaps {
            let names: Vec<String> = gap.entitlements.iter().map(ToString::to_string).collect();
            let projects: BTreeSet<&ProjectName> = gap.entitlements.iter().map(|id| &id.project).collect();
            let start = gap.during.start();
            let more = match gap.more {
                0 => String::new(),
                n => format!(", and {n} more times"),
            };
            for project in projects {
                let schedule = gap.schedule.as_ref().map(ToString::to_string).unwrap_or_default();
                let person = gap.person.as_ref().map(ToString::to_string).unwrap_or_default();
                let subject = format!("gap/{project}/{:?}/{schedule}/{person}/{}", gap.kind, names.join(" "));
                let matter = Matter {
                    message: format!("{}{more}", gap.message),
                    during: (self.now < start).then_some(gap.during),
                    since: None,
                    release: None,
                };
                // Of several times the first speaks for all.
                now.entry(subject).or_insert(Now {
                    project: Some(project.clone()),
                    matter,
                });
            }
        }
        self.compare(Kind::Gap, now, SignedDuration::ZERO);
    }

    fn health(&mut self) {
        let mut now = BTreeMap::new();
        let mut add = |subject: String, message: String, since: Option<Timestamp>| {
            let matter = Matter {
                message,
                during: None,
                since,
                release: None,
            };
            now.insert(format!("health/{subject}"), Now { project: None, matter });
        };
        let beat = self.seen.beat;
        let own = [
            ("policy", &beat.policy_refused),
            ("configuration", &beat.config_refused),
            ("pass", &beat.pass_failed),
            ("ledger", &self.seen.unreadable.map(str::to_owned)),
        ];
        for (subject, why) in own {
            if let Some(why) = why {
                add(subject.to_owned(), why.clone(), None);
            }
        }
        match self.seen.record {
            Some((_, board)) => {
                for problem in board
                    .problems
                    .iter()
                    .filter(|p| concerns_the_operator(p.kind) && p.holds_at(self.now))
                {
                    add(
                        format!("{:?}", problem.subject()),
                        problem.message.clone(),
                        problem.since,
                    );
                }
            }
            // What cannot be seen is not over.
            None => {
                for (subject, condition) in &self.known.conditions {
                    if let Some(rest) = subject.strip_prefix("health/(") {
                        add(format!("({rest}"), condition.matter.message.clone(), None);
                    }
                }
            }
        }
        self.compare(Kind::Health, now, self.pace.health_after);
    }

    /// Tells what has been so for `patience` and was not told, and what was told and is no longer so.
    fn compare(&mut self, kind: Kind, now: BTreeMap<String, Now>, patience: SignedDuration) {
        let prefix = format!("{}/", kind.as_str());
        let mut fresh = Vec::new();
        let mut ripe = false;
        for (subject, thing) in &now {
            let known = self.known.conditions.get(subject);
            let since = known.map_or(self.now, |c| c.since);
            match known {
                Some(c) if c.told_at.is_some() && !self.reminds(kind, c, &thing.matter) => {}
                _ => {
                    ripe |= patience <= since.duration_until(self.now) || known.is_some_and(|c| c.told_at.is_some());
                    fresh.push((subject, since, thing));
                }
            }
            if known.is_none() {
                let condition = Condition {
                    since,
                    told_at: None,
                    matter: thing.matter.clone(),
                };
                self.batch.conditions.insert(subject.clone(), condition);
            }
        }
        let gone: Vec<(&String, &Condition)> = self
            .known
            .conditions
            .iter()
            .filter(|(subject, _)| subject.starts_with(&prefix) && !now.contains_key(*subject))
            .collect();
        let mut begun: BTreeMap<Option<ProjectName>, Vec<(String, Matter)>> = BTreeMap::new();
        let mut over: BTreeMap<Option<ProjectName>, Vec<(String, Matter)>> = BTreeMap::new();
        if ripe {
            for (subject, since, thing) in fresh {
                let before = self.known.conditions.get(subject).and_then(|c| c.told_at);
                let name = format!("{subject} {since} {before:?}");
                let condition = Condition {
                    since,
                    told_at: Some(self.now),
                    matter: thing.matter.clone(),
                };
                self.batch.conditions.insert(subject.clone(), condition);
                let mut matter = thing.matter.clone();
                if kind == Kind::Health && matter.since.is_none() {
                    matter.since = Some(since);
                }
                begun.entry(thing.project.clone()).or_default().push((name, matter));
            }
        } else if let Some(first) = fresh.iter().map(|(_, since, _)| *since).min() {
            self.wake(first.checked_add(patience).unwrap_or(Timestamp::MAX));
        }
        for (subject, condition) in gone {
            self.batch.over.push(subject.clone());
            // A gap that is closed needs nobody any more.
            if condition.told_at.is_some() && kind != Kind::Gap {
                let message = condition.matter.message.clone();
                let matter = Matter {
                    message,
                    during: None,
                    since: Some(condition.since),
                    release: None,
                };
                let project = subject.strip_prefix(&prefix).and_then(|rest| rest.split_once('/'));
                let project = project
                    .filter(|_| kind != Kind::Health)
                    .map(|(p, _)| ProjectName(p.to_owned()));
                over.entry(project)
                    .or_default()
                    .push((format!("{subject} {}", condition.since), matter));
            }
        }
        let projects: BTreeSet<Option<ProjectName>> = begun.keys().chain(over.keys()).cloned().collect();
        for project in projects {
            let (begun, over) = (
                begun.remove(&project).unwrap_or_default(),
                over.remove(&project).unwrap_or_default(),
            );
            let names = |things: &[(String, Matter)]| things.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            let (a, b) = (names(&begun), names(&over));
            let parts: Vec<&str> = a
                .iter()
                .map(String::as_str)
                .chain(["over"])
                .chain(b.iter().map(String::as_str))
                .collect();
            let content = Content::Matters {
                begun: begun.into_iter().map(|(_, matter)| matter).collect(),
                over: over.into_iter().map(|(_, matter)| matter).collect(),
            };
            let message = self.message(kind, key(kind, &parts), project, content);
            self.send(message);
        }
    }

    /// Whether something told is worth telling again: a gap that stays, once a week; and one that follows the one told.
    fn reminds(&self, kind: Kind, told: &Condition, matter: &Matter) -> bool {
        let Some(told_at) = told.told_at.filter(|_| kind == Kind::Gap) else {
            return false;
        };
        let follows = match (told.matter.during, matter.during) {
            // One that recurs was told as such.
            (Some(before), Some(next)) => before.end() <= next.start() && !told.matter.message.ends_with("more times"),
            _ => false,
        };
        follows || REMIND <= told_at.duration_until(self.now)
    }

    fn message(&self, kind: Kind, key: String, project: Option<ProjectName>, content: Content) -> Message {
        let place = project.as_ref().and_then(|name| self.seen.policy.projects.get(name));
        Message {
            kind,
            key,
            at: self.now,
            person: None,
            channel: place.and_then(|p| p.channel.clone()),
            zone: place.and_then(|p| p.zone.clone()),
            project,
            content,
        }
    }

    fn send(&mut self, message: Message) {
        self.batch.messages.extend(self.routes.of(&message));
    }

    fn wake(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }
}

/// Whether a problem is one of the machinery, which the operator mends, and not of somebody's qualification.
fn concerns_the_operator(kind: ProblemKind) -> bool {
    matches!(
        kind,
        ProblemKind::AwsUnavailable
            | ProblemKind::LedgerRestored
            | ProblemKind::TargetUnresolved
            | ProblemKind::ScheduleUnread
            | ProblemKind::ScheduleStale
            | ProblemKind::ScheduleFailing
            | ProblemKind::ClockSkew
            | ProblemKind::ChangeUnsettled
            | ProblemKind::ChangeFailed
            | ProblemKind::RevokeOverdue
            | ProblemKind::GrantOverdue
            | ProblemKind::PersonUnresolved
    )
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
        (crate::plan::Foresight::Ordered(why), _) => why.clone(),
        (_, Some(cause)) => format!("{} ({})", reason(&cause.basis, granted), cause.rule),
        (_, None) => "nothing earns it any more".to_owned(),
    };
    Some(Access {
        granted,
        entitlement: change.entitlement.to_string(),
        person: change.person.clone()?,
        at: done.at,
        until,
        because,
        context: change.context.clone(),
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

#[cfg(test)]
mod tests;

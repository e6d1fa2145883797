//! What is held, missing ahead or in trouble: told once when it begins, and once when it is over.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::Look;
use crate::guard::Guard;
use crate::identity_center::ChangeKind;
use crate::model::ProjectName;
use crate::notify::message::{Content, Kind, Matter, key};
use crate::notify::outbox::Condition;
use crate::problem::ProblemKind;

/// A gap that stands open is told again after this long.
const REMIND: SignedDuration = SignedDuration::from_hours(7 * 24);

/// One thing that is so now.
struct Now {
    project: Option<ProjectName>,
    matter: Matter,
}

impl Look<'_> {
    pub(super) fn holds(&mut self) {
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
                release: Some(held.release.to_string()),
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

    pub(super) fn gaps(&mut self) {
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

    pub(super) fn health(&mut self) {
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
        if !self.routes.wants(kind) {
            // Whoever is told from another day on is then told of what is so on that day.
            let forgotten = self
                .known
                .conditions
                .keys()
                .filter(|subject| subject.starts_with(&prefix));
            self.batch.over.extend(forgotten.cloned());
            return;
        }
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
                    .map(|(p, _)| ProjectName(p.into()));
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
            | ProblemKind::RestartNeeded
            | ProblemKind::PersonUnresolved
    )
}

//! `explain`: why people hold entitlements or do not, link by link, from the record and the policy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use smol_str::SmolStr;

use crate::accounting::Unheld;
use crate::config::Config;
use crate::desired::{Snapshots, Timeline};
use crate::diagnostics::did_you_mean;
use crate::identity_center::ChangeKind;
use crate::ledger::{AccessRow, DriftSummary, HoldRow, Neighbours, PolicyInForce, Restoration, TryThen};
use crate::model::{Attribution, Cause, EntitlementId, Interval, Person, ProjectName, ResolvedTarget, Target};
use crate::policy::{Policy, Rule, Trigger};
use crate::problem::{Problem, ProblemKind};

mod delay;
mod keys;
mod overrides;
mod read;
mod render;

pub use read::{Installation, Unanswered, read};

/// What a question is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// Somebody's access: to one entitlement, or to all that concern them.
    Person {
        /// Who.
        person: Person,
        /// Only this one.
        only: Option<EntitlementId>,
    },
    /// Everybody's access to an entitlement.
    Entitlement(EntitlementId),
    /// Everybody's access to the entitlements of an AWS account.
    Account(String),
}

impl About {
    /// Understands an e-mail address, an entitlement such as `payments/prod-admin`, or the twelve digits of an account.
    ///
    /// # Errors
    /// What it should have been, in words.
    pub fn parse(subject: &str, only: Option<&str>) -> Result<Self, String> {
        let entitlement = |text: &str| EntitlementId::try_from(text.to_owned());
        if subject.contains('@') {
            let person = Person::parse(subject).map_err(|error| error.to_string())?;
            let only = only.map(entitlement).transpose()?;
            return Ok(Self::Person { person, only });
        }
        if only.is_some() {
            return Err(format!(
                "an entitlement can only be added to a person, and {subject:?} is no e-mail address"
            ));
        }
        if subject.len() == 12 && subject.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Account(subject.to_owned()));
        }
        entitlement(subject).map_err(|_| {
            format!(
                "{subject:?} is neither an e-mail address, nor an entitlement such as payments/prod-admin, nor an AWS \
                 account of twelve digits"
            )
        })
        .map(Self::Entitlement)
    }
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What was asked about.
    pub about: About,
    /// The instant asked about.
    pub at: Timestamp,
    /// Said where the record of that instant is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_lost: Option<String>,
    /// Said of an instant before the record: since when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_begins: Option<Timestamp>,
    /// What the daemon followed at that instant, as far as it is on record.
    pub policy: Option<PolicyThen>,
    /// One answer for each entitlement and person, sorted.
    pub answers: Vec<Answer>,
    /// The entitlements asked about that nobody holds and nobody is kept from.
    pub nobody: Vec<Nobody>,
}

/// The policy in force at an instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyThen {
    /// Since when.
    pub since: Timestamp,
    /// Which, and the mode.
    #[serde(flatten)]
    pub policy: PolicyInForce,
    /// Whether it is the one that the rules of the answers are taken from.
    pub is_present: bool,
}

/// An entitlement without holders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nobody {
    /// Which.
    pub entitlement: EntitlementId,
    /// Who holds it next.
    pub next: Option<Arc<Cause>>,
}

/// The answer for one entitlement and person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Who.
    pub person: Person,
    /// Which entitlement.
    pub entitlement: EntitlementId,
    /// What it is in AWS, in the owner's words.
    pub target: String,
    /// Whether the record says that the person held it at that instant.
    pub holds: bool,
    /// Who consents to it.
    pub owners: Vec<Person>,
    /// The owners of the projects above, the nearest first, who own it too.
    pub owners_above: Vec<(ProjectName, Vec<Person>)>,
    /// The owner's warning.
    pub context: Option<SmolStr>,
    /// The interval of access on record.
    pub access: Option<AccessRow>,
    /// Since when no cause calls for it any more, where it stands all the same; the obstacles say why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlived: Option<Timestamp>,
    /// Where none is: the intervals on record before and after that instant.
    pub neighbours: Neighbours,
    /// What earns it at that instant.
    pub causes: Vec<Arc<Cause>>,
    /// The overrides among what earns or earned it, each with who made it, or why nobody knows.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub overrides: BTreeSet<String>,
    /// Other edits of its schedules that a read newly showed, with who made them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub edits: BTreeSet<String>,
    /// Every rule that could earn it, with the state of each key.
    pub rules: Vec<RuleState>,
    /// What keeps it from being in force or, where it is held, what keeps it from ending.
    pub obstacles: Vec<String>,
    /// The next time at which the person is due to hold it.
    pub next: Option<Arc<Cause>>,
}

/// How one rule stands for the person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleState {
    /// `file:line`
    pub rule: String,
    /// What earns the entitlement by it.
    pub earned_by: String,
    /// Each key that it demands, and whether the person has it.
    pub keys: Vec<KeyState>,
}

/// One key of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyState {
    /// Which key, in words.
    pub key: String,
    /// Whether the person has it.
    pub met: bool,
}

/// What the answer is made from.
pub struct Sources<'a> {
    /// Configuration.
    pub config: &'a Config,
    /// Policy.
    pub policy: &'a Policy,
    /// The last complete reads.
    pub snapshots: &'a Snapshots,
    /// Access on record around the instant, to everything that the question can be about.
    pub access: &'a [AccessRow],
    /// What guards held at that instant.
    pub holds: &'a [HoldRow],
    /// What had been asked of AWS by that instant, where it is over, and was not in force.
    pub tries: &'a [TryThen],
    /// Duty without access at that instant.
    pub unheld: &'a [Unheld],
    /// Problems that the last pass saw.
    pub problems: &'a [Problem],
    /// Who held what without dutybound when the last pass looked.
    pub drift: &'a [DriftSummary],
    /// Who changed the schedules, as far as it was found out.
    pub attributions: &'a [Attribution],
    /// The times that the ledger turned out to be an older copy.
    pub restorations: &'a [Restoration],
    /// Since when there is a record.
    pub record_begins: Option<Timestamp>,
    /// The policy in force at that instant, by the record.
    pub policy_then: Option<(Timestamp, PolicyInForce)>,
    /// The time now.
    pub now: Timestamp,
}

/// A question, with what it concerns.
pub struct Question<'a> {
    sources: &'a Sources<'a>,
    about: About,
    at: Timestamp,
    timeline: Timeline,
    entitlements: BTreeSet<EntitlementId>,
    concerned: BTreeSet<(EntitlementId, Person)>,
}

impl<'a> Question<'a> {
    /// Finds out whom and which entitlements a question concerns, among those that it can be about at all.
    #[must_use]
    pub fn new(sources: &'a Sources<'a>, about: About, among: &BTreeSet<EntitlementId>, at: Timestamp) -> Self {
        let horizon = at.checked_add(sources.config.timing.horizon).unwrap_or(Timestamp::MAX);
        let range = Interval::new(at, horizon).unwrap_or(Interval::ALWAYS);
        let identities = &sources.config.identities;
        let timeline = Timeline::of_some(sources.policy, sources.snapshots, identities, range, |id| {
            among.contains(id)
        });
        let mut question = Self {
            sources,
            about,
            at,
            timeline,
            entitlements: BTreeSet::new(),
            concerned: BTreeSet::new(),
        };
        match question.about.clone() {
            About::Person { person, only: Some(id) } => question.concerned = BTreeSet::from([(id, person)]),
            About::Person { person, only: None } => {
                let concerning = question.concerning(&person).into_iter();
                question.concerned = concerning.map(|id| (id, person.clone())).collect();
            }
            About::Entitlement(id) => question.everybody(BTreeSet::from([id])),
            About::Account(account) => question.everybody(in_account(sources, &account)),
        }
        question
    }

    /// Each entitlement and person that is answered for: where nothing is held, the record before and after is wanted.
    #[must_use]
    pub fn concerned(&self) -> &BTreeSet<(EntitlementId, Person)> {
        &self.concerned
    }

    /// Entitlements that the person holds, is due to hold, or would with one key more.
    fn concerning(&self, person: &Person) -> BTreeSet<EntitlementId> {
        let (sources, timeline) = (self.sources, &self.timeline);
        let held = sources
            .access
            .iter()
            .filter(|a| a.person == *person && held_at(a, self.at))
            .map(|a| &a.entitlement);
        let due = timeline
            .causes
            .iter()
            .filter(|c| c.person == *person)
            .map(|c| &c.right.entitlement);
        let short = timeline
            .problems
            .iter()
            .filter(|p| p.person.as_ref() == Some(person))
            .filter_map(|p| p.entitlement.as_ref());
        let member = sources
            .policy
            .projects
            .values()
            .filter(|p| p.members.contains_key(person))
            .flat_map(|p| p.rules.iter().map(|r| &r.entitlement));
        let unheld = sources.unheld.iter().filter(|u| u.person == *person);
        let unheld = unheld.filter(|u| delay::lasted_at(u, self.at)).map(|u| &u.entitlement);
        held.chain(due)
            .chain(short)
            .chain(member)
            .chain(unheld)
            .cloned()
            .collect()
    }

    /// Everybody who holds one of these at that instant, is due to, or is kept from it.
    fn everybody(&mut self, entitlements: BTreeSet<EntitlementId>) {
        let (at, sources) = (self.at, self.sources);
        let held = sources.access.iter().filter(|a| held_at(a, at));
        let held = held.map(|a| (a.entitlement.clone(), a.person.clone()));
        let due = self.timeline.causes.iter().filter(|c| c.held.contains(at));
        let due = due.map(|c| (c.right.entitlement.clone(), c.person.clone()));
        let short = self.timeline.problems.iter().chain(sources.problems);
        let short = short
            .filter(|p| p.holds_at(at))
            .filter_map(|p| Some((p.entitlement.clone()?, p.person.clone()?)));
        let kept = sources.holds.iter().filter_map(|hold| {
            let person = Person::parse(&hold.held.who).ok()?;
            Some((hold.held.entitlement.clone(), person))
        });
        let unheld = sources.unheld.iter().filter(|u| delay::lasted_at(u, at));
        let unheld = unheld.map(|u| (u.entitlement.clone(), u.person.clone()));
        self.concerned = held
            .chain(due)
            .chain(unheld)
            .chain(short)
            .chain(kept)
            .filter(|(id, _)| entitlements.contains(id))
            .collect();
        self.entitlements = entitlements;
    }

    /// Whether the question names an entitlement that neither the policy nor the record of that instant has; then what
    /// it may have meant.
    #[must_use]
    pub fn unknown_entitlement(&self) -> Option<String> {
        let About::Entitlement(id) = &self.about else {
            return None;
        };
        if self.sources.policy.entitlement(id).is_some() || !self.concerned.is_empty() {
            return None;
        }
        let known: Vec<String> = self.sources.policy.entitlements().map(|e| e.id.to_string()).collect();
        let hint = did_you_mean(&id.to_string(), known.iter().map(String::as_str));
        Some(format!(
            "neither the policy nor the record of that time has an entitlement {id}; {}",
            hint.unwrap_or_else(|| "the policy files name those that there are".to_owned())
        ))
    }

    /// The answer, given the record around that instant of everything concerned.
    #[must_use]
    pub fn answer(&self, mut neighbours: BTreeMap<(EntitlementId, Person), Neighbours>) -> Explanation {
        let answers: Vec<Answer> = self
            .concerned
            .iter()
            .map(|key| Answer {
                neighbours: neighbours.remove(key).unwrap_or_default(),
                ..answer(self.sources, &self.timeline, &key.1, &key.0, self.at)
            })
            .collect();
        let answered: BTreeSet<&EntitlementId> = answers.iter().map(|answer| &answer.entitlement).collect();
        let nobody = self.entitlements.iter().filter(|id| !answered.contains(id));
        let nobody = nobody
            .map(|id| Nobody {
                entitlement: id.clone(),
                next: self
                    .timeline
                    .causes
                    .iter()
                    .filter(|c| c.right.entitlement == *id && self.at < c.held.start())
                    .min_by_key(|c| c.held.start())
                    .cloned(),
            })
            .collect();
        let policy = self.sources.policy_then.clone().map(|(since, policy)| PolicyThen {
            since,
            is_present: policy.revision == self.sources.policy.revision,
            policy,
        });
        Explanation {
            about: self.about.clone(),
            at: self.at,
            record_begins: self.sources.record_begins.filter(|begins| self.at < *begins),
            record_lost: self.sources.restorations.iter().find_map(|r| r.lost_at(self.at)),
            policy,
            answers,
            nobody,
        }
    }
}

/// The entitlements that are something in this account, by the policy or by the record of that instant.
fn in_account(sources: &Sources<'_>, wanted: &str) -> BTreeSet<EntitlementId> {
    let policy = sources.policy.entitlements();
    let policy = policy.filter(|e| matches!(&e.target, Target::Assignment { account, .. } if account == wanted));
    let record = sources.access.iter();
    let record =
        record.filter(|a| matches!(&a.target, ResolvedTarget::Assignment { account, .. } if account == wanted));
    policy
        .map(|e| e.id.clone())
        .chain(record.map(|a| a.entitlement.clone()))
        .collect()
}

fn held_at(access: &AccessRow, at: Timestamp) -> bool {
    access.granted_at <= at && access.revoked_at.is_none_or(|end| at < end)
}

fn answer(sources: &Sources<'_>, timeline: &Timeline, person: &Person, id: &EntitlementId, at: Timestamp) -> Answer {
    let project = sources.policy.projects.get(&id.project);
    let entitlement = sources.policy.entitlement(id);
    let access = sources
        .access
        .iter()
        .find(|a| a.person == *person && a.entitlement == *id && held_at(a, at))
        .cloned();
    let mine: Vec<_> = timeline
        .causes
        .iter()
        .filter(|c| c.person == *person && c.right.entitlement == *id)
        .collect();
    let causes: Vec<Arc<Cause>> = mine
        .iter()
        .filter(|c| c.held.contains(at))
        .map(|c| (*c).clone())
        .collect();
    let next = mine
        .iter()
        .filter(|c| at < c.held.start())
        .min_by_key(|c| c.held.start())
        .map(|c| (*c).clone());
    let rules = sources
        .policy
        .projects
        .values()
        .flat_map(|p| p.rules.iter().map(move |r| (p, r)))
        .filter(|(_, rule)| rule.entitlement == *id)
        .map(|(p, rule)| {
            let read = schedule_read(sources, rule);
            keys::state(p, rule, &causes, person, at, read)
        })
        .collect();
    let holds = access.is_some();
    // Of any time before, the record tells what was so then; the last pass tells what is so now.
    let ahead = sources.now.duration_until(at);
    let present = -SignedDuration::from_secs(1) < ahead && ahead < SignedDuration::from_mins(1);
    let mut obstacles = Vec::new();
    if entitlement.is_none() {
        obstacles.push(format!(
            "the policy has no entitlement {id}; the policy files name those that there are"
        ));
    }
    if !holds {
        if causes.is_empty()
            && at <= sources.now
            && sources
                .policy
                .projects
                .values()
                .all(|p| p.rules.iter().all(|r| r.entitlement != *id))
        {
            obstacles.push("no rule grants it to anybody".to_owned());
        }
        let here = |p: &&Problem| p.entitlement.as_ref().is_none_or(|e| e == id) && p.person.as_ref() == Some(person);
        let nameless = |p: &&Problem| {
            let about_all = p.entitlement.as_ref() == Some(id) || p.kind == ProblemKind::AwsUnavailable;
            about_all && p.person.is_none() && p.holds_at(at)
        };
        // The last pass recorded much of what the timeline shows, with other times in the words.
        let known: BTreeSet<_> = timeline.problems.iter().map(Problem::subject).collect();
        let recorded = sources
            .problems
            .iter()
            .filter(|p| p.holds_at(at) && !known.contains(&p.subject()));
        let recorded = recorded.filter(|_| present);
        let seen: BTreeSet<String> = timeline
            .problems
            .iter()
            .chain(recorded)
            .filter(|p| here(p) || nameless(p))
            .map(ToString::to_string)
            .collect();
        obstacles.extend(seen);
        let name = person.to_string();
        let mut strangers = sources.drift.iter().filter(|_| present);
        if strangers.any(|drift| drift.entitlement == *id && drift.holder == name) {
            obstacles.push(format!(
                "{person} holds it in AWS all the same, not through dutybound, which leaves it alone"
            ));
        }
        obstacles.extend(delay::held(sources, ChangeKind::Grant, person, id));
        let without = delay::without_access(sources, person, id, at);
        if !present {
            obstacles.extend(without);
            obstacles.extend(delay::tried(sources, ChangeKind::Grant, person, id));
        } else if obstacles.is_empty() {
            obstacles.extend(without);
        }
        if !causes.is_empty() && obstacles.is_empty() {
            obstacles.push(if sources.now < at {
                "that time has not come; the grant will be made then".to_owned()
            } else if sources.config.mode == crate::config::Mode::Observe {
                "mode is observe, so nothing is granted".to_owned()
            } else if !present {
                "duty called for it by what is known today, and no grant was on record then".to_owned()
            } else {
                "no confirmed grant is on record; the daemon's next pass makes it (is it running?)".to_owned()
            });
        }
    }
    let pending = |p: &&Problem| {
        let tried = matches!(p.kind, ProblemKind::ChangeUnsettled | ProblemKind::ChangeFailed) || p.kind.is_overdue();
        // A statement may speak about several entitlements at once.
        let about = |p: &Problem| match &p.invariant {
            Some(name) => {
                let mut all = sources.policy.invariants.iter();
                all.any(|invariant| invariant.id() == *name && invariant.is_about(id))
            }
            None => tried && p.entitlement.as_ref() == Some(id),
        };
        about(p) && p.person.as_ref() == Some(person)
    };
    let pending = sources.problems.iter().filter(pending).filter(|_| holds && present);
    let pending: Vec<String> = pending.map(ToString::to_string).collect();
    let outlived = access.as_ref().filter(|_| causes.is_empty());
    let outlived = outlived.and_then(|access| delay::outlived(sources, access, at));
    match (&access, outlived) {
        (Some(access), Some(since)) => {
            obstacles.extend(delay::why_it_stands(
                sources, timeline, access, since, at, present, pending,
            ));
        }
        _ => obstacles.extend(pending),
    }
    let recorded = access.iter().flat_map(|access| &access.causes);
    let out_of_turn = overrides::made(
        sources,
        causes.iter().map(AsRef::as_ref).chain(recorded.map(|r| &r.cause)),
    );
    Answer {
        person: person.clone(),
        entitlement: id.clone(),
        target: entitlement.map(|e| e.target.to_string()).unwrap_or_default(),
        holds,
        owners: project.map(|p| p.owners.clone()).unwrap_or_default(),
        owners_above: sources
            .policy
            .lineage(&id.project)
            .skip(1)
            .map(|p| (p.name.clone(), p.owners.clone()))
            .collect(),
        context: project.and_then(|p| p.context.clone()),
        access,
        outlived,
        neighbours: Neighbours::default(),
        causes,
        overrides: out_of_turn.overrides,
        edits: out_of_turn.edits,
        rules,
        obstacles,
        next,
    }
}

/// What of a rule's schedule is known: the span of its last complete read. `None` for rules without one.
fn schedule_read(sources: &Sources<'_>, rule: &Rule) -> Option<Interval> {
    let Trigger::OnCall(on_call) = &rule.trigger else {
        return None;
    };
    let nothing = Interval::new(Timestamp::MIN, Timestamp::MIN + SignedDuration::from_nanos(1));
    let read = sources.snapshots.get(&on_call.schedule).map(|snapshot| snapshot.window);
    read.or(nothing)
}

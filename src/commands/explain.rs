//! `explain`: why a person holds an entitlement or does not, link by link, from the record and the policy.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::config::Config;
use crate::desired::{Snapshots, Timeline};
use crate::layout::wrap;
use crate::ledger::{AccessRow, HoldRow, Restoration};
use crate::model::{Cause, EntitlementId, Interval, Person, ProjectName};
use crate::policy::{Member, Policy, Project, Rule, Trigger};
use crate::problem::{Problem, ProblemKind};
use crate::text::{cause, clean, instant, span};

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Who was asked about.
    pub person: Person,
    /// The instant asked about.
    pub at: Timestamp,
    /// Said where the record of that instant is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_lost: Option<String>,
    /// One answer for each entitlement, sorted.
    pub entitlements: Vec<Answer>,
}

/// The answer for one entitlement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
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
    pub context: Option<String>,
    /// The interval of access on record.
    pub access: Option<AccessRow>,
    /// What earns it at that instant.
    pub causes: Vec<Cause>,
    /// Every rule that could earn it, with the state of each key.
    pub rules: Vec<RuleState>,
    /// What keeps it from being in force or, where it is held, what keeps it from ending.
    pub obstacles: Vec<String>,
    /// The next time at which the person is due to hold it.
    pub next: Option<Cause>,
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
    /// Access on record around the instant.
    pub access: &'a [AccessRow],
    /// What guards hold at present.
    pub holds: &'a [HoldRow],
    /// Problems that the last pass saw.
    pub problems: &'a [Problem],
    /// The times that the ledger turned out to be an older copy.
    pub restorations: &'a [Restoration],
    /// The time now.
    pub now: Timestamp,
}

/// Answers for one entitlement, or for all that concern the person.
#[must_use]
pub fn explain(sources: &Sources<'_>, person: &Person, only: Option<&EntitlementId>, at: Timestamp) -> Explanation {
    let horizon = at.checked_add(sources.config.timing.horizon).unwrap_or(Timestamp::MAX);
    let range = Interval::new(at, horizon).unwrap_or(Interval::ALWAYS);
    let timeline = Timeline::build(sources.policy, sources.snapshots, &sources.config.identities, range);
    let concerned = match only {
        Some(id) => BTreeSet::from([id.clone()]),
        None => concerned(sources, &timeline, person, at),
    };
    let entitlements = concerned
        .iter()
        .map(|id| answer(sources, &timeline, person, id, at))
        .collect();
    Explanation {
        person: person.clone(),
        at,
        record_lost: sources.restorations.iter().find_map(|r| r.lost_at(at)),
        entitlements,
    }
}

/// Entitlements that the person holds, is due to hold, or would with one key more.
fn concerned(sources: &Sources<'_>, timeline: &Timeline, person: &Person, at: Timestamp) -> BTreeSet<EntitlementId> {
    let held = sources
        .access
        .iter()
        .filter(|a| a.person == *person && held_at(a, at))
        .map(|a| &a.entitlement);
    let due = timeline
        .causes
        .iter()
        .filter(|c| c.person == *person)
        .map(|c| &c.entitlement);
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
    held.chain(due).chain(short).chain(member).cloned().collect()
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
        .filter(|c| c.person == *person && c.entitlement == *id)
        .collect();
    let causes: Vec<Cause> = mine
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
        .map(|(p, rule)| state(p, rule, &causes, person, at))
        .collect();
    let holds = access.is_some();
    let mut obstacles = Vec::new();
    if entitlement.is_none() {
        obstacles.push(format!(
            "the policy has no entitlement {id}; `dutybound check` lists what it has"
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
        let seen: BTreeSet<String> = timeline
            .problems
            .iter()
            .chain(recorded)
            .filter(|p| here(p) || nameless(p))
            .map(ToString::to_string)
            .collect();
        obstacles.extend(seen);
        let now_ish = (sources.now.duration_until(at)).abs() < SignedDuration::from_mins(1);
        for hold in sources
            .holds
            .iter()
            .filter(|h| now_ish && h.held.entitlement == *id && h.held.who == person.as_str())
        {
            obstacles.push(format!(
                "held by guard {} since {}: {}; released by {}",
                hold.held.guard,
                instant(hold.since),
                hold.held.reason,
                hold.held.release
            ));
        }
        if !causes.is_empty() && obstacles.is_empty() {
            obstacles.push(if sources.now < at {
                "that time has not come; the grant will be made then".to_owned()
            } else if sources.config.mode == crate::config::Mode::Observe {
                "mode is observe, so nothing is granted".to_owned()
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
    if holds {
        let pending = sources.problems.iter().filter(pending);
        obstacles.extend(pending.map(ToString::to_string));
    }
    Answer {
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
        causes,
        rules,
        obstacles,
        next,
    }
}

fn state(project: &Project, rule: &Rule, causes: &[Cause], person: &Person, at: Timestamp) -> RuleState {
    let by_this_rule = causes.iter().find(|c| c.rule == rule.origin);
    let member = project.members.get(person);
    let mut keys = Vec::new();
    let earned_by = match &rule.trigger {
        Trigger::OnCall(on_call) => {
            let levels = on_call
                .levels
                .as_ref()
                .map(|l| format!(" at level {l:?}"))
                .unwrap_or_default();
            format!("being on call in {}{levels}", on_call.schedule)
        }
        Trigger::Members { during: None } => format!("being a member of {}", project.name),
        Trigger::Members { during: Some(_) } => format!("being a member of {} inside the rule's window", project.name),
    };
    if let Some(delegation) = &rule.delegation {
        let until = delegation
            .until
            .map(|u| format!(" until {}", instant(u)))
            .unwrap_or_default();
        keys.push(KeyState {
            key: format!(
                "delegated to {} for {}{until} ({})",
                delegation.project,
                delegation.scope(),
                delegation.origin
            ),
            met: delegation.until.is_none_or(|until| at < until),
        });
    }
    // Whether duty itself is there shows in the causes only when every other key is met as well.
    if let Some(cause_found) = by_this_rule {
        keys.push(KeyState {
            key: format!("on duty: {}", cause(cause_found)),
            met: true,
        });
    }
    if rule.member || !rule.trainings.is_empty() {
        let (key, met) = match member {
            None => (format!("not a member of {}", project.name), false),
            Some(member) => {
                let by = member
                    .added_by
                    .as_ref()
                    .map(|p| format!(", added by {p}"))
                    .unwrap_or_default();
                let since = member
                    .since
                    .map(|s| format!(", since {}", instant(s)))
                    .unwrap_or_default();
                let until = member
                    .until
                    .map(|u| format!(", until {}", instant(u)))
                    .unwrap_or_default();
                (
                    format!("member of {} ({}{by}{since}{until})", project.name, member.origin),
                    member.holds_at(at),
                )
            }
        };
        keys.push(KeyState { key, met });
        for training in &rule.trainings {
            keys.push(trained(member, training, at));
        }
    }
    if by_this_rule.is_none() && keys.iter().all(|k| k.met) {
        keys.push(KeyState {
            key: "not on duty at that time".to_owned(),
            met: false,
        });
    }
    RuleState {
        rule: rule.origin.to_string(),
        earned_by,
        keys,
    }
}

/// Whether a training counts at that instant, by the completion that then counts or else the one that lasts longest.
fn trained(member: Option<&Member>, training: &str, at: Timestamp) -> KeyState {
    let all = member.and_then(|m| m.completed.get(training)).into_iter().flatten();
    let best = all.max_by_key(|c| (c.valid.contains(at), c.valid.end()));
    let Some(best) = best else {
        let key = format!("completed {training:?}");
        return KeyState { key, met: false };
    };
    let bound = |word: &str, t: Timestamp, open: Timestamp| match t {
        t if t == open => String::new(),
        t => format!(", {word} {}", instant(t)),
    };
    let since = bound("since", best.valid.start(), Timestamp::MIN);
    let until = bound("until", best.valid.end(), Timestamp::MAX);
    KeyState {
        key: format!("completed {training:?} ({}{since}{until})", best.origin),
        met: best.valid.contains(at),
    }
}

impl Explanation {
    /// Whether the person holds any of the entitlements explained.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.entitlements.iter().any(|a| a.holds)
    }

    /// As text for a terminal of that width.
    #[must_use]
    pub fn text(&self, width: Option<usize>) -> String {
        let mut out = String::new();
        self.write(&mut out).unwrap_or_default();
        wrap(&out, width)
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        if let Some(lost) = &self.record_lost {
            writeln!(out, "NOTE  {}", clean(lost))?;
        }
        if self.entitlements.is_empty() {
            return writeln!(
                out,
                "{} holds nothing at {}, and no rule of the policy concerns them.",
                self.person,
                instant(self.at)
            );
        }
        for answer in &self.entitlements {
            let verb = if answer.holds { "holds" } else { "does not hold" };
            writeln!(
                out,
                "{} {verb} {} at {}",
                self.person,
                answer.entitlement,
                instant(self.at)
            )?;
            if !answer.target.is_empty() {
                writeln!(out, "  what      {}", clean(&answer.target))?;
            }
            if let Some(context) = &answer.context {
                writeln!(out, "  context   {}", clean(context.trim()))?;
            }
            if !answer.owners.is_empty() {
                let owners: Vec<_> = answer.owners.iter().map(Person::as_str).collect();
                writeln!(
                    out,
                    "  consent   {} (owners of {})",
                    owners.join(", "),
                    answer.entitlement.project
                )?;
            }
            if !answer.owners_above.is_empty() {
                let above: Vec<_> = answer
                    .owners_above
                    .iter()
                    .flat_map(|(project, owners)| owners.iter().map(move |owner| format!("{owner} ({project})")))
                    .collect();
                writeln!(out, "  above     {}", above.join(", "))?;
            }
            if let Some(access) = &answer.access {
                let reference = access
                    .grant_reference
                    .as_ref()
                    .map(|r| format!(", AWS reference {}", clean(r)))
                    .unwrap_or_default();
                writeln!(out, "  confirmed {}{reference}", instant(access.granted_at))?;
                for recorded in access
                    .causes
                    .iter()
                    .filter(|c| c.ended_at.is_none() || answer.causes.is_empty())
                {
                    writeln!(out, "  because   {}", cause(&recorded.cause))?;
                }
            } else {
                for earned in &answer.causes {
                    writeln!(out, "  earned    {}", cause(earned))?;
                }
            }
            for rule in &answer.rules {
                writeln!(out, "  rule      {}: earned by {}", rule.rule, rule.earned_by)?;
                for key in &rule.keys {
                    writeln!(
                        out,
                        "            {} {}",
                        if key.met { "[x]" } else { "[ ]" },
                        clean(&key.key)
                    )?;
                }
            }
            for obstacle in &answer.obstacles {
                let word = if answer.holds { "pending " } else { "obstacle" };
                writeln!(out, "  {word}  {}", clean(obstacle))?;
            }
            if let Some(next) = &answer.next {
                writeln!(
                    out,
                    "  next      in {} from then, at {}: {}",
                    span(self.at.duration_until(next.held.start())),
                    instant(next.held.start()),
                    cause(next)
                )?;
            }
        }
        Ok(())
    }
}

//! Statements speak about what is there and theirs, leave room for hand-offs, and are not broken by the rules themselves.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};

use super::{Draft, World};
use crate::{
    diagnostics::{Diagnostic, Report, did_you_mean, nearest},
    document::{At, Entry},
    invariant::{Condition, Invariant, Written},
    model::{EntitlementId, Interval, Person, ProjectName, spans::merged},
    policy::{CronWindow, Entitlement, Member, Rule, Trigger, file::RuleEntry},
    text::span,
};

/// How far ahead windows are looked at, to find the longest.
const AHEAD: SignedDuration = SignedDuration::from_hours(35 * 24);

impl<'a> World<'a> {
    fn statements(&self) -> impl Iterator<Item = &'a Written> {
        let own = self.drafts.iter().flat_map(|draft| &draft.invariants);
        self.context.invariants.iter().chain(own)
    }

    /// Whether the entitlement is there; `None` where some other mistake prevents an answer.
    fn knows(&self, id: &EntitlementId) -> Option<bool> {
        match self.by_name.get(id.project.0.as_str()) {
            None => self.complete.then_some(false),
            Some(owner) if owner.entitlement_names().any(|name| name.value == id.name) => Some(true),
            Some(owner) => (!owner.has_nameless_entitlement()).then_some(false),
        }
    }

    /// Whether the project is the one that states something, or stands below it.
    fn is_within(&self, name: &ProjectName, stated_by: Option<&ProjectName>) -> bool {
        let (Some(stated_by), Some(draft)) = (stated_by, self.by_name.get(name.0.as_str())) else {
            return stated_by.is_none();
        };
        self.lineage(draft).iter().any(|above| above.name == *stated_by)
    }

    /// What a statement speaks about.
    fn covered(&self, invariant: &Invariant) -> Vec<(&'a Draft, &'a Entitlement)> {
        let all = self
            .drafts
            .iter()
            .flat_map(|d| d.entitlements.iter().flatten().map(move |e| (d, e)));
        let about = |(draft, e): &(&Draft, &Entitlement)| match &invariant.listed {
            Some(listed) => listed.contains(&e.id),
            None => self.is_within(&draft.name, invariant.project.as_ref()),
        };
        all.filter(about).collect()
    }

    /// The rules that grant any of these.
    fn granting(&self, ids: &BTreeSet<&EntitlementId>) -> Vec<Granting<'a>> {
        let rules = self
            .drafts
            .iter()
            .flat_map(|draft| draft.rules().map(move |(entry, rule)| (draft, entry, rule)));
        let granting = rules.filter(|(_, _, rule)| ids.contains(&rule.entitlement));
        granting
            .map(|(draft, entry, rule)| Granting { draft, entry, rule })
            .collect()
    }

    /// When the person completed a training, as far as a statement counts it.
    fn completed(&self, invariant: &Invariant, person: &Person, training: &str) -> bool {
        let listed = self
            .trained
            .get(person)
            .is_some_and(|completed| completed.contains_key(training));
        let in_reach = |draft: &&Draft| {
            let own = invariant.project.as_ref();
            let above = own.and_then(|own| self.by_name.get(own.0.as_str()));
            self.is_within(&draft.name, own)
                || above.is_some_and(|own| self.lineage(own).iter().any(|above| above.name == draft.name))
        };
        listed
            || self.drafts.iter().filter(in_reach).any(|draft| {
                let mut same = draft.members.iter().flatten().filter(|member| member.person == *person);
                same.any(|member| member.completed.contains_key(training))
            })
    }
}

/// A rule, and where it stands.
struct Granting<'a> {
    draft: &'a Draft,
    entry: &'a Entry<RuleEntry>,
    rule: &'a Rule,
}

impl Granting<'_> {
    fn members(&self) -> impl Iterator<Item = &Member> {
        self.draft.members.iter().flatten()
    }

    /// Whether every member holds it all the time.
    fn is_standing(&self) -> bool {
        matches!(self.rule.trigger, Trigger::Members { during: None })
    }
}

impl Written {
    fn error(&self, code: &'static str, at: &std::ops::Range<usize>, message: String) -> Diagnostic {
        Diagnostic::error(code, &self.source, at.clone(), message)
    }

    fn warning(&self, code: &'static str, at: &std::ops::Range<usize>, message: String) -> Diagnostic {
        Diagnostic::warning(code, &self.source, at.clone(), message)
    }

    fn place(&self) -> String {
        let (line, column) = self.source.position(self.span.start);
        format!("{}:{line}:{column}", self.source.name())
    }
}

pub(super) fn unknown_entitlement(code: &'static str, world: &World<'_>, report: &mut Report) {
    for written in world.statements().filter(|written| !written.lenient) {
        for (at, wanted) in &written.entitlements {
            if world.knows(wanted) != Some(false) {
                continue;
            }
            let within = |d: &&Draft| world.is_within(&d.name, written.project.as_ref());
            let names = world.drafts.iter().filter(within).flat_map(|d| {
                let names = d.entitlement_names();
                names.map(move |name| format!("{}/{}", d.name, name.value))
            });
            let known: Vec<String> = names.collect();
            let text = wanted.to_string();
            let same = known
                .iter()
                .find(|id| id.split_once('/').is_some_and(|(_, name)| name == wanted.name));
            let hint = match (same, nearest(&text, known.iter().map(String::as_str))) {
                (Some(near), _) => format!("did you mean `{near}`?"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => "name one that the policy has, or leave `entitlements` out for all".to_owned(),
            };
            let message = format!("there is no entitlement `{wanted}`");
            report.push(written.error(code, at, message).hint(hint));
        }
    }
}

pub(super) fn outside_subtree(code: &'static str, world: &World<'_>, report: &mut Report) {
    if !world.complete {
        return;
    }
    for written in world.statements() {
        let Some(own) = &written.project else { continue };
        for (at, wanted) in &written.entitlements {
            if world.knows(wanted) == Some(true) && !world.is_within(&wanted.project, Some(own)) {
                let owner = world.by_name.get(wanted.project.0.as_str());
                let ask = owner.map(|owner| world.whom_to_ask(owner)).unwrap_or_default();
                let message = format!("`{wanted}` belongs neither to {own} nor to a project below it");
                let hint = format!("remove it, and ask {ask} to state it for {}", wanted.project);
                report.push(written.error(code, at, message).label("somebody else's").hint(hint));
            }
        }
    }
}

pub(super) fn duplicate(code: &'static str, world: &World<'_>, report: &mut Report) {
    let mut first: HashMap<(Option<&ProjectName>, &str), String> = HashMap::new();
    for written in world.statements() {
        let Some((at, name)) = &written.name else { continue };
        let key = (written.project.as_ref(), name.as_str());
        if let Some(place) = first.get(&key) {
            let message = format!("there is a statement `{name}` already");
            report.push(
                written
                    .error(code, at, message)
                    .hint(format!("the first is at {place}; rename one")),
            );
        } else {
            first.insert(key, written.place());
        }
    }
}

/// With as many holders demanded as allowed, nobody could ever hand over: the outgoing one may not go before another has
/// come, who may not come before one has gone.
pub(super) fn no_room(code: &'static str, world: &World<'_>, report: &mut Report) {
    for (written, invariant) in understood(world) {
        let Condition::MaxHolders(most) = invariant.condition else {
            continue;
        };
        for (draft, entitlement) in world.covered(invariant) {
            if entitlement.min_holders < most {
                continue;
            }
            let at = draft.file.entitlement.iter().find(|e| {
                let name = e.value.name.as_ref();
                name.is_some_and(|name| name.value == entitlement.id.name)
            });
            let place = at.map_or_else(String::new, |e| {
                draft.place(e.value.min_holders.as_ref().map_or(e.span(), At::span))
            });
            let message = format!(
                "`{}` demands min_holders = {}, so with at most {most} nobody could hand over",
                entitlement.id, entitlement.min_holders
            );
            let hint = format!(
                "allow at least {}, or lower `min_holders` at {place}",
                entitlement.min_holders.saturating_add(1)
            );
            report.push(written.error(code, &written.condition, message).hint(hint));
        }
    }
}

fn understood<'a>(world: &World<'a>) -> impl Iterator<Item = (&'a Written, &'a Invariant)> {
    world
        .statements()
        .flat_map(|written| written.invariant.as_ref().map(|invariant| (written, invariant)))
}

/// Statements with the rules that grant what they speak about.
fn with_rules<'a>(world: &World<'a>) -> Vec<(&'a Written, &'a Invariant, Vec<Granting<'a>>)> {
    let of = |(written, invariant): (&'a Written, &'a Invariant)| {
        let covered = world.covered(invariant);
        let ids = covered.iter().map(|(_, e)| &e.id).collect();
        (written, invariant, world.granting(&ids))
    };
    understood(world).map(of).collect()
}

pub(super) fn unmet_training(code: &'static str, world: &World<'_>, report: &mut Report) {
    if !world.complete || world.drafts.iter().any(|d| d.members.iter().any(Option::is_none)) {
        return;
    }
    for (written, invariant, rules) in with_rules(world) {
        for (at, training) in &written.trainings {
            let everybody = world
                .drafts
                .iter()
                .flat_map(|d| d.members.iter().flatten())
                .map(|m| &m.person);
            let mut everybody = everybody.chain(world.trained.keys());
            if !everybody.any(|person| world.completed(invariant, person, training)) {
                let known: BTreeSet<&str> = world
                    .trained
                    .values()
                    .flat_map(|c| c.keys())
                    .map(String::as_str)
                    .collect();
                let message = format!("nobody has completed `{training}`");
                let hint = did_you_mean(training, known).unwrap_or_else(|| {
                    "so nobody is granted what this speaks about; record who completed it".to_owned()
                });
                report.push(written.warning(code, at, message).hint(hint));
                continue;
            }
            for Granting { draft, entry, rule } in &rules {
                let mut members = draft.members.iter().flatten().peekable();
                if !rule.member || members.peek().is_none() {
                    continue;
                }
                if !members.any(|member| world.completed(invariant, &member.person, training)) {
                    let message = format!(
                        "no member of {} has completed `{training}`, which {} demands for `{}`",
                        draft.name,
                        invariant.id(),
                        rule.entitlement
                    );
                    let hint = format!(
                        "so nobody earns this; record who completed it, or see {}",
                        written.place()
                    );
                    report.push(draft.warning(code, entry.span(), message).hint(hint));
                }
            }
        }
    }
}

/// What a rule grants, whatever any schedule says, although a statement will hold it.
pub(super) fn broken_by_rules(code: &'static str, world: &World<'_>, report: &mut Report) {
    for (written, invariant, rules) in with_rules(world) {
        let see = format!("it will be held; see {}", written.place());
        match &invariant.condition {
            Condition::Domains(domains) => {
                let mut told: BTreeSet<(&ProjectName, &Person)> = BTreeSet::new();
                for rule in rules.iter().filter(|r| r.rule.member) {
                    for (entry, member) in rule.draft.file.member.iter().zip(&rule.draft.members) {
                        let (Some(member), Some(at)) = (member, &entry.value.email) else {
                            continue;
                        };
                        let domain = member.person.as_str().rsplit('@').next().unwrap_or_default();
                        if domains.contains(domain) || !told.insert((&rule.draft.name, &member.person)) {
                            continue;
                        }
                        let message = format!(
                            "{} may not hold `{}`: {} allows only {}",
                            member.person,
                            rule.rule.entitlement,
                            invariant.id(),
                            domains.iter().cloned().collect::<Vec<_>>().join(", ")
                        );
                        report.push(rule.draft.warning(code, at.span(), message).hint(&see));
                    }
                }
            }
            Condition::MaxHolders(most) => {
                let standing = rules.iter().filter(|rule| rule.is_standing());
                let people: BTreeSet<&Person> = standing
                    .flat_map(|rule| rule.members().map(|m| &m.person).collect::<Vec<_>>())
                    .collect();
                if usize::try_from(*most).is_ok_and(|most| most < people.len()) {
                    let message = format!(
                        "{} members are to hold this all the time, and at most {most} may",
                        people.len()
                    );
                    let hint = "the others will be held; raise the number, or give the rules windows or a rotation";
                    report.push(written.warning(code, &written.condition, message).hint(hint));
                }
            }
            Condition::NeverTogether => together(code, invariant, &rules, &see, report),
            Condition::LongestAccess { longest, rest } => {
                for rule in &rules {
                    let Some(length) = longest_turn(rule.rule, *rest, world.context.now) else {
                        continue;
                    };
                    if length <= *longest {
                        continue;
                    }
                    let length = if rule.is_standing() {
                        "without end".to_owned()
                    } else {
                        format!("for {}", span(length))
                    };
                    let message = format!(
                        "this grants `{}` {length}, and {} allows {}",
                        rule.rule.entitlement,
                        invariant.id(),
                        span(*longest)
                    );
                    let at = rule.entry.value.during.as_ref().map_or(rule.entry.span(), Entry::span);
                    report.push(rule.draft.warning(code, at, message).hint(&see));
                }
            }
            Condition::Requires(_) => {}
        }
    }
}

/// People who are to hold two entitlements at the same time by their memberships alone.
fn together(code: &'static str, invariant: &Invariant, rules: &[Granting<'_>], see: &str, report: &mut Report) {
    type Seen<'a> = Vec<(&'a EntitlementId, Option<&'a CronWindow>, Interval)>;
    let mut seen: BTreeMap<&Person, Seen<'_>> = BTreeMap::new();
    for rule in rules {
        let Trigger::Members { during } = &rule.rule.trigger else {
            continue;
        };
        let mut told: BTreeMap<&EntitlementId, Vec<&Person>> = BTreeMap::new();
        for member in rule.members() {
            let Some(valid) = member.valid() else { continue };
            let theirs = seen.entry(&member.person).or_default();
            // Two different windows may never overlap; that is for the forecast.
            let same = |other: &Option<&CronWindow>| other.is_none() || during.is_none() || *other == during.as_ref();
            let clash = theirs.iter().find(|(id, window, time)| {
                **id != rule.rule.entitlement && same(window) && time.intersect(&valid).is_some()
            });
            if let Some((id, ..)) = clash {
                told.entry(id).or_default().push(&member.person);
            }
            theirs.push((&rule.rule.entitlement, during.as_ref(), valid));
        }
        for (other, people) in told {
            let who = match people.as_slice() {
                [one] => one.to_string(),
                [one, rest @ ..] => format!("{one} and {} more", rest.len()),
                [] => continue,
            };
            let message = format!(
                "{who} would hold `{}` together with `{other}`, which {} rules out",
                rule.rule.entitlement,
                invariant.id()
            );
            report.push(rule.draft.warning(code, rule.entry.span(), message).hint(see));
        }
    }
}

/// How long a rule grants at least to somebody, whatever any schedule says. `None` where only a schedule can tell, or it
/// is not known what time it is.
fn longest_turn(rule: &Rule, rest: SignedDuration, now: Option<Timestamp>) -> Option<SignedDuration> {
    let Trigger::Members { during } = &rule.trigger else {
        return None;
    };
    let Some(window) = during else {
        return Some(SignedDuration::MAX);
    };
    let now = now?;
    let range = Interval::new(now, now.checked_add(AHEAD).unwrap_or(Timestamp::MAX))?;
    let windows = window
        .intervals(range)
        .into_iter()
        .map(|w| w.widen(rule.lead, rule.linger));
    // What is parted by less than a break is one.
    let reaching = |w: Interval| w.widen(SignedDuration::ZERO, rest);
    let runs = merged(windows.map(reaching).collect());
    let inside = runs.into_iter().map(|run| run.duration().saturating_sub(rest));
    inside.max()
}

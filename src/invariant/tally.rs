//! Who holds what that statements speak about, and what one holder more would break.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{Condition, Invariant, list};
use crate::model::{EntitlementId, Interval, Person, PrincipalId};
use crate::text::{instant, span};

/// Somebody who holds something: a user of the identity store, and who that is where the policy tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The user. Two people are the same exactly when this is.
    pub principal: PrincipalId,
    /// The person, where known.
    pub person: Option<Person>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.person {
            Some(person) => person.fmt(f),
            None => self.principal.fmt(f),
        }
    }
}

/// Why somebody may not be granted something more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle<'a> {
    /// The statement that it would break.
    pub invariant: &'a Invariant,
    /// What stands against it, as the rest of a sentence about the statement.
    pub why: String,
    /// What would let it go, besides an edit of the statement.
    pub release: String,
    /// Whose access stands in the way, if somebody's does.
    pub holders: Vec<(Holder, EntitlementId)>,
}

type Holdings = BTreeMap<PrincipalId, (Option<Person>, BTreeSet<EntitlementId>)>;

/// The state that statements are asked about.
#[derive(Debug, Clone)]
pub struct Tally<'a> {
    invariants: &'a [Invariant],
    about: BTreeMap<&'a EntitlementId, Vec<usize>>,
    holdings: Vec<Holdings>,
}

impl<'a> Tally<'a> {
    /// Nobody holds anything.
    #[must_use]
    pub fn new(invariants: &'a [Invariant]) -> Self {
        let mut about: BTreeMap<&EntitlementId, Vec<usize>> = BTreeMap::new();
        for (n, invariant) in invariants.iter().enumerate() {
            for id in &invariant.covers {
                about.entry(id).or_default().push(n);
            }
        }
        Self {
            invariants,
            about,
            holdings: vec![Holdings::new(); invariants.len()],
        }
    }

    /// Whether any statement speaks about the entitlement.
    #[must_use]
    pub fn speaks_about(&self, id: &EntitlementId) -> bool {
        self.about.contains_key(id)
    }

    /// Somebody holds something from now on.
    pub fn hold(&mut self, id: &EntitlementId, holder: &Holder) {
        for n in self.about.get(id).into_iter().flatten() {
            let theirs = self.holdings[*n].entry(holder.principal.clone()).or_default();
            theirs.0.clone_from(&holder.person);
            theirs.1.insert(id.clone());
        }
    }

    /// Somebody holds something no longer.
    pub fn release(&mut self, id: &EntitlementId, holder: &Holder) {
        for n in self.about.get(id).into_iter().flatten() {
            if let Some(theirs) = self.holdings[*n].get_mut(&holder.principal) {
                theirs.1.remove(id);
                if theirs.1.is_empty() {
                    self.holdings[*n].remove(&holder.principal);
                }
            }
        }
    }

    /// The first statement that would be broken if the holder were granted the entitlement at `at`. `stretch` tells how
    /// long the access would then last without a break of the given length.
    #[must_use]
    pub fn obstacle(
        &self,
        id: &EntitlementId,
        holder: &Holder,
        at: Timestamp,
        stretch: impl Fn(SignedDuration) -> Interval,
    ) -> Option<Obstacle<'a>> {
        let about = self.about.get(id).into_iter().flatten();
        about
            .map(|n| (&self.invariants[*n], &self.holdings[*n]))
            .find_map(|(invariant, holdings)| obstacle(invariant, holdings, id, holder, at, &stretch))
    }

    /// What is broken as it stands at `at`: each statement with whom it concerns and what is wrong. How long access has
    /// lasted is not looked at.
    pub fn broken(&self, at: Timestamp) -> Vec<(&'a Invariant, Option<Person>, String)> {
        let mut broken = Vec::new();
        for (invariant, holdings) in self.invariants.iter().zip(&self.holdings) {
            match &invariant.condition {
                Condition::MaxHolders(most) => {
                    let count = holdings.len();
                    if usize::try_from(*most).is_ok_and(|most| most < count) {
                        let who = list(holders(holdings));
                        broken.push((
                            invariant,
                            None,
                            format!("{} is allowed and {count} hold it: {who}", invariant.condition),
                        ));
                    }
                }
                Condition::NeverTogether => {
                    for (principal, (person, held)) in holdings.iter().filter(|(_, (_, held))| 1 < held.len()) {
                        let who = named(principal, person.as_ref());
                        broken.push((invariant, person.clone(), format!("{who} holds {}", joined(held))));
                    }
                }
                Condition::Requires(_) | Condition::Domains(_) => {
                    for (person, held) in holdings.values() {
                        // Of somebody whom the policy does not know, nobody can say more than that they are there.
                        let why = person.as_ref().and_then(|person| unfit(invariant, person, at));
                        if let (Some((why, _)), Some(person)) = (why, person) {
                            let why = format!("{person} holds {} and {why}", joined(held));
                            broken.push((invariant, Some(person.clone()), why));
                        }
                    }
                }
                Condition::LongestAccess { .. } => {}
            }
        }
        broken
    }
}

fn named(principal: &PrincipalId, person: Option<&Person>) -> String {
    person.map_or_else(|| principal.to_string(), ToString::to_string)
}

fn holders(holdings: &Holdings) -> impl Iterator<Item = String> {
    holdings
        .iter()
        .map(|(principal, (person, _))| named(principal, person.as_ref()))
}

fn joined(ids: &BTreeSet<EntitlementId>) -> String {
    let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
    names.join(" and ")
}

/// What a person lacks by a statement about people, and what would mend it.
fn unfit(invariant: &Invariant, person: &Person, at: Timestamp) -> Option<(String, String)> {
    match &invariant.condition {
        Condition::Requires(trainings) => {
            let what = list(trainings.iter().map(|training| format!("{training:?}")));
            let spans = invariant.trained.get(person).map(Vec::as_slice).unwrap_or_default();
            if spans.iter().any(|span| span.contains(at)) {
                return None;
            }
            let last = spans.iter().rfind(|span| span.end() <= at);
            let next = spans.iter().find(|span| at < span.start());
            let why = match (last, next) {
                (_, Some(next)) => format!("{what} counts only from {}", instant(next.start())),
                (Some(last), None) => format!("{what} counted only until {}", instant(last.end())),
                (None, None) => format!("has not completed {what}"),
            };
            Some((why, format!("a record that {person} completed {what}")))
        }
        Condition::Domains(domains) => {
            let domain = person.as_str().rsplit('@').next().unwrap_or_default();
            let outside = !domains.contains(domain);
            let words = || (format!("is outside {}", list(domains)), "nothing else".to_owned());
            outside.then(words)
        }
        Condition::MaxHolders(_) | Condition::NeverTogether | Condition::LongestAccess { .. } => None,
    }
}

fn obstacle<'a>(
    invariant: &'a Invariant,
    holdings: &Holdings,
    id: &EntitlementId,
    holder: &Holder,
    at: Timestamp,
    stretch: impl Fn(SignedDuration) -> Interval,
) -> Option<Obstacle<'a>> {
    let (why, release, holders) = match &invariant.condition {
        Condition::MaxHolders(most) => {
            let most = usize::try_from(*most).unwrap_or(usize::MAX);
            if holdings.contains_key(&holder.principal) || holdings.len() < most {
                return None;
            }
            let others: Vec<(Holder, EntitlementId)> = holdings
                .iter()
                .flat_map(|(principal, (person, held))| {
                    let other = Holder {
                        principal: principal.clone(),
                        person: person.clone(),
                    };
                    held.iter().map(move |id| (other.clone(), id.clone()))
                })
                .collect();
            let who = list(self::holders(holdings));
            let why = format!(
                "{} is allowed, and {who} {} it",
                invariant.condition,
                if holdings.len() == 1 { "holds" } else { "hold" }
            );
            (why, "the end of the access of another holder".to_owned(), others)
        }
        Condition::NeverTogether => {
            let (_, held) = holdings.get(&holder.principal)?;
            let others: BTreeSet<EntitlementId> = held.iter().filter(|other| *other != id).cloned().collect();
            if others.is_empty() {
                return None;
            }
            let why = format!("{holder} holds {}", joined(&others));
            let release = format!("the end of their access to {}", joined(&others));
            (
                why,
                release,
                others.into_iter().map(|id| (holder.clone(), id)).collect(),
            )
        }
        Condition::Requires(_) | Condition::Domains(_) => {
            let person = holder.person.as_ref()?;
            let (why, release) = unfit(invariant, person, at)?;
            (format!("{person} {why}"), release, Vec::new())
        }
        Condition::LongestAccess { longest, rest } => {
            let stretch = stretch(*rest);
            if stretch.duration() <= *longest {
                return None;
            }
            let (start, end) = (stretch.start(), stretch.end());
            let long = if start == Timestamp::MIN || end == Timestamp::MAX {
                "without end".to_owned()
            } else {
                format!(
                    "for {}, from {} to {}",
                    span(stretch.duration()),
                    instant(start),
                    instant(end)
                )
            };
            let why = format!("{} is allowed, and {holder} would hold it {long}", invariant.condition);
            let release = format!("a break of {}, or turns that are short enough", span(*rest));
            (why, release, Vec::new())
        }
    };
    Some(Obstacle {
        invariant,
        why,
        release,
        holders,
    })
}

/// A turn together with the access before it that no break of `rest` parts from it. `past` is in order; a break that has
/// really taken place by `now` counts even if the turn began earlier.
#[must_use]
pub fn stretch(past: &[Interval], turn: Interval, now: Timestamp, rest: SignedDuration) -> Interval {
    let mut start = turn.start();
    let mut edge = now.max(turn.start());
    for span in past.iter().rev() {
        if rest <= span.end().duration_until(edge) {
            break;
        }
        start = start.min(span.start());
        edge = edge.min(span.start());
    }
    Interval::new(start, turn.end()).unwrap_or(turn)
}

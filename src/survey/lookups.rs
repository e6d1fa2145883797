//! Finds out what names and people are in AWS, beside each other, and goes on without what does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashSet;
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::desired::Timeline;
use crate::identity_center::{ListOf, Read, Resolution, UserPin};
use crate::ledger::{Ledger, LedgerError, StoredSnapshots};
use crate::model::{EntitlementId, Person, PrincipalId, ResolvedTarget};
use crate::policy::Policy;

/// How long before somebody's turn their user is looked up, so that the hand-off itself needs no search.
const LOOK_AHEAD: SignedDuration = SignedDuration::from_mins(15);

/// How the problem of an entitlement ends whose lookup goes on beside the passes.
pub(crate) const UNANSWERED: &str = "AWS has not answered yet";

/// How recently a daemon must have been at work for what it knows to be taken over: as long as it believes a user that it
/// found itself.
const AT_WORK: SignedDuration = SignedDuration::from_hours(1);

/// What the identity store says about people, or why that is not known.
pub(crate) type People = BTreeMap<Person, Result<Resolution, String>>;

/// Whose user is known without asking.
pub type KnownPeople = BTreeMap<Person, PrincipalId>;

/// The users of those who hold something through us, as a daemon that is at work knows them: for commands beside it that
/// would otherwise ask AWS about everybody a second time. Whoever its last pass had a doubt about is not among them, nor
/// whom the operator pins, because that may just have been edited.
///
/// # Errors
/// [`LedgerError`].
pub(crate) async fn known_people(
    ledger: Option<&Ledger>,
    stored: &StoredSnapshots,
    config: &Config,
    now: Timestamp,
) -> Result<KnownPeople, LedgerError> {
    let mut known = KnownPeople::new();
    let Some(ledger) = ledger else { return Ok(known) };
    let Some(board) = ledger.board().await? else {
        return Ok(known);
    };
    let last_read = stored.last_read();
    let at_work = last_read.is_some_and(|read| read.duration_until(now) <= AT_WORK);
    if !at_work || board.unseen_since.is_some() {
        return Ok(known);
    }
    let doubts = board.problems.iter().filter(|problem| problem.kind.is_about_the_user());
    let mut doubtful: BTreeSet<Person> = doubts.flat_map(|problem| problem.person.clone()).collect();
    let pinned = config.identities.iter().filter(|i| i.identity_center.is_some());
    doubtful.extend(pinned.map(|i| i.person.clone()));
    for (person, principal) in ledger.principals().await? {
        match known.get(&person) {
            Some(other) if *other != principal => drop(doubtful.insert(person)),
            _ => drop(known.insert(person, principal)),
        }
    }
    known.retain(|person, _| !doubtful.contains(person));
    Ok(known)
}

/// Whom a lookup failed for, in words: a line for each reason.
pub(crate) fn not_looked_up(people: &People) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<&Person>> = BTreeMap::new();
    for (person, found) in people {
        if let Err(why) = found {
            by_reason.entry(why).or_default().push(person);
        }
    }
    let words = |(why, who): (&str, Vec<&Person>)| match &who[..] {
        [one] => format!("{one} could not be looked up in Identity Center: {why}"),
        many => format!(
            "{} people could not be looked up in Identity Center, {} among them: {why}",
            many.len(),
            many[0]
        ),
    };
    by_reason.into_iter().map(words).collect()
}

/// Takes in what lookups find. When none has ended for `silence`, and no page came of a list that may tell, the rest goes on
/// beside the pass, for a later one to find the answer remembered.
async fn gather<T: 'static>(
    reader: &Arc<dyn Read>,
    mut lookups: JoinSet<T>,
    silence: Option<Duration>,
    what: ListOf,
    mut take: impl FnMut(T),
) {
    loop {
        let next = lookups.join_next();
        let ended = match silence {
            Some(silence) => tokio::time::timeout(silence, next).await,
            None => Ok(next.await),
        };
        match ended {
            Ok(Some(Ok(found))) => take(found),
            Ok(Some(Err(error))) => tracing::error!(%error, ?what, "a lookup broke off"),
            Ok(None) => return,
            Err(_elapsed) => {
                let is_listing = |silence| reader.last_page(what).is_some_and(|page| page.elapsed() < silence);
                if !silence.is_some_and(is_listing) {
                    return lookups.detach_all();
                }
            }
        }
    }
}

/// What those entitlements of the policy are in AWS that somebody wants to know of, or why that is not known.
pub(crate) async fn resolve_targets(
    reader: &Arc<dyn Read>,
    policy: &Policy,
    wanted: impl Fn(&EntitlementId) -> bool,
    silence: Option<Duration>,
) -> BTreeMap<EntitlementId, Result<ResolvedTarget, String>> {
    let mut targets = BTreeMap::new();
    let mut lookups = JoinSet::new();
    for entitlement in policy.entitlements().filter(|entitlement| wanted(&entitlement.id)) {
        // A lookup that does not end leaves this: not knowing, which revokes nobody.
        let unanswered = format!("{}: {}: {UNANSWERED}", entitlement.origin, entitlement.target);
        targets.insert(entitlement.id.clone(), Err(unanswered));
        let (reader, id, target) = (Arc::clone(reader), entitlement.id.clone(), entitlement.target.clone());
        let origin = entitlement.origin.clone();
        lookups.spawn(async move {
            let resolved = reader.resolve_target(&target).await;
            (id, resolved.map_err(|error| format!("{origin}: {target}: {error}")))
        });
    }
    gather(reader, lookups, silence, ListOf::Targets, |(id, target)| {
        targets.insert(id, target);
    })
    .await;
    targets
}

/// Everybody who is concerned now or soon; looking them up before their turn makes the hand-off itself need no search.
pub(super) fn people_of(timeline: &Timeline, foreseen: &Timeline, at: Timestamp) -> BTreeSet<Person> {
    let soon = at.checked_add(LOOK_AHEAD).unwrap_or(Timestamp::MAX);
    let causes = timeline.causes.iter().chain(&foreseen.causes);
    // Each has many causes, and a set that is sorted compares each of them often.
    let people: HashSet<&Person> = causes.filter(|c| c.held.start() <= soon).map(|c| &c.person).collect();
    people.into_iter().cloned().collect()
}

/// Looks everybody who is not `known` up in the identity store, beside each other. Whoever is not known in time is missing
/// in the answer.
pub(crate) async fn resolve_people(
    reader: &Arc<dyn Read>,
    config: &Config,
    people: BTreeSet<Person>,
    known: &KnownPeople,
    silence: Option<Duration>,
) -> People {
    let mut resolved = People::new();
    let mut lookups = JoinSet::new();
    for person in people {
        if let Some(principal) = known.get(&person) {
            resolved.insert(person, Ok(Resolution::Found(principal.clone())));
            continue;
        }
        let pin: Option<UserPin> = config
            .identities
            .iter()
            .find(|i| i.person == person)
            .and_then(|i| i.identity_center.clone());
        let reader = Arc::clone(reader);
        lookups.spawn(async move {
            let found = reader.resolve_person(&person, pin.as_ref()).await;
            (person, found.map_err(|error| error.to_string()))
        });
    }
    gather(reader, lookups, silence, ListOf::People, |(person, found)| {
        resolved.insert(person, found);
    })
    .await;
    resolved
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use tokio::sync::Notify;
    use tokio::time::Instant;

    use super::*;
    use crate::identity_center::{AwsError, Holders, Instance, Operation, Progress};
    use crate::model::Target;

    /// Gets a page of a list whenever it is asked, and the last one when it is asked for the third time; or none at all.
    struct Listing {
        pages: bool,
        asked: AtomicUsize,
        ended: Arc<Notify>,
    }

    #[async_trait]
    impl Read for Listing {
        fn last_page(&self, of: ListOf) -> Option<Instant> {
            assert_eq!(of, ListOf::People);
            if self.pages && self.asked.fetch_add(1, Ordering::SeqCst) == 2 {
                self.ended.notify_one();
            }
            self.pages.then(Instant::now)
        }

        async fn instance(&self) -> Result<Instance, AwsError> {
            unreachable!()
        }

        async fn resolve_target(&self, _: &Target) -> Result<ResolvedTarget, AwsError> {
            unreachable!()
        }

        async fn resolve_person(&self, _: &Person, _: Option<&UserPin>) -> Result<Resolution, AwsError> {
            unreachable!()
        }

        async fn holders(&self, _: &ResolvedTarget) -> Result<Holders, AwsError> {
            unreachable!()
        }

        async fn operation(&self, _: &Operation) -> Result<Progress, AwsError> {
            unreachable!()
        }
    }

    /// Nobody is told before a list is read to its end, which of a large organisation takes longer than a pass waits for AWS
    /// to say anything: a pass went on without everybody, and told of a hundred thousand problems.
    #[tokio::test]
    async fn a_list_that_is_being_read_is_no_silence() {
        for pages in [true, false] {
            let ended = Arc::new(Notify::new());
            let reader: Arc<dyn Read> = Arc::new(Listing {
                pages,
                asked: AtomicUsize::new(0),
                ended: Arc::clone(&ended),
            });
            let mut lookups = JoinSet::new();
            lookups.spawn(async move { ended.notified().await });
            let mut told = false;
            let silence = Some(Duration::from_millis(500));
            gather(&reader, lookups, silence, ListOf::People, |()| told = true).await;
            assert_eq!(told, pages);
        }
    }
}

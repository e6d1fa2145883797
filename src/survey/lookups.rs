//! Finds out what names and people are in AWS, beside each other, and goes on without what does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::desired::Timeline;
use crate::identity_center::{Read, Resolution, UserPin};
use crate::model::{EntitlementId, Person, ResolvedTarget};
use crate::policy::Policy;

/// How long before somebody's turn their user is looked up, so that the hand-off itself needs no search.
const LOOK_AHEAD: SignedDuration = SignedDuration::from_mins(15);

/// Takes in what lookups find. When none has ended for `silence`, the rest goes on beside the pass, for a later one to
/// find the answer remembered.
async fn gather<T: 'static>(
    mut lookups: JoinSet<T>,
    silence: Option<Duration>,
    what: &'static str,
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
            Ok(Some(Err(error))) => tracing::error!(%error, "a lookup of {what} broke off"),
            Ok(None) => return,
            Err(_elapsed) => return lookups.detach_all(),
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
        let unanswered = format!(
            "{}: {}: AWS has not answered yet",
            entitlement.origin, entitlement.target
        );
        targets.insert(entitlement.id.clone(), Err(unanswered));
        let (reader, id, target) = (Arc::clone(reader), entitlement.id.clone(), entitlement.target.clone());
        let origin = entitlement.origin.clone();
        lookups.spawn(async move {
            let resolved = reader.resolve_target(&target).await;
            (id, resolved.map_err(|error| format!("{origin}: {target}: {error}")))
        });
    }
    gather(lookups, silence, "an entitlement", |(id, target)| {
        targets.insert(id, target);
    })
    .await;
    targets
}

/// Everybody who is concerned now or soon; looking them up before their turn makes the hand-off itself need no search.
pub(super) fn people_of(timeline: &Timeline, foreseen: &Timeline, at: Timestamp) -> BTreeSet<Person> {
    let soon = at.checked_add(LOOK_AHEAD).unwrap_or(Timestamp::MAX);
    let causes = timeline.causes.iter().chain(&foreseen.causes);
    causes
        .filter(|c| c.held.start() <= soon)
        .map(|c| c.person.clone())
        .collect()
}

/// Looks everybody up in the identity store, beside each other. Whoever is not known in time is missing in the answer.
pub(crate) async fn resolve_people(
    reader: &Arc<dyn Read>,
    config: &Config,
    people: BTreeSet<Person>,
    silence: Option<Duration>,
) -> BTreeMap<Person, Result<Resolution, String>> {
    let mut lookups = JoinSet::new();
    for person in people {
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
    let mut resolved = BTreeMap::new();
    gather(lookups, silence, "a person", |(person, found)| {
        resolved.insert(person, found);
    })
    .await;
    resolved
}

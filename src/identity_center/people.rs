//! Finds the user of the identity store who is a person, and remembers it for a while.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_identitystore::operation::describe_user::DescribeUserOutput;
use aws_sdk_identitystore::types::{AlternateIdentifier, UniqueAttribute, UserStatus};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;

use super::client::{Client, required, unreadable};
use super::directory::Directory;
use super::limiter::Priority;
use super::targets::{FOUND_FOR, fresh};
use super::{AwsError, AwsErrorKind, Call, Resolution, UserPin};
use crate::model::{Person, PrincipalId};

/// Anything but one enabled user is looked at again soon, because somebody is probably about to correct it.
const NOT_FOUND_FOR: SignedDuration = SignedDuration::from_mins(5);

/// So long a user who was found is only asked for by id: whether they are still there, enabled and called so. After it the
/// names are looked up again, to notice a namesake who has come since.
const NAMED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// For so long after that hour the answer stays good while it is confirmed beside the passes: a large organisation has some
/// to confirm at any time, and no hand-off is to wait for them.
const CONFIRMED_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// So many people are looked up beside each other. A person costs several calls; were all asked for at once, the first
/// answers about hundreds would come when the first call about each had been made, and passes would take that for silence.
const AT_ONCE: usize = 8;

/// A lookup that takes longer keeps no other waiting.
const SLOW: Duration = Duration::from_secs(2);

/// Who is looked up.
pub(super) type Key = (Person, Option<UserPin>);

/// Who was looked up.
#[derive(Debug)]
pub(super) struct PeopleCache {
    known: Mutex<HashMap<Key, LookedUp>>,
    /// Who is being confirmed beside the passes.
    confirming: Mutex<HashSet<Key>>,
    /// Places for those being looked up, first come, first served.
    places: Semaphore,
    /// Those who wait for one, to be told by one list when they are many.
    pub(super) directory: Directory,
}

impl Default for PeopleCache {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            confirming: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
            directory: Directory::default(),
        }
    }
}

/// What was found, when AWS said so last, and when it was found by name.
#[derive(Debug, Clone)]
struct LookedUp {
    resolution: Resolution,
    confirmed: Timestamp,
    named: Timestamp,
}

impl PeopleCache {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, LookedUp>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found, if it is still believed at `now`, and whether it is to be confirmed.
    fn believed(&self, key: &Key, now: Timestamp) -> Option<(Resolution, bool)> {
        let known = self.lock();
        let LookedUp {
            resolution, confirmed, ..
        } = known.get(key)?;
        let (lifetime, more) = match resolution {
            Resolution::Found(_) => (FOUND_FOR, CONFIRMED_WITHIN),
            _ => (NOT_FOUND_FOR, SignedDuration::ZERO),
        };
        let is_due = !fresh(*confirmed, lifetime, now);
        fresh(*confirmed, lifetime + more, now).then(|| (resolution.clone(), is_due))
    }

    fn confirming(&self) -> std::sync::MutexGuard<'_, HashSet<Key>> {
        self.confirming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody is being confirmed beside the passes.
    #[cfg(test)]
    pub(super) fn is_confirming(&self) -> bool {
        !self.confirming().is_empty()
    }

    /// When AWS last said who this is.
    pub(super) fn confirmed(&self, key: &Key) -> Option<Timestamp> {
        self.lock().get(key).map(|known| known.confirmed)
    }

    /// How many of those who were found are to be confirmed.
    pub(super) fn due(&self, now: Timestamp) -> usize {
        let known = self.lock();
        let found = known
            .values()
            .filter(|known| matches!(known.resolution, Resolution::Found(_)));
        found.filter(|known| !fresh(known.confirmed, FOUND_FOR, now)).count()
    }

    /// Takes in what is told of everybody about whom nothing is known that is newer than `at`.
    pub(super) fn take_in(&self, at: Timestamp, tell: impl Fn(&Key, &Resolution) -> Option<Resolution>) {
        for (key, known) in self.lock().iter_mut() {
            if known.confirmed <= at
                && let Some(resolution) = tell(key, &known.resolution)
            {
                *known = LookedUp {
                    resolution,
                    confirmed: at,
                    named: at,
                };
            }
        }
    }

    /// Remembers what was found by name at `at`.
    pub(super) fn learn(&self, key: Key, resolution: Resolution, at: Timestamp) {
        let found = LookedUp {
            resolution,
            confirmed: at,
            named: at,
        };
        self.lock().insert(key, found);
    }

    /// Forgets a user, because AWS says that it is gone.
    pub(super) fn forget(&self, principal: &PrincipalId) {
        self.lock()
            .retain(|_, known| known.resolution != Resolution::Found(principal.clone()));
    }
}

/// The only way in which the identity store looks up by attribute.
pub(super) fn unique_attribute(call: Call, path: &str, value: &str) -> Result<AlternateIdentifier, AwsError> {
    UniqueAttribute::builder()
        .attribute_path(path)
        .attribute_value(value.into())
        .build()
        .map(AlternateIdentifier::UniqueAttribute)
        .map_err(|error| AwsError {
            operation: call.label(),
            kind: AwsErrorKind::Rejected,
            message: error.to_string(),
            outcome_unknown: false,
        })
}

impl Client {
    pub(super) async fn person(&self, person: &Person, pin: Option<&UserPin>) -> Result<Resolution, AwsError> {
        let key = (person.clone(), pin.cloned());
        let people = &self.shared.people;
        if let Some((resolution, is_due)) = people.believed(&key, self.shared.clock.now()) {
            if is_due && people.confirming().insert(key.clone()) {
                let client = self.clone();
                tokio::spawn(async move {
                    // A failure changes nothing: the next pass asks again, and waits for the answer when time is up.
                    drop(client.in_turn(key.clone()).await);
                    client.shared.people.confirming().remove(&key);
                });
            }
            return Ok(resolution);
        }
        self.in_turn(key).await
    }

    /// Looks up when there is a place, or is told by a list of everybody.
    async fn in_turn(&self, key: Key) -> Result<Resolution, AwsError> {
        let people = &self.shared.people;
        // Nobody closes the places; without one the lookup would only be made sooner. Who waits already does not get one
        // first because another pass asks again.
        let mut place = match people.directory.is_waiting(&key) {
            true => None,
            false => people.places.try_acquire().ok(),
        };
        if place.is_none() {
            let _waiting = self.waiting(&key);
            let mut listing = people.directory.listing_for(&key);
            if listing.is_none() {
                place = people.places.acquire().await.ok();
                listing = people.directory.listing_for(&key);
            }
            if let Some(mut listing) = listing {
                drop(place);
                while listing.changed().await.is_ok() {}
                place = people.places.acquire().await.ok();
            }
        }
        // Whoever waited may have been found meanwhile, by the list or by a lookup that an earlier pass began.
        if let Some((resolution, false)) = people.believed(&key, self.shared.clock.now()) {
            return Ok(resolution);
        }
        // Boxed, so that the tens of thousands who may wait take little.
        let mut lookup = Box::pin(self.look_up(key));
        match tokio::time::timeout(SLOW, &mut lookup).await {
            Ok(found) => found,
            Err(_elapsed) => {
                drop(place);
                lookup.await
            }
        }
    }

    async fn look_up(&self, key: Key) -> Result<Resolution, AwsError> {
        let (person, pin) = (&key.0, key.1.as_ref());
        let now = self.shared.clock.now();
        let known = self.shared.people.lock().get(&key).cloned();
        let mut ids = BTreeSet::new();
        if let Some(known) = known {
            if let Resolution::Found(id) = &known.resolution
                && fresh(known.named, NAMED_FOR, now)
            {
                if self.is_still(id, person, pin).await? {
                    let resolution = known.resolution.clone();
                    let confirmed = LookedUp {
                        confirmed: now,
                        ..known
                    };
                    self.shared.people.lock().insert(key, confirmed);
                    return Ok(resolution);
                }
            } else {
                // A list compares names as we do and AWS perhaps as they are written: whom it found must not be lost only
                // because names are looked up this time.
                ids.extend(known.resolution.candidates().iter().map(|id| id.0.to_string()));
            }
        }
        let resolution = match pin {
            Some(UserPin::Id(id)) => self.by_ids([id.0.to_string()], |_| true).await?,
            Some(UserPin::UserName(name)) => {
                ids.extend(self.user_id("userName", name).await?);
                self.by_ids(ids, |user| user.user_name() == Some(name)).await?
            }
            None => {
                let address = person.as_str();
                ids.extend(self.user_id("userName", address).await?);
                ids.extend(self.user_id("emails.value", address).await?);
                self.by_ids(ids, |user| is_at(user, address)).await?
            }
        };
        self.shared.people.learn(key, resolution.clone(), now);
        Ok(resolution)
    }

    /// Whether the user who was found to be this person is there, enabled and called so as before.
    async fn is_still(&self, id: &PrincipalId, person: &Person, pin: Option<&UserPin>) -> Result<bool, AwsError> {
        let Some(user) = self.describe_user(&id.0).await? else {
            return Ok(false);
        };
        let is_called_so = match pin {
            Some(UserPin::Id(_)) => true,
            Some(UserPin::UserName(name)) => user.user_name() == Some(name),
            None => is_at(&user, person.as_str()),
        };
        Ok(is_called_so && matches!(user.user_status, None | Some(UserStatus::Enabled)))
    }

    /// Describes the candidates and keeps those that truly are who was asked for. How AWS compares user names and
    /// e-mails is not documented, so its match alone never earns access.
    async fn by_ids(
        &self,
        ids: impl IntoIterator<Item = String>,
        is_who_was_asked_for: impl Fn(&DescribeUserOutput) -> bool,
    ) -> Result<Resolution, AwsError> {
        let mut matching = Vec::new();
        for id in ids {
            let Some(user) = self.describe_user(&id).await? else {
                continue;
            };
            if is_who_was_asked_for(&user) {
                matching.push((PrincipalId(id.into()), user.user_status));
            } else {
                tracing::warn!(user = %id, "a user whom the identity store matched, or who was this person before, has another name and e-mail; ignored");
            }
        }
        Ok(match matching.pop() {
            None => Resolution::Unknown,
            Some(last) if !matching.is_empty() => {
                let all = matching.into_iter().chain([last]);
                Resolution::Ambiguous(all.map(|(id, _)| id).collect())
            }
            Some((id, None | Some(UserStatus::Enabled))) => Resolution::Found(id),
            Some((id, Some(_))) => Resolution::Disabled(id),
        })
    }

    async fn user_id(&self, path: &str, value: &str) -> Result<Option<String>, AwsError> {
        let store = &self.instance().await?.identity_store_id;
        let call = Call::GetUserId;
        let identifier = unique_attribute(call, path, value)?;
        let answer = self
            .run(call, Priority::Look, || {
                let request = self.shared.store.get_user_id();
                request
                    .identity_store_id(store)
                    .alternate_identifier(identifier.clone())
                    .send()
            })
            .await;
        match answer {
            Ok(answer) => required(call, "UserId", Some(answer.user_id())).map(Some),
            Err(error) if error.kind == AwsErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn describe_user(&self, id: &str) -> Result<Option<DescribeUserOutput>, AwsError> {
        let store = &self.instance().await?.identity_store_id;
        let call = Call::DescribeUser;
        let answer = self
            .run(call, Priority::Look, || {
                let request = self.shared.store.describe_user();
                request.identity_store_id(store).user_id(id).send()
            })
            .await;
        match answer {
            Ok(user) if user.user_id() == id => Ok(Some(user)),
            Ok(_) => Err(unreadable(
                call,
                "the answer describes another user than the one asked for",
            )),
            Err(error) if error.kind == AwsErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether the user name or one of the e-mails is this address, ASCII case aside.
fn is_at(user: &DescribeUserOutput, address: &str) -> bool {
    let emails = user.emails().iter().map(|email| email.value());
    std::iter::once(user.user_name())
        .chain(emails)
        .flatten()
        .any(|text| text.eq_ignore_ascii_case(address))
}

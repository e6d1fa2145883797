//! Remembers users between reads, so that a steady poll does not ask for them again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use crate::model::{SourceUser, SourceUserState};

/// How long a user's name, e-mail and state are believed.
const FRESH: SignedDuration = SignedDuration::from_hours(1);
/// How long a missing user stays missing; shorter, because a person waits for it.
const FRESH_WHEN_GONE: SignedDuration = SignedDuration::from_mins(10);

/// Users by the id under which they are asked for.
#[derive(Debug, Default)]
pub(super) struct UserCache {
    known: Mutex<HashMap<String, (SourceUser, Timestamp)>>,
}

impl UserCache {
    /// The user as last read, unless that was too long ago.
    pub(super) fn get(&self, id: &str, now: Timestamp) -> Option<SourceUser> {
        let known = self.lock();
        let (user, read_at) = known.get(id)?;
        is_fresh(user, *read_at, now).then(|| user.clone())
    }

    /// Remembers what was read at `now`.
    pub(super) fn put(&self, id: &str, user: SourceUser, now: Timestamp) {
        let mut known = self.lock();
        known.retain(|_, (user, read_at)| is_fresh(user, *read_at, now));
        known.insert(id.to_owned(), (user, now));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (SourceUser, Timestamp)>> {
        // Every change is one call, so a panic elsewhere cannot leave the map half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_fresh(user: &SourceUser, read_at: Timestamp, now: Timestamp) -> bool {
    let limit = match user.state {
        SourceUserState::Deleted => FRESH_WHEN_GONE,
        SourceUserState::Active | SourceUserState::Blocked => FRESH,
    };
    let age = read_at.duration_until(now);
    // An age below zero means that the clock was set back; asking again is then the safe thing.
    age >= SignedDuration::ZERO && age < limit
}

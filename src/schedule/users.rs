//! Remembers users between reads, so that a steady poll does not ask for them again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

use crate::model::{SourceUser, SourceUserState};

/// How long a user's name, e-mail and state are believed.
const FRESH: SignedDuration = SignedDuration::from_hours(1);
/// How long a missing user stays missing; no longer than a poll as a rule, because a person on duty waits for it.
const FRESH_WHEN_GONE: SignedDuration = SignedDuration::from_secs(50);

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::testing::t;

    #[test]
    fn users_are_believed_for_an_hour_missing_ones_until_the_next_poll_and_none_when_the_clock_was_set_back() {
        let cache = UserCache::default();
        let read_at = t("2026-01-07T12:00:00Z");
        for (id, state) in [
            ("active", SourceUserState::Active),
            ("blocked", SourceUserState::Blocked),
            ("gone", SourceUserState::Deleted),
        ] {
            let user = SourceUser {
                id: id.into(),
                name: None,
                email: None,
                state,
            };
            cache.put(id, user, read_at);
        }
        let known = |id, at| cache.get(id, t(at)).is_some();
        for (at, active, gone) in [
            ("2026-01-07T12:00:00Z", true, true),
            ("2026-01-07T12:00:49Z", true, true),
            ("2026-01-07T12:00:50Z", true, false),
            ("2026-01-07T12:59:59Z", true, false),
            ("2026-01-07T13:00:00Z", false, false),
            ("2026-01-07T11:59:59Z", false, false),
        ] {
            assert_eq!(
                (known("active", at), known("blocked", at), known("gone", at)),
                (active, active, gone),
                "{at}"
            );
        }
    }
}

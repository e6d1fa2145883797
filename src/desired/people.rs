//! Tells which person a provider's user is. Pure.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use super::Snapshots;
use crate::config::Identity;
use crate::model::{Interval, Person, SourceName, SourceUser, SourceUserState};
use crate::problem::ProblemKind;

/// Knows which person a provider's user is.
pub(super) struct People<'a> {
    by_pin: BTreeMap<(&'a SourceName, &'a str), &'a Person>,
    pinned: BTreeSet<(&'a SourceName, &'a Person)>,
    /// The one user of an address at a source; `None` where there are several.
    by_email: HashMap<(&'a SourceName, Cow<'a, str>), Option<&'a str>>,
}

/// E-mail is compared without regard to ASCII case; nearly all of it is in lower case already.
fn lower(email: &str) -> Cow<'_, str> {
    match email.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => email.to_ascii_lowercase().into(),
        false => email.into(),
    }
}

impl<'a> People<'a> {
    pub(super) fn new(snapshots: &'a Snapshots, identities: &'a [Identity], range: Interval) -> Self {
        let mut people = Self {
            by_pin: BTreeMap::new(),
            pinned: BTreeSet::new(),
            by_email: HashMap::default(),
        };
        for identity in identities {
            for (source, id) in &identity.sources {
                people.by_pin.insert((source, id), &identity.person);
                people.pinned.insert((source, &identity.person));
            }
        }
        // Turns name the same users again and again, and schedules of one source stand together.
        let mut seen = HashSet::default();
        let mut source = None;
        for snapshot in snapshots.values() {
            if source.replace(&snapshot.schedule.source) != Some(&snapshot.schedule.source) {
                seen.clear();
            }
            for user in snapshot
                .shifts
                .iter()
                .filter(|s| s.interval.intersect(&range).is_some())
                .map(|s| &s.user)
                .filter(|u| u.state == SourceUserState::Active && seen.insert(Arc::as_ptr(u)))
            {
                if let Some(email) = &user.email {
                    let of_address = people.by_email.entry((&snapshot.schedule.source, lower(email)));
                    let one = of_address.or_insert(Some(&user.id));
                    *one = one.filter(|id| *id == user.id);
                }
            }
        }
        people
    }

    /// Exact mapping wins, then e-mail equality without regard to ASCII case; never anything fuzzier.
    pub(super) fn identify(&self, source: &SourceName, user: &SourceUser) -> Result<Person, (ProblemKind, String)> {
        let label = user.label();
        match user.state {
            SourceUserState::Deleted => {
                return Err((
                    ProblemKind::UserDeleted,
                    format!("{label} is on duty at {source} but no longer a user there"),
                ));
            }
            SourceUserState::Blocked => {
                return Err((
                    ProblemKind::UserBlocked,
                    format!("{label} is on duty at {source} but blocked there"),
                ));
            }
            SourceUserState::Active => {}
        }
        if let Some(person) = self.by_pin.get(&(source, user.id.as_str())) {
            return Ok((*person).clone());
        }
        let Some(email) = &user.email else {
            return Err((
                ProblemKind::NoEmail,
                format!(
                    "{label} is on duty but {source} gives no e-mail for them; map the id {:?} in [[identity]]",
                    user.id
                ),
            ));
        };
        if let Some(person) = self.by_pin.get(&(source, email.as_str())) {
            return Ok((*person).clone());
        }
        let person = Person::parse(email)
            .map_err(|e| (ProblemKind::NoEmail, format!("{label} is on duty at {source} but {e}")))?;
        if self.pinned.contains(&(source, &person)) {
            return Err((
                ProblemKind::PinnedElsewhere,
                format!(
                    "{label} at {source} has the e-mail of {person}, whom [[identity]] maps to another user id; correct the mapping if the user was re-created"
                ),
            ));
        }
        if self.by_email.get(&(source, lower(email))) == Some(&None) {
            return Err((
                ProblemKind::AmbiguousUser,
                format!("several users of {source} have the e-mail {person}; map the right id in [[identity]]"),
            ));
        }
        Ok(person)
    }
}

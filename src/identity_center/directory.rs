//! Reads the whole identity store at once, where so many people are to be looked up that a list of everybody asks for less.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_sdk_identitystore::types::{User, UserStatus};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::client::{Client, PAGE, Paging, required, unreadable};
use super::limiter::Priority;
use super::people::{Key, PeopleCache};
use super::targets::fresh;
use super::{AwsError, Call, ListOf, Resolution, UserPin};
use crate::model::{Person, PrincipalId};

/// When more people wait than this, the store is listed. How large it is, nobody knows beforehand; but so many people are
/// 100 to 300 requests one by one, five to sixteen seconds, and a page of the list tells of as many. Whoever has fewer
/// needs neither the list nor the permission for it.
const MANY: usize = 100;

/// A listing may take so long for each request that it saves, and then keeps nobody waiting any more: ten times what a
/// request takes by the limit, because at a start the reads of all targets wait in the same queue.
const FOR_EACH: SignedDuration = SignedDuration::from_millis(500);

/// It never takes longer than this.
const LONGEST: SignedDuration = SignedDuration::from_mins(15);

/// After a listing that failed, people are looked up one by one for so long.
const FAILED_FOR: SignedDuration = SignedDuration::from_mins(5);

/// For so long it is remembered that listing is not allowed or tells nothing, and how many pages there are.
const REMEMBERED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Who waits for a lookup, and what is known of lists.
#[derive(Debug, Default)]
pub(super) struct Directory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<Key, Waiter>,
    /// How many of them a list could not tell who they are.
    alone: usize,
    /// Closed when the listing that is under way ends.
    under_way: Option<watch::Receiver<()>>,
    /// How many were to be confirmed when it was begun, whether or not they wait: it confirms all of them.
    due: usize,
    /// Since when, and for how long, no list is asked for.
    without: Option<(Timestamp, SignedDuration)>,
    /// The pages that a listing had, or at least needs, and when that was learnt.
    pages: Option<(usize, Timestamp)>,
    refusal_was_said: bool,
}

#[derive(Debug, Default)]
struct Waiter {
    tasks: usize,
    alone: bool,
}

impl State {
    /// How many wait to whom a list may tell who they are.
    fn many(&self) -> usize {
        self.waiting.len() - self.alone
    }

    fn is_listing(&self) -> bool {
        let listing = self.under_way.as_ref();
        listing.is_some_and(|listing| listing.has_changed().is_ok())
    }

    /// How many requests a list saves at least, and so how many pages it may have. In vain, in a store that is far larger
    /// than those who are looked for, it doubles what they cost at most.
    fn saves(&self) -> usize {
        self.many().max(self.due)
    }

    /// Whether listing asks for less than looking up one by one, as far as is known.
    fn pays(&mut self, people: &PeopleCache, now: Timestamp) -> bool {
        let refused = self.without.is_some_and(|(at, lasts)| fresh(at, lasts, now));
        if refused || self.many() <= MANY {
            return false;
        }
        // Counted once for each crowd, because it is to be looked at for everybody who joins it.
        if self.many() == MANY + 1 {
            self.due = people.due(now);
        }
        let pages = self.pages.filter(|(_, at)| fresh(*at, REMEMBERED_FOR, now));
        pages.is_none_or(|(pages, _)| pages < self.saves())
    }
}

/// Somebody waits, as long as this lives.
pub(super) struct Waiting<'a> {
    directory: &'a Directory,
    key: &'a Key,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.directory.state();
        if let Some(waiter) = state.waiting.get_mut(self.key) {
            waiter.tasks -= 1;
            if waiter.tasks == 0 {
                state.alone -= usize::from(waiter.alone);
                state.waiting.remove(self.key);
            }
        }
    }
}

impl Directory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody waits for this person already.
    pub(super) fn is_waiting(&self, key: &Key) -> bool {
        self.state().waiting.contains_key(key)
    }

    /// The listing that is under way and may tell who this is; it closes at its end.
    pub(super) fn listing_for(&self, key: &Key) -> Option<watch::Receiver<()>> {
        let state = self.state();
        let may_tell = state.waiting.get(key).is_some_and(|waiter| !waiter.alone);
        state.under_way.clone().filter(|_| may_tell && state.is_listing())
    }
}

/// Why there is no list.
enum Stop {
    /// The permission is missing.
    Refused,
    /// It does not tell who is disabled.
    NoStatus,
    /// So many pages were not all.
    TooLong(usize),
    /// As the error says.
    Failed(AwsError),
}

impl From<AwsError> for Stop {
    fn from(error: AwsError) -> Self {
        Self::Failed(error)
    }
}

impl Client {
    /// Counts somebody among those who wait, and begins a listing when they are so many that it asks for less.
    pub(super) fn waiting<'a>(&'a self, key: &'a Key) -> Waiting<'a> {
        let directory = &self.shared.people.directory;
        let mut state = directory.state();
        state.waiting.entry(key.clone()).or_default().tasks += 1;
        if !state.is_listing() && state.pays(&self.shared.people, self.shared.clock.now()) {
            let (ended, under_way) = watch::channel(());
            state.under_way = Some(under_way);
            let client = self.clone();
            tokio::spawn(async move { client.list(ended).await });
        }
        Waiting { directory, key }
    }

    /// Reads the list and tells those who wait who they are. Whoever is not told is looked up one by one.
    async fn list(&self, ended: watch::Sender<()>) {
        let people = &self.shared.people;
        let began = self.shared.clock.now();
        let listing = self.read_users(began).await;
        let now = self.shared.clock.now();
        let mut state = people.directory.state();
        match listing {
            Ok(listing) => {
                state.pages = Some((listing.pages, now));
                // Also whoever does not wait is confirmed; all were so when the list was begun.
                people.take_in(began, |key, formerly| listing.answer(key, Some(formerly)));
                let mut alone = 0;
                for (key, waiter) in &mut state.waiting {
                    waiter.alone = match (people.confirmed(key), listing.answer(key, None)) {
                        (Some(at), _) => at < began,
                        (None, Some(resolution)) => {
                            people.learn(key.clone(), resolution, began);
                            false
                        }
                        (None, None) => true,
                    };
                    alone += usize::from(waiter.alone);
                }
                state.alone = alone;
            }
            Err(Stop::Refused) => {
                state.without = Some((now, REMEMBERED_FOR));
                if !std::mem::replace(&mut state.refusal_was_said, true) {
                    tracing::warn!(
                        people = state.waiting.len(),
                        "AWS does not let us list users, so each person is looked up by up to three requests; nothing else \
                         depends on it. Where a complete plan after a start takes too long for it, allow \
                         identitystore:ListUsers as `dutybound iam-policy` prints it; otherwise there is nothing to do"
                    );
                }
            }
            Err(Stop::NoStatus) => {
                state.without = Some((now, REMEMBERED_FOR));
                tracing::debug!("the list of users does not tell who is disabled; people are looked up one by one");
            }
            Err(Stop::TooLong(pages)) => {
                // Not to try it again for a few people more.
                state.pages = Some((pages * 2, now));
                tracing::debug!(
                    pages,
                    "there are far more users than people to look up; they are looked up one by one"
                );
            }
            Err(Stop::Failed(error)) => {
                state.without = Some((now, FAILED_FOR));
                tracing::warn!(%error, "the list of users could not be read; people are looked up one by one");
            }
        }
        (state.under_way, state.due) = (None, 0);
        drop(state);
        drop(ended);
    }

    /// All users, or none.
    async fn read_users(&self, began: Timestamp) -> Result<Listing, Stop> {
        let store = &self.instance().await?.identity_store_id;
        let call = Call::ListUsers;
        let mut listing = Listing::default();
        let mut paging = Paging::new(call);
        let mut token: Option<String> = None;
        loop {
            let saves = self.shared.people.directory.state().saves();
            if saves <= listing.pages {
                return Err(Stop::TooLong(listing.pages));
            }
            let longest = FOR_EACH
                .saturating_mul(i32::try_from(saves).unwrap_or(i32::MAX))
                .min(LONGEST);
            if !fresh(began, longest, self.shared.clock.now()) {
                return Err(unreadable(call, "people wait too long for the list to be read to its end").into());
            }
            let page = self.persist(call, Priority::Look, || {
                let request = self.shared.store.list_users();
                request
                    .identity_store_id(store)
                    .max_results(PAGE)
                    .set_next_token(token.clone())
                    .send()
            });
            let page = page
                .await
                .map_err(|failure| failure.refused_or(Stop::Refused, &self.shared.site))?;
            self.shared.looks.note_page(ListOf::People);
            // Older instances of the service and simulators say of nobody whether they are disabled, and then the list
            // answers nothing.
            if listing.pages == 0 && !page.users.is_empty() && page.users.iter().all(|user| user.user_status.is_none())
            {
                return Err(Stop::NoStatus);
            }
            for user in page.users {
                listing.add(user, store)?;
            }
            listing.pages += 1;
            token = match paging.after(page.next_token)? {
                Some(next) => Some(next),
                None => return Ok(listing),
            };
        }
    }
}

/// Every user of the store.
#[derive(Debug, Default)]
struct Listing {
    users: Vec<Listed>,
    by_id: HashMap<PrincipalId, usize>,
    /// By user name and by each e-mail, in lower case.
    by_address: HashMap<String, Vec<usize>>,
    pages: usize,
}

#[derive(Debug)]
struct Listed {
    id: PrincipalId,
    user_name: Option<String>,
    /// Unknown where the list did not say so, or listed the user twice, because then they changed meanwhile.
    status: Option<UserStatus>,
}

impl Listing {
    fn add(&mut self, user: User, store: &str) -> Result<(), AwsError> {
        let call = Call::ListUsers;
        let id = PrincipalId(required(call, "UserId", Some(user.user_id()))?.into());
        if !["", store].contains(&user.identity_store_id()) {
            return Err(unreadable(call, "the list contains a user of another identity store"));
        }
        let number = self.users.len();
        let emails = user.emails().iter().filter_map(|email| email.value());
        let mut addresses: Vec<String> = user
            .user_name()
            .into_iter()
            .chain(emails)
            .map(str::to_ascii_lowercase)
            .collect();
        addresses.sort();
        addresses.dedup();
        for address in addresses {
            self.by_address.entry(address).or_default().push(number);
        }
        let mut status = user.user_status;
        if let Some(former) = self.by_id.insert(id.clone(), number) {
            self.users[former].status = None;
            status = None;
        }
        self.users.push(Listed {
            id,
            user_name: user.user_name,
            status,
        });
        Ok(())
    }

    /// Who this is, or `None` where only a lookup can tell.
    ///
    /// That somebody is in the list proves that they are there. That somebody is missing proves nothing: how AWS pages
    /// through a store that changes meanwhile is not documented, and whoever is passed over would lose access. So whoever
    /// was known, or has never been looked for, is looked up before they count as gone.
    fn answer(&self, key: &Key, formerly: Option<&Resolution>) -> Option<Resolution> {
        let found = self.find(&key.0, key.1.as_ref())?;
        let is_known_to_be_unknown = formerly == Some(&Resolution::Unknown);
        let candidates = formerly.map(Resolution::candidates).unwrap_or_default();
        let lacks_nobody = candidates.iter().all(|id| self.by_id.contains_key(id));
        let is_proven = lacks_nobody && (is_known_to_be_unknown || found != Resolution::Unknown);
        is_proven.then_some(found)
    }

    /// Who matches, as lookups compare. `None` when the status of one of them is not known: DescribeUser may tell that they
    /// are disabled, and a field that a list omits must give nobody access.
    fn find(&self, person: &Person, pin: Option<&UserPin>) -> Option<Resolution> {
        let at = |address: &str| {
            let numbers = self.by_address.get(&address.to_ascii_lowercase());
            numbers.map(Vec::as_slice).unwrap_or_default().iter()
        };
        let numbers: Vec<usize> = match pin {
            Some(UserPin::Id(id)) => self.by_id.get(id).copied().into_iter().collect(),
            Some(UserPin::UserName(name)) => {
                let is_called_so = |number: &&usize| self.users[**number].user_name.as_ref() == Some(name);
                at(name).filter(is_called_so).copied().collect()
            }
            None => at(person.as_str()).copied().collect(),
        };
        let mut matching: Vec<(PrincipalId, UserStatus)> = Vec::new();
        for number in numbers {
            let user = &self.users[number];
            matching.push((user.id.clone(), user.status.clone()?));
        }
        matching.sort_by(|(one, _), (other, _)| one.cmp(other));
        Some(match &matching[..] {
            [] => Resolution::Unknown,
            [(id, UserStatus::Enabled)] => Resolution::Found(id.clone()),
            [(id, _)] => Resolution::Disabled(id.clone()),
            _ => Resolution::Ambiguous(matching.into_iter().map(|(id, _)| id).collect()),
        })
    }
}

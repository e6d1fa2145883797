//! Finds the groups that owners name, one by one or, where many wait, in one list of all, and remembers them.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_identitystore::types::Group;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Semaphore;

use super::client::{Client, PAGE, Paging, required, unreadable};
use super::limiter::Priority;
use super::people::unique_attribute;
use super::targets::{FOUND_FOR, fresh, not_found};
use super::{AwsError, AwsErrorKind, Call, ListOf};
use crate::model::GroupRef;

/// When more groups wait than this, all are listed: a page of the list tells of as many. Whoever names fewer needs neither
/// the list nor the permission for it.
pub(crate) const MANY: usize = 100;

/// A list may have one page for so many groups that wait. How many there are, nobody knows beforehand: read in vain, it makes
/// a third more requests.
const FOR_A_PAGE: usize = 3;

/// It may take so long for each group that waits, three times what asking for it alone takes by the limit.
const FOR_EACH: SignedDuration = SignedDuration::from_millis(150);

/// It never takes longer than this.
const LONGEST: SignedDuration = SignedDuration::from_mins(5);

/// So many are looked up beside each other; the others are counted meanwhile.
const AT_ONCE: usize = 8;

/// A lookup that takes longer keeps no other waiting.
const SLOW: Duration = Duration::from_secs(2);

/// After a list, read or not, groups that it did not tell are looked up one by one for so long.
const LISTED_FOR: SignedDuration = SignedDuration::from_mins(5);

/// For so long it is remembered that listing is not allowed, and how many pages there are.
const REMEMBERED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// What was looked up, and who waits.
#[derive(Debug)]
pub(super) struct Groups {
    found: Mutex<HashMap<GroupRef, (String, Timestamp)>>,
    /// Which are waited for, and by how many lookups.
    waiting: Mutex<HashMap<GroupRef, usize>>,
    places: Semaphore,
    /// Held while listing, so that one list is read for all.
    lists: tokio::sync::Mutex<Lists>,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            found: Mutex::default(),
            waiting: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
            lists: tokio::sync::Mutex::default(),
        }
    }
}

/// What is known of lists.
#[derive(Debug, Default)]
struct Lists {
    /// Since when, and for how long, none is asked for.
    without: Option<(Timestamp, SignedDuration)>,
    /// The pages that a list had, or at least needs, and when that was learnt.
    pages: Option<(usize, Timestamp)>,
    refusal_was_said: bool,
}

/// Why there is no list.
enum Stop {
    /// The permission is missing.
    Refused,
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

/// A group is waited for, as long as this lives.
struct Waiting<'a> {
    groups: &'a Groups,
    group: &'a GroupRef,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.groups.waiting();
        if let Some(lookups) = waiting.get_mut(self.group) {
            *lookups -= 1;
            if *lookups == 0 {
                waiting.remove(self.group);
            }
        }
    }
}

impl Groups {
    fn found(&self) -> MutexGuard<'_, HashMap<GroupRef, (String, Timestamp)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<GroupRef, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&'a self, group: &'a GroupRef) -> Waiting<'a> {
        *self.waiting().entry(group.clone()).or_default() += 1;
        Waiting { groups: self, group }
    }

    fn known(&self, group: &GroupRef, now: Timestamp) -> Option<String> {
        let found = self.found();
        let (id, at) = found.get(group)?;
        fresh(*at, FOUND_FOR, now).then(|| id.clone())
    }

    /// Forgets a group, because AWS says that it is gone.
    pub(super) fn forget(&self, group_id: &str) {
        self.found().retain(|_, (id, _)| id != group_id);
    }

    /// Takes in a list that was begun at `at`: of those that wait, and of those that were found before.
    fn take_in(&self, list: &List, at: Timestamp) {
        let mut found = self.found();
        let asked: HashSet<GroupRef> = self.waiting().keys().chain(found.keys()).cloned().collect();
        for group in asked {
            // A lookup may have been made since.
            let is_newer = found.get(&group).is_some_and(|(_, confirmed)| at <= *confirmed);
            if let Some(id) = list.find(&group).filter(|_| !is_newer) {
                let id = id.to_owned();
                found.insert(group, (id, at));
            }
        }
    }
}

/// All groups by name and id. How AWS pages through groups that change meanwhile is not documented: that one is in the list
/// proves that it is there, and that it is missing proves nothing.
#[derive(Debug, Default)]
struct List {
    /// The id of each display name; `None` where several have it.
    by_name: HashMap<String, Option<String>>,
    ids: HashSet<String>,
    pages: usize,
}

impl List {
    fn add(&mut self, group: &Group, store: &str) -> Result<(), AwsError> {
        let call = Call::ListGroups;
        let id = required(call, "GroupId", Some(group.group_id()))?;
        if !["", store].contains(&group.identity_store_id()) {
            return Err(unreadable(call, "the list contains a group of another identity store"));
        }
        if let Some(name) = group.display_name() {
            let named = self.by_name.entry(name.to_owned()).or_insert_with(|| Some(id.clone()));
            if named.as_ref() != Some(&id) {
                *named = None;
            }
        }
        self.ids.insert(id);
        Ok(())
    }

    /// The id of that group, or `None` where only a lookup can tell.
    fn find<'a>(&'a self, group: &'a GroupRef) -> Option<&'a str> {
        match group {
            GroupRef::Name(name) => self.by_name.get(name)?.as_deref(),
            GroupRef::Id(id) => self.ids.get(id).map(String::as_str),
        }
    }
}

impl Client {
    /// The id of a group.
    pub(super) async fn group(&self, group: &GroupRef) -> Result<String, AwsError> {
        let groups = &self.shared.groups;
        if let Some(id) = groups.known(group, self.shared.clock.now()) {
            return Ok(id);
        }
        let _waiting = groups.wait(group);
        // Nobody closes the places; without one the lookup would only be made sooner.
        let place = groups.places.acquire().await.ok();
        // Boxed, here and below, so that the thousands who may wait take little.
        Box::pin(self.list_groups_for_many()).await;
        if let Some(id) = groups.known(group, self.shared.clock.now()) {
            return Ok(id);
        }
        let mut lookup = Box::pin(self.group_alone(group));
        match tokio::time::timeout(SLOW, &mut lookup).await {
            Ok(found) => found,
            Err(_elapsed) => {
                drop(place);
                lookup.await
            }
        }
    }

    async fn group_alone(&self, group: &GroupRef) -> Result<String, AwsError> {
        let now = self.shared.clock.now();
        let store = &self.instance().await?.identity_store_id;
        let (call, answer) = match group {
            GroupRef::Name(name) => (Call::GetGroupId, self.group_id(store, name).await),
            GroupRef::Id(id) => (Call::DescribeGroup, self.describe_group(store, id).await),
        };
        match answer {
            Ok(id) => {
                let found = (id.clone(), now);
                self.shared.groups.found().insert(group.clone(), found);
                Ok(id)
            }
            Err(error) if error.kind == AwsErrorKind::NotFound => {
                self.shared.groups.found().remove(group);
                let by = match group {
                    GroupRef::Name(_) => "display name",
                    GroupRef::Id(_) => "id",
                };
                Err(not_found(
                    call,
                    format!(
                        "there is no group with the {by} \"{group}\" in identity store {store}; correct the group in \
                         the policy or create it (dutybound creates no groups)"
                    ),
                ))
            }
            Err(error) => Err(error),
        }
    }

    async fn group_id(&self, store: &str, name: &str) -> Result<String, AwsError> {
        let call = Call::GetGroupId;
        let identifier = unique_attribute(call, "displayName", name)?;
        let answer = self
            .run(call, Priority::Look, || {
                let request = self.shared.store.get_group_id();
                request
                    .identity_store_id(store)
                    .alternate_identifier(identifier.clone())
                    .send()
            })
            .await?;
        required(call, "GroupId", Some(answer.group_id()))
    }

    async fn describe_group(&self, store: &str, id: &str) -> Result<String, AwsError> {
        let call = Call::DescribeGroup;
        let answer = self
            .run(call, Priority::Look, || {
                let request = self.shared.store.describe_group();
                request.identity_store_id(store).group_id(id).send()
            })
            .await?;
        if answer.group_id() == id {
            Ok(id.to_owned())
        } else {
            Err(unreadable(
                call,
                "the answer describes another group than the one asked for",
            ))
        }
    }

    /// Lists all groups when so many wait that it asks for less than looking them up one by one.
    async fn list_groups_for_many(&self) {
        let groups = &self.shared.groups;
        let mut lists = groups.lists.lock().await;
        let began = self.shared.clock.now();
        let waiting = groups.waiting().len();
        let is_without = lists.without.is_some_and(|(at, lasts)| fresh(at, lasts, began));
        let pages = lists.pages.filter(|(_, at)| fresh(*at, REMEMBERED_FOR, began));
        if waiting <= MANY || is_without || pages.is_some_and(|(pages, _)| waiting <= pages * FOR_A_PAGE) {
            return;
        }
        let listed = self.read_groups(waiting, began).await;
        let now = self.shared.clock.now();
        lists.without = Some((now, LISTED_FOR));
        match listed {
            Ok(list) => {
                lists.pages = Some((list.pages, now));
                groups.take_in(&list, began);
            }
            Err(Stop::Refused) => {
                lists.without = Some((now, REMEMBERED_FOR));
                if !std::mem::replace(&mut lists.refusal_was_said, true) {
                    tracing::warn!(
                        groups = waiting,
                        "AWS does not let us list groups, so each group is looked up by a request; nothing else depends \
                         on it. Where the first pass after a start takes too long for it, allow identitystore:ListGroups \
                         as `dutybound iam-policy` prints it; otherwise there is nothing to do"
                    );
                }
            }
            Err(Stop::TooLong(pages)) => {
                // Not to try it again for a few groups more.
                lists.pages = Some((pages * 2, now));
                tracing::debug!(
                    pages,
                    "there are far more groups than are named; they are looked up one by one"
                );
            }
            Err(Stop::Failed(error)) => {
                tracing::warn!(%error, "the list of groups could not be read; groups are looked up one by one");
            }
        }
    }

    /// All groups, or none where that takes too much for so many who wait.
    async fn read_groups(&self, waiting: usize, began: Timestamp) -> Result<List, Stop> {
        let store = &self.instance().await?.identity_store_id;
        let call = Call::ListGroups;
        let mut list = List::default();
        let mut paging = Paging::new(call);
        let mut token: Option<String> = None;
        let longest = FOR_EACH.saturating_mul(i32::try_from(waiting).unwrap_or(i32::MAX));
        while list.pages < waiting / FOR_A_PAGE {
            if !fresh(began, longest.min(LONGEST), self.shared.clock.now()) {
                return Err(unreadable(call, "groups wait too long for the list to be read to its end").into());
            }
            let page = self.persist(call, Priority::Look, || {
                let request = self.shared.store.list_groups();
                request
                    .identity_store_id(store)
                    .max_results(PAGE)
                    .set_next_token(token.clone())
                    .send()
            });
            let page = page
                .await
                .map_err(|failure| failure.refused_or(Stop::Refused, &self.shared.site))?;
            self.shared.looks.note_page(ListOf::Targets);
            for group in &page.groups {
                list.add(group, store)?;
            }
            list.pages += 1;
            token = match paging.after(page.next_token)? {
                Some(next) => Some(next),
                None => return Ok(list),
            };
        }
        Err(Stop::TooLong(list.pages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group that was deleted and made anew while the list was read has the id that was looked up last.
    #[test]
    fn a_lookup_that_was_made_while_a_list_was_read_stays() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let [old, new, waits] = ["old", "new", "waits"].map(|name| GroupRef::Name(name.to_owned()));
        let groups = Groups::default();
        groups.found().insert(old.clone(), ("g-before".to_owned(), at(1)));
        groups.found().insert(new.clone(), ("g-since".to_owned(), at(9)));
        let _waiting = [groups.wait(&new), groups.wait(&waits)];
        let mut list = List::default();
        for name in ["old", "new", "waits"] {
            list.by_name.insert(name.to_owned(), Some(format!("g-{name}")));
        }
        groups.take_in(&list, at(5));
        let id = |group| groups.known(group, at(10)).unwrap();
        assert_eq!([id(&old), id(&new), id(&waits)], ["g-old", "g-since", "g-waits"]);
    }
}

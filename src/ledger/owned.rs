//! What is ours, kept in step with the ledger by the events that tell of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashMap;
use sqlx::Row;

use super::access::owned_of;
use super::{Ledger, LedgerError, ends_of_chain};
use crate::model::{EntitlementId, Person, ResolvedTarget, Texts};
use crate::plan::{Key, Owned};

/// More changed rows than this are not worth asking for one by one.
const FEW: i64 = 20_000;

/// So many texts for a grant are more than its own.
const MANY_TEXTS: usize = 8;

/// Access that stands through us, by entitlement. Empty until it has first caught up.
#[derive(Debug, Default)]
pub struct OwnedIndex {
    /// The last event that is taken in.
    seq: Option<i64>,
    by_entitlement: BTreeMap<Arc<EntitlementId>, BTreeMap<Arc<Key>, Arc<Owned>>>,
    by_id: HashMap<i64, (Arc<EntitlementId>, Arc<Key>)>,
    /// Most of what is granted repeats what a grant before it said.
    texts: Texts,
}

/// What is on record of an entitlement, or was until now, has changed.
pub type Touched = BTreeSet<(EntitlementId, ResolvedTarget)>;

impl OwnedIndex {
    /// Takes in what was recorded since the last time, by whatever process, and says what that concerns.
    ///
    /// # Errors
    /// [`LedgerError`]; the index then stays as it was, or is read anew the next time.
    pub async fn catch_up(&mut self, ledger: &Ledger) -> Result<Touched, LedgerError> {
        let (first, last) = ends_of_chain(&mut *ledger.pool.acquire().await?).await?;
        // Events that were removed because of their age may not have been taken in.
        let follows = |seen: &i64| first <= *seen + 1 && *seen <= last && last - *seen <= FEW;
        let Some(seen) = self.seq.filter(follows) else {
            return self.start_anew(ledger, last).await;
        };
        if seen == last {
            return Ok(Touched::new());
        }
        // By the plus SQLite goes along the few new events, and not through all that ever told of access.
        let rows = sqlx::query(
            "SELECT row FROM event WHERE seq > ?1 AND seq <= ?2 AND +tbl = 'access' \
             UNION SELECT c.access_id FROM event e JOIN cause c ON c.id = e.row WHERE e.seq > ?1 AND e.seq <= ?2 AND +e.tbl = 'cause'",
        )
        .bind(seen)
        .bind(last)
        .fetch_all(&ledger.pool)
        .await?;
        let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        let stands = owned_of(&ledger.pool, Some(&ids), &mut self.texts).await?;
        let mut touched = Touched::new();
        for id in ids {
            if let Some((entitlement, key)) = self.by_id.remove(&id) {
                if let Some(of) = self.by_entitlement.get_mut(&entitlement) {
                    of.remove(&key);
                    if of.is_empty() {
                        self.by_entitlement.remove(&entitlement);
                    }
                }
                touched.insert(((*entitlement).clone(), key.0.clone()));
            }
        }
        for (key, owned) in stands {
            touched.insert((owned.entitlement.clone(), key.0.clone()));
            self.insert(key, owned);
        }
        // What nothing says any more would be kept for ever otherwise.
        if MANY_TEXTS * (self.len() + 1_000) < self.texts.len() {
            self.texts = Texts::default();
        }
        self.seq = Some(last);
        Ok(touched)
    }

    async fn start_anew(&mut self, ledger: &Ledger, last: i64) -> Result<Touched, LedgerError> {
        let mut texts = Texts::default();
        let owned = owned_of(&ledger.pool, None, &mut texts).await?;
        let before = std::mem::replace(
            self,
            Self {
                texts,
                ..Self::default()
            },
        );
        let before = before.by_id.into_values();
        let mut touched: Touched = before.map(|(id, key)| ((*id).clone(), key.0.clone())).collect();
        for (key, owned) in owned {
            touched.insert((owned.entitlement.clone(), key.0.clone()));
            self.insert(key, owned);
        }
        // What was recorded since the events were counted may be in already; it is taken in once more the next time.
        self.seq = Some(last);
        Ok(touched)
    }

    fn insert(&mut self, key: Key, owned: Owned) {
        let known = self.by_entitlement.get_key_value(&owned.entitlement);
        let entitlement = known.map_or_else(|| Arc::new(owned.entitlement.clone()), |(id, _)| Arc::clone(id));
        let key = Arc::new(key);
        self.by_id
            .insert(owned.access_id, (Arc::clone(&entitlement), Arc::clone(&key)));
        self.by_entitlement
            .entry(entitlement)
            .or_default()
            .insert(key, Arc::new(owned));
    }

    /// What this person holds through us as that entitlement.
    #[must_use]
    pub fn of_person(&self, entitlement: &EntitlementId, person: &Person) -> Option<&Owned> {
        let mut here = self.by_entitlement.get(entitlement)?.values();
        here.find(|owned| owned.person == *person).map(|owned| &**owned)
    }

    /// How many grants of ours stand.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Those of the entitlements that the caller asks for, who is asked in strictly ascending order.
    #[must_use]
    pub fn of<'a>(&'a self, mut wanted: impl FnMut(&'a EntitlementId) -> bool) -> BTreeMap<Key, Arc<Owned>> {
        let groups = self.by_entitlement.iter().filter(|(id, _)| wanted(id));
        let all = groups.flat_map(|(_, of)| of.iter());
        all.map(|(key, owned)| ((**key).clone(), Arc::clone(owned))).collect()
    }

    /// How many stand of one entitlement.
    #[must_use]
    pub fn count(&self, entitlement: &EntitlementId) -> usize {
        self.by_entitlement.get(entitlement).map_or(0, BTreeMap::len)
    }
}

//! What stands now and over the coming week, as far as one page shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::rows::{Charts, HandOff, Held, Schedule, charts, hand_offs, held, schedules};
use super::words::{First, Item, When, as_of, attention};
use crate::commands::forecast::About;
use crate::commands::status::{self, Installation, Status};
use crate::forecast::page::{GapLine, gap_line};
use crate::forecast::{Forecast, days_from, forecast};
use crate::http::Site;
use crate::ledger::{AccessRow, LastReads, Ledger, LedgerError};
use crate::model::{EntitlementId, Interval, ProjectName};
use crate::policy::Policy;

/// Today and the coming six days.
const AHEAD_DAYS: u16 = 7;

/// Of everything a page shows few rows, and more on the pages of projects and people. The commands show all.
const HELD_BY_ALL: usize = 200;
const HELD: usize = 500;
const NEXT_OF_ALL: usize = 12;
const NEXT: usize = 30;
const GAPS: usize = 50;

/// Now, and what is known to come: the rows of a page, because all of a large organisation is a hundred thousand grants.
pub(super) struct Now {
    pub(super) at: When,
    pub(super) mode: String,
    pub(super) attention: First<Item>,
    pub(super) gaps: First<GapLine>,
    pub(super) held: First<Held>,
    pub(super) next_at: Option<When>,
    pub(super) next: Vec<HandOff>,
    pub(super) week: Charts,
    pub(super) schedules: First<Schedule>,
    pub(super) standing: Standing,
    pub(super) policy: Arc<Policy>,
}

/// How much stands in all; a page about a project or a person does not say.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) grants: usize,
    pub(super) holders: usize,
    pub(super) by_project: BTreeMap<ProjectName, usize>,
}

/// What a page is made from.
pub(super) struct World {
    pub(super) status: Status,
    pub(super) ahead: Forecast,
    pub(super) standing: Standing,
    pub(super) policy: Arc<Policy>,
    pub(super) policy_refused: bool,
}

/// Reads what a page about everything, or about a project or a person, shows. What is ahead comes from the stored
/// snapshots: nobody outside is asked because of a page.
pub(super) async fn read(site: &Site, about: Option<&About>, at: Timestamp) -> Result<Now, LedgerError> {
    let in_use = Arc::clone(&site.in_use.borrow());
    let installation = Installation {
        ledger: &site.ledger,
        ledger_path: &site.ledger_path,
        policy: &in_use.policy,
        identities: &in_use.identities,
        max_staleness: in_use.max_staleness,
    };
    let (access, standing) = match about {
        None => first_of_all(&site.ledger).await?,
        Some(_) => (status::access(&site.ledger, about, at).await?, Standing::default()),
    };
    let reads = LastReads::from(&*site.snapshots.lock().await);
    let status = status::read(&installation, &reads, about, access, at).await?;
    let snapshots = reads.of(&in_use.policy.schedules());
    let period = days_from(at, AHEAD_DAYS).unwrap_or(Interval::ALWAYS);
    let world = World {
        ahead: forecast(&in_use.policy, &snapshots, &in_use.identities, &None, period),
        status,
        standing,
        policy: Arc::clone(&in_use.policy),
        policy_refused: in_use.policy_refused,
    };
    Ok(world.shown(about))
}

/// How much stands in all, and the access to the first entitlements, as many as fill the page.
async fn first_of_all(ledger: &Ledger) -> Result<(Vec<AccessRow>, Standing), LedgerError> {
    let counts = ledger.standing_counts().await?;
    let mut standing = Standing {
        holders: ledger.count_holders().await?,
        ..Standing::default()
    };
    let mut first = BTreeSet::new();
    for (entitlement, grants) in counts {
        *standing.by_project.entry(entitlement.project.clone()).or_default() += grants;
        if standing.grants < HELD_BY_ALL {
            first.insert(entitlement);
        }
        standing.grants += grants;
    }
    let access = ledger.standing_access_to(&first).await?;
    // What came between the two reads is told of.
    standing.grants = standing.grants.max(access.len());
    Ok((access, standing))
}

impl World {
    /// The page about this, or about everything.
    pub(super) fn shown(self, about: Option<&About>) -> Now {
        let (status, at) = (&self.status, self.status.at);
        let concerns = |id: Option<&EntitlementId>, who: Option<&str>| match about {
            None => true,
            Some(About::Person(person)) => who == Some(person.as_str()),
            Some(about) => id.is_some_and(|id| about.concerns(id)),
        };
        let (most, most_next) = match about {
            None => (HELD_BY_ALL, NEXT_OF_ALL),
            Some(_) => (HELD, NEXT),
        };
        let ahead = match about {
            None => self.ahead,
            Some(about) => about.only(self.ahead),
        };
        let mine = status.access.iter();
        let mine = mine.filter(|row| concerns(Some(&row.entitlement), Some(row.person.as_str())));
        let mut held = First::of(mine, most).map(|row| held(row, &ahead, at));
        if about.is_none() {
            held.all = self.standing.grants;
        }
        let (next_at, next) = hand_offs(&ahead, at, most_next);
        Now {
            at: as_of(at),
            mode: status
                .last_pass
                .as_ref()
                .map_or_else(|| "not known yet".to_owned(), |board| board.mode.clone()),
            attention: attention(status, self.policy_refused, &concerns),
            gaps: First::of(ahead.gaps.iter(), GAPS).map(gap_line),
            held,
            next_at,
            next,
            week: charts(&ahead),
            schedules: schedules(&status.schedules, at),
            standing: self.standing,
            policy: self.policy,
        }
    }
}

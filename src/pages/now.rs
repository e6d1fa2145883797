//! What stands now and over the coming week, read from the record for every page at once.

use std::sync::Arc;

use jiff::Timestamp;

use crate::commands::status::{self, Installation, Status};
use crate::desired::Snapshots;
use crate::forecast::{Forecast, days_from, forecast};
use crate::http::Site;
use crate::ledger::LedgerError;
use crate::model::Interval;
use crate::policy::Policy;

/// Today and the coming six days.
const AHEAD_DAYS: u16 = 7;

/// Now, and what is known to come.
#[derive(Debug)]
pub(super) struct Now {
    pub(super) status: Status,
    pub(super) ahead: Forecast,
    pub(super) snapshots: Snapshots,
    pub(super) policy: Arc<Policy>,
    pub(super) policy_refused: bool,
}

/// Reads it. What is ahead comes from the stored snapshots: nobody outside is asked because of a page.
pub(super) async fn read(site: &Site, at: Timestamp) -> Result<Now, LedgerError> {
    let in_use = Arc::clone(&site.in_use.borrow());
    let installation = Installation {
        ledger: &site.ledger,
        ledger_path: &site.ledger_path,
        policy: &in_use.policy,
        identities: &in_use.identities,
        max_staleness: in_use.max_staleness,
    };
    let reads = site.ledger.load_last_reads().await?;
    let status = status::read(&installation, &reads, None, at).await?;
    let snapshots = reads.of(&in_use.policy.schedules());
    let period = days_from(at, AHEAD_DAYS).unwrap_or(Interval::ALWAYS);
    let ahead = forecast(&in_use.policy, &snapshots, &in_use.identities, &None, period);
    Ok(Now {
        status,
        ahead,
        snapshots,
        policy: Arc::clone(&in_use.policy),
        policy_refused: in_use.policy_refused,
    })
}

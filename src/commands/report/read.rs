//! Reads what a report is made from.

use super::{Baseline, OnRecord, ReportError, Request, report};
use crate::accounting::LONGEST_SESSION;
use crate::config::Identity;
use crate::ledger::Ledger;
use crate::policy::Policy;
use jiff::SignedDuration;

/// The report by the ledger, against what `policy` and the stored schedules would give.
///
/// # Errors
/// When the ledger cannot be read, or the report cannot be written down.
pub async fn read(
    ledger: &Ledger,
    policy: &Policy,
    identities: &[Identity],
    request: &Request,
) -> Result<Vec<u8>, ReportError> {
    let period = request.period;
    let on_record = OnRecord {
        rows: ledger
            .access_in(period.widen(LONGEST_SESSION, SignedDuration::ZERO))
            .await?,
        unheld: ledger.unheld_in(period).await?,
        sessions: ledger.sessions().await?,
        restorations: ledger.restorations().await?,
        begins: ledger.begins().await?,
        policies: ledger.policies_in(period).await?,
    };
    let snapshots = ledger.load_last_reads().await?.of(&policy.schedules());
    let baseline = Baseline {
        policy,
        snapshots: &snapshots,
        identities,
    };
    let mut out = Vec::new();
    report(&on_record, Some(baseline), request, &mut out)?;
    Ok(out)
}

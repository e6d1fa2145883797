//! `revoke`: takes what a person, or everybody, holds through us at once and keeps it away until lifted.
//!
//! It asks no on-call provider and does not depend on the policy being in order: it is for the day on which someone's
//! laptop is stolen. Where the daemon runs, the order is left in its ledger and the daemon carries it out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use crate::apply::Applied;
use crate::clock::Clock;
use crate::config::{Config, Mode};
use crate::identity_center::ChangeKind;
use crate::ledger::{Ledger, LedgerError};
use crate::model::{Person, ResolvedTarget};
use crate::policy::Policy;
use crate::reconcile::{PassError, Reconciler};

/// How long the command watches the daemon carry the order out.
const WATCH: SignedDuration = SignedDuration::from_secs(120);

/// Carries out the bars of the ledger, and nothing else of the plan.
///
/// # Errors
/// [`PassError`]; the bar is on record and the next pass tries again.
pub async fn carry_out(
    reconciler: &mut Reconciler,
    config: &Config,
    policy: Option<&Arc<Policy>>,
) -> Result<Vec<Applied>, PassError> {
    let none = Arc::new(Policy {
        commit: None,
        revision: String::new(),
        projects: BTreeMap::new(),
        invariants: Vec::new(),
    });
    let policy = policy.unwrap_or(&none);
    let pass = reconciler.look(config, policy, None).await?;
    let Some(applier) = &reconciler.applier else {
        return Ok(Vec::new());
    };
    let look = |target: &ResolvedTarget| reconciler.live.look(target);
    applier.start(
        pass.survey.verdict.approved.ordered(),
        &policy.revision,
        |id| policy.priority(id),
        look,
    );
    applier.idle().await;
    Ok(applier.take_results())
}

/// How many grants stand or are being made. One that AWS still works on is not owned yet, and would be overlooked.
///
/// # Errors
/// [`LedgerError`].
pub async fn left(ledger: &Ledger, person: Option<&Person>) -> Result<usize, LedgerError> {
    // Intents first: a grant that is confirmed between the two looks is then counted twice and not missed.
    let intents = ledger.open_intents().await?;
    let coming = intents.iter().filter(|intent| {
        intent.change.kind == ChangeKind::Grant && person.is_none_or(|p| intent.change.person.as_ref() == Some(p))
    });
    let owned = ledger.owned().await?;
    let standing = owned.values().filter(|owned| person.is_none_or(|p| owned.person == *p));
    Ok(coming.count() + standing.count())
}

/// What the daemon has still to take away, asked until nothing is left or the patience of a person ends.
///
/// # Errors
/// [`LedgerError`].
pub async fn watch(ledger: &Ledger, clock: &Arc<dyn Clock>, person: Option<&Person>) -> Result<usize, LedgerError> {
    let began = clock.now();
    loop {
        let left = left(ledger, person).await?;
        if left == 0 || WATCH < began.duration_until(clock.now()) {
            return Ok(left);
        }
        clock.sleep(Duration::from_millis(200)).await;
    }
}

/// A configuration under which the order can be carried out although the mode writes nothing by itself.
#[must_use]
pub fn with_a_writer(config: &Config) -> Config {
    let mode = if config.mode == Mode::Observe {
        Mode::RevokeOnly
    } else {
        config.mode
    };
    Config { mode, ..config.clone() }
}

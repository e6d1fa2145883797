//! `diff --base`: compares the policy with a former one under the same schedules, without asking AWS anything.

use std::collections::BTreeMap;
use std::path::Path;

use crate::accounting::standing;
use crate::checkout;
use crate::compare::{Comparison, Side, compare};
use crate::config::Config;
use crate::diagnostics::Report;
use crate::forecast::forecast;
use crate::ledger::StoredSnapshots;
use crate::model::Interval;
use crate::policy::{self, Policy, PolicyContext};
use crate::poll::{self, Sources};

/// Why there is nothing to compare with.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// Git did not give it.
    #[error("{0:#}")]
    Git(anyhow::Error),
    /// It has mistakes.
    #[error("the policy to compare with cannot be used")]
    Policy(Report),
}

/// Loads the policy to compare with: a directory, or the policy directory as it was at a revision of its Git repository.
///
/// # Errors
/// [`BaseError`].
pub fn load(base: &str, policy_dir: &Path, context: &PolicyContext) -> Result<Policy, BaseError> {
    let loaded = if Path::new(base).is_dir() {
        policy::load(Path::new(base), context)
    } else {
        let (_, files) = checkout::at_revision(base, policy_dir).map_err(BaseError::Git)?;
        policy::parse(policy_dir, files, context)
    };
    loaded.map(|(policy, _)| policy).map_err(BaseError::Policy)
}

/// Compares what both policies lead to. Schedules are read from the providers unless `sources` is `None`; where they
/// cannot be, what is stored stands in, and the returned lines say so.
pub async fn look(
    config: &Config,
    before: &Policy,
    after: &Policy,
    sources: Option<&Sources>,
    mut stored: StoredSnapshots,
    period: Interval,
) -> (Comparison, Vec<String>) {
    let now = period.start();
    let mut schedules = before.schedules();
    schedules.extend(after.schedules());
    let mut notes = Vec::new();
    if let Some(sources) = sources {
        let window = poll::window(now, period.duration(), None);
        notes = poll::read_into(&mut stored, sources, &schedules, window, now).await;
    }
    let snapshots = stored.newest(&schedules);
    for unread in schedules.iter().filter(|key| !snapshots.contains_key(*key)) {
        notes.push(format!("{unread} is not known, so nobody gains or loses by it here"));
    }
    notes.sort();
    let outlook = |policy| forecast(policy, &snapshots, &config.identities, &None, period);
    let could = |policy| -> BTreeMap<_, _> { standing(policy, &snapshots, &config.identities, period) };
    let (old, new) = (outlook(before), outlook(after));
    let (could_before, could_after) = (could(before), could(after));
    let comparison = compare(
        Side {
            policy: before,
            forecast: &old,
            standing: &could_before,
        },
        Side {
            policy: after,
            forecast: &new,
            standing: &could_after,
        },
    );
    (comparison, notes)
}

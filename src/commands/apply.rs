//! `apply`: one guarded pass, awaited to its end.

use std::sync::Arc;

use jiff::Timestamp;

use crate::apply::{Applied, End, kind_word};
use crate::commands::diff;
use crate::config::Config;
use crate::guard::Guard;
use crate::identity_center::ChangeKind;
use crate::ledger::{Ledger, LedgerError};
use crate::policy::Policy;
use crate::poll::{self, Sources};
use crate::reconcile::{Pass, PassError, Reconciler};
use crate::text::{clean, instant};

/// Why a pass was not made.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The pass itself failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The approved plan is not today's.
    #[error(
        "the plan is now {now}, not {approved}; nothing was written. Look at `dutybound diff` again and approve what it shows"
    )]
    Moved {
        /// Today's digest.
        now: String,
        /// The digest that was approved.
        approved: String,
    },
    /// Something that the policy names does not exist, has never been read, or could not be read now.
    #[error("nothing was written, because the policy cannot be carried out as things are: {}", .0.join("; "))]
    Mistakes(Vec<String>),
}

impl From<LedgerError> for ApplyError {
    fn from(error: LedgerError) -> Self {
        Self::Pass(error.into())
    }
}

/// What one pass did.
pub struct Outcome {
    /// What it saw.
    pub look: Pass,
    /// How every change ended.
    pub applied: Vec<Applied>,
}

/// Reads every schedule, makes a pass and waits until its changes have ended. Unlike the daemon, which serves whom it
/// can, a pass that a person watches refuses to begin with a policy of which a part cannot be carried out.
///
/// # Errors
/// [`ApplyError`]; nothing was written to AWS then.
pub async fn run(
    reconciler: &mut Reconciler,
    config: &Config,
    policy: &Arc<Policy>,
    sources: &Sources,
    approve: Option<(&str, &str)>,
    show: impl FnOnce(&Pass, &crate::ledger::StoredSnapshots),
) -> Result<Outcome, ApplyError> {
    let now = reconciler.clock.now();
    let ledger: Ledger = reconciler.ledger.clone();
    let stored = Arc::clone(&reconciler.snapshots);
    read_schedules(reconciler, config, policy, sources, now).await?;
    let look = reconciler
        .look(config, policy, approve.map(|(digest, _)| digest))
        .await?;
    let mistakes = diff::mistakes(&look.survey);
    if !mistakes.is_empty() {
        reconciler.show(&look, config, policy).await?;
        return Err(ApplyError::Mistakes(mistakes));
    }
    if let Some((digest, by)) = approve {
        if look.survey.plan.digest != digest {
            return Err(ApplyError::Moved {
                now: look.survey.plan.digest.clone(),
                approved: digest.to_owned(),
            });
        }
        ledger.record_approval(digest, by, now).await?;
        ledger.use_approvals(true, now).await?;
    }
    show(&look, &*stored.lock().await);
    reconciler.act(&look, config, policy).await?;
    let (mut look, mut applied) = (look, Vec::new());
    if let Some(applier) = reconciler.applier.clone() {
        applier.idle().await;
        applied = applier.take_results();
        if hands_over_by_statement(&look) {
            for ended in applied.iter().filter(|ended| ended.end == End::Confirmed) {
                reconciler.live.note(&ended.change.key(), ended.change.kind);
            }
            match reconciler.look(config, policy, None).await {
                Ok(again) => {
                    reconciler.act(&again, config, policy).await?;
                    applier.idle().await;
                    applied.extend(applier.take_results());
                    look = again;
                }
                Err(error) => {
                    tracing::warn!(
                        reason = crate::chain(&error),
                        "what waited for a revoke is left to the next pass"
                    );
                }
            }
        }
        applied.sort_by(|a, b| {
            (a.at, a.change.kind, &a.change.entitlement).cmp(&(b.at, b.change.kind, &b.change.entitlement))
        });
        reconciler.show_ends(&look, &applied, config, policy).await?;
    }
    Ok(Outcome { look, applied })
}

/// Reads every schedule that the policy names, once, and puts it on record.
///
/// # Errors
/// [`LedgerError`]. A schedule that cannot be read is on record as that.
pub async fn read_schedules(
    reconciler: &Reconciler,
    config: &Config,
    policy: &Policy,
    sources: &Sources,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let ledger = &reconciler.ledger;
    let window = poll::window(now, config.timing.horizon, ledger.reads_back_to());
    for read in poll::read_all(sources, &policy.schedules(), window).await {
        let mut stored = reconciler.snapshots.lock().await;
        match read {
            Ok(snapshot) => {
                ledger.store_snapshot(&mut stored, snapshot, now).await?;
            }
            Err(error) => {
                ledger.store_failure(&mut stored, &error, now).await?;
            }
        }
    }
    Ok(())
}

/// Whether a grant that a statement holds back may come once a revoke of the same plan is confirmed: then the hand-off
/// takes a second pass.
fn hands_over_by_statement(look: &Pass) -> bool {
    let verdict = &look.survey.verdict;
    let mut steps = verdict.approved.steps().iter();
    verdict.held.iter().any(|held| held.guard == Guard::Invariant)
        && steps.any(|step| step.change.kind == ChangeKind::Revoke)
}

/// One line on how a change ended.
#[must_use]
pub fn line(applied: &Applied) -> String {
    let change = &applied.change;
    let what = format!(
        "{} of {} for {}",
        kind_word(change.kind),
        change.entitlement,
        clean(&change.who())
    );
    match &applied.end {
        End::Confirmed => format!("confirmed at {}: {what}", instant(applied.at)),
        End::Failed(why) => format!("FAILED: {what}: {}", clean(why)),
        End::Unsettled(why) => format!(
            "UNSETTLED: {what}: {}; the next pass looks at the live state",
            clean(why)
        ),
        End::Superseded => format!("left to the next pass: {what}"),
        End::Overtaken => {
            format!("left to the next pass: {what}: it is not as it was when this was planned")
        }
        End::Deferred(why) => format!("deferred: {what}: {}", clean(why)),
    }
}

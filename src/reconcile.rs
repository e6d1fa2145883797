//! One pass of everything: settle, survey, apply, record. Decides nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use crate::apply::{Applied, Applier, End};
use crate::clock::Clock;
use crate::config::Config;
use crate::identity_center::{AwsError, ChangeKind, Operation, Progress, Read};
use crate::ledger::{Board, Ledger, LedgerError, OpenIntent, Outcome, StoredSnapshots};
use crate::live::{AUDIT, CONSISTENCY_GRACE, LiveCache};
use crate::plan::{Change, Key};
use crate::policy::Policy;
use crate::survey::{Record, Survey, When, survey};
use crate::text::clean;

/// How long a grant of unknown outcome counts as ours if it turns up: longer than any shift.
const UNKNOWN_IS_OURS: SignedDuration = SignedDuration::from_hours(35 * 24);

/// Everything that a pass works with besides configuration and policy.
pub struct Reconciler {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The live state.
    pub reader: Arc<dyn Read>,
    /// The record.
    pub ledger: Ledger,
    /// What the pollers read; they add to it between passes.
    pub snapshots: Arc<Mutex<StoredSnapshots>>,
    /// Who carries out changes; `None` in mode `observe`, where no writer exists.
    pub applier: Option<Arc<Applier>>,
    /// The live state between complete reads.
    pub live: LiveCache,
    /// Since when grants of ours have been planned away although their recorded end has not come.
    pub surplus_since: BTreeMap<Key, Timestamp>,
}

/// Why a pass did not come to a plan.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// AWS could not be asked, or is not the one that the configuration expects.
    #[error("nothing was planned or written because AWS could not be asked")]
    Aws(#[from] AwsError),
    /// The record cannot be kept, so nothing may be done.
    #[error("nothing more is written because the ledger cannot be used")]
    Ledger(#[from] LedgerError),
}

/// What the first half of a pass saw.
#[derive(Debug)]
pub struct Pass {
    /// The plan and what the guards said.
    pub survey: Survey,
    /// Changes that ended since the pass before.
    pub ended: Vec<Applied>,
    /// Intents that still wait to be settled.
    pub open_intents: usize,
}

impl Reconciler {
    /// The first half of a pass: settles what an earlier process or a lost reply left open, and plans. Writes to the
    /// ledger, never to AWS.
    ///
    /// # Errors
    /// [`PassError`].
    pub async fn look(
        &mut self,
        config: &Config,
        policy: &Policy,
        approved_digest: Option<&str>,
    ) -> Result<Pass, PassError> {
        let ended = self
            .applier
            .as_ref()
            .map(|applier| applier.take_results())
            .unwrap_or_default();
        for applied in ended.iter().filter(|a| a.end == End::Confirmed) {
            self.live.note(&applied.change.key(), applied.change.kind);
        }
        self.reader.instance().await?;
        let unsettled = self.settle().await?;
        let record = self.record(&unsettled, self.clock.now()).await?;
        let stored = self.snapshots.lock().await.clone();
        let when = When::Now(&*self.clock);
        let survey = survey(
            &self.reader,
            &mut self.live,
            config,
            policy,
            &stored,
            &record,
            when,
            AUDIT,
            approved_digest,
        )
        .await?;
        let before = std::mem::take(&mut self.surplus_since);
        for key in survey.plan.changes.iter().map(Change::key) {
            let since = before.get(&key).copied().unwrap_or(survey.at);
            self.surplus_since.insert(key, since);
        }
        Ok(Pass {
            survey,
            ended,
            open_intents: unsettled.len(),
        })
    }

    /// The second half: records what was seen and starts what was approved. Changes are started, not awaited; see
    /// [`Applier::idle`].
    ///
    /// # Errors
    /// [`LedgerError`]; nothing is started then.
    pub async fn act(&mut self, look: &Pass, config: &Config, policy: &Policy) -> Result<(), LedgerError> {
        let survey = &look.survey;
        for key in &survey.plan.lost {
            tracing::warn!(principal = %key.1, target = %key.0, "access that we granted is gone without us; the record is closed");
            self.ledger.close_lost(key, survey.at).await?;
        }
        if let Some(applier) = &self.applier {
            applier.retain_failures(|key| survey.plan.changes.iter().any(|change| change.key() == *key));
            applier.start(survey.verdict.approved.clone(), &policy.revision);
        }
        self.ledger.update_kept(&survey.plan.kept, survey.at).await?;
        self.ledger.set_holds(&survey.verdict.held, survey.at).await?;
        self.ledger.set_board(&board(config, policy, survey), survey.at).await?;
        Ok(())
    }

    /// Closes open intents of an earlier process or of lost replies, by AWS's word or by the live state.
    async fn settle(&mut self) -> Result<Vec<OpenIntent>, PassError> {
        let in_flight = self.in_flight();
        let mut unsettled = Vec::new();
        let mut silent = false;
        for intent in self.ledger.open_intents().await? {
            if in_flight.contains_key(&intent.change.key()) {
                continue;
            }
            // While AWS does not answer, nothing more is asked: what is open stays as it is, and the rest goes on.
            let judged = match self.live.silence() {
                _ if silent => None,
                None => self.judge(&intent).await?,
                Some(silence) => match tokio::time::timeout(silence, self.judge(&intent)).await {
                    Ok(judged) => judged?,
                    Err(_elapsed) => {
                        silent = true;
                        None
                    }
                },
            };
            let Some((outcome, detail)) = judged else {
                unsettled.push(intent);
                continue;
            };
            let now = self.clock.now();
            tracing::info!(
                intent = intent.id, entitlement = %intent.change.entitlement, principal = %intent.change.principal,
                outcome = outcome.as_str(), "settled a change whose outcome was open"
            );
            // A lost reply means that access may have begun as early as the call; the record must not say less.
            let since = if intent.change.kind == ChangeKind::Grant {
                intent.created_at
            } else {
                now
            };
            self.ledger
                .complete(intent.id, &intent.change, outcome, Some(detail), since, now)
                .await?;
            if outcome == Outcome::Succeeded {
                self.live.note(&intent.change.key(), intent.change.kind);
            }
        }
        Ok(unsettled)
    }

    async fn judge(&self, intent: &OpenIntent) -> Result<Option<(Outcome, &'static str)>, PassError> {
        let change = &intent.change;
        if let (Some(request_id), crate::model::ResolvedTarget::Assignment { .. }) = (&intent.reference, &change.target)
        {
            let operation = Operation {
                kind: change.kind,
                request_id: request_id.clone(),
            };
            match self.reader.operation(&operation).await {
                Ok(Progress::InProgress) => return Ok(None),
                Ok(Progress::Succeeded) => return Ok(Some((Outcome::Succeeded, "settled by the operation's status"))),
                Ok(Progress::Failed(_)) => return Ok(Some((Outcome::Failed, "settled by the operation's status"))),
                Ok(Progress::Forgotten) => {}
                Err(error) => {
                    tracing::warn!(intent = intent.id, error = %clean(&error.to_string()), "an open change cannot be settled yet");
                    return Ok(None);
                }
            }
        }
        let holders = match self.reader.holders(&change.target).await {
            Ok(holders) => holders,
            Err(error) => {
                tracing::warn!(intent = intent.id, error = %clean(&error.to_string()), "an open change cannot be settled yet");
                return Ok(None);
            }
        };
        let present = holders.users.contains_key(&change.principal);
        Ok(Some(match (change.kind, present) {
            (ChangeKind::Grant, true) | (ChangeKind::Revoke, false) => {
                (Outcome::Succeeded, "settled by the live state")
            }
            // AWS may still carry out a creation that we never heard of; until then it counts as not done.
            (ChangeKind::Grant, false) => (Outcome::Unknown, "not in force when looked at"),
            (ChangeKind::Revoke, true) => (Outcome::Failed, "still in force when looked at"),
        }))
    }

    async fn record(&self, unsettled: &[OpenIntent], at: Timestamp) -> Result<Record, LedgerError> {
        let ago = |span| at.checked_sub(span).unwrap_or(Timestamp::MIN);
        let mut in_flight = self.in_flight();
        in_flight.extend(unsettled.iter().map(|intent| (intent.change.key(), intent.change.kind)));
        Ok(Record {
            surplus_since: self.surplus_since.clone(),
            owned: self.ledger.owned().await?,
            unknown_outcomes: self.ledger.unknown_grants(ago(UNKNOWN_IS_OURS)).await?,
            confirmed: self.ledger.confirmed_since(ago(CONSISTENCY_GRACE)).await?,
            bars: self.ledger.bars().await?,
            in_flight,
            failures: self.applier.as_ref().map(|a| a.failures()).unwrap_or_default(),
        })
    }

    fn in_flight(&self) -> BTreeMap<Key, ChangeKind> {
        self.applier.as_ref().map(|a| a.in_flight()).unwrap_or_default()
    }
}

fn board(config: &Config, policy: &Policy, survey: &Survey) -> Board {
    Board {
        policy_revision: policy.revision.clone(),
        mode: config.mode.as_str().to_owned(),
        problems: survey.problems.clone(),
        drift: survey.plan.drift.iter().map(Into::into).collect(),
        next_boundary: survey.next_boundary,
    }
}

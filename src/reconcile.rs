//! One pass of everything: settle, survey, apply, record. Decides nothing itself.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::HashSet;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use crate::apply::{Applied, Applier, End, Stock};
use crate::clock::Clock;
use crate::config::Config;
use crate::flagged::Flagged;
use crate::identity_center::{AwsError, ChangeKind, Operation, Progress, Read};
use crate::ledger::{
    Board, LastTry, Ledger, LedgerError, OpenIntent, Outcome, OwnedIndex, PolicyInForce, StoredSnapshots,
};
use crate::live::{AUDIT, CONSISTENCY_GRACE, LiveCache};
use crate::model::{EntitlementId, ResolvedTarget};
use crate::plan::{Key, PlannedSince};
use crate::policy::Policy;
use crate::problem::{Problem, ProblemKind, collapse, remember};
use crate::restore::Finder;
use crate::survey::{News, Record, Resting, Survey, When, past, survey};
use crate::text::instant;
use crate::unfinished::{self, Unsettled};

/// How long a grant of unknown outcome counts as ours if it turns up, and a change that failed is remembered from the
/// record: longer than any shift.
pub const UNKNOWN_IS_OURS: SignedDuration = SignedDuration::from_hours(35 * 24);

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
    /// How many targets that nothing is planned for are read in one pass.
    pub audit: usize,
    /// When each change that is still to be made was first planned.
    planned_since: PlannedSince,
    /// Changes that a person released and that are still to be made.
    released: BTreeMap<Key, ChangeKind>,
    /// Since when AWS does not show what no revoke closes the record of.
    gone_since: BTreeMap<Key, Timestamp>,
    /// Who came on duty out of the blue.
    flagged: Flagged,
    /// What of the record is ours.
    pub owned: OwnedIndex,
    /// What passes need not look at.
    resting: Resting,
    /// Keys of the configuration of which an edit waits for the next start.
    pub awaits_restart: BTreeSet<String>,
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
    /// Has not looked at anything yet.
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        reader: Arc<dyn Read>,
        ledger: Ledger,
        snapshots: Arc<Mutex<StoredSnapshots>>,
        applier: Option<Arc<Applier>>,
    ) -> Self {
        Self {
            clock,
            reader,
            ledger,
            snapshots,
            applier,
            live: LiveCache::default(),
            audit: AUDIT,
            planned_since: PlannedSince::default(),
            released: BTreeMap::new(),
            gone_since: BTreeMap::new(),
            flagged: Flagged::default(),
            owned: OwnedIndex::default(),
            resting: Resting::default(),
            awaits_restart: BTreeSet::new(),
        }
    }

    /// The first half of a pass: settles what an earlier process or a lost reply left open, and plans. Writes to the
    /// ledger, never to AWS.
    ///
    /// # Errors
    /// [`PassError`].
    pub async fn look(
        &mut self,
        config: &Config,
        policy: &Arc<Policy>,
        approved_digest: Option<&str>,
    ) -> Result<Pass, PassError> {
        let pass = self.see(config, policy, approved_digest).await;
        if let Err(PassError::Aws(error)) = &pass {
            self.note_unseen(config, policy, error).await?;
        }
        pass
    }

    async fn see(
        &mut self,
        config: &Config,
        policy: &Arc<Policy>,
        approved_digest: Option<&str>,
    ) -> Result<Pass, PassError> {
        let stock = self.applier.as_ref().map(|applier| applier.take_stock());
        let Stock {
            ended,
            in_flight,
            queued,
            looks,
        } = stock.unwrap_or_default();
        for applied in ended.iter().filter(|a| a.end == End::Confirmed) {
            self.live.note(&applied.change.key(), applied.change.kind);
        }
        let in_force = PolicyInForce {
            revision: policy.revision.clone(),
            mode: config.mode.as_str().to_owned(),
            commit: policy.commit.clone(),
        };
        self.ledger.policy_in_force(&in_force, self.clock.now()).await?;
        self.reader.instance().await?;
        let (unsettled, at_work) = self.settle(&in_flight).await?;
        let open_intents = unsettled.len();
        self.ledger.keep_orders(self.clock.now()).await?;
        let stored = self.snapshots.lock().await.clone();
        let finder = Finder {
            reader: &self.reader,
            ledger: &self.ledger,
            stored: &stored,
            config,
            policy,
            now: self.clock.now(),
        };
        let restored = finder.find_out().await?;
        let now = self.clock.now();
        let mut record = self.record(policy, in_flight, unsettled, now).await?;
        record.at_work = at_work;
        record.queued = queued;
        self.live.take_looks(looks, &record.confirmed, now);
        let stale = now.checked_sub(config.timing.max_staleness).unwrap_or(Timestamp::MIN);
        record.taken_by_release = self.ledger.taken_by_release(stale).await?;
        let touched = self.owned.catch_up(&self.ledger).await?;
        let known = stored.known_at(policy.schedules(), self.clock.now(), config.timing.notice);
        let news = News {
            known: &known,
            bars: &record.bars,
            unfinished: record.unfinished().collect(),
            touched: &touched,
            seen: &self.live.take_changed(),
        };
        self.resting.wake(policy, config, &news);
        record.owned = self.owned.of(self.resting.awake());
        record.owned_in_all = self.owned.len();
        let when = When::Now(&*self.clock);
        let mut survey = survey(
            &self.reader,
            &mut self.live,
            &mut self.resting,
            config,
            policy,
            &known,
            &record,
            when,
            self.audit,
            approved_digest,
        )
        .await?;
        self.flagged
            .keep(&mut survey, &self.owned, &record.in_flight, &self.ledger)
            .await?;
        survey.problems.extend(restored);
        survey.problems.extend(restart_needed(&self.awaits_restart));
        survey.problems = collapse(std::mem::take(&mut survey.problems));
        let at_work = record.at_work.iter().map(|intent| &intent.change);
        let planned = survey.plan.changes.iter().map(|change| &**change);
        self.planned_since
            .keep(planned.chain(at_work), &record.in_flight, survey.at);
        self.remember_release(&survey, approved_digest, &record.in_flight);
        Ok(Pass {
            survey,
            ended,
            open_intents,
        })
    }

    /// A release holds for the changes of that plan until they are made or nothing calls for them any more: most of many
    /// wait for their turn at AWS, and each pass meanwhile asks the guards again.
    fn remember_release(&mut self, survey: &Survey, approved: Option<&str>, in_flight: &BTreeMap<Key, ChangeKind>) {
        let plan = &survey.plan;
        let is_approved = approved == Some(plan.digest.as_str());
        if self.released.is_empty() && !is_approved {
            return;
        }
        let planned: BTreeMap<Key, ChangeKind> = plan.changes.iter().map(|c| (c.key(), c.kind)).collect();
        self.released
            .retain(|key, kind| planned.get(key).or_else(|| in_flight.get(key)) == Some(kind));
        if is_approved {
            self.released.extend(planned);
        }
    }

    /// The second half: records what was seen and starts what was approved. Changes are started, not awaited; see
    /// [`Applier::idle`].
    ///
    /// # Errors
    /// [`LedgerError`]; nothing is started then.
    pub async fn act(&mut self, look: &Pass, config: &Config, policy: &Policy) -> Result<(), LedgerError> {
        let survey = &look.survey;
        let gone = self.gone_for_good(survey);
        // Access that was granted while this pass looked is not gone: the look is older than the record.
        let news = |key: &Key| self.applier.as_ref().is_some_and(|applier| applier.is_news(key));
        for key in survey.plan.lost.iter().filter(|key| !news(key)) {
            tracing::warn!(principal = %key.1, target = %key.0, "access that we granted is gone without us; the record is closed");
            self.ledger.close_lost(key, survey.at).await?;
        }
        for key in gone.into_iter().filter(|key| !news(key)) {
            tracing::warn!(principal = %key.1, target = %key.0, "access that we cannot take back or give now is gone without us; the record is closed");
            self.ledger.close_lost(&key, survey.at).await?;
        }
        let doubted = survey.verdict.doubted();
        self.ledger
            .update_kept(&survey.plan.recordable(&doubted), survey.at)
            .await?;
        if let Some(applier) = &self.applier {
            // Nothing has failed as a rule, and then nobody asks.
            let planned = LazyCell::new(|| {
                let keys = survey
                    .plan
                    .changes
                    .iter()
                    .map(|change| (&change.target, &change.principal, change.kind));
                keys.collect::<HashSet<_>>()
            });
            applier.retain_failures(|key, kind| planned.contains(&(&key.0, &key.1, kind)));
            let priority = |id: &EntitlementId| policy.priority(id);
            let look = |target: &ResolvedTarget| self.live.look(target);
            applier.start(survey.verdict.approved.clone(), &policy.revision, priority, look);
        }
        self.measure(survey, policy).await?;
        self.ledger.set_holds(&survey.verdict.held, survey.at).await?;
        self.show(look, config, policy).await
    }

    /// What AWS has not shown for longer than a read lags and no revoke closes the record of, because a guard holds it or the
    /// person is disabled on duty. Without this the record would count as held, for as long as that lasts, what nobody
    /// holds.
    fn gone_for_good(&mut self, survey: &Survey) -> Vec<Key> {
        let steps = survey.verdict.approved.steps().iter();
        let closing: BTreeSet<Key> = steps.map(|step| step.change.key()).collect();
        let gone: BTreeSet<Key> = survey.plan.gone.difference(&closing).cloned().collect();
        self.gone_since.retain(|key, _| gone.contains(key));
        let mut for_good = Vec::new();
        for key in gone {
            let since = *self.gone_since.entry(key.clone()).or_insert(survey.at);
            // One look may lag; it takes another one, or that AWS says in this pass that there is nothing to hold.
            let seen_at = self.live.look(&key.0).map_or(survey.at, |look| look.read_at);
            if CONSISTENCY_GRACE <= since.duration_until(seen_at) {
                for_good.push(key);
            }
        }
        for_good
    }

    /// Records what the measure of access time needs besides access.
    async fn measure(&self, survey: &Survey, policy: &Policy) -> Result<(), LedgerError> {
        let before = self.ledger.board().await?.and_then(|board| board.measured_policy);
        let policy_is_new = before.as_ref() != Some(&policy.revision);
        self.ledger
            .note_unheld(&survey.unheld, policy_is_new, survey.at)
            .await?;
        self.ledger.note_sessions(&self.reader.sessions(), survey.at).await
    }

    /// Records what a pass saw, for whoever looks at the record.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn show(&self, look: &Pass, config: &Config, policy: &Policy) -> Result<(), LedgerError> {
        let board = self.board(config, policy, &look.survey).await?;
        self.ledger.set_board(&board, look.survey.at).await
    }

    /// What is shown of a pass, with since when it has been so.
    async fn board(&self, config: &Config, policy: &Policy, survey: &Survey) -> Result<Board, LedgerError> {
        let mut board = Board {
            policy_revision: policy.revision.clone(),
            mode: config.mode.as_str().to_owned(),
            problems: survey.problems.clone(),
            drift: survey.plan.drift.iter().map(Into::into).collect(),
            next_boundary: survey.next_boundary,
            unseen_since: None,
            measured_policy: Some(policy.revision.clone()),
        };
        if !board.problems.is_empty() {
            let before = self.ledger.board().await?.unwrap_or_default();
            remember(&mut board.problems, &before.problems, survey.at);
        }
        Ok(board)
    }

    /// Records how the changes of a pass have ended that no further pass of this process will look at.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn show_ends(
        &self,
        look: &Pass,
        applied: &[Applied],
        config: &Config,
        policy: &Policy,
    ) -> Result<(), LedgerError> {
        let mut board = self.board(config, policy, &look.survey).await?;
        for Applied { change, at, end } in applied {
            let told = |p: &Problem| p.entitlement.as_ref() == Some(&change.entitlement) && p.person == change.person;
            let last = match end {
                // The record itself tells of an open change.
                End::Superseded | End::Overtaken | End::Unsettled(_) => continue,
                End::Confirmed => None,
                End::Failed(why) | End::Deferred(why) => Some(LastTry {
                    at: *at,
                    why: why.clone(),
                }),
            };
            board.problems.retain(|p| {
                let over = p.kind == ProblemKind::ChangeFailed || last.is_none() && p.kind.is_overdue();
                !(over && told(p))
            });
            board
                .problems
                .extend(last.map(|last| unfinished::failed(change, &last)));
        }
        board.problems.sort();
        self.ledger.set_board(&board, self.clock.now()).await
    }

    /// Records that AWS is out of sight, since the first pass that did not see it; the rest stays as last seen.
    async fn note_unseen(&self, config: &Config, policy: &Policy, error: &AwsError) -> Result<(), LedgerError> {
        let now = self.clock.now();
        let mut board = self.ledger.board().await?.unwrap_or_default();
        let since = *board.unseen_since.get_or_insert(now);
        board.mode = config.mode.as_str().to_owned();
        board.policy_revision.clone_from(&policy.revision);
        board.problems.retain(|p| p.kind != ProblemKind::AwsUnavailable);
        let message = format!(
            "no pass has seen AWS since {}, so nothing is granted or revoked: {error}",
            instant(since)
        );
        board
            .problems
            .insert(0, Problem::new(ProblemKind::AwsUnavailable, message));
        self.ledger.set_board(&board, now).await
    }

    /// Closes open intents of an earlier process or of lost replies, by AWS's word or by the live state. Gives those that
    /// stay open, and apart from them those that this process carries out.
    async fn settle(
        &mut self,
        in_flight: &BTreeMap<Key, ChangeKind>,
    ) -> Result<(Vec<Unsettled>, Vec<OpenIntent>), PassError> {
        let (mut unsettled, mut at_work) = (Vec::new(), Vec::new());
        let mut silent = false;
        for intent in self.ledger.open_intents().await? {
            // One that began after the record was asked for is carried out by somebody, who records its end.
            let news = self
                .applier
                .as_ref()
                .is_some_and(|applier| applier.is_news(&intent.change.key()));
            if news || in_flight.contains_key(&intent.change.key()) {
                at_work.push(intent);
                continue;
            }
            // While AWS does not answer, nothing more is asked: what is open stays as it is, and the rest goes on.
            let judged = match self.live.silence() {
                _ if silent => None,
                None => Some(self.judge(&intent).await),
                Some(silence) => tokio::time::timeout(silence, self.judge(&intent)).await.ok(),
            };
            silent = judged.is_none();
            let (outcome, detail) = match judged {
                Some(Judgement::Ended(outcome, detail)) => (outcome, detail),
                Some(Judgement::Open(unanswered)) => {
                    unsettled.push(Unsettled { intent, unanswered });
                    continue;
                }
                None => {
                    let unanswered = Some("AWS has not answered yet".to_owned());
                    unsettled.push(Unsettled { intent, unanswered });
                    continue;
                }
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
                .complete(intent.id, &intent.change, outcome, Some(&detail), since, now)
                .await?;
            if outcome == Outcome::Succeeded {
                self.live.note(&intent.change.key(), intent.change.kind);
            }
        }
        Ok((unsettled, at_work))
    }

    async fn judge(&self, intent: &OpenIntent) -> Judgement {
        let change = &intent.change;
        if let (Some(request_id), ResolvedTarget::Assignment { .. }) = (&intent.reference, &change.target) {
            let operation = Operation {
                kind: change.kind,
                request_id: request_id.clone(),
            };
            let by_status = "settled by the operation's status";
            match self.reader.operation(&operation).await {
                Ok(Progress::InProgress) => return Judgement::Open(None),
                Ok(Progress::Succeeded) => return Judgement::Ended(Outcome::Succeeded, by_status.to_owned()),
                Ok(Progress::Failed(reason)) => {
                    return Judgement::Ended(Outcome::Failed, format!("{reason} ({by_status})"));
                }
                Ok(Progress::Forgotten) => {}
                Err(error) => return Judgement::Open(Some(error.to_string())),
            }
        }
        let holders = match self.reader.holders(&change.target).await {
            Ok(holders) => holders,
            Err(error) => return Judgement::Open(Some(error.to_string())),
        };
        let present = holders.users.contains(&change.principal);
        let (outcome, detail) = match (change.kind, present) {
            (ChangeKind::Grant, true) | (ChangeKind::Revoke, false) => {
                (Outcome::Succeeded, "settled by the live state")
            }
            // AWS may still carry out a creation that we never heard of; until then it counts as not done.
            (ChangeKind::Grant, false) => (
                Outcome::Unknown,
                "AWS's answer never came, and it was not in force when looked at; it is tried again",
            ),
            (ChangeKind::Revoke, true) => (
                Outcome::Failed,
                "AWS's answer never came, and it was still in force when looked at; it is tried again",
            ),
        };
        Judgement::Ended(outcome, detail.to_owned())
    }

    async fn record(
        &self,
        policy: &Policy,
        mut in_flight: BTreeMap<Key, ChangeKind>,
        unsettled: Vec<Unsettled>,
        at: Timestamp,
    ) -> Result<Record, LedgerError> {
        let ago = |span| at.checked_sub(span).unwrap_or(Timestamp::MIN);
        in_flight.extend(
            unsettled
                .iter()
                .map(|open| (open.intent.change.key(), open.intent.change.kind)),
        );
        Ok(Record {
            planned_since: self.planned_since.clone(),
            released: self.released.clone(),
            unknown_outcomes: self.ledger.unknown_grants(ago(UNKNOWN_IS_OURS)).await?,
            confirmed: self.ledger.confirmed_since(ago(CONSISTENCY_GRACE)).await?,
            bars: self.ledger.bars().await?,
            in_flight,
            unsettled,
            failures: self.applier.as_ref().map(|a| a.failures()).unwrap_or_default(),
            past: past(policy, &self.ledger, at).await?,
            ..Record::default()
        })
    }
}

fn restart_needed(keys: &BTreeSet<String>) -> Option<Problem> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    (!keys.is_empty()).then(|| {
        let message = format!(
            "the configuration was edited, and the edit of {} is not in force before the daemon is restarted",
            keys.join(", ")
        );
        Problem::new(ProblemKind::RestartNeeded, message)
    })
}

/// How an open change stands.
enum Judgement {
    /// It has ended, by this word.
    Ended(Outcome, String),
    /// It has not, or AWS could not say for this reason.
    Open(Option<String>),
}

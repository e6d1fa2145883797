//! The promises, checked against the world's own history.
//!
//! Every wait is measured from the last *excuse*: an instant up to which somebody other than dutybound was the reason.

use std::collections::{BTreeMap, BTreeSet};

use dutybound::identity_center::ChangeKind;
use dutybound::ledger::AccessRow;
use dutybound::model::Interval;
use dutybound::reconcile::Pass;
use jiff::{SignedDuration, Timestamp};

use crate::org::{Trigger, hours, minutes};
use crate::world::{By, Key, Outage, State};

/// In a healthy world a change is in force this long after its boundary. Operations take up to 7 s and those of one
/// account queue: all projects that share an account may hand over at the same moment, each with two levels.
const PROMPT: SignedDuration = SignedDuration::from_mins(5);

/// After AWS was unwell: the longest pause between tries (320 s) and patience for the incoming grant (10 min).
const AFTER_AWS: SignedDuration = SignedDuration::from_mins(17);

/// The checker.
pub(crate) struct Promises {
    /// An edit is learnt by the next read, may count as a surprise for the notice period, is decided by a pass that is at
    /// most a poll away, waits for patience; slow providers add a round of reads.
    after_edit: SignedDuration,
    notice: SignedDuration,
    max_staleness: SignedDuration,
    /// Up to when each key was last earned.
    earned_until: BTreeMap<(usize, usize), Timestamp>,
    /// Since when each key is earned and not held.
    waiting: BTreeMap<(usize, usize), Timestamp>,
    /// By schedule: up to when the daemon could not know the truth.
    behind: BTreeMap<usize, Timestamp>,
    /// Up to when an edit of the policy, the clock, the identity store or a restart may still be felt.
    disturbed: Timestamp,
    /// By key: the last instant at which somebody else touched it.
    pub(crate) touched: BTreeMap<Key, Timestamp>,
    /// The last pass after which everything was confirmed and nothing has happened since.
    clean_since: Option<Timestamp>,
    pub(crate) judged: u64,
    pub(crate) excused: u64,
}

impl Promises {
    pub(crate) fn new(
        poll: SignedDuration,
        notice: SignedDuration,
        max_staleness: SignedDuration,
        start: Timestamp,
    ) -> Self {
        Self {
            after_edit: poll * 2 + notice + minutes(10) + minutes(25),
            notice,
            max_staleness,
            earned_until: BTreeMap::new(),
            waiting: BTreeMap::new(),
            behind: BTreeMap::new(),
            disturbed: start + minutes(5),
            touched: BTreeMap::new(),
            clean_since: None,
            judged: 0,
            excused: 0,
        }
    }

    /// Something happened that a plan may have to answer.
    pub(crate) fn soil(&mut self) {
        self.clean_since = None;
    }

    /// Something concerns everybody up to `until`, and as long again as an edit takes.
    pub(crate) fn disturb_with_edit(&mut self, until: Timestamp) {
        self.disturbed = self.disturbed.max(until + self.after_edit);
    }

    /// A new process reads everything, settles what was open and makes a pass.
    pub(crate) fn disturb_with_restart(&mut self, back: Timestamp) {
        self.disturbed = self.disturbed.max(back + minutes(5));
    }

    /// A schedule was changed at its provider.
    pub(crate) fn edited(&mut self, schedule: usize, now: Timestamp) {
        self.behind.insert(schedule, now);
    }

    /// To be called before every change of the world and after every pass.
    pub(crate) fn look(&mut self, state: &mut State) {
        self.note_knowledge(state);
        self.judge_revokes(state);
        let mut faults = Vec::new();
        let now = state.now;
        let earned = earned_now(state);
        for (cell, (start, until)) in &earned {
            let known = self.earned_until.entry(*cell).or_insert(*start);
            *known = (*known).max(now.min(*until));
        }
        for entitlement in 0..state.org.policy.entitlements.len() {
            for person in 0..state.org.people {
                let cell = (entitlement, person);
                let key = state.key(entitlement, person);
                let accesses = state.history.get(&key);
                if accesses.is_none() && !earned.contains_key(&cell) {
                    continue;
                }
                let held = accesses.and_then(|a| a.last()).filter(|a| a.until.is_none());
                self.judge_holding(state, cell, &key, earned.contains_key(&cell), &mut faults);
                match (earned.get(&cell), held) {
                    (Some((start, _)), None) if !state.disabled.contains(&person) => {
                        let taken = accesses.and_then(|a| a.last()?.until).unwrap_or(*start);
                        let since = *self.waiting.entry(cell).or_insert((*start).max(taken));
                        let excuse = self.excuse(state, entitlement, &key);
                        self.count(now, excuse);
                        if PROMPT < since.max(excuse).duration_until(now) {
                            faults.push(format!(
                                "{} waits for {} since {since}, without an excuse since {excuse}",
                                key.1, key.0
                            ));
                        }
                    }
                    _ => {
                        self.waiting.remove(&cell);
                    }
                }
            }
        }
        for fault in faults {
            state.fault(fault);
        }
    }

    /// Nobody holds through us what nothing causes any more.
    fn judge_holding(
        &mut self,
        state: &State,
        cell: (usize, usize),
        key: &Key,
        earned: bool,
        faults: &mut Vec<String>,
    ) {
        let Some(last) = state.history.get(key).and_then(|a| a.last()) else {
            return;
        };
        if earned || last.by != By::Us || last.until.is_some() {
            return;
        }
        let until = self.last_earned(state, cell).max(last.since);
        let excuse = self.excuse(state, cell.0, key);
        self.count(state.now, excuse);
        // While somebody on duty is disabled there is no incoming grant, and the outgoing one waits for patience to end.
        let patience = if state.disabled.is_empty() {
            SignedDuration::ZERO
        } else {
            minutes(10)
        };
        if PROMPT + patience < until.max(excuse).duration_until(state.now) {
            faults.push(format!(
                "{} holds {} through us although nothing has caused it since {until}, without an excuse since {excuse}",
                key.1, key.0
            ));
        }
    }

    fn last_earned(&self, state: &State, cell: (usize, usize)) -> Timestamp {
        let computed = state
            .org
            .policy
            .earned(&state.org.schedules, cell.0, cell.1, state.now)
            .map(|(_, until)| until.min(state.now));
        let noted = self.earned_until.get(&cell).copied();
        computed.max(noted).unwrap_or(Timestamp::MIN)
    }

    fn count(&mut self, now: Timestamp, excuse: Timestamp) {
        if excuse < now {
            self.judged += 1;
        } else {
            self.excused += 1;
        }
    }

    /// Up to when a wrong state of this key is not dutybound's doing.
    fn excuse(&self, state: &State, entitlement: usize, key: &Key) -> Timestamp {
        let after = |t: Timestamp, span| t.saturating_add(span).unwrap();
        let schedules = state
            .org
            .policy
            .rules
            .iter()
            .filter(|r| r.entitlement == entitlement)
            .filter_map(|r| match &r.trigger {
                Trigger::OnCall { schedule, .. } => Some(*schedule),
                Trigger::Members | Trigger::OfficeHours => None,
            });
        let behind = schedules
            .filter_map(|s| self.behind.get(&s))
            .max()
            .map(|t| after(*t, self.after_edit));
        let touched = self.touched.get(key).map(|t| after(*t, self.after_edit));
        let aws = after(state.aws_unwell, AFTER_AWS);
        [Some(aws), Some(self.disturbed), behind, touched]
            .into_iter()
            .flatten()
            .max()
            .unwrap()
    }

    fn note_knowledge(&mut self, state: &State) {
        for (index, schedule) in state.org.schedules.iter().enumerate() {
            let lies = state.outages.get(&schedule.source) == Some(&Outage::Empty) || state.lies.contains_key(&index);
            let knows = state
                .known
                .get(&index)
                .is_some_and(|k| k.version == schedule.version && state.now < k.read_at + self.max_staleness);
            if lies || !knows {
                self.behind.insert(index, state.now);
            }
        }
    }

    /// Nothing unowned is revoked, and nobody who is on duty by what was last read and in truth.
    fn judge_revokes(&mut self, state: &mut State) {
        let revokes = std::mem::take(&mut state.revokes);
        for (at, key) in revokes {
            for entitlement in 0..state.org.policy.entitlements.len() {
                for person in 0..state.org.people {
                    if state.key(entitlement, person) == key {
                        self.judge_revoke(state, at, &key, entitlement, person);
                    }
                }
            }
        }
    }

    fn judge_revoke(&self, state: &mut State, at: Timestamp, key: &Key, entitlement: usize, person: usize) {
        let policy = &state.org.policy;
        // Taken away in this moment by hand and by us at once is no contradiction.
        let recently = self.touched.get(key).is_some_and(|t| at < *t + self.after_edit);
        let owner = state
            .history
            .get(key)
            .and_then(|a| {
                a.iter()
                    .rev()
                    .find(|a| a.since <= at && a.until.is_none_or(|end| at < end))
            })
            .map(|a| a.by);
        let mut faults = Vec::new();
        if owner == Some(By::Stranger) && !policy.entitlements[entitlement].exclusive && !recently {
            faults.push(format!("we revoke {} of {}, which a stranger granted", key.0, key.1));
        }
        // Our clock may be ahead of the true time by as much as is tolerated.
        let contains =
            |span: Option<(Timestamp, Timestamp)>| span.is_some_and(|(_, until)| at + state.offset.abs() < until);
        let truly = contains(policy.earned(&state.org.schedules, entitlement, person, at));
        let mut known = state.org.schedules.clone();
        let mut sure = at > self.disturbed;
        for (index, schedule) in known.iter_mut().enumerate() {
            match state.known.get(&index) {
                Some(known) => {
                    schedule.turns.clone_from(&known.turns);
                    sure &= known.learnt_at + minutes(5) < at;
                }
                None => schedule.turns.clear(),
            }
            // What a provider says for as long as the notice period is obeyed, false as it is.
            sure &= state
                .lies
                .get(&index)
                .is_none_or(|(first, last)| first.duration_until(*last) < self.notice);
        }
        if truly && sure && contains(policy.earned(&known, entitlement, person, at)) {
            faults.push(format!(
                "we revoke {} of {}, who is on duty by what was last read and in truth",
                key.0, key.1
            ));
        }
        for fault in faults {
            state.fault(fault);
        }
    }

    /// What was applied is not planned again.
    pub(crate) fn after_pass(&mut self, state: &mut State, pass: &Pass, idle: bool) {
        let approved = pass.survey.verdict.approved.steps();
        let boundary = pass.survey.timeline.causes.iter().any(|c| {
            let edge = |t: Timestamp| self.clean_since.is_some_and(|since| since < t && t <= pass.survey.at);
            edge(c.held.start()) || edge(c.held.end())
        });
        // What was read while the pass before was under way is not in it.
        let learnt = |since: Timestamp| {
            let lies = state.lies.values().any(|(first, _)| since - minutes(5) < *first);
            lies || state.known.values().any(|k| since - minutes(5) < k.learnt_at)
        };
        if let (Some(since), false) = (
            self.clean_since.filter(|t| !learnt(*t) && state.aws_unwell < *t),
            boundary,
        ) {
            let again: Vec<_> = approved
                .iter()
                .filter(|s| s.change.due < since && !s.change.is_ordered())
                .collect();
            if let Some(step) = again.first() {
                let word = if step.change.kind == ChangeKind::Grant {
                    "grant"
                } else {
                    "revoke"
                };
                state.fault(format!(
                    "after everything was applied at {since}, {word} {} {} is planned",
                    step.change.target, step.change.principal
                ));
            }
        }
        let well = state.aws_unwell + AFTER_AWS < state.now;
        let settled =
            idle && well && approved.is_empty() && pass.survey.verdict.held.is_empty() && pass.open_intents == 0;
        self.clean_since = if settled { Some(pass.survey.at) } else { None };
    }
}

fn earned_now(state: &State) -> BTreeMap<(usize, usize), (Timestamp, Timestamp)> {
    let (org, now) = (&state.org, state.now);
    let mut candidates: BTreeSet<(usize, usize)> = BTreeSet::new();
    for rule in &org.policy.rules {
        match &rule.trigger {
            Trigger::OnCall { schedule, .. } => {
                let turns = &org.schedules[*schedule].turns;
                let from = turns.partition_point(|t| t.start < now - hours(10 * 24));
                let to = turns.partition_point(|t| t.start - rule.lead <= now);
                let on = turns[from..to].iter().filter(|t| now < t.end + rule.linger);
                candidates.extend(on.map(|t| (rule.entitlement, t.person)));
            }
            Trigger::Members | Trigger::OfficeHours => {
                candidates.extend(org.policy.members[rule.project].iter().map(|p| (rule.entitlement, *p)));
            }
        }
    }
    let spans = candidates
        .into_iter()
        .filter_map(|(e, p)| Some(((e, p), org.policy.earned(&org.schedules, e, p, now)?)));
    spans.filter(|(_, (_, until))| now < *until).collect()
}

/// The ledger's intervals are the world's.
///
/// AWS's own word comes with the poll of an operation, up to 5 s after it took effect, and the call itself takes part of a
/// second. Where a reply was lost, the process died or the operation outlasted its time limit, the record is settled when
/// somebody looks again: it may then begin as early as the call and end as late as that look.
pub(crate) fn judge_record(state: &mut State, rows: &[AccessRow], period: Interval) {
    let mut recorded: BTreeMap<Key, Vec<(Timestamp, Timestamp)>> = BTreeMap::new();
    for row in rows {
        let until = row.revoked_at.unwrap_or(state.now);
        recorded
            .entry((row.target.clone(), row.principal.clone()))
            .or_default()
            .push((row.granted_at, until));
    }
    let mut faults = Vec::new();
    let (mut world_total, mut allowance) = (SignedDuration::ZERO, SignedDuration::ZERO);
    let keys: BTreeSet<Key> = recorded.keys().chain(state.history.keys()).cloned().collect();
    for key in keys {
        let ours = state.history.get(&key).into_iter().flatten().filter(|a| a.by == By::Us);
        let rows = recorded.get(&key).cloned().unwrap_or_default();
        let mut truth = Vec::new();
        let mut allowed = SignedDuration::ZERO;
        for access in ours {
            let until = access.until.unwrap_or(state.now);
            world_total += access.since.duration_until(until);
            truth.push((access.since, until));
            allowed += if access.unheard || access.ended_by == Some(By::Stranger) {
                hours(2)
            } else {
                SignedDuration::from_secs(20) + state.largest_offset * 2
            };
        }
        allowance += allowed;
        let difference = measure(&truth, &rows) + measure(&rows, &truth);
        if allowed < difference {
            faults.push(format!(
                "the record of {} {} differs from the world by {difference:#}: {rows:?} instead of {truth:?}",
                key.0, key.1
            ));
        }
    }
    let held = dutybound::accounting::account(rows, period, state.now).total().held();
    if allowance < (held - world_total).abs() {
        faults.push(format!("accounting says {held:#}, the world {world_total:#}"));
    }
    for fault in faults {
        state.fault(fault);
    }
}

/// How much of `these` is not in `those`.
fn measure(these: &[(Timestamp, Timestamp)], those: &[(Timestamp, Timestamp)]) -> SignedDuration {
    let mut rest = SignedDuration::ZERO;
    for (start, end) in these {
        let common = those
            .iter()
            .map(|(s, e)| (*s.max(start)).duration_until(*e.min(end)).max(SignedDuration::ZERO));
        rest += start.duration_until(*end) - common.fold(SignedDuration::ZERO, |sum, part| sum + part);
    }
    rest
}

//! The promises, checked against the world's own history.
//!
//! Every wait is measured from the last *excuse*: an instant up to which somebody other than dutybound was the reason.

mod asked;
mod excuses;
mod record;

use std::collections::{BTreeMap, BTreeSet};

use dutybound::identity_center::ChangeKind;
use dutybound::problem::{Problem, ProblemKind};
use dutybound::reconcile::Pass;
use jiff::{SignedDuration, Timestamp};

use crate::org::{Cell, Trigger, hours, minutes, overlap};
use crate::world::{Access, By, Key, State};
pub(crate) use excuses::{Bounds, Excuses};

/// In a healthy world a change is in force this long after its boundary. Operations take up to 7 s and those of one
/// account queue: all projects that share an account may hand over at the same moment, each with two levels.
const PROMPT: SignedDuration = SignedDuration::from_mins(5);

/// The checker.
pub(crate) struct Promises {
    pub(crate) excuses: Excuses,
    /// Up to when each cell was last earned.
    earned_until: BTreeMap<Cell, Timestamp>,
    /// Since when each cell is earned and not held.
    waiting: BTreeMap<Cell, Timestamp>,
    /// By cell: the time held through us on duty, and the time in which it had an excuse.
    duty: BTreeMap<Cell, (SignedDuration, SignedDuration)>,
    last_look: Timestamp,
    /// The last pass after which everything was confirmed and nothing has happened since.
    clean_since: Option<Timestamp>,
    /// Looks at a cell that somebody earned or held, without and with an excuse at that moment.
    pub(crate) judged: u64,
    pub(crate) excused: u64,
}

impl Promises {
    pub(crate) fn new(bounds: Bounds, start: Timestamp) -> Self {
        Self {
            excuses: Excuses::new(bounds, start),
            earned_until: BTreeMap::new(),
            waiting: BTreeMap::new(),
            duty: BTreeMap::new(),
            last_look: start,
            clean_since: None,
            judged: 0,
            excused: 0,
        }
    }

    /// Something happened that a plan may have to answer.
    pub(crate) fn soil(&mut self) {
        self.clean_since = None;
    }

    /// To be called before every change of the world and after every pass.
    pub(crate) fn look(&mut self, state: &mut State) {
        self.excuses.note_knowledge(state);
        self.judge_asked(state);
        self.judge_floors(state);
        let mut faults = Vec::new();
        let now = state.now;
        let earned = earned_now(state);
        for (cell, (start, until)) in &earned {
            let known = self.earned_until.entry(*cell).or_insert(*start);
            *known = (*known).max(now.min(*until));
        }
        let mut cells: BTreeMap<Cell, Key> = earned.keys().map(|c| (*c, state.key(c.0, c.1))).collect();
        for (key, accesses) in &state.history {
            let lately = |a: &Access| a.until.is_none_or(|end| self.last_look <= end);
            if accesses.last().is_some_and(lately)
                && let Some(cell) = state.cell(key)
            {
                cells.insert(cell, key.clone());
            }
        }
        self.waiting.retain(|cell, _| earned.contains_key(cell));
        for (cell, key) in cells {
            let accesses = state.history.get(&key).map_or(&[][..], Vec::as_slice);
            let held = accesses.last().filter(|a| a.until.is_none());
            let excuse = self.excuses.of(state, cell, &key);
            self.count_duty(state, cell, accesses, excuse);
            if held.is_none() && !earned.contains_key(&cell) {
                continue;
            }
            if excuse < now {
                self.judged += 1;
            } else {
                self.excused += 1;
            }
            match (earned.get(&cell), held) {
                (Some((start, _)), None) if !state.disabled.contains(&cell.1) => {
                    let taken = accesses.last().and_then(|a| a.until).unwrap_or(*start);
                    let since = *self.waiting.entry(cell).or_insert((*start).max(taken));
                    if PROMPT < since.max(excuse).duration_until(now) {
                        faults.push(format!(
                            "{} waits for {} since {since}, without an excuse since {excuse}",
                            key.1, key.0
                        ));
                    }
                }
                (None, Some(access)) if access.by == By::Us => {
                    self.waiting.remove(&cell);
                    faults.extend(self.judge_holding(state, cell, &key, access));
                }
                _ => {
                    self.waiting.remove(&cell);
                }
            }
        }
        self.last_look = now;
        for fault in faults {
            state.fault(fault);
        }
    }

    /// Nobody holds through us what nothing causes any more.
    fn judge_holding(&self, state: &State, cell: Cell, key: &Key, access: &Access) -> Option<String> {
        if state.org.protected == Some(cell.1) && !state.barred.contains_key(&cell.1) {
            return None;
        }
        let until = self.last_earned(state, cell).max(access.since);
        let excuse = self.excuses.of_holding(state, cell, key);
        let wait = until.max(excuse).duration_until(state.now);
        if wait <= PROMPT {
            return None;
        }
        let patience = self.excuses.bounds().patience;
        let may_wait = !state.barred.contains_key(&cell.1) && wait <= PROMPT + patience;
        if may_wait && self.excuses.hand_off_may_be_stuck(state, cell.0, state.now) {
            return None;
        }
        Some(format!(
            "{} holds {} through us although nothing has caused it since {until}, without an excuse since {excuse}",
            key.1, key.0
        ))
    }

    fn last_earned(&self, state: &State, cell: Cell) -> Timestamp {
        let turns = |schedule| state.true_turns(schedule);
        let computed = state.org.policy.earned(turns, cell, state.now);
        let computed = computed.map(|(_, until)| until.min(state.now));
        let noted = self.earned_until.get(&cell).copied();
        computed.max(noted).unwrap_or(Timestamp::MIN)
    }

    /// What the world knows about time on duty since the last look. Nothing that decides it has changed since.
    fn count_duty(&mut self, state: &State, cell: Cell, accesses: &[Access], excuse: Timestamp) {
        let since = (self.last_look, state.now);
        let turns = |schedule| state.true_turns(schedule);
        let (duty, excused) = self.duty.entry(cell).or_default();
        *excused += since.0.duration_until(excuse.min(since.1)).max(SignedDuration::ZERO);
        let ours = accesses
            .iter()
            .rev()
            .take_while(|a| a.until.is_none_or(|end| since.0 <= end));
        let mut ours = ours.filter(|a| a.by == By::Us).peekable();
        if ours.peek().is_some() && !state.barred.contains_key(&cell.1) {
            let spans = state.org.policy.spans(turns, cell, since, false);
            for access in ours {
                let part = (since.0.max(access.since), since.1.min(access.until.unwrap_or(since.1)));
                *duty += overlap(&spans, part);
            }
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
            let providers = &state.providers;
            let lies = providers.lies.values().any(|(first, _)| since - minutes(5) < *first);
            lies || providers.known.values().any(|k| since - minutes(5) < k.learnt_at)
        };
        let unwell = approved.iter().filter_map(|s| state.aws.unwell(&s.change.target)).max();
        let clean = self
            .clean_since
            .filter(|t| !learnt(*t) && unwell < Some(*t) && !boundary);
        if let Some(since) = clean {
            // What somebody did by hand meanwhile is answered once the audit sees it.
            let mut again = approved
                .iter()
                .filter(|s| s.change.due < since && !s.change.is_ordered());
            let again = again.find(|s| !self.excuses.target_touched(&s.change.key(), pass.survey.at));
            if let Some(step) = again {
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
        // A pass that could not see everything has not said that nothing is to be done.
        let blind = |p: &Problem| matches!(p.kind, ProblemKind::TargetUnresolved | ProblemKind::PersonUnresolved);
        let saw_all = pass.survey.unresolved == 0 && !pass.survey.problems.iter().any(blind);
        let quiet = approved.is_empty() && pass.survey.verdict.held.is_empty() && pass.open_intents == 0;
        let settled = idle && quiet && saw_all;
        self.clean_since = if settled { Some(pass.survey.at) } else { None };
    }
}

fn earned_now(state: &State) -> BTreeMap<Cell, (Timestamp, Timestamp)> {
    let (org, now) = (&state.org, state.now);
    let mut candidates: BTreeSet<Cell> = BTreeSet::new();
    for rule in &org.policy.rules {
        match &rule.trigger {
            Trigger::OnCall { schedule, .. } => {
                let turns = &org.schedules[*schedule].turns;
                let from = turns.partition_point(|t| t.start < now - hours(8 * 24));
                let to = turns.partition_point(|t| t.start - rule.lead <= now);
                let on = turns[from..to].iter().filter(|t| now < t.end + rule.linger);
                candidates.extend(on.map(|t| (rule.entitlement, t.person)));
            }
            Trigger::Members | Trigger::OfficeHours => {
                candidates.extend(org.policy.members[rule.project].iter().map(|p| (rule.entitlement, *p)));
            }
        }
    }
    let turns = |schedule| state.true_turns(schedule);
    let spans = candidates
        .into_iter()
        .filter(|(_, person)| !state.barred.contains_key(person))
        .filter_map(|cell| Some((cell, org.policy.earned(turns, cell, now)?)));
    spans.filter(|(_, (_, until))| now < *until).collect()
}

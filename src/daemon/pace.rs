//! When the next pass is due by what the last one saw. Pure, so that the simulation keeps the daemon's pace.

use jiff::{SignedDuration, Timestamp};

use crate::apply::End;
use crate::config::Timing;
use crate::guard::Guard;
use crate::live::AUDIT;
use crate::problem::ProblemKind;
use crate::reconcile::Pass;

/// After a start, how long after a pass the next one looks at more of what nobody has looked at yet, so that what changed
/// while no daemon ran is found in minutes. Forty looks take two seconds: more than half of what AWS allows is left besides.
const FIRST_LOOKS: SignedDuration = SignedDuration::from_secs(3);

/// How much later for each change that is planned, held or waiting: a pass costs more the more of them there are.
const FOR_EACH_CHANGE: SignedDuration = SignedDuration::from_millis(10);

/// Remembers for how many passes in a row something has been in trouble, and what the last one waits for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    failures: u32,
    waits_for_reads: bool,
}

impl Pace {
    /// Whether each read of a schedule is to bring a pass.
    pub fn waits_for_reads(&self) -> bool {
        self.waits_for_reads
    }

    /// When the pass after one that ended at `ended` is due at the latest.
    pub fn passed(&mut self, pass: &Pass, timing: &Timing, ended: Timestamp) -> Timestamp {
        let failing = |kind| {
            matches!(
                kind,
                ProblemKind::ChangeFailed | ProblemKind::ChangeUnsettled | ProblemKind::TargetUnresolved
            )
        };
        let trouble =
            pass.survey.problems.iter().any(|p| failing(p.kind)) || pass.ended.iter().any(|a| a.end != End::Confirmed);
        self.failures = if trouble { self.failures.saturating_add(1) } else { 0 };
        self.waits_for_reads = pass.survey.verdict.waits_for_reads();
        let latest = if trouble || pass.open_intents > 0 {
            self.soon(timing, ended)
        } else {
            ended.saturating_add(timing.poll).unwrap_or(ended)
        };
        let latest = match pass.survey.never_looked_at {
            0 => latest,
            _ if trouble => latest,
            _ => {
                let changes = i32::try_from(pass.survey.plan.changes.len()).unwrap_or(i32::MAX);
                let wait = FIRST_LOOKS.saturating_add(FOR_EACH_CHANGE.saturating_mul(changes));
                latest.min(ended.saturating_add(wait).unwrap_or(latest))
            }
        };
        due(pass, timing).map_or(latest, |due| due.min(latest))
    }

    /// When to try again after a pass that came to no plan.
    pub fn failed(&mut self, timing: &Timing, ended: Timestamp) -> Timestamp {
        self.failures = self.failures.saturating_add(1);
        self.soon(timing, ended)
    }

    /// Before the next poll, later with every failure in a row.
    fn soon(self, timing: &Timing, ended: Timestamp) -> Timestamp {
        let retry_after = SignedDuration::from_secs(1 << self.failures.saturating_sub(1).min(6));
        ended.saturating_add(timing.poll.min(retry_after)).unwrap_or(ended)
    }
}

/// How long it takes at least until each of so many targets has been looked at anew although nothing is planned for it,
/// where that is longer than the configuration says.
pub(super) fn slow_audit(targets: usize, timing: &Timing) -> Option<SignedDuration> {
    let passes = i32::try_from(targets.div_ceil(AUDIT)).unwrap_or(i32::MAX);
    let takes = timing.poll.saturating_mul(passes);
    (timing.audit < takes).then_some(takes)
}

/// The next instant at which a pass has something to do by the clock alone.
fn due(pass: &Pass, timing: &Timing) -> Option<Timestamp> {
    let survey = &pass.survey;
    let patience = survey
        .verdict
        .held
        .iter()
        .filter(|h| h.guard == Guard::MakeBeforeBreak)
        .flat_map(|h| h.change.due.checked_add(timing.patience));
    let waiting = survey
        .verdict
        .approved
        .steps()
        .iter()
        .filter(|s| !s.waits_for.is_empty());
    survey
        .next_boundary
        .into_iter()
        .chain(patience)
        .chain(waiting.map(|step| step.patience_ends))
        .filter(|t| survey.at < *t)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_four_hundred_targets_are_looked_at_in_time() {
        let timing = Timing::default();
        let longer = [400, 401, 10_500].map(|targets| slow_audit(targets, &timing));
        let minutes = |n| Some(SignedDuration::from_mins(n));
        assert_eq!(longer, [None, minutes(11), minutes(263)]);
    }
}

//! Windows happen, do not overlap themselves, and end when their author thinks that they do.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::{Draft, World};
use crate::{
    diagnostics::Report,
    policy::{CronWindow, lower::WindowMention},
};

/// Where searches begin when there is no clock. Any instant serves: an impossible date is impossible from everywhere.
const ANY_INSTANT: Timestamp = Timestamp::constant(1_767_225_600, 0);

/// Calls `tell` for every window with what `look` found out. Looking is slow (up to 50 ms for a pattern that never
/// fires), and an organisation has few different windows, so each is looked at once.
fn each<T>(world: &World<'_>, look: impl Fn(&CronWindow) -> T, mut tell: impl FnMut(&Draft, &WindowMention, &T)) {
    let mut known: HashMap<&str, T> = HashMap::new();
    for draft in world.drafts {
        for mention in &draft.mentions.windows {
            let seen = known.entry(&mention.text).or_insert_with(|| look(&mention.window));
            tell(draft, mention, seen);
        }
    }
}

pub(super) fn never(code: &'static str, world: &World<'_>, report: &mut Report) {
    let from = world.context.now.unwrap_or(ANY_INSTANT);
    let five_years = from
        .checked_add(SignedDuration::from_hours(5 * 366 * 24))
        .unwrap_or(Timestamp::MAX);
    each(
        world,
        |window| window.next_start(from),
        |draft, mention, start| match start {
            None => {
                let message = "this pattern never fires: there is no such date";
                let hint = "check day of month and month, the third and fourth field";
                report.push(draft.error(code, &mention.cron, message).hint(hint));
            }
            Some(start) if *start > five_years => {
                let day = mention.window.zone.to_datetime(*start).date();
                let message = format!("this pattern does not fire before {day}");
                let hint = "a window that stays shut for more than five years is likely a mistake";
                report.push(draft.warning(code, &mention.cron, message).hint(hint));
            }
            Some(_) => {}
        },
    );
}

pub(super) fn overlap(code: &'static str, world: &World<'_>, report: &mut Report) {
    let from = world.context.now.unwrap_or(ANY_INSTANT);
    each(
        world,
        |window| window.overlap(from),
        |draft, mention, found| {
            if let Some((earlier, later)) = found {
                let local = |t: Timestamp| mention.window.zone.to_datetime(t);
                let message = format!(
                    "the window that starts {} lasts past the next start, {}",
                    local(earlier.start()),
                    local(later.start())
                );
                let hint = "the windows merge into one; shorten them if that is not meant";
                report.push(draft.warning(code, &mention.length, message).hint(hint));
            }
        },
    );
}

pub(super) fn clock_change(code: &'static str, world: &World<'_>, report: &mut Report) {
    let Some(now) = world.context.now else { return };
    each(
        world,
        |window| window.next_clock_change(now),
        |draft, mention, found| {
            if let Some((changed, by_clock)) = found {
                let local = |t: Timestamp| mention.window.zone.to_datetime(t);
                let by_clock = by_clock.time().strftime("%H:%M");
                let message = format!(
                    "the clocks change during the window of {}, which ends at {} instead of {by_clock}",
                    local(changed.start()).date(),
                    local(changed.end()).time().strftime("%H:%M"),
                );
                let hint = format!("`for` is elapsed time; write until = \"{by_clock}\" if the clock is meant");
                report.push(draft.warning(code, &mention.length, message).hint(hint));
            }
        },
    );
}

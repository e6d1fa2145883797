//! The status page.

use std::collections::{BTreeMap, BTreeSet};

use askama::Template;

use super::filters;
use super::hours::{Day, FourWeeks};
use super::now::Now;
use super::words::{
    First, GAPS, HandOff, Held, Hours, Item, When, attention, due, hand_offs, held, hours_of, share, sum, when,
};
use crate::forecast::page::{Chart, Day as Midnight, GapLine, chart, days, gap_line};
use crate::forecast::{Forecast, Holding};
use crate::model::EntitlementId;
use crate::text::{clean, grouped};

/// More rows than these are for the pages of projects.
const HELD: usize = 200;
const NEXT: usize = 12;
const CHARTS: usize = 20;
const PROJECTS: usize = 200;
const SCHEDULES: usize = 200;

#[derive(Template)]
#[template(path = "status.html", config = "src/pages/askama.toml")]
pub(super) struct Overview {
    at: When,
    mode: String,
    attention: First<Item>,
    gaps: First<GapLine>,
    share: String,
    count: usize,
    holders: usize,
    next_away: String,
    next_at: Option<When>,
    held: First<Held>,
    next: Vec<HandOff>,
    charts: Vec<Chart>,
    days: Vec<Midnight>,
    more_charts: usize,
    hours: Option<Hours>,
    projects: First<Project>,
    schedules: First<Schedule>,
}

struct Project {
    name: String,
    now: usize,
    held: String,
    standing: String,
    share: String,
}

struct Schedule {
    name: String,
    state: &'static str,
    read: Option<When>,
}

pub(super) fn overview(now: &Now, four_weeks: Option<&FourWeeks>) -> Overview {
    let (status, at) = (&now.status, now.status.at);
    let all = |_: Option<&EntitlementId>, _: Option<&str>| true;
    let (first, next) = hand_offs(&now.ahead, at, NEXT, &all);
    let holders: BTreeSet<_> = status.access.iter().map(|row| &row.person).collect();
    let (charts, more_charts) = charts(&now.ahead, &|_| true);
    let mut standing: BTreeMap<_, usize> = BTreeMap::new();
    for row in &status.access {
        *standing.entry(&row.entitlement.project).or_default() += 1;
    }
    let project = |name| {
        let line = four_weeks.and_then(|weeks| weeks.projects.get(name));
        let total = line.map_or_else(Day::default, |line| sum(line));
        Project {
            name: name.0.to_string(),
            now: standing.get(name).copied().unwrap_or_default(),
            held: grouped(total.held),
            standing: grouped(total.standing),
            share: share(&total),
        }
    };
    // Where not all fit, those in which the most stands, and schedules that fail, come first.
    let mut names: Vec<_> = now.policy.projects.keys().collect();
    if PROJECTS < names.len() {
        names.sort_by_key(|name| std::cmp::Reverse(standing.get(name).copied().unwrap_or_default()));
    }
    let mut schedules: Vec<_> = status.schedules.iter().collect();
    if SCHEDULES < schedules.len() {
        schedules.sort_by_key(|s| s.failure.is_none());
    }
    let due = due(&now.ahead, at);
    let hours = four_weeks.and_then(|weeks| hours_of(weeks, &weeks.total));
    Overview {
        at: as_of(now),
        mode: status
            .last_pass
            .as_ref()
            .map_or_else(|| "not known yet".to_owned(), |b| b.mode.clone()),
        attention: attention(now, &all),
        gaps: First::of(now.ahead.gaps.iter().map(gap_line), GAPS),
        share: hours.as_ref().map_or_else(|| "-".to_owned(), |h| h.share.clone()),
        count: status.access.len(),
        holders: holders.len(),
        next_away: first.map_or_else(|| "none known".to_owned(), |t| when(t, at).away),
        next_at: first.map(|t| When {
            away: String::new(),
            ..when(t, at)
        }),
        held: First::of(status.access.iter(), HELD).map(|row| held(row, &due, at)),
        next,
        charts,
        days: days(now.ahead.period),
        more_charts,
        hours,
        projects: First::of(names, PROJECTS).map(project),
        schedules: First::of(schedules, SCHEDULES).map(|s| schedule(s, now)),
    }
}

fn schedule(s: &crate::commands::status::ScheduleStatus, now: &Now) -> Schedule {
    let state = match (&s.failure, s.read_at) {
        (Some(_), _) => "failing",
        (None, None) => "never read",
        (None, Some(_)) => "ok",
    };
    Schedule {
        name: clean(&s.schedule),
        state,
        read: s.read_at.map(|t| when(t, now.status.at)),
    }
}

/// The moment to which a page is true, to the second.
pub(super) fn as_of(now: &Now) -> When {
    let mut shown = when(now.status.at, now.status.at);
    let at = now.status.at.to_zoned(jiff::tz::TimeZone::UTC);
    shown.shown = at.strftime("%a %-d %b %H:%M:%S").to_string();
    shown.away = String::new();
    shown
}

/// The coming week of the holdings that `wanted` picks, an entitlement a chart, and how many more there would be.
pub(super) fn charts(ahead: &Forecast, wanted: &dyn Fn(&Holding) -> bool) -> (Vec<Chart>, usize) {
    let mut by_entitlement: BTreeMap<&EntitlementId, Vec<&Holding>> = BTreeMap::new();
    for holding in ahead.holdings.iter().filter(|h| wanted(h)) {
        by_entitlement.entry(&holding.entitlement).or_default().push(holding);
    }
    let more = by_entitlement.len().saturating_sub(CHARTS);
    let shown = by_entitlement.into_iter().take(CHARTS);
    (shown.map(|(id, mine)| chart(id, &mine, ahead.period)).collect(), more)
}

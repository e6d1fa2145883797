//! Turns what is to be looked at and what was measured into the texts and places that the templates show.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::columns::{Bar, Chart, chart};
use super::hours::{Day, FourWeeks};
use crate::commands::status::{ScheduleStatus, Status};
use crate::model::{EntitlementId, Interval, Person};
use crate::problem::Problem;
use crate::text::{clean, figure, grouped, instant, span};

/// An instant: exactly for machines and those who point at it, in short, and how far away it is.
pub(super) struct When {
    pub(super) exact: String,
    pub(super) shown: String,
    pub(super) away: String,
}

/// A moment as people say it.
pub(super) fn when(t: Timestamp, now: Timestamp) -> When {
    if t == Timestamp::MAX || t == Timestamp::MIN {
        return When {
            exact: String::new(),
            shown: instant(t),
            away: String::new(),
        };
    }
    let zoned = t.to_zoned(TimeZone::UTC);
    let form = if zoned.year() == now.to_zoned(TimeZone::UTC).year() {
        "%a %-d %b %H:%M"
    } else {
        "%a %-d %b %Y %H:%M"
    };
    let away = if now < t {
        format!("in {}", minutes(now.duration_until(t)))
    } else {
        format!("{} ago", minutes(t.duration_until(now)))
    };
    When {
        exact: instant(t),
        shown: zoned.strftime(form).to_string(),
        away,
    }
}

/// The moment to which a page is true, to the second.
pub(super) fn as_of(at: Timestamp) -> When {
    When {
        exact: instant(at),
        shown: at.to_zoned(TimeZone::UTC).strftime("%a %-d %b %H:%M:%S").to_string(),
        away: String::new(),
    }
}

/// Seconds matter only where there is nothing larger: a page that changes each second cannot be read.
fn minutes(time: SignedDuration) -> String {
    let minute = 60;
    match time.as_secs() {
        short if short < minute => "less than 1m".to_owned(),
        long => span(SignedDuration::from_secs(long / minute * minute)),
    }
}

/// An entitlement whose project can be followed.
pub(super) struct Name {
    pub(super) project: String,
    pub(super) name: String,
}

impl From<&EntitlementId> for Name {
    fn from(id: &EntitlementId) -> Self {
        Self {
            project: id.project.0.to_string(),
            name: clean(&id.name),
        }
    }
}

/// Something that a person should look at.
pub(super) struct Item {
    pub(super) what: String,
    pub(super) message: String,
    pub(super) since: Option<When>,
    pub(super) about: Vec<Name>,
    pub(super) person: String,
}

/// Whom a page is about.
pub(super) type Concerns<'a> = &'a dyn Fn(Option<&EntitlementId>, Option<&str>) -> bool;

fn item_of(problem: &Problem, now: Timestamp) -> Item {
    Item {
        what: sentence(problem.kind.as_str()),
        message: clean(&problem.message),
        since: problem
            .since
            .filter(|_| !problem.kind.says_since())
            .map(|t| when(t, now)),
        about: problem.entitlement.iter().map(Name::from).collect(),
        person: problem
            .person
            .as_ref()
            .map_or_else(String::new, |p| p.as_str().to_owned()),
    }
}

/// A stable word as the beginning of a sentence.
fn sentence(word: &str) -> String {
    let spaced = word.replace(['_', '-'], " ");
    let mut chars = spaced.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Nobody reads more at once.
const ITEMS: usize = 100;

/// Everything to look at, the gravest first: what hides the rest, what is not in force, what is held back, what fails.
pub(super) fn attention(status: &Status, policy_refused: bool, concerns: Concerns<'_>) -> First<Item> {
    let at = status.at;
    let plain = |what: &str, message: String, since: Option<Timestamp>| Item {
        what: what.to_owned(),
        message,
        since: since.map(|t| when(t, at)),
        about: Vec::new(),
        person: String::new(),
    };
    let mut items = Vec::new();
    if policy_refused && concerns(None, None) {
        let message =
            "the policy files hold mistakes; the last good policy stays in force. `dutybound check` shows them";
        items.push(plain("Policy refused", message.to_owned(), None));
    }
    if status.last_pass.is_none() && concerns(None, None) {
        items.push(plain(
            "No pass yet",
            "nothing is known of AWS before the first pass".to_owned(),
            None,
        ));
    }
    let board = status.last_pass.iter().flat_map(|board| &board.problems);
    let (hidden, seen): (Vec<_>, Vec<_>) = board.partition(|p| p.kind == crate::problem::ProblemKind::AwsUnavailable);
    let mine = |p: &&Problem| concerns(p.entitlement.as_ref(), p.person.as_ref().map(Person::as_str));
    items.extend(hidden.into_iter().map(|p| item_of(p, at)));
    items.extend(status.not_in_force.iter().filter(mine).map(|p| item_of(p, at)));
    for row in status
        .held
        .iter()
        .filter(|r| concerns(Some(&r.held.entitlement), Some(&r.held.who)))
    {
        let held = &row.held;
        items.push(Item {
            what: format!("Held back: {} ({})", crate::apply::kind_word(held.kind), held.guard),
            message: format!("{}; released by {}", clean(&held.reason), clean(&held.release)),
            since: Some(when(row.since, at)),
            about: vec![Name::from(&held.entitlement)],
            person: held.who.clone(),
        });
    }
    let concerned = |bar: &&crate::ledger::Bar| match &bar.person {
        Some(person) => concerns(None, Some(person.as_str())),
        None => true,
    };
    for bar in status.bars.iter().filter(concerned) {
        let message = format!("by order of {}: {}", clean(&bar.ordered_by), clean(&bar.reason));
        let mut item = plain("Holds nothing by order", message, Some(bar.since));
        item.person = bar
            .person
            .as_ref()
            .map_or_else(|| "everybody".to_owned(), |p| p.as_str().to_owned());
        items.push(item);
    }
    if concerns(None, None) {
        for schedule in &status.schedules {
            if let (Some(why), Some(since)) = (&schedule.failure, schedule.failing_since) {
                let message = format!(
                    "{}: {}{}",
                    clean(&schedule.schedule),
                    clean(why),
                    stands_in(schedule, at)
                );
                items.push(plain("Schedule failing", message, Some(since)));
            }
        }
    }
    items.extend(seen.into_iter().filter(mine).map(|p| item_of(p, at)));
    for drift in status.last_pass.iter().flat_map(|board| &board.drift) {
        if concerns(Some(&drift.entitlement), Some(&drift.holder)) {
            let message = "somebody gave this access past dutybound, which reports it and leaves it".to_owned();
            let mut item = plain("Not ours", message, None);
            item.about.push(Name::from(&drift.entitlement));
            item.person = drift.holder.clone();
            items.push(item);
        }
    }
    First::of(items, ITEMS)
}

fn stands_in(schedule: &ScheduleStatus, at: Timestamp) -> String {
    match (schedule.read_at, schedule.stands_in_until) {
        (Some(read), Some(until)) => format!(
            "; the snapshot read at {} {} in until {}",
            instant(read),
            if until < at { "stood" } else { "stands" },
            instant(until)
        ),
        _ => "; it was never read, and nothing stands in".to_owned(),
    }
}

/// The first rows of a list, and how many there are.
pub(super) struct First<T> {
    pub(super) rows: Vec<T>,
    pub(super) all: usize,
}

impl<T> First<T> {
    /// No more than `most` of them.
    pub(super) fn of(rows: impl IntoIterator<Item = T>, most: usize) -> Self {
        let mut rows = rows.into_iter();
        let shown: Vec<T> = rows.by_ref().take(most).collect();
        Self {
            all: shown.len() + rows.count(),
            rows: shown,
        }
    }

    /// With each of the rows made into something else.
    pub(super) fn map<U>(self, make: impl FnMut(T) -> U) -> First<U> {
        First {
            rows: self.rows.into_iter().map(make).collect(),
            all: self.all,
        }
    }

    /// How many are not shown.
    pub(super) fn more(&self) -> usize {
        self.all - self.rows.len()
    }
}

/// One day of the table.
pub(super) struct DayRow {
    pub(super) name: String,
    pub(super) held: String,
    pub(super) on_duty: String,
    pub(super) overhang: String,
    pub(super) uncovered: String,
    pub(super) duty: String,
    pub(super) standing: String,
    pub(super) tail: String,
}

/// Four weeks of one line.
pub(super) struct Hours {
    pub(super) notes: Vec<String>,
    pub(super) share: String,
    pub(super) held: String,
    pub(super) held_seconds: i64,
    pub(super) standing: String,
    pub(super) standing_seconds: i64,
    pub(super) on_duty: String,
    pub(super) duty: String,
    pub(super) overhang: String,
    pub(super) uncovered: String,
    pub(super) tail: String,
    pub(super) chart: Chart,
    pub(super) days: Vec<DayRow>,
    pub(super) between: String,
    pub(super) from: String,
    pub(super) to: String,
}

/// A moment with its day and minute, for people.
fn day_of(t: Timestamp) -> String {
    t.to_zoned(TimeZone::UTC).strftime("%-d %b %Y %H:%M").to_string()
}

/// Of standing access, for people.
pub(super) fn share(total: &Day) -> String {
    if total.standing.is_zero() {
        return "-".to_owned();
    }
    format!(
        "{:.1} %",
        100.0 * total.held.as_secs_f64() / total.standing.as_secs_f64()
    )
}

/// What the days of a line add up to.
pub(super) fn sum(line: &[Day]) -> Day {
    let mut total = Day::default();
    for day in line {
        total.add(day);
    }
    total
}

/// A line as headline, chart and table.
pub(super) fn hours_of(four_weeks: &FourWeeks, line: &[Day]) -> Option<Hours> {
    let (first, last) = (four_weeks.days.first()?, four_weeks.days.last()?);
    let total = sum(line);
    let mut bars = Vec::new();
    let mut rows = Vec::new();
    for (day, span) in line.iter().zip(&four_weeks.days) {
        let row = day_row(day, span);
        bars.push(Bar {
            on_duty: day.on_duty,
            overhang: day.overhang(),
            duty: day.duty(),
            standing: day.standing,
            label: span.start().to_zoned(TimeZone::UTC).strftime("%-d %b").to_string(),
            title: format!(
                "{}: {} h held, {} h duty, {} h standing",
                row.name, row.held, row.duty, row.standing
            ),
        });
        rows.push(row);
    }
    Some(Hours {
        notes: four_weeks.lost.iter().map(|note| clean(note)).collect(),
        share: share(&total),
        held: figure(total.held),
        held_seconds: whole(total.held),
        standing: figure(total.standing),
        standing_seconds: whole(total.standing),
        on_duty: figure(total.on_duty),
        duty: figure(total.duty()),
        overhang: figure(total.overhang()),
        uncovered: figure(total.uncovered),
        tail: figure(total.tail),
        chart: chart(bars),
        days: rows,
        between: format!(
            "{} to {}",
            day_of(first.start().max(four_weeks.begins)),
            day_of(last.end())
        ),
        from: instant(first.start().max(four_weeks.begins)),
        to: instant(last.end()),
    })
}

/// As the report rounds.
fn whole(time: SignedDuration) -> i64 {
    time.round(jiff::Unit::Second).unwrap_or(time).as_secs()
}

fn day_row(day: &Day, span: &Interval) -> DayRow {
    DayRow {
        name: span.start().to_zoned(TimeZone::UTC).strftime("%a %-d %b").to_string(),
        held: grouped(day.held),
        on_duty: grouped(day.on_duty),
        overhang: grouped(day.overhang()),
        uncovered: grouped(day.uncovered),
        duty: grouped(day.duty()),
        standing: grouped(day.standing),
        tail: grouped(day.tail),
    }
}

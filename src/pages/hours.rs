//! Access hours of the last four weeks, day by day, against standing access and duty.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::accounting::{
    LONGEST_SESSION, Measure, Record, Running, Sums, length, measure, standing_spans_of, uncovered,
};
use crate::desired::Snapshots;
use crate::http::InUse;
use crate::ledger::{Ledger, LedgerError};
use crate::model::{EntitlementId, Interval, Person, ProjectName};

/// Today is the last of them.
const DAYS: i64 = 28;
/// What the record says of a day changes no more once it is over for this long: causes count back for minutes only.
const SETTLED: SignedDuration = SignedDuration::from_hours(1);

/// One day of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) held: SignedDuration,
    pub(super) on_duty: SignedDuration,
    pub(super) uncovered: SignedDuration,
    /// Role sessions that may have lived on after revokes; not part of what was held.
    pub(super) tail: SignedDuration,
    pub(super) standing: SignedDuration,
}

impl Day {
    pub(super) fn add(&mut self, other: &Self) {
        self.held = self.held.saturating_add(other.held);
        self.on_duty = self.on_duty.saturating_add(other.on_duty);
        self.uncovered = self.uncovered.saturating_add(other.uncovered);
        self.tail = self.tail.saturating_add(other.tail);
        self.standing = self.standing.saturating_add(other.standing);
    }

    /// The baseline of duty.
    pub(super) fn duty(&self) -> SignedDuration {
        self.on_duty.saturating_add(self.uncovered)
    }

    /// Held off duty.
    pub(super) fn overhang(&self) -> SignedDuration {
        self.held.saturating_sub(self.on_duty)
    }
}

impl From<&Sums> for Day {
    fn from(sums: &Sums) -> Self {
        Self {
            held: sums.held.held(),
            on_duty: sums.held.duty(),
            uncovered: sums.uncovered(),
            tail: sums.tail,
            standing: SignedDuration::ZERO,
        }
    }
}

/// One figure for each day.
pub(super) type Line = Vec<Day>;

/// What a day adds up to.
#[derive(Debug, Default, Clone)]
pub(super) struct Groups {
    total: Day,
    projects: BTreeMap<ProjectName, Day>,
    /// Nobody where all of an organisation is added up.
    people: BTreeMap<Person, Day>,
}

impl Groups {
    pub(super) fn new(measure: &Measure) -> Self {
        let mut groups = Self::default();
        for ((entitlement, person), sums) in &measure.cells {
            groups.add(entitlement, person, &Day::from(sums));
        }
        groups
    }

    fn add(&mut self, entitlement: &EntitlementId, person: &Person, day: &Day) {
        self.add_to_project(&entitlement.project, day);
        self.people.entry(person.clone()).or_default().add(day);
    }

    fn add_to_project(&mut self, project: &ProjectName, day: &Day) {
        self.total.add(day);
        match self.projects.get_mut(project) {
            Some(known) => known.add(day),
            None => self.projects.entry(project.clone()).or_default().add(day),
        }
    }
}

/// What was measured of days that change no more, kept between looks.
#[derive(Debug, Default)]
pub(super) struct Past(BTreeMap<Timestamp, Groups>);

/// Four weeks.
#[derive(Debug, Default)]
pub(super) struct FourWeeks {
    pub(super) days: Vec<Interval>,
    pub(super) total: Line,
    pub(super) projects: BTreeMap<ProjectName, Line>,
    /// Of a person's page only that person.
    pub(super) people: BTreeMap<Person, Line>,
    /// Since when there is a record; what came before is not counted, in standing access neither.
    pub(super) begins: Timestamp,
    /// Which parts of the record are lost, so that the figures may be too small.
    pub(super) lost: Vec<String>,
}

/// The last days before `now`, each from midnight to midnight in UTC; today ends now.
pub(super) fn days(now: Timestamp) -> Vec<Interval> {
    let midnight = now
        .to_zoned(TimeZone::UTC)
        .start_of_day()
        .map_or(now, |day| day.timestamp());
    let day = SignedDuration::from_hours(24);
    let start = |n: i64| midnight.saturating_sub(day.saturating_mul(i32::try_from(n).unwrap_or(0)));
    (0..DAYS)
        .rev()
        .filter_map(|n| {
            let from = start(n).ok()?;
            Interval::new(from, from.saturating_add(day).ok()?.min(now))
        })
        .collect()
}

/// Reads and measures what is not known yet, page by page, so that no more than some of the record is in memory at once.
/// People are left out: there are many, and each has a page with [`read_of`].
pub(super) async fn read(
    ledger: &Ledger,
    in_use: &InUse,
    snapshots: &Snapshots,
    past: &mut Past,
    now: Timestamp,
) -> Result<FourWeeks, LedgerError> {
    let days = days(now);
    let Some(first) = days.first() else {
        return Ok(FourWeeks::default());
    };
    past.0.retain(|start, _| first.start() <= *start);
    let unknown: Vec<Interval> = days
        .iter()
        .filter(|day| !past.0.contains_key(&day.start()))
        .copied()
        .collect();
    let sessions = ledger.sessions().await?;
    let mut news: Vec<Groups> = vec![Groups::default(); unknown.len()];
    if let (Some(first), Some(last)) = (unknown.first(), unknown.last()) {
        let mut running = Running::new(&unknown, &sessions, now);
        let mut add = |day: usize, entitlement: &EntitlementId, _: &Person, sums: &Sums| {
            if let Some(groups) = news.get_mut(day) {
                groups.add_to_project(&entitlement.project, &Day::from(sums));
            }
        };
        let whole = Interval::new(first.start(), last.end()).unwrap_or(*last);
        let widened = whole.widen(LONGEST_SESSION, SignedDuration::ZERO);
        ledger
            .each_access_in(widened, |row| running.take(&row, &mut add))
            .await?;
        running.end(&mut add);
    }
    for (groups, day) in news.iter_mut().zip(&unknown) {
        for unheld in ledger.unheld_in(*day).await? {
            let spans = uncovered(&unheld, now);
            let times = spans.iter().filter_map(|span| span.intersect(day)).collect();
            let day = Day {
                uncovered: length(times),
                ..Day::default()
            };
            groups.add_to_project(&unheld.entitlement.project, &day);
        }
        if day.end().saturating_add(SETTLED).is_ok_and(|settled| settled <= now) {
            past.0.insert(day.start(), groups.clone());
        }
    }
    let mut news = unknown
        .iter()
        .map(|day| day.start())
        .zip(news)
        .collect::<BTreeMap<_, _>>();
    let measured = days.iter().map(|day| match news.remove(&day.start()) {
        Some(groups) => groups,
        None => past.0.get(&day.start()).cloned().unwrap_or_default(),
    });
    let measured = measured.collect();
    four_weeks(ledger, days, measured, in_use, snapshots, None).await
}

/// One person's, from what the record and the policy say of that person alone.
pub(super) async fn read_of(
    ledger: &Ledger,
    in_use: &InUse,
    snapshots: &Snapshots,
    person: &Person,
    now: Timestamp,
) -> Result<FourWeeks, LedgerError> {
    let days = days(now);
    let (Some(first), Some(last)) = (days.first(), days.last()) else {
        return Ok(FourWeeks::default());
    };
    let whole = Interval::new(first.start(), last.end()).unwrap_or(*last);
    let sessions = ledger.sessions().await?;
    let rows = ledger
        .access_of_person(person, whole.widen(LONGEST_SESSION, SignedDuration::ZERO))
        .await?;
    let unheld = ledger.unheld_of(person, whole).await?;
    let record = Record {
        rows: &rows,
        unheld: &unheld,
        sessions: &sessions,
    };
    let measured = days.iter().map(|day| Groups::new(&measure(record, *day, now)));
    let measured = measured.collect();
    four_weeks(ledger, days, measured, in_use, snapshots, Some(person)).await
}

/// Adds standing access, and what of the record is lost.
async fn four_weeks(
    ledger: &Ledger,
    days: Vec<Interval>,
    mut measured: Vec<Groups>,
    in_use: &InUse,
    snapshots: &Snapshots,
    person: Option<&Person>,
) -> Result<FourWeeks, LedgerError> {
    let (Some(first), Some(last)) = (days.first(), days.last()) else {
        return Ok(FourWeeks::default());
    };
    let whole = Interval::new(first.start(), last.end()).unwrap_or(*last);
    let lost = ledger.restorations().await?.into_iter();
    let lost = lost.filter(|r| r.is_gap() && r.lost_from < whole.end() && whole.start() < r.found_at);
    let begins = ledger.begins().await?;
    if let Some(counted) = Interval::new(whole.start().max(begins), whole.end()) {
        against_standing(&mut measured, &days, counted, in_use, snapshots, person);
    }
    let mut four_weeks = lines(days, measured);
    four_weeks.begins = begins;
    four_weeks.lost = lost.map(|r| r.loss()).collect();
    if whole.start() < begins {
        let begins = crate::text::instant(begins);
        four_weeks
            .lost
            .push(format!("the record begins at {begins}; what was before is not counted"));
    }
    Ok(four_weeks)
}

fn against_standing(
    measured: &mut [Groups],
    days: &[Interval],
    whole: Interval,
    in_use: &InUse,
    snapshots: &Snapshots,
    person: Option<&Person>,
) {
    let whom = |who: &Person| person.is_none_or(|person| who == person);
    let could = standing_spans_of(&in_use.policy, snapshots, &in_use.identities, whole, whom);
    // Those of one project stand together.
    let mut of_project: BTreeMap<&ProjectName, Vec<SignedDuration>> = BTreeMap::new();
    let mut last: Option<(&ProjectName, Vec<SignedDuration>)> = None;
    for ((entitlement, _), spans) in &could {
        if last.as_ref().is_none_or(|(name, _)| **name != entitlement.project) {
            of_project.extend(last.replace((&entitlement.project, vec![SignedDuration::ZERO; days.len()])));
        }
        let Some((_, times)) = &mut last else { continue };
        for (time, day) in times.iter_mut().zip(days) {
            let mut inside = spans.iter().filter_map(|span| span.intersect(day));
            let standing = match (inside.next(), inside.next()) {
                (None, _) => continue,
                (Some(one), None) => one.duration(),
                (Some(one), Some(two)) => length([one, two].into_iter().chain(inside).collect()),
            };
            *time = time.saturating_add(standing);
        }
    }
    of_project.extend(last);
    for (name, times) in of_project {
        for (groups, standing) in measured.iter_mut().zip(times) {
            let day = Day {
                standing,
                ..Day::default()
            };
            groups.add_to_project(name, &day);
            if let Some(person) = person.filter(|_| !standing.is_zero()) {
                groups.people.entry(person.clone()).or_default().add(&day);
            }
        }
    }
}

/// Makes a line of days for each project and person.
pub(super) fn lines(days: Vec<Interval>, measured: Vec<Groups>) -> FourWeeks {
    let mut four_weeks = FourWeeks {
        total: measured.iter().map(|groups| groups.total).collect(),
        ..FourWeeks::default()
    };
    for (n, groups) in measured.into_iter().enumerate() {
        let put = |line: &mut Line, figures| {
            line.resize(days.len(), Day::default());
            if let Some(day) = line.get_mut(n) {
                *day = figures;
            }
        };
        for (name, figures) in groups.projects {
            put(four_weeks.projects.entry(name).or_default(), figures);
        }
        for (name, figures) in groups.people {
            put(four_weeks.people.entry(name).or_default(), figures);
        }
    }
    four_weeks.days = days;
    four_weeks
}

//! `forecast`: the coming days as people read them; reads the world and writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};

use crate::config::Config;
use crate::diagnostics::did_you_mean;
use crate::forecast::{Forecast, Gap, Holding, forecast, people_of, when};
use crate::identity_center::Read;
use crate::ledger::StoredSnapshots;
use crate::model::{EntitlementId, Interval, Person, ProjectName};
use crate::policy::Policy;
use crate::poll::{self, Sources};
use crate::survey::{KnownPeople, not_looked_up, resolve_people};
use crate::text::{clean, instant, span};

/// As far as PagerDuty shows shifts, less the days that a read reaches beyond what it is for.
pub const FARTHEST_DAYS: u16 = 80;

/// Columns of the bars at most; with the names before them a line stays within 100.
const COLUMNS: i64 = 56;
/// Longer names are cut.
const NAME: usize = 36;

/// Reads every schedule over the period and asks the identity store about everybody who is to hold something in it and is
/// not `known`. Where a schedule cannot be read, what is `stored` stands in; the returned lines say so.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a different part of the world, and none is optional"
)]
pub async fn look(
    config: &Config,
    policy: &Policy,
    sources: &Sources,
    reader: &Arc<dyn Read>,
    mut stored: StoredSnapshots,
    period: Interval,
    about: Option<&About>,
    known: &KnownPeople,
) -> (Forecast, Vec<String>) {
    let now = period.start();
    let window = poll::window(now, now.duration_until(period.end()), None);
    let schedules = policy.schedules();
    let mut notes = poll::read_into(&mut stored, sources, &schedules, window, now).await;
    let snapshots = stored.newest(&schedules);
    let mut wanted = people_of(policy, &snapshots, &config.identities, period);
    match about {
        None => {}
        Some(About::Person(person)) => wanted.retain(|one| one == person),
        Some(about) => {
            let mut theirs = policy.clone();
            for project in theirs.projects.values_mut() {
                project.rules.retain(|rule| about.concerns(&rule.entitlement));
            }
            wanted = people_of(&theirs, &snapshots, &config.identities, period);
        }
    }
    let people = match reader.instance().await {
        Ok(_) => {
            let people = resolve_people(reader, config, wanted, known, None).await;
            let failed = not_looked_up(&people).into_iter();
            notes.extend(failed.map(|why| format!("{why}; that is not shown as a gap")));
            Some(people)
        }
        Err(why) => {
            notes.push(format!(
                "nobody was looked up in Identity Center, so nobody missing there is shown: {why}"
            ));
            None
        }
    };
    notes.sort();
    let forecast = forecast(policy, &snapshots, &config.identities, &people, period);
    (forecast, notes)
}

/// What a forecast, the status or a page is about, where not everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum About {
    /// A project's entitlements.
    Project(String),
    /// One of them.
    Entitlement(EntitlementId),
    /// Whatever somebody is to hold.
    Person(Person),
}

impl About {
    /// Understands the name of something that the policy has, or an e-mail address.
    ///
    /// # Errors
    /// What it should have been, in words.
    pub fn parse(about: &str, policy: &Policy) -> anyhow::Result<Self> {
        if policy.projects.keys().any(|name| name.0 == about) {
            return Ok(Self::Project(about.to_owned()));
        }
        if let Some(entitlement) = policy.entitlements().find(|e| e.id.to_string() == about) {
            return Ok(Self::Entitlement(entitlement.id.clone()));
        }
        if let Ok(person) = Person::parse(about) {
            return Ok(Self::Person(person));
        }
        let ids: Vec<String> = policy.entitlements().map(|e| e.id.to_string()).collect();
        let known = policy.projects.keys().map(|name| name.0.as_str());
        let hint = did_you_mean(about, known.chain(ids.iter().map(String::as_str)))
            .unwrap_or_else(|| "`dutybound tree` shows the projects".to_owned());
        bail!("{about:?} is no project, no entitlement and no e-mail address; {hint}");
    }

    /// Whether it is, or is of, what was asked about.
    #[must_use]
    pub fn concerns(&self, entitlement: &EntitlementId) -> bool {
        match self {
            Self::Project(name) => entitlement.project.0 == *name,
            Self::Entitlement(id) => entitlement == id,
            Self::Person(_) => false,
        }
    }

    /// Whether the person is who was asked about.
    #[must_use]
    pub fn is(&self, person: &Person) -> bool {
        matches!(self, Self::Person(one) if one == person)
    }

    /// The part of a forecast that is about this.
    #[must_use]
    pub fn only(&self, forecast: Forecast) -> Forecast {
        let holding = |h: &Holding| self.concerns(&h.entitlement) || self.is(&h.person);
        let gap = |g: &Gap| {
            let theirs = g.person.as_ref().is_some_and(|person| self.is(person));
            theirs || g.entitlements.iter().any(|id| self.concerns(id))
        };
        Forecast {
            period: forecast.period,
            holdings: forecast.holdings.into_iter().filter(holding).collect(),
            gaps: forecast.gaps.into_iter().filter(gap).collect(),
        }
    }
}

/// For a terminal: the gaps, and who will hold what. Every turn only where something was asked `about`; of everything, a
/// line for each project.
#[must_use]
pub fn text(forecast: &Forecast, notes: &[String], about: bool) -> String {
    let mut out = String::new();
    line(&mut out, &format!("Forecast {}, in UTC", when(forecast.period)));
    for note in notes {
        line(&mut out, &format!("  ! {}", clean(note)));
    }
    gaps(&mut out, forecast);
    if forecast.holdings.is_empty() {
        line(&mut out, "\nNobody is due to hold anything.");
    } else if about {
        turns(&mut out, forecast);
    } else {
        projects(&mut out, forecast);
    }
    out
}

fn gaps(out: &mut String, forecast: &Forecast) {
    line(out, &format!("\nGaps ({})", forecast.gaps.len()));
    for gap in &forecast.gaps {
        let more = match gap.more {
            0 => String::new(),
            n => format!(", and {n} more times"),
        };
        line(out, &format!("  {}{more}", when(gap.during)));
        line(out, &format!("      {}", clean(&gap.message)));
        if 1 < gap.entitlements.len() {
            let names: Vec<String> = gap.entitlements.iter().map(|id| clean(&id.to_string())).collect();
            line(out, &format!("      concerns {}", names.join(", ")));
        }
    }
}

fn projects(out: &mut String, forecast: &Forecast) {
    let mut by_project: BTreeMap<&ProjectName, Vec<&Holding>> = BTreeMap::new();
    for holding in &forecast.holdings {
        by_project
            .entry(&holding.entitlement.project)
            .or_default()
            .push(holding);
    }
    line(
        out,
        "\nDue to be held (`dutybound forecast PROJECT` shows every turn, also of an entitlement or a person)",
    );
    let counted = |number: usize, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    for (project, holdings) in by_project {
        let entitlements: BTreeSet<_> = holdings.iter().map(|h| &h.entitlement).collect();
        let people: BTreeSet<_> = holdings.iter().map(|h| &h.person).collect();
        line(
            out,
            &format!(
                "  {}  {}, {}, {}",
                clean(&project.0),
                counted(entitlements.len(), "entitlement", "entitlements"),
                counted(people.len(), "person", "people"),
                counted(holdings.len(), "turn", "turns"),
            ),
        );
    }
}

fn turns(out: &mut String, forecast: &Forecast) {
    let period = forecast.period;
    let scale = Scale::new(period);
    let column = SignedDuration::from_secs(period.duration().as_secs() / scale.columns);
    line(out, &format!("\nDue to be held; a column is {}", span(column)));
    line(out, &format!("{:width$} {}", "", scale.header(), width = NAME + 2));
    let entitlements: BTreeSet<&EntitlementId> = forecast.holdings.iter().map(|h| &h.entitlement).collect();
    for id in entitlements {
        line(out, &clean(&id.to_string()));
        let mine: Vec<&Holding> = forecast.holdings.iter().filter(|h| h.entitlement == *id).collect();
        let mut people: Vec<&Person> = Vec::new();
        for holding in &mine {
            if !people.contains(&&holding.person) {
                people.push(&holding.person);
            }
        }
        for person in people {
            let turns: Vec<&Holding> = mine.iter().filter(|h| h.person == *person).copied().collect();
            line(out, &format!("  {:NAME$} {}", cut(person.as_str()), scale.bar(&turns)));
        }
        for holding in mine {
            line(out, &format!("    {}", turn(holding, period)));
        }
    }
}

fn line(out: &mut String, text: &str) {
    let _infallible = writeln!(out, "{}", text.trim_end());
}

fn turn(holding: &Holding, period: Interval) -> String {
    let start = if holding.held.start() == period.start() {
        "now".to_owned()
    } else {
        instant(holding.held.start())
    };
    let end = match holding.end_known {
        true => format!("to {}", instant(holding.held.end())),
        false => "and beyond".to_owned(),
    };
    let kept = match holding.kept_from {
        Some(kind) => format!(" BUT {}", kind.as_str().replace('_', " ")),
        None => String::new(),
    };
    format!("{start:20} {end:23}  {}{kept}", clean(holding.person.as_str()))
}

fn cut(name: &str) -> String {
    let name = clean(name);
    if name.chars().count() <= NAME {
        name
    } else {
        name.chars().take(NAME - 1).chain(['…']).collect()
    }
}

/// Which column of the bars stands for which time.
struct Scale {
    period: Interval,
    days: i64,
    columns: i64,
}

impl Scale {
    fn new(period: Interval) -> Self {
        let days = (period.duration().as_hours() / 24).max(1);
        let columns = if days <= COLUMNS {
            days * (COLUMNS / days).min(24)
        } else {
            COLUMNS
        };
        Self { period, days, columns }
    }

    fn edge(&self, column: i64) -> Timestamp {
        let whole = self.period.duration().as_secs();
        let after = SignedDuration::from_secs(whole * column / self.columns);
        self.period.start().saturating_add(after).unwrap_or(self.period.end())
    }

    /// The day of the month where each day begins, as far as there is room.
    fn header(&self) -> String {
        let mut header = String::new();
        let each = (self.columns / self.days).max(1);
        let step = (3 + each - 1) / each * each;
        let mut column = 0;
        while column < self.columns {
            let date = self.edge(column).strftime("%d").to_string();
            let _infallible = write!(header, "{date:width$}", width = usize::try_from(step).unwrap_or(3));
            column += step;
        }
        header
    }

    fn bar(&self, turns: &[&Holding]) -> String {
        let cell = |column| {
            let Some(here) = Interval::new(self.edge(column), self.edge(column + 1)) else {
                return '·';
            };
            let inside = |h: &&&Holding| h.held.intersect(&here).is_some();
            match turns.iter().find(inside) {
                Some(turn) if turn.kept_from.is_some() => '!',
                Some(_) => {
                    let held = turns.iter().filter_map(|h| h.held.intersect(&here));
                    let whole = held.fold(SignedDuration::ZERO, |sum, part| sum.saturating_add(part.duration()));
                    if here.duration() <= whole { '█' } else { '▒' }
                }
                None => '·',
            }
        };
        (0..self.columns).map(cell).collect()
    }
}

//! The report as one HTML page that needs no other file and no script.

use askama::Template;
use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::period::{Unit, parts};
use super::text::{local, whys};
use super::{GroupBy, Line, Report, Request, Sight, percent};
use crate::accounting::{Kind, Part, measure};
use crate::model::Interval;
use crate::text::{clean, hours, instant};

/// The charts' own units.
const WIDTH: i64 = 1000;
const LEFT: i64 = 56;
const TOP: i64 = 10;
const BOTTOM: i64 = 210;
const ROW: i64 = 34;
/// The least distance of two labels that do not touch.
const LABEL: i64 = 64;
/// How many bars a ranking has.
const RANKED: usize = 12;

#[derive(Template)]
#[template(path = "report.html", config = "src/pages/askama.toml")]
struct Page {
    from: String,
    to: String,
    in_zone: Option<(String, String)>,
    notes: Vec<String>,
    share: String,
    total: Row,
    lead: String,
    linger: String,
    late: String,
    on_call: String,
    window: String,
    membership: String,
    duty: String,
    coverage: String,
    whys: String,
    revokes: u32,
    unknown_tails: u32,
    warnings: Vec<String>,
    every: &'static str,
    ticks: Vec<Tick>,
    columns: Vec<Column>,
    projects: Vec<Row>,
    ranked: Vec<Ranked>,
    ranked_height: i64,
    tables: Vec<Rows>,
}

struct Tick {
    y: i64,
    label: String,
}

/// One day, week or month of the first chart.
struct Column {
    x: i64,
    width: i64,
    duty_y: i64,
    duty_height: i64,
    over_y: i64,
    over_height: i64,
    label: String,
    title: String,
}

/// One bar of the ranking.
struct Ranked {
    y: i64,
    name: String,
    duty_width: i64,
    over_x: i64,
    over_width: i64,
    text: String,
}

struct Rows {
    what: &'static str,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    held: String,
    on_duty: String,
    overhang: String,
    uncovered: String,
    tail: String,
    standing: String,
    share: String,
}

impl From<&Line> for Row {
    fn from(line: &Line) -> Self {
        let held = &line.sums.held;
        Self {
            name: clean(line.name()),
            held: hours(held.held()),
            on_duty: hours(held.duty()),
            overhang: hours(held.overhang()),
            uncovered: hours(line.sums.uncovered()),
            tail: hours(line.sums.tail),
            standing: line.standing.map_or_else(|| "-".to_owned(), hours),
            share: percent(line.share),
        }
    }
}

/// Writes the page.
pub(super) fn page(sight: &Sight<'_>, report: &Report, request: &Request) -> Result<String, askama::Error> {
    let total = &report.total;
    let held = &total.sums.held;
    let zone = &request.zone;
    let (from, to) = (report.period.start(), report.counted_to);
    let (every, ticks, columns) = columns(sight, zone);
    let mut entitlements = sight.lines(GroupBy::Entitlement);
    let rows_of = |what, lines: &[Line]| Rows {
        what,
        rows: lines.iter().map(Row::from).collect(),
    };
    let tables = vec![
        rows_of("Entitlement", &entitlements),
        rows_of("Person", &sight.lines(GroupBy::Person)),
    ];
    entitlements.sort_by_key(|line| std::cmp::Reverse(line.sums.held.held()));
    let covered = total.sums.duty().as_secs_f64();
    let ranked = ranked(&entitlements);
    let page = Page {
        from: instant(from),
        to: instant(to),
        in_zone: (*zone != TimeZone::UTC).then(|| (local(from, zone), local(to, zone))),
        notes: report.record_lost.iter().map(|note| clean(note)).collect(),
        share: percent(total.share),
        total: Row::from(total),
        lead: hours(held.part(Part::Lead)),
        linger: hours(held.part(Part::Linger)),
        late: hours(held.part(Part::Late)),
        on_call: hours(held.of(Kind::OnCall, Part::Duty)),
        window: hours(held.of(Kind::Window, Part::Duty)),
        membership: hours(held.of(Kind::Membership, Part::Duty)),
        duty: hours(total.sums.duty()),
        coverage: percent((0.0 < covered).then(|| held.duty().as_secs_f64() / covered)),
        whys: whys(total),
        revokes: total.sums.revokes,
        unknown_tails: total.sums.revokes_without_tail,
        warnings: report.outlasted.iter().map(warning).collect(),
        every,
        ticks,
        columns,
        projects: sight.lines(GroupBy::Project).iter().map(Row::from).collect(),
        ranked_height: i64::try_from(ranked.len()).unwrap_or(0) * ROW,
        ranked,
        tables,
    };
    page.render()
}

fn warning(o: &crate::accounting::Outlasted) -> String {
    format!(
        "{}: {} times the same person had it again after as little as {} h, while sessions live on for up to {} h after a \
         revoke. Shorten the permission set's session duration.",
        clean(&o.entitlement.to_string()),
        o.times,
        hours(o.shortest_gap),
        hours(o.longest_tail)
    )
}

/// Held time day by day, week by week or month by month.
fn columns(sight: &Sight<'_>, zone: &TimeZone) -> (&'static str, Vec<Tick>, Vec<Column>) {
    let Some((unit, parts)) = sight.counted.and_then(|counted| parts(counted, zone).ok()) else {
        return ("day", Vec::new(), Vec::new());
    };
    let every = match unit {
        Unit::Day => "day",
        Unit::Week => "week",
        Unit::Month => "month",
    };
    let sums: Vec<_> = parts
        .iter()
        .map(|part| measure(sight.record, *part, sight.now).total())
        .collect();
    let highest = sums
        .iter()
        .map(|sums| sums.held.held().as_secs())
        .max()
        .unwrap_or(0)
        .max(1);
    let scale = |time: SignedDuration| (BOTTOM - TOP) * time.as_secs() / highest;
    let ticks = [0, 1, 2].map(|half| Tick {
        y: BOTTOM - (BOTTOM - TOP) * half / 2,
        label: format!("{} h", hours(SignedDuration::from_secs(highest * half / 2))),
    });
    let step = (WIDTH - LEFT) / i64::try_from(parts.len()).unwrap_or(1).max(1);
    let mut labelled = i64::MIN / 2;
    let columns = parts
        .iter()
        .zip(&sums)
        .zip(0..)
        .map(|((part, sums), n): ((&Interval, _), i64)| {
            let x = LEFT + n * step;
            let (duty, over) = (sums.held.duty(), sums.held.overhang());
            let (duty_height, over_height) = (scale(duty), scale(over));
            let day = part.start().to_zoned(zone.clone());
            let room = LABEL <= x - labelled;
            if room {
                labelled = x;
            }
            Column {
                x,
                width: (step - 2).max(1),
                duty_y: BOTTOM - duty_height,
                duty_height,
                over_y: BOTTOM - duty_height - over_height,
                over_height,
                label: if room {
                    day.strftime("%b %-d").to_string()
                } else {
                    String::new()
                },
                title: format!(
                    "{} from {}: {} h on duty, {} h overhang, {} h uncovered",
                    every,
                    day.strftime("%Y-%m-%d"),
                    hours(duty),
                    hours(over),
                    hours(sums.uncovered())
                ),
            }
        });
    let columns = columns.collect();
    (every, ticks.into(), columns)
}

/// The entitlements that were held longest.
fn ranked(lines: &[Line]) -> Vec<Ranked> {
    let highest = lines
        .iter()
        .map(|line| line.sums.held.held().as_secs())
        .max()
        .unwrap_or(0)
        .max(1);
    let scale = |time: SignedDuration| WIDTH * time.as_secs() / highest;
    let held = lines.iter().filter(|line| !line.sums.held.held().is_zero());
    let bars = held.take(RANKED).zip(0..).map(|(line, n)| {
        let held = &line.sums.held;
        let duty_width = scale(held.duty());
        Ranked {
            y: n * ROW,
            name: clean(line.name()),
            duty_width,
            over_x: duty_width,
            over_width: scale(held.overhang()),
            text: format!("{} h, {}", hours(held.held()), percent(line.share)),
        }
    });
    bars.collect()
}

//! The report as one HTML page that needs no other file and no script.

use askama::Template;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::period::{Unit, parts};
use super::text::whys;
use super::{GroupBy, Line, Report, Request, Sight, percent};
use crate::accounting::{Kind, Part, length, measure, standing_spans};
use crate::model::Interval;
use crate::pages::columns::{Bar, Chart, chart};
use crate::text::{clean, figure, grouped, hours, instant};

/// How many bars a ranking has.
const RANKED: usize = 12;

#[derive(Template)]
#[template(path = "report.html", config = "src/pages/askama.toml")]
struct Page {
    from: String,
    to: String,
    from_shown: String,
    to_shown: String,
    zone: String,
    notes: Vec<String>,
    share: String,
    held: String,
    standing: String,
    on_duty: String,
    overhang: String,
    uncovered: String,
    tail: String,
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
    chart: Chart,
    parts: Vec<Row>,
    projects: Vec<Row>,
    ranked: Vec<Ranked>,
    tables: Vec<Rows>,
}

/// One bar of the ranking; widths are percents.
struct Ranked {
    name: String,
    duty_width: String,
    over_width: String,
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
            held: grouped(held.held()),
            on_duty: grouped(held.duty()),
            overhang: grouped(held.overhang()),
            uncovered: grouped(line.sums.uncovered()),
            tail: grouped(line.sums.tail),
            standing: line.standing.map_or_else(|| "-".to_owned(), grouped),
            share: percent(line.share),
        }
    }
}

/// Writes the page.
pub(super) fn page(sight: &Sight<'_>, report: &Report, request: &Request) -> Result<String, askama::Error> {
    let total = &report.total;
    let held = &total.sums.held;
    let zone = &request.zone;
    let (from, to) = (report.counted_from, report.counted_to);
    let shown = |t: Timestamp| t.to_zoned(zone.clone()).strftime("%-d %b %Y %H:%M").to_string();
    let (every, parts) = by_time(sight, zone);
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
    let page = Page {
        from: instant(from),
        to: instant(to),
        from_shown: shown(from),
        to_shown: shown(to),
        zone: zone.iana_name().unwrap_or("local time").to_owned(),
        notes: report
            .record_lost
            .iter()
            .chain(&report.notes)
            .map(|note| clean(note))
            .collect(),
        share: percent(total.share),
        held: figure(held.held()),
        standing: total.standing.map_or_else(|| "-".to_owned(), figure),
        on_duty: figure(held.duty()),
        overhang: figure(held.overhang()),
        uncovered: figure(total.sums.uncovered()),
        tail: figure(total.sums.tail),
        lead: figure(held.part(Part::Lead)),
        linger: figure(held.part(Part::Linger)),
        late: figure(held.part(Part::Late)),
        on_call: figure(held.of(Kind::OnCall, Part::Duty)),
        window: figure(held.of(Kind::Window, Part::Duty)),
        membership: figure(held.of(Kind::Membership, Part::Duty)),
        duty: figure(total.sums.duty()),
        coverage: coverage(held.duty(), total.sums.duty()),
        whys: whys(total),
        revokes: total.sums.revokes,
        unknown_tails: total.sums.revokes_without_tail,
        warnings: report.outlasted.iter().map(warning).collect(),
        every,
        parts: parts.iter().map(|(line, _)| Row::from(line)).collect(),
        chart: chart(parts.into_iter().map(|(_, bar)| bar).collect()),
        projects: sight.lines(GroupBy::Project).iter().map(Row::from).collect(),
        ranked: ranked(&entitlements),
        tables,
    };
    page.render()
}

/// How much of duty had its access. What is not whole is not shown as whole.
pub(super) fn coverage(covered: SignedDuration, duty: SignedDuration) -> String {
    if duty.is_zero() {
        return "-".to_owned();
    }
    match percent(Some(covered.as_secs_f64() / duty.as_secs_f64())) {
        whole if whole == "100.0 %" && covered < duty => "99.9 %".to_owned(),
        shown => shown,
    }
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

/// The figures day by day, week by week or month by month, as a line of a table and as a column of the chart.
fn by_time(sight: &Sight<'_>, zone: &TimeZone) -> (&'static str, Vec<(Line, Bar)>) {
    let Some((unit, parts)) = sight.counted.and_then(|counted| parts(counted, zone).ok()) else {
        return ("day", Vec::new());
    };
    let every = match unit {
        Unit::Day => "day",
        Unit::Week => "week",
        Unit::Month => "month",
    };
    let spans = sight.baseline.zip(sight.counted).map(|(b, counted)| {
        let spans = standing_spans(b.policy, b.snapshots, b.identities, counted);
        spans.into_values().collect::<Vec<_>>()
    });
    let of_part = |part: &Interval| {
        let sums = measure(sight.record, *part, sight.now).total();
        let standing = spans.as_ref().map(|all| {
            let within = |spans: &Vec<Interval>| length(spans.iter().flat_map(|span| span.intersect(part)).collect());
            all.iter()
                .fold(SignedDuration::ZERO, |sum, spans| sum.saturating_add(within(spans)))
        });
        let day = part.start().to_zoned(zone.clone());
        let bar = Bar {
            on_duty: sums.held.duty(),
            overhang: sums.held.overhang(),
            duty: sums.duty(),
            standing: standing.unwrap_or_default(),
            label: day.strftime("%-d %b").to_string(),
            title: format!(
                "{every} from {}: {} h on duty, {} h overhang, {} h uncovered",
                day.strftime("%Y-%m-%d"),
                hours(sums.held.duty()),
                hours(sums.held.overhang()),
                hours(sums.uncovered())
            ),
        };
        let name = day.strftime("%a %-d %b %Y").to_string();
        (Line::new(Some(&name), &sums, standing), bar)
    };
    (every, parts.iter().map(of_part).collect())
}

/// The entitlements that were held longest.
fn ranked(lines: &[Line]) -> Vec<Ranked> {
    let longest = lines.iter().map(|line| line.sums.held.held().as_secs_f64());
    let longest = longest.fold(1.0, f64::max);
    let width = |time: SignedDuration| format!("{:.2}", 100.0 * time.as_secs_f64() / longest);
    let held = lines.iter().filter(|line| !line.sums.held.held().is_zero());
    let bars = held.take(RANKED).map(|line| {
        let held = &line.sums.held;
        Ranked {
            name: clean(line.name()),
            duty_width: width(held.duty()),
            over_width: width(held.overhang()),
            text: format!("{} h, {}", figure(held.held()), percent(line.share)),
        }
    });
    bars.collect()
}

use std::collections::BTreeSet;
use std::sync::Arc;

use askama::Template;
use jiff::SignedDuration;

use super::hours::{FourWeeks, Groups, days};
use super::now::{Now, Standing, World};
use super::{about, overview};
use crate::accounting::fixtures::{cause, id, on_call, on_call_rule, person, policy, row, snapshots, span, t};
use crate::accounting::{Record, Sessions, measure};
use crate::commands::forecast::About;
use crate::commands::status::Status;
use crate::forecast::{days_from, forecast};
use crate::ledger::{AccessRow, Board};
use crate::model::ProjectName;
use crate::problem::{Problem, ProblemKind};

const HOSTILE: &str = "<img/src=x>\"'&\u{202e}@example.com";

fn held_by(who: &str) -> AccessRow {
    let mut row = row(0, None, vec![cause(on_call(), span(0, 1000), span(0, 1000), 0, None)]);
    row.person = person(who);
    row
}

fn world(access: Vec<AccessRow>, problems: Vec<Problem>) -> World {
    let policy = policy(vec![on_call_rule(true, None, 7)]);
    let board = Board {
        problems,
        ..Board::default()
    };
    let period = days_from(t(10), 7).unwrap();
    World {
        standing: Standing {
            grants: access.len(),
            ..Standing::default()
        },
        ahead: forecast(&policy, &snapshots(), &[], &None, period),
        status: Status::new(
            t(10),
            access,
            Vec::new(),
            Vec::new(),
            Vec::new(),
            Vec::new(),
            Some(board),
        ),
        policy: policy.into(),
        policy_refused: false,
    }
}

fn of_all(access: Vec<AccessRow>, problems: Vec<Problem>) -> Arc<Now> {
    Arc::new(world(access, problems).shown(None))
}

fn of_person(world: World, who: &str) -> Option<about::About> {
    let person = person(who);
    let now = Arc::new(world.shown(Some(&About::Person(person.clone()))));
    about::person(now, None, &person)
}

fn of_project(world: World, name: &str) -> Option<about::About> {
    let now = Arc::new(world.shown(Some(&About::Project(name.to_owned()))));
    about::project(now, None, &ProjectName(name.into()))
}

#[test]
fn who_holds_what_why_and_until_when_with_links() {
    let page = overview::overview(of_all(vec![held_by("alice@example.com")], Vec::new()), None);
    let page = page.render().unwrap();
    for part in [
        "Held now (1)",
        "<a href=\"/person/alice%40example.com\">alice@example.com</a>",
        "<a href=\"/project/payments\">payments</a>/admin",
        "on call in pagerduty/P1 (access.d/payments.toml:7)",
        "<time datetime=\"2027-01-15T08:16:40Z\"",
        "(in 16m)",
        "Nothing: every schedule is read",
        "Still being added up",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(page.matches("<h1").count(), 1);
}

#[test]
fn names_made_to_break_html_stay_text() {
    let mut problem = Problem::new(ProblemKind::NoEmail, format!("</ul><script>alert(1)</script>{HOSTILE}"));
    problem.person = Some(person(HOSTILE));
    problem.entitlement = Some(id("payments/admin"));
    let world = || world(vec![held_by(HOSTILE)], vec![problem.clone()]);
    let overview = overview::overview(world().shown(None).into(), None).render().unwrap();
    let about = of_person(world(), HOSTILE).unwrap().render().unwrap();
    for page in [overview, about] {
        assert!(
            !page.contains("<img") && !page.contains("<script>alert") && !page.contains('\u{202e}'),
            "{page}"
        );
        assert!(page.contains("&#60;img"), "{page}");
        assert!(page.matches("To look at (1)").count() == 1, "{page}");
    }
}

#[test]
fn a_link_to_a_person_leads_to_that_person() {
    // Shown as an escape, followed as it is.
    let now = of_all(vec![held_by("a\u{ad}/b@example.com")], Vec::new());
    let page = overview::overview(now, None).render().unwrap();
    assert!(page.contains("href=\"/person/a%C2%AD%2Fb%40example.com\""), "{page}");
    assert!(page.contains(">a\\u{ad}/b@example.com</a>"), "{page}");
}

#[test]
fn only_what_is_known_has_a_page() {
    let world = || world(vec![held_by("zoe@example.com")], Vec::new());
    for known in ["alice@example.com", "mira@example.com", "zoe@example.com"] {
        assert!(of_person(world(), known).is_some(), "{known}");
    }
    assert!(of_person(world(), "eve@example.com").is_none());
    assert!(of_project(world(), "payments").is_some() && of_project(world(), "Payments").is_none());
}

#[test]
fn days_add_up_to_what_the_report_says_of_the_whole() {
    let day = 86_400;
    let turn = |from, to| {
        cause(
            on_call(),
            span(from - 600, to + 900),
            span(from, to),
            from - 600,
            Some(to + 900),
        )
    };
    let rows = [
        row(-600, Some(day * 3 + 912), vec![turn(0, day * 3)]),
        row(day * 5 + 7, None, vec![turn(day * 5, day * 40)]),
    ];
    let (unheld, sessions) = (Vec::new(), Sessions::default());
    let record = Record {
        rows: &rows,
        unheld: &unheld,
        sessions: &sessions,
    };
    let now = t(day * 11 + 12_345);
    let days = days(now);
    assert_eq!(days.len(), 28);
    assert!(days.windows(2).all(|pair| pair[0].end() == pair[1].start()));
    assert_eq!(days.last().unwrap().end(), now);
    let whole = crate::model::Interval::new(days[0].start(), now).unwrap();
    let report = measure(record, whole, now).total();
    let measured = days.iter().map(|day| Groups::new(&measure(record, *day, now)));
    let weeks: FourWeeks = super::hours::lines(days.clone(), measured.collect());
    for line in [
        &weeks.total,
        weeks.projects.values().next().unwrap(),
        weeks.people.values().next().unwrap(),
    ] {
        let sum = super::words::sum(line);
        assert_eq!((sum.held, sum.on_duty), (report.held.held(), report.held.duty()));
        assert!(SignedDuration::ZERO < sum.overhang());
    }
    let names: BTreeSet<_> = weeks.people.keys().map(|p| p.as_str()).collect();
    assert_eq!(names, ["alice@example.com"].into());
}

#[test]
fn a_page_shows_the_first_rows_and_says_how_many_more_there_are() {
    let rows = || (0..5_000).map(|n| held_by(&format!("person{n}@example.com"))).collect();
    let problem = |n: usize| Problem::new(ProblemKind::NoEmail, format!("number {n}"));
    let now = of_all(rows(), (0..3_000).map(problem).collect());
    let page = overview::overview(now, None).render().unwrap();
    for part in [
        "Held now (5000)",
        "And 4800 more; each project's page shows its own.",
        "To look at (3000)",
        "And 2900 more; <code>dutybound status</code> shows all.",
    ] {
        assert!(
            page.contains(part),
            "{part} is missing in a page of {} bytes",
            page.len()
        );
    }
    assert!(page.len() < 300_000, "{} bytes", page.len());
    let project = of_project(world(rows(), Vec::new()), "payments");
    let project = project.unwrap().render().unwrap();
    assert!(
        project.contains("And 4500 more") && project.len() < 500_000,
        "{} bytes",
        project.len()
    );
}

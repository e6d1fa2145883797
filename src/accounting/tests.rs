use proptest::prelude::*;

use super::fixtures::*;
use super::*;
use crate::model::{PrincipalId, ResolvedTarget};
use crate::policy::Policy;

const HOUR: i64 = 3600;

fn on_call_phase(part: Part) -> Phase {
    Phase {
        kind: Kind::OnCall,
        part,
    }
}

fn cut(row: &AccessRow, now: i64) -> Vec<(i64, i64, Phase)> {
    phases(row, t(now))
        .into_iter()
        .map(|(i, phase)| {
            let second = |at: Timestamp| at.as_second() - 1_800_000_000;
            (second(i.start()), second(i.end()), phase)
        })
        .collect()
}

#[test]
fn a_shift_with_lead_linger_and_a_late_revoke_is_cut_at_each_boundary() {
    let shift = cause(
        on_call(),
        span(-600, 9 * HOUR + 900),
        span(0, 9 * HOUR),
        -595,
        Some(9 * HOUR + 960),
    );
    let row = row(-595, Some(9 * HOUR + 960), vec![shift]);
    assert_eq!(
        cut(&row, 1_000_000),
        [
            (-595, 0, on_call_phase(Part::Lead)),
            (0, 9 * HOUR, on_call_phase(Part::Duty)),
            (9 * HOUR, 9 * HOUR + 900, on_call_phase(Part::Linger)),
            (9 * HOUR + 900, 9 * HOUR + 960, on_call_phase(Part::Late)),
        ]
    );
    let figures = account(std::slice::from_ref(&row), Interval::ALWAYS, t(1_000_000)).total();
    assert_eq!(figures.duty(), SignedDuration::from_hours(9));
    assert_eq!(figures.overhang(), SignedDuration::from_secs(595 + 900 + 60));
    assert_eq!(figures.held(), figures.duty() + figures.overhang());
}

#[test]
fn open_access_is_counted_to_now_and_not_beyond() {
    let open = row(
        0,
        None,
        vec![cause(Basis::Membership, Interval::ALWAYS, Interval::ALWAYS, 0, None)],
    );
    let rows = [open];
    let held = |period, now| account(&rows, period, t(now)).total().held().as_secs();
    assert_eq!(held(span(-100, 100), 40), 40);
    assert_eq!(held(span(-100, 100), 400), 100);
    assert_eq!(held(span(50, 100), 40), 0);
    assert_eq!(held(span(-100, 100), -10), 0);
}

#[test]
fn of_several_causes_the_first_in_precedence_gets_the_time_and_none_of_it_twice() {
    let rows = [row(
        0,
        Some(100),
        vec![
            cause(Basis::Membership, span(0, 100), span(0, 100), 0, Some(100)),
            cause(Basis::Window, span(20, 80), span(20, 80), 0, Some(100)),
            cause(on_call(), span(30, 60), span(40, 50), 0, Some(100)),
        ],
    )];
    let figures = account(&rows, Interval::ALWAYS, t(1000)).total();
    let seconds = |kind| figures.of(kind, Part::Duty).as_secs();
    assert_eq!(Kind::ALL.map(seconds), [10, 50, 40]);
    assert_eq!(figures.overhang(), SignedDuration::ZERO);
    assert_eq!(figures.held(), SignedDuration::from_secs(100));
}

#[test]
fn a_back_to_back_shift_recorded_by_the_pass_after_the_boundary_leaves_no_hole() {
    let first = cause(on_call(), span(0, 1000), span(0, 1000), 0, Some(1003));
    let second = cause(on_call(), span(1000, 2000), span(1000, 2000), 1003, Some(2001));
    assert_eq!(
        cut(&row(0, Some(2001), vec![first.clone(), second]), 9000),
        [
            (0, 2000, on_call_phase(Part::Duty)),
            (2000, 2001, on_call_phase(Part::Late))
        ]
    );

    // Recorded after a long outage, it counts for the last five minutes before only.
    let much_later = cause(on_call(), span(1000, 9000), span(1000, 9000), 3000, None);
    assert_eq!(
        cut(&row(0, None, vec![first, much_later]), 4000),
        [
            (0, 1000, on_call_phase(Part::Duty)),
            (1000, 2700, on_call_phase(Part::Late)),
            (2700, 4000, on_call_phase(Part::Duty))
        ]
    );
}

#[test]
fn a_cause_that_is_withdrawn_early_stops_counting_then() {
    let withdrawn = cause(on_call(), span(0, 1000), span(0, 1000), 0, Some(400));
    assert_eq!(
        cut(&row(0, Some(460), vec![withdrawn]), 9000),
        [
            (0, 400, on_call_phase(Part::Duty)),
            (400, 460, on_call_phase(Part::Late))
        ]
    );
}

#[test]
fn lead_counts_five_minutes_behind_unless_it_has_turned_out_to_be_duty() {
    let shift = cause(on_call(), span(0, 9000), span(600, 9000), 0, None);
    let member = cause(Basis::Membership, Interval::ALWAYS, Interval::ALWAYS, 400, None);
    let overhang = |causes| {
        let row = row(0, None, causes);
        let (mut settled, now) = (Figures::default(), 500);
        settled.settle(&phases(&row, Timestamp::MAX), t(now));
        let all = account(std::slice::from_ref(&row), Interval::ALWAYS, t(now)).total();
        (all.overhang().as_secs(), settled.overhang().as_secs())
    };
    assert_eq!(overhang(vec![shift.clone()]), (500, 200));
    assert_eq!(overhang(vec![shift, member]), (100, 100));
}

#[test]
fn access_found_to_have_begun_before_it_was_recorded_counts_from_its_beginning() {
    // The reply was lost: the grant took effect at 0 and was settled an hour later.
    let settled_late = cause(on_call(), span(0, 3 * HOUR), span(0, 3 * HOUR), HOUR, None);
    assert_eq!(
        cut(&row(0, None, vec![settled_late]), 2 * HOUR),
        [(0, 2 * HOUR, on_call_phase(Part::Duty))]
    );
}

#[test]
fn standing_access_is_everybody_who_could_ever_earn_it_for_all_of_the_period() {
    let seconds = |policy: &Policy, period| -> Vec<(String, i64)> {
        standing(policy, &snapshots(), &[], period)
            .into_iter()
            .map(|((_, person), time)| (person.to_string(), time.as_secs()))
            .collect()
    };
    let two_keys = policy(vec![on_call_rule(true, None, 9)]);
    let expected = [
        ("alice@example.com".to_owned(), 100),
        ("bob@example.com".to_owned(), 50),
    ];
    assert_eq!(
        seconds(&two_keys, span(0, 100)),
        expected,
        "members, to the end of their membership"
    );
    assert_eq!(
        seconds(&two_keys, span(60, 100))[1].1,
        0,
        "bob's membership ended before"
    );
    let mut begun_late = policy(vec![on_call_rule(true, None, 9), on_call_rule(true, Some(t(40)), 12)]);
    for project in begun_late.projects.values_mut() {
        project.members.get_mut(&person("bob@example.com")).unwrap().since = Some(t(30));
    }
    assert_eq!(
        seconds(&begun_late, span(0, 100))[1].1,
        20,
        "from the begin of the membership to its end, once"
    );

    let one_key = policy(vec![on_call_rule(false, None, 9)]);
    let expected = [
        ("alice@example.com".to_owned(), 100),
        ("carol@example.com".to_owned(), 100),
    ];
    assert_eq!(seconds(&one_key, span(0, 100)), expected, "whoever the schedule shows");

    let both = policy(vec![on_call_rule(true, None, 9), on_call_rule(false, Some(t(20)), 12)]);
    let expected = [
        ("alice@example.com".to_owned(), 100),
        ("bob@example.com".to_owned(), 50),
        ("carol@example.com".to_owned(), 20),
    ];
    assert_eq!(
        seconds(&both, span(0, 100)),
        expected,
        "each person once, as long as some rule holds"
    );
}

const ADMIN: &str = "arn:aws:sso:::permissionSet/ssoins-1/ps-admin";

fn sessions(finds: &[(i64, i64)]) -> Sessions {
    let mut sessions = Sessions::default();
    for (at, seconds) in finds {
        sessions.add(ADMIN, t(*at), SignedDuration::from_secs(*seconds));
    }
    sessions
}

fn assignment(granted: i64, revoked: Option<i64>, causes: Vec<RecordedCause>) -> AccessRow {
    AccessRow {
        target: ResolvedTarget::Assignment {
            account: "111122223333".into(),
            permission_set_arn: ADMIN.into(),
        },
        ..row(granted, revoked, causes)
    }
}

fn measured(rows: &[AccessRow], unheld: &[Unheld], sessions: &Sessions, period: Interval, now: i64) -> Sums {
    let record = Record { rows, unheld, sessions };
    measure(record, period, t(now)).total()
}

#[test]
fn a_session_lives_on_after_the_revoke_until_its_time_is_over_or_the_access_is_back() {
    let rows = [
        assignment(0, Some(1000), vec![]),
        assignment(2000, Some(3000), vec![]),
        assignment(9000, Some(9500), vec![]),
    ];
    let tail = |sessions: &Sessions, period, now| measured(&rows, &[], sessions, period, now).tail.as_secs();
    let hour = sessions(&[(-10, HOUR)]);
    // [1000, 2000), then [3000, 6600), then [9500, 13100).
    assert_eq!(tail(&hour, Interval::ALWAYS, 100_000), 1000 + HOUR + HOUR);
    assert_eq!(
        tail(&hour, Interval::ALWAYS, 10_000),
        1000 + HOUR + 500,
        "to now and not beyond"
    );
    assert_eq!(tail(&hour, span(1500, 3100), 100_000), 500 + 100);
    assert_eq!(
        tail(&hour, span(3100, 4000), 100_000),
        900,
        "of a revoke before the period"
    );
    // Sessions opened before the duration was cut may be longer than those opened after.
    assert_eq!(
        tail(&sessions(&[(0, HOUR), (9400, 60)]), Interval::ALWAYS, 100_000),
        1000 + HOUR + 3500
    );
    assert_eq!(
        tail(&sessions(&[(0, HOUR), (8000, 60)]), Interval::ALWAYS, 100_000),
        1000 + HOUR + 60
    );

    let unknown = measured(&rows, &[], &Sessions::default(), Interval::ALWAYS, 100_000);
    assert_eq!(
        (unknown.tail.as_secs(), unknown.revokes, unknown.revokes_without_tail),
        (0, 3, 3)
    );
    let held = measured(&rows, &[], &hour, Interval::ALWAYS, 100_000);
    assert_eq!(held.held.held(), unknown.held.held(), "a tail is not held");
    assert_eq!(held.revokes_without_tail, 0);

    let all: Vec<&AccessRow> = rows.iter().collect();
    let ends = endings(&all, &hour);
    assert_eq!(
        (ends[0].revoked_at, ends[0].effective_until),
        (t(1000), Some(t(1000 + HOUR)))
    );
    let warned = outlasted(&ends, Interval::ALWAYS);
    assert_eq!(warned.len(), 1);
    assert_eq!(
        (
            warned[0].times,
            warned[0].shortest_gap.as_secs(),
            warned[0].longest_tail.as_secs()
        ),
        (1, 1000, HOUR)
    );
    assert_eq!(outlasted(&endings(&all, &sessions(&[(0, 999)])), Interval::ALWAYS), []);
    assert_eq!(outlasted(&ends, span(2000, 9000)), []);
}

fn without_access(from: i64, to: i64, ended: Option<i64>, why: &str, held: &[(i64, i64)]) -> Unheld {
    Unheld {
        id: from,
        entitlement: id("payments/admin"),
        person: person("alice@example.com"),
        duty: span(from, to),
        why: why.into(),
        ended_at: ended.map(t),
        held: held.iter().map(|(from, to)| span(*from, *to)).collect(),
    }
}

#[test]
fn duty_is_what_was_held_on_duty_and_what_was_not_covered() {
    let shift = cause(on_call(), span(0, 1000), span(0, 1000), 40, Some(1000));
    let rows = [row(40, Some(1000), vec![shift])];
    // The pass that noticed the grant did so at 60; the row says since when it held.
    let unheld = [without_access(0, 1000, Some(60), "granting", &[(40, 1000)])];
    let none = Sessions::default();
    let whole = measured(&rows, &unheld, &none, Interval::ALWAYS, 5000);
    assert_eq!(whole.uncovered().as_secs(), 40);
    assert_eq!(whole.duty().as_secs(), 1000);
    assert_eq!(whole.uncovered_why.keys().collect::<Vec<_>>(), ["granting"]);
    let open = [without_access(0, 1000, None, "held_by_pause", &[])];
    assert_eq!(
        measured(&[], &open, &none, Interval::ALWAYS, 300).uncovered().as_secs(),
        300
    );
    assert_eq!(
        measured(&[], &open, &none, Interval::ALWAYS, 3000)
            .uncovered()
            .as_secs(),
        1000
    );
    assert_eq!(
        measured(&[], &open, &none, span(100, 200), 3000).uncovered().as_secs(),
        100
    );
}

#[test]
fn late_access_belongs_to_what_earned_it_last() {
    let window = cause(Basis::Window, span(0, 100), span(0, 100), 0, Some(100));
    let on_call = cause(on_call(), span(0, 50), span(0, 50), 0, Some(50));
    let figures = account(&[row(0, Some(130), vec![window, on_call])], Interval::ALWAYS, t(1000)).total();
    assert_eq!(figures.of(Kind::Window, Part::Late).as_secs(), 30);
    assert_eq!(figures.of(Kind::OnCall, Part::Duty).as_secs(), 50);
    assert_eq!(figures.kind(Kind::Window).as_secs(), 80);
}

#[test]
fn duty_wholly_outside_what_may_be_held_is_all_overhang() {
    // The membership ended before the shift began, and only the lead is left.
    let only_lead = cause(on_call(), span(0, 60), span(100, 200), 0, Some(60));
    let figures = account(&[row(0, Some(60), vec![only_lead])], Interval::ALWAYS, t(1000)).total();
    assert_eq!((figures.duty().as_secs(), figures.part(Part::Lead).as_secs()), (0, 60));
}

fn any_assignment() -> impl Strategy<Value = Vec<AccessRow>> {
    proptest::collection::vec((1..400i64, 1..400i64, 0..3u8), 0..8).prop_map(|steps| {
        let mut from = 0;
        let mut rows = Vec::new();
        for (pause, long, who) in steps {
            from += pause;
            let mut row = assignment(from, Some(from + long), vec![]);
            row.person = person(&format!("p{who}@example.com"));
            row.principal = PrincipalId(format!("u-{who}").into());
            from += long;
            rows.push(row);
        }
        rows
    })
}

fn any_unheld() -> impl Strategy<Value = Vec<Unheld>> {
    let entry = (
        1..400i64,
        1..400i64,
        proptest::option::of(0..500i64),
        0..300i64,
        1..300i64,
        any::<bool>(),
    );
    proptest::collection::vec(entry, 0..6).prop_map(|steps| {
        let mut from = 0;
        let mut entries = Vec::new();
        for (pause, long, ended, held, lasting, why) in steps {
            from += pause;
            let held = [(from + held, from + held + lasting)];
            let why = if why { "granting" } else { "barred" };
            entries.push(without_access(from, from + long, ended.map(|e| from + e), why, &held));
            from += long;
        }
        entries
    })
}

fn any_basis() -> impl Strategy<Value = Basis> {
    prop_oneof![Just(on_call()), Just(Basis::Window), Just(Basis::Membership)]
}

fn any_cause() -> impl Strategy<Value = RecordedCause> {
    (
        any_basis(),
        -900..900i64,
        1..900i64,
        0..60i64,
        0..60i64,
        0..900i64,
        proptest::option::of(1..900i64),
    )
        .prop_map(|(basis, start, length, lead, linger, recorded, ended)| {
            let held = span(start - lead, start + length + linger);
            cause(
                basis,
                held,
                span(start, start + length),
                recorded,
                ended.map(|e| recorded + e),
            )
        })
}

fn any_row() -> impl Strategy<Value = AccessRow> {
    (
        0..500i64,
        proptest::option::of(0..900i64),
        proptest::collection::vec(any_cause(), 0..6),
        0..3u8,
    )
        .prop_map(|(granted, revoked, causes, who)| {
            let mut row = row(granted, revoked.map(|r| granted + r), causes);
            row.person = person(&format!("p{who}@example.com"));
            row
        })
}

proptest! {
    #[test]
    fn figures_add_up_over_any_split(
        rows in proptest::collection::vec(any_row(), 0..6), now in 0..2000i64, mut cuts in proptest::collection::vec(-100..2100i64, 2..8),
    ) {
        cuts.sort_unstable();
        cuts.dedup();
        prop_assume!(cuts.len() > 1);
        let whole = account(&rows, span(cuts[0], cuts[cuts.len() - 1]), t(now));
        let mut parts = Account::default();
        for pair in cuts.windows(2) {
            for (cell, figures) in account(&rows, span(pair[0], pair[1]), t(now)).cells {
                *parts.cells.entry(cell).or_default() += figures;
            }
        }
        prop_assert_eq!(whole, parts);
    }

    #[test]
    fn given_one_by_one_the_rows_come_to_the_same(
        held in proptest::collection::vec(any_row(), 0..6), rows in any_assignment(), session in 1..2000i64,
        now in 0..4000i64, mut cuts in proptest::collection::vec(-100..4000i64, 2..8),
    ) {
        cuts.sort_unstable();
        cuts.dedup();
        let periods: Vec<Interval> = cuts.windows(2).map(|pair| span(pair[0], pair[1])).collect();
        let sessions = sessions(&[(0, session)]);
        // Nobody holds the same twice at once.
        let apart = |(n, mut row): (usize, AccessRow)| {
            row.principal = PrincipalId(format!("apart-{n}").into());
            row
        };
        let rows: Vec<AccessRow> = held.into_iter().enumerate().map(apart).chain(rows).collect();
        let mut added = vec![Measure::default(); periods.len()];
        let mut running = Running::new(&periods, &sessions, t(now));
        let mut add = |place: usize, id: &EntitlementId, person: &Person, sums: &Sums| {
            *added[place].cells.entry((id.clone(), person.clone())).or_default() += sums;
        };
        for row in &rows {
            running.take(row, &mut add);
        }
        running.end(&mut add);
        for (added, period) in added.iter().zip(&periods) {
            let record = Record { rows: &rows, unheld: &[], sessions: &sessions };
            prop_assert_eq!(added, &measure(record, *period, t(now)));
        }
    }

    #[test]
    fn tails_and_uncovered_time_add_up_over_any_split(
        rows in any_assignment(), unheld in any_unheld(), session in 1..2000i64,
        now in 0..4000i64, mut cuts in proptest::collection::vec(-100..4000i64, 2..8),
    ) {
        cuts.sort_unstable();
        cuts.dedup();
        prop_assume!(cuts.len() > 1);
        let sessions = sessions(&[(0, session)]);
        let record = Record { rows: &rows, unheld: &unheld, sessions: &sessions };
        let whole = measure(record, span(cuts[0], cuts[cuts.len() - 1]), t(now));
        let mut parts = Measure::default();
        for pair in cuts.windows(2) {
            for (cell, sums) in measure(record, span(pair[0], pair[1]), t(now)).cells {
                *parts.cells.entry(cell).or_default() += &sums;
            }
        }
        prop_assert_eq!(&whole, &parts);
        // Second by second, as a slow and obvious program would.
        let tail = |second: i64| {
            let of_row = |row: &AccessRow| {
                let end = row.revoked_at.unwrap();
                let again = rows.iter().any(|other| other.principal == row.principal && end <= other.granted_at && other.granted_at <= t(second));
                end <= t(second) && t(second) < end + SignedDuration::from_secs(session) && !again
            };
            i64::try_from(rows.iter().filter(|row| of_row(row)).count()).unwrap()
        };
        let slow: i64 = (cuts[0]..cuts[cuts.len() - 1]).filter(|second| *second < now).map(tail).sum();
        prop_assert_eq!(whole.total().tail.as_secs(), slow);
    }

    #[test]
    fn phases_cover_an_interval_exactly_and_in_order(row in any_row(), now in 0..2000i64) {
        let cut = phases(&row, t(now));
        for pair in cut.windows(2) {
            prop_assert_eq!(pair[0].0.end(), pair[1].0.start());
            prop_assert_ne!(pair[0].1, pair[1].1);
        }
        let end = row.revoked_at.unwrap_or(Timestamp::MAX).min(t(now));
        let covered = cut.first().zip(cut.last()).map(|(first, last)| (first.0.start(), last.0.end()));
        prop_assert_eq!(covered, (row.granted_at < end).then_some((row.granted_at, end)));
    }

    #[test]
    fn the_order_of_rows_and_causes_does_not_matter(
        rows in proptest::collection::vec(any_row(), 0..6), now in 0..2000i64, turn in 0..6usize,
    ) {
        let mut other = rows.clone();
        other.reverse();
        for row in &mut other {
            let by = turn % row.causes.len().max(1);
            row.causes.rotate_left(by);
        }
        let period = span(-100, 3000);
        prop_assert_eq!(account(&rows, period, t(now)), account(&other, period, t(now)));
    }

    /// Plays a life of one interval of access as the ledger writes it, and looks at the counters all along.
    #[test]
    fn settled_time_never_shrinks_while_the_record_grows(
        first in any_cause(),
        steps in proptest::collection::vec((1..400i64, proptest::option::of(any_cause()), any::<prop::sample::Index>()), 1..12),
    ) {
        let mut now = 0;
        let mut row = row(0, None, vec![RecordedCause { recorded_at: t(0), ended_at: None, ..first }]);
        let mut before = Figures::default();
        let mut check = |row: &AccessRow, now: i64| {
            let after = match row.revoked_at {
                None => {
                    let mut figures = Figures::default();
                    figures.settle(&phases(row, Timestamp::MAX), t(now));
                    figures
                }
                Some(_) => account(std::slice::from_ref(row), Interval::ALWAYS, t(now)).total(),
            };
            for part in Part::OVERHANG {
                assert!(before.part(part) <= after.part(part), "{part:?} at {now}: {before:?} {after:?} {row:?}");
            }
            for basis in Phase::BASES {
                assert!(before.basis(basis) <= after.basis(basis), "{basis} at {now}: {before:?} {after:?} {row:?}");
            }
            before = after;
        };
        for (pause, new, old) in steps {
            now += pause;
            check(&row, now);
            if let Some(new) = new {
                row.causes.push(RecordedCause { recorded_at: t(now), ended_at: None, ..new });
            } else {
                let ended = old.index(row.causes.len());
                row.causes[ended].ended_at.get_or_insert(t(now));
            }
            check(&row, now);
        }
        now += 10;
        row.revoked_at = Some(t(now));
        check(&row, now);
        check(&row, now + 5000);
        prop_assert_eq!(before, account(&[row], Interval::ALWAYS, t(now)).total());
    }
}

//! Makes an organisation out of a number.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Entitlement, Org, Policy, Rule, SOURCES, Schedule, Target, Trigger, Turn, hours, minutes};
use crate::rng::Rng;

impl Org {
    pub(crate) fn new(rng: &mut Rng, start: Timestamp, end: Timestamp) -> Self {
        let people = usize::try_from(rng.range(5, 25)).unwrap();
        let projects = usize::try_from(rng.range(2, 6)).unwrap();
        let schedules: Vec<_> = (0..rng.range(3, 10))
            .map(|n| schedule(rng, n, people, start, end))
            .collect();
        let mut entitlements = Vec::new();
        for project in 0..projects {
            for n in 0..rng.range(1, 3) {
                let target = if rng.percent(50) {
                    // Few accounts, so that changes queue for them.
                    Target::Assignment {
                        account: format!("11112222000{}", rng.range(0, 4)),
                        permission_set: format!("set-{project}-{n}"),
                    }
                } else {
                    Target::Group(format!("group-{project}-{n}"))
                };
                entitlements.push(Entitlement {
                    project,
                    name: format!("e{n}"),
                    target,
                    exclusive: rng.percent(10),
                    min_holders: usize::from(rng.percent(15)),
                    delegate_to: rng.percent(30).then(|| rng.index(projects)).filter(|p| *p != project),
                });
            }
        }
        let mut rules = Vec::new();
        for (entitlement, owned) in entitlements.iter().enumerate() {
            for _ in 0..rng.range(1, 2) {
                let owner = owned.project;
                let project = owned.delegate_to.filter(|_| rng.percent(50)).unwrap_or(owner);
                let on_call = rng.percent(85);
                let schedule = rng.index(schedules.len());
                let levels = schedules[schedule].levels;
                let trigger = if on_call {
                    Trigger::OnCall {
                        schedule,
                        levels: (0 < levels && rng.percent(70))
                            .then(|| BTreeSet::from([u32::try_from(rng.range(1, 2)).unwrap()])),
                    }
                } else if rng.percent(50) {
                    Trigger::OfficeHours
                } else {
                    Trigger::Members
                };
                let span = |rng: &mut Rng| {
                    if on_call && rng.percent(40) {
                        minutes(rng.range(1, 60))
                    } else {
                        SignedDuration::ZERO
                    }
                };
                rules.push(Rule {
                    project,
                    entitlement,
                    member: !on_call || rng.percent(70),
                    lead: span(rng),
                    linger: span(rng),
                    trigger,
                });
            }
        }
        let members = (0..projects)
            .map(|_| (0..people).filter(|_| rng.percent(75)).collect())
            .collect();
        Self {
            people,
            schedules,
            policy: Policy {
                projects,
                entitlements,
                rules,
                members,
            },
            protected: rng.percent(30).then(|| rng.index(people)),
        }
    }
}

fn schedule(rng: &mut Rng, n: i64, people: usize, start: Timestamp, end: Timestamp) -> Schedule {
    let source = rng.index(SOURCES.len());
    let levels = if source == 0 && rng.percent(30) { 2 } else { 0 };
    let mut schedule = Schedule {
        source,
        id: format!("{}{n}", if 0 < levels { "EP" } else { "S" }),
        levels,
        turns: Vec::new(),
        version: 0,
    };
    for level in 0..=levels {
        if (level == 0) != (levels == 0) {
            continue;
        }
        let mut rota: Vec<usize> = (0..rng.range(2, 6)).map(|_| rng.index(people)).collect();
        rota.dedup();
        let length = hours(*rng.pick(&[6, 8, 12, 24, 24, 7 * 24]));
        // Hand-offs at odd minutes too.
        let mut at = start - hours(24) + minutes(*rng.pick(&[0, 0, 30, 480, 545]));
        let mut turn = 0;
        while at < end + hours(20 * 24) {
            let person = rota[turn % rota.len()];
            if !rng.percent(3) {
                schedule.turns.push(Turn {
                    start: at,
                    end: at + length,
                    level,
                    person,
                    via: None,
                });
            }
            (at, turn) = (at + length, turn + 1);
        }
    }
    schedule.turns.sort();
    schedule
}

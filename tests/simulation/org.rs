//! A random organisation: people, rotations and policy, in the world's own terms.
//!
//! What causes access is computed here from the generator's own values, without the code under test.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::civil::Weekday;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::rng::Rng;

pub(crate) const SOURCES: [&str; 2] = ["pagerduty", "opsgenie"];

pub(crate) fn minutes(n: i64) -> SignedDuration {
    SignedDuration::from_mins(n)
}

pub(crate) fn hours(n: i64) -> SignedDuration {
    SignedDuration::from_hours(n)
}

/// One turn of duty as the provider's final view has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) level: u32,
    pub(crate) person: usize,
    pub(crate) via: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    pub(crate) source: usize,
    pub(crate) id: String,
    /// An escalation policy has levels.
    pub(crate) levels: u32,
    /// Sorted by start; turns of one level do not overlap.
    pub(crate) turns: Vec<Turn>,
    /// Counts the edits.
    pub(crate) version: u64,
}

impl Schedule {
    /// Puts `person` on duty at `level`, whoever was there.
    pub(crate) fn replace(
        &mut self,
        level: u32,
        start: Timestamp,
        end: Timestamp,
        person: Option<usize>,
        via: Option<String>,
    ) {
        self.version += 1;
        let mut turns = Vec::with_capacity(self.turns.len() + 2);
        for turn in self.turns.drain(..) {
            if turn.level != level || turn.end <= start || end <= turn.start {
                turns.push(turn);
                continue;
            }
            if turn.start < start {
                turns.push(Turn {
                    end: start,
                    ..turn.clone()
                });
            }
            if end < turn.end {
                turns.push(Turn { start: end, ..turn });
            }
        }
        if let Some(person) = person {
            turns.push(Turn {
                start,
                end,
                level,
                person,
                via,
            });
        }
        turns.sort();
        self.turns = turns;
    }

    /// Everybody who is on a turn that begins after `t`.
    pub(crate) fn coming(&self, t: Timestamp, within: SignedDuration) -> Vec<Turn> {
        self.turns
            .iter()
            .filter(|turn| t < turn.start && turn.start < t + within)
            .cloned()
            .collect()
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    Assignment { account: String, permission_set: String },
    Group(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Entitlement {
    pub(crate) project: usize,
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) exclusive: bool,
    pub(crate) delegate_to: Option<usize>,
}

#[derive(Debug, Clone)]
pub(crate) enum Trigger {
    OnCall {
        schedule: usize,
        levels: Option<BTreeSet<u32>>,
    },
    Members,
    /// From 9 to 18 o'clock on weekdays in Berlin, where clocks change.
    OfficeHours,
}

#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) project: usize,
    pub(crate) entitlement: usize,
    pub(crate) trigger: Trigger,
    pub(crate) member: bool,
    pub(crate) lead: SignedDuration,
    pub(crate) linger: SignedDuration,
}

/// What people write.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) projects: usize,
    pub(crate) entitlements: Vec<Entitlement>,
    pub(crate) rules: Vec<Rule>,
    /// By project.
    pub(crate) members: Vec<BTreeSet<usize>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Org {
    pub(crate) people: usize,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) policy: Policy,
}

pub(crate) fn email(person: usize) -> String {
    format!("p{person}@example.com")
}

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

impl Policy {
    /// The policy files as their authors write them.
    pub(crate) fn files(&self, org: &[Schedule]) -> Vec<(String, Vec<u8>)> {
        (0..self.projects)
            .map(|project| (format!("project{project}.toml"), self.file(project, org).into_bytes()))
            .collect()
    }

    fn file(&self, project: usize, schedules: &[Schedule]) -> String {
        let mut text = format!("[project]\nname = \"project{project}\"\nowners = [\"owner@example.com\"]\n");
        for e in self.entitlements.iter().filter(|e| e.project == project) {
            writeln!(text, "[[entitlement]]\nname = \"{}\"", e.name).unwrap();
            match &e.target {
                Target::Assignment {
                    account,
                    permission_set,
                } => {
                    writeln!(text, "account = \"{account}\"\npermission_set = \"{permission_set}\"").unwrap();
                }
                Target::Group(group) => writeln!(text, "group = \"{group}\"").unwrap(),
            }
            if e.exclusive {
                writeln!(text, "exclusive = true").unwrap();
            }
            if let Some(to) = e.delegate_to {
                writeln!(text, "delegate_to = [\"project{to}\"]").unwrap();
            }
        }
        for member in &self.members[project] {
            writeln!(
                text,
                "[[member]]\nemail = \"{}\"\nadded_by = \"owner@example.com\"",
                email(*member)
            )
            .unwrap();
        }
        for rule in self.rules.iter().filter(|r| r.project == project) {
            let e = &self.entitlements[rule.entitlement];
            let prefix = if e.project == project {
                String::new()
            } else {
                format!("project{}/", e.project)
            };
            writeln!(text, "[[rule]]\nentitlement = \"{prefix}{}\"", e.name).unwrap();
            match &rule.trigger {
                Trigger::Members => writeln!(text, "members = true").unwrap(),
                Trigger::OfficeHours => writeln!(
                    text,
                    "members = true\nduring = {{ cron = \"0 9 * * MON-FRI\", until = \"18:00\", zone = \"Europe/Berlin\" }}"
                )
                .unwrap(),
                Trigger::OnCall { schedule, levels } => {
                    let s = &schedules[*schedule];
                    let name = format!("{}/{}", SOURCES[s.source], s.id);
                    match levels {
                        None if s.levels == 0 => writeln!(text, "on_call = \"{name}\"").unwrap(),
                        None => writeln!(text, "on_call = {{ escalation_policy = \"{name}\" }}").unwrap(),
                        Some(levels) => {
                            let levels = levels.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
                            writeln!(text, "on_call = {{ escalation_policy = \"{name}\", levels = [{levels}] }}").unwrap();
                        }
                    }
                    if !rule.member {
                        writeln!(text, "requires = []").unwrap();
                    }
                }
            }
            for (name, span) in [("lead", rule.lead), ("linger", rule.linger)] {
                if !span.is_zero() {
                    writeln!(text, "{name} = \"{}m\"", span.as_mins()).unwrap();
                }
            }
        }
        text
    }

    /// When `person` last began to earn `entitlement` without a break, up to and including `t`, and until when: the span
    /// that contains `t`, or else the latest that ended before. Looks two weeks back.
    pub(crate) fn earned(
        &self,
        schedules: &[Schedule],
        entitlement: usize,
        person: usize,
        t: Timestamp,
    ) -> Option<(Timestamp, Timestamp)> {
        let mut spans = Vec::new();
        for rule in self.rules.iter().filter(|r| r.entitlement == entitlement) {
            if rule.member && !self.members[rule.project].contains(&person) {
                continue;
            }
            match &rule.trigger {
                Trigger::Members => spans.push((Timestamp::MIN, Timestamp::MAX)),
                Trigger::OfficeHours => spans.extend(office_hours(t)),
                Trigger::OnCall { schedule, levels } => {
                    let turns = &schedules[*schedule].turns;
                    let from = turns.partition_point(|turn| turn.start < t - hours(14 * 24));
                    let to = turns.partition_point(|turn| turn.start - rule.lead <= t);
                    let counts =
                        |turn: &&Turn| turn.person == person && levels.as_ref().is_none_or(|l| l.contains(&turn.level));
                    spans.extend(
                        turns[from..to]
                            .iter()
                            .filter(counts)
                            .map(|turn| (turn.start - rule.lead, turn.end + rule.linger)),
                    );
                }
            }
        }
        spans.sort();
        let mut last: Option<(Timestamp, Timestamp)> = None;
        for (start, end) in spans {
            last = match last {
                Some((first, until)) if start <= until => Some((first, until.max(end))),
                _ => Some((start, end)),
            };
        }
        last
    }
}

/// The working days around `t`, those that have begun.
fn office_hours(t: Timestamp) -> Vec<(Timestamp, Timestamp)> {
    let zone = TimeZone::get("Europe/Berlin").unwrap();
    let today = t.to_zoned(zone.clone()).date();
    let at = |day: jiff::civil::Date, hour| day.at(hour, 0, 0, 0).to_zoned(zone.clone()).unwrap().timestamp();
    (-4..=0)
        .map(|days| today + SignedDuration::from_hours(24 * days))
        .filter(|day| !matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday))
        .map(|day| (at(day, 9), at(day, 18)))
        .filter(|(start, _)| *start <= t)
        .collect()
}

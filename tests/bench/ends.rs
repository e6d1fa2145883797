//! What the whole daemon costs from end to end: the real process against the simulated services over HTTP, with AWS's limits
//! enforced. Time on the clock, CPU and memory of the process, and every request by kind.
//!
//! `cargo bench --bench ends`, some eight minutes, most of them the limits'. Other sizes, in percent of the large organisation:
//! `DUTYBOUND_PERCENT=1,3`. `DUTYBOUND_STANDING=1` measures instead a daemon that finds everything in force, as after a
//! restart; at 100 % that takes half an hour. `DUTYBOUND_SCHEDULES=3000` measures how fresh so many schedules stay under
//! PagerDuty's limit.

#[path = "../it/harness.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod harness;
mod process;
#[allow(dead_code, reason = "the other benches use the rest")]
mod rig;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use dutybound_sandbox::organisation::{OnCallSchedule, Organisation, Project};
use dutybound_sandbox::world::pagerduty::{self, CustomShift, ShiftSchedule};
use dutybound_sandbox::{Fault, Service, View, World};
use harness::Site;
use jiff::{SignedDuration, Timestamp};
use process::Meter;

/// What AWS allows, and what an assignment operation takes.
const REQUESTS_A_SECOND: u32 = 20;
const IN_FLIGHT: usize = 10;
const OPERATION: SignedDuration = SignedDuration::from_secs(3);
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

fn main() {
    let sizes = rig::sizes(&[1]);
    println!(
        "Time on the clock, CPU and peak memory of the daemon's process, requests it made and what the answers weighed. AWS"
    );
    println!(
        "allows {REQUESTS_A_SECOND} requests a second, {IN_FLIGHT} operations in flight and one per account; an operation takes {} s.",
        OPERATION.as_secs()
    );
    println!("Sizes in percent of the large organisation (100,500 grants, 3,000 schedules).\n");
    process::header();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Ok(schedules) = std::env::var("DUTYBOUND_SCHEDULES") {
        return runtime.block_on(fresh(schedules.parse().unwrap()));
    }
    let is_standing = std::env::var_os("DUTYBOUND_STANDING").is_some();
    for size in sizes {
        if is_standing {
            runtime.block_on(everything_stands(size));
        } else {
            runtime.block_on(organisation(size));
        }
    }
}

/// The request by which a schedule is read.
fn read_of(schedule: &OnCallSchedule) -> String {
    match schedule.provider {
        "pagerduty" => format!("GET /schedules/{}", schedule.id),
        _ => format!("GET /v2/schedules/{}/timeline", schedule.id),
    }
}

/// Lets the schedule's turns change at `at`, from the last in the rotation to the first, who is on call until then.
fn hand_over(world: &mut World, schedule: &OnCallSchedule, at: Timestamp) {
    let start = at - WEEK * 55;
    let rotation = match schedule.provider {
        "pagerduty" => &mut world.pagerduty.schedule_mut(&schedule.id).unwrap().rotation,
        _ => &mut world.opsgenie.schedule_mut(&schedule.id).unwrap().rotations[0].rotation,
    };
    rotation.as_mut().unwrap().start = start;
}

fn is_handed_over(view: &View<'_>, account: &str, schedule: &OnCallSchedule) -> bool {
    let holds = |turn| {
        view.world
            .aws
            .holds(account, &schedule.permission_set, schedule.turn(turn).1)
    };
    holds(0) && !holds(schedule.members.len() - 1)
}

fn configure(site: &Site, mode: &'static str, poll: usize, audit: &str) {
    site.configure(|settings| {
        settings.mode = mode;
        settings.identity_center += "\nrequests_per_second = 19";
        settings.more = format!("[timing]\npoll = \"{poll}s\"\nnotice = \"0s\"\naudit = \"{audit}\"\n");
    });
}

/// The schedules with the accounts that they are for.
fn schedules_of(organisation: &Organisation) -> Vec<(&str, &OnCallSchedule)> {
    let projects = organisation.projects().iter();
    let both = projects.flat_map(|project| {
        project
            .schedules
            .iter()
            .map(|schedule| (project.account.as_str(), schedule))
    });
    both.collect()
}

/// How many entitlements there are.
fn count_targets(organisation: &Organisation) -> usize {
    let of = |project: &Project| project.schedules.len() + project.groups.len();
    organisation.projects().iter().map(of).sum()
}

/// The interval of polls in seconds: as often as our own limit of 120 requests a minute to Opsgenie allows.
fn poll_of(schedules: &[(&str, &OnCallSchedule)]) -> usize {
    let of_opsgenie = schedules.iter().filter(|(_, schedule)| schedule.provider == "opsgenie");
    20.max(of_opsgenie.count() * 6 / 10)
}

/// The services with AWS's limits, and the policy.
async fn site_of(organisation: &Organisation, mut world: World) -> Site {
    world.aws.requests_per_second = REQUESTS_A_SECOND;
    world.aws.outstanding_operations = IN_FLIGHT;
    world.aws.operation_takes = OPERATION;
    let site = Site::new(world, "").await;
    fs::remove_file(site.path("access.d/project.toml")).unwrap();
    for (name, text) in organisation.policy() {
        site.policy(&name, text);
    }
    site
}

/// A daemon that finds everything in force: after its start, while nothing happens, and when one turn ends.
async fn everything_stands(size: usize) {
    let organisation = Organisation::new(size, 1);
    let schedules = schedules_of(&organisation);
    let (began, poll) = (Timestamp::now(), poll_of(&schedules));
    let hand_over = began + SignedDuration::from_hours(72);
    let mut world = organisation.world(hand_over);
    let grants = standing::put(&mut world, &organisation, hand_over, began);
    let site = site_of(&organisation, world).await;
    standing::record(&site.path("ledger.db"), &organisation, hand_over, &grants, began).await;

    configure(&site, "sync", poll, "24h");
    let mut meter = Meter::of(&site, &format!("{size}%"));
    meter.until_looked_at(count_targets(&organisation)).await;
    meter.row(&format!(
        "a start with {} grants standing, until all is looked at",
        grants.len()
    ));
    tokio::time::sleep(Duration::from_secs(60)).await;
    meter.row("the minute after it");
    assert!(site.writes().is_empty(), "{}", site.story());
    turns_end(&site, &mut meter, &schedules, 1, poll, "hand-off").await;
}

/// The last so many schedules hand over in one second.
async fn turns_end(
    site: &Site,
    meter: &mut Meter<'_>,
    schedules: &[(&str, &OnCallSchedule)],
    count: usize,
    poll: usize,
    what: &str,
) {
    let at = Timestamp::now() + SignedDuration::from_secs(i64::try_from(poll).unwrap() + 40);
    // The one that handed over already is the same as the others again.
    let now_over = &schedules[schedules.len() - count..];
    let before: Vec<_> = now_over
        .iter()
        .filter(|(account, schedule)| {
            site.sandbox
                .edit(|world| !world.aws.holds(account, &schedule.permission_set, schedule.turn(0).1))
        })
        .collect();
    site.sandbox
        .edit(|world| before.iter().for_each(|(_, schedule)| hand_over(world, schedule, at)));
    let edited: BTreeSet<String> = before.iter().map(|(_, schedule)| read_of(schedule)).collect();
    site.sandbox.clear_journal();
    meter.until_read(&edited, 1).await;
    let left = Timestamp::now().duration_until(at);
    tokio::time::sleep(left.try_into().expect("every schedule is read before the hand-over")).await;
    meter.start();
    meter
        .until("everybody has taken over", |view| {
            before
                .iter()
                .all(|(account, schedule)| is_handed_over(&view, account, schedule))
        })
        .await;
    let clock = meter.clock.elapsed();
    meter.until_heard().await;
    let accounts: BTreeSet<&str> = before.iter().map(|(account, _)| *account).collect();
    let (count, accounts) = (before.len(), accounts.len());
    let what = format!("{what} of {count}, at least {:.1} s", least(count, accounts));
    meter.row_of(&what, clock);
}

async fn organisation(size: usize) {
    let organisation = Organisation::new(size, 1);
    let projects = organisation.projects();
    let schedules = schedules_of(&organisation);
    let reads: BTreeSet<String> = schedules.iter().map(|(_, schedule)| read_of(schedule)).collect();
    let memberships: usize = projects.iter().map(|p| p.groups.len() * p.members.len()).sum();
    let (targets, poll) = (count_targets(&organisation), poll_of(&schedules));
    let world = organisation.world(Timestamp::now() + SignedDuration::from_hours(72));
    let site = site_of(&organisation, world).await;
    let percent = format!("{size}%");

    configure(&site, "observe", poll, "1h");
    let mut meter = Meter::of(&site, &percent);
    let grants = schedules.len() + memberships;
    let planned = u32::try_from(grants).map(f64::from).unwrap();
    meter.until_looked_at(targets).await;
    meter
        .until_metric("dutybound_held_changes{guard=\"mode\"}", planned)
        .await;
    meter.row(&format!("cold start to the first complete plan, {grants} grants"));
    drop(meter);
    for file in ["ledger.db", "ledger.db-wal", "ledger.db-shm"] {
        fs::remove_file(site.path(file)).unwrap_or_default();
    }

    configure(&site, "sync", poll, "1h");
    let mut meter = Meter::of(&site, &percent);
    meter
        .until("everything is in force", |view| {
            view.world.aws.memberships.len() == memberships && view.world.aws.assignments.len() == schedules.len()
        })
        .await;
    let clock = meter.clock.elapsed();
    meter.until_heard().await;
    meter.row_of("cold start to everything in force", clock);

    meter.until_read(&reads, 2).await;
    meter.start();
    meter.until_read(&reads, 3).await;
    meter.row("three polls of every schedule with nothing new");

    for (count, what) in [(1, "hand-off"), (schedules.len(), "Monday hand-over")] {
        turns_end(&site, &mut meter, &schedules, count, poll, what).await;
    }

    let project = projects.last().unwrap();
    let turns: BTreeSet<&String> = project.schedules.iter().flat_map(|s| &s.members).collect();
    let leaver = project.members[1..]
        .iter()
        .find(|member| !turns.contains(member))
        .unwrap();
    let name = format!("{}.toml", project.name);
    let text = organisation.policy()[&name].clone();
    let begin = text.find(&format!("\n[[member]]\nemail    = \"{leaver}\"")).unwrap();
    let end = text[begin + 1..]
        .find("\n[[member]]")
        .map_or(text.len(), |at| begin + 1 + at);
    meter.start();
    site.policy(&name, format!("{}{}", &text[..begin], &text[end..]));
    meter
        .until("whoever left is in no group", |view| {
            project
                .groups
                .iter()
                .all(|group| !view.world.aws.is_member(group, leaver))
        })
        .await;
    let clock = meter.clock.elapsed();
    meter.until_heard().await;
    meter.row_of("an edit of one file: a member leaves 5 groups", clock);

    site.sandbox.fault(Fault::on(Service::PagerDuty, "*").status(503));
    meter.start();
    let down: BTreeSet<&String> = reads.iter().filter(|read| !read.contains("/v2/")).collect();
    meter
        .until("each schedule was tried three times over", |view| {
            let tries = |read: &String| view.journal.iter().filter(|c| c.operation == *read).count();
            // Each read tries three times.
            down.iter().all(|read| 9 <= tries(read))
        })
        .await;
    meter.row("an outage of PagerDuty, three reads of each in vain");
    site.sandbox.clear_faults();
    meter.start();
    meter
        .until_metric("dutybound_schedules_failing{source=\"pagerduty\"}", 0.0)
        .await;
    meter.row("its end, until every schedule is read again");

    configure(&site, "sync", poll, "30s");
    meter.start();
    meter
        .until("the audit began", |view| !process::looked_at(&view).is_empty())
        .await;
    let clock = Instant::now();
    meter.until_looked_at(targets).await;
    let clock = clock.elapsed();
    meter.row_of(&format!("an audit in full of {targets} targets"), clock);
}

/// The least seconds that AWS's limits allow for so many hand-offs in one second, spread evenly over so many accounts.
fn least(hand_offs: usize, accounts: usize) -> f64 {
    let of = |count: usize| f64::from(u32::try_from(count).unwrap());
    let takes = OPERATION.as_secs_f64();
    let by_places = of(2 * hand_offs) * takes / of(IN_FLIGHT);
    let by_account = of(2 * hand_offs.div_ceil(accounts)) * takes;
    let by_requests = of(4 * hand_offs) / f64::from(REQUESTS_A_SECOND);
    by_places.max(by_account).max(by_requests)
}

/// How old so many shift-based schedules of one PagerDuty account become, read as fast as PagerDuty allows.
async fn fresh(count: usize) {
    let mut world = World::default();
    world
        .pagerduty
        .users
        .push(pagerduty::User::new("PU1", "Ann", "ann@example.com"));
    world.aws.add_group("look");
    world.aws.add_user("Ann", "ann@example.com");
    let mut policy =
        "[project]\nname = \"all\"\nowners = [\"ann@example.com\"]\n\n[[entitlement]]\nname = \"look\"\ngroup = \"look\"\n"
            .to_owned();
    for number in 0..count {
        let id = format!("PS{number:05}");
        policy += &format!("\n[[rule]]\nentitlement = \"look\"\non_call = \"pagerduty/{id}\"\nrequires = []\n");
        let shift = CustomShift {
            id: format!("{id}S1"),
            members: vec!["PU1".to_owned()],
            start: Timestamp::now() - WEEK,
            end: Timestamp::now() + WEEK * 9,
        };
        world.pagerduty.shift_schedules.push(ShiftSchedule {
            id,
            custom_shifts: vec![shift],
            ..ShiftSchedule::default()
        });
    }
    let site = Site::new(world, &policy).await;
    site.configure(|settings| {
        settings.mode = "observe";
        settings.pagerduty += "\nrequests_per_minute = 960";
    });
    let mut meter = Meter::of(&site, &count.to_string());
    meter.until("each was read", |view| count <= view.journal.len()).await;
    meter.start();
    meter
        .until("each was read twice more", |view| 2 * count <= view.journal.len())
        .await;
    let calls = site.sandbox.journal();
    let (mut read_at, mut oldest) = (BTreeMap::new(), SignedDuration::ZERO);
    for call in &calls {
        if let Some(before) = read_at.insert(&call.operation, call.at) {
            oldest = oldest.max(before.duration_until(call.at));
        }
    }
    let minute = SignedDuration::from_secs(60);
    let within = |from: usize| {
        calls[from..]
            .iter()
            .take_while(|c| calls[from].at.duration_until(c.at) < minute)
            .count()
    };
    let most = (0..calls.len()).map(within).max().unwrap_or_default();
    meter.row(&format!(
        "polls: {} s old at most, {most} in a minute",
        oldest.as_secs()
    ));
}

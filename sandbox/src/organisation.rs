//! Organisations of any size from a seed: the policy that their owners wrote and the world that goes with it.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};

use crate::world::{Rotation, World, opsgenie, pagerduty};

/// Projects of the large organisation. With [`MEMBERS`], [`SCHEDULES`] and [`GROUPS`] it comes to what the design names:
/// 20,000 people, 1,500 accounts, 3,000 schedules, 10,500 rules and 100,500 grants at once.
const PROJECTS: usize = 1_500;
/// People of the large organisation; those beyond the projects' members are on no project.
const PEOPLE: usize = 20_000;
/// Permission sets, whatever the size.
const PERMISSION_SETS: usize = 60;
/// Members of a project.
const MEMBERS: usize = 13;
/// On-call schedules of a project, each with a rule for an entitlement of its own in the project's account.
const SCHEDULES: usize = 2;
/// Groups of a project, each with a rule for all its members.
const GROUPS: usize = 5;
/// People who take turns on a schedule.
const ROTATION: usize = 5;
/// Projects under one division.
const DIVISION: usize = 15;
/// How long a turn lasts.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// An organisation of a certain size. The same size and seed always give the same one.
#[derive(Debug, Clone)]
pub struct Organisation {
    percent: usize,
    projects: Vec<Project>,
}

/// A project with its account, its schedules and its groups.
#[derive(Debug, Clone)]
pub struct Project {
    /// `project-0001`.
    pub name: String,
    /// Twelve digits.
    pub account: String,
    /// E-mails of the members; the first is the owner.
    pub members: Vec<String>,
    /// The on-call schedules.
    pub schedules: Vec<OnCallSchedule>,
    /// Names of the groups.
    pub groups: Vec<String>,
}

/// A schedule on which members of a project take turns of a week.
#[derive(Debug, Clone)]
pub struct OnCallSchedule {
    /// `pagerduty` or `opsgenie`.
    pub provider: &'static str,
    /// The provider's id.
    pub id: String,
    /// Who takes turns, by e-mail.
    pub members: Vec<String>,
    /// The entitlement's name.
    pub entitlement: String,
    /// The permission set that the turn earns.
    pub permission_set: String,
}

impl Organisation {
    /// An organisation of `percent` of the large one.
    #[must_use]
    pub fn new(percent: usize, seed: u64) -> Self {
        let people = people(percent);
        let mut rng = seed;
        let projects = (0..(PROJECTS * percent / 100).max(1)).map(|number| {
            let members: Vec<String> = (0..MEMBERS)
                .map(|i| email((number * MEMBERS + i) % people.max(1)))
                .collect();
            let schedule = |kind: usize, first: usize| {
                let provider = if (number + kind).is_multiple_of(3) {
                    "opsgenie"
                } else {
                    "pagerduty"
                };
                OnCallSchedule {
                    provider,
                    id: schedule_id(provider, number * SCHEDULES + kind),
                    members: (0..ROTATION).map(|i| members[(first + i) % MEMBERS].clone()).collect(),
                    entitlement: format!("on-call-{kind}"),
                    permission_set: permission_set((number * SCHEDULES + kind) % PERMISSION_SETS),
                }
            };
            Project {
                name: format!("project-{number:04}"),
                account: format!("{:012}", 100_000_000_000_usize + number),
                schedules: (0..SCHEDULES)
                    .map(|kind| schedule(kind, next(&mut rng) % MEMBERS))
                    .collect(),
                groups: (0..GROUPS).map(|i| format!("project-{number:04}-group-{i}")).collect(),
                members: members.clone(),
            }
        });
        Self {
            percent,
            projects: projects.collect(),
        }
    }

    /// All projects.
    #[must_use]
    pub fn projects(&self) -> &[Project] {
        &self.projects
    }

    /// The files of the policy directory by name.
    #[must_use]
    pub fn policy(&self) -> BTreeMap<String, String> {
        let mut files = BTreeMap::new();
        for (number, project) in self.projects.iter().enumerate() {
            let division = format!("division-{:03}", number / DIVISION);
            files.entry(format!("{division}.toml")).or_insert_with(|| {
                format!(
                    "[project]\nname   = \"{division}\"\nowners = [\"{}\"]\n",
                    project.members[0]
                )
            });
            files.insert(format!("{}.toml", project.name), project.policy(&division));
        }
        files
    }

    /// The world: schedules whose turns change every week, at an instant that is a multiple of a week after `hand_over`,
    /// all at once; everybody has a user; nobody holds anything.
    #[must_use]
    pub fn world(&self, hand_over: Timestamp) -> World {
        let mut world = World::default();
        for number in 0..people(self.percent) {
            let email = email(number);
            let name = format!("Person {number}");
            world.aws.add_user(&name, &email);
            let pager = pagerduty::User::new(&user_id("pagerduty", &email), &name, &email);
            world.pagerduty.users.push(pager);
            let genie = opsgenie::User::new(&user_id("opsgenie", &email), &name, &email);
            world.opsgenie.users.push(genie);
        }
        for number in 0..PERMISSION_SETS {
            world.aws.add_permission_set(&permission_set(number));
        }
        for project in &self.projects {
            world.aws.add_account(&project.account, &project.name);
            for group in &project.groups {
                world.aws.add_group(group);
            }
            for schedule in &project.schedules {
                let ids = schedule.members.iter().map(|email| user_id(schedule.provider, email));
                let ids: Vec<String> = ids.collect();
                let members: Vec<&str> = ids.iter().map(String::as_str).collect();
                // Turns before the hand-over are there too: the rotation began a year earlier.
                let start = hand_over.checked_sub(WEEK * 55).unwrap_or(hand_over);
                let rotation = Rotation::new(&members, start, WEEK);
                if schedule.provider == "pagerduty" {
                    let of = pagerduty::Schedule::new(&schedule.id, &schedule.id).with_rotation(rotation);
                    world.pagerduty.schedules.push(of);
                } else {
                    let of = opsgenie::Schedule::new(&schedule.id, &schedule.id).with_rotation(rotation);
                    world.opsgenie.schedules.push(of);
                }
            }
        }
        world
    }
}

impl Project {
    fn policy(&self, division: &str) -> String {
        let mut text = format!(
            "[project]\nname   = \"{}\"\nparent = \"{division}\"\nowners = [\"{}\"]\n",
            self.name, self.members[0]
        );
        let mut add = |block: String| text.write_str(&block).unwrap_or_default();
        for OnCallSchedule {
            provider,
            id,
            entitlement,
            permission_set,
            ..
        } in &self.schedules
        {
            add(format!(
                "\n[[entitlement]]\nname           = \"{entitlement}\"\naccount        = \"{}\"\npermission_set = \"{permission_set}\"\n\n[[rule]]\nentitlement = \"{entitlement}\"\non_call     = \"{provider}/{id}\"\nrequires    = [\"member\"]\n",
                self.account
            ));
        }
        for (i, group) in self.groups.iter().enumerate() {
            add(format!(
                "\n[[entitlement]]\nname  = \"group-{i}\"\ngroup = \"{group}\"\n\n[[rule]]\nentitlement = \"group-{i}\"\nmembers     = true\n"
            ));
        }
        for member in &self.members {
            add(format!(
                "\n[[member]]\nemail    = \"{member}\"\nadded_by = \"{}\"\nreason   = \"engineer\"\n",
                self.members[0]
            ));
        }
        text
    }
}

impl OnCallSchedule {
    /// Who is on call in the `turn`-th week after the hand-over, by the provider's user id and e-mail.
    #[must_use]
    pub fn turn(&self, turn: usize) -> (String, &str) {
        // 55 weeks before it are whole rounds of the rotation.
        let email = &self.members[turn % self.members.len()];
        (user_id(self.provider, email), email)
    }
}

fn people(percent: usize) -> usize {
    (PEOPLE * percent / 100).max(MEMBERS)
}

fn email(number: usize) -> String {
    format!("person-{number:05}@example.com")
}

fn permission_set(number: usize) -> String {
    format!("Role{number:02}")
}

fn user_id(provider: &str, email: &str) -> String {
    let number = email.chars().filter(char::is_ascii_digit).collect::<String>();
    match provider {
        "pagerduty" => format!("PU{number}"),
        _ => format!("0a1b2c3d-aaaa-4000-8000-{number:0>12}"),
    }
}

fn schedule_id(provider: &str, number: usize) -> String {
    match provider {
        "pagerduty" => format!("PS{number:05}"),
        _ => format!("6fce1fd0-bbbb-4000-8000-{number:012}"),
    }
}

/// SplitMix64, for numbers that look random and follow from the seed alone.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) >> 1).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_large_organisation_is_the_designs() {
        let large = Organisation::new(100, 1);
        let world = large.world(Timestamp::UNIX_EPOCH);
        let policy: String = large.policy().into_values().collect();
        assert_eq!(world.aws.users.len(), 20_000);
        assert_eq!(world.aws.accounts.len(), 1_500);
        assert_eq!(world.aws.permission_sets.len(), 60);
        assert_eq!(world.pagerduty.schedules.len() + world.opsgenie.schedules.len(), 3_000);
        assert_eq!(policy.matches("[[rule]]").count(), 10_500);
        let grants = large.projects().iter();
        let grants: usize = grants
            .map(|p| p.schedules.len() + p.groups.len() * p.members.len())
            .sum();
        assert_eq!(grants, 100_500);
    }

    #[test]
    fn whoever_is_on_call_by_the_organisation_is_so_by_the_world() {
        let now: Timestamp = "2026-03-02T08:00:00Z".parse().unwrap();
        let small = Organisation::new(1, 7);
        let world = small.world(now);
        for schedule in small.projects().iter().flat_map(|p| &p.schedules) {
            let rotation = if schedule.provider == "pagerduty" {
                let of = world.pagerduty.schedules.iter().find(|s| s.id == schedule.id).unwrap();
                of.rotation.as_ref()
            } else {
                let of = world.opsgenie.schedules.iter().find(|s| s.id == schedule.id).unwrap();
                of.rotations[0].rotation.as_ref()
            };
            let shifts = rotation.unwrap().shifts(now, now + WEEK * 2);
            let ids: Vec<&String> = shifts.iter().map(|shift| &shift.what).collect();
            assert_eq!(ids, [&schedule.turn(0).0, &schedule.turn(1).0]);
        }
    }
}

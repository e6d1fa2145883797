//! Account assignments that one rotation earns together, where one group would do the work of all of them. Pure.

use std::collections::BTreeMap;

use super::{Rule, Trigger};
use crate::model::ScheduleKey;

/// From how many account assignments on a group is worth its trouble: somebody has to make and assign it once.
const MANY: usize = 3;

/// Rules that give several account assignments to the same people at the same times. A hand-off there is two asynchronous
/// operations for each assignment, of which AWS carries out ten at once in the whole organisation; with a group that has
/// the assignments it is two calls that are done at once.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// The rotation.
    pub schedule: &'a ScheduleKey,
    /// In file order; each grants another assignment.
    pub rules: Vec<&'a Rule>,
}

impl Bundle<'_> {
    /// What it costs, for people.
    #[must_use]
    pub fn cost(&self) -> String {
        let count = self.rules.len();
        format!(
            "being on call in {} earns {count} account assignments together, so every hand-off is {} operations at AWS, which \
             carries out ten at once for everybody; one group would make it 2 calls that are done at once",
            self.schedule,
            2 * count
        )
    }

    /// What to do, for people.
    #[must_use]
    pub fn advice(&self) -> String {
        let names: Vec<&str> = self.rules.iter().map(|rule| rule.entitlement.name.as_str()).collect();
        format!(
            "make a group, give it these assignments once, and put one entitlement with `group` in place of {}; `dutybound \
             import --as-groups` writes that for what is assigned today",
            names.join(", ")
        )
    }
}

/// The bundles among the rules of one project, the first rule of each in the order of the rules. `is_assignment` says
/// whether what a rule grants is an account assignment.
pub fn bundles<'a>(rules: impl Iterator<Item = &'a Rule>, is_assignment: impl Fn(&Rule) -> bool) -> Vec<Bundle<'a>> {
    let mut found: BTreeMap<_, (usize, Bundle<'a>)> = BTreeMap::new();
    for (number, rule) in rules.enumerate() {
        let Trigger::OnCall(on_call) = &rule.trigger else {
            continue;
        };
        if !is_assignment(rule) {
            continue;
        }
        let same_people = (&on_call.schedule, &on_call.levels, on_call.permanent);
        let same_times = (rule.member, &rule.trainings, rule.lead, rule.linger, rule.until);
        let (_, bundle) = found.entry((same_people, same_times)).or_insert_with(|| {
            let schedule = &on_call.schedule;
            (
                number,
                Bundle {
                    schedule,
                    rules: Vec::new(),
                },
            )
        });
        bundle.rules.push(rule);
    }
    let mut bundles: Vec<_> = found.into_values().filter(|(_, b)| MANY <= b.rules.len()).collect();
    bundles.sort_by_key(|(first, _)| *first);
    bundles.into_iter().map(|(_, bundle)| bundle).collect()
}

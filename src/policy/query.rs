//! What others ask of a policy.

use std::collections::BTreeSet;

use foldhash::{HashMap, HashSet};
use jiff::Timestamp;

use super::{DEFAULT_PRIORITY, Entitlement, Member, Policy, Project, Rule, Trigger};
use crate::model::{
    EntitlementId, Interval, Person, ProjectName, ScheduleKey,
    spans::{common, merged},
};

impl Policy {
    /// The project and those above it, the nearest first.
    pub fn lineage<'a>(&'a self, name: &ProjectName) -> impl Iterator<Item = &'a Project> + use<'a> {
        let first = self.projects.get(name);
        std::iter::successors(first, |project| self.projects.get(project.parent.as_ref()?))
    }

    /// The entitlement with this id.
    #[must_use]
    pub fn entitlement(&self, id: &EntitlementId) -> Option<&Entitlement> {
        self.projects.get(&id.project)?.entitlements.get(id.name.as_str())
    }

    /// How urgent changes of an entitlement are, from 1 (first) to 9. One that the policy does not know any more is neither.
    #[must_use]
    pub fn priority(&self, id: &EntitlementId) -> u8 {
        self.entitlement(id).map_or(DEFAULT_PRIORITY, |e| e.priority)
    }

    /// All entitlements, sorted by id.
    pub fn entitlements(&self) -> impl Iterator<Item = &Entitlement> {
        self.projects.values().flat_map(|p| p.entitlements.values())
    }

    /// All rules by what they are for, each with the project that states it.
    #[must_use]
    pub fn rules_by_entitlement(&self) -> RulesByEntitlement<'_> {
        let mut rules: HashMap<_, Vec<_>> = HashMap::default();
        for project in self.projects.values() {
            for rule in &project.rules {
                rules.entry(&rule.entitlement).or_default().push((project, rule));
            }
        }
        RulesByEntitlement(rules)
    }

    /// Every schedule that some rule names, sorted.
    #[must_use]
    pub fn schedules(&self) -> BTreeSet<ScheduleKey> {
        let rules = self.projects.values().flat_map(|p| &p.rules);
        // Many rules name the same, and a set that is sorted compares each with several.
        let keys: HashSet<&ScheduleKey> = rules.filter_map(Rule::schedule).collect();
        keys.into_iter().cloned().collect()
    }
}

/// See [`Policy::rules_by_entitlement`].
#[derive(Debug)]
pub struct RulesByEntitlement<'a>(HashMap<&'a EntitlementId, Vec<(&'a Project, &'a Rule)>>);

impl RulesByEntitlement<'_> {
    /// Whether any rule could let the person hold the entitlement at `at`, whoever is on call: its membership key is
    /// there, its trainings are done, and neither it nor the membership has ended.
    #[must_use]
    pub fn could_hold(&self, id: &EntitlementId, person: &Person, at: Timestamp) -> bool {
        let ended = |until: Option<Timestamp>| until.is_some_and(|until| until <= at);
        let allows = |(project, rule): &(&Project, &Rule)| {
            let keys = match project.members.get(person) {
                Some(member) => member.qualified(&rule.trainings).iter().any(|span| span.contains(at)),
                None => false,
            };
            !ended(rule.until) && (keys || (!rule.member && rule.trainings.is_empty()))
        };
        self.0.get(id).is_some_and(|rules| rules.iter().any(allows))
    }

    /// The schedules that earn it.
    pub fn schedules(&self, id: &EntitlementId) -> impl Iterator<Item = &ScheduleKey> {
        let rules = self.0.get(id).into_iter().flatten();
        rules.filter_map(|(_, rule)| rule.schedule())
    }
}

impl Rule {
    /// The schedule whose duty earns what the rule is for.
    #[must_use]
    pub fn schedule(&self) -> Option<&ScheduleKey> {
        match &self.trigger {
            Trigger::OnCall(on_call) => Some(&on_call.schedule),
            Trigger::Members { .. } => None,
        }
    }
}

impl Member {
    /// From when until when the membership holds; `None` when it never does.
    #[must_use]
    pub fn valid(&self) -> Option<Interval> {
        Interval::new(
            self.since.unwrap_or(Timestamp::MIN),
            self.until.unwrap_or(Timestamp::MAX),
        )
    }

    /// Whether the membership holds at `at`.
    #[must_use]
    pub fn holds_at(&self, at: Timestamp) -> bool {
        self.valid().is_some_and(|valid| valid.contains(at))
    }

    /// When a training of theirs counts, whether or not the membership holds.
    #[must_use]
    pub fn trained(&self, training: &str) -> Vec<Interval> {
        let all = self.completed.get(training).into_iter().flatten();
        merged(all.map(|completion| completion.valid).collect())
    }

    /// When the membership holds and all of these trainings count.
    #[must_use]
    pub fn qualified<'a>(&self, trainings: impl IntoIterator<Item = &'a String>) -> Vec<Interval> {
        let valid: Vec<Interval> = self.valid().into_iter().collect();
        trainings
            .into_iter()
            .fold(valid, |spans, training| common(&spans, &self.trained(training)))
    }
}

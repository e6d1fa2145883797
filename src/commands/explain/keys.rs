//! The keys that a rule demands, and which of them a person has at an instant.

use std::sync::Arc;

use jiff::Timestamp;

use super::{KeyState, RuleState};
use crate::model::{Cause, Interval, Person};
use crate::policy::{Member, Project, Rule, Trigger};
use crate::text::{cause, instant};

/// How a rule stands for a person. `read` is what is known of its schedule.
pub(super) fn state(
    project: &Project,
    rule: &Rule,
    causes: &[Arc<Cause>],
    person: &Person,
    at: Timestamp,
    read: Option<Interval>,
) -> RuleState {
    let by_this_rule = causes.iter().find(|c| c.right.rule == rule.origin);
    let member = project.members.get(person);
    let mut keys = Vec::new();
    let earned_by = match &rule.trigger {
        Trigger::OnCall(on_call) => {
            let levels = on_call
                .levels
                .as_ref()
                .map(|l| format!(" at level {l:?}"))
                .unwrap_or_default();
            format!("being on call in {}{levels}", on_call.schedule)
        }
        Trigger::Members { during: None } => format!("being a member of {}", project.name),
        Trigger::Members { during: Some(_) } => format!("being a member of {} inside the rule's window", project.name),
    };
    if let Some(delegation) = &rule.delegation {
        let until = delegation
            .until
            .map(|u| format!(" until {}", instant(u)))
            .unwrap_or_default();
        keys.push(KeyState {
            key: format!(
                "delegated to {} for {}{until} ({})",
                delegation.project,
                delegation.scope(),
                delegation.origin
            ),
            met: delegation.until.is_none_or(|until| at < until),
        });
    }
    // Whether duty itself is there shows in the causes only when every other key is met as well.
    if let Some(cause_found) = by_this_rule {
        keys.push(KeyState {
            key: format!("on duty: {}", cause(cause_found)),
            met: true,
        });
    }
    if rule.member || !rule.trainings.is_empty() {
        let (key, met) = match member {
            None => (format!("not a member of {}", project.name), false),
            Some(member) => {
                let by = member
                    .entry
                    .added_by
                    .as_ref()
                    .map(|p| format!(", added by {p}"))
                    .unwrap_or_default();
                let since = member
                    .since
                    .map(|s| format!(", since {}", instant(s)))
                    .unwrap_or_default();
                let until = member
                    .until
                    .map(|u| format!(", until {}", instant(u)))
                    .unwrap_or_default();
                (
                    format!("member of {} ({}{by}{since}{until})", project.name, member.entry.origin),
                    member.holds_at(at),
                )
            }
        };
        keys.push(KeyState { key, met });
        for training in &rule.trainings {
            keys.push(trained(member, training, at));
        }
    }
    if by_this_rule.is_none() && keys.iter().all(|k| k.met) {
        let unknown = read.is_some_and(|read| !read.contains(at));
        let key = if unknown {
            "on duty at that time is not known: what is stored of the schedule does not reach there"
        } else {
            "not on duty at that time"
        };
        keys.push(KeyState {
            key: key.to_owned(),
            met: false,
        });
    }
    RuleState {
        rule: rule.origin.to_string(),
        earned_by,
        keys,
    }
}

/// Whether a training counts at that instant, by the completion that then counts or else the one that lasts longest.
fn trained(member: Option<&Member>, training: &str, at: Timestamp) -> KeyState {
    let all = member.and_then(|m| m.completed.get(training)).into_iter().flatten();
    let best = all.max_by_key(|c| (c.valid.contains(at), c.valid.end()));
    let Some(best) = best else {
        let key = format!("completed {training:?}");
        return KeyState { key, met: false };
    };
    let bound = |word: &str, t: Timestamp, open: Timestamp| match t {
        t if t == open => String::new(),
        t => format!(", {word} {}", instant(t)),
    };
    let since = bound("since", best.valid.start(), Timestamp::MIN);
    let until = bound("until", best.valid.end(), Timestamp::MAX);
    KeyState {
        key: format!("completed {training:?} ({}{since}{until})", best.origin),
        met: best.valid.contains(at),
    }
}

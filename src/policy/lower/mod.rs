//! Turns the entries of one policy file into validated values, and reports every value that cannot be one.

use std::{ops::Range, sync::Arc};

use jiff::Timestamp;

use super::{CronWindow, Delegation, Entitlement, Limits, Member, Rule, file::PolicyFile};
use crate::{
    diagnostics::{Report, SourceFile},
    document::{At, Entry, Findings, Holes, Parsed, Until, unprintable},
    invariant::{self, Written},
    model::{EntitlementId, Origin, Person, ProjectName, ScheduleKey},
};

mod delegation;
mod entitlement;
mod member;
mod project;
mod rule;
mod window;

pub(crate) use entitlement::DEFAULT_PRIORITY;

/// One file: as written, and as far as its values make sense. The lists run parallel to those in `file`.
pub(super) struct Draft {
    pub(super) source: Arc<SourceFile>,
    pub(super) file: PolicyFile,
    pub(super) holes: Holes,
    /// Empty while the file names no project; then there is an error and no policy.
    pub(super) name: ProjectName,
    pub(super) owners: Vec<Person>,
    pub(super) children: Option<Limits>,
    pub(super) entitlements: Vec<Option<Entitlement>>,
    pub(super) members: Vec<Option<Member>>,
    pub(super) rules: Vec<Option<Rule>>,
    pub(super) invariants: Vec<Written>,
    /// What the rules name, whether or not the rest of the rule makes sense.
    pub(super) mentions: Mentions,
    pub(super) origin: Origin,
}

/// A window with the places of its pattern and of its length.
pub(super) struct WindowMention {
    pub(super) cron: Range<usize>,
    pub(super) length: Range<usize>,
    pub(super) window: CronWindow,
    /// As written, the same for the same window.
    pub(super) text: String,
}

/// Names and windows in the rules of one file, with their places.
#[derive(Default)]
pub(super) struct Mentions {
    pub(super) entitlements: Vec<(Range<usize>, EntitlementId)>,
    pub(super) schedules: Vec<(Range<usize>, ScheduleKey)>,
    pub(super) windows: Vec<WindowMention>,
    /// The trainings that rules require.
    pub(super) trainings: Vec<(Range<usize>, String)>,
    pub(super) delegations: Vec<DelegationMention>,
}

/// A delegation with its place and that of its end.
pub(super) struct DelegationMention {
    pub(super) span: Range<usize>,
    pub(super) until: Range<usize>,
    pub(super) entitlement: EntitlementId,
    pub(super) delegation: Delegation,
}

/// What `requires` calls membership.
const MEMBER: &str = "member";

pub(super) fn lower(parsed: Parsed<PolicyFile>, origin_file: String, report: &mut Report) -> Draft {
    let Parsed { source, value, holes } = parsed;
    let project = value.project.as_ref();
    let name = project.and_then(|p| p.value.name.as_ref());
    let mut lowering = Lowering {
        found: Findings {
            source: &source,
            holes: &holes,
            report,
        },
        origin_file: &origin_file,
        project: ProjectName(name.map(|n| n.value.clone()).unwrap_or_default().into()),
        mentions: Mentions::default(),
    };
    let owners = lowering.project(&value);
    let children = project
        .and_then(|p| p.value.children.as_ref())
        .map(|c| lowering.children(c));
    let entitlements = value.entitlement.iter().map(|e| lowering.entitlement(e)).collect();
    let members = value.member.iter().map(|m| lowering.member(m)).collect();
    let rules = value.rule.iter().map(|r| lowering.rule(r)).collect();
    let name = lowering.project.clone();
    let state = |entry| invariant::lower(&mut lowering.found, entry, Some(&name), &origin_file);
    let invariants = value.invariant.iter().map(state).collect();
    let mentions = std::mem::take(&mut lowering.mentions);
    let origin = lowering.origin(project.map_or(&(0..0), Entry::span));
    Draft {
        source,
        file: value,
        holes,
        name,
        owners,
        children,
        entitlements,
        members,
        rules,
        invariants,
        mentions,
        origin,
    }
}

struct Lowering<'a> {
    found: Findings<'a>,
    origin_file: &'a str,
    project: ProjectName,
    mentions: Mentions,
}

impl Lowering<'_> {
    fn origin(&self, span: &Range<usize>) -> Origin {
        Origin {
            file: self.origin_file.into(),
            line: u32::try_from(self.found.source.line(span.start)).unwrap_or(u32::MAX),
        }
    }

    /// Text that people are shown.
    fn text(&mut self, text: Option<&At<String>>) -> Option<String> {
        let text = text?;
        if unprintable(&text.value) {
            let hint = "only line breaks and tabs are allowed, because this is shown on terminals";
            self.found.error(
                "control-character",
                text.span(),
                "this text holds a control character",
                hint,
            );
        }
        Some(text.value.clone())
    }

    fn until(&mut self, until: Option<&At<Until>>) -> Option<Timestamp> {
        until.and_then(|until| self.date(until.span(), until.value.instant()))
    }

    fn date(&mut self, at: &Range<usize>, instant: Result<Timestamp, &'static str>) -> Option<Timestamp> {
        if let Err(message) = instant {
            self.found.error("bad-date", at, message, "");
        }
        instant.ok()
    }

    fn training(&mut self, name: &str, at: &Range<usize>) -> Option<String> {
        let valid = !name.trim().is_empty() && !name.chars().any(char::is_control);
        if !valid {
            self.found
                .error("bad-training", at, "this is not the name of a training", "");
        }
        valid.then(|| name.to_owned())
    }
}

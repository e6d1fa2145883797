//! Turns the entries of one policy file into validated values, and reports every value that cannot be one.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::{
    CronWindow, Entitlement, Member, OnCall, Rule, Trigger,
    file::{DuringEntry, EntitlementEntry, MemberEntry, OnCallTable, OnCallValue, PolicyFile, RuleEntry},
    window::{WindowLength, parse_cron},
};
use crate::{
    diagnostics::{Diagnostic, Report, SourceFile},
    document::{At, Entry, Holes, Parsed, Until, duration, identity_store_id, unprintable},
    model::{
        EntitlementId, GroupRef, Origin, PermissionSetRef, Person, ProjectName, ScheduleKey, ScheduleKind, SourceName,
        Target,
    },
};

/// One file: as written, and as far as its values make sense. The lists run parallel to those in `file`.
pub(super) struct Draft {
    pub(super) source: Arc<SourceFile>,
    pub(super) file: PolicyFile,
    pub(super) holes: Holes,
    /// Empty while the file names no project; then there is an error and no policy.
    pub(super) name: ProjectName,
    pub(super) owners: Vec<Person>,
    pub(super) entitlements: Vec<Option<Entitlement>>,
    pub(super) members: Vec<Option<Member>>,
    pub(super) rules: Vec<Option<Rule>>,
    pub(super) origin: Origin,
}

/// Longer than this before or after duty is not duty any more.
const LONGEST_MARGIN: SignedDuration = SignedDuration::from_hours(24);
/// A window that lasts longer is a membership.
const LONGEST_WINDOW: SignedDuration = SignedDuration::from_hours(31 * 24);

/// What `requires` calls membership.
const MEMBER: &str = "member";

pub(super) fn lower(parsed: Parsed<PolicyFile>, origin_file: String, report: &mut Report) -> Draft {
    let Parsed { source, value, holes } = parsed;
    let project = value.project.as_ref();
    let name = project.and_then(|p| p.value.name.as_ref());
    let mut lowering = Lowering {
        source: &source,
        holes: &holes,
        origin_file: &origin_file,
        project: ProjectName(name.map(|n| n.value.clone()).unwrap_or_default()),
        report,
    };
    let owners = lowering.project(&value);
    let entitlements = value.entitlement.iter().map(|e| lowering.entitlement(e)).collect();
    let members = value.member.iter().map(|m| lowering.member(m)).collect();
    let rules = value.rule.iter().map(|r| lowering.rule(r)).collect();
    let name = lowering.project.clone();
    let origin = lowering.origin(project.map_or(&(0..0), Entry::span));
    Draft {
        source,
        file: value,
        holes,
        name,
        owners,
        entitlements,
        members,
        rules,
        origin,
    }
}

struct Lowering<'a> {
    source: &'a Arc<SourceFile>,
    holes: &'a Holes,
    origin_file: &'a str,
    project: ProjectName,
    report: &'a mut Report,
}

impl Lowering<'_> {
    fn error(&mut self, code: &'static str, span: &Range<usize>, message: impl AsRef<str>, hint: impl AsRef<str>) {
        let diagnostic = Diagnostic::error(code, self.source, span.clone(), message);
        self.report.push(if hint.as_ref().is_empty() {
            diagnostic
        } else {
            diagnostic.hint(hint)
        });
    }

    fn origin(&self, span: &Range<usize>) -> Origin {
        Origin {
            file: self.origin_file.to_owned(),
            line: u32::try_from(self.source.line(span.start)).unwrap_or(u32::MAX),
        }
    }

    /// The value under a required key; reports a missing one unless a reported mistake explains it.
    fn required<'v, T>(
        &mut self,
        value: Option<&'v T>,
        table: &Range<usize>,
        place: &str,
        key: &str,
        example: &str,
    ) -> Option<&'v T> {
        if value.is_none() && !self.holes.explain(table, key) {
            let message = format!("{place} has no `{key}`");
            self.error("missing-key", table, message, format!("add {key} = {example}"));
        }
        value
    }

    fn name<'v>(&mut self, name: &'v At<String>) -> Option<&'v str> {
        let text = name.value.as_str();
        let valid = text.len() <= 64
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !valid {
            self.error(
                "bad-name",
                name.span(),
                "this is not a name",
                "a name has up to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit",
            );
        }
        valid.then_some(text)
    }

    /// Text that people are shown.
    fn text(&mut self, text: Option<&At<String>>) -> Option<String> {
        let text = text?;
        if unprintable(&text.value) {
            let hint = "only line breaks and tabs are allowed, because this is shown on terminals";
            self.error(
                "control-character",
                text.span(),
                "this text holds a control character",
                hint,
            );
        }
        Some(text.value.clone())
    }

    fn person(&mut self, email: &At<String>) -> Option<Person> {
        let person = Person::parse(&email.value);
        if let Err(error) = &person {
            self.error("bad-email", email.span(), error.to_string(), "");
        }
        person.ok()
    }

    fn until(&mut self, until: Option<&At<Until>>) -> Option<Timestamp> {
        let until = until?;
        let instant = until.value.instant();
        if let Err(message) = instant {
            self.error("bad-date", until.span(), message, "");
        }
        instant.ok()
    }

    fn margin(&mut self, text: Option<&At<String>>) -> SignedDuration {
        let Some(text) = text else { return SignedDuration::ZERO };
        let problem = match duration(&text.value) {
            Ok(length) if length.is_negative() => "this must not be negative".to_owned(),
            Ok(length) if length > LONGEST_MARGIN => "this is at most 24 hours".to_owned(),
            Ok(length) => return length,
            Err(hint) => {
                self.error("bad-duration", text.span(), "this is not a length of time", hint);
                return SignedDuration::ZERO;
            }
        };
        self.error("bad-duration", text.span(), problem, "");
        SignedDuration::ZERO
    }

    fn project(&mut self, file: &PolicyFile) -> Vec<Person> {
        let example = "a policy file begins with [project], name = \"payments\" and owners = [\"mira@example.com\"]";
        let Some(section) = &file.project else {
            if !self.holes.explain(&(0..0), "project") {
                self.error("missing-key", &(0..0), "the file has no [project]", example);
            }
            return Vec::new();
        };
        let at = section.span().clone();
        let project = &section.value;
        if let Some(name) = self.required(project.name.as_ref(), &at, "[project]", "name", "\"payments\"") {
            self.name(name);
        }
        self.text(project.context.as_ref());
        let mut owners = Vec::new();
        let list = self.required(
            project.owners.as_ref(),
            &at,
            "[project]",
            "owners",
            "[\"mira@example.com\"]",
        );
        if let Some(list) = list {
            if list.value.is_empty() && !self.holes.explain(list.span(), "") {
                let hint = "name at least one person who consents to what this project grants";
                self.error("no-owner", list.span(), "a project needs an owner", hint);
            }
            for owner in &list.value {
                if let Some(person) = self.person(owner)
                    && !owners.contains(&person)
                {
                    owners.push(person);
                }
            }
        }
        owners
    }

    fn entitlement(&mut self, entry: &Entry<EntitlementEntry>) -> Option<Entitlement> {
        let at = entry.span();
        let e = &entry.value;
        let name = self.required(e.name.as_ref(), at, "[[entitlement]]", "name", "\"prod-admin\"");
        let name = name.and_then(|name| self.name(name));
        let target = self.target(entry);
        let delegate_to = e.delegate_to.iter().flat_map(|list| &list.value);
        Some(Entitlement {
            id: EntitlementId {
                project: self.project.clone(),
                name: name?.to_owned(),
            },
            target: target?,
            exclusive: e.exclusive.as_ref().is_some_and(|exclusive| exclusive.value),
            delegate_to: delegate_to.map(|project| ProjectName(project.value.clone())).collect(),
            origin: self.origin(at),
        })
    }

    fn target(&mut self, entry: &Entry<EntitlementEntry>) -> Option<Target> {
        let at = entry.span();
        let e = &entry.value;
        let account = e.account.as_ref().and_then(|account| {
            let valid = account.value.is_valid();
            if !valid {
                let hint = "an account id is twelve digits, with its leading zeros";
                self.error("bad-account", account.span(), "this is not an AWS account id", hint);
            }
            valid.then(|| account.value.0.clone())
        });
        let permission_set = e.permission_set.as_ref().and_then(|set| self.permission_set(set));
        let group = e.group.as_ref().and_then(|group| self.group(group));
        match (&e.group, &e.account, &e.permission_set) {
            (Some(both), Some(_), _) | (Some(both), _, Some(_)) => {
                let message = "an entitlement is a group or a permission set in an account, not both";
                self.error("two-targets", both.span(), message, "make two entitlements of it");
                None
            }
            (Some(_), None, None) => group.map(Target::Group),
            (None, Some(_), Some(_)) => Some(Target::Assignment {
                account: account?,
                permission_set: permission_set?,
            }),
            (None, Some(_), None) => {
                let example = "\"AdministratorAccess\"";
                self.required(
                    None::<&()>,
                    at,
                    "[[entitlement]] with `account`",
                    "permission_set",
                    example,
                );
                None
            }
            (None, None, Some(_)) => {
                let example = "\"111122223333\"";
                self.required(
                    None::<&()>,
                    at,
                    "[[entitlement]] with `permission_set`",
                    "account",
                    example,
                );
                None
            }
            (None, None, None) => {
                if !["account", "permission_set", "group"]
                    .iter()
                    .any(|key| self.holes.explain(at, key))
                {
                    let hint = "add `account` and `permission_set`, or `group`";
                    self.error("missing-key", at, "[[entitlement]] does not say what it grants", hint);
                }
                None
            }
        }
    }

    fn permission_set(&mut self, set: &At<String>) -> Option<PermissionSetRef> {
        let text = &set.value;
        if text.starts_with("arn:") {
            let valid = text.bytes().all(|b| b.is_ascii_graphic()) && text.contains(":permissionSet/");
            if !valid {
                let hint = "it looks like arn:aws:sso:::permissionSet/ssoins-1234567890abcdef/ps-1234567890abcdef";
                self.error(
                    "bad-permission-set",
                    set.span(),
                    "this is not a permission set's ARN",
                    hint,
                );
            }
            return valid.then(|| PermissionSetRef::Arn(text.clone()));
        }
        // The pattern of `PermissionSetName` in the IAM Identity Center API.
        let valid = (1..=32).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b));
        if !valid {
            let hint = "a name has up to 32 letters, digits and _+=,.@- characters";
            self.error(
                "bad-permission-set",
                set.span(),
                "this is not a permission set's name",
                hint,
            );
        }
        valid.then(|| PermissionSetRef::Name(text.clone()))
    }

    fn group(&mut self, group: &At<String>) -> Option<GroupRef> {
        let text = &group.value;
        if identity_store_id(text) {
            return Some(GroupRef::Id(text.clone()));
        }
        let valid = !text.trim().is_empty() && text.chars().count() <= 1024 && !text.chars().any(char::is_control);
        if !valid {
            let hint = "give the display name or the id of an Identity Center group";
            self.error("bad-group", group.span(), "this is not a group's name", hint);
        }
        valid.then(|| GroupRef::Name(text.clone()))
    }

    fn member(&mut self, entry: &Entry<MemberEntry>) -> Option<Member> {
        let at = entry.span();
        let m = &entry.value;
        let email = self.required(m.email.as_ref(), at, "[[member]]", "email", "\"alice@example.com\"");
        let person = email.and_then(|email| self.person(email));
        let added_by = m.added_by.as_ref().and_then(|email| self.person(email));
        let reason = self.text(m.reason.as_ref());
        let until = self.until(m.until.as_ref());
        let mut completed = BTreeSet::new();
        for training in m.completed.iter().flat_map(|list| &list.value) {
            if training.value == MEMBER {
                let message = "`member` is no training: being listed here is the membership";
                self.error("bad-training", training.span(), message, "remove it");
            }
            completed.extend(self.training(training));
        }
        Some(Member {
            person: person?,
            added_by,
            reason,
            until,
            completed,
            origin: self.origin(at),
        })
    }

    fn training(&mut self, training: &At<String>) -> Option<String> {
        let valid = !training.value.trim().is_empty() && !training.value.chars().any(char::is_control);
        if !valid {
            self.error(
                "bad-training",
                training.span(),
                "this is not the name of a training",
                "",
            );
        }
        valid.then(|| training.value.clone())
    }

    fn rule(&mut self, entry: &Entry<RuleEntry>) -> Option<Rule> {
        let at = entry.span();
        let r = &entry.value;
        let entitlement = self.required(r.entitlement.as_ref(), at, "[[rule]]", "entitlement", "\"prod-admin\"");
        let trigger = self.trigger(entry);
        let lead = self.margin(r.lead.as_ref());
        let linger = self.margin(r.linger.as_ref());
        let until = self.until(r.until.as_ref());
        if r.on_call.is_none() && r.members.is_some() && r.during.is_none() && !self.holes.explain(at, "during") {
            for (key, margin) in [("lead", &r.lead), ("linger", &r.linger)] {
                if let Some(margin) = margin {
                    let message =
                        format!("`{key}` has no meaning here: a membership does not start and end like a shift");
                    self.error("idle-key", margin.span(), message, "remove it, or add `during`");
                }
            }
        }
        let mut member = r.on_call.is_none() || r.requires.is_none();
        let mut trainings = BTreeSet::new();
        for required in r.requires.iter().flat_map(|list| &list.value) {
            // Trainings are recorded on members, so one who completed a training is a member.
            member = true;
            if required.value != MEMBER {
                trainings.extend(self.training(required));
            }
        }
        if let (Some(_), Some(requires)) = (&r.on_call, &r.requires)
            && !member
            && !self.holes.explain(requires.span(), "")
        {
            let message = "whoever can edit this schedule can give anybody this entitlement";
            let hint = "write requires = [\"member\"] unless that is intended";
            let warning = Diagnostic::warning("one-key", self.source, requires.span().clone(), message);
            self.report.push(warning.label("drops the second key").hint(hint));
        }
        let entitlement = entitlement?.value.as_str();
        let (project, name) = match entitlement.split_once('/') {
            Some((project, name)) => (ProjectName(project.to_owned()), name),
            None => (self.project.clone(), entitlement),
        };
        Some(Rule {
            entitlement: EntitlementId {
                project,
                name: name.to_owned(),
            },
            trigger: trigger?,
            member,
            trainings,
            lead,
            linger,
            until,
            origin: self.origin(at),
        })
    }

    fn trigger(&mut self, entry: &Entry<RuleEntry>) -> Option<Trigger> {
        let r = &entry.value;
        if let Some(members) = &r.members
            && !members.value
        {
            let hint = "remove it; a rule is earned by on_call = \"source/ID\" or by members = true";
            self.error("idle-key", members.span(), "`members = false` says nothing", hint);
        }
        match (&r.on_call, &r.members) {
            (Some(_), Some(members)) => {
                let hint = "make two rules of it; either then earns the entitlement";
                self.error(
                    "two-triggers",
                    members.span(),
                    "a rule has `on_call` or `members`, not both",
                    hint,
                );
                None
            }
            (Some(on_call), None) => {
                if let Some(during) = &r.during {
                    let message = "`during` goes with `members`: the schedule says when somebody is on call";
                    self.error("idle-key", during.span(), message, "remove it");
                }
                self.on_call(on_call).map(Trigger::OnCall)
            }
            (None, Some(_)) => {
                let during = match &r.during {
                    Some(during) => Some(self.during(during)?),
                    None => None,
                };
                Some(Trigger::Members { during })
            }
            (None, None) => {
                let at = entry.span();
                if !self.holes.explain(at, "on_call") && !self.holes.explain(at, "members") {
                    let hint = "add on_call = \"source/ID\" or members = true";
                    self.error(
                        "missing-key",
                        at,
                        "[[rule]] does not say what earns the entitlement",
                        hint,
                    );
                }
                None
            }
        }
    }

    fn on_call(&mut self, on_call: &At<OnCallValue>) -> Option<OnCall> {
        let table = match &on_call.value {
            OnCallValue::Schedule(text) => {
                return Some(OnCall {
                    schedule: self.schedule(text, on_call.span(), ScheduleKind::Schedule)?,
                    levels: None,
                    permanent: false,
                });
            }
            OnCallValue::Table(table) => table,
        };
        let schedule = self.on_call_target(table, on_call.span());
        let levels = table.levels.as_ref().map(|levels| {
            if levels.value.is_empty() && !self.holes.explain(levels.span(), "") {
                self.error(
                    "bad-level",
                    levels.span(),
                    "no level would ever count",
                    "leave `levels` out for all",
                );
            }
            for level in levels.value.iter().filter(|level| level.value == 0) {
                self.error("bad-level", level.span(), "levels count from 1", "");
            }
            levels.value.iter().map(|level| level.value).collect()
        });
        Some(OnCall {
            schedule: schedule?,
            levels,
            permanent: table.permanent.as_ref().is_some_and(|permanent| permanent.value),
        })
    }

    fn on_call_target(&mut self, table: &OnCallTable, at: &Range<usize>) -> Option<ScheduleKey> {
        match (&table.schedule, &table.escalation_policy) {
            (Some(schedule), None) => {
                let only_policies = [
                    ("levels", table.levels.as_ref().map(At::span)),
                    ("permanent", table.permanent.as_ref().map(At::span)),
                ];
                for (key, span) in only_policies {
                    if let Some(span) = span {
                        let message = format!("`{key}` belongs to escalation policies; a schedule has none");
                        let hint = "remove it, or write { escalation_policy = \"source/ID\", levels = [1] }";
                        self.error("idle-key", span, message, hint);
                    }
                }
                self.schedule(&schedule.value, schedule.span(), ScheduleKind::Schedule)
            }
            (None, Some(policy)) => self.schedule(&policy.value, policy.span(), ScheduleKind::EscalationPolicy),
            (Some(_), Some(policy)) => {
                let hint = "make two rules of it";
                self.error(
                    "two-triggers",
                    policy.span(),
                    "this is a schedule or an escalation policy, not both",
                    hint,
                );
                None
            }
            (None, None) => {
                if !self.holes.explain(at, "schedule") && !self.holes.explain(at, "escalation_policy") {
                    let hint = "add `schedule` or `escalation_policy`";
                    self.error("missing-key", at, "`on_call` names nothing", hint);
                }
                None
            }
        }
    }

    fn schedule(&mut self, text: &str, at: &Range<usize>, kind: ScheduleKind) -> Option<ScheduleKey> {
        // Ids become parts of URLs, so nothing else is let through.
        let plain = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        match text.split_once('/') {
            Some((source, id)) if !source.is_empty() && plain(id) => Some(ScheduleKey {
                source: SourceName(source.to_owned()),
                kind,
                id: id.to_owned(),
            }),
            _ => {
                let hint =
                    "write source/ID, such as pagerduty/PABC123; an id has letters, digits, dashes and underscores";
                self.error("bad-schedule", at, "this does not name a schedule", hint);
                None
            }
        }
    }

    fn during(&mut self, entry: &Entry<DuringEntry>) -> Option<CronWindow> {
        let at = entry.span();
        let d = &entry.value;
        let cron = self.required(d.cron.as_ref(), at, "`during`", "cron", "\"0 9 * * MON-FRI\"");
        let cron = cron.and_then(|pattern| match parse_cron(&pattern.value) {
            Ok(cron) => Some(cron),
            Err(message) => {
                let hint = "such as \"0 9 * * MON-FRI\": minute, hour, day of month, month, day of week";
                self.error("bad-cron", pattern.span(), message, hint);
                None
            }
        });
        let zone = self.required(d.zone.as_ref(), at, "`during`", "zone", "\"Europe/Berlin\"");
        let zone = zone.and_then(|name| match TimeZone::get(&name.value) {
            Ok(zone) => Some(zone),
            Err(_) => {
                let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
                let hint = crate::diagnostics::did_you_mean(&name.value, known.iter().map(String::as_str));
                let hint = hint.unwrap_or_else(|| "give an IANA name, such as \"Europe/Berlin\" or \"UTC\"".to_owned());
                self.error("unknown-zone", name.span(), "there is no such time zone", hint);
                None
            }
        });
        let length = self.window_length(entry);
        Some(CronWindow {
            cron: cron?,
            length: length?,
            zone: zone?,
        })
    }

    fn window_length(&mut self, entry: &Entry<DuringEntry>) -> Option<WindowLength> {
        let at = entry.span();
        match (&entry.value.length, &entry.value.until) {
            (Some(_), Some(until)) => {
                let hint = "`for` is elapsed time, `until` is the clock in the zone; keep the one that is meant";
                self.error(
                    "two-lengths",
                    until.span(),
                    "a window has `for` or `until`, not both",
                    hint,
                );
                None
            }
            (Some(text), None) => {
                let problem = match duration(&text.value) {
                    Ok(length) if length <= SignedDuration::ZERO => "a window must last some time".to_owned(),
                    Ok(length) if length > LONGEST_WINDOW => "a window lasts at most 31 days".to_owned(),
                    Ok(length) => return Some(WindowLength::For(length)),
                    Err(hint) => {
                        self.error("bad-duration", text.span(), "this is not a length of time", hint);
                        return None;
                    }
                };
                self.error("bad-duration", text.span(), problem, "");
                None
            }
            (None, Some(text)) => {
                let time = text.value.parse().map(WindowLength::Until);
                if time.is_err() {
                    let hint = "write hours and minutes, such as \"18:00\"";
                    self.error("bad-time", text.span(), "this is not a time of day", hint);
                }
                time.ok()
            }
            (None, None) => {
                if !self.holes.explain(at, "for") && !self.holes.explain(at, "until") {
                    let hint = "add for = \"9h\" (elapsed) or until = \"18:00\" (clock in the zone)";
                    self.error("missing-key", at, "`during` does not say how long", hint);
                }
                None
            }
        }
    }
}

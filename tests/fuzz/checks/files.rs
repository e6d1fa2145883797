//! What people write: policy directories and the configuration.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use dutybound::{
    config::{self, Provider},
    diagnostics::Report,
    model::{Interval, SourceName},
    policy::{self, Policy, PolicyContext, Trigger},
    secret::{Env, Secrets},
};
use jiff::{SignedDuration, Timestamp};

use super::assert_harmless;

/// 2026-06-01T00:00:00Z.
const NOW: Timestamp = Timestamp::constant(1_780_272_000, 0);
/// A line of this kind begins the next file of a policy.
const NEXT_FILE: &str = "\n####\n";

/// A policy directory: nothing panics, mistakes are shown safely, and a policy that loads has everything in it that
/// its files have, with everybody's consent.
pub(crate) fn policy(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    // Bytes that are no text are judged as one file, texts as several.
    let files: Vec<(String, Vec<u8>)> = match std::str::from_utf8(input) {
        Ok(text) => {
            let parts = text.split(NEXT_FILE).enumerate();
            parts
                .map(|(n, part)| (format!("p{n}.toml"), part.as_bytes().to_vec()))
                .collect()
        }
        Err(_) => vec![("p0.toml".to_owned(), input.to_vec())],
    };
    let source = |name: &str, provider| (SourceName(name.into()), provider);
    let known = PolicyContext {
        sources: Some(BTreeMap::from([
            source("pagerduty", Some(Provider::Pagerduty)),
            source("opsgenie", Some(Provider::Opsgenie)),
        ])),
        roots: None,
        invariants: Vec::new(),
        now: Some(NOW),
    };
    let unknown = PolicyContext::default();
    let load = |context| policy::parse(Path::new("access.d"), files.clone(), context);
    match load(&known) {
        Ok((policy, warnings)) => {
            for warning in warnings {
                assert_harmless(&warning.message);
            }
            complete(&policy, text.split(NEXT_FILE));
            consistent(&policy);
            within_limits(&policy);
            let (again, _) = load(&unknown).expect("what is not known about sources and time is no mistake");
            assert_eq!(
                again, policy,
                "neither the clock nor the sources decide what a policy says"
            );
        }
        Err(report) => refused(&report),
    }
}

/// TOML's own reader finds as many entries in each file as the policy has.
fn complete<'a>(policy: &Policy, files: impl Iterator<Item = &'a str>) {
    let mut count = 0;
    for file in files {
        let file = file.strip_prefix('\u{feff}').unwrap_or(file);
        let table: toml::Table = file.parse().expect("a policy that loads is TOML");
        let name = table["project"]["name"].as_str().expect("a project has a name");
        let entries = |key: &str| table.get(key).map_or(0, |list| list.as_array().map_or(0, Vec::len));
        let project = policy.projects.iter().find(|(key, _)| key.0 == name);
        let (_, project) = project.expect("every file's project is there");
        assert_eq!(project.members.len(), entries("member"), "members of {name}");
        assert_eq!(project.rules.len(), entries("rule"), "rules of {name}");
        assert_eq!(
            project.entitlements.len(),
            entries("entitlement"),
            "entitlements of {name}"
        );
        assert!(!project.owners.is_empty(), "{name} has no owner");
        count += 1;
    }
    assert_eq!(policy.projects.len(), count);
}

fn consistent(policy: &Policy) {
    let day = SignedDuration::from_hours(24);
    for (name, project) in &policy.projects {
        let mut above = project.parent.as_ref();
        for _ in 0..=policy.projects.len() {
            above = above.and_then(|parent| policy.projects[parent].parent.as_ref());
        }
        assert_eq!(above, None, "the parents of {name} go round in a circle");
        for rule in &project.rules {
            let owned = policy
                .entitlement(&rule.entitlement)
                .expect("a rule names what is there");
            assert!(
                rule.entitlement.project == *name
                    || owned
                        .delegate_to
                        .iter()
                        .any(|d| d.project == *name && d.allows(&rule.trigger)),
                "{name} gives away {} without consent",
                rule.entitlement
            );
            let rests_on = rule.delegation.as_ref().filter(|d| d.allows(&rule.trigger));
            assert_eq!(rests_on.is_some(), rule.entitlement.project != *name, "{rule:?}");
            let end = rests_on.and_then(|d| d.until);
            assert!(
                end.is_none_or(|end| rule.until.is_some_and(|until| until <= end)),
                "outlives its delegation: {rule:?}"
            );
            assert!((SignedDuration::ZERO..=day).contains(&rule.lead), "{rule:?}");
            assert!((SignedDuration::ZERO..=day).contains(&rule.linger), "{rule:?}");
            assert!(
                rule.member || rule.trainings.is_empty(),
                "only members have trainings: {rule:?}"
            );
            if let Trigger::Members { during } = &rule.trigger {
                assert!(rule.member, "{rule:?}");
                if let Some(window) = during {
                    let range = Interval::new(NOW, NOW + day).expect("a day is not empty");
                    super::time::in_order(window, range, &window.intervals(range));
                }
            }
        }
    }
}

/// Nothing below a project is beyond its limits, and nothing from below is granted past them.
fn within_limits(policy: &Policy) {
    for (name, project) in &policy.projects {
        let limits: Vec<_> = policy.lineage(name).skip(1).flat_map(|p| &p.children).collect();
        for entitlement in project.entitlements.values() {
            assert!(
                limits.iter().all(|l| l.exclude(&entitlement.target).is_empty()),
                "{entitlement:?}"
            );
        }
        for member in project.members.values() {
            let lasts = member
                .since
                .zip(member.until)
                .map(|(since, until)| since.duration_until(until));
            let short = |longest| lasts.is_some_and(|lasts| lasts <= longest);
            assert!(
                limits.iter().all(|l| l.longest_membership.is_none_or(short)),
                "{member:?}"
            );
        }
        for rule in &project.rules {
            assert!(rule.member || limits.iter().all(|l| l.may_drop_member), "{rule:?}");
            let owned = policy
                .entitlement(&rule.entitlement)
                .expect("a rule names what is there");
            assert!(limits.iter().all(|l| l.exclude(&owned.target).is_empty()), "{rule:?}");
        }
    }
}

/// A refusal says why, at a place, and can be shown anywhere.
fn refused(report: &Report) {
    assert!(report.has_errors());
    assert!(!report.to_string().contains('\n'), "{report}");
    for diagnostic in report.diagnostics() {
        assert_harmless(&diagnostic.message);
        assert_harmless(&diagnostic.place());
    }
    for line in report.to_text(false).lines() {
        // A tab in a file is shown as what it is.
        assert_harmless(&line.replace('\t', " "));
    }
    let json = report.to_json().to_string();
    assert_harmless(&json);
}

struct NoEnv;

impl Env for NoEnv {
    fn var(&self, _: &str) -> Option<OsString> {
        None
    }
}

/// Keys under which people write secrets in spite of everything.
const SECRET_KEYS: [&str; 4] = ["token", "api_key", "client_secret", "password"];
/// The secret that they write.
const SECRET: &str = "hunter2";

/// The configuration: it loads or says why not, and a secret written into it is never repeated.
pub(crate) fn config(input: &[u8]) {
    let path = Path::new("config.toml");
    let found = config::inspect_bytes(path, input.to_vec(), &NoEnv, Secrets::Skip);
    assert_eq!(found.config.is_none(), found.report.has_errors());
    if found.report.has_errors() {
        refused(&found.report);
    }
    if let Some(config) = &found.config {
        assert_eq!(Some(&config.policy_dir), found.policy_dir.as_ref());
        let named = found
            .sources
            .as_ref()
            .expect("a configuration that loads was understood");
        assert!(config.sources.keys().eq(named.keys()), "{named:?}");
        assert!(
            config
                .http
                .as_ref()
                .is_none_or(|http| http.address.ip().is_loopback() || http.token.is_some()),
            "{config:?}"
        );
    }
    let text = String::from_utf8_lossy(input);
    let is_secret = |line: &str| {
        SECRET_KEYS.iter().any(|key| {
            let rest = line.strip_prefix(key).map(str::trim_start);
            let value = rest.and_then(|rest| rest.strip_prefix(['=', ':']));
            let value = value.map(|value| value.trim_start().trim_start_matches(['"', '\'']));
            value.is_some_and(|value| value.starts_with(SECRET) && value.matches(SECRET).count() == 1)
        })
    };
    let everywhere = text.lines().filter(|line| line.contains(SECRET));
    if everywhere.clone().count() > 0 && everywhere.clone().all(is_secret) {
        let shown = format!(
            "{}{}{}",
            found.report,
            found.report.to_text(false),
            found.report.to_json()
        );
        assert!(!shown.contains(SECRET), "{shown}");
        assert!(!format!("{:?}", found.config).contains(SECRET));
    }
}

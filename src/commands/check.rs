//! `dutybound check`: validates the configuration and the policy without any network, and shows every mistake.

use std::{io, path::Path};

use jiff::Timestamp;

use crate::{
    config,
    diagnostics::Report,
    layout::wrap,
    policy::{self, Policy, PolicyContext},
    secret::{Env, Secrets},
};

/// How the result is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text {
        /// With ANSI colours.
        colour: bool,
        /// How wide lines may be; `None` leaves them whole.
        width: Option<usize>,
    },
    /// One JSON array, for CI annotations.
    Json,
}

/// Checks the configuration at `config_path` and the policy that it names, or the one in `policy_dir` instead, and
/// writes every mistake of both to `out`. A broken configuration does not hide the mistakes of the policy.
///
/// Secrets are not read, so that the check runs where they are not at hand. Returns whether everything would load.
///
/// # Errors
/// When `out` cannot be written.
pub fn check(
    config_path: &Path,
    policy_dir: Option<&Path>,
    format: Format,
    now: Timestamp,
    env: &dyn Env,
    out: &mut dyn io::Write,
) -> io::Result<bool> {
    let inspection = config::inspect(config_path, env, Secrets::Skip);
    let mut report = inspection.report;
    let context = PolicyContext {
        sources: inspection.sources,
        roots: inspection.roots,
        invariants: inspection.invariants,
        now: Some(now),
    };
    let loaded = policy_dir
        .or(inspection.policy_dir.as_deref())
        .map(|dir| policy::load(dir, &context));
    let mut policy = None;
    match loaded {
        Some(Ok((loaded, warnings))) => {
            report.extend(warnings);
            policy = Some(loaded);
        }
        Some(Err(mistakes)) => report.extend(mistakes.into_diagnostics()),
        None => {}
    }
    report.sort();
    match format {
        Format::Json => writeln!(out, "{:#}", report.to_json())?,
        Format::Text { colour, width } => {
            let text = wrap(&report.to_text(colour), width);
            if !text.is_empty() {
                writeln!(out, "{text}")?;
            }
            writeln!(out, "{}", summary(&report, policy.as_ref()))?;
        }
    }
    Ok(!report.has_errors())
}

fn summary(report: &Report, policy: Option<&Policy>) -> String {
    let (errors, warnings) = report.counts();
    let content = policy.map(|policy| {
        let members = policy.projects.values().map(|p| p.members.len()).sum();
        let rules = policy.projects.values().map(|p| p.rules.len()).sum();
        let mut content = vec![
            counted(policy.projects.len(), "project"),
            counted(policy.entitlements().count(), "entitlement"),
            counted(members, "membership"),
            counted(rules, "rule"),
            counted(policy.schedules().len(), "schedule"),
        ];
        if !policy.invariants.is_empty() {
            content.push(counted(policy.invariants.len(), "statement"));
        }
        content.join(", ")
    });
    let verdict = match (errors, warnings) {
        (0, 0) => "no mistakes".to_owned(),
        (0, _) => counted(warnings, "warning"),
        (_, 0) => counted(errors, "error"),
        _ => format!("{}, {}", counted(errors, "error"), counted(warnings, "warning")),
    };
    match content {
        Some(content) => format!("{content}; {verdict}"),
        None if policy.is_none() && errors == 0 => format!("{verdict}; no policy was checked"),
        None => verdict,
    }
}

fn counted(number: usize, thing: &str) -> String {
    if number == 1 {
        format!("1 {thing}")
    } else {
        format!("{number} {thing}s")
    }
}

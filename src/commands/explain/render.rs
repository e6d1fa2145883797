//! An explanation as text.

use std::fmt::Write as _;

use super::{About, Answer, Explanation};
use crate::layout::wrap;
use crate::ledger::chain::in_short as short;
use crate::model::Person;
use crate::text::{cause, clean, instant, span};

impl Explanation {
    /// Whether anybody asked about holds any of the entitlements explained.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.answers.iter().any(|a| a.holds)
    }

    /// As text for a terminal of that width.
    #[must_use]
    pub fn text(&self, width: Option<usize>) -> String {
        let mut out = String::new();
        self.write(&mut out).unwrap_or_default();
        wrap(&out, width)
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        if let Some(lost) = &self.record_lost {
            writeln!(out, "NOTE  {}", clean(lost))?;
        }
        if let Some(begins) = self.record_begins {
            writeln!(
                out,
                "NOTE  the record begins at {}; who held what before is not known here",
                instant(begins)
            )?;
        }
        self.write_policy(out)?;
        if self.answers.is_empty() && self.nobody.is_empty() {
            let at = instant(self.at);
            return match &self.about {
                About::Person { person, .. } => writeln!(
                    out,
                    "{person} holds nothing at {at}, and no rule of the policy concerns them."
                ),
                About::Entitlement(id) => writeln!(out, "Nobody holds {id} at {at}."),
                About::Account(account) => writeln!(
                    out,
                    "Neither the policy nor the record of {at} has an entitlement in account {account}."
                ),
            };
        }
        for empty in &self.nobody {
            let nobody = if self.record_begins.is_some() {
                "Nobody is known to hold"
            } else {
                "Nobody holds"
            };
            writeln!(out, "{nobody} {} at {}", empty.entitlement, instant(self.at))?;
            if let Some(next) = &empty.next {
                writeln!(
                    out,
                    "  next      {} at {}: {}",
                    next.person,
                    instant(next.held.start()),
                    cause(next)
                )?;
            }
        }
        for answer in &self.answers {
            let verb = match (answer.holds, self.record_begins) {
                (true, _) => "holds",
                (false, None) => "does not hold",
                (false, Some(_)) => "is not known to hold",
            };
            writeln!(
                out,
                "{} {verb} {} at {}",
                answer.person,
                answer.entitlement,
                instant(self.at)
            )?;
            if !answer.target.is_empty() {
                writeln!(out, "  what      {}", clean(&answer.target))?;
            }
            if let Some(context) = &answer.context {
                writeln!(out, "  context   {}", clean(context.trim()))?;
            }
            if !answer.owners.is_empty() {
                let owners: Vec<_> = answer.owners.iter().map(Person::as_str).collect();
                writeln!(
                    out,
                    "  consent   {} (owners of {})",
                    owners.join(", "),
                    answer.entitlement.project
                )?;
            }
            if !answer.owners_above.is_empty() {
                let above: Vec<_> = answer
                    .owners_above
                    .iter()
                    .flat_map(|(project, owners)| owners.iter().map(move |owner| format!("{owner} ({project})")))
                    .collect();
                writeln!(out, "  above     {}", above.join(", "))?;
            }
            if let Some(access) = &answer.access {
                let reference = access
                    .grant_reference
                    .as_ref()
                    .map(|r| format!(", AWS reference {}", clean(r)))
                    .unwrap_or_default();
                writeln!(out, "  confirmed {}{reference}", instant(access.granted_at))?;
                let in_force = self.policy.as_ref().map(|then| then.policy.revision.as_str());
                if in_force != Some(access.policy.as_str()) {
                    writeln!(out, "  under     policy {}", short(&access.policy))?;
                }
                if let Some(revoked) = access.revoked_at {
                    let reason = access.end_reason.as_deref().unwrap_or("revoked");
                    writeln!(out, "  ended     {}: {}", instant(revoked), clean(reason))?;
                }
                for recorded in access.causes_at(self.at) {
                    writeln!(out, "  because   {}", cause(&recorded.cause))?;
                }
                if let Some(since) = answer.outlived {
                    writeln!(
                        out,
                        "  outlived  what earned it: nothing calls for it since {} ({})",
                        instant(since),
                        span(since.duration_until(self.at))
                    )?;
                }
            } else {
                for earned in &answer.causes {
                    writeln!(out, "  earned    {}", cause(earned))?;
                }
            }
            for made in &answer.overrides {
                writeln!(out, "  override  {}", clean(made))?;
            }
            for edit in &answer.edits {
                writeln!(out, "  edited    {}", clean(edit))?;
            }
            write_neighbours(out, answer)?;
            for rule in &answer.rules {
                writeln!(out, "  rule      {}: earned by {}", rule.rule, rule.earned_by)?;
                for key in &rule.keys {
                    writeln!(
                        out,
                        "            {} {}",
                        if key.met { "[x]" } else { "[ ]" },
                        clean(&key.key)
                    )?;
                }
            }
            for obstacle in &answer.obstacles {
                let word = match (answer.holds, answer.outlived) {
                    (true, Some(_)) => "stands  ",
                    (true, None) => "pending ",
                    (false, _) => "obstacle",
                };
                writeln!(out, "  {word}  {}", clean(obstacle))?;
            }
            if let Some(next) = &answer.next {
                writeln!(
                    out,
                    "  next      in {} from then, at {}: {}",
                    span(self.at.duration_until(next.held.start())),
                    instant(next.held.start()),
                    cause(next)
                )?;
            }
        }
        Ok(())
    }

    fn write_policy(&self, out: &mut String) -> std::fmt::Result {
        let Some(then) = &self.policy else { return Ok(()) };
        writeln!(
            out,
            "POLICY  {}, in force since {}",
            then.policy.label(),
            instant(then.since)
        )?;
        if !then.is_present {
            let base = then.policy.commit.as_ref().map_or("its files", |commit| short(commit));
            writeln!(
                out,
                "NOTE  the policy has changed since; rules and keys below are today's, the rest is from the record \
                 (`dutybound diff --base {base}` shows what changed)"
            )?;
        }
        Ok(())
    }
}

/// Since when, and until when, somebody does not hold it.
fn write_neighbours(out: &mut String, answer: &Answer) -> std::fmt::Result {
    if answer.holds {
        return Ok(());
    }
    if let Some(before) = &answer.neighbours.before
        && let Some(revoked) = before.revoked_at
    {
        let reason = before.end_reason.as_deref().unwrap_or("revoked");
        writeln!(
            out,
            "  before    held from {} until {}: {}",
            instant(before.granted_at),
            instant(revoked),
            clean(reason)
        )?;
    }
    if let Some(after) = &answer.neighbours.after {
        writeln!(out, "  after     held from {} on", instant(after.granted_at))?;
    }
    Ok(())
}

//! A review as text for a terminal and as one Markdown message for each owner.

use std::fmt::Write as _;

use super::{Finding, FindingKind, Review};
use crate::forecast::when;
use crate::model::Person;
use crate::text::{clean, markdown};

impl FindingKind {
    /// As a heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Gone => "Not in Identity Center any more",
            Self::AddedByLeaver => "Added by somebody who has left",
            Self::LeftRotation => "Left the rotation",
            Self::IdleMember => "Members without use",
            Self::EndlessMembership => "Memberships without an end",
            Self::IdleRule => "Rules that grant nothing",
            Self::UnheldEntitlement => "Entitlements that nobody holds",
            Self::Drift => "Held, and not granted by dutybound",
            Self::GroupWouldDo => "Hand-offs that one group would do at once",
        }
    }
}

impl Review {
    /// For a terminal.
    #[must_use]
    pub fn text(&self, notes: &[String]) -> String {
        let mut out = String::new();
        self.write_text(notes, &mut out).unwrap_or_default();
        out
    }

    fn write_text(&self, notes: &[String], out: &mut String) -> std::fmt::Result {
        writeln!(out, "Review {}, in UTC", when(self.period))?;
        for note in notes {
            writeln!(out, "  ! {}", clean(note))?;
        }
        for project in &self.projects {
            let owners: Vec<String> = project.owners.iter().map(|o| clean(o.as_str())).collect();
            writeln!(out, "\n{}  (owned by {})", clean(&project.project.0), owners.join(", "))?;
            for (kind, findings) in by_kind(&project.findings) {
                writeln!(out, "  {} ({})", kind.title(), findings.len())?;
                for finding in &findings {
                    let place = finding
                        .origin
                        .as_ref()
                        .map(|o| format!("  ({})", clean(&o.to_string())));
                    let (subject, message) = (clean(&finding.subject), clean(&finding.message));
                    writeln!(out, "    {subject}: {message}{}", place.unwrap_or_default())?;
                }
                for suggestion in suggestions(&findings) {
                    writeln!(out, "      -> {suggestion}")?;
                }
            }
        }
        writeln!(
            out,
            "\n{} things to look at in {} projects. Nothing is removed by looking.",
            self.count(),
            self.projects.len()
        )
    }

    /// One message for this owner, ready to be mailed.
    #[must_use]
    pub fn message(&self, owner: &Person) -> String {
        let mut out = String::new();
        self.of_owner(owner).write_message(owner, &mut out).unwrap_or_default();
        out
    }

    fn write_message(&self, owner: &Person, out: &mut String) -> std::fmt::Result {
        let names: Vec<String> = self.projects.iter().map(|p| clean(&p.project.0)).collect();
        writeln!(out, "To: {}", clean(owner.as_str()))?;
        writeln!(
            out,
            "Subject: Access review of {}: {} things to look at\n",
            names.join(", "),
            self.count()
        )?;
        writeln!(
            out,
            "You own what follows. It was looked at {}; nothing is removed unless you edit the policy.",
            when(self.period)
        )?;
        for project in &self.projects {
            writeln!(out, "\n## {}", markdown(&project.project.0))?;
            for (kind, findings) in by_kind(&project.findings) {
                writeln!(out, "\n### {} ({})\n", kind.title(), findings.len())?;
                for finding in &findings {
                    let place = finding
                        .origin
                        .as_ref()
                        .map(|o| format!(" ({})", markdown(&o.to_string())));
                    writeln!(
                        out,
                        "- **{}**: {}{}",
                        markdown(&finding.subject),
                        markdown(&finding.message),
                        place.unwrap_or_default()
                    )?;
                }
                for suggestion in suggestions(&findings) {
                    writeln!(out, "\n*What you can do:* {suggestion}.")?;
                }
            }
        }
        Ok(())
    }
}

fn by_kind(findings: &[Finding]) -> Vec<(FindingKind, Vec<&Finding>)> {
    let mut kinds: Vec<(FindingKind, Vec<&Finding>)> = Vec::new();
    for finding in findings {
        match kinds.last_mut() {
            Some((kind, same)) if *kind == finding.kind => same.push(finding),
            _ => kinds.push((finding.kind, vec![finding])),
        }
    }
    kinds
}

/// Each once.
fn suggestions<'a>(findings: &[&'a Finding]) -> Vec<&'a str> {
    let mut said = Vec::new();
    for finding in findings {
        if !said.contains(&finding.suggestion.as_str()) {
            said.push(finding.suggestion.as_str());
        }
    }
    said
}

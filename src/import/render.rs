//! A draft as TOML, with what could not be explained as comments at its place, and as JSON. Pure.

use jiff::Timestamp;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::draft::{Draft, Entitlement, Imported, Unexplained};
use crate::layout::wrap;
use crate::model::{GroupRef, PermissionSetRef, Target};
use crate::text::{clean, hides, instant};

/// Comments are broken at this many columns, the mark included.
const WIDTH: usize = 100;

impl Draft {
    /// The name of its file.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{}.toml", self.name.to_lowercase())
    }

    /// The policy file.
    #[must_use]
    pub fn toml(&self, now: Timestamp) -> String {
        let mut out = String::new();
        comment(
            &mut out,
            &format!(
                "Imported by dutybound at {} from {}. Whoever holds this today holds it by this file; nothing is \
                 granted, revoked or owned by dutybound because of it until you say so (`dutybound adopt`). Name the true \
                 owners, then replace standing membership by duty, rule by rule.",
                instant(now),
                self.about
            ),
        );
        out.push_str("[project]\n");
        line(&mut out, "name", 6, &quoted(&self.name));
        if let Some(parent) = &self.parent {
            line(&mut out, "parent", 6, &quoted(&parent.0));
        }
        line(&mut out, "owners", 6, &format!("[{}]", quoted(self.owner.as_str())));
        unexplained(&mut out, &self.unexplained);
        for entitlement in &self.entitlements {
            self.entitlement(&mut out, entitlement);
        }
        for (person, member) in &self.members {
            out.push('\n');
            if member.called != person.as_str() {
                comment(&mut out, &member.called);
            }
            out.push_str("[[member]]\n");
            line(&mut out, "email", 9, &quoted(person.as_str()));
            line(&mut out, "added_by", 9, &quoted(self.owner.as_str()));
            line(&mut out, "reason", 9, &quoted("held it when it was imported"));
            let held = self
                .entitlements
                .iter()
                .filter(|entitlement| entitlement.holders.contains(person));
            let marks: Vec<String> = held.filter_map(|entitlement| self.mark(entitlement)).collect();
            if !marks.is_empty() {
                line(&mut out, "completed", 9, &list(&marks));
            }
        }
        for entitlement in self
            .entitlements
            .iter()
            .filter(|entitlement| !entitlement.holders.is_empty())
        {
            out.push_str("\n[[rule]]\n");
            line(&mut out, "entitlement", 11, &quoted(&entitlement.name));
            line(&mut out, "members", 11, "true");
            if let Some(mark) = self.mark(entitlement) {
                let about = "Not every member of the project holds this today; those who do are marked with it.";
                comment(&mut out, about);
                line(&mut out, "requires", 11, &list(&[mark]));
            }
        }
        out
    }

    fn entitlement(&self, out: &mut String, entitlement: &Entitlement) {
        out.push_str("\n[[entitlement]]\n");
        match &entitlement.target {
            Target::Assignment {
                account,
                permission_set,
            } => {
                let (PermissionSetRef::Name(set) | PermissionSetRef::Arn(set)) = permission_set;
                line(out, "name", 14, &quoted(&entitlement.name));
                line(out, "account", 14, &quoted(account));
                line(out, "permission_set", 14, &quoted(set));
            }
            Target::Group(GroupRef::Name(group) | GroupRef::Id(group)) => {
                line(out, "name", 5, &quoted(&entitlement.name));
                line(out, "group", 5, &quoted(group));
            }
        }
        for about in &entitlement.about {
            comment(out, about);
        }
        unexplained(out, &entitlement.unexplained);
    }
}

fn unexplained(out: &mut String, all: &[Unexplained]) {
    for one in all {
        let label = if one.is_known() { "KNOWN" } else { "UNEXPLAINED" };
        comment(out, &format!("{label} ({}): {}.", one.kind, one.words));
    }
}

fn line(out: &mut String, key: &str, width: usize, value: &str) {
    out.push_str(&format!("{key:width$} = {value}\n"));
}

/// A comment, broken between words unless it is a command. No word of it can end the comment.
fn comment(out: &mut String, text: &str) {
    let text = clean(text);
    let whole = text.starts_with("  ") || text.width() + 2 <= WIDTH;
    let broken = if whole { text } else { wrap(&text, Some(WIDTH - 2)) };
    for (number, line) in broken.lines().enumerate() {
        // What hangs belongs to the sentence above it, which has no indent here.
        let line = if number == 0 { line } else { line.trim_start() };
        out.push_str(&format!("# {line}\n"));
    }
}

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A basic string of TOML. Besides what TOML demands, whatever a reader of the file could not see is escaped too, which
/// no writer of TOML does.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() || hides(c) => out.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// What is shown as JSON.
#[derive(Debug, Serialize)]
pub struct View {
    /// When it was read.
    imported_at: Timestamp,
    projects: Vec<ProjectView>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ProjectView {
    name: String,
    file: String,
    owners: Vec<String>,
    entitlements: Vec<EntitlementView>,
    members: Vec<MemberView>,
    unexplained: Vec<Unexplained>,
    toml: String,
}

#[derive(Debug, Serialize)]
struct EntitlementView {
    name: String,
    target: Target,
    holders: Vec<String>,
    about: Vec<String>,
    unexplained: Vec<Unexplained>,
}

#[derive(Debug, Serialize)]
struct MemberView {
    email: String,
    called: String,
}

impl Imported {
    /// For programs.
    #[must_use]
    pub fn view(&self, now: Timestamp) -> View {
        let entitlement = |e: &Entitlement| EntitlementView {
            name: e.name.clone(),
            target: e.target.clone(),
            holders: e.holders.iter().map(ToString::to_string).collect(),
            about: e.about.clone(),
            unexplained: e.unexplained.clone(),
        };
        let project = |draft: &Draft| ProjectView {
            name: draft.name.clone(),
            file: draft.file(),
            owners: vec![draft.owner.to_string()],
            entitlements: draft.entitlements.iter().map(entitlement).collect(),
            members: draft
                .members
                .iter()
                .map(|(person, member)| MemberView {
                    email: person.to_string(),
                    called: member.called.clone(),
                })
                .collect(),
            unexplained: draft.unexplained.clone(),
            toml: draft.toml(now),
        };
        View {
            imported_at: now,
            projects: self.projects.iter().map(project).collect(),
            notes: self.notes.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_text_is_read_back_as_it_was(text in any::<String>()) {
            let read: toml::Table = toml::from_str(&format!("a = {}\n", quoted(&text))).unwrap();
            prop_assert_eq!(read["a"].as_str(), Some(text.as_str()));
        }

        #[test]
        fn no_comment_ends_early(text in any::<String>()) {
            let mut out = String::new();
            comment(&mut out, &text);
            prop_assert!(toml::from_str::<toml::Table>(&out).unwrap().is_empty());
            prop_assert!(out.chars().all(|c| c == '\n' || !(c.is_control() || hides(c))));
        }
    }

    #[test]
    fn what_hides_is_shown() {
        assert_eq!(quoted("a\"b\\c\n\u{202e}火"), "\"a\\\"b\\\\c\\U0000000A\\U0000202E火\"");
    }
}

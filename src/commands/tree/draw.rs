//! The tree as text: 100 columns, box characters, figures in line.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::{Bound, Lent, Node, Tree};
use crate::model::{Person, ProjectName};
use crate::policy::Delegation;
use crate::text::{clean, hours, instant};

const WIDTH: usize = 100;
/// What the figures leave of a line.
const NAME: usize = WIDTH - 62;
/// The words in front of details.
const WORD: usize = 10;

impl Tree {
    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = line(
            "project",
            [
                "members",
                "owns",
                "rules",
                "states",
                "standing h",
                "windows h",
                "held h",
            ]
            .map(str::to_owned),
        );
        let mut drawn = BTreeSet::new();
        for root in &self.projects {
            root.names(&mut drawn);
        }
        for root in &self.projects {
            root.draw(&mut out, "", "", &drawn);
        }
        let mut all = Vec::new();
        for root in &self.projects {
            root.flat(&mut all);
        }
        if all.len() > 1 {
            let held: Option<i64> = all.iter().map(|node| node.held_seconds).sum();
            out += &line(
                "total",
                [
                    all.iter().map(|node| node.members).sum::<usize>().to_string(),
                    all.iter().map(|node| node.entitlements).sum::<usize>().to_string(),
                    all.iter().map(|node| node.rules).sum::<usize>().to_string(),
                    all.iter().map(|node| node.statements.len()).sum::<usize>().to_string(),
                    shown(Some(all.iter().map(|node| node.standing_seconds).sum())),
                    shown(Some(all.iter().map(|node| node.window_seconds).sum())),
                    shown(held),
                ],
            );
        }
        out += "\nHours are person-hours of what a project owns, as of ";
        out += &format!("{}:\n", instant(self.as_of));
        out += "  standing  if all who could ever earn it held it all of the coming week\n";
        out += "  windows   what membership rules give in the coming week, without anybody being on call\n";
        out += if self.ledger {
            "  held      what was held in the last seven days, by the ledger\n"
        } else {
            "  held      unknown: there is no ledger yet\n"
        };
        for statement in &self.statements {
            out += &format!("The operator states {}\n", clean(&statement.words()));
        }
        if let Some(gone) = self.held_elsewhere_seconds.filter(|seconds| 0 < *seconds) {
            out += &format!(
                "Besides, {} h were held of entitlements whose project the policy no longer has.\n",
                shown(Some(gone))
            );
        }
        out
    }
}

impl Node {
    fn names<'a>(&'a self, names: &mut BTreeSet<&'a ProjectName>) {
        names.insert(&self.name);
        for child in &self.below {
            child.names(names);
        }
    }

    fn flat<'a>(&'a self, nodes: &mut Vec<&'a Self>) {
        nodes.push(self);
        for child in &self.below {
            child.flat(nodes);
        }
    }

    /// `first` stands in front of the name, `rest` in front of everything below it.
    fn draw(&self, out: &mut String, first: &str, rest: &str, drawn: &BTreeSet<&ProjectName>) {
        let figures = [
            self.members.to_string(),
            self.entitlements.to_string(),
            self.rules.to_string(),
            self.statements.len().to_string(),
            shown(Some(self.standing_seconds)),
            shown(Some(self.window_seconds)),
            shown(self.held_seconds),
        ];
        *out += &line(&format!("{first}{}", clean(&self.name.0)), figures);
        let bar = if self.below.is_empty() { "   " } else { "│  " };
        let margin = format!("{rest}{bar}");
        for (word, text) in self.details(drawn) {
            let room = WIDTH.saturating_sub(margin.width() + WORD).max(20);
            for (n, part) in wrapped(&text, room).iter().enumerate() {
                let word = if n == 0 { word } else { "" };
                *out += format!("{margin}{word:WORD$}{part}").trim_end();
                out.push('\n');
            }
        }
        for (n, child) in self.below.iter().enumerate() {
            let (fork, below) = if n + 1 == self.below.len() {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            child.draw(out, &format!("{rest}{fork}"), &format!("{rest}{below}"), drawn);
        }
    }

    fn details(&self, drawn: &BTreeSet<&ProjectName>) -> Vec<(&'static str, String)> {
        let mut details = vec![("owners", people(&self.owners))];
        // What is above the drawing is told once, at its top.
        let top = self.above.first().is_none_or(|parent| !drawn.contains(&parent.project));
        for above in self.above.iter().filter(|_| top) {
            details.push(("above", format!("{}: {}", above.project, people(&above.owners))));
        }
        let binding: Vec<&Bound> = self.bound_by.iter().filter(|b| !b.limits.words().is_empty()).collect();
        if top {
            for Bound { by, limits } in binding {
                details.push((
                    "bound by",
                    format!("{by}: {} ({})", limits.words().join("; "), limits.origin),
                ));
            }
        } else if !binding.is_empty() {
            let names: Vec<&str> = binding.iter().map(|b| b.by.0.as_str()).collect();
            details.push(("bound by", format!("the limits of {}", names.join(", "))));
        }
        for statement in &self.statements {
            details.push(("states", statement.words()));
        }
        if let Some(limits) = self.children_limits.as_ref().filter(|l| !l.words().is_empty()) {
            details.push((
                "limits",
                format!("below it {} ({})", limits.words().join("; "), limits.origin),
            ));
        }
        for Lent {
            entitlement,
            delegation,
        } in &self.lends
        {
            let text = format!(
                "{} to {} for {}",
                entitlement.name,
                delegation.project,
                terms(delegation)
            );
            details.push(("lends", text));
        }
        for Lent {
            entitlement,
            delegation,
        } in &self.borrows
        {
            details.push(("borrows", format!("{entitlement} for {}", terms(delegation))));
        }
        if !self.uncounted.is_empty() {
            let schedules: Vec<String> = self.uncounted.iter().map(ToString::to_string).collect();
            details.push((
                "besides",
                format!(
                    "whoever is on call in {}, member or not: not counted yet",
                    schedules.join(", ")
                ),
            ));
        }
        details.into_iter().map(|(word, text)| (word, clean(&text))).collect()
    }
}

fn terms(delegation: &Delegation) -> String {
    let until = delegation
        .until
        .map(|t| format!(" until {}", instant(t)))
        .unwrap_or_default();
    format!("{}{until} ({})", delegation.scope(), delegation.origin)
}

fn people(people: &[Person]) -> String {
    people.iter().map(Person::as_str).collect::<Vec<_>>().join(", ")
}

fn shown(seconds: Option<i64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |s| hours(SignedDuration::from_secs(s)))
}

/// A name that leaves no room for the figures stands on a line of its own.
fn line(name: &str, figures: [String; 7]) -> String {
    let [members, owns, rules, states, standing, windows, held] = figures;
    let figures = format!("{members:>8} {owns:>5} {rules:>5} {states:>6} {standing:>12} {windows:>10} {held:>10}\n");
    match NAME.checked_sub(name.width()) {
        Some(room) => format!("{name}{}{figures}", " ".repeat(room)),
        None => format!("{name}\n{}{figures}", " ".repeat(NAME)),
    }
}

/// Breaks at spaces, and inside a word only where it is wider than a line.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let gap = usize::from(0 < used);
        if 0 < used && width < used + gap + word.width() {
            lines.push(String::new());
            used = 0;
        } else if 0 < used {
            lines.last_mut().into_iter().for_each(|line| line.push(' '));
            used += 1;
        }
        for c in word.chars() {
            let wide = c.width().unwrap_or_default();
            if width < used + wide {
                lines.push(String::new());
                used = 0;
            }
            lines.last_mut().into_iter().for_each(|line| line.push(c));
            used += wide;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_a_hundred_columns() {
        let mut policy = crate::accounting::fixtures::policy(Vec::new());
        let mut project = policy.projects.pop_first().map(|(_, project)| project).unwrap();
        let owner = |n: usize| Person::parse(&format!("{}@例え.example", "w".repeat(1 + 30 * n))).unwrap();
        project.owners = (0..8).map(owner).collect();
        let mut parent = None;
        for depth in 0..10 {
            project.name = ProjectName(format!("{depth}-{}", "n".repeat(60)).into());
            project.parent = parent.replace(project.name.clone());
            policy.projects.insert(project.name.clone(), project.clone());
        }
        let text = super::super::tree(&policy, &[], None, jiff::Timestamp::UNIX_EPOCH, None)
            .unwrap()
            .text();
        for line in text.lines() {
            assert!(line.width() <= WIDTH, "{} {line}", line.width());
        }
        assert!(text.matches("nnn").count() > 10 && text.contains("例え"), "{text}");
    }

    #[test]
    fn text_is_broken_at_spaces_and_words_only_where_they_must() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a verylongword b", 5), ["a", "veryl", "ongwo", "rd b"]);
        assert_eq!(wrapped("李李李 x", 4), ["李李", "李 x"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}

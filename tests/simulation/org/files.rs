//! The policy as its authors write it, well or badly.

use std::fmt::Write as _;

use super::{Policy, SOURCES, Schedule, Target, Trigger, email};

impl Policy {
    /// The policy files as their authors write them.
    pub(crate) fn files(&self, org: &[Schedule]) -> Vec<(String, Vec<u8>)> {
        (0..self.projects)
            .map(|project| (format!("project{project}.toml"), self.file(project, org).into_bytes()))
            .collect()
    }

    fn file(&self, project: usize, schedules: &[Schedule]) -> String {
        let mut text = format!("[project]\nname = \"project{project}\"\nowners = [\"owner@example.com\"]\n");
        for e in self.entitlements.iter().filter(|e| e.project == project) {
            writeln!(text, "[[entitlement]]\nname = \"{}\"", e.name).unwrap();
            match &e.target {
                Target::Assignment {
                    account,
                    permission_set,
                } => {
                    writeln!(text, "account = \"{account}\"\npermission_set = \"{permission_set}\"").unwrap();
                }
                Target::Group(group) => writeln!(text, "group = \"{group}\"").unwrap(),
            }
            if e.exclusive {
                writeln!(text, "exclusive = true").unwrap();
            }
            if 0 < e.min_holders {
                writeln!(text, "min_holders = {}", e.min_holders).unwrap();
            }
            if let Some(to) = e.delegate_to {
                writeln!(text, "delegate_to = [\"project{to}\"]").unwrap();
            }
        }
        for member in &self.members[project] {
            writeln!(
                text,
                "[[member]]\nemail = \"{}\"\nadded_by = \"owner@example.com\"",
                email(*member)
            )
            .unwrap();
        }
        for rule in self.rules.iter().filter(|r| r.project == project) {
            let e = &self.entitlements[rule.entitlement];
            let prefix = if e.project == project {
                String::new()
            } else {
                format!("project{}/", e.project)
            };
            writeln!(text, "[[rule]]\nentitlement = \"{prefix}{}\"", e.name).unwrap();
            match &rule.trigger {
                Trigger::Members => writeln!(text, "members = true").unwrap(),
                Trigger::OfficeHours => writeln!(
                    text,
                    "members = true\nduring = {{ cron = \"0 9 * * MON-FRI\", until = \"18:00\", zone = \"Europe/Berlin\" }}"
                )
                .unwrap(),
                Trigger::OnCall { schedule, levels } => {
                    let s = &schedules[*schedule];
                    let name = format!("{}/{}", SOURCES[s.source], s.id);
                    match levels {
                        None if s.levels == 0 => writeln!(text, "on_call = \"{name}\"").unwrap(),
                        None => writeln!(text, "on_call = {{ escalation_policy = \"{name}\" }}").unwrap(),
                        Some(levels) => {
                            let levels = levels.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
                            writeln!(text, "on_call = {{ escalation_policy = \"{name}\", levels = [{levels}] }}").unwrap();
                        }
                    }
                    if !rule.member {
                        writeln!(text, "requires = []").unwrap();
                    }
                }
            }
            for (name, span) in [("lead", rule.lead), ("linger", rule.linger)] {
                if !span.is_zero() {
                    writeln!(text, "{name} = \"{}m\"", span.as_mins()).unwrap();
                }
            }
        }
        text
    }

    /// The same with a mistake in the file of one project.
    pub(crate) fn mistaken_files(&self, org: &[Schedule], project: usize, mistake: Mistake) -> Vec<(String, Vec<u8>)> {
        let mut files = self.files(org);
        let text = &mut files[project].1;
        match mistake {
            Mistake::HalfWritten => text.truncate(text.len() / 2 + 7),
            Mistake::UnknownKey => text.extend_from_slice(b"\nmembres = []\n"),
            Mistake::DanglingName => {
                text.extend_from_slice(b"[[rule]]\nentitlement = \"nothing\"\nmembers = true\n");
            }
            Mistake::NoConsent => {
                let foreign = self
                    .entitlements
                    .iter()
                    .find(|e| e.project != project && e.delegate_to != Some(project));
                let name = foreign.map_or("project99/e0".to_owned(), |e| {
                    format!("project{}/{}", e.project, e.name)
                });
                text.extend_from_slice(format!("[[rule]]\nentitlement = \"{name}\"\nmembers = true\n").as_bytes());
            }
            Mistake::NotText => *text = vec![0xff, 0xfe, 0],
            Mistake::Empty => text.clear(),
            Mistake::NoFiles => files.clear(),
        }
        files
    }
}

/// What authors do to their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    HalfWritten,
    UnknownKey,
    DanglingName,
    NoConsent,
    NotText,
    Empty,
    NoFiles,
}

//! The status page.

use std::sync::Arc;

use askama::Template;

use super::filters;
use super::hours::{Day, FourWeeks};
use super::now::Now;
use super::words::{First, Hours, hours_of, share, sum};
use crate::text::grouped;

/// More rows than these are for the pages of projects.
const PROJECTS: usize = 200;

#[derive(Template)]
#[template(path = "status.html", config = "src/pages/askama.toml")]
pub(super) struct Overview {
    now: Arc<Now>,
    share: String,
    hours: Option<Hours>,
    projects: First<Project>,
}

struct Project {
    name: String,
    now: usize,
    held: String,
    standing: String,
    share: String,
}

pub(super) fn overview(now: Arc<Now>, four_weeks: Option<&FourWeeks>) -> Overview {
    let standing = |name| now.standing.by_project.get(name).copied().unwrap_or_default();
    let project = |name| {
        let line = four_weeks.and_then(|weeks| weeks.projects.get(name));
        let total = line.map_or_else(Day::default, |line| sum(line));
        Project {
            name: name.0.to_string(),
            now: standing(name),
            held: grouped(total.held),
            standing: grouped(total.standing),
            share: share(&total),
        }
    };
    // Where not all fit, those in which the most stands come first.
    let mut names: Vec<_> = now.policy.projects.keys().collect();
    if PROJECTS < names.len() {
        names.sort_by_key(|name| std::cmp::Reverse(standing(name)));
    }
    let projects = First::of(names, PROJECTS).map(project);
    let hours = four_weeks.and_then(|weeks| hours_of(weeks, &weeks.total));
    Overview {
        share: hours.as_ref().map_or_else(|| "-".to_owned(), |h| h.share.clone()),
        hours,
        projects,
        now,
    }
}

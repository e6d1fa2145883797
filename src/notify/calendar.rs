//! Reviews and reports on their cron schedules: into a directory, and to those who are told of them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Notifier;
use super::message::{Content, Found, Kind, Message, key};
use super::outbox::{Batch, Outbox};
use crate::commands::{report as hours, review as looked_at};
use crate::config::notify::{Job, JobKind};
use crate::model::{Interval, Person};
use crate::review::Review;
use crate::text::clean;

/// Between looks at the clock.
const LOOK: Duration = Duration::from_secs(1);
/// Before a run that failed is tried again.
const AGAIN: SignedDuration = SignedDuration::from_mins(5);

impl Job {
    /// The newest time at or before `now` at which it is to run.
    #[must_use]
    pub fn last_due(&self, now: Timestamp) -> Option<Timestamp> {
        self.before(now, true)
    }

    /// From the time before `due` at which it was to run until `due`.
    #[must_use]
    pub fn covers(&self, due: Timestamp) -> Option<Interval> {
        Interval::new(self.before(due, false)?, due)
    }

    fn before(&self, at: Timestamp, inclusive: bool) -> Option<Timestamp> {
        // croner works in whole seconds.
        let whole = Timestamp::from_second(at.as_second()).ok()?.to_zoned(self.zone.clone());
        let found = self.cron.find_previous_occurrence(&whole, inclusive).ok()?;
        (found.timestamp() <= at).then(|| found.timestamp())
    }

    /// Its name in the queue's file: what is changed in the configuration is another job.
    fn name(&self) -> String {
        let zone = self.zone.iana_name().unwrap_or("UTC");
        let what = match &self.kind {
            JobKind::Review { .. } => "review",
            JobKind::Report { .. } => "report",
        };
        format!(
            "{what}/{}/{zone}/{}",
            self.cron.as_str(),
            self.directory.as_deref().unwrap_or(Path::new("")).display()
        )
    }
}

impl Notifier {
    /// Runs what is due for ever. What was missed while the daemon was down is made up for once.
    pub(super) async fn keep_calendar(&self, outbox: &Outbox) {
        let jobs = &self.config.notify.jobs;
        let mut not_before = vec![Timestamp::MIN; jobs.len()];
        loop {
            for (job, not_before) in jobs.iter().zip(&mut not_before) {
                let now = self.clock.now();
                if now < *not_before {
                    continue;
                }
                if let Err(error) = self.run_if_due(job, outbox, now).await {
                    tracing::error!(job = job.name(), reason = %clean(&format!("{error:#}")), "a scheduled review or report failed; it is tried again");
                    *not_before = now.saturating_add(AGAIN).unwrap_or(Timestamp::MAX);
                }
            }
            self.clock.sleep(LOOK).await;
        }
    }

    async fn run_if_due(&self, job: &Job, outbox: &Outbox, now: Timestamp) -> anyhow::Result<()> {
        let name = job.name();
        let mut batch = Batch::default();
        let Some(last) = outbox.mark(&name).await? else {
            // What is written into the configuration today was not missed yesterday.
            batch.marks.insert(name, now);
            self.write(outbox, &batch).await?;
            return Ok(());
        };
        let Some(due) = job.last_due(now).filter(|due| last < *due) else {
            return Ok(());
        };
        let messages = match &job.kind {
            JobKind::Review { days } => self.review(job, *days, due).await?,
            JobKind::Report { by, formats } => self.report(job, *by, formats, due).await?,
        };
        for message in &messages {
            batch.messages.extend(self.routes.of(message));
        }
        batch.marks.insert(name.clone(), due);
        self.write(outbox, &batch).await?;
        tracing::info!(job = name, %due, "a scheduled review or report is made");
        Ok(())
    }

    async fn review(&self, job: &Job, days: u16, due: Timestamp) -> anyhow::Result<Vec<Message>> {
        let policy = Arc::clone(&self.in_use.borrow().policy);
        let begin = due.checked_sub(SignedDuration::from_hours(24 * i64::from(days)))?;
        let period = Interval::new(begin, due).context("the period is empty")?;
        let (found, notes) = looked_at::look(
            &self.config,
            &policy,
            &self.sources,
            &self.reader,
            Some(&self.ledger),
            period,
        )
        .await?;
        for note in &notes {
            tracing::warn!(detail = %clean(note), "the scheduled review is not complete");
        }
        let mut messages = Vec::new();
        for owner in found.owners() {
            let markdown = found.message(&owner);
            if let Some(directory) = &job.directory {
                put(
                    directory,
                    &format!("review-{}-{}.md", day(job, due), file_name(&owner)),
                    markdown.as_bytes(),
                )?;
            }
            messages.push(Message {
                kind: Kind::Review,
                key: key(Kind::Review, &[&job.name(), &due.to_string(), owner.as_str()]),
                at: self.clock.now(),
                project: None,
                channel: None,
                zone: None,
                content: Content::Review {
                    period,
                    projects: counts(&found, &owner),
                    markdown,
                },
                person: Some(owner),
            });
        }
        Ok(messages)
    }

    async fn report(
        &self,
        job: &Job,
        by: hours::GroupBy,
        formats: &[hours::Format],
        due: Timestamp,
    ) -> anyhow::Result<Vec<Message>> {
        let period = job
            .covers(due)
            .context("the pattern has fired once only, so there is no period to report on")?;
        let json = self
            .hours(period, by, hours::Format::Json, job.zone.clone(), due)
            .await?;
        if let Some(directory) = &job.directory {
            for format in formats {
                let body = self.hours(period, by, *format, job.zone.clone(), due).await?;
                let name = format!(
                    "report-{}-to-{}.{}",
                    day(job, period.start()),
                    day(job, due),
                    extension(*format)
                );
                put(directory, &name, &body)?;
            }
        }
        Ok(vec![Message {
            kind: Kind::Report,
            key: key(Kind::Report, &[&job.name(), &due.to_string()]),
            at: self.clock.now(),
            person: None,
            project: None,
            channel: None,
            zone: job.zone.iana_name().map(str::to_owned),
            content: Content::Report {
                period,
                report: serde_json::from_slice(&json)?,
            },
        }])
    }

    /// The report as the command prints it.
    async fn hours(
        &self,
        period: Interval,
        group_by: hours::GroupBy,
        format: hours::Format,
        zone: TimeZone,
        now: Timestamp,
    ) -> anyhow::Result<Vec<u8>> {
        let policy = Arc::clone(&self.in_use.borrow().policy);
        let request = hours::Request {
            period,
            now,
            group_by,
            format,
            zone,
        };
        Ok(hours::read(&self.ledger, &policy, &self.config.identities, &request).await?)
    }
}

fn counts(found: &Review, owner: &Person) -> Vec<Found> {
    let mine = found.of_owner(owner);
    let project = |p: &crate::review::ProjectReview| {
        let mut findings: Vec<(String, usize)> = Vec::new();
        for finding in &p.findings {
            let title = finding.kind.title();
            match findings.last_mut() {
                Some((same, count)) if same == title => *count += 1,
                _ => findings.push((title.to_owned(), 1)),
            }
        }
        Found {
            project: p.project.clone(),
            findings,
        }
    };
    mine.projects.iter().map(project).collect()
}

/// The day in the job's zone, and the time where it is not midnight, for the name of a file.
fn day(job: &Job, at: Timestamp) -> String {
    let shown = at.to_zoned(job.zone.clone());
    let midnight = shown.time() == jiff::civil::Time::midnight();
    shown
        .strftime(if midnight { "%Y-%m-%d" } else { "%Y-%m-%dT%H%M" })
        .to_string()
}

fn extension(format: hours::Format) -> String {
    use clap::ValueEnum as _;
    let name = format
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default();
    if name == "text" { "txt".to_owned() } else { name }
}

/// An address as the name of a file: what could be a path or an option is replaced, and then a digest tells two apart.
fn file_name(owner: &Person) -> String {
    let address = owner.as_str();
    let safe = |c: char| c.is_ascii_alphanumeric() || "@._+-".contains(c);
    let name: String = address
        .chars()
        .take(100)
        .map(|c| if safe(c) { c } else { '_' })
        .collect();
    if name == address {
        name
    } else {
        format!("{name}-{}", key(Kind::Review, &[address]))
    }
}

/// Writes a file whole or not at all.
fn put(directory: &Path, name: &str, body: &[u8]) -> anyhow::Result<()> {
    let path = directory.join(name);
    let part = directory.join(format!(".{name}.part"));
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&part, body))
        .and_then(|()| std::fs::rename(&part, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::window::parse_cron;

    fn job(cron: &str, zone: &str) -> Job {
        Job {
            cron: parse_cron(cron).unwrap(),
            zone: jiff::tz::TimeZone::get(zone).unwrap(),
            directory: None,
            kind: JobKind::Review { days: 90 },
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_week_has_the_hours_that_it_has_and_weeks_touch() {
        let weekly = job("0 0 * * MON", "Europe/Berlin");
        let due = weekly.last_due(at("2026-10-27T12:00:00.5Z")).unwrap();
        assert_eq!(due, at("2026-10-25T23:00:00Z"));
        let autumn = weekly.covers(due).unwrap();
        assert_eq!(autumn.duration(), SignedDuration::from_hours(7 * 24 + 1));
        let before = weekly.covers(autumn.start()).unwrap();
        assert_eq!((before.end(), before.duration().as_hours()), (autumn.start(), 7 * 24));
        let spring = weekly.last_due(at("2026-03-30T12:00:00Z")).unwrap();
        assert_eq!(
            weekly.covers(spring).unwrap().duration(),
            SignedDuration::from_hours(7 * 24 - 1)
        );
        assert_eq!(weekly.last_due(due), Some(due), "the instant itself");
        assert!(weekly.last_due(at("2026-10-25T22:59:59.9Z")).unwrap() < due);
    }

    #[test]
    fn a_month_is_a_month_and_its_file_has_its_name() {
        let monthly = job("0 0 1 * *", "America/New_York");
        let due = monthly.last_due(at("2026-03-15T00:00:00Z")).unwrap();
        let period = monthly.covers(due).unwrap();
        assert_eq!(
            (period.start(), period.end()),
            (at("2026-02-01T05:00:00Z"), at("2026-03-01T05:00:00Z"))
        );
        assert_eq!(
            (day(&monthly, period.start()), day(&monthly, due)),
            ("2026-02-01".into(), "2026-03-01".into())
        );
        assert_eq!(
            day(&job("30 8 * * *", "UTC"), at("2026-03-01T08:30:00Z")),
            "2026-03-01T0830"
        );
    }

    #[test]
    fn an_address_is_no_path() {
        let name = |address: &str| file_name(&Person::parse(address).unwrap());
        assert_eq!(name("mira+x@example.com"), "mira+x@example.com");
        let evil = name("../../etc/cron.d/x@example.com");
        assert!(!evil.contains('/'), "{evil}");
        assert_ne!(name("a/b@example.com"), name("a:b@example.com"));
    }
}

//! Commands about what was, is to come, or would be: `forecast`, `backtest`, `review`, `diff --base`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};

use super::progress::telling;
use super::{
    build_sources, context, load_config, load_policy, open_if_there, print, print_json, say, show_report_of_mistakes,
    system_clock,
};
use crate::cli::{self, DiffFormat, ForecastFormat, Format, ReviewFormat, exit};
use crate::commands::{backtest as past, base, forecast as ahead, review as looked_at};
use crate::config::Config;
use crate::forecast::{days_from, page};
use crate::identity_center::Client;
use crate::invariant::Written;
use crate::ledger::StoredSnapshots;
use crate::model::{Interval, Person};
use crate::policy::Policy;
use crate::secret::Secrets;
use crate::survey::known_people;
use crate::telemetry::ApiCalls;
use crate::text::clean;

fn load_other_policy(base: &str, config: &Config, now: Timestamp) -> anyhow::Result<Policy> {
    let mut context = context(config, now);
    let all = std::mem::take(&mut context.invariants).into_iter();
    context.invariants = all.map(Written::for_another_policy).collect();
    let loaded = base::load(base, &config.policy_dir, &context);
    if let Err(base::BaseError::Policy(report)) = &loaded {
        show_report_of_mistakes(report);
    }
    Ok(loaded?)
}

pub(super) async fn comparison(path: &Path, base: &str, args: &cli::Diff) -> anyhow::Result<u8> {
    let clock = system_clock();
    let now = clock.now();
    let secrets = if args.offline { Secrets::Skip } else { Secrets::Read };
    let config = load_config(path, secrets)?;
    let after = load_policy(&config, now)?;
    let before = load_other_policy(base, &config, now)?;
    let sources = match args.offline {
        true => None,
        false => Some(build_sources(&config, &ApiCalls::new()?, &clock)?),
    };
    let stored = match open_if_there(&config).await? {
        Some(ledger) => ledger.load_snapshots().await?,
        None => StoredSnapshots::default(),
    };
    let period = days_from(now, args.days).context("the period ends beyond all time")?;
    let reading = base::look(&config, &before, &after, sources.as_ref(), stored, period);
    let (comparison, notes) = telling("reading schedules", reading).await;
    for note in &notes {
        tracing::warn!(detail = %clean(note), "the comparison is not complete");
    }
    match args.format {
        DiffFormat::Text => say(comparison.text())?,
        DiffFormat::Json => print_json(&serde_json::json!({ "comparison": comparison, "notes": notes }))?,
        DiffFormat::Markdown => print(comparison.markdown())?,
    };
    Ok(if comparison.is_empty() { exit::OK } else { exit::CHANGES })
}

pub(super) async fn forecast(path: &Path, args: &cli::Forecast) -> anyhow::Result<u8> {
    let clock = system_clock();
    let now = clock.now();
    let config = load_config(path, Secrets::Read)?;
    let policy = load_policy(&config, now)?;
    let about = args
        .about
        .as_deref()
        .map(|about| ahead::About::parse(about, &policy))
        .transpose()?;
    let calls = ApiCalls::new()?;
    let sources = build_sources(&config, &calls, &clock)?;
    let reader = Client::connect(&config.identity_center, calls, Arc::clone(&clock))
        .await
        .reader();
    let ledger = open_if_there(&config).await?;
    let stored = match &ledger {
        Some(ledger) => ledger.load_snapshots().await?,
        None => StoredSnapshots::default(),
    };
    let known = known_people(ledger.as_ref(), &stored, &config, now).await?;
    let period = days_from(now, args.days).context("the period ends beyond all time")?;
    let about_whom = about.as_ref();
    let reading = ahead::look(&config, &policy, &sources, &reader, stored, period, about_whom, &known);
    let (mut forecast, notes) = telling("reading schedules and people", reading).await;
    if let Some(about) = &about {
        forecast = about.only(forecast);
    }
    match args.format {
        ForecastFormat::Text => say(ahead::text(&forecast, &notes, about.is_some()))?,
        ForecastFormat::Json => print_json(&serde_json::json!({ "forecast": forecast, "notes": notes }))?,
        ForecastFormat::Html => print(page::page(&forecast, &notes)?)?,
    };
    Ok(if forecast.gaps.is_empty() {
        exit::OK
    } else {
        exit::CHANGES
    })
}

pub(super) async fn backtest(path: &Path, args: &cli::Backtest) -> anyhow::Result<u8> {
    let clock = system_clock();
    let now = clock.now();
    let end = args.to.unwrap_or(now);
    let begin = end.checked_sub(SignedDuration::from_hours(24 * i64::from(args.days)))?;
    if now < end {
        bail!("--to {end} has not come; `dutybound forecast` looks ahead");
    }
    let period = Interval::new(begin, end).context("the period is empty")?;
    let config = load_config(path, Secrets::Read)?;
    let in_force = load_policy(&config, now)?;
    let other = args
        .policy
        .as_deref()
        .map(|p| load_other_policy(p, &config, now))
        .transpose()?;
    let sources = build_sources(&config, &ApiCalls::new()?, &clock)?;
    let policies: Vec<&Policy> = other.iter().chain([&in_force]).collect();
    let reading = past::read(&policies, &sources, period, now);
    let (snapshots, notes) = telling("reading past schedules", reading).await;
    let of = |policy| past::backtest(&config, policy, &snapshots, period);
    let (tested, against) = match &other {
        Some(other) => (of(other), Some(of(&in_force))),
        None => (of(&in_force), None),
    };
    match args.format {
        Format::Text => say(past::text(period, &tested, against.as_ref(), &notes)),
        Format::Json => print_json(&serde_json::json!({
            "period": period, "tested": tested, "in_force": against, "notes": notes
        })),
    }
}

pub(super) async fn review(path: &Path, args: &cli::Review) -> anyhow::Result<u8> {
    let clock = system_clock();
    let now = clock.now();
    let owner = args.owner.as_deref().map(Person::parse).transpose()?;
    let begin = now.checked_sub(SignedDuration::from_hours(24 * i64::from(args.days)))?;
    let period = Interval::new(begin, now).context("the period is empty")?;
    let config = load_config(path, Secrets::Read)?;
    let policy = load_policy(&config, now)?;
    let calls = ApiCalls::new()?;
    let sources = build_sources(&config, &calls, &clock)?;
    let reader = Client::connect(&config.identity_center, calls, Arc::clone(&clock))
        .await
        .reader();
    let ledger = open_if_there(&config).await?;
    let reading = looked_at::look(&config, &policy, &sources, &reader, ledger.as_ref(), period);
    let (mut found, notes) = telling("reading schedules, people, live access and the record", reading).await?;
    if let Some(owner) = &owner {
        found = found.of_owner(owner);
    }
    match args.format {
        ReviewFormat::Text => say(found.text(&notes)),
        ReviewFormat::Json => print_json(&serde_json::json!({ "review": found, "notes": notes })),
        ReviewFormat::Markdown => {
            for note in &notes {
                tracing::warn!(detail = %clean(note), "the review is not complete");
            }
            let owners = owner.map_or_else(|| found.owners(), |owner| [owner].into());
            let messages: Vec<String> = owners.iter().map(|owner| found.message(owner)).collect();
            print(messages.join("\n---\n\n"))
        }
    }
}

//! Commands that look and write nothing: `diff`, `status`, `explain`, `report`, `tree`, `codeowners`, `iam-policy`.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};

use super::progress::{Telling, telling};
use super::{
    build_sources, load_config, load_policy, open_if_there, outlook, print, print_bytes, print_json, say, system_clock,
    warn_of_older_copy, watch, width,
};
use crate::cli::{self, DiffFormat, Format, exit};
use crate::clock::Clock;
use crate::commands::{
    codeowners as owners_of_files, diff as look, explain, forecast, report as hours, status as standing, tree as drawn,
};
use crate::config::Config;
use crate::diagnostics::did_you_mean;
use crate::iam_policy::{Place, for_import, iam_policy as policy_for};
use crate::identity_center::{Client, Instance};
use crate::ledger::Ledger;
use crate::model::{Interval, ProjectName, ResolvedTarget, Target};
use crate::policy::Policy;
use crate::secret::Secrets;
use crate::telemetry::ApiCalls;
use crate::text::clean;

pub(super) async fn diff(path: &Path, args: &cli::Diff) -> anyhow::Result<u8> {
    if let Some(base) = &args.base {
        return outlook::comparison(path, base, args).await;
    }
    let clock = system_clock();
    let config = load_config(path, Secrets::Read)?;
    let policy = load_policy(&config, clock.now())?;
    let calls = ApiCalls::new()?;
    let sources = build_sources(&config, &calls, &clock)?;
    let reader = Client::connect(&config.identity_center, calls, Arc::clone(&clock))
        .await
        .reader();
    let ledger = open_if_there(&config).await?;
    let reading = look::look(
        &config,
        &policy,
        &sources,
        &reader,
        ledger.as_ref(),
        clock.now(),
        args.at,
    );
    let (survey, stored) = telling("reading schedules and live access", reading).await?;
    let operation = match &ledger {
        Some(ledger) => look::operation_seen(ledger).await?,
        None => None,
    };
    let view = look::view(&survey, &config, &policy, &stored, operation);
    match args.format {
        DiffFormat::Text => print(view.text(&policy, width()))?,
        DiffFormat::Json => print_json(&view)?,
        DiffFormat::Markdown => bail!("--format markdown goes with --base; a plan is shown as text or json"),
    };
    let mistakes: BTreeSet<_> = look::mistaken(&survey).map(|p| p.kind.as_str()).collect();
    if !mistakes.is_empty() {
        let kinds: Vec<_> = mistakes.into_iter().collect();
        bail!(
            "the plan is not complete; its problems say why and what to do: {}",
            kinds.join(", ")
        );
    }
    // What AWS has not ended is not in force, and this plan does nothing about it: like what a guard holds.
    Ok(
        match (view.held.is_empty() && view.unsettled == 0, view.changes.is_empty()) {
            (false, _) => exit::HELD,
            (true, false) => exit::CHANGES,
            (true, true) => exit::OK,
        },
    )
}

pub(super) async fn status(path: &Path, args: &cli::Status) -> anyhow::Result<u8> {
    let Some(every) = args.watch else {
        return match (status_now(path, args).await?, args.format) {
            (status, Format::Text) => print(status.text(width())),
            (status, Format::Json) => print_json(&status),
        };
    };
    if args.format == Format::Json {
        bail!("--watch redraws a terminal; it does not go with --format json");
    }
    watch::watch(every, async || Ok(status_now(path, args).await?.text(width()))).await?;
    Ok(exit::OK)
}

async fn status_now(path: &Path, args: &cli::Status) -> anyhow::Result<standing::Status> {
    let now = system_clock().now();
    let config = load_config(path, Secrets::Skip)?;
    let ledger = Ledger::open_read_only(&config.ledger, &config.owner_id).await?;
    let (policy, reads) = policy_beside(&config, now, ledger.load_last_reads()).await?;
    let reads = reads?;
    let installation = standing::Installation {
        ledger: &ledger,
        ledger_path: &config.ledger,
        policy: &policy,
        identities: &config.identities,
        max_staleness: config.timing.max_staleness,
    };
    let about = args.about.as_ref();
    let about = about.map(|about| forecast::About::parse(about, &policy)).transpose()?;
    let access = standing::access(&ledger, about.as_ref(), now).await?;
    Ok(standing::read(&installation, &reads, about.as_ref(), access, now).await?)
}

/// The policy, and what is read from the record meanwhile: at full size each takes as long as the other.
async fn policy_beside<T>(
    config: &Config,
    now: Timestamp,
    other: impl Future<Output = T>,
) -> anyhow::Result<(Policy, T)> {
    let config = config.clone();
    let policy = tokio::task::spawn_blocking(move || load_policy(&config, now));
    let (policy, other) = tokio::join!(policy, other);
    Ok((policy??, other))
}

pub(super) async fn explanation(path: &Path, args: &cli::Explain) -> anyhow::Result<u8> {
    let now = system_clock().now();
    let config = load_config(path, Secrets::Skip)?;
    let about = explain::About::parse(&args.subject, args.entitlement.as_deref()).map_err(anyhow::Error::msg)?;
    let record = async {
        let Some(ledger) = open_if_there(&config).await? else {
            tracing::warn!("there is no ledger yet, so nothing is known of schedules and of what was granted");
            return Ok(None);
        };
        let reads = ledger.load_last_reads().await?;
        anyhow::Ok(Some((ledger, reads)))
    };
    let (policy, record) = policy_beside(&config, now, record).await?;
    let record = record?;
    let installation = explain::Installation {
        record: record.as_ref().map(|(ledger, reads)| (ledger, reads)),
        config: &config,
        policy: &policy,
    };
    let explanation = explain::read(&installation, about, args.at, now).await?;
    match args.format {
        Format::Text => print(explanation.text(width()))?,
        Format::Json => print_json(&explanation)?,
    };
    Ok(match (explanation.holds(), explanation.record_begins) {
        (true, _) => exit::OK,
        (false, None) => exit::CHANGES,
        (false, Some(_)) => exit::ERROR,
    })
}

pub(super) async fn iam_policy(path: &Path, args: &cli::IamPolicy) -> anyhow::Result<u8> {
    let clock = system_clock();
    let config = load_config(path, Secrets::Skip)?;
    let answer = if args.import {
        for_import(&place(&config, None))
    } else {
        let policy = load_policy(&config, clock.now())?;
        let (targets, instance) = targets(&config, &policy, args.resolve, clock).await?;
        policy_for(&place(&config, instance.as_ref()), &targets)
    };
    for note in &answer.notes {
        // Beside the document on stdout; nobody is left to tell when stderr is gone.
        drop(writeln!(anstream::stderr(), "note: {}", clean(note)));
    }
    print_json(&answer.document)
}

/// What the policy names, looked up if that is asked for.
async fn targets(
    config: &Config,
    policy: &Policy,
    resolve: bool,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<(Vec<(Target, Option<ResolvedTarget>)>, Option<Instance>)> {
    let mut targets: Vec<_> = policy.entitlements().map(|e| (e.target.clone(), None)).collect();
    let mut instance = None;
    if resolve {
        let reader = Client::connect(&config.identity_center, ApiCalls::new()?, clock)
            .await
            .reader();
        instance = Some(reader.instance().await?);
        for (target, resolved) in &mut targets {
            *resolved = Some(reader.resolve_target(target).await?);
        }
    }
    Ok((targets, instance))
}

/// Where the instance is, as far as it is known.
fn place<'a>(config: &'a Config, instance: Option<&'a Instance>) -> Place<'a> {
    let asked = instance.map(|instance| instance.arn.as_str());
    Place {
        region: &config.identity_center.region,
        owner_account_id: &config.identity_center.expected_account_id,
        instance_arn: asked.or(config.identity_center.instance_arn.as_deref()),
        identity_store_id: instance.map(|instance| instance.identity_store_id.as_str()),
    }
}

pub(super) async fn report(path: &Path, args: &cli::Report) -> anyhow::Result<u8> {
    let now = system_clock().now();
    let config = load_config(path, Secrets::Skip)?;
    let policy = load_policy(&config, now)?;
    let ledger = Ledger::open_read_only(&config.ledger, &config.owner_id).await?;
    warn_of_older_copy(&ledger, &config).await?;
    let request = hours::Request {
        period: period_of(args, now)?,
        now,
        group_by: args.by,
        format: args.format,
        zone: args.zone.clone(),
    };
    let told = Telling::begin("adding up the record");
    let out = hours::read(&ledger, &policy, &config.identities, &request).await?;
    drop(told);
    print_bytes(&out)
}

fn period_of(args: &cli::Report, now: Timestamp) -> anyhow::Result<Interval> {
    let named = match (args.last, args.period) {
        (Some(last), _) => Some(last.before(now, &args.zone)),
        (None, Some(calendar)) => Some(calendar.in_zone(&args.zone)),
        (None, None) => None,
    };
    if let Some(period) = named {
        return period.map_err(|why| anyhow::anyhow!("the period cannot be told: {why}"));
    }
    let to = args.to.unwrap_or(now);
    let from = args
        .from
        .map_or_else(|| to.checked_sub(SignedDuration::from_hours(7 * 24)), Ok)?;
    Interval::new(from, to).with_context(|| format!("the period must end after it starts: {from} .. {to}"))
}

pub(super) async fn tree(path: &Path, args: &cli::Tree) -> anyhow::Result<u8> {
    let now = system_clock().now();
    let config = load_config(path, Secrets::Skip)?;
    let policy = load_policy(&config, now)?;
    let only = args.project.as_deref().map(|name| ProjectName(name.into()));
    let (mut access, mut snapshots) = Default::default();
    let ledger = open_if_there(&config).await?;
    if let Some(ledger) = &ledger {
        access = ledger.access_in(drawn::week_behind(now)).await?;
        snapshots = ledger.load_last_reads().await?.of(&policy.schedules());
    }
    let record = ledger.is_some().then_some(drawn::Record {
        access: &access,
        snapshots: &snapshots,
    });
    let Some(tree) = drawn::tree(&policy, &config.identities, record, now, only.as_ref()) else {
        let name = args.project.as_deref().unwrap_or_default();
        let known = policy.projects.keys().map(|name| name.0.as_str());
        let hint =
            did_you_mean(name, known).unwrap_or_else(|| "`dutybound tree` shows those that there are".to_owned());
        bail!("there is no project `{}`; {hint}", clean(name));
    };
    match args.format {
        Format::Text => say(tree.text()),
        Format::Json => print_json(&tree),
    }
}

pub(super) fn codeowners(path: &Path, root: Option<&Path>) -> anyhow::Result<u8> {
    let config = load_config(path, Secrets::Skip)?;
    let policy = load_policy(&config, system_clock().now())?;
    print(owners_of_files::codeowners(&policy, &config.policy_dir, root)?)
}

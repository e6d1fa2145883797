//! Commands that write once, to AWS or to the ledger: `apply`, `revoke`, `backup`.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};

use super::progress::{Telling, telling};
use super::{
    build_sources, closing, context, load_config, load_policy, print, print_json, reconciler, say, system_clock, width,
};
use crate::apply::End;
use crate::authors::Authors;
use crate::checkout;
use crate::cli::{self, Format, exit};
use crate::clock::Clock;
use crate::commands::apply::ApplyError;
use crate::commands::{apply, diff, revoke};
use crate::config::{Config, Mode};
use crate::ledger::{Ledger, LedgerError};
use crate::model::Person;
use crate::policy::{self, Policy};
use crate::problem::ProblemKind;
use crate::secret::Secrets;
use crate::telemetry::ApiCalls;
use crate::text::clean;

/// How long `apply` asks who changed the schedules, after its changes.
const WHO_CHANGED_IT: Duration = Duration::from_secs(5);

pub(super) fn operator() -> String {
    std::env::var("SUDO_USER")
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_else(|_| "unknown".to_owned())
}

pub(super) async fn apply_once(path: &Path, args: &cli::Apply) -> anyhow::Result<u8> {
    let clock = system_clock();
    let config = load_config(path, Secrets::Read)?;
    let mut policy = load_policy(&config, clock.now())?;
    policy.commit = checkout::commit_of(&policy.revision, &config.policy_dir);
    let policy = Arc::new(policy);
    let by = operator();
    let ledger = match (
        Ledger::open(&config.ledger, &config.owner_id, clock.now()).await,
        &args.approve,
    ) {
        (Err(LedgerError::Locked { .. }), Some(digest)) => {
            let beside = Ledger::open_beside(&config.ledger, &config.owner_id).await?;
            beside.record_approval(digest, &by, clock.now()).await?;
            let held = beside.holds().await?;
            return say(if held.iter().any(|hold| hold.held.release.contains(digest.as_str())) {
                "The daemon is running: the approval is recorded, and its next pass releases exactly that plan.\n"
            } else {
                "The daemon is running: the approval is recorded for an hour, but the daemon holds no plan of that name at \
                 present. `dutybound status` shows what it holds and what releases it.\n"
            });
        }
        (ledger, _) => ledger?,
    };
    closing(ledger, async |ledger| {
        apply_with(ledger, &config, &policy, args, &by, &clock).await
    })
    .await
}

async fn apply_with(
    ledger: Ledger,
    config: &Config,
    policy: &Arc<Policy>,
    args: &cli::Apply,
    by: &str,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<u8> {
    let calls = ApiCalls::new()?;
    let sources = build_sources(config, &calls, clock)?;
    let mut reconciler = reconciler(config, calls, clock, ledger).await?;
    let approve = args.approve.as_deref().map(|digest| (digest, by));
    let operation = diff::operation_seen(&reconciler.ledger).await?;
    let mut view = None;
    let told = Telling::begin("reading schedules and live access");
    let pass = apply::run(&mut reconciler, config, policy, &sources, approve, |look, stored| {
        let shown = diff::view(&look.survey, config, policy, stored, operation);
        told.now("waiting for AWS to confirm the changes");
        if args.format == Format::Text {
            // A broken pipe must not keep access from being granted.
            drop(print(shown.text(policy, width())));
        }
        view = Some(shown);
    })
    .await;
    drop(told);
    if let Err(ApplyError::Mistakes(mistakes)) = &pass
        && 1 < mistakes.len()
    {
        for mistake in mistakes {
            // Nobody is left to tell when stderr is gone.
            drop(writeln!(anstream::stderr(), "error: {}", clean(mistake)));
        }
        bail!(
            "nothing was written, because the policy cannot be carried out as things are; the {} errors above say why",
            mistakes.len()
        );
    }
    let outcome = pass?;
    let problems = &outcome.look.survey.problems;
    let failed = problems.iter().any(|p| p.kind == ProblemKind::ChangeUnsettled)
        || outcome
            .applied
            .iter()
            .any(|a| matches!(a.end, End::Failed(_) | End::Unsettled(_)));
    match args.format {
        Format::Text => {
            let lines: String = outcome.applied.iter().map(|a| apply::line(a) + "\n").collect();
            say(&lines)?;
            if config.mode == Mode::Observe {
                say("mode is observe: nothing was written.\n")?;
            }
        }
        Format::Json => {
            let ended: Vec<_> = outcome.applied.iter().map(apply::line).collect();
            print_json(&serde_json::json!({ "plan": view, "outcome": ended }))?;
        }
    }
    // Everything is in force and said by now. What is not found out in this time is left to the next run.
    let mut authors = Authors::new(
        Arc::clone(clock),
        reconciler.ledger.clone(),
        Arc::clone(&reconciler.snapshots),
        sources,
    );
    drop(tokio::time::timeout(WHO_CHANGED_IT, authors.look()).await);
    Ok(if failed {
        exit::ERROR
    } else if outcome.look.survey.verdict.held.is_empty() && outcome.applied.iter().all(|a| a.end == End::Confirmed) {
        exit::OK
    } else {
        exit::HELD
    })
}

pub(super) async fn revoke_now(path: &Path, args: &cli::Revoke) -> anyhow::Result<u8> {
    let clock = system_clock();
    // No provider is asked, so no provider's secret is needed.
    let config = load_config(path, Secrets::Skip)?;
    let person = args.person.as_deref().map(Person::parse).transpose()?;
    let (ledger, is_writer) = match Ledger::open(&config.ledger, &config.owner_id, clock.now()).await {
        Err(LedgerError::Locked { .. }) => (Ledger::open_beside(&config.ledger, &config.owner_id).await?, false),
        ledger => (ledger?, true),
    };
    closing(ledger, async |ledger| {
        revoke_with(&ledger, is_writer, &config, args, person.as_ref(), &clock).await
    })
    .await
}

async fn revoke_with(
    ledger: &Ledger,
    is_writer: bool,
    config: &Config,
    args: &cli::Revoke,
    person: Option<&Person>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<u8> {
    let whom = person.map_or_else(|| "everybody".to_owned(), ToString::to_string);
    let by = operator();
    if args.lift {
        if !ledger.lift(person, &by, clock.now()).await? {
            bail!("no order is in force against {whom}; `dutybound status` lists those that are");
        }
        return say(format!(
            "Lifted: from the next pass on, duty earns access again for {whom}.\n"
        ));
    }
    ledger.bar(person, &args.reason, &by, clock.now()).await?;
    say(format!(
        "Recorded: {whom} holds nothing until `dutybound revoke --lift` says otherwise.\n"
    ))?;
    let left = if is_writer {
        let config = revoke::with_a_writer(config);
        let policy = policy::load(&config.policy_dir, &context(&config, clock.now()))
            .map(|(policy, _)| Arc::new(policy))
            .ok();
        let mut reconciler = reconciler(&config, ApiCalls::new()?, clock, ledger.clone()).await?;
        let revoking = revoke::carry_out(&mut reconciler, &config, policy.as_ref());
        let applied = telling("waiting for AWS to confirm the revokes", revoking).await?;
        say(applied.iter().map(|a| apply::line(a) + "\n").collect::<String>())?;
        revoke::left(ledger, person).await?
    } else {
        say("The daemon carries it out ...\n")?;
        telling("waiting for the daemon", revoke::watch(ledger, clock, person)).await?
    };
    if 0 < left {
        bail!("{left} grants still stand; `dutybound status` shows why, and every further pass tries again");
    }
    say(format!(
        "Nothing granted by dutybound is left to {whom}. Role sessions that are open live on for the permission set's session duration.\n"
    ))
}

pub(super) async fn backup(path: &Path, to: &Path) -> anyhow::Result<u8> {
    let config = load_config(path, Secrets::Skip)?;
    let ledger = Ledger::open_read_only(&config.ledger, &config.owner_id).await?;
    telling("copying the ledger", ledger.backup(to, system_clock().now()))
        .await
        .with_context(|| format!("cannot write the copy {}", to.display()))?;
    say(format!(
        "The ledger is copied to {copy}.\n\
         To restore it: stop the daemon; move {ledger}, {ledger}-wal and {ledger}-shm away, but leave {ledger}.redo where it is; copy {copy} \
         to {ledger}; start the daemon.\n\
         It then brings the copy up to date from {ledger}.redo. Where that is lost, it finds out from schedules and AWS what it granted since, \
         and `dutybound status` says what cannot be known.\n",
        copy = to.display(),
        ledger = config.ledger.display()
    ))
}

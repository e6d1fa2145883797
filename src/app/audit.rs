//! `audit`: opens the record for reading and nothing else.

use std::io::{self, BufWriter, IsTerminal as _};
use std::path::Path;

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};

use super::progress::{Telling, telling};
use super::{context, load_config, print_json, say, system_clock};
use crate::cli::{self, Format, exit};
use crate::commands::audit::access::{Held, Policies};
use crate::commands::audit::{self, export::Exporter};
use crate::commands::explain::About;
use crate::ledger::Ledger;
use crate::model::Interval;
use crate::policy;
use crate::secret::Secrets;

/// How far `audit access` looks back unless it is told.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

pub(super) async fn audit(path: &Path, args: &cli::Audit) -> anyhow::Result<u8> {
    match args {
        cli::Audit::Verify(args) => verify(path, args).await,
        cli::Audit::Access(args) => access(path, args).await,
        cli::Audit::Export(args) => export(path, args).await,
    }
}

async fn verify(path: &Path, args: &cli::Verify) -> anyhow::Result<u8> {
    let config = load_config(path, Secrets::Skip)?;
    let mut heads = Vec::new();
    for head in &args.head {
        heads.extend(audit::published(head)?);
    }
    let file = args.ledger.as_ref().unwrap_or(&config.ledger);
    let ledger = Ledger::open_read_only(file, &config.owner_id).await?;
    let verdict = telling("checking the record", ledger.check_chain(heads.into_iter())).await?;
    match args.format {
        Format::Text => say(audit::text(&verdict))?,
        Format::Json => print_json(&verdict)?,
    };
    Ok(if verdict.intact { exit::OK } else { exit::ERROR })
}

async fn access(path: &Path, args: &cli::AuditAccess) -> anyhow::Result<u8> {
    let now = system_clock().now();
    let config = load_config(path, Secrets::Skip)?;
    let about = args
        .subject
        .as_ref()
        .map(|subject| About::parse(subject, args.entitlement.as_deref()))
        .transpose()
        .map_err(anyhow::Error::msg)?;
    let to = args.to.unwrap_or(now);
    let from = args
        .from
        .unwrap_or_else(|| to.checked_sub(WEEK).unwrap_or(Timestamp::MIN));
    let Some(period) = Interval::new(from, to) else {
        bail!("the period ends at {to}, before it begins at {from}; --from takes the earlier time");
    };
    let file = args.ledger.as_ref().unwrap_or(&config.ledger);
    let ledger = Ledger::open_read_only(file, &config.owner_id).await?;
    // It only helps to name things; the record stands without it.
    let policy = policy::load(&config.policy_dir, &context(&config, now)).ok();
    let policy = policy.as_ref().map(|(policy, _)| policy);
    let mut held = Held::new(period, about, ledger.access_in(period).await?, policy, now);
    if args.outlived {
        held.only_outlived();
    }
    held.record_begins = Some(ledger.begins().await?).filter(|begins| from < *begins);
    let policies = ledger.policies_in(period).await?.into_iter();
    held.policies = policies.map(|(since, policy)| Policies { since, policy }).collect();
    match args.format {
        Format::Text => say(held.text())?,
        Format::Json => print_json(&held)?,
    };
    Ok(if held.held.is_empty() { exit::CHANGES } else { exit::OK })
}

async fn export(path: &Path, args: &cli::Export) -> anyhow::Result<u8> {
    let config = load_config(path, Secrets::Skip)?;
    let file = args.ledger.as_ref().unwrap_or(&config.ledger);
    let ledger = Ledger::open_read_only(file, &config.owner_id).await?;
    let to = args.to.unwrap_or_else(|| system_clock().now());
    let Some(mut events) = ledger.export(args.from, to).await? else {
        bail!("the ledger has no events yet; they begin when this version of dutybound first opens it for writing");
    };
    let name = ledger.head().await?.and_then(|head| head.ledger).unwrap_or_default();
    let mut out = Exporter::begin(args.format, BufWriter::new(io::stdout()), &name)?;
    // On a terminal the events themselves are what is seen.
    let _told = (!io::stdout().is_terminal()).then(|| Telling::begin("exporting events"));
    while let Some(event) = events.next().await? {
        match out.write(&event) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(exit::OK),
            written => written.context("cannot write to stdout")?,
        }
    }
    match out.end() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(exit::OK),
    }
}

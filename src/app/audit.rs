//! `audit`: opens the record for reading and nothing else.

use std::io::{self, BufWriter, IsTerminal as _};
use std::path::Path;

use anyhow::{Context, bail};

use super::progress::{Telling, telling};
use super::{load_config, print_json, say, system_clock};
use crate::cli::{self, Format, exit};
use crate::commands::audit::{self, export::Exporter};
use crate::ledger::Ledger;
use crate::secret::Secrets;

pub(super) async fn audit(path: &Path, args: &cli::Audit) -> anyhow::Result<u8> {
    match args {
        cli::Audit::Verify(args) => verify(path, args).await,
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

//! Puts the parts together for each command: the only place that builds clients, writers and the ledger.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use tokio::sync::Mutex;

use crate::apply::Applier;
use crate::cli::{self, Cli, Command, Format, exit};
use crate::clock::{Clock, SystemClock};
use crate::commands;
use crate::config::{self, Config, Mode};
use crate::diagnostics::{Diagnostic, Report};
use crate::identity_center::Client;
use crate::layout::{NO_TERMINAL, wrap};
use crate::ledger::{Ledger, LedgerError};
use crate::policy::{self, Policy, PolicyContext};
use crate::poll::Sources;
use crate::reconcile::{Reconciler, UNKNOWN_IS_OURS};
use crate::schedule;
use crate::schema;
use crate::secret::{ProcessEnv, Secrets};
use crate::telemetry::ApiCalls;
use crate::text::clean;

mod audit;
mod import;
mod outlook;
mod progress;
mod serve;
mod show;
mod watch;
mod write;

/// Runs one command. Returns the exit code.
///
/// # Errors
/// Everything that is not a command's ordinary answer, with its causes.
pub async fn run(cli: Cli) -> anyhow::Result<u8> {
    let path = &cli.config;
    match cli.command {
        Command::Check(args) => check(path, args.format),
        Command::Diff(args) => show::diff(path, &args).await,
        Command::Apply(args) => write::apply_once(path, &args).await,
        Command::Run => serve::daemon(path).await,
        Command::Revoke(args) => write::revoke_now(path, &args).await,
        Command::Backup { to } => write::backup(path, &to).await,
        // Boxed: unboxed, these nest deeper than the compiler follows.
        Command::Import(args) => Box::pin(import::import(path, &args)).await,
        Command::Adopt(args) => Box::pin(import::adopt(path, &args)).await,
        Command::Status(args) => show::status(path, &args).await,
        Command::Explain(args) => show::explanation(path, &args).await,
        Command::Forecast(args) => outlook::forecast(path, &args).await,
        Command::Backtest(args) => outlook::backtest(path, &args).await,
        Command::Review(args) => outlook::review(path, &args).await,
        Command::Report(args) => show::report(path, &args).await,
        Command::Audit(args) => audit::audit(path, &args).await,
        Command::Tree(args) => show::tree(path, &args).await,
        Command::Codeowners { root } => show::codeowners(path, root.as_deref()),
        Command::IamPolicy(args) => show::iam_policy(path, &args).await,
        Command::Schema { file } => print(match file {
            cli::SchemaFile::Config => schema::config(),
            cli::SchemaFile::Project => schema::project(),
        }),
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut cli::command(), "dutybound", &mut out);
            print_bytes(&out)
        }
        Command::Man => {
            let mut out = Vec::new();
            clap_mangen::Man::new(cli::command()).render(&mut out)?;
            print_bytes(&out)
        }
    }
}

fn print(text: impl AsRef<str>) -> anyhow::Result<u8> {
    print_bytes(text.as_ref().as_bytes())
}

/// Writes to stdout. A reader that has seen enough, such as `head`, is no error.
fn print_bytes(bytes: &[u8]) -> anyhow::Result<u8> {
    let mut out = anstream::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(exit::OK),
    }
}

/// How wide lines may be: what `COLUMNS` says where somebody exports it, else what the terminal says, else, for a file or
/// a pipe, what fits everywhere.
#[must_use]
pub fn width() -> Option<usize> {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    said.or_else(terminal).or(Some(NO_TERMINAL))
}

/// Sentences for people, broken where lines grow too long.
fn say(text: impl AsRef<str>) -> anyhow::Result<u8> {
    print(wrap(text.as_ref(), width()))
}

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<u8> {
    print(serde_json::to_string_pretty(value)? + "\n")
}

fn show_report_of_mistakes(report: &Report) {
    let text = wrap(&report.to_text(true), width());
    // Nobody is left to tell when stderr is gone.
    drop(anstream::stderr().lock().write_all(text.as_bytes()));
}

fn load_config(path: &Path, secrets: Secrets) -> anyhow::Result<Config> {
    match config::load(path, &ProcessEnv, secrets) {
        Ok((config, warnings)) => {
            log_warnings(&warnings);
            Ok(config)
        }
        Err(report) => {
            show_report_of_mistakes(&report);
            bail!("the configuration {} cannot be used", path.display())
        }
    }
}

fn log_warnings(warnings: &[Diagnostic]) {
    for warning in warnings {
        tracing::warn!(place = warning.place(), detail = %clean(&warning.message), "warning");
    }
}

fn context(config: &Config, now: Timestamp) -> PolicyContext {
    PolicyContext {
        sources: Some(
            config
                .sources
                .iter()
                .map(|(name, source)| (name.clone(), Some(source.api.provider())))
                .collect(),
        ),
        roots: config.roots.clone(),
        invariants: config.invariants.clone(),
        now: Some(now),
    }
}

/// How long a command waits for the ledger to close.
const CLOSING: Duration = Duration::from_secs(5);

/// Does `work` with the ledger, and closes it however that ends: a process that ends while SQLite moves its log into the
/// file leaves a file that is whole only together with its log.
async fn closing<T>(ledger: Ledger, work: impl AsyncFnOnce(Ledger) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let done = work(ledger.clone()).await;
    drop(tokio::time::timeout(CLOSING, ledger.close()).await);
    done
}

fn load_policy(config: &Config, now: Timestamp) -> anyhow::Result<Policy> {
    match policy::load(&config.policy_dir, &context(config, now)) {
        Ok((policy, _)) => Ok(policy),
        Err(report) => {
            show_report_of_mistakes(&report);
            bail!("the policy in {} cannot be used", config.policy_dir.display())
        }
    }
}

fn build_sources(config: &Config, calls: &ApiCalls, clock: &Arc<dyn Clock>) -> anyhow::Result<Sources> {
    let mut sources = Sources::new();
    for (name, source) in &config.sources {
        sources.insert(
            name.clone(),
            schedule::build(name, source, calls.clone(), Arc::clone(clock))?,
        );
    }
    Ok(sources)
}

fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn check(path: &Path, format: Format) -> anyhow::Result<u8> {
    let mut out = Vec::new();
    // Styles are always written; the stream drops them where they do not belong.
    let format = match format {
        Format::Text => commands::check::Format::Text {
            colour: true,
            width: width(),
        },
        Format::Json => commands::check::Format::Json,
    };
    let ok = commands::check::check(path, None, format, system_clock().now(), &ProcessEnv, &mut out)?;
    print_bytes(&out)?;
    Ok(if ok { exit::OK } else { exit::ERROR })
}

async fn open_if_there(config: &Config) -> Result<Option<Ledger>, LedgerError> {
    match Ledger::open_read_only(&config.ledger, &config.owner_id).await {
        Ok(ledger) => {
            warn_of_older_copy(&ledger, config).await?;
            Ok(Some(ledger))
        }
        Err(LedgerError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn warn_of_older_copy(ledger: &Ledger, config: &Config) -> Result<(), LedgerError> {
    if let Some(older) = ledger.older_copy(&config.ledger, system_clock().now()).await? {
        tracing::warn!(detail = %clean(&older), "the ledger is not up to date");
    }
    Ok(())
}

/// Builds what makes passes. In mode `observe` no writer comes into being.
async fn reconciler(
    config: &Config,
    calls: ApiCalls,
    clock: &Arc<dyn Clock>,
    ledger: Ledger,
) -> anyhow::Result<Reconciler> {
    let client = Client::connect(&config.identity_center, calls, Arc::clone(clock)).await;
    let reader = client.reader();
    let applier = (config.mode != Mode::Observe).then(|| {
        Applier::new(
            Arc::clone(clock),
            Arc::clone(&reader),
            client.writer(),
            ledger.clone(),
            config.identity_center.assignments_in_flight,
            config.identity_center.operation_timeout,
            config.pause_file.clone(),
        )
    });
    if let Some(applier) = &applier {
        let since = clock.now().checked_sub(UNKNOWN_IS_OURS).unwrap_or(Timestamp::MIN);
        applier.recall(ledger.failed_tries(since).await?);
        applier.recall_durations(ledger.operations_seen(commands::diff::SEEN).await?);
    }
    let snapshots = ledger.load_snapshots().await?;
    let snapshots = Arc::new(Mutex::new(snapshots));
    Ok(Reconciler::new(Arc::clone(clock), reader, ledger, snapshots, applier))
}

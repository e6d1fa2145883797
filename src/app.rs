//! Puts the parts together for each command: the only place that builds clients, writers and the ledger.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex, watch};

use crate::apply::{Applier, End};
use crate::cli::{self, Cli, Command, ForecastFormat, Format, exit};
use crate::clock::{Clock, SystemClock};
use crate::commands::{self, apply, diff, explain, forecast, report, revoke, status};
use crate::config::{self, Config, Mode};
use crate::daemon::files::{Files, ReadConfig};
use crate::daemon::{Daemon, in_force::InForce};
use crate::diagnostics::{Diagnostic, Report};
use crate::forecast::{days_from, page};
use crate::http::{self, Health, Site};
use crate::iam_policy::{Place, iam_policy};
use crate::identity_center::{Client, Slots};
use crate::ledger::{Ledger, LedgerError, StoredSnapshots};
use crate::live::{LiveCache, SILENCE};
use crate::metrics::Metrics;
use crate::model::{EntitlementId, Interval, Person};
use crate::policy::{self, Policy, PolicyContext};
use crate::poll::Sources;
use crate::reconcile::Reconciler;
use crate::schedule;
use crate::schema;
use crate::secret::{ProcessEnv, Secrets};
use crate::telemetry::ApiCalls;
use crate::text::clean;

/// Runs one command. Returns the exit code.
///
/// # Errors
/// Everything that is not a command's ordinary answer, with its causes.
pub async fn run(cli: Cli) -> anyhow::Result<u8> {
    let path = &cli.config;
    match cli.command {
        Command::Check(args) => check(path, args.format),
        Command::Diff(args) => show_diff(path, &args).await,
        Command::Apply(args) => apply_once(path, &args).await,
        Command::Run => daemon(path).await,
        Command::Revoke(args) => revoke_now(path, &args).await,
        Command::Backup { to } => backup(path, &to).await,
        Command::Status(args) => show_status(path, args.format).await,
        Command::Explain(args) => show_explanation(path, &args).await,
        Command::Forecast(args) => show_forecast(path, &args).await,
        Command::Report(args) => show_report(path, &args).await,
        Command::IamPolicy(args) => show_iam_policy(path, &args).await,
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

fn print_json(value: &impl serde::Serialize) -> anyhow::Result<u8> {
    print(serde_json::to_string_pretty(value)? + "\n")
}

fn show_report_of_mistakes(report: &Report) {
    let text = report.to_text(true);
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
        now: Some(now),
    }
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
        Format::Text => commands::check::Format::Text { colour: true },
        Format::Json => commands::check::Format::Json,
    };
    let ok = commands::check::check(path, None, format, system_clock().now(), &ProcessEnv, &mut out)?;
    print_bytes(&out)?;
    Ok(if ok { exit::OK } else { exit::ERROR })
}

async fn show_diff(path: &Path, args: &cli::Diff) -> anyhow::Result<u8> {
    let clock = system_clock();
    let config = load_config(path, Secrets::Read)?;
    let policy = load_policy(&config, clock.now())?;
    let calls = ApiCalls::new()?;
    let sources = build_sources(&config, &calls, &clock)?;
    let reader = Client::connect(&config.identity_center, calls, Arc::clone(&clock))
        .await
        .reader();
    let ledger = open_if_there(&config).await?;
    let (survey, stored) = diff::look(
        &config,
        &policy,
        &sources,
        &reader,
        ledger.as_ref(),
        clock.now(),
        args.at,
    )
    .await?;
    let view = diff::view(&survey, &config, &policy, &stored);
    match args.format {
        Format::Text => print(view.text(&policy))?,
        Format::Json => print_json(&view)?,
    };
    let mistakes = diff::mistakes(&survey);
    if !mistakes.is_empty() {
        bail!("the plan is not complete: {}", mistakes.join("; "));
    }
    Ok(match (view.held.is_empty(), view.changes.is_empty()) {
        (false, _) => exit::HELD,
        (true, false) => exit::CHANGES,
        (true, true) => exit::OK,
    })
}

async fn open_if_there(config: &Config) -> Result<Option<Ledger>, LedgerError> {
    match Ledger::open_read_only(&config.ledger, &config.owner_id).await {
        Ok(ledger) => Ok(Some(ledger)),
        Err(LedgerError::Missing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
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
            Slots::new(config.identity_center.assignments_in_flight),
            config.identity_center.operation_timeout,
            config.pause_file.clone(),
        )
    });
    let snapshots = ledger.load_snapshots().await?;
    Ok(Reconciler {
        clock: Arc::clone(clock),
        reader,
        ledger,
        snapshots: Arc::new(Mutex::new(snapshots)),
        applier,
        live: LiveCache::default(),
        surplus_since: BTreeMap::new(),
    })
}

fn operator() -> String {
    std::env::var("SUDO_USER")
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_else(|_| "unknown".to_owned())
}

async fn apply_once(path: &Path, args: &cli::Apply) -> anyhow::Result<u8> {
    let clock = system_clock();
    let config = load_config(path, Secrets::Read)?;
    let policy = load_policy(&config, clock.now())?;
    let by = operator();
    let ledger = match (
        Ledger::open(&config.ledger, &config.owner_id, clock.now()).await,
        &args.approve,
    ) {
        (Err(LedgerError::Locked { .. }), Some(digest)) => {
            let beside = Ledger::open_beside(&config.ledger, &config.owner_id).await?;
            beside.record_approval(digest, &by, clock.now()).await?;
            let held = beside.holds().await?;
            return print(if held.iter().any(|hold| hold.held.release.contains(digest.as_str())) {
                "The daemon is running: the approval is recorded, and its next pass releases exactly that plan.\n"
            } else {
                "The daemon is running: the approval is recorded for an hour, but the daemon holds no plan of that name at \
                 present. `dutybound status` shows what it holds and what releases it.\n"
            });
        }
        (ledger, _) => ledger?,
    };
    let calls = ApiCalls::new()?;
    let sources = build_sources(&config, &calls, &clock)?;
    let mut reconciler = reconciler(&config, calls, &clock, ledger).await?;
    let approve = args.approve.as_deref().map(|digest| (digest, by.as_str()));
    let mut view = None;
    let outcome = apply::run(&mut reconciler, &config, &policy, &sources, approve, |look, stored| {
        let shown = diff::view(&look.survey, &config, &policy, stored);
        if args.format == Format::Text {
            // A broken pipe must not keep access from being granted.
            drop(print(shown.text(&policy)));
        }
        view = Some(shown);
    })
    .await?;
    let failed = outcome
        .applied
        .iter()
        .any(|a| matches!(a.end, End::Failed(_) | End::Unsettled(_)));
    match args.format {
        Format::Text => {
            let lines: String = outcome.applied.iter().map(|a| apply::line(a) + "\n").collect();
            print(lines)?;
            if config.mode == Mode::Observe {
                print("mode is observe: nothing was written.\n")?;
            }
        }
        Format::Json => {
            let ended: Vec<_> = outcome.applied.iter().map(apply::line).collect();
            print_json(&serde_json::json!({ "plan": view, "outcome": ended }))?;
        }
    }
    Ok(if failed {
        exit::ERROR
    } else if outcome.look.survey.verdict.held.is_empty() && outcome.applied.iter().all(|a| a.end == End::Confirmed) {
        exit::OK
    } else {
        exit::HELD
    })
}

async fn revoke_now(path: &Path, args: &cli::Revoke) -> anyhow::Result<u8> {
    let clock = system_clock();
    // No provider is asked, so no provider's secret is needed.
    let config = load_config(path, Secrets::Skip)?;
    let person = args.person.as_deref().map(Person::parse).transpose()?;
    let whom = person
        .as_ref()
        .map_or_else(|| "everybody".to_owned(), ToString::to_string);
    let by = operator();
    let (ledger, is_writer) = match Ledger::open(&config.ledger, &config.owner_id, clock.now()).await {
        Err(LedgerError::Locked { .. }) => (Ledger::open_beside(&config.ledger, &config.owner_id).await?, false),
        ledger => (ledger?, true),
    };
    if args.lift {
        if !ledger.lift(person.as_ref(), &by, clock.now()).await? {
            bail!("no order is in force against {whom}; `dutybound status` lists those that are");
        }
        return print(format!(
            "Lifted: from the next pass on, duty earns access again for {whom}.\n"
        ));
    }
    ledger.bar(person.as_ref(), &args.reason, &by, clock.now()).await?;
    print(format!(
        "Recorded: {whom} holds nothing until `dutybound revoke --lift` says otherwise.\n"
    ))?;
    let left = if is_writer {
        let config = revoke::with_a_writer(&config);
        let policy = policy::load(&config.policy_dir, &context(&config, clock.now()))
            .map(|(policy, _)| policy)
            .ok();
        let mut reconciler = reconciler(&config, ApiCalls::new()?, &clock, ledger.clone()).await?;
        let applied = revoke::carry_out(&mut reconciler, &config, policy.as_ref()).await?;
        print(applied.iter().map(|a| apply::line(a) + "\n").collect::<String>())?;
        revoke::left(&ledger, person.as_ref()).await?
    } else {
        print("The daemon carries it out ...\n")?;
        revoke::watch(&ledger, &clock, person.as_ref()).await?
    };
    if 0 < left {
        bail!("{left} grants still stand; `dutybound status` shows why, and every further pass tries again");
    }
    print(format!(
        "Nothing granted by dutybound is left to {whom}. Role sessions that are open live on for the permission set's session duration.\n"
    ))
}

async fn backup(path: &Path, to: &Path) -> anyhow::Result<u8> {
    let config = load_config(path, Secrets::Skip)?;
    let ledger = Ledger::open_read_only(&config.ledger, &config.owner_id).await?;
    ledger
        .backup(to)
        .await
        .with_context(|| format!("cannot write the copy {}", to.display()))?;
    print(format!(
        "The ledger is copied to {}. To restore it: stop the daemon, put the copy in the ledger's place, start it.\n",
        to.display()
    ))
}

async fn show_status(path: &Path, format: Format) -> anyhow::Result<u8> {
    let now = system_clock().now();
    let config = load_config(path, Secrets::Skip)?;
    let ledger = Ledger::open_read_only(&config.ledger, &config.owner_id).await?;
    let stored = ledger.load_snapshots().await?;
    let policy = load_policy(&config, now)?;
    let status = status::Status::new(
        now,
        ledger.access_in(around(now)).await?,
        ledger.bars().await?,
        ledger.holds().await?,
        &stored,
        &policy.schedules(),
        ledger.board().await?,
    );
    match format {
        Format::Text => print(status.text()),
        Format::Json => print_json(&status),
    }
}

/// The instant, as the shortest interval that the ledger can tell apart.
fn around(t: Timestamp) -> Interval {
    let end = t
        .saturating_add(SignedDuration::from_millis(1))
        .unwrap_or(Timestamp::MAX);
    Interval::new(t, end).unwrap_or(Interval::ALWAYS)
}

async fn show_explanation(path: &Path, args: &cli::Explain) -> anyhow::Result<u8> {
    let now = system_clock().now();
    let config = load_config(path, Secrets::Skip)?;
    let policy = load_policy(&config, now)?;
    let person = Person::parse(&args.person)?;
    let entitlement = args
        .entitlement
        .clone()
        .map(EntitlementId::try_from)
        .transpose()
        .map_err(|why| anyhow::anyhow!("{why}"))?;
    let at = args.at.unwrap_or(now);
    let (mut snapshots, mut access, mut holds, mut board) = Default::default();
    if let Some(ledger) = open_if_there(&config).await? {
        snapshots = ledger.load_snapshots().await?.newest(&policy.schedules());
        access = ledger.access_in(around(at)).await?;
        holds = ledger.holds().await?;
        board = ledger.board().await?.unwrap_or_default();
    } else {
        tracing::warn!("there is no ledger yet, so nothing is known of schedules and of what was granted");
    }
    let sources = explain::Sources {
        config: &config,
        policy: &policy,
        snapshots: &snapshots,
        access: &access,
        holds: &holds,
        problems: &board.problems,
        now,
    };
    let explanation = explain::explain(&sources, &person, entitlement.as_ref(), at);
    match args.format {
        Format::Text => print(explanation.text())?,
        Format::Json => print_json(&explanation)?,
    };
    Ok(if explanation.holds() { exit::OK } else { exit::CHANGES })
}

async fn show_iam_policy(path: &Path, args: &cli::IamPolicy) -> anyhow::Result<u8> {
    let clock = system_clock();
    let config = load_config(path, Secrets::Skip)?;
    let policy = load_policy(&config, clock.now())?;
    let mut targets: Vec<_> = policy.entitlements().map(|e| (e.target.clone(), None)).collect();
    let mut instance = None;
    if args.resolve {
        let reader = Client::connect(&config.identity_center, ApiCalls::new()?, clock)
            .await
            .reader();
        instance = Some(reader.instance().await?);
        for (target, resolved) in &mut targets {
            *resolved = Some(reader.resolve_target(target).await?);
        }
    }
    let place = Place {
        region: &config.identity_center.region,
        owner_account_id: &config.identity_center.expected_account_id,
        instance_arn: instance
            .as_ref()
            .map(|i| i.arn.as_str())
            .or(config.identity_center.instance_arn.as_deref()),
        identity_store_id: instance.as_ref().map(|i| i.identity_store_id.as_str()),
    };
    let answer = iam_policy(&place, &targets);
    for note in &answer.notes {
        // Beside the document on stdout; nobody is left to tell when stderr is gone.
        drop(writeln!(anstream::stderr(), "note: {}", clean(note)));
    }
    print_json(&answer.document)
}

async fn show_report(path: &Path, args: &cli::Report) -> anyhow::Result<u8> {
    let now = system_clock().now();
    let config = load_config(path, Secrets::Skip)?;
    let policy = load_policy(&config, now)?;
    let ledger = Ledger::open_read_only(&config.ledger, &config.owner_id).await?;
    let to = args.to.unwrap_or(now);
    let from = args
        .from
        .map_or_else(|| to.checked_sub(SignedDuration::from_hours(7 * 24)), Ok)?;
    let period =
        Interval::new(from, to).with_context(|| format!("the period must end after it starts: {from} .. {to}"))?;
    let rows = ledger.access_in(period).await?;
    let snapshots = ledger.load_snapshots().await?.newest(&policy.schedules());
    let request = report::Request {
        period,
        now,
        group_by: args.by,
        format: args.format,
    };
    let baseline = report::Baseline {
        policy: &policy,
        snapshots: &snapshots,
        identities: &config.identities,
    };
    let mut out = Vec::new();
    report::report(&rows, Some(baseline), &request, &mut out)?;
    print_bytes(&out)
}

async fn show_forecast(path: &Path, args: &cli::Forecast) -> anyhow::Result<u8> {
    let clock = system_clock();
    let now = clock.now();
    let config = load_config(path, Secrets::Read)?;
    let policy = load_policy(&config, now)?;
    let calls = ApiCalls::new()?;
    let sources = build_sources(&config, &calls, &clock)?;
    let reader = Client::connect(&config.identity_center, calls, Arc::clone(&clock))
        .await
        .reader();
    let stored = match open_if_there(&config).await? {
        Some(ledger) => ledger.load_snapshots().await?,
        None => StoredSnapshots::default(),
    };
    let period = days_from(now, args.days).context("the period ends beyond all time")?;
    let (mut forecast, notes) = forecast::look(&config, &policy, &sources, &reader, stored, period).await;
    if let Some(about) = &args.about {
        forecast = forecast::only(forecast, about, &policy)?;
    }
    match args.format {
        ForecastFormat::Text => print(forecast::text(&forecast, &notes))?,
        ForecastFormat::Json => print_json(&serde_json::json!({ "forecast": forecast, "notes": notes }))?,
        ForecastFormat::Html => print(page::page(&forecast, &notes)?)?,
    };
    Ok(if forecast.gaps.is_empty() {
        exit::OK
    } else {
        exit::CHANGES
    })
}

async fn daemon(path: &Path) -> anyhow::Result<u8> {
    let clock = system_clock();
    let config = load_config(path, Secrets::Read)?;
    let (in_force, warnings) = match InForce::load(config.policy_dir.clone(), context(&config, clock.now())) {
        Ok(loaded) => loaded,
        Err(report) => {
            show_report_of_mistakes(&report);
            bail!("the policy in {} cannot be used", config.policy_dir.display())
        }
    };
    log_warnings(&warnings);
    let calls = ApiCalls::new()?;
    let metrics = Arc::new(Metrics::new(&calls, env!("CARGO_PKG_VERSION"), config.mode)?);
    metrics.policy_loaded(true, &in_force.policy().revision, clock.now());
    let sources = build_sources(&config, &calls, &clock)?;
    let ledger = Ledger::open(&config.ledger, &config.owner_id, clock.now()).await?;
    let mut reconciler = reconciler(&config, calls, &clock, ledger).await?;
    reconciler.live = LiveCache::going_on_after(SILENCE);
    let (policy_shown, policy_seen) = watch::channel(Arc::clone(in_force.policy()));
    let health = Arc::new(Health::new(
        sources.keys().cloned(),
        config.timing.poll,
        config.identity_center.operation_timeout,
        clock.now(),
    ));
    if let Some(address) = config.http {
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; change `listen` under [http], or stop what uses the port")
        })?;
        tracing::info!(address = %listener.local_addr()?, "serving /metrics, /healthz and /readyz");
        let site = Site {
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            ledger: Ledger::open_read_only(&config.ledger, &config.owner_id).await?,
            policy: policy_seen,
            clock: Arc::clone(&clock),
        };
        tokio::spawn(http::serve(listener, site, std::future::pending()));
    }
    let policy = Arc::clone(in_force.policy());
    let pause_file = config.pause_file.clone();
    let paused = pause_file.try_exists().unwrap_or(true);
    let files = Files::watch(in_force, path.to_owned(), pause_file, reader_of(path.to_owned()))
        .context("cannot start the thread that watches the files")?;
    let daemon = Daemon {
        clock,
        config,
        policy,
        files,
        reconciler,
        sources,
        metrics,
        health,
        paused,
        policy_shown,
    };
    daemon.run().await?;
    Ok(exit::OK)
}

fn reader_of(path: std::path::PathBuf) -> ReadConfig {
    Box::new(move || match config::load(&path, &ProcessEnv, Secrets::Read) {
        Ok((config, warnings)) => {
            log_warnings(&warnings);
            Some(config)
        }
        Err(report) => {
            for mistake in report.diagnostics() {
                tracing::error!(place = mistake.place(), detail = %clean(&mistake.message), "configuration refused; the one in force stays");
            }
            None
        }
    })
}

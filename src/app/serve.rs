//! `run`: the daemon with its listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::sync::watch;

use super::{build_sources, context, load_config, log_warnings, reconciler, show_report_of_mistakes, system_clock};
use crate::cli::exit;
use crate::config::{self, Http};
use crate::daemon::files::{Files, ReadConfig};
use crate::daemon::{Daemon, in_force::InForce, refusal, systemd};
use crate::http::{self, Health, InUse, Site};
use crate::ledger::Ledger;
use crate::live::{LiveCache, SILENCE};
use crate::metrics::Metrics;
use crate::notify::{Beat, Notifier, route::Routes, tally::Tally};
use crate::secret::{ProcessEnv, Secrets};
use crate::stream::{Figures, FiguresCollector, Streams};
use crate::telemetry::ApiCalls;
use crate::text::clean;

pub(super) async fn daemon(path: &Path) -> anyhow::Result<u8> {
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
    metrics.config_loaded(true);
    metrics.policy_loaded(true, &in_force.policy().revision, clock.now());
    let sources = build_sources(&config, &calls, &clock)?;
    let opening = Ledger::open(&config.ledger, &config.owner_id, clock.now());
    let ledger = systemd::patiently(opening).await?;
    let past = Ledger::open_read_only(&config.ledger, &config.owner_id).await?;
    let streams = if config.sinks.is_empty() {
        None
    } else {
        let figures = Arc::new(Figures::new(Arc::clone(&clock))?);
        metrics.add([Box::new(FiguresCollector(Arc::clone(&figures))) as Box<dyn prometheus::core::Collector>])?;
        let every = config.audit.heads_every;
        Some(Streams::start(&config.sinks, &config.ledger, &config.owner_id, every, &figures, &clock).await?)
    };
    let mut reconciler = reconciler(&config, calls, &clock, ledger).await?;
    reconciler.live = LiveCache::going_on_after(SILENCE);
    let (shown, seen) = watch::channel(Arc::new(InUse::new(in_force.policy(), &config, false)));
    let health = Arc::new(Health::new(
        sources.keys().cloned(),
        config.timing.poll,
        config.identity_center.operation_timeout,
        clock.now(),
    ));
    if let Some(Http { address, token }) = config.http.clone() {
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
            format!("cannot listen on {address}; change `listen` under [http], or stop what uses the port")
        })?;
        tracing::info!(address = %listener.local_addr()?, "serving the status page, /metrics, /healthz and /readyz");
        let site = Site {
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            ledger: Ledger::open_read_only(&config.ledger, &config.owner_id).await?,
            ledger_path: config.ledger.clone(),
            snapshots: Arc::clone(&reconciler.snapshots),
            in_use: seen,
            clock: Arc::clone(&clock),
            token,
        };
        tokio::spawn(http::serve(listener, site, std::future::pending()));
    }
    let (beat, beats) = watch::channel(Beat::default());
    if !config.notify.is_idle() {
        let tally = Tally::new(config.notify.destinations.keys())?;
        metrics.add(tally.collectors())?;
        let notifier = Notifier {
            clock: Arc::clone(&clock),
            config: config.clone(),
            ledger: Ledger::open_read_only(&config.ledger, &config.owner_id).await?,
            in_use: shown.subscribe(),
            beat: beats,
            sources: sources.clone(),
            snapshots: Arc::clone(&reconciler.snapshots),
            reader: Arc::clone(&reconciler.reader),
            started: clock.now(),
            routes: Routes::new(config.notify.destinations.clone()),
            tally,
        };
        // Apart from what the daemon watches: should it break off, access goes on.
        tokio::spawn(async move {
            if let Err(error) = tokio::spawn(notifier.run()).await {
                tracing::error!(%error, "people are told nothing any more; restart the daemon");
            }
        });
    }
    let policy = Arc::clone(in_force.policy());
    let ledger_path = config.ledger.clone();
    let pause_file = config.pause_file.clone();
    let paused = pause_file.try_exists().unwrap_or(true);
    let files = Files::watch(
        in_force,
        path.to_owned(),
        pause_file,
        reader_of(path.to_owned(), Arc::clone(&metrics), beat.clone()),
    )
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
        beat,
        shown,
    };
    let damage = async move {
        let found = past.look_through_the_past(&ledger_path).await;
        past.close().await;
        match found {
            Ok(()) => std::future::pending().await,
            Err(error) => Err(error),
        }
    };
    // Found in a past of which nothing is decided any more, it is no less a record that cannot be trusted.
    let ended = tokio::select! {
        ended = daemon.run() => ended.map_err(anyhow::Error::from),
        damaged = damage => damaged.map_err(anyhow::Error::from),
    };
    if let Some(streams) = streams {
        streams.stop().await;
    }
    ended?;
    Ok(exit::OK)
}

fn reader_of(path: PathBuf, metrics: Arc<Metrics>, beat: watch::Sender<Beat>) -> ReadConfig {
    Box::new(move || match config::load(&path, &ProcessEnv, Secrets::Read) {
        Ok((config, warnings)) => {
            metrics.config_loaded(true);
            log_warnings(&warnings);
            beat.send_modify(|beat| beat.config_refused = None);
            Some(config)
        }
        Err(report) => {
            metrics.config_loaded(false);
            for mistake in report.diagnostics() {
                tracing::error!(place = mistake.place(), detail = %clean(&mistake.message), "configuration refused; the one in force stays");
            }
            beat.send_modify(|beat| beat.config_refused = refusal("configuration", &report));
            None
        }
    })
}

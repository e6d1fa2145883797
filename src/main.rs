//! Parses the command line, sets up logging, calls one function, maps the result to an exit code.

use std::io::{IsTerminal, Write};
use std::num::NonZero;
use std::process::ExitCode;

use clap::Parser;
use dutybound::app::width;
use dutybound::cli::{Cli, Command, exit};
use dutybound::layout::wrap;
use mimalloc::MiMalloc;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::EnvFilter;

/// A pass over a large organisation allocates millions of small things in several threads. glibc keeps an arena for each
/// thread and gives little of it back.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; everything else is a usage error. Nobody is left to tell if printing fails.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::OK });
        }
    };
    forbid_core_dumps();
    log_to_stderr(matches!(cli.command, Command::Run));
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    match runtime.block_on(dutybound::app::run(cli)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error),
    }
}

/// On a machine of many cores, a thread for each and hundreds more for what blocks would be more than the unit file allows,
/// and the daemon would not start there. Two cores are enough for the largest organisation.
fn runtime() -> std::io::Result<Runtime> {
    const WORKERS: usize = 8;
    const BLOCKING: usize = 64;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Builder::new_multi_thread()
        .worker_threads(cores.min(WORKERS))
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
}

/// A core dump would carry the providers' keys to disk. Where the limit cannot be lowered, the unit file does it.
fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let nothing = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, nothing) {
        tracing::debug!(%error, "core dumps could not be turned off");
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let text = format!("error: {}", dutybound::text::clean(&format!("{error:#}")));
    // Nobody is left to tell if stderr is gone.
    drop(writeln!(anstream::stderr(), "{}", wrap(&text, width())));
    ExitCode::from(exit::ERROR)
}

/// Text for a person, in which values from outside are escaped; JSON for what collects a daemon's log.
fn log_to_stderr(daemon: bool) {
    // What sqlx warns of, a statement that took a second, is the disk's business and nobody's task.
    let filter =
        EnvFilter::try_from_env("DUTYBOUND_LOG").unwrap_or_else(|_| EnvFilter::new("warn,sqlx=error,dutybound=info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() || !daemon {
        builder
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .init();
    } else {
        builder.json().flatten_event(true).init();
    }
}

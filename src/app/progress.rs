//! Tells whoever waits at a terminal what for. Nothing in logs, and nothing where it takes less than a second.

use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::{Instant, interval_at};

const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for `work`; from the second second on, a line on stderr says `what` it is and for how long already.
pub(super) async fn telling<T>(what: &str, work: impl Future<Output = T>) -> T {
    if !io::stderr().is_terminal() {
        return work.await;
    }
    let mut work = std::pin::pin!(work);
    let began = Instant::now();
    let mut ticks = interval_at(began + PATIENCE, PATIENCE);
    let mut told = false;
    loop {
        tokio::select! {
            done = &mut work => {
                if told {
                    put("\r\u{1b}[K");
                }
                return done;
            }
            _ = ticks.tick() => {
                told = true;
                // The cursor goes back to the line's beginning, so that a warning takes its place.
                put(&format!("{what}: {} s\u{1b}[K\r", began.elapsed().as_secs()));
            }
        }
    }
}

/// Nobody is left to tell when stderr is gone.
fn put(text: &str) {
    let mut out = io::stderr().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

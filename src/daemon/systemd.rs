//! What systemd is told. Not running under it is no error.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use sd_notify::NotifyState;

/// Time between signs of life of a start that takes long.
const SIGN: Duration = Duration::from_secs(30);
/// For so long each of them lets systemd wait.
const MORE: Duration = Duration::from_secs(120);

pub(super) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// Opens the ledger, however long that takes: a start that systemd breaks off begins from nothing the next time, and would
/// never come to an end.
pub async fn patiently<T>(opening: impl Future<Output = T>) -> T {
    let mut opening = pin!(opening);
    loop {
        match tokio::time::timeout(SIGN, &mut opening).await {
            Ok(opened) => return opened,
            Err(_) => {
                tracing::info!("still opening the ledger: a large one takes its time, most of all after an upgrade");
                let more = u32::try_from(MORE.as_micros()).unwrap_or(u32::MAX);
                notify(&[NotifyState::ExtendTimeoutUsec(more)]);
            }
        }
    }
}

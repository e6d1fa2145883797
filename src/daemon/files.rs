//! Looks at the policy directory and the configuration beside the loop: a file system that hangs stops no hand-off.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc as channel;

use super::in_force::{InForce, Reload};
use super::watch::Watched;
use crate::config::Config;
use crate::policy::Policy;

/// Reads the configuration anew; `None` keeps the one in force. It says itself what was wrong.
pub type ReadConfig = Box<dyn Fn() -> Option<Config> + Send>;

/// A look that takes longer is worth a warning: the files are not being watched meanwhile.
const HANGS: SignedDuration = SignedDuration::from_secs(30);

/// What a look at the files brought.
pub(super) struct Seen {
    /// The policy in force after the look.
    pub(super) policy: Arc<Policy>,
    /// What became of the policy directory.
    pub(super) reload: Reload,
    /// Whether the directory holds an edit that was refused.
    pub(super) refusing: bool,
    /// The configuration, if it was read anew and is sound.
    pub(super) config: Option<Config>,
    /// Whether the pause file exists, or cannot be looked for.
    pub(super) paused: bool,
    /// Whether a signal asked for this look.
    pub(super) ordered: bool,
}

struct Ask {
    now: Timestamp,
    at_once: bool,
}

/// The daemon's end of the thread that looks. A thread, because a read that hangs cannot be called back, and one that is
/// not the runtime's, because the runtime would wait for it when the daemon is stopped.
pub struct Files {
    ask: mpsc::Sender<Ask>,
    seen: channel::UnboundedReceiver<Seen>,
    waiting: Option<Waiting>,
    ordered: bool,
}

struct Waiting {
    since: Timestamp,
    warned: bool,
}

impl Files {
    /// Starts to watch.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub fn watch(
        mut in_force: InForce,
        config_path: PathBuf,
        pause_file: PathBuf,
        read_config: ReadConfig,
    ) -> io::Result<Self> {
        let (ask, asked) = mpsc::channel::<Ask>();
        let (tell, seen) = channel::unbounded_channel();
        let mut config_file = Watched::new(&config_path);
        thread::Builder::new().name("files".to_owned()).spawn(move || {
            while let Ok(Ask { now, at_once }) = asked.recv() {
                let edited = config_file.look(&config_path);
                let config = if edited || at_once { read_config() } else { None };
                if let Some(config) = &config {
                    in_force.state(&config.invariants);
                }
                let reload = in_force.look(now, at_once);
                let look = Seen {
                    policy: Arc::clone(in_force.policy()),
                    reload,
                    refusing: in_force.is_refusing(),
                    config,
                    paused: pause_file.try_exists().unwrap_or(true),
                    ordered: at_once,
                };
                if tell.send(look).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            ask,
            seen,
            waiting: None,
            ordered: false,
        })
    }

    /// Asks for a look, unless one is under way.
    pub(super) fn look(&mut self, now: Timestamp) {
        if self.waiting.is_none() {
            let at_once = std::mem::take(&mut self.ordered);
            self.waiting = Some(Waiting {
                since: now,
                warned: false,
            });
            // Without a thread to receive it, `seen` says so.
            drop(self.ask.send(Ask { now, at_once }));
        }
    }

    /// Asks for a look that takes files as they stand and reads the configuration whether edited or not: now, or as soon
    /// as the one under way has ended.
    pub(super) fn look_at_once(&mut self, now: Timestamp) {
        self.ordered = true;
        self.look(now);
    }

    /// Since when a look has been hanging; once for each. What has ended during a long pass does not hang, though it was
    /// not taken up yet.
    pub(super) fn hangs(&mut self, now: Timestamp) -> Option<Timestamp> {
        if !self.seen.is_empty() {
            return None;
        }
        let waiting = self.waiting.as_mut().filter(|w| !w.warned)?;
        (HANGS < waiting.since.duration_until(now)).then(|| {
            waiting.warned = true;
            waiting.since
        })
    }

    /// The end of the look under way, and whether it had been hanging; waits for ever while there is none. `None` when
    /// the thread has broken off.
    pub(super) async fn seen(&mut self) -> Option<(Seen, bool)> {
        let seen = self.seen.recv().await?;
        let hung = self.waiting.take().is_some_and(|w| w.warned);
        Some((seen, hung))
    }

    /// Whether an order waits for the look under way to end.
    pub(super) fn is_ordered(&self) -> bool {
        self.ordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyContext;

    fn seconds(after: i64) -> Timestamp {
        Timestamp::from_second(after).unwrap()
    }

    #[tokio::test]
    async fn a_look_that_hangs_is_told_once_and_an_order_meanwhile_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let policy_dir = dir.path().join("access.d");
        std::fs::create_dir(&policy_dir).unwrap();
        let project = "[project]\nname = \"p\"\nowners = [\"o@example.com\"]\n";
        std::fs::write(policy_dir.join("p.toml"), project).unwrap();
        let config = dir.path().join("config.toml");
        std::fs::write(&config, "").unwrap();
        let (in_force, _) = InForce::load(policy_dir, PolicyContext::default()).unwrap();
        let (entered, hanging) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let read_config: ReadConfig = Box::new(move || {
            entered.send(()).unwrap();
            released.recv().unwrap();
            None
        });
        let mut files = Files::watch(in_force, config, dir.path().join("pause"), read_config).unwrap();
        files.look_at_once(seconds(0));
        hanging.recv().unwrap();
        files.look(seconds(2));
        files.look_at_once(seconds(4));
        assert_eq!(files.hangs(seconds(30)), None);
        assert_eq!(files.hangs(seconds(31)), Some(seconds(0)));
        assert_eq!(files.hangs(seconds(60)), None, "once");
        release.send(()).unwrap();
        let (seen, hung) = files.seen().await.unwrap();
        assert!(hung && seen.ordered && !seen.refusing && files.is_ordered());
        files.look(seconds(61));
        hanging.recv().unwrap();
        release.send(()).unwrap();
        let (seen, hung) = files.seen().await.unwrap();
        assert!(!hung && seen.ordered && !files.is_ordered());
    }
}

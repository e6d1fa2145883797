//! Notices what nobody announces: a clock that was set, a file that was edited.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;

/// Notices that the wall clock was set, or the host was asleep, by a clock that nobody sets.
pub(super) struct StepWatch {
    wall: Timestamp,
    monotonic: Duration,
}

impl StepWatch {
    pub(super) fn new(clock: &dyn Clock) -> Self {
        Self {
            wall: clock.now(),
            monotonic: clock.monotonic(),
        }
    }

    /// By how much the wall clock went its own way since the last look, if by more than a moment.
    pub(super) fn look(&mut self, clock: &dyn Clock) -> Option<SignedDuration> {
        let now = Self::new(clock);
        let passed = SignedDuration::try_from(now.monotonic.saturating_sub(self.monotonic)).unwrap_or_default();
        let step = self.wall.duration_until(now.wall).saturating_sub(passed);
        *self = now;
        (SignedDuration::from_secs(2) < step.abs()).then_some(step)
    }
}

/// Notices edits of one file by its content, once it has held still for two looks.
pub(super) struct Watched {
    loaded: Option<Vec<u8>>,
    seen: Option<Vec<u8>>,
}

impl Watched {
    pub(super) fn new(path: &Path) -> Self {
        let content = std::fs::read(path).ok();
        Self {
            loaded: content.clone(),
            seen: content,
        }
    }

    pub(super) fn look(&mut self, path: &Path) -> bool {
        let found = std::fs::read(path).ok();
        let still = found == self.seen;
        self.seen = found;
        let edited = still && self.seen.is_some() && self.seen != self.loaded;
        if edited {
            self.loaded.clone_from(&self.seen);
        }
        edited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A wall clock and a monotonic one that go their own ways.
    struct Clocks(Mutex<(Timestamp, Duration)>);

    #[async_trait::async_trait]
    impl Clock for Clocks {
        fn now(&self) -> Timestamp {
            self.0.lock().unwrap().0
        }
        fn monotonic(&self) -> Duration {
            self.0.lock().unwrap().1
        }
        async fn sleep(&self, _: Duration) {}
    }

    #[test]
    fn a_step_of_the_wall_clock_is_told_from_time_passing() {
        let clocks = Clocks(Mutex::new((Timestamp::UNIX_EPOCH, Duration::ZERO)));
        let mut watch = StepWatch::new(&clocks);
        for (wall, monotonic, step) in [
            (10, 10, None),
            (3610, 12, Some(3598)),
            (3611, 13, None),
            (11, 14, Some(-3601)),
        ] {
            *clocks.0.lock().unwrap() = (Timestamp::from_second(wall).unwrap(), Duration::from_secs(monotonic));
            assert_eq!(watch.look(&clocks), step.map(SignedDuration::from_secs));
        }
    }

    #[test]
    fn an_edit_counts_once_it_has_held_still() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "a").unwrap();
        let mut file = Watched::new(&path);
        assert!(!file.look(&path));
        std::fs::write(&path, "b").unwrap();
        assert_eq!(
            [file.look(&path), file.look(&path), file.look(&path)],
            [false, true, false]
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!([file.look(&path), file.look(&path)], [false, false]);
        std::fs::write(&path, "b").unwrap();
        assert_eq!([file.look(&path), file.look(&path)], [false, false]);
    }
}

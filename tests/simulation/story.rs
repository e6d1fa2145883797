//! What happens in the world: edits, people, outages, AWS's moods, strangers, crashes, clocks.

use jiff::{SignedDuration, Timestamp};

use crate::daemon::Run;
use crate::org::{hours, minutes};
use crate::rng::Rng;

/// The coming events.
pub(crate) struct Story {
    pub(crate) rng: Rng,
    pub(crate) next: Timestamp,
    pub(crate) events: u64,
}

impl Story {
    pub(crate) fn new(mut rng: Rng, start: Timestamp) -> Self {
        let next = start + hours(3) + minutes(rng.range(0, 600));
        Self { rng, next, events: 0 }
    }
}

impl Run {
    /// The next event. Returns whether it kills the process.
    pub(crate) fn tell(&mut self) -> bool {
        self.story.events += 1;
        let world = self.world.clone();
        let mut state = world.state();
        self.promises.look(&mut state);
        self.promises.soil();
        let rng = &mut self.story.rng;
        self.story.next = state.now + minutes(rng.range(1, 900)) + SignedDuration::from_secs(rng.range(0, 59));
        let schedule = rng.index(state.org.schedules.len());
        let people = state.org.people;
        let now = state.now;
        let level = if 0 < state.org.schedules[schedule].levels { u32::try_from(rng.range(1, 2)).unwrap() } else { 0 };
        match rng.range(0, 99) {
            // Overrides, some a minute before they begin and some of seconds.
            0..40 => {
                let start = now + SignedDuration::from_secs(*rng.pick(&[0, 30, 60, 600, 7200, 86_400]));
                let end = start + SignedDuration::from_secs(*rng.pick(&[5, 300, 3600, 14_400, 43_200]));
                let person = rng.index(people);
                let id = format!("OV{}", self.story.events);
                state.say(&format!("override {id} on schedule {schedule} level {level}: p{person} from {start} to {end}"));
                state.org.schedules[schedule].replace(level, start, end, Some(person), Some(id));
                self.promises.edited(schedule, now);
            }
            40..60 => {
                let coming = state.org.schedules[schedule].coming(now, hours(72));
                if let [.., a, b] = &coming[..] {
                    let (a, b) = (a.clone(), b.clone());
                    state.say(&format!("swap on schedule {schedule}: p{} and p{}", a.person, b.person));
                    state.org.schedules[schedule].replace(a.level, a.start, a.end, Some(b.person), None);
                    state.org.schedules[schedule].replace(b.level, b.start, b.end, Some(a.person), None);
                    self.promises.edited(schedule, now);
                }
            }
            60..75 => {
                let start = now + hours(rng.range(0, 48));
                state.say(&format!("gap on schedule {schedule} level {level} from {start}"));
                let end = start + hours(rng.range(1, 12));
                state.org.schedules[schedule].replace(level, start, end, None, None);
                self.promises.edited(schedule, now);
            }
            _ => {}
        }
        false
    }
}

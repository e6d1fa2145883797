//! What happens in the world: edits, people, outages, AWS's moods, strangers, crashes, clocks.

use dutybound::identity_center::ChangeKind;
use jiff::{SignedDuration, Timestamp};

use crate::daemon::{Run, parse};
use crate::org::{email, hours, minutes};
use crate::promises::Promises;
use crate::rng::Rng;
use crate::world::{By, CrashAt, Outage, State, Trouble};

/// The coming events.
pub(crate) struct Story {
    pub(crate) rng: Rng,
    pub(crate) next: Timestamp,
    pub(crate) events: u64,
    /// When the next thing begins, and when those that have begun end.
    begins: Timestamp,
    ends: Vec<(Timestamp, End)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Outage(usize),
    Trouble,
    Clock,
    Disabled(usize),
}

impl Story {
    pub(crate) fn new(mut rng: Rng, start: Timestamp) -> Self {
        let next = start + hours(3) + minutes(rng.range(0, 600));
        Self {
            rng,
            next,
            events: 0,
            begins: next,
            ends: Vec::new(),
        }
    }

    fn until(&mut self, now: Timestamp, spans: &[i64], end: End) -> Timestamp {
        let at = now + minutes(*self.rng.pick(spans)) + SignedDuration::from_secs(self.rng.range(0, 59));
        self.ends.push((at, end));
        at
    }
}

impl Run {
    /// The next event. Returns whether it kills the process.
    pub(crate) fn tell(&mut self) -> bool {
        let world = self.world.clone();
        let mut state = world.state();
        let now = state.now;
        let Self {
            story,
            promises,
            policy,
            ..
        } = self;
        promises.look(&mut state);
        promises.soil();
        let mut dies = false;
        if story.begins <= now {
            story.events += 1;
            story.begins = now + minutes(story.rng.range(1, 900)) + SignedDuration::from_secs(story.rng.range(0, 59));
            match story.rng.range(0, 99) {
                0..55 => edit(story, &mut state, promises),
                55..60 => {
                    edit_policy(story, &mut state);
                    *policy = parse(&state.org);
                    promises.disturb_with_edit(now);
                }
                60..63 => {
                    let person = story.rng.index(state.org.people);
                    if state.disabled.insert(person) {
                        let until = story.until(now, &[60, 1000, 4000], End::Disabled(person));
                        state.say(&format!("{} is disabled until {until}", email(person)));
                    }
                }
                63..75 => outage(story, &mut state),
                75..83 => trouble(story, &mut state),
                83..92 => stranger(story, &mut state, promises),
                92..95 if state.offset.is_zero() => {
                    let offset = SignedDuration::from_secs(*story.rng.pick(&[-45, -20, -3, 2, 15, 45, -600, 600]));
                    let until = story.until(now, &[5, 120, 600], End::Clock);
                    state.say(&format!("the clock is off by {offset:#} until {until}"));
                    state.offset = offset;
                    state.largest_offset = state.largest_offset.max(offset.abs());
                    if minutes(1) < offset.abs() {
                        promises.disturb_with_edit(until);
                    }
                }
                95..98 => {
                    let at = CrashAt {
                        calls: u32::try_from(story.rng.range(0, 6)).unwrap(),
                        after: story.rng.percent(50),
                    };
                    state.say(&format!("a crash is coming: {at:?}"));
                    state.crash_at = Some(at);
                }
                98.. => dies = true,
                _ => {}
            }
        }
        for (_, end) in story.ends.extract_if(.., |(at, _)| *at <= now) {
            state.say(&format!("over: {end:?}"));
            match end {
                End::Outage(source) => {
                    state.outages.remove(&source);
                }
                End::Trouble => {
                    state.trouble = Trouble::default();
                    state.aws_unwell = state.aws_unwell.max(now);
                }
                End::Clock => state.offset = SignedDuration::ZERO,
                End::Disabled(person) => {
                    state.disabled.remove(&person);
                    promises.disturb_with_edit(now);
                }
            }
        }
        story.next = story
            .ends
            .iter()
            .map(|(at, _)| *at)
            .chain([story.begins])
            .min()
            .unwrap_or(now);
        dies
    }
}

fn edit(story: &mut Story, state: &mut State, promises: &mut Promises) {
    let (rng, now, people) = (&mut story.rng, state.now, state.org.people);
    let schedule = rng.index(state.org.schedules.len());
    let level = if 0 < state.org.schedules[schedule].levels {
        u32::try_from(rng.range(1, 2)).unwrap()
    } else {
        0
    };
    let name = format!("schedule {schedule} level {level}");
    match rng.range(0, 99) {
        // Overrides, some a minute before they begin and some of seconds.
        0..60 => {
            let start = now + SignedDuration::from_secs(*rng.pick(&[0, 30, 60, 600, 7200, 86_400]));
            let end = start + SignedDuration::from_secs(*rng.pick(&[5, 300, 3600, 14_400, 43_200]));
            let (person, id) = (rng.index(people), format!("OV{}", story.events));
            state.say(&format!("override {id} on {name}: p{person} from {start} to {end}"));
            state.org.schedules[schedule].replace(level, start, end, Some(person), Some(id));
        }
        60..78 => {
            let coming = state.org.schedules[schedule].coming(now, hours(72));
            if let [.., a, b] = &coming[..] {
                state.say(&format!("swap on schedule {schedule}: p{} and p{}", a.person, b.person));
                state.org.schedules[schedule].replace(a.level, a.start, a.end, Some(b.person), None);
                state.org.schedules[schedule].replace(b.level, b.start, b.end, Some(a.person), None);
            }
        }
        78..92 => {
            let start = now + hours(rng.range(0, 48));
            let end = start + hours(rng.range(1, 12));
            state.say(&format!("gap on {name} from {start} to {end}"));
            state.org.schedules[schedule].replace(level, start, end, None, None);
        }
        _ => {
            let shift = rng.index(people);
            state.say(&format!("everybody on schedule {schedule} is replaced"));
            for turn in state.org.schedules[schedule].coming(now, hours(40 * 24)) {
                let person = (turn.person + shift) % people;
                state.org.schedules[schedule].replace(turn.level, turn.start, turn.end, Some(person), None);
            }
        }
    }
    promises.edited(schedule, now);
}

fn edit_policy(story: &mut Story, state: &mut State) {
    let rng = &mut story.rng;
    let project = rng.index(state.org.policy.projects);
    let person = rng.index(state.org.people);
    if rng.percent(70) {
        let members = &mut state.org.policy.members[project];
        if !members.remove(&person) {
            members.insert(person);
        }
        state.say(&format!("{} joins or leaves project{project}", email(person)));
    } else {
        let rule = rng.index(state.org.policy.rules.len());
        state.org.policy.rules[rule].linger = minutes(rng.range(0, 60));
        state.say(&format!("rule {rule} gets another linger"));
    }
}

fn outage(story: &mut Story, state: &mut State) {
    let source = story.rng.index(2);
    if state.outages.contains_key(&source) {
        return;
    }
    let kind = *story.rng.pick(&[
        Outage::Down,
        Outage::Slow,
        Outage::Unauthorized,
        Outage::Malformed,
        Outage::Empty,
    ]);
    let until = story.until(state.now, &[1, 10, 60, 300, 1800], End::Outage(source));
    state.outages.insert(source, kind);
    state.say(&format!("source {source} is {kind:?} until {until}"));
}

fn trouble(story: &mut Story, state: &mut State) {
    let until = story.until(state.now, &[5, 60, 400], End::Trouble);
    let rng = &mut story.rng;
    let mut some = |percent| if rng.percent(50) { percent } else { 0 };
    state.trouble = Trouble {
        throttled: some(30),
        failed: some(20),
        lost: some(20),
        slow: some(20),
        reads_fail: some(10),
        lag: 0,
    };
    state.trouble.lag = if rng.percent(50) { 20 } else { 0 };
    let line = format!("AWS until {until}: {:?}", state.trouble);
    state.aws_unwell = until;
    state.say(&line);
}

/// Somebody grants or takes away by hand, never where we have just been at work: who was first could not be told.
fn stranger(story: &mut Story, state: &mut State, promises: &mut Promises) {
    let rng = &mut story.rng;
    let entitlement = rng.index(state.org.policy.entitlements.len());
    let person = rng.index(state.org.people);
    let key = state.key(entitlement, person);
    let now = state.now;
    let busy = state
        .history
        .get(&key)
        .into_iter()
        .flatten()
        .any(|a| a.unheard || now < a.since + hours(1) || a.until.is_some_and(|end| now < end + hours(1)));
    let recently = promises.touched.get(&key).is_some_and(|t| now < *t + hours(24));
    if busy || recently || now < state.aws_unwell + hours(1) {
        return;
    }
    let kind = if state.holds(&key).is_some() {
        ChangeKind::Revoke
    } else {
        ChangeKind::Grant
    };
    state.carry_out(kind, &key, By::Stranger, false);
    promises.touched.insert(key, now);
}

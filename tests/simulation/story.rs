//! What happens in the world: edits, people, outages, AWS's moods, strangers, orders, crashes, clocks.

use std::collections::BTreeSet;

use dutybound::identity_center::ChangeKind;
use jiff::{SignedDuration, Timestamp};

use crate::org::{Mistake, Trigger, email, hours, minutes};
use crate::promises::Promises;
use crate::rng::Rng;
use crate::run::Run;
use crate::world::aws::Trouble;
use crate::world::provider::{Outage, Scope};
use crate::world::{By, CrashAt, State};

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
    Outage(Scope),
    Trouble,
    Clock,
    Disabled(usize),
    Pause,
    Bar(usize),
    Mistake,
}

/// What an event asks of the run, which has the process in its hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Nothing,
    Kill,
    Bar(usize),
    Lift(usize),
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
    /// The next event: one that begins or one that ends.
    pub(crate) fn tell(&mut self) -> Asked {
        let world = self.world.clone();
        let mut state = world.state();
        let now = state.now;
        self.promises.look(&mut state);
        self.promises.soil();
        let due = self.story.ends.iter().position(|(at, _)| *at <= now);
        let asked = if let Some(index) = due {
            let (_, end) = self.story.ends.swap_remove(index);
            state.say(&format!("over: {end:?}"));
            self.end(end, &mut state)
        } else {
            let (story, wait) = (&mut self.story, 900);
            story.events += 1;
            story.begins = now + minutes(story.rng.range(1, wait)) + SignedDuration::from_secs(story.rng.range(0, 59));
            self.begin(&mut state)
        };
        let ends = self.story.ends.iter().map(|(at, _)| *at);
        self.story.next = ends.chain([self.story.begins]).min().unwrap_or(now);
        asked
    }

    fn begin(&mut self, state: &mut State) -> Asked {
        let Self { story, promises, .. } = self;
        match story.rng.range(0, 99) {
            0..50 => edit(story, state),
            50..57 => {
                edit_policy(story, state, promises);
                self.write_policy(state);
            }
            57..61 => self.mistake(state),
            61..64 => disable(story, state),
            64..73 => outage(story, state),
            73..80 => trouble(story, state),
            80..87 => stranger(story, state, promises),
            87..90 if state.offset.is_zero() => self.wrong_clock(state),
            90..92 if state.paused.is_none() => {
                let until = self.story.until(state.now, &[30, 300], End::Pause);
                state.say(&format!("a pause until {until}"));
                std::fs::write(&self.config.pause_file, "").unwrap();
                state.paused = Some(state.now);
            }
            92..95 => {
                let person = story.rng.index(state.org.people);
                if let std::collections::btree_map::Entry::Vacant(barred) = state.barred.entry(person) {
                    barred.insert(state.now);
                    let until = story.until(state.now, &[60, 1000, 4000], End::Bar(person));
                    state.say(&format!("{} is barred until {until}", email(person)));
                    decide_all(promises, state, person, state.now + minutes(1));
                    return Asked::Bar(person);
                }
            }
            95..98 => {
                let left = u32::try_from(story.rng.range(0, 6)).unwrap();
                let at = match story.rng.range(0, 3) {
                    0 => CrashAt::Call { left, after: false },
                    1 => CrashAt::Call { left, after: true },
                    _ => CrashAt::Clock { left: left * 7 },
                };
                state.say(&format!("a crash is coming: {at:?}"));
                state.crash_at = Some(at);
            }
            98.. => return Asked::Kill,
            _ => {}
        }
        Asked::Nothing
    }

    fn end(&mut self, end: End, state: &mut State) -> Asked {
        let now = state.now;
        let poll = self.config.timing.poll;
        match end {
            End::Outage(scope) => {
                state.providers.outages.remove(&scope);
            }
            End::Trouble => {
                if 0 < state.aws.trouble.lag {
                    state.aws.lagged = state.aws.lagged.max(Some(now));
                }
                state.aws.trouble = Trouble::default();
            }
            End::Clock => {
                if minutes(1) < state.offset.abs() {
                    let excuses = &mut self.promises.excuses;
                    excuses.everybody = excuses.everybody.max(now + poll * 2);
                }
                state.offset = SignedDuration::ZERO;
            }
            End::Disabled(person) => {
                state.disabled.remove(&person);
                decide_all(&mut self.promises, state, person, now + poll + minutes(1));
            }
            End::Pause => {
                std::fs::remove_file(&self.config.pause_file).unwrap();
                state.paused = None;
                let excuses = &mut self.promises.excuses;
                excuses.everybody = excuses.everybody.max(now + poll + minutes(1));
            }
            End::Bar(person) => {
                state.barred.remove(&person);
                decide_all(&mut self.promises, state, person, now + minutes(1));
                return Asked::Lift(person);
            }
            End::Mistake => self.write_policy(state),
        }
        Asked::Nothing
    }

    /// A bad edit, or one that is still being written: the policy in force stays.
    fn mistake(&mut self, state: &mut State) {
        let rng = &mut self.story.rng;
        let project = rng.index(state.org.policy.projects);
        let mistake = *rng.pick(&[
            Mistake::HalfWritten,
            Mistake::UnknownKey,
            Mistake::DanglingName,
            Mistake::NoConsent,
            Mistake::NotText,
            Mistake::Empty,
            Mistake::NoFiles,
        ]);
        let files = state.org.policy.mistaken_files(&state.org.schedules, project, mistake);
        let before = self.in_force.policy().revision.clone();
        self.write_files(&files);
        let host = state.host();
        self.in_force.look(host, false);
        // Half of a file may by chance be a whole policy; it is not there long enough to count.
        if mistake == Mistake::HalfWritten {
            self.write_files(&state.org.policy.files(&state.org.schedules));
        } else {
            let until = self.story.until(state.now, &[1, 100, 1000], End::Mistake);
            state.say(&format!(
                "the files of project{project} are wrong ({mistake:?}) until {until}"
            ));
        }
        for _ in 0..2 {
            self.in_force.look(host, false);
        }
        if self.in_force.policy().revision != before {
            state.fault(format!("a bad edit ({mistake:?}) replaced the policy in force"));
        }
    }

    fn wrong_clock(&mut self, state: &mut State) {
        let seconds = *self.story.rng.pick(&[-45, -20, -3, 2, 15, 45, -600, 600]);
        let offset = SignedDuration::from_secs(seconds);
        let until = self.story.until(state.now, &[5, 120, 600], End::Clock);
        state.say(&format!("the clock is off by {offset:#} until {until}"));
        state.offset = offset;
        state.largest_offset = state.largest_offset.max(offset.abs());
        if minutes(1) < offset.abs() {
            let excuses = &mut self.promises.excuses;
            excuses.everybody = excuses.everybody.max(until);
        }
    }
}

/// Something concerns everything that a person may hold.
fn decide_all(promises: &mut Promises, state: &State, person: usize, until: Timestamp) {
    for entitlement in 0..state.org.policy.entitlements.len() {
        promises.excuses.decide((entitlement, person), until);
    }
}

fn edit(story: &mut Story, state: &mut State) {
    let (rng, now, people) = (&mut story.rng, state.now, state.org.people);
    let schedule = rng.index(state.org.schedules.len());
    let before: BTreeSet<_> = state.org.schedules[schedule].turns.iter().cloned().collect();
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
    let after: BTreeSet<_> = state.org.schedules[schedule].turns.iter().cloned().collect();
    let concerned = before.symmetric_difference(&after).map(|turn| turn.person);
    state.providers.unread.entry(schedule).or_default().extend(concerned);
}

fn edit_policy(story: &mut Story, state: &mut State, promises: &mut Promises) {
    let rng = &mut story.rng;
    let project = rng.index(state.org.policy.projects);
    let person = rng.index(state.org.people);
    // The directory is looked at every other second, and an edit counts at the second look.
    let noticed = state.now + SignedDuration::from_secs(5);
    if rng.percent(70) {
        let members = &mut state.org.policy.members[project];
        if !members.remove(&person) {
            members.insert(person);
        }
        for rule in state
            .org
            .policy
            .rules
            .iter()
            .filter(|r| r.project == project && r.member)
        {
            promises.excuses.decide((rule.entitlement, person), noticed);
        }
        state.say(&format!("{} joins or leaves project{project}", email(person)));
    } else {
        let rule = rng.index(state.org.policy.rules.len());
        // A membership has no end to linger after, and `check` refuses it.
        if matches!(state.org.policy.rules[rule].trigger, Trigger::Members) {
            return;
        }
        state.org.policy.rules[rule].linger = minutes(rng.range(0, 60));
        for person in 0..state.org.people {
            promises
                .excuses
                .decide((state.org.policy.rules[rule].entitlement, person), noticed);
        }
        state.say(&format!("rule {rule} gets another linger"));
    }
}

fn disable(story: &mut Story, state: &mut State) {
    let person = story.rng.index(state.org.people);
    if state.disabled.insert(person) {
        let until = story.until(state.now, &[60, 1000, 4000], End::Disabled(person));
        state.say(&format!("{} is disabled until {until}", email(person)));
    }
}

fn outage(story: &mut Story, state: &mut State) {
    let scope = if story.rng.percent(50) {
        Scope::Source(story.rng.index(2))
    } else {
        Scope::Schedule(story.rng.index(state.org.schedules.len()))
    };
    if state.providers.outages.contains_key(&scope) {
        return;
    }
    let kind = *story.rng.pick(&[
        Outage::Down,
        Outage::Slow,
        Outage::Unauthorized,
        Outage::Malformed,
        Outage::Empty,
    ]);
    let until = story.until(state.now, &[1, 10, 60, 300, 1800], End::Outage(scope));
    state.providers.outages.insert(scope, kind);
    state.say(&format!("{scope:?} is {kind:?} until {until}"));
}

fn trouble(story: &mut Story, state: &mut State) {
    if story.ends.iter().any(|(_, end)| *end == End::Trouble) {
        return;
    }
    let until = story.until(state.now, &[5, 60, 400], End::Trouble);
    let rng = &mut story.rng;
    let mut some = |percent| if rng.percent(50) { percent } else { 0 };
    state.aws.trouble = Trouble {
        throttled: some(30),
        failed: some(20),
        lost: some(20),
        slow: some(20),
        reads_fail: some(10),
        lag: 0,
    };
    if rng.percent(50) {
        state.aws.trouble.lag = 20;
        state.aws.lagged = state.aws.lagged.max(Some(until));
    }
    let line = format!("AWS until {until}: {:?}", state.aws.trouble);
    state.say(&line);
}

/// Somebody grants or takes away by hand, never where we have just been at work: who was first could not be told.
fn stranger(story: &mut Story, state: &mut State, promises: &mut Promises) {
    let rng = &mut story.rng;
    let entitlement = rng.index(state.org.policy.entitlements.len());
    let person = rng.index(state.org.people);
    let key = state.key(entitlement, person);
    let now = state.now;
    let lately = |t: Timestamp, span| now < t + span;
    let mut accesses = state.history.get(&key).into_iter().flatten();
    let busy =
        accesses.any(|a| a.unheard || lately(a.since, hours(1)) || a.until.is_some_and(|end| lately(end, hours(1))));
    let recently = promises.excuses.last_touch(&key).is_some_and(|t| lately(t, hours(24)));
    let unwell = state.aws.unwell(&key.0).is_some_and(|t| lately(t, hours(1)));
    if busy || recently || unwell {
        return;
    }
    let kind = if state.holds(&key).is_some() {
        ChangeKind::Revoke
    } else {
        ChangeKind::Grant
    };
    state.carry_out(kind, &key, By::Stranger, false);
    promises.excuses.touch(key, now);
}

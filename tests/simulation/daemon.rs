//! One life of the process: the daemon's own parts in virtual time, until the end of the run or until it is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dutybound::apply::Applier;
use dutybound::clock::Clock;
use dutybound::config::Config;
use dutybound::daemon::pace::Pace;
use dutybound::http::Health;
use dutybound::identity_center::Read;
use dutybound::identity_center::limiter::Limiter;
use dutybound::ledger::Ledger;
use dutybound::model::{Person, SourceName};
use dutybound::policy::Policy;
use dutybound::poll::{Poller, Sources, Wanted};
use dutybound::reconcile::{Pass, PassError, Reconciler};
use jiff::SignedDuration;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinHandle;

use crate::org::{SOURCES, email};
use crate::run::Run;
use crate::story::Asked;
use crate::world::aws::Connection;
use crate::world::provider::Provider;

/// The last breath between two passes, as in the daemon.
const BREATH: SignedDuration = SignedDuration::from_millis(100);

type Passing = JoinHandle<(Reconciler, Result<Pass, PassError>)>;

impl Run {
    /// Lives until the end of the run or until it is killed.
    pub(crate) async fn life(&mut self) {
        self.lives += 1;
        self.load_policy();
        let world = self.world.clone();
        let clock: Arc<dyn Clock> = Arc::new(world.clone());
        let connection = Arc::new(Connection {
            world: world.clone(),
            limiter: Limiter::new(self.config.identity_center.requests_per_second, Arc::clone(&clock)),
        });
        let reader: Arc<dyn Read> = connection.clone();
        let born = world.state().host();
        let ledger = Ledger::open(&self.config.ledger, "simulation", born).await.unwrap();
        let stored = ledger.load_snapshots().await.unwrap();
        let schedules = self.in_force.policy().schedules();
        let mut starting = schedules.len() > stored.newest(&schedules).len();
        let started = world.state().now;
        let snapshots = Arc::new(Mutex::new(stored));
        let operation_timeout = self.config.identity_center.operation_timeout;
        let applier = Applier::new(
            Arc::clone(&clock),
            Arc::clone(&reader),
            connection,
            ledger.clone(),
            self.config.identity_center.assignments_in_flight,
            operation_timeout,
            self.config.pause_file.clone(),
        );
        let sources: Sources = SOURCES
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let name = SourceName((*name).into());
                let provider = Provider {
                    world: world.clone(),
                    name: name.clone(),
                    index,
                };
                (name, Arc::new(provider) as Arc<dyn dutybound::schedule::Source>)
            })
            .collect();
        let health = Arc::new(Health::new(
            sources.keys().cloned(),
            self.config.timing.poll,
            operation_timeout,
            born,
        ));
        let told = Arc::new(Notify::new());
        let news = Arc::new(AtomicBool::new(false));
        let (wanted, receiver) = watch::channel(self.wanted());
        for source in sources.values() {
            let poller = Poller {
                clock: Arc::clone(&clock),
                ledger: ledger.clone(),
                snapshots: Arc::clone(&snapshots),
                news: Arc::clone(&told),
                wanted: receiver.clone(),
                health: Arc::clone(&health),
            };
            tokio::spawn(poller.run(Arc::clone(source)));
        }
        let (flag, waits) = (Arc::clone(&news), Arc::clone(&told));
        tokio::spawn(async move {
            loop {
                waits.notified().await;
                flag.store(true, Ordering::Relaxed);
            }
        });
        let (flag, waits) = (Arc::clone(&news), Arc::clone(&applier));
        tokio::spawn(async move {
            loop {
                waits.progress().await;
                flag.store(true, Ordering::Relaxed);
            }
        });
        let mut reconciler = Some(Reconciler::new(
            clock,
            reader,
            ledger.clone(),
            snapshots,
            Some(Arc::clone(&applier)),
        ));
        // What a daemon has not looked at since it began lasts for a pass: half of what the largest organisation here has.
        if let Some(reconciler) = &mut reconciler {
            reconciler.audit = 9;
        }
        let mut pace = Pace::default();
        let mut passing: Option<Passing> = None;
        let mut idle = false;
        let mut orders = ledger.orders_mark().await.unwrap();
        let mut next_pass = born;
        let mut not_before = world.state().now;
        let mut offset = world.state().offset;
        loop {
            quiet(&ledger).await;
            let now = world.state().now;
            if world.state().crashed {
                self.die("in the middle of a call");
                return;
            }
            if passing.as_ref().is_some_and(JoinHandle::is_finished)
                && let Some(done) = passing.take()
            {
                let (back, result) = done.await.unwrap();
                reconciler = Some(back);
                self.passes += 1;
                not_before = now + BREATH;
                match result {
                    Ok(pass) => {
                        let host = world.state().host();
                        next_pass = pace.passed(&pass, &self.config.timing, host);
                        wanted.send_modify(|wanted| wanted.each_is_news = pace.waits_for_reads());
                        let retry = applier.next_try(host);
                        next_pass = retry.map_or(next_pass, |t| t.min(next_pass));
                        let mut state = world.state();
                        for held in &pass.survey.verdict.held {
                            let line = format!(
                                "held {:?} {} {}: {}",
                                held.change.kind,
                                held.change.target,
                                held.change.who(),
                                held.reason
                            );
                            state.say(&line);
                        }
                        for step in pass.survey.verdict.approved.steps() {
                            state.say(&format!(
                                "planned {:?} {} {}: {:?}",
                                step.change.kind,
                                step.change.target,
                                step.change.who(),
                                step.change.foresight
                            ));
                        }
                        for ended in pass.ended.iter().filter(|a| a.end != dutybound::apply::End::Confirmed) {
                            state.say(&format!(
                                "{:?} {} {}: {:?}",
                                ended.change.kind,
                                ended.change.target,
                                ended.change.who(),
                                ended.end
                            ));
                        }
                        self.promises.look(&mut state);
                        self.promises.after_pass(&mut state, &pass, idle);
                    }
                    Err(error) => {
                        applier.supersede();
                        world
                            .state()
                            .say(&format!("a pass failed: {}", dutybound::chain(&error)));
                        next_pass = pace.failed(&self.config.timing, world.state().host());
                    }
                }
            }
            if passing.is_none() && news.swap(false, Ordering::Relaxed) {
                next_pass = world.state().host();
            }
            // The daemon looks at the clock every second, so a step is seen at once for all that matters here.
            let stepped = world.state().offset;
            if stepped < offset {
                next_pass = world.state().host();
            }
            offset = stepped;
            if starting && (health.all_sources_read() || started + SignedDuration::from_secs(10) <= now) {
                starting = false;
            }
            if !starting
                && not_before <= now
                && next_pass <= world.state().host()
                && let Some(mut with) = reconciler.take()
            {
                idle = applier.in_flight().is_empty();
                let (config, policy) = (self.config.clone(), Arc::clone(self.in_force.policy()));
                passing = Some(tokio::spawn(async move {
                    let result = pass(&mut with, &config, &policy).await;
                    (with, result)
                }));
                continue;
            }
            if world.state().turn() {
                continue;
            }
            if now >= self.end {
                self.finish(&ledger).await;
                return;
            }
            let due = if passing.is_some() {
                None
            } else {
                Some((next_pass - offset).max(not_before).max(now))
            };
            let due = if starting {
                Some(started + SignedDuration::from_secs(10))
            } else {
                due
            };
            let events = [world.state().next(), due, Some(self.story.next), Some(self.end)];
            let next = events.into_iter().flatten().min().unwrap().max(now);
            world.state().now = next;
            // What fell into the time when no process was there happens as soon as one is.
            if self.story.next <= next {
                let before = self.in_force.policy().revision.clone();
                match self.tell() {
                    Asked::Nothing => {}
                    Asked::Kill => {
                        self.die("between two calls");
                        return;
                    }
                    Asked::Bar(person) => {
                        let (person, host) = (Person::parse(&email(person)).unwrap(), world.state().host());
                        ledger.bar(Some(&person), "simulated", "operator", host).await.unwrap();
                    }
                    Asked::Lift(person) => {
                        let (person, host) = (Person::parse(&email(person)).unwrap(), world.state().host());
                        ledger.lift(Some(&person), "operator", host).await.unwrap();
                    }
                }
                if before != self.in_force.policy().revision {
                    wanted.send_replace(self.wanted());
                    news.store(true, Ordering::Relaxed);
                }
                let given = ledger.orders_mark().await.unwrap();
                if given != orders {
                    orders = given;
                    news.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    fn wanted(&self) -> Wanted {
        let timing = &self.config.timing;
        Wanted {
            schedules: self.in_force.policy().schedules(),
            poll: timing.poll,
            horizon: timing.horizon,
            each_is_news: false,
        }
    }
}

async fn pass(reconciler: &mut Reconciler, config: &Config, policy: &Arc<Policy>) -> Result<Pass, PassError> {
    let pass = reconciler.look(config, policy, None).await?;
    reconciler.act(&pass, config, policy).await?;
    Ok(pass)
}

/// Lets everything run that can without time going on. The ledger works on a thread of its own, so it is asked; the
/// turns after that are for what wakes each other.
async fn quiet(ledger: &Ledger) {
    let mut calm = 0;
    while calm < 16 {
        tokio::task::yield_now().await;
        if ledger.is_idle() {
            calm += 1;
        } else {
            calm = 0;
            std::thread::yield_now();
        }
    }
}

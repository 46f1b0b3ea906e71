//! What all parts of the simulation share: time, chance, who lives, and what went wrong.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::Grant;
use super::super::record::Record;
use super::disk::Files;
use super::lucid::Lucid;
use crate::clock::{Clock, Now};

/// One life of one process, from its start to its death.
pub(super) type Life = u32;

/// How much of the history is kept for the report of a failure.
const REMEMBERED: usize = 400;

/// The simulated world; all clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct World(Arc<Mutex<Inner>>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) rng: fastrand::Rng,
    pub(super) files: Files,
    pub(super) lucid: Lucid,
    pub(super) faults: Faults,
    pub(super) lives: BTreeMap<Life, Fate>,
    pub(super) tally: Tally,
    /// Whether an older store was ever restored: whoever starts with that knows neither what was sent nor refused since.
    pub(super) was_restored: bool,
    /// What somebody has copied of the store.
    pub(super) backup: Option<Record>,
    /// What should never happen, and did.
    pub(super) violation: Option<String>,
    history: VecDeque<String>,
    started: Instant,
    /// How long the machine slept: both clocks but the monotonic one went on.
    slept: Duration,
    /// How far the machine's wall clock is ahead of the truth, in milliseconds.
    wall_error: i64,
    /// Whether that ever was anything but nothing.
    pub(super) clock_was_set: bool,
}

/// What is known of one life.
#[derive(Debug, Default)]
pub(super) struct Fate {
    pub(super) alive: bool,
    pub(super) killed: Arc<Notify>,
    /// The refresh token that it has sent and has no answer to.
    pub(super) posting: Option<String>,
    /// Whether it asks introspection at this moment.
    pub(super) asking: bool,
    /// Whether a write of its failed, so that it may serve what is not stored (T7).
    pub(super) write_failed: bool,
    /// The newest generation that it handed out.
    pub(super) handed_out: u64,
    /// The refresh token that it was told is dead.
    pub(super) refused: Option<String>,
    /// The refresh token whose exchange failed last, and when.
    pub(super) failed: Option<(String, Instant)>,
    /// What its clients have of it.
    pub(super) grant: Option<Grant>,
}

/// How likely things go wrong, from 0 to 1, at each opportunity.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// A process dies before or after a step.
    pub(super) crash: f64,
    /// A file operation fails.
    pub(super) disk_error: f64,
    /// No file can be written for want of space.
    pub(super) full: bool,
    /// No file can be written at all.
    pub(super) read_only: bool,
    /// No connection comes about.
    pub(super) unreachable: f64,
    /// A request gets lost on its way.
    pub(super) lost: f64,
    /// Something between answers instead of the server, which never sees the request.
    pub(super) intercepted: f64,
    /// Something between answers instead of the server, which has processed the request.
    pub(super) answer_replaced: f64,
    /// The answer is cut or gets lost.
    pub(super) answer_lost: f64,
    /// Requests and answers take long.
    pub(super) slow: f64,
    /// Introspection fails.
    pub(super) introspection: f64,
    /// The API answers 401 whatever the token.
    pub(super) incurable: bool,
}

/// What happened, for the report.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) rotations: u64,
    pub(super) lost_rotations: u64,
    pub(super) posts: u64,
    pub(super) introspections: u64,
    pub(super) requests: u64,
    pub(super) replays: u64,
    pub(super) kills: u64,
    pub(super) power_cuts: u64,
    pub(super) logins: u64,
    pub(super) logouts: u64,
    pub(super) seconds: u64,
}

impl World {
    /// Must be called within a runtime whose clock is paused.
    pub(super) fn new(seed: u64, lucid: Lucid) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            rng: fastrand::Rng::with_seed(seed),
            files: Files::default(),
            lucid,
            faults: Faults::default(),
            lives: BTreeMap::new(),
            tally: Tally::default(),
            was_restored: false,
            backup: None,
            violation: None,
            history: VecDeque::new(),
            started: Instant::now(),
            slept: Duration::ZERO,
            wall_error: 0,
            clock_was_set: false,
        })))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic is reported by whoever runs the seed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The grants of all processes that live.
    pub(super) fn grants(&self) -> Vec<(Life, Grant)> {
        let inner = self.lock();
        let living = inner.lives.iter().filter(|(_, fate)| fate.alive);
        living
            .filter_map(|(life, fate)| Some((*life, fate.grant.clone()?)))
            .collect()
    }

    /// A new process begins.
    pub(super) fn born(&self) -> (Life, Arc<Notify>) {
        let mut inner = self.lock();
        let life = inner.lives.len() as Life;
        let fate = Fate {
            alive: true,
            ..Fate::default()
        };
        let killed = fate.killed.clone();
        inner.lives.insert(life, fate);
        inner.note(format!("process {life} starts"));
        (life, killed)
    }
}

impl Inner {
    /// The true time, which the server has.
    pub(super) fn truth(&self) -> SystemTime {
        let base = SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
        base + self.started.elapsed() + self.slept
    }

    /// The machine's wall clock.
    pub(super) fn wall(&self) -> SystemTime {
        let error = Duration::from_millis(self.wall_error.unsigned_abs());
        if self.wall_error < 0 {
            self.truth() - error
        } else {
            self.truth() + error
        }
    }

    pub(super) fn set_wall_error(&mut self, milliseconds: i64) {
        self.wall_error = milliseconds;
        self.clock_was_set |= milliseconds != 0;
        self.note(format!("the clock is {milliseconds} ms ahead now"));
    }

    pub(super) fn sleep_for(&mut self, time: Duration) {
        self.slept += time;
        self.note(format!("the machine slept for {time:?}"));
    }

    pub(super) fn happens(&mut self, chance: f64) -> bool {
        chance > 0.0 && self.rng.f64() < chance
    }

    pub(super) fn note(&mut self, text: String) {
        if self.history.len() == REMEMBERED {
            self.history.pop_front();
        }
        let at = (self.started.elapsed() + self.slept).as_secs_f64();
        self.history.push_back(format!("{at:>12.3} {text}"));
    }

    pub(super) fn history(&self) -> String {
        self.history
            .iter()
            .map(|line| format!("{line}\n"))
            .collect()
    }

    pub(super) fn violate(&mut self, text: String) {
        self.note(format!("VIOLATION {text}"));
        self.violation.get_or_insert(text);
    }

    pub(super) fn fate(&mut self, life: Life) -> &mut Fate {
        self.lives.entry(life).or_default()
    }

    pub(super) fn is_alive(&self, life: Life) -> bool {
        self.lives.get(&life).is_some_and(|fate| fate.alive)
    }

    /// SIGKILL: from this moment nothing that the process does has an effect.
    pub(super) fn kill(&mut self, life: Life, why: &str) {
        if !self.is_alive(life) {
            return;
        }
        self.note(format!("process {life} dies: {why}"));
        self.tally.kills += 1;
        self.end(life);
    }

    /// The process is gone.
    pub(super) fn end(&mut self, life: Life) {
        let fate = self.fate(life);
        fate.alive = false;
        (fate.posting, fate.asking, fate.grant) = (None, false, None);
        fate.killed.notify_one();
        self.files.release_locks(life);
    }

    /// Everything dies at once, and what was not synced may be gone.
    pub(super) fn cut_power(&mut self) {
        self.note("power cut".to_owned());
        self.tally.power_cuts += 1;
        let alive: Vec<_> = self.lives.iter().filter(|(_, fate)| fate.alive).collect();
        let alive: Vec<_> = alive.into_iter().map(|(life, _)| *life).collect();
        for life in alive {
            self.end(life);
        }
        let rng = &mut self.rng;
        self.files.cut_power(rng);
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub(super) struct SimulatedClock(pub(super) World);

impl Clock for SimulatedClock {
    fn now(&self) -> Now {
        Now {
            wall: self.0.lock().wall(),
            monotonic: Instant::now(),
        }
    }
}

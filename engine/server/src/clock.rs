//! The engine's clock: monotonic, and close to the wall clock as long as that does not jump.
//!
//! Every time of a record, every lease, deadline and schedule goes by it. Where the wall clock jumps by more than
//! [`TOLERANCE`], it goes on by itself, and says so; it follows once the core says so (a person agreed, or time passed). It
//! never goes back: where the wall clock is behind, it goes at half speed until that has caught up.
//!
//! [`TOLERANCE`]: stanch_core::clock::TOLERANCE

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use stanch_core::clock::{Jump, is_jump};
use stanch_core::{Command, State};
use stanch_playbook::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::executor::Handle;

/// How often the wall clock is looked at where nothing else happens.
pub(crate) const LOOK: Duration = Duration::from_secs(15);

type Wall = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// See the module.
pub(crate) struct Clock {
    wall: Wall,
    hands: Mutex<Hands>,
}

struct Hands {
    now: Timestamp,
    looked: Instant,
    pace: Pace,
}

/// What the clock goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    /// By the wall clock.
    Wall,
    /// By itself, since the wall clock is known to be so many milliseconds ahead.
    Alone { by_ms: i64 },
    /// At half speed, the wall clock being behind by so many.
    Slow { by_ms: i64 },
}

/// What a look at the clock shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Look {
    /// The time.
    pub now: Timestamp,
    /// Where the wall clock is not where it was: how far it is ahead, in milliseconds.
    pub jumped: Option<i64>,
}

impl Clock {
    /// A clock by the system's.
    pub(crate) fn system(state: &State) -> Self {
        Self::new(state, wall)
    }

    /// A clock that goes on where a state's records end.
    pub(crate) fn new(state: &State, wall: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let now = match &state.clock_jump {
            Some(jump) => moved(wall(), jump.by_ms.saturating_neg()),
            None => wall(),
        };
        let hands = Hands { now: now.max(state.time), looked: Instant::now(), pace: pace(state) };
        Self { wall: Box::new(wall), hands: Mutex::new(hands) }
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        self.look().now
    }

    /// The time, and whether the wall clock has jumped; says so at every look until [`Self::follow`] took notice.
    pub(crate) fn look(&self) -> Look {
        let mut hands = self.hands();
        let (at, wall) = (Instant::now(), (self.wall)());
        let passed = at.saturating_duration_since(hands.looked);
        hands.looked = at;
        let alone = hands.now.plus(passed);
        let ahead = wall.as_millis().saturating_sub(alone.as_millis());
        let known = match hands.pace {
            Pace::Wall => 0,
            Pace::Alone { by_ms } | Pace::Slow { by_ms } => by_ms,
        };
        let jumped = is_jump(ahead.saturating_sub(known)).then_some(ahead);
        hands.now = match hands.pace {
            Pace::Wall | Pace::Slow { .. } if jumped.is_none() => {
                let slow = hands.now.plus(passed / 2);
                let by_ms = wall.as_millis().saturating_sub(slow.as_millis());
                hands.pace = if by_ms < 0 && is_jump(by_ms) { Pace::Slow { by_ms } } else { Pace::Wall };
                slow.max(wall)
            }
            _ => alone,
        };
        Look { now: hands.now, jumped }
    }

    /// Goes as the core says from now on: by itself after a jump, by the wall clock once that was agreed to.
    pub(crate) fn follow(&self, jump: Option<&Jump>) {
        self.look();
        let wall = (self.wall)();
        let mut hands = self.hands();
        match (jump, hands.pace) {
            (Some(jump), _) => hands.pace = Pace::Alone { by_ms: jump.by_ms },
            (None, Pace::Alone { .. }) => {
                let by_ms = wall.as_millis().saturating_sub(hands.now.as_millis());
                hands.pace = if by_ms < 0 { Pace::Slow { by_ms } } else { Pace::Wall };
                hands.now = hands.now.max(wall);
            }
            (None, Pace::Wall | Pace::Slow { .. }) => {}
        }
    }

    /// Goes as a state says that was gone back to: what the clock was told since was never durable.
    pub(crate) fn revert(&self, state: &State) {
        self.hands().pace = pace(state);
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().expect("no holder of this lock can panic")
    }
}

/// Has the executor look at the wall clock also while nothing happens, until stopped.
pub(crate) async fn keep_looking(handle: Handle, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        // One that cannot write now looks again when it can.
        handle.submit(Command::FireTimers).await.ok();
    }
}

fn pace(state: &State) -> Pace {
    state.clock_jump.as_ref().map_or(Pace::Wall, |jump| Pace::Alone { by_ms: jump.by_ms })
}

fn moved(at: Timestamp, by_ms: i64) -> Timestamp {
    Timestamp::from_nanos(at.as_nanos().saturating_add(by_ms.saturating_mul(1_000_000)))
}

/// The wall clock: for what senders and people would read on theirs.
pub(crate) fn wall() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    /// A wall clock that goes with tokio's time and can be moved.
    #[derive(Clone)]
    pub(crate) struct Movable {
        began: (Timestamp, Instant),
        by_ms: Arc<AtomicI64>,
    }

    impl Movable {
        pub(crate) fn at(began: Timestamp) -> Self {
            Self { began: (began, Instant::now()), by_ms: Arc::default() }
        }

        /// Moves it, and it alone.
        pub(crate) fn jump(&self, seconds: i64) {
            self.by_ms.fetch_add(seconds * 1000, Ordering::SeqCst);
        }

        pub(crate) fn read(&self) -> Timestamp {
            moved(self.began.0.plus(self.began.1.elapsed()), self.by_ms.load(Ordering::SeqCst))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Movable;
    use super::*;

    const BEGIN: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn clock(state: &State) -> (Clock, Movable) {
        let wall = Movable::at(BEGIN);
        let read = wall.clone();
        (Clock::new(state, move || read.read()), wall)
    }

    fn seconds(at: Timestamp) -> i64 {
        (at.as_millis() - BEGIN.as_millis()) / 1000
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_step_is_followed_and_never_back() {
        let (clock, wall) = clock(&State::default());
        pass(10).await;
        assert_eq!(clock.look(), Look { now: BEGIN.plus(Duration::from_secs(10)), jumped: None });
        wall.jump(50);
        assert_eq!((seconds(clock.now()), clock.look().jumped), (60, None));
        wall.jump(-40);
        assert_eq!(seconds(clock.now()), 60);
        pass(20).await;
        assert_eq!(seconds(clock.now()), 70, "half as fast while it is ahead");
        pass(100).await;
        assert_eq!(clock.now(), wall.read());
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_is_told_until_it_is_known_and_followed_once_it_is_agreed_to() {
        let (clock, wall) = clock(&State::default());
        wall.jump(3600);
        for _ in 0..2 {
            assert_eq!(clock.look(), Look { now: BEGIN, jumped: Some(3_600_000) });
        }
        let jump = Jump { by_ms: 3_600_000, since: BEGIN };
        clock.follow(Some(&jump));
        pass(100).await;
        assert_eq!((seconds(clock.now()), clock.look().jumped), (100, None));
        clock.follow(None);
        assert_eq!((seconds(clock.now()), clock.look().jumped), (3700, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_back_is_made_up_for_at_half_speed() {
        let (clock, wall) = clock(&State::default());
        wall.jump(-600);
        clock.follow(Some(&Jump { by_ms: -600_000, since: BEGIN }));
        pass(100).await;
        assert_eq!((seconds(clock.now()), clock.look().jumped), (100, None));
        clock.follow(None);
        for _ in 0..10 {
            pass(60).await;
            assert_eq!(clock.look().jumped, None);
        }
        assert_eq!(seconds(clock.now()), 400);
        wall.jump(7200);
        assert_eq!(clock.look().jumped, Some(6_900_000), "{:?}", clock.look());
        wall.jump(-7200);
        pass(6000).await;
        assert_eq!((clock.now(), clock.look().jumped), (wall.read(), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_goes_on_where_the_records_end() {
        let mut ahead = State::default();
        ahead.time = BEGIN.plus(Duration::from_secs(300));
        let (clock, _) = clock(&ahead);
        assert_eq!((seconds(clock.now()), clock.look().jumped), (300, Some(-300_000)));
        let jump = Jump { by_ms: 900_000, since: BEGIN };
        let mut held = State::default();
        held.clock_jump = Some(jump);
        let (clock, _) = self::clock(&held);
        assert_eq!((seconds(clock.now()), clock.look().jumped), (-900, None));
        // What was never durable is told again.
        clock.revert(&State::default());
        assert_eq!(clock.look().jumped, Some(900_000));
    }
}

//! The ticks of schedules. A nominal instant is the tick's identity, so that each fires once whatever restarts.

use std::sync::Arc;

use stanch_core::command::Target;
use stanch_core::event::Event;
use stanch_core::record::Actor;
use stanch_core::{Command, State};
use stanch_playbook::schedule::{CatchUp, Schedule};
use stanch_playbook::{PlaybookName, Timestamp, TriggerOn};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::LOOK;
use crate::executor::Handle;

/// How many missed instants of one schedule are caught up at most.
const CATCH_UP_LIMIT: usize = 1000;

/// One schedule of one loaded playbook, and up to which instant it is dealt with.
struct Due {
    playbook: PlaybookName,
    trigger: usize,
    next: Timestamp,
}

/// Sends every tick when its time has come, until stopped.
pub(crate) async fn run(handle: Handle, mut reloaded: watch::Receiver<u64>, stop: CancellationToken) {
    let mut since = handle.now();
    let mut first = true;
    loop {
        let state = handle.state();
        let begun = handle.now();
        for (playbook, trigger, schedule) in schedules(&state) {
            let from = state.ticks.get(&(playbook.clone(), trigger)).copied();
            // After a start, what was missed since the last tick; else what came due since the last look.
            let from = if first { from.unwrap_or(since) } else { from.map_or(since, |tick| tick.max(since)) };
            for nominal in missed(&schedule, from, begun, first) {
                tick(&handle, &playbook, trigger, nominal).await;
            }
        }
        first = false;
        since = begun;
        let next = schedules(&handle.state())
            .filter_map(|(playbook, trigger, schedule)| {
                schedule.next_after(since).map(|next| Due { playbook, trigger, next })
            })
            .min_by_key(|due| due.next);
        let sleep = async {
            match &next {
                Some(due) => {
                    tracing::debug!(playbook = %due.playbook, trigger = due.trigger, at = %due.next, "next tick");
                    // A clock that jumps wakes nobody.
                    tokio::time::sleep(due.next.since(handle.now()).min(LOOK)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = reloaded.changed() => if changed.is_err() { return },
            () = sleep => {}
        }
    }
}

fn schedules(state: &Arc<State>) -> impl Iterator<Item = (PlaybookName, usize, Schedule)> {
    let mut found = Vec::new();
    for plan in state.playbooks.values().filter_map(|digest| state.plan(*digest)) {
        for (index, trigger) in plan.triggers.iter().enumerate() {
            if let TriggerOn::Schedule(schedule) = &trigger.on {
                found.push((plan.name.clone(), index, schedule.clone()));
            }
        }
    }
    found.into_iter()
}

/// The nominal instants in `(from, until]` that are to fire; after a start those that `catch_up` asks for.
fn missed(schedule: &Schedule, from: Timestamp, until: Timestamp, after_start: bool) -> Vec<Timestamp> {
    let mut instants = Vec::new();
    let mut at = from;
    while let Some(next) = schedule.next_after(at).filter(|next| *next <= until) {
        if instants.len() == CATCH_UP_LIMIT {
            instants.remove(0);
        }
        instants.push(next);
        at = next;
    }
    if after_start {
        match schedule.catch_up {
            CatchUp::None => instants.clear(),
            CatchUp::Last => instants = instants.split_off(instants.len().saturating_sub(1)),
            CatchUp::All => {}
        }
    }
    instants
}

async fn tick(handle: &Handle, playbook: &PlaybookName, trigger: usize, nominal: Timestamp) {
    let event = Arc::new(Event::of_tick(playbook, trigger, nominal));
    loop {
        let command = Command::ReceiveEvent {
            actor: Actor::source("schedule"),
            event: Arc::clone(&event),
            target: Target::Trigger { playbook: playbook.clone(), trigger },
        };
        match handle.submit_patiently(command).await {
            Ok(_) => return,
            Err(crate::executor::Refused::Rejected(error)) => {
                tracing::warn!(%playbook, %nominal, %error, "a tick was refused");
                return;
            }
            Err(error) => {
                tracing::warn!(%playbook, %nominal, %error, "a tick waits");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(catch_up: CatchUp, from: &str, until: &str, after_start: bool) -> Vec<String> {
        let schedule = Schedule::parse("0 * * * *", "UTC", catch_up).unwrap();
        let at = |text| Timestamp::parse(text).unwrap();
        missed(&schedule, at(from), at(until), after_start).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn after_a_start_only_what_catch_up_asks_for_is_made_up() {
        let (from, until) = ("2026-11-21T01:00:00Z", "2026-11-21T04:30:00Z");
        let all = ["2026-11-21T02:00:00Z", "2026-11-21T03:00:00Z", "2026-11-21T04:00:00Z"];
        for (catch_up, expected) in [(CatchUp::None, &[][..]), (CatchUp::Last, &all[2..]), (CatchUp::All, &all)] {
            assert_eq!(due(catch_up, from, until, true), expected, "{catch_up:?}");
            assert_eq!(due(catch_up, from, until, false), all, "{catch_up:?}, and the engine was there");
            assert_eq!(due(catch_up, until, until, true), [""; 0], "{catch_up:?}, and nothing was missed");
        }
    }

    #[test]
    fn the_latest_are_made_up_where_too_many_were_missed() {
        let missed = due(CatchUp::All, "2026-01-01T00:00:00Z", "2026-11-21T04:00:00Z", true);
        assert_eq!((missed.len(), missed.last().map(String::as_str)), (CATCH_UP_LIMIT, Some("2026-11-21T04:00:00Z")));
    }
}

//! The invariants of the core, held against a history.

use std::collections::{BTreeMap, BTreeSet};

use stanch_core::attempt::AttemptId;
use stanch_core::{Body, Effect, Epoch, IllegalTransition, Record, State, outstanding};

use crate::Simulation;

/// An invariant that does not hold.
#[derive(Debug, thiserror::Error)]
pub enum BrokenInvariant {
    /// The journal does not fold.
    #[error("the history does not fold")]
    Fold(#[from] IllegalTransition),
    /// The fold of the journal is another state than the live one.
    #[error("the fold of the history differs from the live state: {0}")]
    State(String),
    /// What should be under way is not what was dispatched and is not over.
    #[error("outstanding attempts {outstanding:?} differ from those under way {under_way:?}")]
    Outstanding {
        /// By the state.
        outstanding: Vec<String>,
        /// By the effects.
        under_way: Vec<String>,
    },
    /// An attempt was claimed twice.
    #[error("attempt {0} was claimed twice")]
    Twice(String),
    /// Two things share an idempotency key, or one thing has two.
    #[error("idempotency key {0} stands for two things")]
    Key(String),
    /// Time went back.
    #[error("record {0} is earlier than the one before it")]
    Time(u64),
    /// A snapshot does not read back as the same state.
    #[error("a snapshot reads back differently: {0}")]
    Snapshot(String),
}

/// The state that records fold to.
///
/// # Errors
/// Where they do not.
pub fn fold(records: &[Record]) -> Result<State, IllegalTransition> {
    let mut state = State::default();
    for record in records {
        state.apply(record)?;
    }
    Ok(state)
}

pub(crate) fn check(simulation: &Simulation) -> Result<(), BrokenInvariant> {
    let folded = fold(&simulation.records)?;
    if folded != simulation.state {
        return Err(BrokenInvariant::State(difference(&folded, &simulation.state)));
    }
    let mut by_state: Vec<String> = outstanding(&folded)
        .filter_map(|effect| match effect {
            Effect::DispatchAttempt(assignment) => Some(name(&assignment.attempt)),
            Effect::CancelAttempt(_) | Effect::ArmTimer(_) => None,
        })
        .collect();
    let mut under_way: Vec<String> = simulation
        .in_flight
        .iter()
        .filter(|assignment| simulation.state.is_under_way(&assignment.attempt))
        .map(|assignment| name(&assignment.attempt))
        .collect();
    by_state.sort();
    under_way.sort();
    if by_state != under_way {
        return Err(BrokenInvariant::Outstanding { outstanding: by_state, under_way });
    }
    Ok(())
}

/// Holds a whole history against what must be true of every one.
///
/// # Errors
/// The first invariant that does not hold.
pub fn check_history(records: &[Record]) -> Result<State, BrokenInvariant> {
    let mut claimed = BTreeSet::new();
    let mut keys: BTreeMap<String, String> = BTreeMap::new();
    let mut time = None;
    for record in records {
        if time.is_some_and(|time| record.time < time) {
            return Err(BrokenInvariant::Time(record.sequence.0));
        }
        time = Some(record.time);
        if let Body::AttemptScheduled(body) = &record.body {
            if !claimed.insert(name(&body.attempt)) {
                return Err(BrokenInvariant::Twice(name(&body.attempt)));
            }
            let thing = name(&AttemptId { number: 0, epoch: Epoch(0), ..body.attempt.clone() });
            let key = body.idempotency_key.as_str().to_owned();
            if keys.entry(key.clone()).or_insert_with(|| thing.clone()) != &thing {
                return Err(BrokenInvariant::Key(key));
            }
        }
    }
    let state = fold(records)?;
    let text = serde_json::to_string(&state).map_err(|error| BrokenInvariant::Snapshot(error.to_string()))?;
    let again: State = serde_json::from_str(&text).map_err(|error| BrokenInvariant::Snapshot(error.to_string()))?;
    if again != state {
        return Err(BrokenInvariant::Snapshot(difference(&again, &state)));
    }
    Ok(state)
}

fn name(attempt: &AttemptId) -> String {
    let AttemptId { run, step, item, purpose, generation, number, epoch } = attempt;
    let item = item.map_or_else(String::new, |item| format!("[{item}]"));
    format!("{run}/{step}{item}/{}/{generation}.{number}@{}", purpose.as_str(), epoch.0)
}

/// Where two states differ, shortly.
fn difference(left: &State, right: &State) -> String {
    let (left, right) = (format!("{left:#?}"), format!("{right:#?}"));
    let at = left.lines().zip(right.lines()).position(|(left, right)| left != right).unwrap_or(0);
    let around = |text: &str| text.lines().skip(at.saturating_sub(4)).take(9).collect::<Vec<_>>().join("\n");
    format!("\n--- left\n{}\n--- right\n{}", around(&left), around(&right))
}

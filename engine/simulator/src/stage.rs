//! A simulation whose attempts take time: what is due comes about in the order of its moments.

use std::time::Duration;

use stanch_core::attempt::{AttemptId, Purpose};
use stanch_core::{Assignment, Command, Outcome, State};
use stanch_playbook::time::said_duration;
use stanch_playbook::{Phase, Timestamp};

use crate::{MOST, Restless, Simulation};

/// How an attempt comes out, and after how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The outcome.
    pub outcome: Outcome,
    /// How long it takes; beyond the attempt's time limit it is unknown at that limit.
    pub takes: Duration,
}

/// A simulation with its attempts under way.
pub struct Stage<'a> {
    /// The engine without a shell.
    pub simulation: Simulation,
    under_way: Vec<UnderWay>,
    reply: Box<Replies<'a>>,
    done: usize,
}

/// How attempts come out.
type Replies<'a> = dyn FnMut(&Assignment, &State) -> Reply + 'a;

struct UnderWay {
    due: Timestamp,
    attempt: AttemptId,
    outcome: Outcome,
}

impl<'a> Stage<'a> {
    /// A stage on which attempts come out as `reply` says.
    pub fn new(simulation: Simulation, reply: impl FnMut(&Assignment, &State) -> Reply + 'a) -> Self {
        Self { simulation, under_way: Vec::new(), reply: Box::new(reply), done: 0 }
    }

    /// Lets everything come about that is due until `at`, that moment included; without one, until nothing is under way
    /// and nothing comes by itself but reminders of people, which an incident that nobody closes has for ever.
    ///
    /// # Errors
    /// [`Restless`] where that does not end.
    pub fn play(&mut self, at: Option<Timestamp>) -> Result<(), Restless> {
        loop {
            self.take_up();
            let first = self.under_way.iter().enumerate().min_by_key(|(index, one)| (one.due, *index));
            let first = first.map(|(index, one)| (one.due, index));
            let timer = self.simulation.state.next_timer();
            if at.is_none() && first.is_none() && self.simulation.is_at_rest() {
                break;
            }
            let next = match (first, timer) {
                (Some((due, _)), Some(timer)) => due.min(timer),
                (Some((due, _)), None) => due,
                (None, Some(timer)) => timer,
                (None, None) => break,
            };
            if at.is_some_and(|at| next > at) {
                break;
            }
            self.done += 1;
            if self.done > MOST {
                return Err(Restless);
            }
            self.simulation.now = self.simulation.now.max(next);
            match first {
                // What ends at the moment of a timer ends before it.
                Some((due, index)) if due <= next => {
                    let one = self.under_way.remove(index);
                    self.simulation.in_flight.retain(|other| other.attempt != one.attempt);
                    let command = Command::FinishAttempt { attempt: one.attempt, outcome: one.outcome };
                    // A run that was cancelled to its end has no place for the result.
                    self.simulation.command(command).ok();
                }
                _ => {
                    self.simulation.command(Command::FireTimers).expect("timers are never refused");
                }
            }
        }
        if let Some(at) = at {
            self.simulation.now = self.simulation.now.max(at);
        }
        Ok(())
    }

    /// Asks how the attempts that were dispatched since will come out, and stops those of cancelled runs.
    fn take_up(&mut self) {
        let simulation = &self.simulation;
        self.under_way.retain(|one| simulation.in_flight.iter().any(|assignment| assignment.attempt == one.attempt));
        for assignment in &simulation.in_flight {
            if self.under_way.iter().any(|one| one.attempt == assignment.attempt) {
                continue;
            }
            let Reply { mut outcome, mut takes } = (self.reply)(assignment, &simulation.state);
            if takes > assignment.timeout {
                takes = assignment.timeout;
                outcome = Outcome::Unknown { reason: format!("timed out after {}", said_duration(takes)) };
            }
            let due = simulation.now.plus(takes);
            self.under_way.push(UnderWay { due, attempt: assignment.attempt.clone(), outcome });
        }
        for one in &mut self.under_way {
            let Some(run) = simulation.state.runs.get(&one.attempt.run) else { continue };
            let finally = one.attempt.step.as_str().starts_with(Phase::Finally.as_str());
            let stops = one.attempt.purpose != Purpose::Undo;
            if run.cancel.is_some() && stops && !finally && one.due > simulation.now {
                one.due = simulation.now;
                one.outcome = Outcome::Unknown { reason: "stopped, since the run was cancelled".to_owned() };
            }
        }
    }
}

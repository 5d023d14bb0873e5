//! A command becomes records and effects. Pure: the state is not touched, the records are folded into a copy of it.

mod advance;
mod approvals;
mod attempts;
mod children;
mod holds;
mod incidents;
mod intake;
mod letters;
mod people;
mod start;
mod undo;

pub use intake::cause_of_alerts;

use std::sync::Arc;

use stanch_playbook::{Plan, PlaybookName, Timestamp};

use crate::attempt::AttemptId;
use crate::command::{Command, Receipt, Rejected};
use crate::effect::Effect;
use crate::id::Epoch;
use crate::incident::Incident;
use crate::record::{
    Actor, Body, ClockJumped, EngineStarted, EngineStopped, PlaybookLoaded, PlaybookRemoved, Record, Settings,
};
use crate::run::Run;
use crate::state::State;

/// What a command leads to.
#[derive(Debug)]
pub struct Decision {
    /// To be made durable before anything else happens; may be empty.
    pub records: Vec<Record>,
    /// To be done once they are.
    pub effects: Vec<Effect>,
    /// The state with the records folded in.
    pub state: State,
    /// The answer to whoever sent the command, once the records are durable.
    pub receipt: Receipt,
    /// The runs that finished, for the views.
    pub finished: Vec<Arc<Run>>,
    /// The incidents that were resolved, for the views.
    pub resolved: Vec<Arc<Incident>>,
}

/// Decides what a command leads to at `now`.
///
/// The records are contiguous from the state's sequence, and none is earlier than the last.
///
/// # Errors
/// [`Rejected`] where the command cannot be carried out; nothing is recorded then.
pub fn decide(state: &State, command: Command, now: Timestamp) -> Result<Decision, Rejected> {
    let mut draft = Draft::new(state, now);
    match command {
        Command::StartEngine { journal, version, settings } => draft.start_engine(journal, version, settings),
        Command::StopEngine { reason } => draft.emit(EngineStopped { reason }),
        Command::LoadPlaybooks { plans, keep } => {
            let gone: Vec<_> = draft
                .state
                .playbooks
                .keys()
                .filter(|name| !keep.contains(name) && !plans.iter().any(|plan| plan.name == **name))
                .cloned()
                .collect();
            for playbook in gone {
                draft.emit(PlaybookRemoved { playbook });
            }
            for plan in plans {
                if draft.state.playbooks.get(&plan.name) != Some(&plan.digest) {
                    draft.emit(PlaybookLoaded {
                        playbook: plan.name.clone(),
                        plan: plan.digest,
                        canonical: plan.canonical().into(),
                    });
                }
            }
        }
        Command::ReceiveAlerts { actor, changes } => {
            draft.actor = actor;
            draft.receive_alerts(changes);
        }
        Command::ReceiveEvent { actor, event, target } => {
            draft.actor = actor;
            draft.receive_event(&event, target)?;
        }
        Command::KeepDeadLetter { actor, letter } => {
            draft.actor = actor;
            draft.keep_dead_letter(letter);
        }
        Command::MarkReplayed { actor, id } => {
            draft.actor = actor;
            draft.emit(crate::record::DeadLetterReplayed { id });
        }
        Command::FinishAttempt { attempt, outcome } => draft.finish_attempt(&attempt, outcome)?,
        Command::FireTimers => draft.fire_timers(),
        Command::CancelRun { actor, run, reason, undo } => {
            draft.actor = actor;
            draft.cancel_run(run, reason, undo)?;
        }
        Command::AnswerStep { actor, run, step, item, answer, note } => {
            draft.actor = actor;
            draft.answer_step(run, &step, item, answer, note)?;
        }
        Command::DecideApproval { actor, person, approval, verdict, digest, reason } => {
            draft.actor = actor;
            draft.decide_approval(approval, &person, verdict, &digest, reason)?;
        }
        Command::UndoContainment { actor, containment, reason } => {
            draft.actor = actor;
            draft.undo_by_hand(containment, reason)?;
        }
        Command::ExtendContainment { actor, containment, until, reason } => {
            draft.actor = actor;
            draft.extend(containment, until, reason)?;
        }
        Command::EndContainment { actor, containment, reason } => {
            draft.actor = actor;
            draft.end_containment(containment, reason)?;
        }
        Command::TakeIncident { actor, incident, owner } => {
            draft.actor = actor;
            draft.take(incident, owner)?;
        }
        Command::NoteIncident { actor, incident, note } => {
            draft.actor = actor;
            draft.note_down(incident, note)?;
        }
        Command::MergeIncident { actor, incident, into } => {
            draft.actor = actor;
            draft.merge(incident, into)?;
        }
        Command::Freeze { actor, reason } => {
            draft.actor = actor;
            draft.freeze(reason)?;
        }
        Command::Unfreeze { actor, reason } => {
            draft.actor = actor;
            draft.unfreeze(reason)?;
        }
        Command::PlanMaintenance { actor, declared, matchers, from, to, reason } => {
            draft.actor = actor;
            let from = from.unwrap_or(draft.now);
            draft.plan_maintenance(holds::NewWindow { declared, matchers, from, to, reason })?;
        }
        Command::EndMaintenance { actor, maintenance } => {
            draft.actor = actor;
            draft.end_maintenance(maintenance)?;
        }
        Command::NoteClockJump { by_ms } => draft.emit(ClockJumped { by_ms }),
        Command::AgreeToClock { actor } => {
            draft.actor = actor;
            draft.agree_to_clock()?;
        }
        Command::AcknowledgeIncident { actor, incident } => {
            draft.actor = actor;
            draft.acknowledge(incident)?;
        }
        Command::ResolveIncident { actor, incident, reason } => {
            draft.actor = actor;
            draft.resolve_by_hand(incident, &reason)?;
        }
    }
    Ok(draft.into_decision(state))
}

/// A decision in the making: a copy of the state that every emitted record is folded into at once.
struct Draft {
    state: State,
    now: Timestamp,
    actor: Actor,
    records: Vec<Record>,
    receipt: Receipt,
    finished: Vec<Arc<Run>>,
    resolved: Vec<Arc<Incident>>,
    effects: Vec<Effect>,
}

impl Draft {
    fn new(state: &State, now: Timestamp) -> Self {
        Self {
            state: state.clone(),
            // Record time never goes back, whatever the wall clock does.
            now: now.max(state.time),
            actor: Actor::engine(),
            records: Vec::new(),
            receipt: Receipt::default(),
            finished: Vec::new(),
            resolved: Vec::new(),
            effects: Vec::new(),
        }
    }

    fn emit(&mut self, body: impl Into<Body>) {
        let record = Record {
            sequence: self.state.sequence.next(),
            time: self.now,
            actor: self.actor.clone(),
            body: body.into(),
        };
        match self.state.apply(&record) {
            Ok(applied) => {
                self.finished.extend(applied.finished);
                self.resolved.extend(applied.resolved);
                self.records.push(record);
            }
            // Both are ours: decide checks what apply demands. The property test in tests/fold.rs holds them together.
            Err(illegal) => unreachable!("decide emitted an illegal record: {illegal}"),
        }
    }

    fn as_engine<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let actor = std::mem::replace(&mut self.actor, Actor::engine());
        let result = act(self);
        self.actor = actor;
        result
    }

    fn start_engine(&mut self, journal: crate::id::JournalId, version: String, settings: Settings) {
        let journal = if self.state.journal == crate::id::JournalId::default() { journal } else { self.state.journal };
        self.emit(EngineStarted { journal, epoch: Epoch(self.state.epoch.0 + 1), version, settings });
        self.recover();
    }

    fn playbook_of(&self, attempt: &AttemptId) -> PlaybookName {
        let run = self.state.runs.get(&attempt.run).map(|run| run.playbook.clone());
        let contained = || self.state.containment_at(attempt.run, &attempt.step, attempt.item);
        run.or_else(|| contained().map(|of| of.playbook.clone())).unwrap_or_else(|| PlaybookName::new(""))
    }

    fn plan_of(&self, run: &Run) -> Arc<Plan> {
        Arc::clone(self.state.plan(run.plan).expect("a live run's plan is pinned"))
    }

    fn into_decision(self, before: &State) -> Decision {
        let mut effects = self.effects;
        // An attempt that was claimed and is over within one decision needs no worker.
        effects.retain(|effect| match effect {
            Effect::DispatchAttempt(assignment) => self.state.is_under_way(&assignment.attempt),
            Effect::CancelAttempt(_) | Effect::ArmTimer(_) => true,
        });
        let next = self.state.next_timer();
        if next != before.next_timer()
            && let Some(at) = next
        {
            effects.push(Effect::ArmTimer(at));
        }
        Decision {
            records: self.records,
            effects,
            state: self.state,
            receipt: self.receipt,
            finished: self.finished,
            resolved: self.resolved,
        }
    }
}

//! What goes into the core. Imperative; never serialised.

use std::sync::Arc;

use serde_json::{Map, Value};
use stanch_playbook::{Plan, PlaybookName, StepKey, Timestamp};

use crate::alert::AlertChange;
use crate::attempt::{AttemptId, Outcome};
use crate::event::Event;
use crate::id::{ApprovalId, ContainmentId, DeadLetterId, IncidentId, JournalId, MaintenanceId, RunId};
use crate::record::{Actor, Answer, DeadLetter, Settings, Verdict};

/// What somebody or something asks of the core.
#[derive(Debug)]
pub enum Command {
    /// An engine takes the journal: claimed attempts without a result become unknown.
    StartEngine {
        /// The identity to give a journal that has none yet.
        journal: JournalId,
        /// The version of stanch.
        version: String,
        /// The settings to decide by.
        settings: Settings,
    },
    /// The engine ends in good order.
    StopEngine {
        /// Why.
        reason: String,
    },
    /// The playbooks that new runs use: these are there, all others are not.
    LoadPlaybooks {
        /// All valid ones.
        plans: Vec<Arc<Plan>>,
        /// Names whose file is there and broken: what was loaded of them stays.
        keep: Vec<PlaybookName>,
    },
    /// One delivery of alerts.
    ReceiveAlerts {
        /// Who sent it.
        actor: Actor,
        /// Its alerts, in its order.
        changes: Vec<AlertChange>,
    },
    /// One event other than an alert.
    ReceiveEvent {
        /// Who sent it.
        actor: Actor,
        /// The event.
        event: Arc<Event>,
        /// Whom it is for.
        target: Target,
    },
    /// What came in could not be read.
    KeepDeadLetter {
        /// Who sent it.
        actor: Actor,
        /// The letter.
        letter: DeadLetter,
    },
    /// A dead letter was given to intake again.
    MarkReplayed {
        /// Who asked.
        actor: Actor,
        /// Which.
        id: DeadLetterId,
    },
    /// An attempt came to an end.
    FinishAttempt {
        /// Which.
        attempt: AttemptId,
        /// How.
        outcome: Outcome,
    },
    /// The time of the first timer has come; fires all that are due.
    FireTimers,
    /// End a run early.
    CancelRun {
        /// Who asked.
        actor: Actor,
        /// Which.
        run: RunId,
        /// Why; may be empty.
        reason: String,
        /// Whether what it did is taken back.
        undo: bool,
    },
    /// Say what became of an unknown attempt.
    AnswerStep {
        /// Who says so.
        actor: Actor,
        /// Which run.
        run: RunId,
        /// Which step.
        step: StepKey,
        /// Which item of it, where it has items.
        item: Option<u32>,
        /// What became of it.
        answer: Answer,
        /// What the person adds; may be empty.
        note: String,
    },
    /// Answer a question.
    DecideApproval {
        /// Who; `person` says what is known of them.
        actor: Actor,
        /// What the shell knows of whoever answers.
        person: Person,
        /// Which question.
        approval: ApprovalId,
        /// The answer.
        verdict: Verdict,
        /// The digest of the targets that the person saw.
        digest: String,
        /// Why; may be empty.
        reason: String,
    },
    /// Take back something that is in force.
    UndoContainment {
        /// Who asked.
        actor: Actor,
        /// Which.
        containment: ContainmentId,
        /// Why; may be empty.
        reason: String,
    },
    /// Keep something in force for longer.
    ExtendContainment {
        /// Who asked.
        actor: Actor,
        /// Which.
        containment: ContainmentId,
        /// Until when; none: until somebody takes it back.
        until: Option<Timestamp>,
        /// Why; may be empty.
        reason: String,
    },
    /// Say that something is not in force any more, or never was.
    EndContainment {
        /// Who says so.
        actor: Actor,
        /// Which.
        containment: ContainmentId,
        /// Why.
        reason: String,
    },
    /// Take notice of an incident.
    AcknowledgeIncident {
        /// Who.
        actor: Actor,
        /// Which.
        incident: IncidentId,
    },
    /// Take an incident on, or give it to somebody.
    TakeIncident {
        /// Who says so.
        actor: Actor,
        /// Which.
        incident: IncidentId,
        /// Who leads it from now on.
        owner: Actor,
    },
    /// Write something down.
    NoteIncident {
        /// Who.
        actor: Actor,
        /// Which.
        incident: IncidentId,
        /// What.
        note: String,
    },
    /// Make one incident part of another one.
    MergeIncident {
        /// Who.
        actor: Actor,
        /// Which is no incident of its own any more.
        incident: IncidentId,
        /// Which it becomes part of.
        into: IncidentId,
    },
    /// Start no step with side effects from now on.
    Freeze {
        /// Who.
        actor: Actor,
        /// Why.
        reason: String,
    },
    /// Start them again.
    Unfreeze {
        /// Who.
        actor: Actor,
        /// Why; may be empty.
        reason: String,
    },
    /// Hold runs for some alerts back for a time.
    PlanMaintenance {
        /// Who.
        actor: Actor,
        /// What distinguishes the window, where a file declares it; a window of the same words stays as it is.
        declared: Option<String>,
        /// Alertmanager's matchers, all of which an alert's labels must satisfy.
        matchers: Vec<String>,
        /// From when; none: from now on.
        from: Option<Timestamp>,
        /// Until when.
        to: Timestamp,
        /// Why.
        reason: String,
    },
    /// End a maintenance window before its time.
    EndMaintenance {
        /// Who.
        actor: Actor,
        /// Which.
        maintenance: MaintenanceId,
    },
    /// The wall clock is found not to be where it was.
    NoteClockJump {
        /// How far it is ahead of the engine's, in milliseconds; negative where it is behind.
        by_ms: i64,
    },
    /// Let the engine's clock follow the wall clock.
    AgreeToClock {
        /// Who.
        actor: Actor,
    },
    /// Close an incident by hand.
    ResolveIncident {
        /// Who.
        actor: Actor,
        /// Which.
        incident: IncidentId,
        /// Why; may be empty.
        reason: String,
    },
}

/// What the shell knows of whoever answers a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Their name; `local` where nobody was authenticated.
    pub name: String,
    /// The groups that they belong to.
    pub groups: Vec<String>,
    /// How they were authenticated and from where.
    pub via: String,
}

/// Whom an event is for.
#[derive(Debug, Clone)]
pub enum Target {
    /// Every playbook with a `nats` trigger whose filter takes the subject that it came in on. (A CloudEvent's own
    /// `subject` is another thing: what the event is about.)
    Subject(String),
    /// One trigger of one playbook (a schedule's tick).
    Trigger {
        /// The playbook.
        playbook: PlaybookName,
        /// The index of its trigger.
        trigger: usize,
    },
    /// One playbook, with inputs given by a person.
    Playbook {
        /// The playbook.
        playbook: PlaybookName,
        /// The inputs; those of a `manual` trigger come first and these override them.
        inputs: Map<String, Value>,
    },
}

/// What a command led to, for whoever sent it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Receipt {
    /// The runs that it started.
    pub runs: Vec<RunId>,
    /// The incidents that it opened, joined or reopened.
    pub incidents: Vec<IncidentId>,
    /// Whether it had been seen before and did nothing.
    pub duplicate: bool,
    /// The dead letters that were made of it.
    pub dead_letters: Vec<DeadLetterId>,
    /// Which playbooks matched and could not use it, each with the reason.
    pub unusable: Vec<String>,
    /// Set where the command was refused and that is on the record.
    pub refused: Option<Rejected>,
}

/// Why a command was refused. Nothing was recorded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejected {
    /// No playbook of this name is loaded.
    #[error("no playbook is named {0}")]
    UnknownPlaybook(String),
    /// The inputs do not fit the playbook.
    #[error("{0}")]
    InvalidInputs(String),
    /// No live run has this id.
    #[error("no live run has the id {0}")]
    UnknownRun(RunId),
    /// The run has no such step.
    #[error("the run has no step {0}")]
    UnknownStep(StepKey),
    /// The step does not wait for an answer.
    #[error("step {step} is {state}; only an unknown step takes an answer")]
    NotUnknown {
        /// The step.
        step: StepKey,
        /// The state that it is in.
        state: &'static str,
    },
    /// The run is being cancelled already.
    #[error("run {0} is being cancelled already")]
    AlreadyCancelled(RunId),
    /// No open incident has this id.
    #[error("no open incident has the id {0}")]
    UnknownIncident(IncidentId),
    /// The incident cannot be closed while a run of it is live.
    #[error("incident {0} has live runs; cancel them or let them finish first")]
    IncidentBusy(IncidentId),
    /// No question with this id waits for an answer.
    #[error("no question with the id {0} waits for an answer")]
    UnknownApproval(ApprovalId),
    /// Whoever asked may not do this.
    #[error("{0}")]
    NotAllowed(String),
    /// The answer was given to other targets than are asked about now.
    #[error("what {0} asks about has changed since; look at it again")]
    OtherTargets(ApprovalId),
    /// Nothing with this id is in force.
    #[error("nothing in force has the id {0}")]
    UnknownContainment(ContainmentId),
    /// It is being taken back already.
    #[error("{0} is being taken back")]
    UndoUnderWay(ContainmentId),
    /// Its taking back failed or is unknown, so that no lease can hold it.
    #[error("{0} could not be taken back; undo it again, or say that it is over")]
    NotInForce(ContainmentId),
    /// Side effects are stopped already.
    #[error("it is frozen already")]
    AlreadyFrozen,
    /// Nothing is stopped.
    #[error("it is not frozen")]
    NotFrozen,
    /// No maintenance window has this id.
    #[error("no maintenance window has the id {0}")]
    UnknownMaintenance(MaintenanceId),
    /// The engine's clock follows the wall clock as it is.
    #[error("the wall clock has not jumped")]
    NoClockJump,
    /// A time that is over.
    #[error("that time is over")]
    InThePast,
    /// A result for an attempt of a run that is over or never was.
    #[error("the attempt belongs to no live run")]
    UnknownAttempt,
}

//! What tests reach of a playbook: steps that start, and the ways in which they can go.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use stanch_core::attempt::{AttemptId, Purpose};
use stanch_core::record::{Ending, Then, Verdict};
use stanch_core::{Body, Record, RunId};
use stanch_playbook::plan::OnUnknown;
use stanch_playbook::{Plan, PlaybookName, StepKey, Uses};

/// A way in which a step can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// It starts.
    Starts,
    /// Its `if` is true.
    IfTrue,
    /// Its `if` is false.
    IfFalse,
    /// It fails, tolerated or not; for a wait, it times out.
    Fails,
    /// It is tried again.
    Retries,
    /// Nobody knows whether it happened.
    Unknown,
    /// People say no.
    Denied,
    /// What it did is taken back.
    TakenBack,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starts => "starts",
            Self::IfTrue => "if true",
            Self::IfFalse => "if false",
            Self::Fails => "fails",
            Self::Retries => "is tried again",
            Self::Unknown => "is unknown",
            Self::Denied => "is denied",
            Self::TakenBack => "is taken back",
        })
    }
}

/// What was reached of several playbooks.
#[derive(Debug, Default)]
pub struct Coverage(BTreeMap<PlaybookName, Covered>);

/// What was reached of one.
#[derive(Debug)]
pub struct Covered {
    /// Its plan.
    pub plan: Arc<Plan>,
    reached: BTreeSet<(usize, Way)>,
}

/// How many of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// What was reached.
    pub reached: usize,
    /// What there is.
    pub all: usize,
}

impl Coverage {
    /// Counts a playbook, reached or not.
    pub fn add(&mut self, plan: &Arc<Plan>) {
        let covered = || Covered { plan: Arc::clone(plan), reached: BTreeSet::new() };
        self.0.entry(plan.name.clone()).or_insert_with(covered);
    }

    /// Counts what a history reached.
    pub fn observe(&mut self, records: &[Record]) {
        let mut runs: BTreeMap<RunId, PlaybookName> = BTreeMap::new();
        for record in records {
            if let Body::RunStarted(body) = &record.body {
                runs.insert(body.run, body.playbook.clone());
            }
            if let Some((run, step, ways)) = reached(&record.body) {
                let Some(covered) = runs.get(&run).and_then(|name| self.0.get_mut(name)) else { continue };
                let Some(index) = covered.plan.step_index(step) else { continue };
                covered.reached.extend(ways.iter().map(|way| (index, *way)));
            }
        }
    }

    /// Each playbook with what was reached of it, by name.
    pub fn playbooks(&self) -> impl Iterator<Item = &Covered> {
        self.0.values()
    }

    /// How many steps started, over all playbooks.
    #[must_use]
    pub fn steps(&self) -> Share {
        self.share(|way| way == Way::Starts)
    }

    /// How many ways were taken beside starting.
    #[must_use]
    pub fn ways(&self) -> Share {
        self.share(|way| way != Way::Starts)
    }

    fn share(&self, counts: impl Fn(Way) -> bool) -> Share {
        let mut share = Share::default();
        for covered in self.0.values() {
            for (index, way) in ways(&covered.plan).into_iter().filter(|(_, way)| counts(*way)) {
                share.all += 1;
                share.reached += usize::from(covered.reached.contains(&(index, way)));
            }
        }
        share
    }
}

impl Covered {
    /// What no test reached: each step with its ways, in order.
    #[must_use]
    pub fn missed(&self) -> Vec<(&StepKey, Vec<Way>)> {
        let mut missed: BTreeMap<usize, Vec<Way>> = BTreeMap::new();
        for (index, way) in ways(&self.plan) {
            if !self.reached.contains(&(index, way)) {
                missed.entry(index).or_default().push(way);
            }
        }
        missed.into_iter().map(|(index, ways)| (&self.plan.steps[index].key, ways)).collect()
    }
}

/// All ways of all steps.
fn ways(plan: &Plan) -> Vec<(usize, Way)> {
    let mut ways = Vec::new();
    for (index, step) in plan.steps.iter().enumerate() {
        let mut can = |way, possible: bool| {
            if possible {
                ways.push((index, way));
            }
        };
        // A line of the log is written; there is nothing to test.
        let (action, wait) = match &step.uses {
            Uses::Action(call) => (call.action.as_str() != "log", false),
            Uses::Wait(_) => (false, step.timeout.is_some()),
            Uses::Playbook { .. } => (false, true),
            Uses::Approval(_) | Uses::Undo { .. } => (false, false),
        };
        can(Way::Starts, true);
        can(Way::IfTrue, step.condition.is_some());
        can(Way::IfFalse, step.condition.is_some());
        can(Way::Fails, action || wait);
        can(Way::Retries, action && step.policy.retry.max_attempts > 1);
        can(Way::Unknown, action && step.policy.on_unknown != OnUnknown::Retry);
        can(Way::Denied, matches!(step.uses, Uses::Approval(_)));
        can(Way::TakenBack, step.undo.is_some());
    }
    ways
}

/// The ways that a record shows to have been taken.
fn reached(body: &Body) -> Option<(RunId, &StepKey, &'static [Way])> {
    const STARTS: &[Way] = &[Way::Starts, Way::IfTrue];
    Some(match body {
        Body::AttemptScheduled(body) => {
            let again = body.attempt.number > 1 || body.attempt.generation > 0;
            let ways: &[Way] = match body.attempt.purpose {
                Purpose::Do if again => &[Way::Starts, Way::IfTrue, Way::Retries],
                Purpose::Do => STARTS,
                Purpose::Undo => &[Way::TakenBack],
                Purpose::Verify => return None,
            };
            (body.attempt.run, &body.attempt.step, ways)
        }
        Body::StepWaiting(body) => (body.run, &body.step, STARTS),
        Body::ItemsStarted(body) => (body.run, &body.step, STARTS),
        Body::ApprovalRequested(body) => (body.run, &body.step, STARTS),
        Body::ApprovalDecided(body) if body.verdict == Verdict::Denied => (body.run, &body.step, &[Way::Denied]),
        Body::AttemptSucceeded(body) if fails(body.unsettled.as_ref().map(|of| of.then), &body.attempt) => {
            (body.attempt.run, &body.attempt.step, &[Way::Fails])
        }
        Body::AttemptFailed(body) if fails(Some(body.then), &body.attempt) => {
            (body.attempt.run, &body.attempt.step, &[Way::Fails])
        }
        Body::AttemptUnknown(body) if body.attempt.purpose == Purpose::Do => {
            (body.attempt.run, &body.attempt.step, &[Way::Unknown])
        }
        Body::ItemsEnded(body) if body.failure.is_some() => (body.run, &body.step, &[Way::Fails]),
        Body::StepEnded(body) => match body.ending {
            Ending::Skipped => (body.run, &body.step, &[Way::IfFalse]),
            Ending::Failed | Ending::Tolerated => (body.run, &body.step, &[Way::Fails]),
            Ending::Blocked | Ending::Cancelled => return None,
        },
        Body::EngineStarted(_)
        | Body::EngineStopped(_)
        | Body::PlaybookLoaded(_)
        | Body::PlaybookRemoved(_)
        | Body::AlertFired(_)
        | Body::AlertResolved(_)
        | Body::EventReceived(_)
        | Body::DeadLettered(_)
        | Body::DeadLetterReplayed(_)
        | Body::IncidentOpened(_)
        | Body::IncidentJoined(_)
        | Body::IncidentSettling(_)
        | Body::IncidentReopened(_)
        | Body::IncidentAcknowledged(_)
        | Body::IncidentResolved(_)
        | Body::RunStarted(_)
        | Body::RunReleased(_)
        | Body::RunCancelRequested(_)
        | Body::RunFinished(_)
        | Body::AttemptSucceeded(_)
        | Body::AttemptFailed(_)
        | Body::AttemptLate(_)
        | Body::StepWoken(_)
        | Body::StepAnswered(_)
        | Body::AttemptUnknown(_)
        | Body::ItemsEnded(_)
        | Body::ContainmentStarted(_)
        | Body::ContainmentExtended(_)
        | Body::ContainmentEnded(_)
        | Body::UndoRequested(_)
        | Body::ApprovalEscalated(_)
        | Body::ApprovalDecided(_)
        | Body::RunExtended(_)
        | Body::RunHoldEnded(_)
        | Body::RunRecovering(_)
        | Body::IncidentSettled(_)
        | Body::IncidentEscalated(_)
        | Body::IncidentUpdateDue(_)
        | Body::IncidentTaken(_)
        | Body::IncidentNoted(_)
        | Body::IncidentMerged(_)
        | Body::PlaybookObserved(_)
        | Body::Frozen(_)
        | Body::Unfrozen(_)
        | Body::MaintenancePlanned(_)
        | Body::MaintenanceEnded(_)
        | Body::WatchdogBarked(_)
        | Body::ClockJumped(_)
        | Body::ClockAgreed(_)
        | Body::Redacted(_) => return None,
    })
}

/// Whether a step is over after its attempt, and not well.
fn fails(then: Option<Then>, attempt: &AttemptId) -> bool {
    attempt.purpose != Purpose::Undo && matches!(then, Some(Then::Fail | Then::Tolerate))
}

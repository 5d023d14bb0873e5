//! What the envelope of a record shows of its body.

use stanch_playbook::{PlanDigest, StepKey};

use crate::attempt::AttemptId;
use crate::id::{Epoch, IncidentId, RunId};
use crate::record::Body;

/// What the envelope shows of a body: ids and outcome, no content.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outline<'a> {
    /// The run.
    pub run: Option<RunId>,
    /// The step.
    pub step: Option<&'a StepKey>,
    /// The attempt's number.
    pub attempt: Option<u32>,
    /// The attempt's epoch.
    pub epoch: Option<Epoch>,
    /// The plan.
    pub plan: Option<PlanDigest>,
    /// The outcome, in one word.
    pub outcome: Option<&'static str>,
    /// The incident.
    pub incident: Option<IncidentId>,
}

impl Body {
    /// What the envelope shows of this body.
    #[must_use]
    pub fn outline(&self) -> Outline<'_> {
        let none = Outline::default();
        let of_attempt = |attempt: &'_ AttemptId| Outline {
            run: Some(attempt.run),
            attempt: Some(attempt.number),
            epoch: Some(attempt.epoch),
            ..Outline::default()
        };
        match self {
            Self::EngineStarted(body) => Outline { epoch: Some(body.epoch), ..none },
            Self::PlaybookLoaded(body) => Outline { plan: Some(body.plan), ..none },
            Self::EngineStopped(_)
            | Self::PlaybookRemoved(_)
            | Self::AlertFired(_)
            | Self::AlertResolved(_)
            | Self::EventReceived(_)
            | Self::DeadLettered(_)
            | Self::DeadLetterReplayed(_) => none,
            Self::IncidentOpened(body) => Outline { incident: Some(body.incident), ..none },
            Self::IncidentJoined(body) => Outline { incident: Some(body.incident), ..none },
            Self::IncidentSettling(body) => Outline { incident: Some(body.incident), ..none },
            Self::IncidentReopened(body) => Outline { incident: Some(body.incident), ..none },
            Self::IncidentAcknowledged(body) => Outline { incident: Some(body.incident), ..none },
            Self::IncidentResolved(body) => Outline { incident: Some(body.incident), ..none },
            Self::RunStarted(body) => {
                Outline { run: Some(body.run), plan: Some(body.plan), incident: Some(body.incident), ..none }
            }
            Self::RunReleased(body) => Outline { run: Some(body.run), ..none },
            Self::RunCancelRequested(body) => Outline { run: Some(body.run), ..none },
            Self::RunFinished(body) => Outline { run: Some(body.run), outcome: Some(body.outcome.as_str()), ..none },
            Self::AttemptScheduled(body) => Outline { step: Some(&body.attempt.step), ..of_attempt(&body.attempt) },
            Self::AttemptSucceeded(body) => {
                Outline { step: Some(&body.attempt.step), outcome: Some("succeeded"), ..of_attempt(&body.attempt) }
            }
            Self::AttemptFailed(body) => {
                Outline { step: Some(&body.attempt.step), outcome: Some("failed"), ..of_attempt(&body.attempt) }
            }
            Self::AttemptUnknown(body) => {
                Outline { step: Some(&body.attempt.step), outcome: Some("unknown"), ..of_attempt(&body.attempt) }
            }
            Self::AttemptLate(body) => {
                Outline { step: Some(&body.attempt.step), outcome: Some("late"), ..of_attempt(&body.attempt) }
            }
            Self::StepWaiting(body) => Outline { run: Some(body.run), step: Some(&body.step), ..none },
            Self::StepWoken(body) => {
                Outline { run: Some(body.run), step: Some(&body.step), outcome: Some("succeeded"), ..none }
            }
            Self::StepEnded(body) => {
                Outline { run: Some(body.run), step: Some(&body.step), outcome: Some(body.ending.as_str()), ..none }
            }
            Self::StepAnswered(body) => {
                Outline { run: Some(body.run), step: Some(&body.step), outcome: Some(body.answer.as_str()), ..none }
            }
            Self::ItemsStarted(body) => Outline { run: Some(body.run), step: Some(&body.step), ..none },
            Self::ItemsEnded(body) => Outline {
                run: Some(body.run),
                step: Some(&body.step),
                outcome: Some(body.failure.as_ref().map_or("succeeded", |failure| failure.ending.as_str())),
                ..none
            },
            Self::ContainmentStarted(body) => Outline { run: Some(body.run), step: Some(&body.step), ..none },
            Self::ContainmentExtended(_)
            | Self::ContainmentEnded(_)
            | Self::Frozen(_)
            | Self::Unfrozen(_)
            | Self::MaintenancePlanned(_)
            | Self::MaintenanceEnded(_)
            | Self::WatchdogBarked(_)
            | Self::ClockJumped(_)
            | Self::ClockAgreed(_) => none,
            Self::PlaybookObserved(body) => Outline { plan: Some(body.plan), ..none },
            Self::RunExtended(body) => Outline { run: Some(body.run), ..none },
            Self::RunHoldEnded(body) => Outline { run: Some(body.run), ..none },
            Self::RunRecovering(body) => Outline { run: Some(body.run), ..none },
            Self::IncidentSettled(body) => Outline { incident: Some(body.incident), ..none },
            Self::IncidentEscalated(body) => Outline { incident: Some(body.incident), ..none },
            Self::IncidentUpdateDue(body) => Outline { incident: Some(body.incident), ..none },
            Self::IncidentTaken(body) => Outline { incident: Some(body.incident), ..none },
            Self::IncidentNoted(body) => Outline { incident: Some(body.incident), ..none },
            Self::IncidentMerged(body) => Outline { incident: Some(body.incident), ..none },
            Self::UndoRequested(body) => Outline { run: body.run, ..none },
            Self::ApprovalRequested(body) => Outline { run: Some(body.run), step: Some(&body.step), ..none },
            Self::ApprovalEscalated(body) => Outline { run: Some(body.run), step: Some(&body.step), ..none },
            Self::ApprovalDecided(body) => {
                Outline { run: Some(body.run), step: Some(&body.step), outcome: Some(body.verdict.as_str()), ..none }
            }
            Self::Redacted(body) => Outline { run: body.run, ..none },
        }
    }
}

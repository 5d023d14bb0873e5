//! Errors as people and programs read them: `application/problem+json` (RFC 9457) with a stable code and one remedy.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use stanch_core::{ApprovalId, DeadLetterId, Rejected};

use crate::executor::Refused;
use crate::intake::{Unreadable, shorten};

/// How long a detail may be: it lands in the sender's log.
const DETAIL: usize = 300;

/// An answer that says what went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Problem {
    /// `about:blank`: the code says more than a page would.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// Stable, such as `run.unknown`.
    code: &'static str,
    /// What went wrong here.
    detail: Box<str>,
    /// What can be done about it.
    remedy: String,
    /// The dead letters that keep what came.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    dead_letters: Box<[DeadLetterId]>,
    /// The question that is asked now, where the one that was answered is not any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<Box<ApprovalId>>,
}

impl Problem {
    /// A problem; a long detail is cut.
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        detail: impl AsRef<str>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: shorten(detail.as_ref(), DETAIL).into(),
            remedy: remedy.into(),
            dead_letters: Box::default(),
            approval: None,
        }
    }

    /// No such thing.
    pub(super) fn unknown(code: &'static str, detail: impl AsRef<str>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, detail, remedy)
    }

    /// It does not fit the state that things are in.
    pub(super) fn conflict(code: &'static str, detail: impl AsRef<str>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail, remedy)
    }

    /// It can be tried again in a moment. The reason goes to the log: it may name paths.
    pub(super) fn unavailable(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "a request could not be answered");
        let remedy = "try again in a moment; the engine's log says more";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine.unavailable", "what is stored cannot be read now", remedy)
    }

    /// Something came that cannot be read and is kept. Repeats nothing of what came: that may hold secrets, and this
    /// lands in the sender's log.
    pub(super) fn unreadable(status: StatusCode, unreadable: &Unreadable, kept: Vec<DeadLetterId>) -> Self {
        let detail = "the body cannot be read and is kept as a dead letter";
        let remedy = match kept.first() {
            Some(id) => format!("see why with stanch events dead-letters {id}, and mend the sender"),
            None => "see stanch events dead-letters, and mend the sender".to_owned(),
        };
        Self { dead_letters: kept.into(), ..Self::new(status, unreadable.code, detail, remedy) }
    }

    /// Names the question that is to be looked at instead.
    pub(super) fn ask_instead(&mut self, approval: ApprovalId, remedy: String) {
        self.approval = Some(Box::new(approval));
        self.remedy = remedy;
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.code
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).expect("a problem has text keys alone");
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            let schemes = "Bearer realm=\"stanch\", Basic realm=\"stanch\", charset=\"UTF-8\"";
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(schemes));
        }
        response
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let remedy = "try again in a moment";
        match refused {
            Refused::Rejected(rejected) => rejected.into(),
            Refused::Overloaded => {
                let detail = "the engine has too much to do";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine.overloaded", detail, remedy)
            }
            Refused::Unavailable(_) => {
                let detail = "the engine cannot write its journal now";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine.unavailable", detail, remedy)
            }
        }
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        let detail = rejected.to_string();
        match rejected {
            Rejected::UnknownPlaybook(_) => {
                Self::unknown("playbook.unknown", detail, "GET /api/v1/playbooks lists those that are loaded")
            }
            Rejected::InvalidInputs(_) => {
                let remedy = "GET /api/v1/playbooks/{name} shows the inputs that it takes";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "inputs.invalid", detail, remedy)
            }
            Rejected::UnknownRun(_) => Self::unknown("run.unknown", detail, "stanch runs list shows all runs"),
            Rejected::UnknownStep(_) => {
                Self::unknown("step.unknown", detail, "stanch runs show RUN shows the run's steps")
            }
            Rejected::NotUnknown { .. } => {
                Self::conflict("step.not-unknown", detail, "stanch runs show RUN shows what the run waits for")
            }
            Rejected::AlreadyCancelled(_) => {
                Self::conflict("run.already-cancelled", detail, "wait until what is under way has ended")
            }
            Rejected::UnknownIncident(_) => {
                Self::unknown("incident.unknown", detail, "stanch incidents list shows all incidents")
            }
            Rejected::IncidentBusy(_) => {
                Self::conflict("incident.busy", detail, "stanch runs cancel RUN ends a run early")
            }
            Rejected::UnknownApproval(_) => {
                Self::unknown("approval.unknown", detail, "stanch approvals list shows what waits for an answer")
            }
            Rejected::NotAllowed(_) => {
                let remedy = "stanch approvals show ID says who may decide";
                Self::new(StatusCode::FORBIDDEN, "approval.not-allowed", detail, remedy)
            }
            Rejected::OtherTargets(_) => {
                Self::conflict("approval.targets-changed", detail, "stanch approvals list shows what is asked now")
            }
            Rejected::UnknownContainment(_) => {
                Self::unknown("containment.unknown", detail, "stanch inforce list shows what is in force")
            }
            Rejected::UndoUnderWay(_) => {
                Self::conflict("containment.undoing", detail, "stanch inforce list shows how it stands")
            }
            Rejected::NotInForce(_) => {
                Self::conflict("containment.not-in-force", detail, "stanch inforce undo ID tries to take it back again")
            }
            Rejected::AlreadyFrozen => Self::conflict("freeze.already", detail, "stanch unfreeze ends it"),
            Rejected::NoClockJump => Self::conflict("clock.no-jump", detail, "there is nothing to do"),
            Rejected::NotFrozen => Self::conflict("freeze.none", detail, "there is nothing to do"),
            Rejected::UnknownMaintenance(_) => {
                Self::unknown("maintenance.unknown", detail, "stanch maintenance list shows the windows")
            }
            Rejected::InThePast => {
                let remedy = "give a time to come, such as 4h";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "time.past", detail, remedy)
            }
            Rejected::UnknownAttempt => Self::unknown("attempt.unknown", detail, "stanch runs list shows all runs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overload_is_a_503_that_says_when_to_try_again_and_not_why() {
        for refused in [Refused::Overloaded, Refused::Unavailable("/var/lib/stanch: disk full".to_owned())] {
            let problem = Problem::from(refused);
            assert!(!problem.detail.contains("/var"), "{problem:?}");
            let response = problem.into_response();
            assert_eq!(
                (response.status().as_u16(), &response.headers()["retry-after"]),
                (503, &HeaderValue::from_static("1"))
            );
        }
    }

    #[test]
    fn a_long_detail_is_cut() {
        let problem = Problem::unknown("x", "é".repeat(5000), "y");
        assert_eq!(problem.detail.chars().count(), DETAIL + 1);
    }
}

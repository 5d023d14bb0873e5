//! `Prefer: wait=N` (RFC 7240), and the answer of whatever starts runs.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use stanch_core::{DeadLetterId, IncidentId, Receipt, RunId};
use stanch_journal::Table;

use super::Http;
use crate::summary::RunSummary;

/// The longest wait, in seconds.
const LONGEST: u64 = 300;

/// How long the sender would wait for the runs that it starts to be over, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait(Option<u64>);

impl Wait {
    /// What the request prefers; what cannot be read counts as not said.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all("prefer").into_iter().filter_map(|value| value.to_str().ok());
        let preferences = values.flat_map(|value| value.split(','));
        let wait = preferences.filter_map(|preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("wait").then(|| value.parse::<u64>().ok()).flatten()
        });
        // RFC 7240, 2: the first one counts.
        Self(wait.map(|seconds| seconds.min(LONGEST)).next())
    }
}

/// What was started.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Started {
    /// The runs, each as it stood when this was answered.
    pub runs: Vec<StartedRun>,
    /// The incidents that were opened, joined or reopened.
    pub incidents: Vec<IncidentId>,
    /// Whether it had been seen before and did nothing.
    pub duplicate: bool,
    /// The dead letters that keep what could not be read of it, and what a playbook that matched could not use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dead_letters: Vec<DeadLetterId>,
    /// How many alerts the sender left out (`max_alerts`).
    #[serde(skip_serializing_if = "is_zero")]
    pub truncated: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A run that was started.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StartedRun {
    /// Its id.
    pub id: RunId,
    /// queued, running, waiting, succeeded, failed or cancelled.
    pub state: String,
}

impl Http {
    /// Answers for what a receipt says was started, once it is over or the preferred time is.
    pub(super) async fn started(&self, status: StatusCode, receipt: Receipt, wait: Wait, truncated: u64) -> Response {
        if let Some(seconds) = wait.0
            && !receipt.runs.is_empty()
        {
            let finished = self.app.handle.finished(receipt.runs.clone());
            tokio::time::timeout(Duration::from_secs(seconds), finished).await.ok();
        }
        let runs = self.states(&receipt.runs);
        let Receipt { incidents, duplicate, dead_letters, .. } = receipt;
        let started = Started { runs, incidents, duplicate, dead_letters, truncated };
        let mut response = (status, Json(started)).into_response();
        if let Some(seconds) = wait.0 {
            let applied = HeaderValue::from_str(&format!("wait={seconds}")).expect("digits fit a header");
            response.headers_mut().insert("preference-applied", applied);
        }
        response
    }

    fn states(&self, runs: &[RunId]) -> Vec<StartedRun> {
        let state = self.app.handle.state();
        let of = |id: &RunId| {
            let run = match state.runs.get(id) {
                Some(run) => run.state().to_owned(),
                None => self.summary_of(*id).map_or_else(|| "over".to_owned(), |summary| summary.state),
            };
            StartedRun { id: *id, state: run }
        };
        runs.iter().map(of).collect()
    }

    /// What the views say of a run that is over.
    pub(super) fn summary_of(&self, id: RunId) -> Option<RunSummary> {
        let views = Arc::clone(&self.app.views);
        let bytes = views.get(Table::Runs, id.0.as_bytes()).ok().flatten()?;
        serde_json::from_slice(&bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wait_that_can_be_read_counts_and_is_capped() {
        for (values, wait) in [
            (&["wait=10"][..], Some(10)),
            (&["respond-async, Wait = \"7\""], Some(7)),
            (&["wait=3; x=y, wait=9"], Some(3)),
            (&["return=minimal", "wait=4"], Some(4)),
            (&["wait=9999"], Some(300)),
            (&["wait=0"], Some(0)),
            (&["wait=-1"], None),
            (&["wait"], None),
            (&["wait=soon"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("prefer", HeaderValue::from_static(value));
            }
            assert_eq!(Wait::of(&headers), Wait(wait), "{values:?}");
        }
    }
}

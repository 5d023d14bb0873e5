//! `/healthz`, `/readyz`, `/metrics`, and the description of all routes.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use stanch_core::Epoch;
use stanch_core::containment::UndoState;
use stanch_playbook::PlaybookName;

use super::openapi::{Doc, Routes, document};
use super::{Http, Shared};
use crate::app::NatsStatus;
use crate::summary::questions;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/healthz", async || "ok\n", Doc::new("Answers while the process lives").lines("text/plain"))
        .get(
            "/readyz",
            ready,
            Doc::new("Says whether alerts are taken: playbooks are loaded and the journal takes records")
                .answer::<Readiness>(StatusCode::OK)
                .answer::<Readiness>(StatusCode::SERVICE_UNAVAILABLE),
        )
        .get("/metrics", metrics, Doc::new("Gives metrics in Prometheus's text format").lines("text/plain"))
        .get("/api/v1/openapi.json", async || Json(document()), Doc::new("Describes all routes").json())
}

/// Whether alerts are taken.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Readiness {
    /// Whether they are.
    ready: bool,
    /// `ok`, or why the journal takes no records.
    journal: String,
    /// unused, connected, or why not connected; the engine serves on without it.
    nats: String,
    /// The playbooks.
    playbooks: PlaybookCounts,
}

/// How many playbooks there are.
#[derive(Debug, Serialize, JsonSchema)]
struct PlaybookCounts {
    /// Those that new runs use.
    loaded: usize,
    /// Files that could not be loaded.
    broken: usize,
}

async fn ready(State(http): State<Shared>) -> Response {
    let readiness = http.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

impl Http {
    fn readiness(&self) -> Readiness {
        let state = self.app.handle.state();
        let journal = self.app.handle.health().journal;
        let nats = match &*self.app.nats.borrow() {
            NatsStatus::Unused => "unused".to_owned(),
            NatsStatus::Connected => "connected".to_owned(),
            NatsStatus::Disconnected { reason } => format!("disconnected: {reason}"),
        };
        let broken = self.app.problems.borrow().len();
        Readiness {
            // The epoch is that of the first record that an engine writes.
            ready: journal.is_none() && state.epoch > Epoch(0),
            journal: journal.unwrap_or_else(|| "ok".to_owned()),
            nats,
            playbooks: PlaybookCounts { loaded: state.playbooks.len(), broken },
        }
    }
}

async fn metrics(State(http): State<Shared>) -> Response {
    let state = http.app.handle.state();
    let readiness = http.readiness();
    let open = state.incidents.values().filter(|incident| incident.is_open()).count();
    let gauge = |yes: bool| usize::from(yes);
    let connected = *http.app.nats.borrow() == NatsStatus::Connected;
    http.metrics.catch_up(&http.app).await;
    let mut text = http.metrics.render();
    for (name, help, value) in [
        ("stanch_runs_live", "Runs that are not over.", state.runs.len()),
        ("stanch_incidents_open", "Incidents that are not resolved.", open),
        ("stanch_playbooks_loaded", "Playbooks that new runs use.", readiness.playbooks.loaded),
        ("stanch_playbooks_broken", "Playbook files that could not be loaded.", readiness.playbooks.broken),
        ("stanch_nats_connected", "Whether the engine is connected to NATS.", gauge(connected)),
        ("stanch_frozen", "Whether new steps with side effects are stopped.", gauge(state.frozen.is_some())),
        ("stanch_ready", "Whether alerts are taken.", gauge(readiness.ready)),
        (
            "stanch_journal_sequence",
            "The sequence of the last durable record.",
            usize::try_from(state.sequence.0).unwrap_or(usize::MAX),
        ),
    ] {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
    }
    text.push_str("# HELP stanch_steps_unknown Steps that are unknown and wait for a person's answer.\n");
    text.push_str("# TYPE stanch_steps_unknown gauge\n");
    // A zero for each loaded playbook: a rule on a series that is not there never fires.
    let mut asks: BTreeMap<&PlaybookName, usize> = state.playbooks.keys().map(|name| (name, 0)).collect();
    for run in state.runs.values() {
        *asks.entry(&run.playbook).or_insert(0) += questions(run);
    }
    for (playbook, count) in asks {
        text.push_str(&format!("stanch_steps_unknown{{playbook=\"{playbook}\"}} {count}\n"));
    }
    text.push_str("# HELP stanch_approvals_waiting Questions that wait for a person's answer.\n");
    text.push_str("# TYPE stanch_approvals_waiting gauge\n");
    let mut waiting: BTreeMap<&PlaybookName, usize> = state.playbooks.keys().map(|name| (name, 0)).collect();
    for (run, _, _) in state.questions() {
        *waiting.entry(&run.playbook).or_insert(0) += 1;
    }
    for (playbook, count) in waiting {
        text.push_str(&format!("stanch_approvals_waiting{{playbook=\"{playbook}\"}} {count}\n"));
    }
    text.push_str("# HELP stanch_containments_inforce What is in force, by how taking it back stands.\n");
    text.push_str("# TYPE stanch_containments_inforce gauge\n");
    let mut containments: BTreeMap<&str, usize> = UndoState::WORDS.iter().map(|word| (*word, 0)).collect();
    for of in state.inforce.values() {
        *containments.entry(of.state.as_str()).or_insert(0) += 1;
    }
    for (word, count) in containments {
        text.push_str(&format!("stanch_containments_inforce{{state=\"{word}\"}} {count}\n"));
    }
    let version = env!("CARGO_PKG_VERSION");
    text.push_str("# HELP stanch_build_info The version of stanch.\n# TYPE stanch_build_info gauge\n");
    text.push_str(&format!("stanch_build_info{{version=\"{version}\"}} 1\n"));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::app::NatsStatus;
    use crate::http::testing::{Engine, firing, get, post};

    const ANY: &str = "playbook: any\ntriggers:\n  - alertmanager: {matchers: ['alertname=~\".+\"']}\n\
                       detect:\n  note: {uses: log, with: {message: seen}}\n";

    #[tokio::test]
    async fn readiness_says_how_nats_stands_and_does_not_depend_on_it() {
        let engine = Engine::start(&[ANY]).await;
        let answer = engine.send(get("/readyz")).await;
        let playbooks = json!({"loaded": 1, "broken": 0});
        assert_eq!(answer.json, json!({"ready": true, "journal": "ok", "nats": "unused", "playbooks": playbooks}));
        engine.nats.send_replace(NatsStatus::Disconnected { reason: "refused".to_owned() });
        let answer = engine.send(get("/readyz")).await;
        assert_eq!((answer.status, &answer.json["nats"]), (200, &json!("disconnected: refused")));
        assert!(engine.metrics().await.contains("\nstanch_nats_connected 0\n"));
        engine.nats.send_replace(NatsStatus::Connected);
        assert!(engine.metrics().await.contains("\nstanch_nats_connected 1\n"));
    }

    #[tokio::test]
    async fn metrics_count_what_became_durable() {
        let engine = Engine::start(&[ANY]).await;
        let answer = engine.send(post("/webhooks/alertmanager/eu", firing("A")).header("prefer", "wait=20")).await;
        assert_eq!(answer.json["runs"][0]["state"], "succeeded");
        engine.send(post("/webhooks/alertmanager/eu", "nonsense")).await;
        let lines = [
            "stanch_runs_total{playbook=\"any\",outcome=\"succeeded\"} 1",
            "stanch_attempts_total{playbook=\"any\",phase=\"detect\",action=\"log\",outcome=\"succeeded\"} 1",
            "stanch_alerts_received_total{source=\"eu\",status=\"firing\"} 1",
            "stanch_dead_letters_total 1",
            "stanch_incidents_open 1",
            "stanch_http_requests_total{route=\"/webhooks/alertmanager/{source}\",method=\"POST\",code=\"200\"} 1",
        ];
        let text = engine.metrics().await;
        for line in lines {
            assert!(text.contains(&format!("\n{line}\n")), "{line} is not in\n{text}");
        }
    }
}

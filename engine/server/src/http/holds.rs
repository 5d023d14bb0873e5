//! What holds runs back: a freeze of all side effects, and maintenance windows.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stanch_core::state::Window;
use stanch_core::{Command, MaintenanceId};
use stanch_playbook::{Timestamp, parse_duration};

use super::body::Nothing;
use super::extract::Segment;
use super::guard::By;
use super::openapi::{Doc, Routes, schema};
use super::problem::Problem;
use super::{Shared, body};

pub(super) fn routes(routes: Routes) -> Routes {
    let freezing = |summary| {
        Doc::new(summary)
            .body("application/json", Some(schema::<FreezeRequest>))
            .answer::<FreezeView>(StatusCode::OK)
            .problems(&[400, 401, 409, 415, 422, 503])
    };
    routes
        .get(
            "/api/v1/freeze",
            frozen,
            Doc::new("Says whether steps with side effects are stopped").answer::<FreezeView>(StatusCode::OK),
        )
        .post("/api/v1/freeze", freeze, freezing("Stops new steps with side effects, in all runs"))
        .post("/api/v1/unfreeze", unfreeze, freezing("Lets steps with side effects start again"))
        .get(
            "/api/v1/maintenance",
            list,
            Doc::new("Lists the maintenance windows that are not over").answer::<Windows>(StatusCode::OK),
        )
        .post(
            "/api/v1/maintenance",
            plan,
            Doc::new("Holds runs for some alerts back for a time")
                .body("application/json", Some(schema::<MaintenanceRequest>))
                .answer::<Windows>(StatusCode::OK)
                .problems(&[400, 401, 415, 422, 503]),
        )
        .post(
            "/api/v1/maintenance/{id}/end",
            end,
            Doc::new("Ends a maintenance window before its time; the runs that it held go on")
                .answer::<Windows>(StatusCode::OK)
                .problems(&[400, 401, 404, 415, 503]),
        )
}

/// Whether steps with side effects are stopped.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FreezeView {
    /// Whether they are.
    frozen: bool,
    /// Who stopped them.
    by: Option<String>,
    /// Why.
    reason: Option<String>,
    /// Since when.
    since: Option<Timestamp>,
}

async fn frozen(State(http): State<Shared>) -> Json<FreezeView> {
    let state = http.app.handle.state();
    Json(match &state.frozen {
        Some((by, reason, since)) => FreezeView {
            frozen: true,
            by: Some(by.as_str().to_owned()),
            reason: Some(reason.to_string()),
            since: Some(*since),
        },
        None => FreezeView { frozen: false, by: None, reason: None, since: None },
    })
}

/// Says why.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FreezeRequest {
    /// Why; stands in the record. A freeze needs one.
    reason: String,
}

async fn freeze(State(http): State<Shared>, by: By, request: Request) -> Result<Json<FreezeView>, Problem> {
    let FreezeRequest { reason } = body::json(request).await?;
    if reason.trim().is_empty() {
        let remedy = "say why, for whoever wonders at night";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "freeze.reason", "a freeze needs a reason", remedy));
    }
    http.app.handle.submit(Command::Freeze { actor: by.actor(), reason }).await?;
    Ok(frozen(State(http)).await)
}

async fn unfreeze(State(http): State<Shared>, by: By, request: Request) -> Result<Json<FreezeView>, Problem> {
    let FreezeRequest { reason } = body::json(request).await?;
    http.app.handle.submit(Command::Unfreeze { actor: by.actor(), reason }).await?;
    Ok(frozen(State(http)).await)
}

/// The maintenance windows that are not over.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Windows {
    /// The earliest first.
    items: Vec<WindowView>,
}

/// A maintenance window.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WindowView {
    /// Its id.
    id: MaintenanceId,
    /// Which alerts it is about.
    matchers: Vec<String>,
    /// From when.
    from: Timestamp,
    /// Until when.
    to: Timestamp,
    /// Why.
    reason: String,
    /// Who planned it.
    by: String,
    /// Whether it has begun.
    active: bool,
}

async fn list(State(http): State<Shared>) -> Json<Windows> {
    let state = http.app.handle.state();
    let at = http.app.handle.now();
    let view = |window: &std::sync::Arc<Window>| WindowView {
        id: window.planned.maintenance,
        matchers: window.planned.matchers.clone(),
        from: window.planned.from,
        to: window.planned.to,
        reason: window.planned.reason.clone(),
        by: window.by.as_str().to_owned(),
        active: window.planned.from <= at,
    };
    let mut items: Vec<WindowView> = state.maintenance.values().map(view).collect();
    items.sort_by_key(|window| (window.from, window.id));
    Json(Windows { items })
}

/// Plans a maintenance window.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MaintenanceRequest {
    /// Alertmanager's matchers, all of which an alert's labels must satisfy.
    matchers: Vec<String>,
    /// From when; from now on, where none is given.
    #[serde(default)]
    from: Option<Timestamp>,
    /// Until when; this or `for`.
    #[serde(default)]
    to: Option<Timestamp>,
    /// For how long, such as `2h`.
    #[serde(default, rename = "for")]
    length: Option<String>,
    /// Why; stands in the record.
    reason: String,
}

async fn plan(State(http): State<Shared>, by: By, request: Request) -> Result<Json<Windows>, Problem> {
    let MaintenanceRequest { matchers, from, to, length, reason } = body::json(request).await?;
    let unusable = |detail: String| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "maintenance.time", detail, "give to, or for such as 2h")
    };
    let to = match (to, length) {
        (Some(to), None) => to,
        (None, Some(length)) => {
            let length = parse_duration(&length).map_err(|error| unusable(format!("for: {error}")))?;
            from.unwrap_or_else(|| http.app.handle.now()).plus(length)
        }
        _ => return Err(unusable("a window needs either to or for".to_owned())),
    };
    let actor = by.actor();
    let command = Command::PlanMaintenance { actor, declared: None, matchers, from, to, reason };
    http.app.handle.submit(command).await?;
    Ok(list(State(http)).await)
}

async fn end(State(http): State<Shared>, by: By, id: Segment, request: Request) -> Result<Json<Windows>, Problem> {
    let maintenance = id.id("maintenance", "maintenance.unknown")?;
    let Nothing {} = body::json(request).await?;
    http.app.handle.submit(Command::EndMaintenance { actor: by.actor(), maintenance }).await?;
    Ok(list(State(http)).await)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::http::testing::{Engine, firing, get, post};

    const ACT: &str = "playbook: act\ntriggers:\n  - alertmanager: {matchers: ['alertname=~\".+\"']}\n\
                       detect:\n  act: {uses: exec, with: {argv: [\"true\"]}}\n";

    #[tokio::test]
    async fn a_freeze_needs_a_reason_stops_what_acts_and_says_who_did_it() {
        let engine = Engine::start(&[ACT]).await;
        assert_eq!(engine.send(post("/api/v1/freeze", "{}")).await.json["code"], "freeze.reason");
        let frozen = engine.send(post("/api/v1/freeze", "{\"reason\": \"a release\"}")).await.json;
        assert_eq!((&frozen["frozen"], &frozen["by"]), (&json!(true), &json!("person:local")));
        assert_eq!(engine.send(post("/api/v1/freeze", "{\"reason\": \"x\"}")).await.status, 409);
        engine.send(post("/webhooks/alertmanager", firing("A"))).await;
        let list = engine.send(get("/api/v1/runs")).await.json;
        let path = format!("/api/v1/runs/{}", list["items"][0]["id"].as_str().unwrap());
        assert_eq!(engine.send(get(&path)).await.json["state"], "running");
        let thawed = engine.send(post("/api/v1/unfreeze", "{}")).await.json;
        assert_eq!(thawed["frozen"], false);
        assert_eq!(engine.send(post("/api/v1/unfreeze", "{}")).await.json["code"], "freeze.none");
    }

    #[tokio::test]
    async fn a_run_says_what_keeps_it_from_going_on() {
        const ACTS: &str = "detect:\n  look: {uses: log, with: {message: x}}\n  \
                            act: {needs: [look], uses: exec, with: {argv: [\"true\"]}}\n";
        let head = |name: &str, rest: &str| {
            format!("playbook: {name}\n{rest}triggers:\n  - alertmanager: {{matchers: ['alertname=\"{name}\"']}}\n")
        };
        let wait = "detect:\n  a: {uses: wait, with: {duration: 10m}}\n";
        let each = "detect:\n  act: {foreach: '[1, 2]', budget: few, uses: exec, with: {argv: [\"true\"]}}\n";
        let playbooks = [
            head("acts", "") + ACTS,
            head("upkeep", "") + ACTS,
            head("holds", "hold: 10m\n") + ACTS,
            head("gathers", "").replace("\"']}", "\"']}\n    group_wait: 10m") + wait,
            head("spends", "") + each,
            head("one", "concurrency: 1\n") + wait,
            head("again", "incident: {on_repeat: queue}\n").replace("\"']}", "\"']}\n    key: k") + wait,
            head("parent", "") + "detect:\n  sub: {uses: playbook, with: {playbook: acts}}\n",
        ];
        let engine = Engine::start(&playbooks.each_ref().map(String::as_str)).await;
        let held = async |playbook: &str| {
            let path = format!("/api/v1/runs?playbook={playbook}&limit=1");
            let run = engine.send(get(&path)).await.json["items"][0].clone();
            engine.idle(run["id"].as_str().unwrap()).await;
            engine.send(get(&format!("/api/v1/runs/{}", run["id"].as_str().unwrap()))).await.json["held"].clone()
        };
        let fire = async |name: &str| engine.send(post("/webhooks/alertmanager", firing(name))).await;
        engine.send(post("/api/v1/freeze", "{\"reason\": \"a release\"}")).await;
        let body = json!({"matchers": ["alertname=\"upkeep\""], "for": "2h", "reason": "switches"}).to_string();
        engine.send(post("/api/v1/maintenance", body)).await;
        for name in ["acts", "upkeep", "holds", "gathers", "one", "again", "parent"] {
            fire(name).await;
        }
        engine.run("one").await;
        engine.send(post("/webhooks/alertmanager/other", firing("again"))).await;
        for (playbook, by, why, remedy) in [
            ("acts", "freeze", "person:local froze side effects, such as detect.act, at 2", "stanch unfreeze"),
            ("parent", "freeze", "a release", "stanch unfreeze"),
            ("upkeep", "maintenance", "UTC: switches", "stanch maintenance end 0"),
            ("gathers", "group_wait", "more alerts of its incident may come until 2", "it goes on by itself"),
            ("one", "concurrency", "1 runs of its playbook", "stanch runs list --playbook one"),
            ("again", "on_repeat", "an earlier run", "stanch runs show 0"),
        ] {
            let held = held(playbook).await;
            let told = |key: &str, part: &str| held[key].as_str().unwrap_or_default().contains(part);
            assert!(held["by"] == by && told("why", why) && told("remedy", remedy), "{playbook}: {held:#}");
        }
        assert!(engine.metrics().await.contains("\nstanch_frozen 1\n"));
        engine.send(post("/api/v1/unfreeze", "{}")).await;
        assert!(engine.metrics().await.contains("\nstanch_frozen 0\n"));
        assert_eq!(held("acts").await, json!(null), "nothing keeps it");
        let held_by_time = held("holds").await;
        assert_eq!(
            (&held_by_time["by"], held_by_time["until"].is_string()),
            (&json!("hold"), true),
            "{held_by_time:#}"
        );
        fire("spends").await;
        let held = held("spends").await;
        assert_eq!(held["why"], "the budget few does not allow detect.act", "{held:#}");
        assert!(held["remedy"].as_str().unwrap().starts_with("stanch approve 0"), "{held:#}");
    }

    #[tokio::test]
    async fn a_maintenance_window_is_planned_listed_and_ended() {
        let engine = Engine::start(&[ACT]).await;
        let bad = engine.send(post("/api/v1/maintenance", "{\"matchers\": [\"a=\"], \"reason\": \"x\"}")).await;
        assert_eq!((bad.status, &bad.json["code"]), (422, &json!("maintenance.time")));
        let body = json!({"matchers": ["alertname=\"A\""], "for": "2h", "reason": "switches"}).to_string();
        let windows = engine.send(post("/api/v1/maintenance", body)).await.json;
        assert_eq!(windows["items"][0]["active"], true, "{windows}");
        engine.send(post("/webhooks/alertmanager", firing("A"))).await;
        let list = engine.send(get("/api/v1/runs")).await.json;
        let path = format!("/api/v1/runs/{}", list["items"][0]["id"].as_str().unwrap());
        assert_eq!(engine.send(get(&path)).await.json["state"], "queued");
        let id = windows["items"][0]["id"].as_str().unwrap();
        let left = engine.send(post(&format!("/api/v1/maintenance/{id}/end"), "{}")).await.json;
        assert_eq!(left["items"], json!([]));
        assert_ne!(engine.send(get(&path)).await.json["state"], "queued");
        assert_eq!(engine.send(post(&format!("/api/v1/maintenance/{id}/end"), "{}")).await.status, 404);
    }
}

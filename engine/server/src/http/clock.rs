//! The engine's clock, where the wall clock has jumped and nobody has agreed to that.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stanch_core::Command;
use stanch_playbook::Timestamp;

use super::guard::By;
use super::openapi::{Doc, Routes};
use super::problem::Problem;
use super::{Shared, body};

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/api/v1/clock", show, Doc::new("Says how the engine's clock goes").answer::<ClockView>(StatusCode::OK))
        .post(
            "/api/v1/clock/agree",
            agree,
            Doc::new(
                "Lets the engine's clock follow the wall clock after a jump; what is due by it comes about at once",
            )
            .answer::<ClockView>(StatusCode::OK)
            .problems(&[400, 401, 409, 415, 503]),
        )
}

/// How the engine's clock goes.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ClockView {
    /// What it shows.
    now: Timestamp,
    /// The jump that it has not followed; null: it goes by the wall clock.
    jump: Option<JumpView>,
}

/// A jump of the wall clock that nobody has agreed to.
#[derive(Debug, Serialize, JsonSchema)]
struct JumpView {
    /// How far the wall clock is ahead, in milliseconds; negative: behind.
    by_ms: i64,
    /// When that was found, by the engine's clock.
    since: Timestamp,
    /// When it is followed without an agreement.
    until: Timestamp,
}

async fn show(State(http): State<Shared>) -> Json<ClockView> {
    let jump = http.app.handle.state().clock_jump;
    let jump = jump.map(|jump| JumpView { by_ms: jump.by_ms, since: jump.since, until: jump.until() });
    Json(ClockView { now: http.app.handle.now(), jump })
}

/// Takes no words.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Nothing {}

async fn agree(State(http): State<Shared>, by: By, request: Request) -> Result<Json<ClockView>, Problem> {
    let Nothing {} = body::json(request).await?;
    http.app.handle.submit(Command::AgreeToClock { actor: by.actor() }).await?;
    Ok(show(State(http)).await)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::http::testing::{Engine, get, post};

    #[tokio::test]
    async fn a_jump_of_the_wall_clock_is_shown_until_a_person_agrees() {
        let engine = Engine::start(&[]).await;
        assert_eq!(engine.send(get("/api/v1/clock")).await.json["jump"], Value::Null);
        assert_eq!(engine.send(post("/api/v1/clock/agree", "{}")).await.json["code"], "clock.no-jump");
        engine.wall.jump(-3600);
        // Whatever is decided next finds it.
        engine.send(post("/api/v1/freeze", "{\"reason\": \"x\"}")).await;
        let held = engine.send(get("/api/v1/clock")).await.json;
        let by = held["jump"]["by_ms"].as_i64().unwrap();
        assert!((-3_600_500..=-3_599_500).contains(&by), "{held}");
        assert_eq!(engine.send(post("/api/v1/clock/agree", "{}")).await.json["jump"], Value::Null);
        let trail = String::from_utf8(engine.send(get("/api/v1/audit")).await.body).unwrap();
        let of = |kind: &str| trail.lines().filter(|line| line.contains(kind)).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!((of("ClockJumped").len(), of("ClockAgreed").len()), (1, 1), "{trail}");
        assert!(of("ClockAgreed")[0].contains("person:local"), "{trail}");
    }
}

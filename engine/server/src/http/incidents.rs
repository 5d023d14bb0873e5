//! Incidents: listed, shown, acknowledged, closed by hand.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use stanch_core::record::Actor;
use stanch_core::{Command, IncidentId, Rejected};
use stanch_journal::Table;

use super::body::Nothing;
use super::extract::{Asked, Segment};
use super::guard::By;
use super::openapi::{Doc, Routes, SchemaOf, schema};
use super::page::{ListQuery, Page};
use super::problem::Problem;
use super::{Http, Shared, body};
use crate::executor::Refused;
use crate::summary::IncidentSummary;

pub(super) fn routes(routes: Routes) -> Routes {
    let act = |summary, words: SchemaOf| {
        Doc::new(summary)
            .body("application/json", Some(words))
            .answer::<IncidentSummary>(StatusCode::OK)
            .problems(&[400, 401, 404, 409, 415, 422, 503])
    };
    routes
        .get(
            "/api/v1/incidents",
            list,
            Doc::new("Lists incidents, newest first")
                .query("state", "open, acknowledged or resolved")
                .pages()
                .answer::<Page<IncidentSummary>>(StatusCode::OK)
                .problems(&[400]),
        )
        .get(
            "/api/v1/incidents/{id}",
            show,
            Doc::new("Shows an incident").answer::<IncidentSummary>(StatusCode::OK).problems(&[404]),
        )
        .post(
            "/api/v1/incidents/{id}/ack",
            acknowledge,
            Doc::new("Takes notice of an incident")
                .answer::<IncidentSummary>(StatusCode::OK)
                .problems(&[400, 401, 404, 409, 415, 503]),
        )
        .post(
            "/api/v1/incidents/{id}/take",
            take,
            act("Takes an incident on, or gives it to somebody", schema::<TakeRequest>),
        )
        .post("/api/v1/incidents/{id}/note", note, act("Writes something down", schema::<NoteRequest>))
        .post(
            "/api/v1/incidents/{id}/merge",
            merge,
            act("Makes an incident part of another one; answers with that one", schema::<MergeRequest>),
        )
        .post("/api/v1/incidents/{id}/resolve", resolve, act("Closes an incident by hand", schema::<ResolveRequest>))
}

async fn list(
    State(http): State<Shared>,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<Page<IncidentSummary>>, Problem> {
    let state = http.app.handle.state();
    let live = state.incidents.iter().rev().map(|(id, incident)| (id.0, IncidentSummary::of(incident))).collect();
    let wanted = query.state.clone();
    let keep = move |incident: &IncidentSummary| wanted.as_ref().is_none_or(|state| incident.state == *state);
    http.page(&query, Table::Incidents, live, keep).await.map(Json)
}

async fn show(State(http): State<Shared>, id: Segment) -> Result<Json<IncidentSummary>, Problem> {
    http.incident(id.id("incident", "incident.unknown")?).map(Json)
}

async fn acknowledge(
    State(http): State<Shared>,
    by: By,
    id: Segment,
    request: Request,
) -> Result<Json<IncidentSummary>, Problem> {
    let incident = id.id("incident", "incident.unknown")?;
    let Nothing {} = body::json(request).await?;
    let command = Command::AcknowledgeIncident { actor: by.actor(), incident };
    http.command_incident(incident, command).await
}

/// Takes an incident on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TakeRequest {
    /// Who leads it from now on, by name; whoever asks, where nobody is named.
    owner: Option<String>,
}

async fn take(
    State(http): State<Shared>,
    by: By,
    id: Segment,
    request: Request,
) -> Result<Json<IncidentSummary>, Problem> {
    let incident = id.id("incident", "incident.unknown")?;
    let TakeRequest { owner } = body::json(request).await?;
    let owner = match owner {
        Some(name) if !crate::people::is_name(&name) => {
            let remedy = "name a person as people in stanch.yaml does";
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "person.invalid",
                "no name of a person",
                remedy,
            ));
        }
        Some(name) => Actor::person(&name),
        None => by.actor(),
    };
    http.command_incident(incident, Command::TakeIncident { actor: by.actor(), incident, owner }).await
}

/// Writes something down.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoteRequest {
    /// What; at most 4,000 characters.
    note: String,
}

async fn note(
    State(http): State<Shared>,
    by: By,
    id: Segment,
    request: Request,
) -> Result<Json<IncidentSummary>, Problem> {
    let incident = id.id("incident", "incident.unknown")?;
    let NoteRequest { note } = body::json(request).await?;
    if note.trim().is_empty() || note.chars().count() > 4_000 {
        let detail = "a note has 1 to 4,000 characters";
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "note.length",
            detail,
            "shorten it, or write several",
        ));
    }
    http.command_incident(incident, Command::NoteIncident { actor: by.actor(), incident, note }).await
}

/// Makes an incident part of another one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MergeRequest {
    /// Which one it becomes part of.
    into: IncidentId,
}

async fn merge(
    State(http): State<Shared>,
    by: By,
    id: Segment,
    request: Request,
) -> Result<Json<IncidentSummary>, Problem> {
    let incident: IncidentId = id.id("incident", "incident.unknown")?;
    let MergeRequest { into } = body::json(request).await?;
    if incident == into {
        let detail = "an incident cannot become part of itself";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "incident.same", detail, "name another incident"));
    }
    let Json(_) = http.command_incident(incident, Command::MergeIncident { actor: by.actor(), incident, into }).await?;
    http.incident(into).map(Json)
}

/// Closes an incident by hand.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ResolveRequest {
    /// Why; stands in the record.
    reason: String,
}

async fn resolve(
    State(http): State<Shared>,
    by: By,
    id: Segment,
    request: Request,
) -> Result<Json<IncidentSummary>, Problem> {
    let incident = id.id("incident", "incident.unknown")?;
    let ResolveRequest { reason } = body::json(request).await?;
    let command = Command::ResolveIncident { actor: by.actor(), incident, reason };
    http.command_incident(incident, command).await
}

impl Http {
    fn incident(&self, id: IncidentId) -> Result<IncidentSummary, Problem> {
        if let Some(incident) = self.app.handle.state().incidents.get(&id) {
            return Ok(IncidentSummary::of(incident));
        }
        let stored = self.app.views.get(Table::Incidents, id.0.as_bytes()).map_err(Problem::unavailable)?;
        let stored = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        stored.ok_or_else(|| {
            let remedy = "stanch incidents list shows all incidents";
            Problem::unknown("incident.unknown", format!("no incident has the id {id}"), remedy)
        })
    }

    async fn command_incident(&self, id: IncidentId, command: Command) -> Result<Json<IncidentSummary>, Problem> {
        match self.app.handle.submit(command).await {
            Ok(_) => self.incident(id).map(Json),
            // What is not open may have been.
            Err(Refused::Rejected(Rejected::UnknownIncident(_))) => {
                let IncidentSummary { state, .. } = self.incident(id)?;
                let detail = format!("the incident is {state} already");
                Err(Problem::conflict("incident.over", detail, "there is nothing left to do"))
            }
            Err(refused) => Err(refused.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::http::testing::{Engine, firing, get, post};

    const ANY: &str = "playbook: any\ntriggers:\n  - alertmanager: {matchers: ['alertname=~\".+\"']}\n\
                       detect:\n  note: {uses: log, with: {message: seen}}\n";

    #[tokio::test]
    async fn an_incident_is_listed_acknowledged_and_closed() {
        let engine = Engine::start(&[ANY]).await;
        let answer = engine.send(post("/webhooks/alertmanager", firing("A")).header("prefer", "wait=20")).await;
        let id = answer.json["incidents"][0].as_str().unwrap().to_owned();
        let list = engine.send(get("/api/v1/incidents?state=open")).await.json;
        assert_eq!((list["items"].as_array().map(Vec::len), &list["items"][0]["id"]), (Some(1), &json!(id)), "{list}");
        assert_eq!(list["items"][0]["alerts"][0]["firing"], true);

        let path = format!("/api/v1/incidents/{id}");
        let answer = engine.send(post(&format!("{path}/ack"), "")).await;
        assert_eq!(
            (&answer.json["state"], &answer.json["acknowledged_by"]),
            (&json!("acknowledged"), &json!("person:local"))
        );
        let answer = engine.send(post(&format!("{path}/resolve"), "{\"reason\": \"false alarm\"}")).await;
        assert_eq!((answer.status, &answer.json["state"]), (200, &json!("resolved")), "{}", answer.json);
        let answer = engine.send(post(&format!("{path}/resolve"), "{}")).await;
        assert_eq!((answer.status, &answer.json["code"]), (409, &json!("incident.over")), "{}", answer.json);
        assert_eq!(engine.send(get(&path)).await.json["state"], "resolved");
        assert_eq!(
            engine.send(get("/api/v1/incidents?state=resolved")).await.json["items"].as_array().map(Vec::len),
            Some(1)
        );
        assert_eq!(engine.send(get("/api/v1/incidents/none")).await.status, 404);
    }

    #[tokio::test]
    async fn an_incident_is_taken_noted_and_merged() {
        let engine = Engine::start(&[ANY]).await;
        let mut ids = Vec::new();
        for name in ["A", "B"] {
            let answer = engine.send(post("/webhooks/alertmanager", firing(name)).header("prefer", "wait=20")).await;
            ids.push(answer.json["incidents"][0].as_str().unwrap().to_owned());
        }
        let of = |id: &str, verb: &str| format!("/api/v1/incidents/{id}/{verb}");
        let taken = engine.send(post(&of(&ids[0], "take"), "{\"owner\": \"ann\"}")).await.json;
        assert_eq!((&taken["owner"], &taken["state"]), (&json!("person:ann"), &json!("acknowledged")));
        let noted = engine.send(post(&of(&ids[0], "note"), "{\"note\": \"the switch\"}")).await.json;
        assert_eq!(noted["notes"][0]["note"], "the switch", "{noted}");
        assert_eq!(engine.send(post(&of(&ids[0], "note"), "{\"note\": \" \"}")).await.json["code"], "note.length");
        let body = format!("{{\"into\": \"{}\"}}", ids[0]);
        let merged = engine.send(post(&of(&ids[1], "merge"), body.clone())).await.json;
        assert_eq!((&merged["id"], merged["alerts"].as_array().map(Vec::len)), (&json!(ids[0]), Some(2)), "{merged}");
        let gone = engine.send(get(&format!("/api/v1/incidents/{}", ids[1]))).await.json;
        assert_eq!((&gone["state"], &gone["merged_into"]), (&json!("resolved"), &json!(ids[0])));
        assert_eq!(engine.send(post(&of(&ids[0], "merge"), body)).await.status, 422);
    }
}

//! Approvals: the questions that wait for an answer, and the answers.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stanch_core::command::Person;
use stanch_core::record::{Actor, ApprovalRequested, ApprovalTarget, Verdict};
use stanch_core::run::{Question, Run};
use stanch_core::{ApprovalId, Command, IncidentId, Receipt, Rejected, RunId};
use stanch_playbook::{PlaybookName, StepKey, Timestamp};

use super::extract::{Asked, Segment};
use super::guard::By;
use super::openapi::{Doc, Routes, schema};
use super::page::{ListQuery, Page, page_of};
use super::problem::Problem;
use super::{Http, Shared, body};
use crate::executor::Refused;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get(
            "/api/v1/approvals",
            list,
            Doc::new("Lists the questions that wait for an answer, newest first")
                .query("playbook", "a playbook's name")
                .pages()
                .answer::<Page<ApprovalView>>(StatusCode::OK)
                .problems(&[400, 401]),
        )
        .get(
            "/api/v1/approvals/{id}",
            show,
            Doc::new("Shows a question that waits for an answer, with exactly what would be done")
                .answer::<ApprovalView>(StatusCode::OK)
                .problems(&[401, 404]),
        )
        .post(
            "/api/v1/approvals/{id}",
            decide,
            Doc::new("Answers a question, for the targets whose digest is named; 409 where they have changed since")
                .body("application/json", Some(schema::<DecideRequest>))
                .answer::<Decided>(StatusCode::OK)
                .problems(&[400, 401, 403, 404, 409, 415, 422, 503]),
        )
}

/// A question that waits for an answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ApprovalView {
    /// Always `waiting`.
    state: &'static str,
    /// The run that waits.
    run: RunId,
    /// That run's playbook.
    playbook: PlaybookName,
    /// That run's incident.
    incident: IncidentId,
    /// The step that asks.
    step: StepKey,
    #[serde(flatten)]
    question: QuestionView,
}

/// What is asked, of whom, and what was answered.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QuestionView {
    /// The question's id.
    id: ApprovalId,
    /// The question.
    prompt: String,
    /// What would be done, exactly.
    targets: Vec<ApprovalTarget>,
    /// SHA-256 of the targets; an answer must name it.
    digest: String,
    /// Who may decide: people, or groups as `group:name`. Empty: everybody.
    from: Vec<String>,
    /// How many must agree.
    quorum: u32,
    /// Who may not decide, since they started the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    excluded: Option<String>,
    /// The answers so far.
    answers: Vec<AnswerView>,
    /// When it was asked.
    asked_at: Timestamp,
    /// When it counts as not answered; null: never.
    expires_at: Option<Timestamp>,
    /// Who else was told, since nobody decided: people, or groups as `group:name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    told: Vec<String>,
    /// The question whose place it takes, since what that one asked about has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<ApprovalId>,
}

/// One answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AnswerView {
    /// Who.
    by: String,
    /// What.
    verdict: Verdict,
    /// When.
    at: Timestamp,
}

impl QuestionView {
    /// A question that nobody has answered.
    pub(super) fn asked(asked: &ApprovalRequested, asked_at: Timestamp) -> Self {
        Self {
            id: asked.approval,
            prompt: asked.prompt.to_string(),
            targets: asked.targets.to_vec(),
            digest: asked.digest.to_string(),
            from: asked.from.clone(),
            quorum: asked.quorum,
            excluded: asked.excluded.as_ref().map(|actor| actor.as_str().to_owned()),
            answers: Vec::new(),
            asked_at,
            expires_at: asked.expires_at,
            told: Vec::new(),
            replaces: asked.replaces,
        }
    }

    /// More people were told.
    pub(super) fn escalated(&mut self, people: &[String]) {
        self.told.extend_from_slice(people);
    }

    /// An answer came.
    pub(super) fn answered(&mut self, by: &Actor, verdict: Verdict, at: Timestamp) {
        self.answers.push(AnswerView { by: by.as_str().to_owned(), verdict, at });
    }
}

fn view(run: &Run, question: &Question) -> ApprovalView {
    let mut asked = QuestionView::asked(&question.asked, question.asked_at);
    for (by, verdict, at) in &question.answers {
        asked.answered(by, *verdict, *at);
    }
    for told in question.asked.escalate.iter().take(question.told as usize) {
        asked.escalated(&told.people);
    }
    ApprovalView {
        state: "waiting",
        run: run.id,
        playbook: run.playbook.clone(),
        incident: run.incident,
        step: question.asked.step.clone(),
        question: asked,
    }
}

async fn list(State(http): State<Shared>, Asked(query): Asked<ListQuery>) -> Result<Json<Page<ApprovalView>>, Problem> {
    let state = http.app.handle.state();
    let mut waiting: Vec<_> = state.questions().map(|(run, _, question)| (run, question)).collect();
    waiting.reverse();
    let keep = |(run, _): &(&Arc<Run>, &Arc<Question>)| {
        query.playbook.as_ref().is_none_or(|playbook| run.playbook.as_str() == playbook)
            && query.state.as_ref().is_none_or(|state| state == "waiting")
    };
    let waiting = waiting.into_iter().filter(keep).map(|one| (one.1.asked.approval.0, one));
    let Page { items, next } = page_of(&query, waiting)?;
    Ok(Json(Page { items: items.into_iter().map(|(run, question)| view(run, question)).collect(), next }))
}

async fn show(State(http): State<Shared>, id: Segment) -> Result<Json<ApprovalView>, Problem> {
    let id: ApprovalId = id.id("question", "approval.unknown")?;
    let state = http.app.handle.state();
    let found = state.question(id).map(|(run, _, question)| view(run, question));
    found.map(Json).ok_or_else(|| match http.successor(id) {
        Some(next) => other_targets(id, next),
        None => Rejected::UnknownApproval(id).into(),
    })
}

/// Answers a question.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecideRequest {
    /// The answer.
    verdict: Verdict,
    /// The digest of the targets that the person saw.
    digest: String,
    /// Why; stands in the record.
    #[serde(default)]
    reason: String,
}

/// What an answer led to.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Decided {
    /// The question.
    id: ApprovalId,
    /// approved, denied, or waiting where more people must agree.
    state: &'static str,
    /// How many have agreed so far; null once it is settled.
    agreed: Option<usize>,
    /// How many must.
    quorum: u32,
    /// The run that asked.
    run: RunId,
    /// The question that is asked now, since what would be done changed with the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<ApprovalId>,
}

async fn decide(State(http): State<Shared>, by: By, id: Segment, request: Request) -> Result<Json<Decided>, Problem> {
    let id: ApprovalId = id.id("question", "approval.unknown")?;
    let DecideRequest { verdict, digest, reason } = body::json(request).await?;
    let asked = http.app.handle.state().question(id).map(|(_, _, question)| question.asked.clone());
    let person = Person { name: by.caller.name.to_string(), groups: by.caller.groups.to_vec(), via: by.via() };
    let command = Command::DecideApproval { actor: by.actor(), person, approval: id, verdict, digest, reason };
    match http.app.handle.submit(command).await {
        Ok(Receipt { refused: Some(_), .. }) => Err(other_targets(id, http.successor(id).unwrap_or(id))),
        Err(Refused::Rejected(Rejected::OtherTargets(_))) => Err(other_targets(id, id)),
        Err(Refused::Rejected(Rejected::UnknownApproval(_))) => Err(match http.successor(id) {
            Some(next) => other_targets(id, next),
            None => Rejected::UnknownApproval(id).into(),
        }),
        Err(refused) => Err(refused.into()),
        Ok(_) => {
            let state = http.app.handle.state();
            let waits = state.question(id).map(|(_, _, question)| question.answers.len());
            // It waited when it was answered, and it was there to be read before that.
            let (run, quorum) = asked.map_or((RunId(uuid::Uuid::nil()), 1), |asked| (asked.run, asked.quorum));
            Ok(Json(Decided {
                id,
                state: if waits.is_some() { "waiting" } else { verdict.as_str() },
                agreed: waits,
                quorum,
                run,
                replaced_by: http.successor(id),
            }))
        }
    }
}

fn other_targets(id: ApprovalId, now: ApprovalId) -> Problem {
    let remedy = format!("look at it again with stanch approvals show {now}, and answer that");
    let mut problem = Problem::from(Rejected::OtherTargets(id));
    problem.ask_instead(now, remedy);
    problem
}

impl Http {
    /// The question that took the place of one.
    fn successor(&self, id: ApprovalId) -> Option<ApprovalId> {
        let state = self.app.handle.state();
        let mut next = state.questions().filter(|(_, _, question)| question.asked.replaces == Some(id));
        next.next().map(|(_, _, question)| question.asked.approval)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::http::testing::{Answer, Engine, get, post};

    const ASKS: &str = r#"
playbook: asks
inputs: {hosts: {type: list, default: [db-01, db-02]}}
contain:
  approve:
    uses: approval
    with: {prompt: "Isolate {{ count inputs.hosts }} hosts?", from: ["group:sec", bob], quorum: 2}
    timeout: 1h
  isolate: {needs: [approve], foreach: inputs.hosts, uses: log, with: {message: "isolate {{ item }}"}}
"#;
    /// What it asks about depends on a step that is not over when it asks.
    const SHIFTS: &str = r#"
playbook: shifts
contain:
  look: {uses: log, with: {message: unknown}, idempotent: false, outputs: {x: result.x}}
  approve: {uses: approval, with: {prompt: "Act?"}}
  act: {needs: [approve, look], uses: log, with: {message: "{{ steps.look.state }}"}}
"#;

    async fn waiting(engine: &Engine) -> Vec<Value> {
        engine.send(get("/api/v1/approvals")).await.json["items"].as_array().unwrap().clone()
    }

    async fn answer(engine: &Engine, token: &str, approval: &Value, verdict: &str) -> Answer {
        let body = json!({"verdict": verdict, "digest": approval["digest"], "reason": "looked"}).to_string();
        let request = post(&format!("/api/v1/approvals/{}", approval["id"].as_str().unwrap()), body);
        engine.send(if token.is_empty() { request } else { request.header("authorization", token) }).await
    }

    #[tokio::test]
    async fn a_question_is_shown_with_its_exact_targets_and_decided_by_those_asked() {
        let engine = Engine::start_with_people(&[ASKS]).await;
        let run = engine.run("asks").await;
        let list = waiting(&engine).await;
        assert_eq!(list.len(), 1, "{list:?}");
        let asked = &list[0];
        assert_eq!(
            (&asked["run"], &asked["playbook"], &asked["step"]),
            (&json!(run), &json!("asks"), &json!("contain.approve"))
        );
        assert_eq!((&asked["prompt"], &asked["quorum"]), (&json!("Isolate 2 hosts?"), &json!(2)));
        assert_eq!(asked["from"], json!(["group:sec", "bob"]));
        let with = json!([{"message": "isolate db-01"}, {"message": "isolate db-02"}]);
        assert_eq!(asked["targets"], json!([{"step": "contain.isolate", "action": "log", "with": with}]));
        assert!(asked["asked_at"].is_string() && asked["expires_at"].is_string(), "{asked:#}");
        let path = format!("/api/v1/approvals/{}", asked["id"].as_str().unwrap());
        assert_eq!(engine.send(get(&path)).await.json, *asked);
        let listed = engine.send(get("/api/v1/runs")).await.json;
        assert_eq!((&listed["items"][0]["asks"], &listed["items"][0]["approvals"]), (&json!(0), &json!(1)), "{listed}");
        assert!(engine.metrics().await.contains("\nstanch_approvals_waiting{playbook=\"asks\"} 1\n"));

        let refused = answer(&engine, "", asked, "approved").await;
        assert_eq!((refused.status, &refused.json["code"]), (403, &json!("approval.not-allowed")), "{}", refused.json);
        let other = json!({"id": asked["id"], "digest": "00"});
        let stale = answer(&engine, "Bearer ann-s-token", &other, "approved").await;
        assert_eq!((stale.status, &stale.json["code"]), (409, &json!("approval.targets-changed")));
        assert_eq!(stale.json["approval"], asked["id"], "that is still the question");

        let first = answer(&engine, "Bearer ann-s-token", asked, "approved").await;
        assert_eq!((first.status, &first.json["state"]), (200, &json!("waiting")), "{}", first.json);
        assert_eq!((&first.json["agreed"], &first.json["quorum"]), (&json!(1), &json!(2)));
        let answers = waiting(&engine).await[0]["answers"].clone();
        assert_eq!((&answers[0]["by"], &answers[0]["verdict"]), (&json!("person:ann"), &json!("approved")));
        assert_eq!(answer(&engine, "Bearer ann-s-token", asked, "approved").await.status, 403, "one answer each");
        let second = answer(&engine, "Bearer bob-s-token", asked, "approved").await;
        assert_eq!((second.status, &second.json["state"], &second.json["run"]), (200, &json!("approved"), &json!(run)));
        engine.finished(&run).await;
        let run = engine.send(get(&format!("/api/v1/runs/{run}"))).await.json;
        assert_eq!(run["state"], "succeeded", "{run:#}");
        assert_eq!(waiting(&engine).await, Vec::<Value>::new());
        let over = answer(&engine, "Bearer ann-s-token", asked, "denied").await;
        assert_eq!((over.status, &over.json["code"]), (404, &json!("approval.unknown")));
        let trail = String::from_utf8(engine.send(get("/api/v1/audit")).await.body).unwrap();
        assert!(trail.contains("\"via\":\"token\"") && trail.contains("\"reason\":\"looked\""), "{trail}");
        assert!(engine.metrics().await.contains("\nstanch_approvals_waiting{playbook=\"asks\"} 0\n"));
    }

    #[tokio::test]
    async fn the_environment_is_part_of_what_is_approved() {
        let playbook = r#"
playbook: env
contain:
  approve: {uses: approval, with: {prompt: "Act?"}}
  each: {needs: [approve], foreach: "['a', 'b']", uses: exec, with: {argv: [isolate]}, env: {HOST: "{{ item }}"}}
  one: {needs: [approve], uses: exec, with: {argv: [isolate]}, env: {HOST: c}}
"#;
        let engine = Engine::start_with_people(&[playbook]).await;
        engine.run("env").await;
        let asked = waiting(&engine).await.remove(0);
        assert_eq!(asked["targets"][0]["env"], json!([{"HOST": "a"}, {"HOST": "b"}]), "{asked:#}");
        assert_eq!(asked["targets"][1]["env"], json!({"HOST": "c"}));
        let other = Engine::start_with_people(&[&playbook.replace("HOST: c", "HOST: d")]).await;
        other.run("env").await;
        assert_ne!(waiting(&other).await[0]["digest"], asked["digest"], "the digest is one of the environment too");
    }

    #[tokio::test]
    async fn a_denial_ends_it_and_what_does_not_fit_is_refused() {
        let engine = Engine::start_with_people(&[ASKS]).await;
        let run = engine.run("asks").await;
        let asked = waiting(&engine).await.remove(0);
        let path = format!("/api/v1/approvals/{}", asked["id"].as_str().unwrap());
        for (body, status) in [
            ("{\"verdict\": \"approved\"}", 422),
            ("{\"verdict\": \"yes\", \"digest\": \"x\"}", 422),
            ("{\"verdict\": \"denied\", \"digest\": \"x\", \"why\": \"\"}", 422),
            ("{", 400),
        ] {
            assert_eq!(engine.send(post(&path, body)).await.status, status, "{body}");
        }
        assert_eq!(
            engine.send(post("/api/v1/approvals/none", "{\"verdict\": \"denied\", \"digest\": \"x\"}")).await.status,
            404
        );
        assert_eq!(engine.send(get("/api/v1/approvals?playbook=other")).await.json["items"], json!([]));
        let denied = answer(&engine, "Bearer bob-s-token", &asked, "denied").await;
        assert_eq!((denied.status, &denied.json["state"]), (200, &json!("denied")), "{}", denied.json);
        engine.finished(&run).await;
        let run = engine.send(get(&format!("/api/v1/runs/{run}"))).await.json;
        assert_eq!(run["steps"]["contain.approve"]["error"], "denied by person:bob: looked", "{run:#}");
        assert_eq!(run["steps"]["contain.isolate"]["state"], "blocked");
    }

    #[tokio::test]
    async fn an_answer_to_targets_that_have_changed_names_the_new_question() {
        let engine = Engine::start_with_people(&[SHIFTS]).await;
        let run = engine.run("shifts").await;
        let asked = waiting(&engine).await.remove(0);
        let body = json!({"step": "look", "answer": "succeeded"}).to_string();
        assert_eq!(engine.send(post(&format!("/api/v1/runs/{run}/answer"), body)).await.status, 200);
        let refused = answer(&engine, "Bearer bob-s-token", &asked, "approved").await;
        assert_eq!((refused.status, &refused.json["code"]), (409, &json!("approval.targets-changed")));
        let now = waiting(&engine).await.remove(0);
        assert_eq!((&refused.json["approval"], &now["replaces"]), (&now["id"], &asked["id"]), "{}", refused.json);
        // Also for whoever still has the old one on the screen.
        let again = answer(&engine, "Bearer bob-s-token", &asked, "approved").await;
        assert_eq!((again.status, &again.json["approval"]), (409, &now["id"]));
        assert_eq!(answer(&engine, "Bearer bob-s-token", &now, "approved").await.status, 200);
        engine.finished(&run).await;
        assert_eq!(engine.send(get(&format!("/api/v1/runs/{run}"))).await.json["state"], "succeeded");
    }
}

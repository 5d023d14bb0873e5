use serde_json::{Value, json};
use stanch_core::RunId;

use crate::http::testing::{Engine, get, post};

const MANY: &str = r#"
playbook: many
detect:
  good: {uses: log, with: {message: ok}, outputs: {seven: result.x}}
  skipped: {if: 'false', uses: log, with: {message: ok}}
  tolerated: {uses: log, with: {message: fail}, retry: {max_attempts: 1}, continue_on_error: true}
  late: {uses: log, with: {message: fail}, retry: {max_attempts: 2, initial_interval: 1h, jitter: none}}
  asks: {uses: log, with: {message: unknown}, on_unknown: ask}
  waits: {uses: wait, with: {duration: 10m}}
  after: {needs: [waits], uses: log, with: {message: ok}}
"#;

/// Everything that a step can be, in one run.
const ALL: &str = r#"
playbook: all
contain:
  each:
    foreach: "['ok', 'unknown', 'fail', 'ok']"
    uses: log
    with: {message: "{{ item }}"}
    retry: {max_attempts: 1}
    idempotent: false
    continue_on_error: true
    undo: {uses: log, with: {message: "undo {{ item }}"}, after: 8h}
  holds: {uses: log, with: {message: ok}, verify: {uses: log, with: {message: ok}, until: "result.x == 7", every: 1s, within: 1m}}
  never: {uses: log, with: {message: ok}, verify: {uses: log, with: {message: look}, until: "result.x == 8", every: 1h, within: 2h}}
  polls: {uses: log, with: {message: ok}, until: "result.x == 8", every: 1h, within: 2h}
  approve: {uses: approval, with: {prompt: "Go on?", allow_self: true}}
  act: {needs: [approve], uses: log, with: {message: ok}}
  child: {uses: playbook, with: {playbook: small}}
  event: {uses: wait, with: {for: {nats: {subject: a.b}}}}
"#;
const SMALL: &str = "playbook: small\ndetect:\n  sit: {uses: wait, with: {duration: 1h}}\n";

#[tokio::test]
async fn items_verification_approvals_and_children_are_folded_as_the_engine_has_them() {
    let engine = Engine::start(&[ALL, SMALL]).await;
    let id = engine.run("all").await;
    // The first look of a verification is a timer's.
    let looked = async || {
        let state = of_state(&engine, &id);
        let over = |step: &str, at: usize| !state[format!("contain.{step}")][3][at][4].is_null();
        (over("never", 1) && over("holds", 1)).then_some(())
    };
    engine.until(looked).await;
    let shown = of_api(&engine, &id).await;
    assert_eq!(shown, of_state(&engine, &id), "{shown:#}");
    for (step, state) in [
        ("each", "waiting"),
        ("holds", "succeeded"),
        ("never", "verifying"),
        ("polls", "backoff"),
        ("approve", "waiting"),
        ("child", "waiting"),
    ] {
        assert_eq!(shown[format!("contain.{step}")][0], state, "{shown:#}");
    }
    let path = format!("/api/v1/runs/{id}");
    let run = engine.send(get(&path)).await.json;
    let steps = &run["steps"];
    let items = &steps["contain.each"]["items"];
    assert_eq!(items["states"], json!({"succeeded": 2, "unknown": 1, "tolerated": 1}), "{items:#}");
    assert_eq!((&items["count"], &items["hidden"]), (&json!(4), &json!(0)));
    let first = &items["shown"][0];
    assert_eq!((&first["value"], &first["item"], &first["state"]), (&json!("ok"), &json!(0), &json!("succeeded")));
    assert_eq!((&first["containment"]["state"], &first["attempts"][0]["purpose"]), (&json!("inforce"), &json!("do")));
    let verifying = &steps["contain.never"]["verifying"];
    assert_eq!((&verifying["action"], &verifying["every_ms"]), (&json!("log"), &json!(3_600_000)), "{verifying:#}");
    assert_eq!(steps["contain.never"]["attempts"][1]["purpose"], "verify");
    assert_eq!((&run["approvals"], &run["asks"]), (&json!(1), &json!(1)));
    let child = steps["contain.child"]["child"].as_str().unwrap();
    let parent = engine.send(get(&format!("/api/v1/runs/{child}"))).await.json["parent"].clone();
    assert_eq!(parent, json!({"run": id, "step": "contain.child"}));

    let question = &steps["contain.approve"]["question"];
    let body = json!({"verdict": "approved", "digest": question["digest"]}).to_string();
    let approval = question["id"].as_str().unwrap();
    assert_eq!(engine.send(post(&format!("/api/v1/approvals/{approval}"), body)).await.status, 200);
    let answer = json!({"step": "each", "item": 1, "answer": "succeeded"}).to_string();
    assert_eq!(engine.send(post(&format!("{path}/answer"), answer)).await.status, 200);
    engine.idle(&id).await;
    let shown = of_api(&engine, &id).await;
    assert_eq!(shown, of_state(&engine, &id), "{shown:#}");
    assert_eq!(shown["contain.act"][0], "succeeded");
    let run = engine.send(get(&path)).await.json;
    assert_eq!(run["steps"]["contain.approve"]["question"]["answers"][0]["by"], "person:local");

    let cancel = json!({"undo": true}).to_string();
    let cancelled = engine.send(post(&format!("{path}/cancel"), cancel)).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.json);
    engine.finished(&id).await;
    let run = engine.send(get(&path)).await.json;
    assert_eq!((&run["state"], &run["cancelled"]["undo"]), (&json!("cancelled"), &json!(true)), "{run:#}");
    let first = &run["steps"]["contain.each"]["items"]["shown"][0];
    let undo = first["attempts"].as_array().unwrap().last().unwrap();
    assert_eq!((&undo["purpose"], &undo["outcome"]), (&json!("undo"), &json!("succeeded")), "{first:#}");
    assert_eq!((&undo["containment"], &first["containment"]["state"]), (&first["containment"]["id"], &json!("over")));
    assert_eq!(first["state"], "succeeded", "that it was taken back does not change what it did");
}

#[tokio::test]
async fn of_many_items_those_that_are_not_green_are_shown_and_all_where_asked() {
    let many: Vec<String> = (0..250).map(|at| format!("'{}'", if at == 240 { "fail" } else { "ok" })).collect();
    let playbook = format!(
        "playbook: many\ndetect:\n  each: {{foreach: \"[{}]\", max_parallel: 8, uses: log, with: {{message: \"{{{{ item }}}}\"}}, retry: {{max_attempts: 1}}}}\n",
        many.join(", ")
    );
    let engine = Engine::start(&[&playbook]).await;
    let id = engine.run("many").await;
    engine.finished(&id).await;
    let items = async |query: &str| {
        engine.send(get(&format!("/api/v1/runs/{id}{query}"))).await.json["steps"]["detect.each"]["items"].clone()
    };
    let few = items("").await;
    assert_eq!(
        (few["count"].as_u64(), few["shown"].as_array().map(Vec::len)),
        (
            Some(250),
            few["count"].as_u64().map(|count| usize::try_from(count - few["hidden"].as_u64().unwrap()).unwrap())
        )
    );
    assert_eq!((&few["shown"][0]["item"], &few["shown"][0]["state"]), (&json!(240), &json!("failed")), "{few:#}");
    assert!(few["shown"].as_array().unwrap().len() <= 100, "{few:#}");
    let all = items("?items=all").await;
    assert_eq!((all["shown"].as_array().map(Vec::len), &all["hidden"]), (Some(250), &json!(0)));
    assert_eq!(engine.send(get(&format!("/api/v1/runs/{id}?items=some"))).await.status, 400);
}

/// What the engine itself has of a live run, in the words of the API.
fn of_state(engine: &Engine, id: &str) -> Value {
    let state = engine.handle().state();
    let id: RunId = id.parse().unwrap();
    let run = &state.runs[&id];
    let plan = state.plan(run.plan).unwrap();
    let step = |step: &std::sync::Arc<stanch_core::run::StepRun>| {
        let attempts: Vec<Value> = step
            .attempts
            .iter()
            .map(|attempt| {
                json!([attempt.generation, attempt.number, attempt.outcome, attempt.error, attempt.finished_at])
            })
            .collect();
        json!([step.state.as_str(), step.state.error(), step.outputs, attempts, step.finished_at])
    };
    let with_items = |(step_run, plan): (&std::sync::Arc<stanch_core::run::StepRun>, &stanch_playbook::Step)| {
        let mut words = step(step_run);
        let items = step_run.items.iter().map(|item| json!([item.value, step(item)])).collect::<Vec<_>>();
        words.as_array_mut().unwrap().push(items.into());
        (plan.key.to_string(), words)
    };
    run.steps.iter().zip(&plan.steps).map(with_items).collect::<serde_json::Map<_, _>>().into()
}

async fn of_api(engine: &Engine, id: &str) -> Value {
    let run = engine.send(get(&format!("/api/v1/runs/{id}"))).await.json;
    let step = |step: &Value| {
        let attempts: Vec<Value> = step["attempts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|attempt| {
                json!([
                    attempt["generation"],
                    attempt["number"],
                    attempt["outcome"],
                    attempt["error"],
                    attempt["finished_at"]
                ])
            })
            .collect();
        json!([step["state"], step["error"], step["outputs"], attempts, step["finished_at"]])
    };
    let with_items = |(key, of): (&String, &Value)| {
        let mut words = step(of);
        let items = of["items"]["shown"].as_array().into_iter().flatten();
        let items = items.map(|item| json!([item["value"], step(item)])).collect::<Vec<_>>();
        words.as_array_mut().unwrap().push(items.into());
        (key.clone(), words)
    };
    run["steps"].as_object().unwrap().iter().map(with_items).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test]
async fn what_is_folded_from_records_is_what_the_engine_has() {
    let engine = Engine::start(&[MANY]).await;
    let id = engine.run("many").await;
    let states = of_api(&engine, &id).await;
    for (step, state) in [
        ("good", "succeeded"),
        ("skipped", "skipped"),
        ("tolerated", "tolerated"),
        ("late", "backoff"),
        ("asks", "unknown"),
        ("waits", "waiting"),
        ("after", "pending"),
    ] {
        assert_eq!(states[format!("detect.{step}")][0], state, "{states:#}");
    }
    assert_eq!(states["detect.good"][2], json!({"seven": 7}));
    assert_eq!(states, of_state(&engine, &id));

    let answer = |answer: &str| {
        post(
            &format!("/api/v1/runs/{id}/answer"),
            json!({"step": "asks", "answer": answer, "note": "looked"}).to_string(),
        )
    };
    assert_eq!(engine.send(answer("retry")).await.status, 200);
    engine.idle(&id).await;
    assert_eq!(of_api(&engine, &id).await, of_state(&engine, &id));
    assert_eq!(engine.send(answer("failed")).await.status, 200);
    let states = of_api(&engine, &id).await;
    assert_eq!(states["detect.asks"][1], "local answered that it failed: looked");
    assert_eq!(states, of_state(&engine, &id));
}

#[tokio::test]
async fn a_run_whose_plan_is_gone_is_still_shown_with_all_its_steps() {
    let quick = "playbook: quick\ndetect:\n  one: {uses: log, with: {message: ok}}\n";
    let engine = Engine::start(&[&format!("{quick}  two: {{if: 'false', uses: log, with: {{message: ok}}}}\n")]).await;
    let id = engine.run("quick").await;
    engine.load(&[quick]).await;
    let run = engine.send(get(&format!("/api/v1/runs/{id}"))).await.json;
    let steps = &run["steps"];
    assert_eq!(
        (&steps["detect.one"]["state"], &steps["detect.two"]["state"]),
        (&json!("succeeded"), &json!("skipped"))
    );
    assert_eq!((&steps["detect.one"]["uses"], &steps["detect.two"]["uses"]), (&json!("log"), &Value::Null));
}

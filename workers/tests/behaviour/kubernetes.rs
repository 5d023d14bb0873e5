//! `kubernetes` against a stand-in API server that keeps one object of each kind and applies what it is sent.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use stanch_workers::{KubernetesConfig, Services, Worker, WorkerConfig};

use crate::common::*;

const TOKEN: &str = "cluster-token";

/// The state of the stand-in: one deployment, one node, some pods.
#[derive(Clone)]
struct Cluster(Arc<Mutex<Value>>);

impl Cluster {
    fn new() -> Self {
        let pod = |name: &str, uid: &str| json!({"metadata": {"name": name, "uid": uid}});
        Self(Arc::new(Mutex::new(json!({
            "/apis/apps/v1/namespaces/shop/deployments/web": {
                "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7", "labels": {"app": "web", "old": "1"}},
                "spec": {"replicas": 3},
            },
            "/api/v1/nodes/node-1": {"kind": "Node", "metadata": {"name": "node-1", "resourceVersion": "9"}, "spec": {}},
            "/api/v1/namespaces/shop/pods/web-0": pod("web-0", "uid-0"),
            "/api/v1/namespaces/shop/pods/web-1": pod("web-1", "uid-1"),
        }))))
    }

    async fn serve(&self) -> Target {
        let state = self.0.clone();
        Target::start(move |request| respond(&mut state.lock().unwrap(), request)).await
    }

    fn object(&self, path: &str) -> Value {
        self.0.lock().unwrap()[path].clone()
    }
}

fn status(code: &str, message: &str) -> Answer {
    let body = json!({"kind": "Status", "status": "Failure", "message": message});
    answer(code, &[("content-type", "application/json")], &body.to_string())
}

/// What an API server does, as far as the action needs it.
fn respond(state: &mut Value, request: &str) -> Answer {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let head = head.to_lowercase();
    if !head.contains(&format!("authorization: bearer {TOKEN}")) {
        return status("401 Unauthorized", "Unauthorized");
    }
    if path.ends_with("/pods") {
        assert_eq!(query, "labelSelector=app%3Dweb&limit=51");
        let pods = state.as_object().unwrap().iter().filter(|(at, _)| at.starts_with(path)).map(|(_, pod)| pod.clone());
        return json_answer(&json!({"kind": "PodList", "items": pods.collect::<Vec<_>>()}));
    }
    let Some(object) = state.get_mut(path) else { return status("404 Not Found", "not found") };
    match method {
        "GET" => json_answer(object),
        "PATCH" => {
            if !head.contains("content-type: application/strategic-merge-patch+json") {
                return status("415 Unsupported Media Type", "unsupported");
            }
            let patch: Value = serde_json::from_str(body).unwrap();
            if patch["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                return status("409 Conflict", "the object has been modified");
            }
            merge(object, &patch);
            let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
            object["metadata"]["resourceVersion"] = json!((version + 1).to_string());
            json_answer(object)
        }
        "DELETE" => {
            let options: Value = serde_json::from_str(body).unwrap();
            if options["preconditions"]["uid"] != object["metadata"]["uid"] {
                return status("409 Conflict", "the uid does not match");
            }
            state.as_object_mut().unwrap().remove(path);
            json_answer(&json!({"kind": "Status", "status": "Success"}))
        }
        _ => status("405 Method Not Allowed", "no"),
    }
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        match value {
            Value::Null => drop(into.as_object_mut().unwrap().remove(name)),
            value => merge(&mut into[name.as_str()], value),
        }
    }
}

fn worker(target: &Target) -> (Worker, tempfile::TempDir) {
    let (_, file) = secret("unused", TOKEN, &[]);
    let token = Some(format!("file:{}", file.path().join("secret").display()));
    let kubernetes = KubernetesConfig { url: Some(target.url("")), token, ca: None };
    let services = Services { kubernetes, ..Services::default() };
    (Worker::new(WorkerConfig { services, ..WorkerConfig::default() }), file)
}

const WEB: &str = "/apis/apps/v1/namespaces/shop/deployments/web";

#[tokio::test]
async fn scaling_tells_what_was_there_and_a_second_try_changes_nothing() {
    let cluster = Cluster::new();
    let target = cluster.serve().await;
    let (worker, _file) = worker(&target);
    let scale = json!({"operation": "scale", "namespace": "shop", "name": "web", "replicas": "0"});
    let expected = json!({
        "kind": "deployment", "namespace": "shop", "name": "web", "changed": true,
        "before": {"replicas": 3}, "after": {"replicas": 0},
    });
    assert_eq!(succeeded(run(&worker, "kubernetes", scale.clone()).await), expected);
    assert_eq!(cluster.object(WEB)["spec"]["replicas"], 0);
    assert_eq!(cluster.object(WEB)["metadata"]["labels"]["app"], "web");
    let calls = target.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!((calls[1].0.as_str(), calls[1].1.as_str()), ("PATCH", WEB));
    assert_eq!(
        (&calls[1].2["spec"], &calls[1].2["metadata"]["resourceVersion"]),
        (&json!({"replicas": 0}), &json!("7"))
    );

    // Without the annotation, a second try would take its own zero for what was there before.
    assert_eq!(succeeded(run(&worker, "kubernetes", scale).await), expected);
    assert_eq!(target.calls().len(), 3);
}

#[tokio::test]
async fn labels_are_set_and_removed_and_can_be_put_back() {
    let cluster = Cluster::new();
    let target = cluster.serve().await;
    let (worker, _file) = worker(&target);
    let label = |labels: Value| json!({"operation": "label", "kind": "deployment", "namespace": "shop", "name": "web", "labels": labels});
    let output = succeeded(run(&worker, "kubernetes", label(json!({"quarantine": true, "old": null}))).await);
    assert_eq!(output["before"], json!({"labels": {"quarantine": null, "old": "1"}}));
    assert_eq!(cluster.object(WEB)["metadata"]["labels"], json!({"app": "web", "quarantine": "true"}));

    // As another step: the annotation is not its own.
    cluster.0.lock().unwrap()[WEB]["metadata"]["annotations"] = json!({});
    succeeded(run(&worker, "kubernetes", label(output["before"]["labels"].clone())).await);
    assert_eq!(cluster.object(WEB)["metadata"]["labels"], json!({"app": "web", "old": "1"}));
}

#[tokio::test]
async fn a_node_is_cordoned_once() {
    let cluster = Cluster::new();
    let target = cluster.serve().await;
    let (worker, _file) = worker(&target);
    let output = succeeded(run(&worker, "kubernetes", json!({"operation": "cordon", "name": "node-1"})).await);
    assert_eq!((&output["before"], &output["namespace"]), (&json!({"unschedulable": false}), &Value::Null));
    assert_eq!(cluster.object("/api/v1/nodes/node-1")["spec"]["unschedulable"], true);

    cluster.0.lock().unwrap()["/api/v1/nodes/node-1"]["metadata"]["annotations"] = json!({});
    let again = succeeded(run(&worker, "kubernetes", json!({"operation": "cordon", "name": "node-1"})).await);
    assert_eq!((&again["changed"], target.calls().len()), (&json!(false), 3));
    let output = succeeded(run(&worker, "kubernetes", json!({"operation": "uncordon", "name": "node-1"})).await);
    assert_eq!(output["before"], json!({"unschedulable": true}));
    assert_eq!(cluster.object("/api/v1/nodes/node-1")["spec"]["unschedulable"], false);
}

#[tokio::test]
async fn a_roll_out_is_restarted_once_and_not_while_it_is_paused() {
    let cluster = Cluster::new();
    let target = cluster.serve().await;
    let (worker, _file) = worker(&target);
    let restart = json!({"operation": "rollout-restart", "namespace": "shop", "name": "web"});
    succeeded(run(&worker, "kubernetes", restart.clone()).await);
    let template = cluster.object(WEB)["spec"]["template"].clone();
    assert!(template["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"].as_str().unwrap().ends_with('Z'));
    succeeded(run(&worker, "kubernetes", restart.clone()).await);
    assert_eq!((cluster.object(WEB)["spec"]["template"].clone(), target.calls().len()), (template, 3));

    cluster.0.lock().unwrap()[WEB]["spec"] = json!({"paused": true});
    let failure = failure(run(&worker, "kubernetes", restart).await);
    assert!(!failure.retryable && failure.error.contains("paused"), "{failure:?}");
}

#[tokio::test]
async fn pods_are_deleted_by_their_uid() {
    let cluster = Cluster::new();
    let target = cluster.serve().await;
    let (worker, _file) = worker(&target);
    let one = json!({"operation": "delete-pod", "namespace": "shop", "name": "web-0"});
    assert_eq!(
        succeeded(run(&worker, "kubernetes", one.clone()).await),
        json!({"namespace": "shop", "pods": ["web-0"], "count": 1})
    );
    assert_eq!(target.calls()[1].2["preconditions"], json!({"uid": "uid-0"}));
    let gone = failure(run(&worker, "kubernetes", one).await);
    assert!(!gone.retryable && gone.error.contains("pod shop/web-0 is not there"), "{gone:?}");

    let by_label = json!({"operation": "delete-pod", "namespace": "shop", "selector": "app=web"});
    assert_eq!(succeeded(run(&worker, "kubernetes", by_label.clone()).await)["pods"], json!(["web-1"]));
    assert_eq!(succeeded(run(&worker, "kubernetes", by_label.clone()).await)["count"], 0);

    for number in 0..51 {
        let path = format!("/api/v1/namespaces/shop/pods/p-{number}");
        cluster.0.lock().unwrap()[path] = json!({"metadata": {"name": format!("p-{number}"), "uid": "u"}});
    }
    let many = failure(run(&worker, "kubernetes", by_label).await);
    assert!(!many.retryable && many.error.contains("more than 50"), "{many:?}");
    assert_eq!(cluster.0.lock().unwrap().as_object().unwrap().len(), 53);
}

#[tokio::test]
async fn a_deletion_that_stops_half_way_says_how_far_it_came() {
    let state = Cluster::new();
    let shared = state.0.clone();
    let target = Target::start(move |request| match request.starts_with("DELETE") && request.contains("/web-1 ") {
        true => status("403 Forbidden", "pods is forbidden"),
        false => respond(&mut shared.lock().unwrap(), request),
    })
    .await;
    let (worker, _file) = worker(&target);
    let with = json!({"operation": "delete-pod", "namespace": "shop", "selector": "app=web"});
    let failure = failure(run(&worker, "kubernetes", with).await);
    assert!(!failure.retryable && failure.error.ends_with("1 of 2 pods were deleted before"), "{failure:?}");
    assert_eq!(failure.output.unwrap()["pods"], json!(["web-0"]));
}

#[tokio::test]
async fn refusals_conflicts_and_losses_are_told_apart() {
    let scale = json!({"operation": "scale", "namespace": "shop", "name": "web", "replicas": "1"});
    let cases: [(Reply, Option<bool>, &str); 4] = [
        (|| status("403 Forbidden", "deployments is forbidden"), Some(false), "deployments is forbidden"),
        (|| status("409 Conflict", "modified"), Some(true), "by somebody else"),
        (|| status("503 Service Unavailable", "etcd"), Some(true), "503"),
        (|| Answer::Reset, None, "did not answer"),
    ];
    for (reply, retryable, expected) in cases {
        let cluster = Cluster::new();
        let target = Target::start(move |request| match request.starts_with("PATCH") {
            true => reply(),
            false => respond(&mut cluster.0.lock().unwrap(), request),
        })
        .await;
        let (worker, _file) = worker(&target);
        let outcome = run(&worker, "kubernetes", scale.clone()).await;
        let text = match retryable {
            Some(retryable) => {
                let failure = failure(outcome);
                assert_eq!(failure.retryable, retryable, "{expected}");
                failure.error
            }
            None => unknown(outcome),
        };
        assert!(text.contains(expected) && !text.contains(TOKEN), "{expected}: {text}");
    }
}

#[tokio::test]
async fn what_cannot_be_meant_is_not_sent() {
    let target = Cluster::new().serve().await;
    let (worker, _file) = worker(&target);
    for (with, expected) in [
        (json!({"operation": "scale", "name": "web"}), "`replicas` is missing"),
        (json!({"operation": "scale", "name": "web", "replicas": "-1"}), "must be a whole number"),
        (json!({"operation": "scale", "name": "../x", "replicas": "1"}), "no name of Kubernetes"),
        (json!({"operation": "scale", "kind": "node", "name": "a", "replicas": "1"}), "not for a node"),
        (json!({"operation": "label", "kind": "pod", "name": "a"}), "`labels` is missing"),
        (json!({"operation": "label", "name": "a", "labels": {"a": "b"}}), "`kind` is missing"),
        (json!({"operation": "label", "kind": "pod", "name": "a", "labels": {"a": [1]}}), "must be a text or null"),
        (json!({"operation": "cordon", "namespace": "x"}), "`name` is missing"),
        (json!({"operation": "delete-pod", "selector": " "}), "needs `name` or `selector`"),
        (json!({"operation": "delete-pod", "name": "a", "selector": "a=b"}), "not both"),
        (json!({"operation": "drain", "name": "a"}), "no operation"),
        (json!({"operation": "delete-pod", "namespace": "a/b", "name": "a"}), "`namespace` is no name"),
    ] {
        let failure = failure(run(&worker, "kubernetes", with).await);
        assert!(!failure.retryable && failure.error.contains(expected), "{expected}: {failure:?}");
    }
    assert!(target.requests().is_empty());
}

//! `kubernetes`: one change of a cluster's objects, through its API.
//!
//! `operation`: `label` (`kind`, `name`, `labels`; null removes one), `cordon` and `uncordon` (`name` of a node), `scale`
//! (`kind`, `name`, `replicas`), `rollout-restart` (`kind`, `name`), `delete-pod` (`name`, or `selector` for at most 50 pods).
//! `kind` is a deployment by default where replicas or roll-outs are meant; `namespace` is `default` by default.
//!
//! Result `{kind, namespace, name, changed, before, after}`: `before` and `after` hold what the operation changes (`labels`,
//! `unschedulable`, `replicas`), so that an undo can put it back. Of `delete-pod`: `{namespace, pods, count}`.
//!
//! Repeating is harmless but for `delete-pod`. What was there before, and the idempotency key, are kept in the annotation
//! `stanch/last-change` of the object; a second try finds it, changes nothing and still tells the first one's `before`, unless
//! another step has changed the object in between: then the change is made again and `before` is what that one left. A change
//! names the version that it was decided on: where somebody else changed the object meanwhile, it is *failed* and
//! decided anew with the next try. A pod is deleted by its uid, never one that took its name since.
//!
//! Access: `kubernetes.url`, `token` and `ca` of the configuration, else the service account of the pod that the worker
//! runs in. It needs `get` and `patch` of what it changes (`scale` patches the object, not its `scale`), and `get`, `list`
//! and `delete` of pods.
//!
//! How it comes out: no answer to a question is *failed*; no answer to a change is *unknown*; 4xx is *failed* for good, but
//! for 409 and 429.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures::future::BoxFuture;
use reqwest::{Certificate, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stanch_core::{Assignment, Outcome};
use stanch_playbook::Timestamp;

use crate::action::{Action, Context, failed, refused};
use crate::parameters::{Parameters, kind as kind_of, scalar};
use crate::service::{Answer, Service, bearer, configured_url, with_body, with_key};

const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MERGE_PATCH: &str = "application/strategic-merge-patch+json";
const LAST_CHANGE: &str = "stanch/last-change";
const RESTART: &str = "stanch/restart";
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// More pods at once are refused: it is more likely a mistake in the selector.
const MOST_PODS: usize = 50;
/// The longest certificate bundle.
const LONGEST_CA: u64 = 1024 * 1024;

/// A Kubernetes cluster. Without `url`, the one that the engine runs in.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesConfig {
    /// The API server's address, such as `https://10.0.0.1:6443`.
    pub url: Option<String>,
    /// A bearer token, by reference (`env:NAME` or `file:PATH`).
    pub token: Option<String>,
    /// The file with the certificates (PEM) that sign the API server's; the system's unless set.
    pub ca: Option<PathBuf>,
}

/// The action `kubernetes`.
#[derive(Debug, Clone, Copy)]
pub struct Kubernetes;

impl Action for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            context.preparing();
            let (service, change) = match prepare(context, assignment) {
                Ok(prepared) => prepared,
                Err(error) => return refused(error),
            };
            let cluster = Cluster { context, assignment, service };
            let outcome = match change {
                Change::Object(target, wanted) => cluster.patch(&target, &wanted).await,
                Change::Pod { namespace, name } => cluster.delete_pod(&namespace, &name).await,
                Change::Pods { namespace, selector } => cluster.delete_pods(&namespace, &selector).await,
            };
            outcome.unwrap_or_else(|outcome| outcome)
        })
    }
}

/// What to do.
enum Change {
    Object(Target, Wanted),
    Pod { namespace: String, name: String },
    Pods { namespace: String, selector: String },
}

/// What an object should be like.
enum Wanted {
    Labels(Map<String, Value>),
    Unschedulable(bool),
    Replicas(u32),
    Restarted,
}

/// A kind of objects.
struct Kind {
    name: &'static str,
    group: &'static [&'static str],
    plural: &'static str,
    namespaced: bool,
}

const CORE: &[&str] = &["api", "v1"];
const APPS: &[&str] = &["apis", "apps", "v1"];

const KINDS: [Kind; 8] = [
    Kind { name: "pod", group: CORE, plural: "pods", namespaced: true },
    Kind { name: "node", group: CORE, plural: "nodes", namespaced: false },
    Kind { name: "namespace", group: CORE, plural: "namespaces", namespaced: false },
    Kind { name: "service", group: CORE, plural: "services", namespaced: true },
    Kind { name: "deployment", group: APPS, plural: "deployments", namespaced: true },
    Kind { name: "statefulset", group: APPS, plural: "statefulsets", namespaced: true },
    Kind { name: "daemonset", group: APPS, plural: "daemonsets", namespaced: true },
    Kind { name: "replicaset", group: APPS, plural: "replicasets", namespaced: true },
];

/// One object.
struct Target {
    kind: &'static Kind,
    namespace: Option<String>,
    name: String,
}

impl Target {
    fn path(&self) -> Vec<&str> {
        let mut path = self.kind.group.to_vec();
        if let Some(namespace) = &self.namespace {
            path.extend(["namespaces", namespace]);
        }
        path.extend([self.kind.plural, &self.name]);
        path
    }

    fn shown(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{} {namespace}/{}", self.kind.name, self.name),
            None => format!("{} {}", self.kind.name, self.name),
        }
    }
}

fn prepare(context: &Context, assignment: &Assignment) -> Result<(Service, Change), String> {
    let parameters = Parameters::of(assignment);
    let operation = parameters.text("operation")?;
    let given = parameters.optional_text("kind")?;
    let kind = |default: Option<&'static str>, allowed: &[&str]| -> Result<&'static Kind, String> {
        let name = given.as_deref().or(default).ok_or("`kind` is missing")?;
        let allowed = allowed.contains(&name) || allowed.is_empty();
        let known = KINDS.iter().find(|kind| kind.name == name).filter(|_| allowed);
        known.ok_or_else(|| format!("{operation} is not for a {name}"))
    };
    let target = |kind: &'static Kind| -> Result<Target, String> {
        let namespace = match kind.namespaced {
            true => Some(namespace(&parameters)?),
            false => None,
        };
        Ok(Target { kind, namespace, name: object_name("name", &parameters.text("name")?)? })
    };
    let change = match &*operation {
        "label" => Change::Object(target(kind(None, &[])?)?, Wanted::Labels(labels(&parameters)?)),
        "cordon" => Change::Object(target(kind(Some("node"), &["node"])?)?, Wanted::Unschedulable(true)),
        "uncordon" => Change::Object(target(kind(Some("node"), &["node"])?)?, Wanted::Unschedulable(false)),
        "scale" => {
            let kind = kind(Some("deployment"), &["deployment", "statefulset", "replicaset"])?;
            let text = parameters.text("replicas")?;
            let replicas = text.trim().parse().ok().filter(|replicas| *replicas <= i32::MAX as u32);
            let replicas = replicas.ok_or_else(|| format!("`replicas` must be a whole number, not {text:?}"))?;
            Change::Object(target(kind)?, Wanted::Replicas(replicas))
        }
        "rollout-restart" => {
            let kind = kind(Some("deployment"), &["deployment", "statefulset", "daemonset"])?;
            Change::Object(target(kind)?, Wanted::Restarted)
        }
        "delete-pod" => {
            kind(Some("pod"), &["pod"])?;
            let namespace = namespace(&parameters)?;
            match (parameters.optional_text("name")?, parameters.optional_text("selector")?) {
                (Some(_), Some(_)) => return Err("give `name` or `selector`, not both".to_owned()),
                (Some(name), None) => Change::Pod { namespace, name: object_name("name", &name)? },
                // An empty selector would mean every pod.
                (None, Some(selector)) if !selector.trim().is_empty() => {
                    Change::Pods { namespace, selector: selector.into_owned() }
                }
                (None, _) => return Err("delete-pod needs `name` or `selector`".to_owned()),
            }
        }
        other => return Err(format!("{other:?} is no operation of kubernetes")),
    };
    Ok((cluster(context)?, change))
}

fn namespace(parameters: &Parameters<'_>) -> Result<String, String> {
    match parameters.optional_text("namespace")?.filter(|text| !text.is_empty()) {
        Some(namespace) => object_name("namespace", &namespace),
        None => Ok("default".to_owned()),
    }
}

/// A name as Kubernetes has them: nothing that could lead to another path.
fn object_name(field: &str, text: &str) -> Result<String, String> {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let bytes = text.as_bytes();
    let valid =
        bytes.len() <= 253 && bytes.iter().all(|&byte| known(byte)) && edge(bytes.first()) && edge(bytes.last());
    if valid { Ok(text.to_owned()) } else { Err(format!("`{field}` is no name of Kubernetes: {text:?}")) }
}

fn labels(parameters: &Parameters<'_>) -> Result<Map<String, Value>, String> {
    let given =
        parameters.object("labels")?.filter(|labels| !labels.is_empty()).ok_or("`labels` is missing or empty")?;
    let label = |(name, value): (&String, &Value)| match value {
        Value::Null => Ok((name.clone(), Value::Null)),
        value => match scalar(value) {
            Some(text) => Ok((name.clone(), Value::String(text.into_owned()))),
            None => Err(format!("`labels.{name}` must be a text or null, not {}", kind_of(value))),
        },
    };
    given.iter().map(label).collect()
}

fn cluster(context: &Context) -> Result<Service, String> {
    let configured = &context.shared.services.kubernetes;
    let config = match &configured.url {
        Some(_) => configured.clone(),
        None => in_cluster(Path::new(ACCOUNT), |name| std::env::var(name).ok())?,
    };
    let url = config.url.as_deref().unwrap_or_default();
    let base = configured_url(url).map_err(|error| format!("kubernetes.url {error}"))?;
    let token = match &config.token {
        Some(reference) => Some(bearer(context, reference).map_err(|error| format!("kubernetes.token: {error}"))?),
        None => None,
    };
    let client = match &config.ca {
        None => context.shared.clients.trusted()?,
        // Read each time, like the token: both are rotated under a running pod.
        Some(path) => context.shared.clients.trusted_by(&authorities(path)?)?,
    };
    Ok(Service::at("kubernetes", base, token, client))
}

/// The access that a pod is given.
fn in_cluster(account: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<KubernetesConfig, String> {
    let host = variable("KUBERNETES_SERVICE_HOST");
    let host = host.ok_or("kubernetes is not configured and this is no pod: set kubernetes.url in stanch.yaml")?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
    Ok(KubernetesConfig {
        url: Some(format!("https://{host}:{port}")),
        token: Some(format!("file:{}", account.join("token").display())),
        ca: Some(account.join("ca.crt")),
    })
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, String> {
    let unusable = |why: String| format!("kubernetes.ca {} cannot be used: {why}", path.display());
    let metadata = std::fs::metadata(path).map_err(|error| unusable(error.to_string()))?;
    if !metadata.is_file() || metadata.len() > LONGEST_CA {
        return Err(unusable("it is no file of certificates".to_owned()));
    }
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|_| unusable("it holds no PEM".to_owned()))?;
    if found.is_empty() { Err(unusable("it holds no certificate".to_owned())) } else { Ok(found) }
}

struct Cluster<'a> {
    context: &'a Context,
    assignment: &'a Assignment,
    service: Service,
}

impl Cluster<'_> {
    async fn patch(&self, target: &Target, wanted: &Wanted) -> Result<Outcome, Outcome> {
        let request = self.service.request(Method::GET, &target.path());
        let object = self.asked(self.service.read(self.context, request).await?, &target.shown())?;
        let key = self.assignment.idempotency_key.as_str();
        if let Some(before) = wanted.done_before(&object, key) {
            return Ok(result(target, true, &before, &wanted.after()));
        }
        let before = wanted.before(&object);
        if matches!(wanted, Wanted::Restarted) && object["spec"]["paused"] == true {
            return Err(refused(format!("{} is paused: resume its roll-out first", target.shown())));
        }
        if !matches!(wanted, Wanted::Restarted) && before == wanted.after() {
            return Ok(result(target, false, &before, &before));
        }
        let version = &object["metadata"]["resourceVersion"];
        let patch = with_body(
            self.service.request(Method::PATCH, &target.path()),
            MERGE_PATCH,
            &wanted.patch(&before, version, key),
        );
        let answer = self.service.change(self.context, with_key(patch, self.assignment)).await?;
        if answer.status.as_u16() == 409 {
            return Err(failed(format!("{} was changed by somebody else at the same moment", target.shown())));
        }
        if !answer.status.is_success() {
            return Err(self.service.said_no(&answer));
        }
        Ok(result(target, true, &before, &wanted.after()))
    }

    async fn delete_pod(&self, namespace: &str, name: &str) -> Result<Outcome, Outcome> {
        let path = pods(namespace, Some(name));
        let request = self.service.request(Method::GET, &path);
        let shown = format!("pod {namespace}/{name}");
        let pod = self.asked(self.service.read(self.context, request).await?, &shown)?;
        self.delete(namespace, &pod).await?;
        Ok(deleted(namespace, &[name.to_owned()]))
    }

    async fn delete_pods(&self, namespace: &str, selector: &str) -> Result<Outcome, Outcome> {
        let mut request = self.service.request(Method::GET, &pods(namespace, None));
        let limit = (MOST_PODS + 1).to_string();
        request.url_mut().query_pairs_mut().append_pair("labelSelector", selector).append_pair("limit", &limit);
        let list = self.asked(self.service.read(self.context, request).await?, "the list of pods")?;
        let Some(found) = list["items"].as_array() else {
            return Err(refused(format!("{} answered no list of pods", self.service.place())));
        };
        if found.len() > MOST_PODS {
            return Err(refused(format!("the selector means more than {MOST_PODS} pods: narrow it down")));
        }
        let mut done = Vec::new();
        for pod in found {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            match self.delete(namespace, pod).await {
                Ok(()) => done.push(name.to_owned()),
                Err(Outcome::Failed { error, retry_after, .. }) if !done.is_empty() => {
                    let error = format!("{error}; {} of {} pods were deleted before", done.len(), found.len());
                    let output = Some(json!({ "namespace": namespace, "pods": done, "count": done.len() }));
                    return Err(Outcome::Failed { error, output, retry_after, retryable: false });
                }
                Err(other) => return Err(other),
            }
        }
        Ok(deleted(namespace, &done))
    }

    /// Deletes this very pod. One that is gone, or whose name another has now, counts as deleted.
    async fn delete(&self, namespace: &str, pod: &Value) -> Result<(), Outcome> {
        let (Some(name), Some(uid)) = (pod["metadata"]["name"].as_str(), pod["metadata"]["uid"].as_str()) else {
            return Err(refused(format!("{} answered a pod without name or uid", self.service.place())));
        };
        let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": { "uid": uid } });
        let request = self.service.request(Method::DELETE, &pods(namespace, Some(name)));
        let request = with_key(with_body(request, "application/json", &options), self.assignment);
        let answer = self.service.change(self.context, request).await?;
        match answer.status.as_u16() {
            200..300 | 404 | 409 => Ok(()),
            _ => Err(self.service.said_no(&answer)),
        }
    }

    fn asked(&self, answer: Answer, what: &str) -> Result<Value, Outcome> {
        if answer.status.as_u16() == 404 {
            return Err(refused(format!("{what} is not there")));
        }
        if !answer.status.is_success() {
            return Err(self.service.said_no(&answer));
        }
        let object = answer.json().filter(Value::is_object);
        object.ok_or_else(|| failed(format!("{} answered no object: is it a Kubernetes API?", self.service.place())))
    }
}

impl Wanted {
    /// What the object has of it now.
    fn before(&self, object: &Value) -> Value {
        match self {
            Self::Labels(labels) => {
                let now = |name: &String| object["metadata"]["labels"].get(name).cloned().unwrap_or_default();
                let labels: Map<_, _> = labels.keys().map(|name| (name.clone(), now(name))).collect();
                json!({ "labels": labels })
            }
            Self::Unschedulable(_) => json!({ "unschedulable": object["spec"]["unschedulable"] == true }),
            // The API server fills a missing number in with one.
            Self::Replicas(_) => json!({ "replicas": object["spec"]["replicas"].as_u64().unwrap_or(1) }),
            Self::Restarted => json!({}),
        }
    }

    fn after(&self) -> Value {
        match self {
            Self::Labels(labels) => json!({ "labels": labels }),
            Self::Unschedulable(flag) => json!({ "unschedulable": flag }),
            Self::Replicas(number) => json!({ "replicas": number }),
            Self::Restarted => json!({}),
        }
    }

    /// What was there before, where an earlier try of the same step has already made the change.
    fn done_before(&self, object: &Value, key: &str) -> Option<Value> {
        if matches!(self, Self::Restarted) {
            let annotations = &object["spec"]["template"]["metadata"]["annotations"];
            return (annotations[RESTART] == key).then(|| json!({}));
        }
        let noted = object["metadata"]["annotations"][LAST_CHANGE].as_str()?;
        let noted: Value = serde_json::from_str(noted).ok()?;
        (noted["key"] == key).then(|| noted["before"].clone())
    }

    fn patch(&self, before: &Value, version: &Value, key: &str) -> Value {
        let noted = json!({ "key": key, "before": before }).to_string();
        let annotations = json!({ LAST_CHANGE: noted });
        match self {
            Self::Labels(labels) => {
                json!({ "metadata": { "resourceVersion": version, "annotations": annotations, "labels": labels } })
            }
            Self::Unschedulable(flag) => json!({
                "metadata": { "resourceVersion": version, "annotations": annotations },
                "spec": { "unschedulable": flag },
            }),
            Self::Replicas(number) => json!({
                "metadata": { "resourceVersion": version, "annotations": annotations },
                "spec": { "replicas": number },
            }),
            Self::Restarted => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let now = Timestamp::from_millis(0).plus(now).to_string();
                let annotations = json!({ RESTARTED_AT: now, RESTART: key });
                json!({
                    "metadata": { "resourceVersion": version },
                    "spec": { "template": { "metadata": { "annotations": annotations } } },
                })
            }
        }
    }
}

fn pods<'a>(namespace: &'a str, name: Option<&'a str>) -> Vec<&'a str> {
    let mut path = vec!["api", "v1", "namespaces", namespace, "pods"];
    path.extend(name);
    path
}

fn result(target: &Target, changed: bool, before: &Value, after: &Value) -> Outcome {
    let output = json!({
        "kind": target.kind.name,
        "namespace": target.namespace,
        "name": target.name,
        "changed": changed,
        "before": before,
        "after": after,
    });
    Outcome::Succeeded { output }
}

fn deleted(namespace: &str, pods: &[String]) -> Outcome {
    Outcome::Succeeded { output: json!({ "namespace": namespace, "pods": pods, "count": pods.len() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_finds_its_cluster() {
        let variables = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("6443".to_owned()),
            _ => None,
        };
        let found = in_cluster(Path::new("/account"), variables).unwrap();
        assert_eq!(found.url.as_deref(), Some("https://[fd00::1]:6443"));
        assert_eq!(found.token.as_deref(), Some("file:/account/token"));
        assert_eq!(found.ca.as_deref(), Some(Path::new("/account/ca.crt")));
        assert!(in_cluster(Path::new("/account"), |_| None).unwrap_err().contains("this is no pod"));
    }

    #[test]
    fn names_lead_nowhere_else() {
        for name in ["web", "web-1.prod", "0"] {
            assert_eq!(object_name("name", name).as_deref(), Ok(name));
        }
        for name in ["", ".", "..", "a/b", "a%2fb", "A", "-a", "a-", "a?x", "é", &"a".repeat(254)] {
            assert!(object_name("name", name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_unusable_certificate_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        assert!(authorities(&path).unwrap_err().contains("ca.crt cannot be used"));
        std::fs::write(&path, "no PEM").unwrap();
        assert!(authorities(&path).unwrap_err().contains("it holds no certificate"));
    }
}

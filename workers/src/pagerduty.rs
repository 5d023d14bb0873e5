//! `pagerduty`: one event to PagerDuty's Events API v2.
//!
//! `operation` (`trigger`, the default; `acknowledge`; `resolve`), `dedup_key` (default of `trigger`: the idempotency key; the
//! others need the one that `trigger` gave), `routing_key` (default from the configuration; may be a secret). For
//! `trigger`: `summary`, `severity` (`critical`, the default; `error`, `warning`, `info`), `source` (default: the playbook's
//! name), `component`, `group`, `details`. Result `{dedup_key, status, message}`.
//!
//! Repeating is harmless: PagerDuty takes events of one `dedup_key` together.
//!
//! How it comes out: 202 is success; 429 and 5xx are *failed* and tried again; 400 and the like are *failed* for good; no
//! answer is *unknown*.

use futures::future::BoxFuture;
use reqwest::{Method, Request};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stanch_core::{Assignment, Outcome};

use crate::action::{Action, Context, refused};
use crate::parameters::Parameters;
use crate::service::{Service, configured_url, with_body, with_key};

const API: &str = "https://events.pagerduty.com";
/// PagerDuty's own bounds, in characters.
const LONGEST_SUMMARY: usize = 1024;
const LONGEST_KEY: usize = 255;
/// PagerDuty takes events of at most 512 KB.
const LARGEST_EVENT: usize = 500_000;

/// PagerDuty.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PagerDutyConfig {
    /// The Events API's address; `https://events.pagerduty.com` unless set.
    pub api_url: Option<String>,
    /// The integration's routing key of events that name none, by reference (`env:NAME` or `file:PATH`).
    pub routing_key: Option<String>,
}

/// The action `pagerduty`.
#[derive(Debug, Clone, Copy)]
pub struct PagerDuty;

impl Action for PagerDuty {
    fn name(&self) -> &'static str {
        "pagerduty"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            context.preparing();
            match prepare(context, assignment) {
                Ok((service, request, key)) => {
                    send(context, &service, request, &key).await.unwrap_or_else(|outcome| outcome)
                }
                Err(error) => refused(error),
            }
        })
    }
}

fn prepare(context: &Context, assignment: &Assignment) -> Result<(Service, Request, String), String> {
    let parameters = Parameters::of(assignment);
    let config = &context.shared.services.pagerduty;
    let base = configured_url(config.api_url.as_deref().unwrap_or(API))
        .map_err(|error| format!("pagerduty.api_url {error}"))?;
    let host = base.host_str().unwrap_or_default().to_owned();
    let routing_key = match (parameters.get("routing_key"), &config.routing_key) {
        (Some(given), _) => {
            let rendered = context.secrets().render(given, Some(&host));
            rendered.map_err(|error| format!("`routing_key`: {error}"))?.text.into_owned()
        }
        (None, Some(reference)) => {
            let read = context.secrets().read(reference);
            read.map_err(|error| format!("pagerduty.routing_key: {error}"))?.expose().to_owned()
        }
        (None, None) => {
            return Err("no routing key: give `routing_key`, or pagerduty.routing_key in stanch.yaml".to_owned());
        }
    };

    let operation = parameters.optional_text("operation")?.unwrap_or("trigger".into());
    let given = parameters.optional_text("dedup_key")?.filter(|key| !key.is_empty());
    let key = match (&*operation, given) {
        ("trigger" | "acknowledge" | "resolve", Some(key)) => key.into_owned(),
        ("trigger", None) => assignment.idempotency_key.as_str().to_owned(),
        ("acknowledge" | "resolve", None) => {
            return Err(format!("{operation} needs `dedup_key`: the one that trigger gave"));
        }
        (other, _) => return Err(format!("{other:?} is no operation: write trigger, acknowledge or resolve")),
    };
    if key.chars().count() > LONGEST_KEY {
        return Err(format!("`dedup_key` is longer than {LONGEST_KEY} characters"));
    }
    let mut event = json!({ "routing_key": routing_key.trim(), "event_action": operation, "dedup_key": key });
    if operation == "trigger" {
        event["payload"] = payload(&parameters, assignment)?;
        event["client"] = json!("Stanch");
    }
    if event.to_string().len() > LARGEST_EVENT {
        return Err("the event is larger than PagerDuty takes: shorten `details`".to_owned());
    }
    let service = Service::at("pagerduty", base, None, context.shared.clients.trusted()?);
    let request = with_body(service.request(Method::POST, &["v2", "enqueue"]), "application/json", &event);
    Ok((service, with_key(request, assignment), key))
}

fn payload(parameters: &Parameters<'_>, assignment: &Assignment) -> Result<Value, String> {
    let severity = parameters.optional_text("severity")?.unwrap_or("critical".into());
    if !["critical", "error", "warning", "info"].contains(&&*severity) {
        return Err(format!("{severity:?} is no severity of PagerDuty: write critical, error, warning or info"));
    }
    let mut payload = Map::new();
    let summary: String = parameters.text("summary")?.chars().take(LONGEST_SUMMARY).collect();
    payload.insert("summary".to_owned(), summary.into());
    payload.insert("severity".to_owned(), severity.into_owned().into());
    let source = parameters.optional_text("source")?.filter(|source| !source.is_empty());
    let source = source.unwrap_or_else(|| assignment.playbook.as_str().into());
    payload.insert("source".to_owned(), source.into_owned().into());
    for field in ["component", "group"] {
        if let Some(text) = parameters.optional_text(field)?.filter(|text| !text.is_empty()) {
            payload.insert(field.to_owned(), text.into_owned().into());
        }
    }
    if let Some(details) = parameters.object("details")? {
        payload.insert("custom_details".to_owned(), details.clone().into());
    }
    Ok(Value::Object(payload))
}

async fn send(context: &Context, service: &Service, request: Request, key: &str) -> Result<Outcome, Outcome> {
    let answer = service.change(context, request).await?;
    if answer.status.as_u16() != 202 {
        return Err(service.said_no(&answer));
    }
    let said = answer.json().unwrap_or_default();
    let key = said["dedup_key"].as_str().unwrap_or(key);
    let output = json!({ "dedup_key": key, "status": said["status"], "message": said["message"] });
    Ok(Outcome::Succeeded { output })
}

//! `prometheus`: one instant query.
//!
//! `query` (PromQL), `url` (default from the configuration). Result `{value, samples, count, empty}`: `samples` is a list of
//! `{labels, value}` in the order of the answer, `value` that of the first, null where there is none. A scalar is one
//! sample without labels. JSON has no NaN and no infinity: such a value is null. Of more samples than fit the bound of a
//! result the first are kept, with `truncated: true`; `count` counts all. What Prometheus warns of stands in `warnings`.
//!
//! How it comes out: a query changes nothing, so it succeeds or is *failed*. A query that Prometheus refuses is not tried
//! again; no answer, 429 and 5xx are.

use futures::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};
use stanch_core::{Assignment, Outcome};

use crate::action::{Action, Context, failed, refused};
use crate::bound::{OUTPUT, size};
use crate::parameters::Parameters;
use crate::service::Service;

/// What the samples may take of a result.
const SAMPLES: usize = OUTPUT - 16 * 1024;
/// How many warnings are kept.
const WARNINGS: usize = 10;

/// The action `prometheus`.
#[derive(Debug, Clone, Copy)]
pub struct Prometheus;

impl Action for Prometheus {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            context.preparing();
            match query(context, assignment) {
                Ok((service, query)) => ask(context, &service, &query).await.unwrap_or_else(|outcome| outcome),
                Err(error) => refused(error),
            }
        })
    }
}

fn query(context: &Context, assignment: &Assignment) -> Result<(Service, String), String> {
    let parameters = Parameters::of(assignment);
    let query = parameters.text("query")?.into_owned();
    let url = parameters.optional_text("url")?;
    let service = Service::find(context, "prometheus", context.shared.services.prometheus.as_ref(), url.as_deref())?;
    Ok((service, query))
}

async fn ask(context: &Context, service: &Service, query: &str) -> Result<Outcome, Outcome> {
    let mut request = service.request(Method::GET, &["api", "v1", "query"]);
    request.url_mut().query_pairs_mut().append_pair("query", query);
    let answer = service.read(context, request).await?;
    if !answer.status.is_success() {
        return Err(service.said_no(&answer));
    }
    let stranger = || failed(format!("{} answered no query result: is it a Prometheus?", service.place()));
    let answer = answer.json().ok_or_else(stranger)?;
    let data = &answer["data"];
    let found = match (data["resultType"].as_str(), data["result"].as_array()) {
        (Some("vector"), Some(samples)) => samples
            .iter()
            .map(|sample| Some(json!({ "labels": sample["metric"].as_object()?, "value": number(&sample["value"])? })))
            .collect::<Option<Vec<_>>>(),
        (Some("scalar"), Some(_)) => number(&data["result"]).map(|value| vec![json!({ "labels": {}, "value": value })]),
        (Some(other @ ("matrix" | "string")), _) => {
            return Err(refused(format!("the query gives a {other}: ask for an instant vector or a scalar")));
        }
        _ => None,
    };
    let mut result = samples(found.ok_or_else(stranger)?);
    if let Some(warnings) = answer["warnings"].as_array().filter(|warnings| !warnings.is_empty()) {
        result["warnings"] = warnings.iter().take(WARNINGS).cloned().collect();
    }
    Ok(Outcome::Succeeded { output: result })
}

/// The number of `[time, "text"]`: null for NaN and the infinities. None where it is no such pair.
fn number(pair: &Value) -> Option<Value> {
    let text = pair.get(1)?.as_str()?;
    let number: f64 = text.parse().ok()?;
    Some(serde_json::Number::from_f64(number).map_or(Value::Null, Value::Number))
}

fn samples(found: Vec<Value>) -> Value {
    let count = found.len();
    let mut room = SAMPLES;
    let mut kept = Vec::new();
    for sample in found {
        match room.checked_sub(size(&sample) + 1) {
            Some(left) => room = left,
            None => break,
        }
        kept.push(sample);
    }
    let value = kept.first().map_or(Value::Null, |first| first["value"].clone());
    let mut result = json!({ "value": value, "count": count, "empty": count == 0 });
    if kept.len() < count {
        result["truncated"] = Value::Bool(true);
    }
    result["samples"] = Value::Array(kept);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_has_not_are_null() {
        for (text, expected) in [("1", json!(1.0)), ("0.25", json!(0.25)), ("NaN", json!(null)), ("+Inf", json!(null))]
        {
            assert_eq!(number(&json!([1.5, text])), Some(expected), "{text}");
        }
        assert_eq!(number(&json!([1.5, 2])), None);
    }

    #[test]
    fn samples_beyond_the_bound_are_counted_and_left_out() {
        let many = vec![json!({"labels": {"a": "x".repeat(1000)}, "value": 2.0}); 1000];
        let result = samples(many);
        assert_eq!(
            (&result["count"], &result["truncated"], &result["value"]),
            (&json!(1000), &json!(true), &json!(2.0))
        );
        assert!(size(&result) < OUTPUT && result["samples"].as_array().unwrap().len() > 200);
    }
}

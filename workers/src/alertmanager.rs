//! `alertmanager.silence`: creates, extends or expires one silence, through API v2.
//!
//! `operation` (`create`, the default; `extend`; `expire`), `url` (default from the configuration).
//! - `create`: `matchers` (a map of labels and their values; or a list of matchers as in a trigger), `duration`, `comment`,
//!   `created_by`. A value that comes from an alert belongs in the map: in the list its quotes would have to be escaped.
//! - `extend`: `id`, `duration` from now on; never shortens.
//! - `expire`: `id`. One that is over already is a success.
//!
//! Result `{id, until}`, the end in RFC 3339. Alertmanager may give a silence a new id when it is extended; `extend` and
//! `expire` find it by its old one too.
//!
//! Repeating is harmless. The comment ends with the idempotency key in brackets, and `create` first looks for a silence
//! that has it: a second try gives the first one's silence. Of two Alertmanagers that have lost sight of each other, the
//! other does not know it; a second silence with the same matchers is then the worst that comes of it.
//!
//! How it comes out: no answer to a question is *failed*; no answer to a change is *unknown*; a refusal is *failed*.

use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use reqwest::Method;
use serde_json::{Value, json};
use stanch_core::{Assignment, Outcome};
use stanch_playbook::matcher::Matcher;
use stanch_playbook::{Timestamp, parse_duration};

use crate::action::{Action, Context, failed, refused, unknown};
use crate::parameters::{Parameters, kind, scalar};
use crate::service::{Answer, Service, with_body, with_key};

const LONGEST_COMMENT: usize = 1000;
const JSON: &str = "application/json";

/// The action `alertmanager.silence`.
#[derive(Debug, Clone, Copy)]
pub struct AlertmanagerSilence;

impl Action for AlertmanagerSilence {
    fn name(&self) -> &'static str {
        "alertmanager.silence"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            context.preparing();
            let (service, operation) = match prepare(context, assignment) {
                Ok(prepared) => prepared,
                Err(error) => return refused(error),
            };
            let call = Call { context, assignment, service };
            let outcome = match operation {
                Operation::Create(wanted) => call.create(wanted).await,
                Operation::Extend { id, duration } => call.extend(&id, duration).await,
                Operation::Expire { id } => call.expire(&id).await,
            };
            outcome.unwrap_or_else(|outcome| outcome)
        })
    }
}

enum Operation {
    Create(Wanted),
    Extend { id: String, duration: Duration },
    Expire { id: String },
}

/// A silence to create.
struct Wanted {
    matchers: Vec<Value>,
    duration: Duration,
    comment: String,
    created_by: String,
}

fn prepare(context: &Context, assignment: &Assignment) -> Result<(Service, Operation), String> {
    let parameters = Parameters::of(assignment);
    let operation = match &*parameters.optional_text("operation")?.unwrap_or("create".into()) {
        "create" => Operation::Create(wanted(&parameters, assignment)?),
        "extend" => Operation::Extend { id: id(&parameters)?, duration: duration(&parameters)? },
        "expire" => Operation::Expire { id: id(&parameters)? },
        other => return Err(format!("{other:?} is no operation: write create, extend or expire")),
    };
    let url = parameters.optional_text("url")?;
    let configured = context.shared.services.alertmanager.as_ref();
    Ok((Service::find(context, "alertmanager", configured, url.as_deref())?, operation))
}

fn wanted(parameters: &Parameters<'_>, assignment: &Assignment) -> Result<Wanted, String> {
    let text = |field: &str| Ok::<_, String>(parameters.optional_text(field)?.filter(|text| !text.trim().is_empty()));
    let comment = match text("comment")? {
        Some(comment) => comment.chars().take(LONGEST_COMMENT).collect(),
        None => format!("by playbook {}", assignment.playbook.as_str()),
    };
    Ok(Wanted {
        matchers: matchers(parameters.get("matchers"))?,
        duration: duration(parameters)?,
        comment: format!("{comment} {}", tag(assignment.idempotency_key.as_str())),
        created_by: text("created_by")?.map_or_else(|| "stanch".to_owned(), |by| by.chars().take(100).collect()),
    })
}

fn matchers(given: Option<&Value>) -> Result<Vec<Value>, String> {
    let matcher = |name: &str, value: &str, regex: bool, equal: bool| json!({ "name": name, "value": value, "isRegex": regex, "isEqual": equal });
    let found = match given {
        None => return Err("`matchers` is missing".to_owned()),
        Some(Value::Object(labels)) => {
            let label = |(name, value): (&String, &Value)| match scalar(value) {
                Some(value) if !name.is_empty() => Ok(matcher(name, &value, false, true)),
                _ => Err(format!("`matchers.{name}` must be a text, not {}", kind(value))),
            };
            labels.iter().map(label).collect::<Result<Vec<_>, _>>()?
        }
        Some(Value::Array(texts)) => {
            let mut found = Vec::new();
            for text in texts {
                let text = text.as_str().ok_or_else(|| format!("`matchers` must hold texts, not {}", kind(text)))?;
                let parsed = Matcher::parse(text).map_err(|error| format!("{text:?} is no matcher: {error}"))?;
                let [one] = &parsed[..] else {
                    return Err(format!("{text:?} is more than one matcher: write each on its own"));
                };
                found.push(matcher(one.name(), one.value(), one.is_regex(), one.is_positive()));
            }
            found
        }
        Some(other) => return Err(format!("`matchers` must be a map or a list, not {}", kind(other))),
    };
    // An empty value asks for a label that is missing; alone it would silence nearly everything.
    if !found.iter().any(|matcher| matcher["value"] != "" && matcher["isEqual"] == true) {
        return Err("`matchers` must ask for at least one label that is there".to_owned());
    }
    Ok(found)
}

fn duration(parameters: &Parameters<'_>) -> Result<Duration, String> {
    let text = parameters.text("duration")?;
    let duration = parse_duration(&text).map_err(|error| format!("`duration` is {error}"))?;
    if duration.is_zero() { Err("`duration` must be longer than nothing".to_owned()) } else { Ok(duration) }
}

fn id(parameters: &Parameters<'_>) -> Result<String, String> {
    let id = parameters.text("id")?;
    let known = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    match id.len() <= 64 && id.chars().all(known) {
        true => Ok(id.into_owned()),
        false => Err("`id` is no silence's id".to_owned()),
    }
}

/// The time in whole milliseconds, as Alertmanager tells times.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// How a silence is found again.
fn tag(key: &str) -> String {
    format!("[stanch {key}]")
}

/// The tag at the end of a comment.
fn tag_of(comment: &str) -> Option<&str> {
    comment.trim_end().ends_with(']').then(|| comment.rfind("[stanch ").map(|at| comment[at..].trim_end()))?
}

struct Call<'a> {
    context: &'a Context,
    assignment: &'a Assignment,
    service: Service,
}

impl Call<'_> {
    async fn create(&self, wanted: Wanted) -> Result<Outcome, Outcome> {
        let tag = tag(self.assignment.idempotency_key.as_str());
        let known = self.tagged(&[&tag], filter(&wanted.matchers).as_deref()).await?;
        if let Some(known) = known.first() {
            return self.result(known["id"].as_str(), known["endsAt"].as_str());
        }
        let now = now();
        let until = now.plus(wanted.duration).to_string();
        let body = json!({
            "matchers": wanted.matchers,
            "startsAt": now.to_string(),
            "endsAt": until,
            "createdBy": wanted.created_by,
            "comment": wanted.comment,
        });
        let id = self.post(&body).await?;
        self.result(Some(&id), Some(&until))
    }

    async fn extend(&self, id: &str, duration: Duration) -> Result<Outcome, Outcome> {
        let Some(silence) = self.in_force(id).await?.0 else {
            return Err(refused(format!("silence {id} is over: create a new one")));
        };
        let ends_at = silence["endsAt"].as_str().unwrap_or_default();
        let wanted = now().plus(duration);
        if Timestamp::parse(ends_at).is_ok_and(|ends_at| ends_at >= wanted) {
            return self.result(silence["id"].as_str(), Some(ends_at));
        }
        let comment = silence["comment"].as_str().unwrap_or_default();
        let comment = match tag_of(comment) {
            Some(_) => comment.to_owned(),
            None => format!("{comment} {}", tag(id)).trim_start().to_owned(),
        };
        let until = wanted.to_string();
        let body = json!({
            "id": silence["id"],
            "matchers": silence["matchers"],
            "startsAt": silence["startsAt"],
            "endsAt": until,
            "createdBy": silence["createdBy"],
            "comment": comment,
        });
        let id = self.post(&body).await?;
        self.result(Some(&id), Some(&until))
    }

    async fn expire(&self, id: &str) -> Result<Outcome, Outcome> {
        let (in_force, given) = self.in_force(id).await?;
        let Some(silence) = in_force else {
            return self.result(Some(id), given["endsAt"].as_str());
        };
        let id = silence["id"].as_str().unwrap_or_default();
        let request = self.service.request(Method::DELETE, &["api", "v2", "silence", id]);
        let answer = self.service.change(self.context, with_key(request, self.assignment)).await?;
        if !answer.status.is_success() {
            return Err(self.service.said_no(&answer));
        }
        self.result(Some(id), Some(&now().to_string()))
    }

    /// The silence of an id where it is in force or will be; else the one that followed it when it was extended. Beside
    /// it, the one that the id names.
    async fn in_force(&self, id: &str) -> Result<(Option<Value>, Value), Outcome> {
        let request = self.service.request(Method::GET, &["api", "v2", "silence", id]);
        let answer = self.service.read(self.context, request).await?;
        if answer.status.as_u16() == 404 {
            return Err(refused(format!("{} knows no silence {id}", self.service.place())));
        }
        let silence = self.json(&answer)?;
        if silence["status"]["state"].as_str().ok_or_else(|| self.stranger())? != "expired" {
            return Ok((Some(silence.clone()), silence));
        }
        let own = tag(id);
        let mut tags = vec![own.as_str()];
        tags.extend(tag_of(silence["comment"].as_str().unwrap_or_default()));
        let filter = silence["matchers"].as_array().and_then(|matchers| filter(matchers));
        let mut followers = self.tagged(&tags, filter.as_deref()).await?;
        followers.retain(|follower| follower["status"]["state"] != "expired");
        Ok((followers.pop(), silence))
    }

    /// The silences whose comment ends with one of the tags.
    async fn tagged(&self, tags: &[&str], filter: Option<&str>) -> Result<Vec<Value>, Outcome> {
        let mut request = self.service.request(Method::GET, &["api", "v2", "silences"]);
        if let Some(filter) = filter {
            request.url_mut().query_pairs_mut().append_pair("filter", filter);
        }
        let answer = self.service.read(self.context, request).await?;
        let Value::Array(mut silences) = self.json(&answer)? else { return Err(self.stranger()) };
        silences
            .retain(|silence| silence["comment"].as_str().and_then(tag_of).is_some_and(|found| tags.contains(&found)));
        Ok(silences)
    }

    async fn post(&self, body: &Value) -> Result<String, Outcome> {
        let request = with_body(self.service.request(Method::POST, &["api", "v2", "silences"]), JSON, body);
        let answer = self.service.change(self.context, with_key(request, self.assignment)).await?;
        if !answer.status.is_success() {
            return Err(self.service.said_no(&answer));
        }
        let id = answer.json().and_then(|answer| answer["silenceID"].as_str().map(str::to_owned));
        id.ok_or_else(|| unknown(format!("{} took the silence and named no id", self.service.place())))
    }

    fn json(&self, answer: &Answer) -> Result<Value, Outcome> {
        if !answer.status.is_success() {
            return Err(self.service.said_no(answer));
        }
        answer.json().ok_or_else(|| self.stranger())
    }

    fn stranger(&self) -> Outcome {
        failed(format!("{} answered no silences: is it an Alertmanager?", self.service.place()))
    }

    fn result(&self, id: Option<&str>, until: Option<&str>) -> Result<Outcome, Outcome> {
        let id = id.ok_or_else(|| self.stranger())?;
        Ok(Outcome::Succeeded { output: json!({ "id": id, "until": until }) })
    }
}

/// What keeps the list of silences short: one of the matchers, where Alertmanager's filter can say it.
fn filter(matchers: &[Value]) -> Option<String> {
    let sayable = |name: &str| name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    let equality = |matcher: &&Value| matcher["isEqual"] != false && matcher["isRegex"] != true;
    matchers.iter().filter(equality).find_map(|matcher| {
        let name = matcher["name"].as_str().filter(|name| sayable(name))?;
        let value = matcher["value"].as_str().filter(|value| !value.is_empty())?;
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.:/ ".contains(letter);
        (value.chars().all(plain)).then(|| format!("{name}=\"{value}\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_takes_values_as_they_are() {
        let given = json!({"alertname": "A\" , b=~\".*", "shard": 7});
        let expected = json!([
            {"name": "alertname", "value": "A\" , b=~\".*", "isRegex": false, "isEqual": true},
            {"name": "shard", "value": "7", "isRegex": false, "isEqual": true},
        ]);
        assert_eq!(Value::Array(matchers(Some(&given)).unwrap()), expected);
    }

    #[test]
    fn a_list_takes_one_matcher_a_text() {
        let given = json!(["alertname=\"A\"", "env=~\"a|b\"", "team!=\"x\"", "zone!~\"y.*\""]);
        let flags: Vec<_> = matchers(Some(&given))
            .unwrap()
            .iter()
            .map(|matcher| (matcher["isRegex"] == true, matcher["isEqual"] == true))
            .collect();
        assert_eq!(flags, [(false, true), (true, true), (false, false), (true, false)]);
    }

    #[test]
    fn matchers_that_would_silence_everything_are_refused() {
        for given in [
            json!({}),
            json!([]),
            json!({"host": ""}),
            json!(["a!=\"b\""]),
            json!(["a=\"b\", c=\"d\""]),
            json!(["a"]),
            json!([1]),
            json!({"a": [1]}),
            json!("a=\"b\""),
        ] {
            assert!(matchers(Some(&given)).is_err(), "{given}");
        }
    }

    #[test]
    fn the_tag_stands_at_the_end_of_a_comment() {
        assert_eq!(tag_of("why [stanch a:b] "), Some("[stanch a:b]"));
        assert_eq!(tag_of("why [stanch a:b] and more"), None);
        assert_eq!(tag_of("why"), None);
    }
}

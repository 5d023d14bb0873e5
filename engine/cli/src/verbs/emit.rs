//! `stanch emit`: an event from a file, over HTTP or NATS.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{Emit, EventKind};
use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::format::{Format, short};
use crate::terminal::{self, inert, note};

/// How long a NATS server may take to connect, and whoever listens to confirm the message.
const NATS: Duration = Duration::from_secs(5);

/// Sends the file's content as it is.
pub async fn run(client: impl FnOnce() -> Result<Client, Failure>, arguments: Emit, format: Format) -> Outcome {
    let Emit { file, kind, source, nats, subject } = arguments;
    let body = read(&file)?;
    if let (Some(url), Some(subject)) = (nats, subject) {
        return publish(&url, subject, body, format).await;
    }
    let client = client()?;
    let Some(kind) = kind.or_else(|| kind_of(&body)) else {
        return Err(Failure::usage(format!("{} is neither an Alertmanager body nor a CloudEvent", file.display()))
            .help(
                "say what it is with --as alertmanager or --as cloudevent, and the engine says what is wrong with it",
            ));
    };
    let request = match kind {
        EventKind::Alertmanager => {
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
            if source.is_empty() || source.len() > 64 || !source.chars().all(is_name) {
                return Err(Failure::usage(format!("{:?} cannot be a source's name", inert(&source)))
                    .help("use up to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"));
            }
            client
                .request(Method::POST, &format!("/webhooks/alertmanager/{source}"))
                .header("content-type", "application/json")
        }
        EventKind::CloudEvent => {
            client.request(Method::POST, "/api/v1/events").header("content-type", "application/cloudevents+json")
        }
    };
    let response = client.send(request.body(body)).await?;
    show(&client.json(response).await?, format)
}

/// Shows what was started; what could not be read is a failure, though the engine keeps it.
pub fn show(started: &Value, format: Format) -> Outcome {
    if !format.print(started)? {
        terminal::print(&told(started))?;
    }
    let letters: Vec<&str> =
        started["dead_letters"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for id in &letters {
        note(&format!("not all of it could be used; stanch events dead-letters {} shows why", inert(short(id))));
    }
    Ok(if letters.is_empty() { Exit::Done } else { Exit::Failed })
}

fn told(started: &Value) -> String {
    let runs: Vec<String> = started["runs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|run| Some((run["id"].as_str()?, run["state"].as_str()?)))
        .map(|(id, state)| {
            let (id, end, state) = (inert(id), inert(short(id)), inert(state));
            format!("run {id} is {state}; stanch runs watch {end} shows it\n")
        })
        .collect();
    match (&runs[..], &started["duplicate"], &started["dead_letters"]) {
        ([], Value::Bool(true), _) => "taken; it had been seen before and starts nothing\n".to_owned(),
        ([], _, Value::Null) => "taken; it starts no run\n".to_owned(),
        ([], ..) => String::new(),
        (runs, ..) => runs.concat(),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut body).map(drop)
    } else {
        std::fs::read(file).map(|bytes| body = bytes)
    };
    read.map_err(|error| Failure::because(format!("{} cannot be read", inert(&file.display().to_string())), &error))?;
    Ok(body)
}

fn kind_of(body: &[u8]) -> Option<EventKind> {
    let value: Value = serde_json::from_slice(body).ok()?;
    if value.get("specversion").is_some() {
        return Some(EventKind::CloudEvent);
    }
    value.get("alerts").is_some().then_some(EventKind::Alertmanager)
}

/// Publishes as a request: an engine that reads the subject answers once the event is durable, a stream that captures it
/// once it is stored, and a server says where nobody listens.
async fn publish(url: &str, subject: String, body: Vec<u8>, format: Format) -> Outcome {
    let (shown, length) = (inert(&subject), body.len());
    if !is_subject(&subject) {
        return Err(Failure::usage(format!("{shown:?} is no subject that something can be published on"))
            .help("give words between dots, such as monitoring.alerts.db, without spaces, * and >"));
    }
    let options = async_nats::ConnectOptions::new().connection_timeout(NATS);
    let client = options.connect(url).await.map_err(|error| {
        Failure::because(format!("no NATS server answers at {}", inert(url)), &error)
            .help("name one such as nats://127.0.0.1:4222 with --nats")
            .exit(Exit::Unreachable)
    })?;
    let request = async_nats::Request::new().payload(body.into()).timeout(Some(NATS));
    let answer = client.send_request(subject, request).await.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => Failure::new(format!("nobody listens on {shown}; what was sent is lost"))
            .help(
                "a loaded playbook must name the subject in a nats trigger; /readyz says whether the engine has NATS",
            ),
        RequestErrorKind::TimedOut => {
            Failure::new(format!("published {length} bytes on {shown}, and nobody confirmed within 5 s"))
                .help("stanch runs list shows whether it started something")
                .exit(Exit::TimedOut)
        }
        _ => Failure::because(format!("nothing can be published on {shown}"), &error),
    })?;
    let told: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
    if let Some(error) = told["error"]["description"].as_str() {
        return Err(Failure::new(format!("the stream of {shown} does not take it: {}", inert(error))));
    }
    if !format.print(&json!({"subject": shown, "bytes": length, "stream": told["stream"]}))? {
        let by = told["stream"].as_str().map_or("taken".to_owned(), |stream| format!("stored in {}", inert(stream)));
        terminal::print(&format!("published {length} bytes on {shown}: {by}\n"))?;
    }
    Ok(Exit::Done)
}

/// Whether something can be published on a subject: non-empty words between dots, without spaces and wildcards.
fn is_subject(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && !matches!(word, "*" | ">")
            && !word.contains(|letter: char| letter.is_whitespace() || letter.is_control())
    };
    text.split('.').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_words_between_dots() {
        for (text, is) in [("a", true), ("a.b-c.D_1", true), ("", false), ("a..b", false), (".a", false), ("a.", false)]
        {
            assert_eq!(is_subject(text), is, "{text}");
        }
        for text in ["a b", "a.*", ">", "a.>", "a\tb", "a\r\nPUB x 1"] {
            assert!(!is_subject(text), "{text:?}");
        }
    }

    #[test]
    fn what_a_file_holds_is_told_from_its_content() {
        for (body, kind) in [
            (&b"{\"alerts\": []}"[..], Some(EventKind::Alertmanager)),
            (b"{\"specversion\": \"1.0\"}", Some(EventKind::CloudEvent)),
            (b"{}", None),
            (b"[]", None),
            (b"{\"alerts\":", None),
            (b"\xff", None),
        ] {
            assert_eq!(kind_of(body), kind, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn what_was_started_is_told() {
        let run =
            json!({"runs": [{"id": "01890000-0000-7000-8000-0123456789ab", "state": "running"}], "duplicate": false});
        assert_eq!(
            told(&run),
            "run 01890000-0000-7000-8000-0123456789ab is running; stanch runs watch 456789ab shows it\n"
        );
        assert_eq!(told(&json!({"runs": [], "duplicate": false})), "taken; it starts no run\n");
        assert!(told(&json!({"runs": [], "duplicate": true})).contains("seen before"));
        assert_eq!(told(&json!({"dead_letters": ["x"]})), "");
    }
}

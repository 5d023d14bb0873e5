//! `stanch run`: a playbook started by hand.

use reqwest::Method;
use serde_json::{Map, json};

use crate::cli::Run;
use crate::client::Client;
use crate::failure::{Failure, Outcome};
use crate::format::Format;
use crate::terminal::inert;
use crate::watch;

/// Starts a run; shows it until it is over where asked to.
pub async fn run(client: &Client, arguments: Run, format: Format) -> Outcome {
    let Run { playbook, inputs, wait, idempotency_key } = arguments;
    let mut given = Map::new();
    for input in inputs {
        if given.insert(input.name.clone(), input.value).is_some() {
            return Err(Failure::usage(format!("the input {} is given twice", input.name)).help("give it once"));
        }
    }
    let is_name =
        !playbook.is_empty() && playbook.chars().all(|letter| letter.is_alphanumeric() || "-_".contains(letter));
    if !is_name {
        return Err(Failure::usage(format!("{:?} is no playbook's name", inert(&playbook)))
            .help("give the name that stands in its `playbook:`, not its file's"));
    }
    let mut request = client.request(Method::POST, &format!("/api/v1/playbooks/{playbook}/runs"));
    if let Some(key) = idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let response = client.send(request.json(&json!({"inputs": given}))).await?;
    let started = client.json(response).await?;
    let id = started["runs"][0]["id"].as_str().map(str::to_owned);
    match (wait, id) {
        (Some(limit), Some(id)) => {
            let quiet = format != Format::Table;
            let watched = watch::run(client, &id, quiet, limit, |_| None).await?;
            if quiet {
                format.print(&client.get(&format!("/api/v1/runs/{id}")).await?)?;
            }
            watch::outcome(watched, &id)
        }
        _ => super::emit::show(&started, format),
    }
}

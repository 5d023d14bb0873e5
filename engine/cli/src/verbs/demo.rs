//! `stanch demo`: an engine at work on a real alert, with nothing else installed.
//!
//! It runs on a temporary directory with the general examples of the library, and is talked to over HTTP alone, as any engine is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use stanch_core::record::{Body, Record, RunOutcome, Waiting};
use stanch_journal::Scope;
use stanch_server::config::{EgressConfig, IncidentsConfig};
use stanch_server::{Config, Options, Server, StartupError};
use tempfile::TempDir;

use super::{audit, serve};
use crate::cli::Demo;
use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::format::short;
use crate::signals::Signals;
use crate::terminal::{self, OUT, Style, inert, note};
use crate::trail;
use crate::watch::{self, Watched};

/// The general examples of the library, which need no catalogue, by file name.
const PLAYBOOKS: [(&str, &str); 3] = [
    ("instance-down.yaml", include_str!("../../../../playbooks/general/instance-down.yaml")),
    ("suspicious-login.yaml", include_str!("../../../../playbooks/general/suspicious-login.yaml")),
    ("weekly-drill.yaml", include_str!("../../../../playbooks/general/weekly-drill.yaml")),
];
/// A body that a real Alertmanager posted, and the one that it posted when the alert had ended.
const FIRING: &str = include_str!("../demo-alert.json");
const RESOLVED: &str = include_str!("../demo-resolved.json");
/// Where the playbook waits for minutes, nobody who looks at a demo does.
const PATIENT: &str = "settle: 5m";
const HASTY: &str = "settle: 2s";
const SETTLE: &str = "1s";
const WEBHOOK: &str = "/webhooks/alertmanager/demo";
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9190);
/// How long the run may take; it takes about 3 s.
const LIMIT: Duration = Duration::from_secs(60);

/// Shows an engine at work, then leaves it serving until a signal comes, unless asked to end.
pub async fn run(arguments: Demo) -> Outcome {
    serve::log_to_stderr("warn,stanch::playbook=error");
    let mut signals = Signals::new()?;
    let home = tempfile::Builder::new()
        .prefix("stanch-demo-")
        .tempdir()
        .map_err(|error| Failure::because("no temporary directory can be made", &error))?;
    let server = start(arguments.listen, &home).await?;
    let shown = show(&server, &home, arguments.once).await;
    if !arguments.once && shown.as_ref().is_ok_and(|exit| *exit == Exit::Done) {
        let signal = signals.next().await;
        note(&format!("{signal}: the engine ends, and its directory goes"));
    }
    tokio::select! {
        () = server.stop("the demo is over") => {}
        _ = signals.next() => {}
    }
    shown
}

async fn start(asked: Option<SocketAddr>, home: &TempDir) -> Result<Server, Failure> {
    let playbooks = home.path().join("playbooks");
    let written = std::fs::create_dir(&playbooks).and_then(|()| {
        PLAYBOOKS.iter().try_for_each(|(file, text)| std::fs::write(playbooks.join(file), text.replace(PATIENT, HASTY)))
    });
    written.map_err(|error| Failure::because("the playbooks cannot be written", &error))?;
    let listen = asked.unwrap_or(USUAL);
    let data_dir = home.path().join("data");
    let options = Options {
        listen,
        data_dir,
        playbooks,
        config: config(listen.ip()),
        config_file: None,
        warden: serve::warden(),
    };
    let started = match stanch_server::start(options.clone()).await {
        Err(StartupError::Listen { source, .. })
            if asked.is_none() && source.kind() == std::io::ErrorKind::AddrInUse =>
        {
            note(&format!("{USUAL} is taken; another port will do"));
            stanch_server::start(Options { listen: SocketAddr::new(USUAL.ip(), 0), ..options }).await
        }
        started => started,
    };
    started.map_err(|error| serve::not_started(&error))
}

/// The playbook asks the engine itself, which `http` does to no loopback address unless allowed.
fn config(own: IpAddr) -> Config {
    Config {
        egress: EgressConfig { allow: vec![own.to_string()] },
        incidents: IncidentsConfig { settle: Some(SETTLE.to_owned()), ..IncidentsConfig::default() },
        ..Config::default()
    }
}

async fn show(server: &Server, home: &TempDir, once: bool) -> Outcome {
    let address = format!("http://{}", server.address());
    let client = Client::new(&address, None)?;
    introduce(&client, home.path()).await?;

    let started = post(&client, FIRING).await?;
    let (Some(id), Some(incident)) = (started["runs"][0]["id"].as_str(), started["incidents"][0].as_str()) else {
        return Err(Failure::new(format!("the alert started no run: {}", inert(&started.to_string()))));
    };
    let watched = watch::run(&client, id, false, Some(LIMIT), resolver(&client)).await?;
    if watched == Watched::Detached {
        return Ok(Exit::Failed);
    }
    let closed = closed(&client, incident).await?;
    let verified = show_trail(&client).await?;
    let well = watched == Watched::Over(RunOutcome::Succeeded) && closed && verified;
    if !once {
        terminal::print(&farewell(&client, id))?;
    }
    Ok(if well { Exit::Done } else { Exit::Failed })
}

async fn introduce(client: &Client, home: &Path) -> Result<(), Failure> {
    let names: Vec<&str> = PLAYBOOKS.iter().map(|(file, _)| file.strip_suffix(".yaml").unwrap_or(file)).collect();
    let mut out = String::new();
    let mut line = |name: &str, text: &str| {
        out.push_str(&format!("  {}  {text}\n", OUT.paint(Style::Dim, &terminal::pad(name, 9))));
    };
    line("engine", &format!("{}, on {} (gone at the end)", client.address(), home.display()));
    line("playbooks", &names.join(", "));
    line("alert", &format!("ProbeInstanceDown db-01:9100, as a real Alertmanager sent it, posted to {WEBHOOK}"));
    line("hurried", &format!("instance-down waits for {HASTY} here instead of {PATIENT}").replace("settle: ", ""));
    terminal::print(&format!("{}\n{out}\n", OUT.paint(Style::Bold, "stanch demo")))
}

async fn post(client: &Client, body: &'static str) -> Result<Value, Failure> {
    let request = client.request(Method::POST, WEBHOOK).header("content-type", "application/json").body(body);
    client.json(client.send(request).await?).await
}

/// Posts the end of the alert once the run waits for it, and says so before what comes of it.
fn resolver(client: &Client) -> impl FnMut(&Record) -> Option<String> {
    let client = client.clone();
    let mut posted = false;
    move |record| match &record.body {
        Body::StepWaiting(body) if matches!(body.wait, Waiting::Resolved { .. }) && !posted => {
            posted = true;
            let client = client.clone();
            tokio::spawn(async move {
                if let Err(failure) = post(&client, RESOLVED).await {
                    note(&format!("the end of the alert could not be posted: {}", failure.message));
                }
            });
            None
        }
        Body::StepWaiting(body) if matches!(body.wait, Waiting::Resolved { settled_at: Some(_), .. }) => {
            Some(format!("    {}\n", OUT.paint(Style::Dim, "Alertmanager posts that the alert is resolved")))
        }
        _ => None,
    }
}

/// Waits until the incident has closed by itself.
async fn closed(client: &Client, incident: &str) -> Result<bool, Failure> {
    let mut state = String::new();
    for _ in 0..50 {
        let found = client.get(&format!("/api/v1/incidents/{incident}")).await?;
        state = inert(found["state"].as_str().unwrap_or("unknown"));
        if state == "resolved" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let closed = state == "resolved";
    let style = if closed { Style::Green } else { Style::Red };
    let line = format!("{} incident {} is {state}", if closed { "✔" } else { "✘" }, short(incident));
    terminal::print(&format!("{}\n", OUT.paint(style, &line)))?;
    Ok(closed)
}

/// Shows the whole record and what verifying it says.
async fn show_trail(client: &Client) -> Result<bool, Failure> {
    let response = client.send(client.request(Method::GET, "/api/v1/audit")).await?;
    let export = response.bytes().await.map_err(|error| client.lost(&error))?;
    let entries = trail::entries(&export)?;
    let verified = stanch_journal::verify(&export[..], Scope::Whole, None);
    let (holds, (style, text)) = match &verified {
        Ok(verified) => (true, audit::verdict(verified, Scope::Whole)),
        Err(broken) => (false, (Style::Red, format!("✘ {}", inert(&broken.to_string())))),
    };
    let heading = OUT.paint(Style::Bold, "audit trail");
    terminal::print(&format!("\n{heading}\n{}\n{}\n", trail::table(&entries, *OUT)?, OUT.paint(style, &text)))?;
    Ok(holds)
}

/// What can be tried, as it can be typed.
fn farewell(client: &Client, id: &str) -> String {
    let own = std::env::args().next().map_or_else(|| "stanch".to_owned(), |name| inert(&name));
    let server = client.address();
    let option = if server == format!("http://{USUAL}") { String::new() } else { format!(" --server {server}") };
    let commands = [
        format!("curl -s {server}/api/v1/runs"),
        format!("{own} runs show {}{option}", short(id)),
        format!("{own} run weekly-drill --wait{option}"),
    ];
    let commands: String = commands.iter().map(|command| format!("  {}\n", OUT.paint(Style::Cyan, command))).collect();
    format!("\nthe engine serves on {server} until Ctrl-C; try:\n{commands}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_general_example_is_in_the_demo_and_valid() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../playbooks/general");
        let mut files: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".yaml") && !name.ends_with(".test.yaml"))
            .collect();
        files.sort();
        assert_eq!(files, PLAYBOOKS.map(|(file, _)| file));
        for (file, text) in PLAYBOOKS {
            let loaded = stanch_playbook::load(file, text).unwrap_or_else(|problems| panic!("{problems}"));
            assert_eq!(loaded.warnings, [], "{file}");
            assert_eq!(format!("{}.yaml", loaded.plan.name), file);
            assert!(!loaded.plan.description.is_empty(), "{file}");
        }
    }

    #[test]
    fn the_demo_hurries_the_playbook_that_its_alert_starts() {
        let (_, text) = PLAYBOOKS[0];
        assert!(text.contains(PATIENT));
        let plan = stanch_playbook::load("instance-down.yaml", &text.replace(PATIENT, HASTY)).unwrap().plan;
        let body: Value = serde_json::from_str(FIRING).unwrap();
        let labels = serde_json::from_value(body["alerts"][0]["labels"].clone()).unwrap();
        assert!(plan.triggers.iter().any(|trigger| trigger.matches_alert(&labels)));
    }
}

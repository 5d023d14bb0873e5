//! `stanch.yaml` read again whenever the file changes: `people`, `tokens` and `maintenance` take effect at once, all else
//! with the next start. A file that cannot be used changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use stanch_core::record::Actor;
use stanch_core::{Command, State};
use stanch_workers::Secrets;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::wall;
use crate::config::{Config, ConfigError, MaintenanceConfig};
use crate::executor::Handle;
use crate::people::People;

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// The keys that take effect without a restart.
const AT_ONCE: [&str; 3] = ["people", "tokens", "maintenance"];

/// Who decides and who is told, as the file says now.
#[derive(Clone)]
pub(crate) struct InForce {
    /// What was read.
    pub config: watch::Sender<Arc<Config>>,
    /// Its people, with their tokens.
    pub people: watch::Sender<Arc<People>>,
}

/// How long the file is and when it was written; none where it is not there.
type Stamp = Option<(u64, Option<SystemTime>)>;

fn stamp(file: &Path) -> Stamp {
    std::fs::metadata(file).ok().map(|metadata| (metadata.len(), metadata.modified().ok()))
}

/// The file as it was read at the start, before anything else was.
pub(crate) struct Followed {
    file: PathBuf,
    stamp: Stamp,
    keys: Map<String, Value>,
}

impl Followed {
    /// A file that was just read.
    pub(crate) fn new(file: PathBuf) -> Self {
        let (stamp, keys) = (stamp(&file), Config::keys(&file).unwrap_or_default());
        Self { file, stamp, keys }
    }
}

/// Reads the file again whenever it changes, until stopped.
pub(crate) async fn follow(
    mut of: Followed,
    inforce: InForce,
    secrets: Secrets,
    handle: Handle,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let seen = stamp(&of.file);
        if seen == of.stamp {
            continue;
        }
        let before = Arc::clone(&inforce.config.borrow());
        match read(&of.file, &before, &secrets) {
            Ok((config, people, keys)) => {
                let commands = windows(&handle.state(), &config, &before);
                for command in commands {
                    if let Err(error) = handle.submit_patiently(command).await {
                        tracing::warn!(%error, "a maintenance window of stanch.yaml could not be recorded");
                    }
                }
                inforce.config.send_replace(Arc::new(config));
                inforce.people.send_replace(Arc::new(people));
                let later = changed(&of.keys, &keys);
                tracing::info!(file = %of.file.display(), "people, tokens and maintenance were read again");
                if !later.is_empty() {
                    let later = later.join(", ");
                    tracing::warn!("what stanch.yaml now says of {later} takes effect with the next start");
                }
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "stanch.yaml cannot be used any more; what was read before stays in force"
            ),
        }
        of.stamp = seen;
    }
}

/// What is in force once the file was read again: of it the keys that take effect at once, all else as before.
fn read(file: &Path, before: &Config, secrets: &Secrets) -> Result<(Config, People, Map<String, Value>), ConfigError> {
    let read = Config::read(file)?;
    let config = Config { people: read.people, tokens: read.tokens, maintenance: read.maintenance, ..before.clone() };
    let people = People::read(&config, secrets)?;
    Ok((config, people, Config::keys(file)?))
}

/// The keys that differ and take effect with the next start.
fn changed<'a>(before: &'a Map<String, Value>, after: &'a Map<String, Value>) -> Vec<&'a str> {
    let keys: std::collections::BTreeSet<&str> = before.keys().chain(after.keys()).map(String::as_str).collect();
    keys.into_iter().filter(|key| !AT_ONCE.contains(key) && before.get(*key) != after.get(*key)).collect()
}

/// What makes the maintenance windows those of the file: ends the declared ones that it has no more, and plans those that are
/// new in it. One that a person ended stays ended for as long as the file goes on saying it and the engine runs.
pub(crate) fn windows(state: &State, file: &Config, before: &Config) -> Vec<Command> {
    let declared = |config: &Config| config.maintenance.iter().map(MaintenanceConfig::declared).collect::<Vec<_>>();
    let (wanted, known) = (declared(file), declared(before));
    let gone = state
        .maintenance
        .values()
        .filter(|window| window.planned.declared.as_ref().is_some_and(|declared| !wanted.contains(declared)));
    let end = |window: &Arc<stanch_core::state::Window>| Command::EndMaintenance {
        actor: Actor::source("stanch.yaml"),
        maintenance: window.planned.maintenance,
    };
    let now = wall();
    let new = file.maintenance.iter().filter(|window| window.to > now && !known.contains(&window.declared()));
    gone.map(end).chain(new.map(MaintenanceConfig::command)).collect()
}

#[cfg(test)]
mod tests {
    use stanch_core::decide;
    use stanch_playbook::Timestamp;

    use super::*;

    fn config(windows: &[&str]) -> Config {
        let window = |name: &&str| MaintenanceConfig {
            matchers: vec![format!("cluster={name:?}")],
            from: Timestamp::EPOCH,
            to: wall().plus(Duration::from_secs(3600)),
            reason: "switches".to_owned(),
        };
        Config { maintenance: windows.iter().map(window).collect(), ..Config::default() }
    }

    #[test]
    fn the_windows_become_those_of_the_file_and_one_that_was_ended_stays_so() {
        let first = config(&["a", "b"]);
        let mut state = State::default();
        let apply = |state: &mut State, commands: Vec<Command>| {
            for command in commands {
                *state = decide(state, command, wall()).unwrap().state;
            }
            let of = |window: &Arc<stanch_core::state::Window>| window.planned.matchers[0].clone();
            state.maintenance.values().map(of).collect::<Vec<_>>()
        };
        let by_hand = Command::PlanMaintenance {
            actor: Actor::person("ann"),
            declared: None,
            matchers: vec!["host=\"x\"".to_owned()],
            from: None,
            to: wall().plus(Duration::from_secs(60)),
            reason: String::new(),
        };
        apply(&mut state, vec![by_hand]);
        let commands = windows(&state, &first, &Config::default());
        assert_eq!(apply(&mut state, commands).len(), 3);
        let ended = state.maintenance.values().find(|window| window.planned.matchers[0] == "cluster=\"a\"").unwrap();
        let maintenance = ended.planned.maintenance;
        apply(&mut state, vec![Command::EndMaintenance { actor: Actor::person("ann"), maintenance }]);
        let mut second = first.clone();
        second.maintenance.remove(1);
        second.maintenance.extend(config(&["c"]).maintenance);
        let commands = windows(&state, &second, &first);
        let mut left = apply(&mut state, commands);
        left.sort();
        assert_eq!(left, ["cluster=\"c\"", "host=\"x\""], "b is gone from the file, and a was ended by hand");
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let keys = |value: Value| value.as_object().unwrap().clone();
        let before = keys(serde_json::json!({"people": {}, "budgets": {"a": 1}, "nats": {"url": "x"}}));
        let after = keys(serde_json::json!({"tokens": [], "budgets": {"a": 2}, "nats": {"url": "x"}, "slack": {}}));
        assert_eq!(changed(&before, &after), ["budgets", "slack"]);
    }
}

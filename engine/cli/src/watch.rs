//! A run shown as it happens, until it is over.

use std::io::Write as _;
use std::time::Duration;

use serde::Deserialize;
use stanch_core::record::{Record, RunOutcome};
use stanch_playbook::Timestamp;
use stanch_server::held::HeldBack;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::follow;
use crate::format::short;
use crate::signals::Signals;
use crate::story::Story;
use crate::terminal::{self, OUT, Style, note};
use crate::verbs::runs::waits_because;

/// How often the line of what is under way is written anew.
const TICK: Duration = Duration::from_millis(200);

/// How watching ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The run is over.
    Over(RunOutcome),
    /// Whoever watched went away.
    Detached,
    /// The time is over and the run is not.
    TimedOut,
}

/// How often it is asked what holds a run back of which nothing is heard.
const LOOK: Duration = Duration::from_secs(2);

/// What there is of a run's steps.
#[derive(Debug, Deserialize)]
struct Steps {
    held: Option<HeldBack>,
    steps: std::collections::BTreeMap<String, Step>,
}

#[derive(Debug, Deserialize)]
struct Step {
    uses: Option<String>,
}

/// Follows a run and shows what happens unless `quiet`; each record is also given to `tell`, whose text is shown before it.
pub async fn run(
    client: &Client,
    id: &str,
    quiet: bool,
    limit: Option<Duration>,
    mut tell: impl FnMut(&Record) -> Option<String>,
) -> Result<Watched, Failure> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    let path = format!("/api/v1/runs/{id}");
    let steps: Steps = serde_json::from_value(client.get(&path).await?)
        .map_err(|error| Failure::because("what the engine says of the run cannot be read", &error))?;
    let known = steps.steps.iter().map(|(key, step)| (&**key, step.uses.as_deref().unwrap_or("")));
    let mut story = Story::new(*OUT, known);
    let mut records = follow::records(client, Some(id), 0);
    let mut signals = Signals::new()?;
    let mut screen = Screen { live: OUT.live && !quiet, shown: false };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A freeze and the like are in no record of the run.
    let mut held: Option<HeldBack> = None;
    let mut look = Instant::now() + LOOK;
    loop {
        let over = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            record = records.recv() => {
                let Some(record) = record else {
                    return Err(Failure::new("the engine's stream ended").exit(Exit::Unreachable));
                };
                let record = record.inspect_err(|_| screen.clear())?;
                let before = tell(&record).unwrap_or_default();
                let text = story.tell(&record);
                if !quiet {
                    screen.print(&format!("{before}{text}"))?;
                }
                if let Some(outcome) = story.outcome() {
                    screen.clear();
                    return Ok(Watched::Over(outcome));
                }
                look = Instant::now() + LOOK;
            }
            () = sleep_until(look), if !quiet => {
                // An engine that is away for a moment is the stream's concern.
                if let Ok(answer) = client.get(&path).await {
                    let now = serde_json::from_value::<Steps>(answer).ok().and_then(|steps| steps.held);
                    if let Some(now) = now.as_ref().filter(|now| held.as_ref() != Some(*now)) {
                        screen.print(&format!("  {}\n", OUT.paint(Style::Yellow, &waits_because(now))))?;
                    }
                    held = now;
                }
                look = Instant::now() + LOOK;
            }
            _ = tick.tick(), if screen.live => screen.status(story.status(now()).as_deref()),
            _ = signals.next() => {
                screen.clear();
                return Ok(Watched::Detached);
            }
            () = over => {
                screen.clear();
                return Ok(Watched::TimedOut);
            }
        }
    }
}

/// The exit of a verb that watched a run.
pub fn outcome(watched: Watched, id: &str) -> Outcome {
    Ok(match watched {
        Watched::Over(RunOutcome::Succeeded) => Exit::Done,
        Watched::Over(RunOutcome::Failed | RunOutcome::Cancelled) => Exit::Failed,
        Watched::Detached => {
            note(&format!("the run goes on; stanch runs watch {} shows it again", short(id)));
            Exit::Done
        }
        Watched::TimedOut => {
            note(&format!("the time is over and the run goes on; stanch runs watch {} shows it", short(id)));
            Exit::TimedOut
        }
    })
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.plus(since)
}

/// The standard output, whose last line may be one that is written over.
struct Screen {
    live: bool,
    shown: bool,
}

impl Screen {
    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            self.write("\r\u{1b}[2K");
        }
    }

    fn status(&mut self, status: Option<&str>) {
        self.clear();
        if let Some(status) = status {
            self.write(status);
            self.shown = true;
        }
    }

    fn print(&mut self, text: &str) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        self.clear();
        terminal::print(text)
    }

    fn write(&self, text: &str) {
        // That nobody reads comes out with the next whole line.
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
    }
}

//! What an event would do, told beforehand: the run that it starts, and its steps as far as they can be told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stanch_core::record::{IncidentOpened, RunStarted};
use stanch_core::{Body, Rejected, Settings, TriggerNames};
use stanch_playbook::evaluate::{Names, Preview, Reference, Scope};
use stanch_playbook::plan::{Jitter, OnUnknown, Retry, Step};
use stanch_playbook::{Phase, Plan, StepKey, Timestamp, Uses, Wait};

use crate::Simulation;
use crate::explain::values;
use crate::stimulus::Stimulus;

/// What an event would do to one playbook.
#[derive(Debug)]
pub struct Foresight {
    /// The run that starts.
    pub run: RunStarted,
    /// The incident that it opens.
    pub incident: IncidentOpened,
    /// Its steps, in the order of the plan.
    pub steps: Vec<Foreseen>,
}

/// Why no run would start.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NoRun {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] Rejected),
    /// A trigger takes it and cannot be evaluated.
    #[error("{0}")]
    Unusable(String),
    /// No trigger takes it.
    #[error("no trigger of the playbook takes it")]
    NotTaken,
}

/// A step, told beforehand.
#[derive(Debug)]
pub struct Foreseen {
    /// `phase.name`.
    pub step: StepKey,
    /// Its phase.
    pub phase: Phase,
    /// Steps with the same number of a phase can run at the same time; it grows along `needs`, from 0.
    pub wave: usize,
    /// The names of those it needs.
    pub needs: Vec<String>,
    /// Its condition.
    pub condition: Option<Foretold>,
    /// What it uses.
    pub uses: String,
    /// Its parameters, as far as they can be rendered.
    pub with: Preview,
    /// Its environment, in the same way.
    pub env: Preview,
    /// Whether it does something to the world.
    pub acts: bool,
    /// Whether repeating it is harmless.
    pub idempotent: bool,
    /// What an unknown outcome leads to.
    pub on_unknown: OnUnknown,
    /// All attempts, the first included; 0 for a wait.
    pub attempts: u32,
    /// The shortest and the longest delay before each further attempt.
    pub delays: Vec<(Duration, Duration)>,
    /// The limit of an attempt; for a wait, of the whole.
    pub timeout: Option<Duration>,
    /// How long it can take at most, where that is known; answers of people are not in it.
    pub at_most: Option<Duration>,
    /// Whether its failure is tolerated.
    pub continue_on_error: bool,
}

/// A condition, told beforehand.
#[derive(Debug, Clone, PartialEq)]
pub struct Foretold {
    /// As it is written.
    pub written: String,
    /// What it will be; none where that depends on the run.
    pub value: Option<Result<bool, String>>,
    /// The values that it looks at and that are known.
    pub values: BTreeMap<String, Value>,
}

/// What an event would do to a playbook at a moment. Nothing is done.
///
/// # Errors
/// [`NoRun`].
pub fn foresee(plan: &Arc<Plan>, stimulus: &Stimulus, now: Timestamp) -> Result<Foresight, NoRun> {
    let mut simulation = Simulation::starting_at(vec![Arc::clone(plan)], Settings::default(), now);
    simulation.command(stimulus.command())?;
    let mut run = None;
    let mut incident = None;
    let mut unusable = None;
    for record in &simulation.records {
        match &record.body {
            Body::RunStarted(body) if run.is_none() => run = Some(body.clone()),
            Body::IncidentOpened(body) if incident.is_none() => incident = Some(body.clone()),
            Body::DeadLettered(body) if unusable.is_none() => unusable = Some(body.letter.reason.clone()),
            _ => {}
        }
    }
    let (Some(run), Some(incident)) = (run, incident) else {
        return Err(unusable.map_or(NoRun::NotTaken, NoRun::Unusable));
    };
    let scope = Scope(BTreeMap::from([
        ("inputs".to_owned(), (*run.inputs).clone()),
        (
            "incident".to_owned(),
            json!({"key": incident.key, "severity": incident.severity, "title": incident.title, "owner": plan.owner}),
        ),
        ("run".to_owned(), json!({"playbook": plan.name})),
    ]));
    let names = Beforehand { scope, trigger: TriggerNames { cause: &run.cause } };
    let waves = waves(plan);
    let steps = plan.steps.iter().zip(waves).map(|(step, wave)| step_of(plan, step, wave, &names)).collect();
    Ok(Foresight { run, incident, steps })
}

/// What can be named before a run is.
struct Beforehand<'a> {
    scope: Scope,
    trigger: TriggerNames<'a>,
}

impl Names for Beforehand<'_> {
    fn get(&self, root: &str) -> Option<std::borrow::Cow<'_, Value>> {
        self.scope.get(root).or_else(|| self.trigger.get(root))
    }
}

/// Whether a name has its value before the run, and keeps it.
fn known(reference: &Reference) -> bool {
    let first = reference.rest.first().map(String::as_str);
    match reference.root.as_str() {
        "inputs" | "event" | "alert" | "alerts" => true,
        "incident" => matches!(first, Some("key" | "title" | "owner")),
        "run" => first == Some("playbook"),
        _ => false,
    }
}

fn step_of(plan: &Plan, step: &Step, wave: usize, names: &Beforehand<'_>) -> Foreseen {
    let condition = step.condition.as_ref().map(|condition| {
        let all = condition.references().iter().all(known);
        let told: Vec<Reference> = condition.references().iter().filter(|one| known(one)).cloned().collect();
        Foretold {
            written: condition.source().to_owned(),
            value: all.then(|| condition.evaluate_bool(names).map_err(|error| error.to_string())),
            values: values(&told, names),
        }
    });
    let nothing = || Preview { value: json!({}), open: Vec::new(), errors: Vec::new() };
    let (uses, with, length, attempts) = match &step.uses {
        Uses::Action(call) => {
            (step.uses.name().to_owned(), call.with.preview(names, &known), None, step.policy.retry.max_attempts)
        }
        Uses::Wait(Wait::Duration(template)) => {
            let mut shown = template.preview(names, &known);
            let length = shown.value.as_str().and_then(|text| stanch_playbook::parse_duration(text).ok());
            shown.value = json!({"duration": shown.value});
            ("wait".to_owned(), shown, length, 0)
        }
        Uses::Wait(Wait::Resolved { settle }) => {
            let value = json!({"for": "resolved", "settle": stanch_playbook::time::shown_duration(*settle)});
            ("wait".to_owned(), Preview { value, ..nothing() }, None, 0)
        }
        Uses::Wait(Wait::Event(_)) | Uses::Approval(_) | Uses::Playbook { .. } | Uses::Undo { .. } => {
            (step.uses.name().to_owned(), nothing(), None, 0)
        }
    };
    let is_wait = !matches!(step.uses, Uses::Action(_));
    let delays: Vec<_> = (1..attempts).map(|number| bounds(&step.policy.retry, number)).collect();
    let at_most = match (is_wait, step.timeout) {
        (true, limit) => length.or(limit),
        (false, limit) => limit.map(|limit| limit * attempts + delays.iter().map(|(_, most)| *most).sum::<Duration>()),
    };
    Foreseen {
        step: step.key.clone(),
        phase: step.phase,
        wave,
        needs: step.needs.iter().map(|index| plan.steps[*index].name.clone()).collect(),
        condition,
        acts: step.acts,
        uses,
        with,
        env: match &step.uses {
            Uses::Action(call) => call.env.preview(names, &known),
            _ => nothing(),
        },
        idempotent: step.policy.idempotent,
        on_unknown: step.policy.on_unknown,
        attempts,
        delays,
        timeout: step.timeout,
        at_most,
        continue_on_error: step.continue_on_error,
    }
}

/// The shortest and the longest delay after an attempt.
fn bounds(retry: &Retry, number: u32) -> (Duration, Duration) {
    let most = retry.delay_at_most(number);
    match retry.jitter {
        Jitter::Full => (Duration::ZERO, most),
        Jitter::None => (most, most),
    }
}

/// For each step, how many of its phase come one after the other before it.
fn waves(plan: &Plan) -> Vec<usize> {
    let mut waves = vec![0; plan.steps.len()];
    // Needs stay within a phase and have no cycle: as many rounds as there are steps are enough.
    for _ in 0..plan.steps.len() {
        let mut changed = false;
        for (index, step) in plan.steps.iter().enumerate() {
            let wave = step.needs.iter().map(|need| waves[*need] + 1).max().unwrap_or(0);
            changed |= wave != waves[index];
            waves[index] = wave;
        }
        if !changed {
            break;
        }
    }
    waves
}

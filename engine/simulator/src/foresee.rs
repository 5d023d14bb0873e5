//! What an event would do, told beforehand: the run that it starts, and its steps as far as they can be told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stanch_core::{Body, Rejected, Settings, TriggerNames};
use stanch_playbook::evaluate::{Names, Preview, Reference, Scope, ValueTemplate};
use stanch_playbook::plan::{Call, Jitter, OnUnknown, Retry, Step, Until};
use stanch_playbook::time::shown_duration;
use stanch_playbook::{Phase, Plan, Severity, StepKey, Timestamp, TriggerOn, Uses, Wait};

use crate::explain::values;
use crate::stimulus::Stimulus;
use crate::{Simulation, family};

/// What an event would do to one playbook.
#[derive(Debug)]
pub struct Foresight {
    /// The inputs of the run that starts.
    pub inputs: Arc<Value>,
    /// The key of its incident.
    pub key: Arc<str>,
    /// The incident's severity.
    pub severity: Severity,
    /// The incident's title.
    pub title: Arc<str>,
    /// Whether nothing of it is done, since the playbook only observes.
    pub observes: bool,
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
    /// What it is done for one by one.
    pub items: Option<ForeseenItems>,
    /// Its parameters, as far as they can be rendered.
    pub with: Preview,
    /// The same for each item, where the items are known.
    pub targets: Vec<Preview>,
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
    /// The names of the approvals that it needs.
    pub approvals: Vec<String>,
    /// The budget that it counts against.
    pub budget: Option<String>,
    /// Until when its action is repeated.
    pub until: Option<Looks>,
    /// How it is verified: by what, and until when.
    pub verify: Option<(ForeseenCall, Looks)>,
    /// How it is taken back, and after what time by itself.
    pub undo: Option<(ForeseenCall, Option<Duration>)>,
}

/// The items of a step, told beforehand.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeseenItems {
    /// As it is written.
    pub written: String,
    /// How many are under way at once.
    pub max_parallel: u32,
    /// What they are; none where that depends on the run.
    pub value: Option<Result<Vec<Value>, String>>,
}

/// A condition that is looked at again and again.
#[derive(Debug, Clone, PartialEq)]
pub struct Looks {
    /// As it is written.
    pub written: String,
    /// How long to wait between two looks.
    pub every: Duration,
    /// Within what time it must hold.
    pub within: Duration,
}

/// Another action of a step, told beforehand.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeseenCall {
    /// What it uses.
    pub uses: String,
    /// Its parameters, as far as they can be rendered.
    pub with: Preview,
    /// Its environment, in the same way.
    pub env: Preview,
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

/// What an event would do to a playbook at a moment; `plans` are all those that it could run. Nothing is done.
///
/// # Errors
/// [`NoRun`].
pub fn foresee(plan: &Arc<Plan>, plans: &[Arc<Plan>], stimulus: &Stimulus, now: Timestamp) -> Result<Foresight, NoRun> {
    let mut simulation = Simulation::starting_at(family(plan, plans), Settings::default(), now);
    simulation.command(stimulus.command())?;
    let mut begun = None;
    let mut unusable = None;
    for record in &simulation.records {
        match &record.body {
            Body::RunStarted(body) if begun.is_none() && body.playbook == plan.name => {
                begun = Some((&body.cause, &body.inputs, Some(body.incident), None));
            }
            Body::PlaybookObserved(body) if begun.is_none() && body.playbook == plan.name => {
                begun = Some((&body.cause, &body.inputs, None, Some(&body.key)));
            }
            Body::DeadLettered(body) if unusable.is_none() => unusable = Some(body.letter.reason.clone()),
            _ => {}
        }
    }
    let Some((cause, inputs, incident, observed)) = begun else {
        return Err(unusable.map_or(NoRun::NotTaken, NoRun::Unusable));
    };
    let incident = incident.and_then(|id| simulation.state.incidents.get(&id));
    let title =
        || cause.alerts.first().and_then(|alert| alert.labels.get("alertname")).map_or("", String::as_str).into();
    let key = observed.cloned().or_else(|| incident.map(|of| Arc::clone(&of.key))).unwrap_or_else(|| "".into());
    let severity = incident.map(|of| of.severity).or(plan.severity).unwrap_or(Severity::P3);
    let title = incident.map_or_else(title, |of| Arc::clone(&of.title));
    let scope = Scope(BTreeMap::from([
        ("inputs".to_owned(), (**inputs).clone()),
        ("incident".to_owned(), json!({"key": key, "severity": severity, "title": title, "owner": plan.owner})),
        ("run".to_owned(), json!({"playbook": plan.name})),
    ]));
    let names = Beforehand { scope, trigger: TriggerNames { cause }, item: None, open: BTreeSet::new() };
    let waves = waves(plan);
    let steps = plan.steps.iter().zip(waves).map(|(step, wave)| step_of(plan, step, wave, &names)).collect();
    Ok(Foresight { inputs: Arc::clone(inputs), key, severity, title, observes: observed.is_some(), steps })
}

/// What can be named before a run is.
struct Beforehand<'a> {
    scope: Scope,
    trigger: TriggerNames<'a>,
    item: Option<Value>,
    /// The inputs that have no value yet.
    open: BTreeSet<String>,
}

impl Names for Beforehand<'_> {
    fn get(&self, root: &str) -> Option<std::borrow::Cow<'_, Value>> {
        match root {
            "item" => self.item.as_ref().map(std::borrow::Cow::Borrowed),
            _ => self.scope.get(root).or_else(|| self.trigger.get(root)),
        }
    }
}

impl Beforehand<'_> {
    /// Whether a name has its value before the run, and keeps it.
    fn knows(&self, reference: &Reference) -> bool {
        let first = reference.rest.first().map(String::as_str);
        match reference.root.as_str() {
            "inputs" => first.map_or(self.open.is_empty(), |name| !self.open.contains(name)),
            "event" | "alert" | "alerts" => true,
            "item" => self.item.is_some(),
            "incident" => matches!(first, Some("key" | "title" | "owner")),
            "run" => first == Some("playbook"),
            _ => false,
        }
    }

    fn preview(&self, template: &ValueTemplate) -> Preview {
        template.preview(self, &|reference| self.knows(reference))
    }

    /// A call's parameters and environment, of an action of the catalogue those that its built-in one is given.
    fn call(&self, call: &Call) -> (Preview, Preview) {
        let Some((_, inputs)) = &call.alias else { return (self.preview(&call.with), self.preview(&call.env)) };
        let inputs = self.preview(inputs);
        if !inputs.errors.is_empty() {
            return (inputs, nothing());
        }
        let given = [("inputs".to_owned(), inputs.value.clone())];
        let inner = Beforehand {
            scope: Scope(self.scope.0.clone().into_iter().chain(given).collect()),
            trigger: TriggerNames { cause: self.trigger.cause },
            item: self.item.clone(),
            open: inputs.open_keys.clone(),
        };
        (inner.preview(&call.with).of_inputs(&inputs), inner.preview(&call.env).of_inputs(&inputs))
    }

    fn with_item(&self, item: &Value) -> Beforehand<'_> {
        let trigger = TriggerNames { cause: self.trigger.cause };
        Beforehand { scope: self.scope.clone(), trigger, item: Some(item.clone()), open: self.open.clone() }
    }
}

/// What is known once the inputs of an action are, told by what these inputs depend on.
trait OfInputs {
    fn of_inputs(self, inputs: &Preview) -> Self;
}

impl OfInputs for Preview {
    fn of_inputs(mut self, inputs: &Preview) -> Self {
        for name in &inputs.open_keys {
            fill(&mut self.value, &format!("{{{{ inputs.{name} }}}}"), &inputs.value[name]);
        }
        let before = self.open.len();
        self.open.retain(|path| path.split('.').next() != Some("inputs"));
        if self.open.len() < before {
            self.open.extend(inputs.open.iter().cloned());
            self.open.sort();
            self.open.dedup();
        }
        self
    }
}

/// Puts a value in the place of a mark in all texts.
fn fill(value: &mut Value, mark: &str, with: &Value) {
    match value {
        Value::String(text) if text == mark => *value = with.clone(),
        Value::String(text) => {
            let with = with.as_str().map_or_else(|| with.to_string(), str::to_owned);
            *text = text.replace(mark, &with);
        }
        Value::Array(list) => list.iter_mut().for_each(|one| fill(one, mark, with)),
        Value::Object(map) => map.values_mut().for_each(|one| fill(one, mark, with)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn nothing() -> Preview {
    Preview { value: json!({}), open: Vec::new(), open_keys: BTreeSet::new(), errors: Vec::new() }
}

fn name_of(call: &Call) -> String {
    match &call.alias {
        Some((name, _)) => format!("{name} ({})", call.action),
        None => call.action.to_string(),
    }
}

fn step_of(plan: &Plan, step: &Step, wave: usize, names: &Beforehand<'_>) -> Foreseen {
    let condition = step.condition.as_ref().map(|condition| {
        let all = condition.references().iter().all(|one| names.knows(one));
        let told: Vec<Reference> = condition.references().iter().filter(|one| names.knows(one)).cloned().collect();
        Foretold {
            written: condition.source().to_owned(),
            value: all.then(|| condition.evaluate_bool(names).map_err(|error| error.to_string())),
            values: values(&told, names),
        }
    });
    let items = step.foreach.as_ref().map(|foreach| ForeseenItems {
        written: foreach.items.source().to_owned(),
        max_parallel: foreach.max_parallel,
        value: foreach.items.references().iter().all(|one| names.knows(one)).then(|| {
            match foreach.items.evaluate(names) {
                Ok(Value::Array(items)) => Ok(items),
                Ok(_) => Err("it gives no list".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        }),
    });
    let (with, env) = given(plan, step, names);
    let known = items.as_ref().and_then(|items| items.value.as_ref()?.as_ref().ok());
    let targets = known.into_iter().flatten().map(|item| given(plan, step, &names.with_item(item)).0).collect();
    let is_action = matches!(step.uses, Uses::Action(_));
    let attempts = if is_action { step.policy.retry.max_attempts } else { 0 };
    let delays: Vec<_> = (1..attempts).map(|number| bounds(&step.policy.retry, number)).collect();
    let within = step.until.as_ref().map(|until| until.within);
    let length = match &step.uses {
        Uses::Wait(Wait::Duration(_)) => {
            with.value["duration"].as_str().and_then(|text| stanch_playbook::parse_duration(text).ok())
        }
        _ => None,
    };
    let all_delays = delays.iter().map(|(_, most)| *most).sum::<Duration>();
    let one = match is_action {
        false => length.or(step.timeout),
        true => within.or_else(|| step.timeout.map(|limit| limit * attempts + all_delays)),
    };
    // Items share the slots; how many there are may not be known.
    let rounds = match (&items, known) {
        (None, _) => Some(1),
        (Some(of), Some(items)) => u32::try_from(items.len().div_ceil(of.max_parallel as usize)).ok(),
        (Some(_), None) => None,
    };
    let verified = step.verify.as_ref().map_or(Duration::ZERO, |verify| verify.until.within);
    let needs = step.needs.iter().map(|index| &plan.steps[*index]);
    let looks = |until: &Until| Looks {
        written: until.condition.source().to_owned(),
        every: until.every,
        within: until.within,
    };
    let other = |call: &Call| {
        let (with, env) = names.call(call);
        ForeseenCall { uses: name_of(call), with, env }
    };
    Foreseen {
        step: step.key.clone(),
        phase: step.phase,
        wave,
        needs: needs.clone().map(|step| step.name.clone()).collect(),
        condition,
        acts: step.acts,
        uses: match &step.uses {
            Uses::Action(call) => name_of(call),
            other => other.name().to_owned(),
        },
        items,
        with,
        targets,
        env,
        idempotent: step.policy.idempotent,
        on_unknown: step.policy.on_unknown,
        attempts,
        delays,
        timeout: step.timeout,
        at_most: one.zip(rounds).and_then(|(one, rounds)| (one + verified).checked_mul(rounds)),
        continue_on_error: step.continue_on_error,
        approvals: needs.filter(|step| matches!(step.uses, Uses::Approval(_))).map(|step| step.name.clone()).collect(),
        budget: step.budget.clone(),
        until: step.until.as_ref().map(looks),
        verify: step.verify.as_ref().map(|verify| (other(&verify.call), looks(&verify.until))),
        undo: step.undo.as_ref().map(|undo| (other(&undo.call), undo.after)),
    }
}

/// What a step's action is given, and its environment.
fn given(plan: &Plan, step: &Step, names: &Beforehand<'_>) -> (Preview, Preview) {
    let known = |reference: &Reference| names.knows(reference);
    let told = |value: Value| Preview { value, ..nothing() };
    let with = match &step.uses {
        Uses::Action(call) => return names.call(call),
        Uses::Wait(Wait::Duration(template)) => {
            let mut shown = template.preview(names, &known);
            shown.value = json!({"duration": shown.value});
            shown
        }
        Uses::Wait(Wait::Resolved { settle }) => told(json!({"for": "resolved", "settle": shown_duration(*settle)})),
        Uses::Wait(Wait::Event(awaited)) => {
            let on = match &awaited.on {
                TriggerOn::Nats { subject } => json!({"nats": subject}),
                TriggerOn::Alertmanager(matchers) => {
                    json!({"alertmanager": matchers.iter().map(ToString::to_string).collect::<Vec<_>>()})
                }
                TriggerOn::Schedule(_) | TriggerOn::Manual => Value::Null,
            };
            told(json!({"for": on, "if": awaited.condition.as_ref().map(|condition| condition.source())}))
        }
        Uses::Approval(approval) => {
            let mut shown = approval.prompt.preview(names, &known);
            let index = plan.step_index(&step.key);
            let about = plan.steps.iter().filter(|of| index.is_some_and(|index| of.needs.contains(&index)));
            shown.value = json!({
                "prompt": shown.value,
                "from": approval.from,
                "quorum": approval.quorum,
                "about": about.map(|of| of.name.as_str()).collect::<Vec<_>>(),
                "on_timeout": approval.on_timeout,
            });
            shown
        }
        Uses::Playbook { playbook, inputs } => {
            let mut shown = names.preview(inputs);
            shown.value = json!({"playbook": playbook, "inputs": shown.value});
            shown
        }
        Uses::Undo { step } => told(json!({"step": plan.steps[*step].name})),
    };
    (with, nothing())
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

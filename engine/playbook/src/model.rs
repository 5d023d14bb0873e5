//! A checked playbook as plain data: what the canonical form holds.
//!
//! Everything that matters for execution and nothing else: no places, no comments, defaults resolved.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::actions::{self, WAIT};
use crate::evaluate::{CompileError, Expression, Leaf, Node, Template, ValueTemplate};
use crate::matcher::Matcher;
use crate::name::{ActionName, Phase, PlanDigest, PlaybookName, Severity, StepKey};
use crate::plan::{
    InputSpec, InputType, Jitter, OnUnknown, Plan, PlanError, Retry, Step, Trigger, TriggerOn, Uses, Wait,
};
use crate::schedule::{CatchUp, Schedule};

/// Grows where the meaning of a canonical form changes.
const FORMAT: u32 = 1;
const DEFAULT_SETTLE: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaybookModel {
    pub format: u32,
    pub name: String,
    pub description: String,
    pub severity: Option<Severity>,
    pub owner: Option<String>,
    pub triggers: Vec<TriggerModel>,
    pub inputs: BTreeMap<String, InputModel>,
    pub steps: Vec<StepModel>,
    pub concurrency: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TriggerModel {
    pub on: OnModel,
    #[serde(rename = "if")]
    pub condition: Option<String>,
    pub key: Option<String>,
    pub inputs: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum OnModel {
    Alertmanager { matchers: Vec<String> },
    Nats { subject: String },
    Schedule { cron: String, timezone: String, catch_up: CatchUp },
    Manual,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputModel {
    #[serde(rename = "type")]
    pub kind: InputType,
    pub required: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepModel {
    pub phase: Phase,
    pub name: String,
    pub needs: Vec<String>,
    #[serde(rename = "if")]
    pub condition: Option<String>,
    pub uses: String,
    pub with: Map<String, Value>,
    pub env: BTreeMap<String, String>,
    pub secrets: Option<Vec<String>>,
    pub idempotent: bool,
    pub retry: RetryModel,
    pub on_unknown: OnUnknown,
    pub timeout_ms: Option<u64>,
    pub outputs: BTreeMap<String, String>,
    pub continue_on_error: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryModel {
    pub max_attempts: u32,
    pub initial_interval_ms: u64,
    pub backoff: f64,
    pub max_interval_ms: u64,
    pub jitter: Jitter,
}

impl PlaybookModel {
    pub fn new(name: String) -> Self {
        Self {
            format: FORMAT,
            name,
            description: String::new(),
            severity: None,
            owner: None,
            triggers: Vec::new(),
            inputs: BTreeMap::new(),
            steps: Vec::new(),
            concurrency: None,
        }
    }

    /// The canonical text: sorted keys, no spaces.
    pub fn canonical(&self) -> String {
        let value = serde_json::to_value(self).expect("all keys are texts and all numbers finite");
        let mut text = String::new();
        write_sorted(&value, &mut text);
        text
    }

    /// The plan of this model, whose canonical form is `canonical`.
    pub fn plan(self, canonical: String) -> Result<Plan, PlanError> {
        if self.format != FORMAT {
            return Err(PlanError(format!("its format is {}, this version reads {FORMAT}", self.format)));
        }
        let digest = PlanDigest(Sha256::digest(canonical.as_bytes()).into());
        let key = |phase: Phase, name: &str| StepKey::new(format!("{phase}.{name}"));
        let index: BTreeMap<StepKey, usize> =
            self.steps.iter().enumerate().map(|(at, step)| (key(step.phase, &step.name), at)).collect();
        let mut steps = Vec::with_capacity(self.steps.len());
        for model in self.steps {
            let key = key(model.phase, &model.name);
            let place = key.to_string();
            steps.push(step(model, key, &index).map_err(|error| PlanError(format!("{place}: {error}")))?);
        }
        let triggers = self.triggers.into_iter().map(trigger).collect::<Result<_, _>>()?;
        let input =
            |model: InputModel| InputSpec { kind: model.kind, required: model.required, default: model.default };
        Ok(Plan {
            name: PlaybookName::new(self.name),
            digest,
            description: self.description,
            severity: self.severity,
            owner: self.owner,
            triggers,
            inputs: self.inputs.into_iter().map(|(name, model)| (name, input(model))).collect(),
            steps,
            concurrency: self.concurrency,
            canonical,
            index,
        })
    }
}

impl Plan {
    /// The plan whose canonical form this is.
    ///
    /// # Errors
    /// [`PlanError`] where the text is no canonical form of this version.
    pub fn from_canonical(text: &str) -> Result<Self, PlanError> {
        let model: PlaybookModel = serde_json::from_str(text).map_err(|error| PlanError(error.to_string()))?;
        model.plan(text.to_owned())
    }
}

fn trigger(model: TriggerModel) -> Result<Trigger, PlanError> {
    let on = match model.on {
        OnModel::Alertmanager { matchers } => {
            let parsed = matchers.iter().map(|text| Matcher::parse(text)).collect::<Result<Vec<_>, _>>();
            TriggerOn::Alertmanager(
                parsed.map_err(|error| PlanError(error.to_string()))?.into_iter().flatten().collect(),
            )
        }
        OnModel::Nats { subject } => TriggerOn::Nats { subject },
        OnModel::Schedule { cron, timezone, catch_up } => TriggerOn::Schedule(
            Schedule::parse(&cron, &timezone, catch_up).map_err(|error| PlanError(error.to_string()))?,
        ),
        OnModel::Manual => TriggerOn::Manual,
    };
    Ok(Trigger {
        on,
        condition: model.condition.as_deref().map(Expression::compile).transpose().map_err(refused)?,
        key: model.key.as_deref().map(Template::compile).transpose().map_err(refused)?,
        inputs: expressions(&model.inputs)?,
    })
}

fn step(model: StepModel, key: StepKey, index: &BTreeMap<StepKey, usize>) -> Result<Step, PlanError> {
    let signature = actions::find(&model.uses).ok_or_else(|| PlanError(format!("unknown action {:?}", model.uses)))?;
    let needs = model.needs.iter().map(|name| {
        let key = StepKey::new(format!("{}.{name}", model.phase));
        index.get(&key).copied().ok_or_else(|| PlanError(format!("needs the unknown step {name:?}")))
    });
    let needs = needs.collect::<Result<_, _>>()?;
    let uses = if model.uses == WAIT {
        Uses::Wait(wait(&model.with)?)
    } else {
        Uses::Action { name: ActionName::new(signature.name), with: signature.compile(&model.with).map_err(refused)? }
    };
    let env = model.env.iter().map(|(name, text)| Ok((name.clone(), Node::leaf(text, Leaf::Secret)?)));
    let env = env.collect::<Result<_, _>>().map_err(refused)?;
    Ok(Step {
        key,
        phase: model.phase,
        name: model.name,
        needs,
        condition: model.condition.as_deref().map(Expression::compile).transpose().map_err(refused)?,
        uses,
        env: ValueTemplate::new(Node::Map(env)),
        idempotent: model.idempotent,
        retry: Retry {
            max_attempts: model.retry.max_attempts,
            initial_interval: Duration::from_millis(model.retry.initial_interval_ms),
            backoff: model.retry.backoff,
            max_interval: Duration::from_millis(model.retry.max_interval_ms),
            jitter: model.retry.jitter,
        },
        on_unknown: model.on_unknown,
        timeout: model.timeout_ms.map(Duration::from_millis),
        outputs: expressions(&model.outputs)?,
        continue_on_error: model.continue_on_error,
    })
}

fn wait(with: &Map<String, Value>) -> Result<Wait, PlanError> {
    let text = |name| with.get(name).and_then(Value::as_str);
    if let Some(duration) = text("duration") {
        return Template::compile(duration).map(Wait::Duration).map_err(refused);
    }
    let settle = match text("settle") {
        Some(settle) => crate::time::parse_duration(settle).map_err(|error| PlanError(error.to_string()))?,
        None => DEFAULT_SETTLE,
    };
    Ok(Wait::Resolved { settle })
}

fn expressions(texts: &BTreeMap<String, String>) -> Result<BTreeMap<String, Expression>, PlanError> {
    texts.iter().map(|(name, text)| Ok((name.clone(), Expression::compile(text).map_err(refused)?))).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: CompileError) -> PlanError {
    PlanError(error.to_string())
}

/// JSON with sorted keys, whatever order the map type keeps.
fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            out.push('{');
            for (index, (key, value)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write_sorted(value, out);
            }
            out.push('}');
        }
        Value::Array(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_sorted(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

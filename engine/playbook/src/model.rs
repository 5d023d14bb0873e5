//! A checked playbook as plain data: what the canonical form holds.
//!
//! Everything that matters for execution and nothing else: no places, no comments, defaults resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::actions::{self, APPROVAL, PLAYBOOK, UNDO, WAIT};
use crate::evaluate::{CompileError, Expression, Leaf, Node, Template, ValueTemplate};
use crate::matcher::Matcher;
use crate::name::{ActionName, Phase, PlanDigest, PlaybookName, Severity, StepKey};
use crate::plan::{
    Approval, Awaited, Call, Foreach, IncidentRules, InputSpec, InputType, Mode, NotifyAfter, OnTimeout, OnUnknown,
    Plan, PlanError, Policy, Retry, Step, Trigger, TriggerOn, Undo, Until, Uses, Verify, Wait,
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
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub undo_on_failure: BTreeSet<Phase>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub incident: IncidentRules,
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Mode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub hold_ms: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub watchdogs_ms: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TriggerModel {
    pub on: OnModel,
    #[serde(rename = "if")]
    pub condition: Option<String>,
    pub key: Option<String>,
    pub inputs: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub group_wait_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum OnModel {
    Alertmanager { matchers: Vec<String> },
    Nats { subject: String },
    Schedule { cron: String, timezone: String, catch_up: CatchUp },
    Manual,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
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
    pub retry: Retry,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_if: Option<String>,
    pub on_unknown: OnUnknown,
    pub timeout_ms: Option<u64>,
    pub outputs: BTreeMap<String, String>,
    pub continue_on_error: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<AliasModel>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub of_action: OfAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreach: Option<ForeachModel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UntilModel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyModel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoModel>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_timeout: Option<OnTimeout>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_on: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
}

impl StepModel {
    /// Whether its action changes anything beyond the run: as the step says, or else by the action's own word; what the
    /// core keeps itself does not.
    pub fn acts(&self) -> bool {
        let worker = actions::find(&self.uses).filter(|signature| !actions::is_kept_by_core(signature.name));
        worker.is_some_and(|signature| self.read_only.map_or_else(|| signature.acts(&self.with), |looks| !looks))
    }
}

/// Which conditions of a step are of its action of the catalogue and look at that action's inputs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfAction {
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub outputs: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry_if: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub verify: bool,
}

/// What the catalogue calls an action, and what its inputs are given.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasModel {
    pub name: String,
    pub inputs: Map<String, Value>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ForeachModel {
    pub items: String,
    pub max_parallel: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub fail_fast: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UntilModel {
    pub condition: String,
    pub every_ms: u64,
    pub within_ms: u64,
}

/// An action as a verification or an undo gives it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallModel {
    pub uses: String,
    pub with: Map<String, Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<AliasModel>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyModel {
    pub call: CallModel,
    pub timeout_ms: u64,
    pub until: UntilModel,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UndoModel {
    pub call: CallModel,
    pub policy: Policy,
    pub timeout_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
            undo_on_failure: BTreeSet::new(),
            incident: IncidentRules::default(),
            mode: Mode::default(),
            hold_ms: 0,
            watchdogs_ms: BTreeMap::new(),
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
        for index in 0..steps.len() {
            steps[index].names = named_steps(&steps[index], &steps);
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
            undo_on_failure: self.undo_on_failure,
            incident: self.incident,
            mode: self.mode,
            hold: Duration::from_millis(self.hold_ms),
            watchdogs: self.watchdogs_ms.into_iter().map(|(name, ms)| (name, Duration::from_millis(ms))).collect(),
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

fn on(model: OnModel) -> Result<TriggerOn, PlanError> {
    Ok(match model {
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
    })
}

fn trigger(model: TriggerModel) -> Result<Trigger, PlanError> {
    Ok(Trigger {
        on: on(model.on)?,
        condition: optional(model.condition.as_deref())?,
        key: model.key.as_deref().map(Template::compile).transpose().map_err(refused)?,
        inputs: expressions(&model.inputs)?,
        group_wait: Duration::from_millis(model.group_wait_ms),
    })
}

fn step(model: StepModel, key: StepKey, index: &BTreeMap<StepKey, usize>) -> Result<Step, PlanError> {
    let needs = model.needs.iter().map(|name| {
        let key = StepKey::new(format!("{}.{name}", model.phase));
        index.get(&key).copied().ok_or_else(|| PlanError(format!("needs the unknown step {name:?}")))
    });
    let needs = needs.collect::<Result<_, _>>()?;
    let by_name = |name: &str| {
        let found = index.iter().find(|(key, _)| key.as_str().split_once('.').is_some_and(|(_, step)| step == name));
        found.map(|(_, index)| *index)
    };
    let ends = model.ends.iter();
    let ends = ends.map(|name| by_name(name).ok_or_else(|| PlanError(format!("ends the unknown step {name:?}"))));
    let ends = ends.collect::<Result<_, _>>()?;
    let acts = model.acts();
    let of_action = model.of_action;
    let output =
        |(name, text): (&String, &String)| Ok((name.clone(), condition(text, of_action.outputs.contains(name))?));
    let outputs: Result<_, PlanError> = model.outputs.iter().map(output).collect();
    let uses = match model.uses.as_str() {
        WAIT => Uses::Wait(wait(&model.with)?),
        APPROVAL => Uses::Approval(approval(&model.with, model.on_timeout.unwrap_or_default())?),
        PLAYBOOK => child(&model.with)?,
        UNDO => {
            let name = text(&model.with, "step").unwrap_or_default();
            Uses::Undo {
                step: by_name(name).ok_or_else(|| PlanError(format!("takes back the unknown step {name:?}")))?,
            }
        }
        _ => Uses::Action(call(&CallModel { uses: model.uses, with: model.with, env: model.env, alias: model.alias })?),
    };
    Ok(Step {
        key,
        phase: model.phase,
        name: model.name,
        needs,
        condition: optional(model.condition.as_deref())?,
        uses,
        foreach: model.foreach.map(foreach).transpose()?,
        policy: Policy { idempotent: model.idempotent, retry: model.retry, on_unknown: model.on_unknown },
        retry_if: model.retry_if.as_deref().map(|text| condition(text, of_action.retry_if)).transpose()?,
        timeout: model.timeout_ms.map(Duration::from_millis),
        until: model.until.as_ref().map(|model| until(model, false)).transpose()?,
        verify: model.verify.as_ref().map(|model| verify(model, of_action.verify)).transpose()?,
        undo: model.undo.as_ref().map(undo).transpose()?,
        ends,
        outputs: outputs?,
        continue_on_error: model.continue_on_error,
        runs_on: model.runs_on,
        budget: model.budget,
        acts,
        names: Vec::new(),
    })
}

fn call(model: &CallModel) -> Result<Call, PlanError> {
    let signature = actions::find(&model.uses).ok_or_else(|| PlanError(format!("unknown action {:?}", model.uses)))?;
    let env = model.env.iter().map(|(name, text)| Ok((name.clone(), Node::leaf(text, Leaf::Secret)?)));
    let env = env.collect::<Result<_, _>>().map_err(refused)?;
    let alias = model.alias.as_ref().map(|alias| Ok((alias.name.clone(), map(&alias.inputs)?)));
    Ok(Call {
        action: ActionName::new(signature.name),
        alias: alias.transpose()?,
        with: signature.compile(&model.with).map_err(refused)?,
        env: ValueTemplate::new(Node::Map(env)),
    })
}

/// A map whose texts are templates; a lone path keeps its type.
fn map(map: &Map<String, Value>) -> Result<ValueTemplate, PlanError> {
    Node::tree(&Value::Object(map.clone()), Leaf::Typed).map(ValueTemplate::new).map_err(refused)
}

fn text<'a>(with: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    with.get(name).and_then(Value::as_str)
}

fn wait(with: &Map<String, Value>) -> Result<Wait, PlanError> {
    if let Some(duration) = text(with, "duration") {
        return Template::compile(duration).map(Wait::Duration).map_err(refused);
    }
    if let Some(event @ Value::Object(_)) = with.get("for") {
        let awaited: AwaitedModel =
            serde_json::from_value(event.clone()).map_err(|error| PlanError(format!("for: {error}")))?;
        return Ok(Wait::Event(Awaited { on: on(awaited.on)?, condition: optional(awaited.condition.as_deref())? }));
    }
    let settle = match text(with, "settle") {
        Some(settle) => crate::time::parse_duration(settle).map_err(|error| PlanError(error.to_string()))?,
        None => DEFAULT_SETTLE,
    };
    Ok(Wait::Resolved { settle })
}

/// `with.for` of a wait for an event.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AwaitedModel {
    pub on: OnModel,
    #[serde(rename = "if", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// `with` of an approval.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApprovalModel {
    pub prompt: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    pub quorum: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_self: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub escalate: Vec<NotifyAfter>,
}

fn approval(with: &Map<String, Value>, on_timeout: OnTimeout) -> Result<Approval, PlanError> {
    let model: ApprovalModel =
        serde_json::from_value(Value::Object(with.clone())).map_err(|error| PlanError(error.to_string()))?;
    Ok(Approval {
        prompt: Template::compile(&model.prompt).map_err(refused)?,
        from: model.from,
        quorum: model.quorum,
        allow_self: model.allow_self,
        on_timeout,
        escalate: model.escalate,
    })
}

fn child(with: &Map<String, Value>) -> Result<Uses, PlanError> {
    let name = text(with, "playbook").ok_or_else(|| PlanError("no playbook is named".to_owned()))?;
    let inputs = match with.get("inputs") {
        Some(Value::Object(inputs)) => inputs.clone(),
        _ => Map::new(),
    };
    Ok(Uses::Playbook { playbook: PlaybookName::new(name), inputs: map(&inputs)? })
}

#[expect(clippy::needless_pass_by_value, reason = "for map")]
fn foreach(model: ForeachModel) -> Result<Foreach, PlanError> {
    Ok(Foreach {
        items: Expression::compile(&model.items).map_err(refused)?,
        max_parallel: model.max_parallel.max(1),
        fail_fast: model.fail_fast,
    })
}

/// A condition, whose `inputs` are those of the catalogue's action where it is `of_action`.
fn condition(text: &str, of_action: bool) -> Result<Expression, PlanError> {
    if of_action { Expression::compile_of_action(text) } else { Expression::compile(text) }.map_err(refused)
}

fn until(model: &UntilModel, of_action: bool) -> Result<Until, PlanError> {
    Ok(Until {
        condition: condition(&model.condition, of_action)?,
        every: Duration::from_millis(model.every_ms),
        within: Duration::from_millis(model.within_ms),
    })
}

fn verify(model: &VerifyModel, of_action: bool) -> Result<Verify, PlanError> {
    let timeout = Duration::from_millis(model.timeout_ms);
    Ok(Verify { call: call(&model.call)?, timeout, until: until(&model.until, of_action)? })
}

fn undo(model: &UndoModel) -> Result<Undo, PlanError> {
    Ok(Undo {
        call: call(&model.call)?,
        policy: model.policy,
        timeout: Duration::from_millis(model.timeout_ms),
        after: model.after_ms.map(Duration::from_millis),
    })
}

/// The indexes of the steps that a step's templates and conditions name: all, where one names `steps` as a whole.
fn named_steps(step: &Step, steps: &[Step]) -> Vec<usize> {
    let mut named = BTreeSet::new();
    let mut each = |root: &str, rest: &[String]| {
        if root == "steps" {
            let of = |index: &usize| rest.first().is_none_or(|name| steps[*index].name == *name);
            named.extend((0..steps.len()).filter(of));
        }
    };
    let mut templates: Vec<&ValueTemplate> = Vec::new();
    let mut expressions: Vec<&Expression> =
        step.outputs.values().chain(&step.condition).chain(&step.retry_if).collect();
    let mut texts: Vec<&Template> = Vec::new();
    let mut calls: Vec<&Call> = Vec::new();
    expressions.extend(step.foreach.iter().map(|foreach| &foreach.items));
    expressions.extend(step.until.iter().chain(step.verify.iter().map(|verify| &verify.until)).map(|it| &it.condition));
    calls.extend(step.verify.iter().map(|verify| &verify.call).chain(step.undo.iter().map(|undo| &undo.call)));
    match &step.uses {
        Uses::Action(call) => calls.push(call),
        Uses::Wait(Wait::Duration(text)) => texts.push(text),
        Uses::Wait(Wait::Event(awaited)) => expressions.extend(&awaited.condition),
        Uses::Wait(Wait::Resolved { .. }) | Uses::Undo { .. } => {}
        Uses::Approval(approval) => texts.push(&approval.prompt),
        Uses::Playbook { inputs, .. } => templates.push(inputs),
    }
    for call in calls {
        templates.extend([&call.with, &call.env]);
        templates.extend(call.alias.iter().map(|(_, inputs)| inputs));
    }
    for template in templates {
        template.for_each_reference(&mut each);
    }
    for reference in expressions.into_iter().flat_map(Expression::references) {
        each(&reference.root, &reference.rest);
    }
    for reference in texts.into_iter().flat_map(Template::references) {
        each(&reference.root, &reference.rest);
    }
    named.into_iter().collect()
}

fn optional(text: Option<&str>) -> Result<Option<Expression>, PlanError> {
    text.map(Expression::compile).transpose().map_err(refused)
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

//! A run as people look at it, folded from its records alone, so that runs whose plan is long gone can be shown too.
//!
//! What is in force stands in the state: what a run did may be taken back long after its last record.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use stanch_core::attempt::{AttemptId, Purpose};
use stanch_core::record::{Answer, Body, Cause, Ending, Record, Then, Verification, Waiting};
use stanch_core::{ContainmentId, Epoch, RunId, State};
use stanch_playbook::{ActionName, PlanDigest, StepKey, Timestamp};

use super::approvals::QuestionView;
use crate::summary::RunSummary;

/// How many items of a step are shown unless all are asked for.
pub(super) const ITEMS: usize = 100;

/// A run with all its steps.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunDetail {
    #[serde(flatten)]
    summary: RunSummary,
    /// The plan that it is pinned to.
    plan: Option<PlanDigest>,
    /// Its inputs.
    inputs: Value,
    /// What started it; null where that was deleted.
    trigger: Option<Cause>,
    /// Who asked for its early end.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled: Option<Cancelled>,
    /// What it waits to be taken back, the next first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    undoing: Vec<ContainmentId>,
    /// Its steps by `phase.step`, in the playbook's order.
    #[schemars(with = "std::collections::BTreeMap<String, StepView>")]
    steps: Steps,
}

/// Who asked for a run's early end.
#[derive(Debug, Serialize, JsonSchema)]
struct Cancelled {
    /// Who.
    by: String,
    /// Why; may be empty.
    reason: String,
    /// Whether what it did is taken back.
    undo: bool,
    /// When.
    at: Timestamp,
}

/// Steps in order, written as an object.
#[derive(Debug, Default)]
struct Steps(Vec<(StepKey, StepView)>);

impl Serialize for Steps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, step) in &self.0 {
            map.serialize_entry(key, step)?;
        }
        map.end()
    }
}

/// One step of a run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StepView {
    /// Its place in the playbook, from 0.
    position: usize,
    /// The action, or `wait`, `approval`, `playbook`, `undo`; null where that is not known any more.
    uses: Option<ActionName>,
    /// Whether repeating it is harmless; null where that is not known any more.
    idempotent: Option<bool>,
    #[serde(flatten)]
    doing: Doing,
    /// Its items, where it is done for each of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<ItemsView>,
    /// The question that it asks, with the answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<QuestionView>,
}

/// The items of a step.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ItemsView {
    /// How many there are.
    count: usize,
    /// How many are in which state.
    states: BTreeMap<&'static str, usize>,
    /// The items; of more than 100, those that have not succeeded, at most 100, those that have begun first.
    shown: Vec<ItemView>,
    /// How many are not shown; `?items=all` shows them.
    hidden: usize,
}

/// One item of a step.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ItemView {
    /// Its number, from 0.
    item: u32,
    /// Its value.
    value: Value,
    #[serde(flatten)]
    doing: Doing,
}

/// What a step, or an item of it, did and does.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Doing {
    /// pending, blocked, skipped, running, backoff, verifying, waiting, unknown, succeeded, tolerated, failed or cancelled.
    state: &'static str,
    /// The action's result.
    output: Option<Value>,
    /// The evaluated `outputs`.
    outputs: Option<Value>,
    /// Why it is not green.
    error: Option<String>,
    /// Every attempt, oldest first; of consecutive looks of a verification, or of a step that polls, the last alone.
    attempts: Vec<AttemptView>,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<Waiting>,
    /// How it is being found out whether it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    verifying: Option<Verifying>,
    /// When the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Timestamp>,
    /// What a person said of an unknown attempt, the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<Answered>,
    /// The run that it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<RunId>,
    /// What it put in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    containment: Option<ContainmentView>,
    /// When it first did something.
    started_at: Option<Timestamp>,
    /// When it was over.
    finished_at: Option<Timestamp>,
}

/// How it is being found out whether a step holds.
#[derive(Debug, Serialize, JsonSchema)]
struct Verifying {
    /// What looks.
    action: ActionName,
    /// How long it waits between two looks, in milliseconds.
    every_ms: u64,
    /// By when it must hold.
    deadline: Timestamp,
}

/// What a step put in force.
#[derive(Debug, Serialize, JsonSchema)]
struct ContainmentView {
    /// Its id, which `stanch inforce` takes.
    id: ContainmentId,
    /// inforce, requested, undoing, backoff, unknown or failed; `over` where it is not in force any more.
    state: &'static str,
    /// When it is taken back by itself; null: never.
    until: Option<Timestamp>,
    /// Why it could not be taken back, or nobody knows.
    error: Option<String>,
}

/// A person's answer.
#[derive(Debug, Serialize, JsonSchema)]
struct Answered {
    /// Who.
    by: String,
    /// What.
    answer: Answer,
    /// What the person added.
    note: String,
    /// When.
    at: Timestamp,
}

/// One attempt of a step.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AttemptView {
    /// do, verify, or undo.
    purpose: Purpose,
    /// What it took back, or tried to.
    #[serde(skip_serializing_if = "Option::is_none")]
    containment: Option<ContainmentId>,
    /// How often a person had asked for the step to be tried again.
    generation: u32,
    /// Its number in that generation, from 1.
    number: u32,
    /// The engine's epoch that made it.
    epoch: Epoch,
    /// running, succeeded, failed or unknown.
    outcome: &'static str,
    /// Why it did not succeed.
    error: Option<String>,
    /// What a result said that came too late to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<String>,
    /// When it was claimed.
    scheduled_at: Timestamp,
    /// When its outcome was recorded.
    finished_at: Option<Timestamp>,
}

impl RunDetail {
    /// Folds a run's records. The plan, where the state has it, adds the steps that nothing is recorded of yet. Of each
    /// step at most so many items are shown.
    pub(super) fn new(mut summary: RunSummary, records: &[Record], state: &State, most: usize) -> Self {
        summary.records.clear();
        let plan = records.iter().find_map(|record| match &record.body {
            Body::RunStarted(body) => Some(body.plan),
            _ => None,
        });
        let undoing = state.runs.get(&summary.id).map(|run| run.undoing.clone()).unwrap_or_default();
        let inputs = Value::Object(Map::new());
        let steps = Steps::default();
        let mut run = Self { summary, plan, inputs, trigger: None, cancelled: None, undoing, steps };
        for step in plan.and_then(|plan| state.plan(plan)).map(|plan| &plan.steps[..]).unwrap_or_default() {
            let view = run.steps.at(&step.key);
            view.uses = Some(ActionName::new(step.uses.name()));
            view.idempotent = Some(step.policy.idempotent);
        }
        for record in records {
            run.apply(record);
        }
        for (_, step) in &mut run.steps.0 {
            step.complete(state, most);
        }
        run
    }

    fn apply(&mut self, record: &Record) {
        let at = record.time;
        match &record.body {
            Body::RunStarted(body) => {
                self.inputs = Value::clone(&body.inputs);
                self.trigger = Some(body.cause.clone());
            }
            Body::RunExtended(body) => {
                self.inputs = Value::clone(&body.inputs);
                self.trigger = Some(body.cause.clone());
            }
            Body::RunCancelRequested(body) => {
                let by = record.actor.as_str().to_owned();
                self.cancelled = Some(Cancelled { by, reason: body.reason.clone(), undo: body.undo, at });
            }
            Body::AttemptScheduled(body) => {
                let step = self.steps.at(&body.attempt.step);
                if body.attempt.purpose == Purpose::Do {
                    step.uses = Some(body.action.clone());
                }
                step.doing(body.attempt.item).begin_attempt(&body.attempt, at);
            }
            Body::AttemptSucceeded(body) => {
                let doing = self.steps.of(&body.attempt);
                let unsettled = body.unsettled.as_ref();
                doing.finish_attempt(&body.attempt, "succeeded", unsettled.map(|unsettled| &*unsettled.reason), at);
                if body.attempt.purpose == Purpose::Undo {
                    return;
                }
                if body.attempt.purpose == Purpose::Do {
                    doing.output = Some(Value::clone(&body.output));
                }
                if !body.outputs.is_null() {
                    doing.outputs = Some(Value::clone(&body.outputs));
                }
                match unsettled {
                    None => doing.end("succeeded", None, at),
                    Some(unsettled) => doing.follow(unsettled.then, &unsettled.reason, at),
                }
                doing.verify(body.verification.as_deref());
            }
            Body::AttemptFailed(body) => {
                let doing = self.steps.of(&body.attempt);
                doing.finish_attempt(&body.attempt, "failed", Some(&body.error), at);
                if body.attempt.purpose == Purpose::Do {
                    doing.output = body.output.as_deref().cloned();
                }
                if body.attempt.purpose != Purpose::Undo {
                    doing.follow(body.then, &body.error, at);
                }
            }
            Body::AttemptUnknown(body) => {
                let doing = self.steps.of(&body.attempt);
                doing.finish_attempt(&body.attempt, "unknown", Some(&body.reason), at);
                if body.attempt.purpose != Purpose::Undo {
                    doing.follow(body.then, &body.reason, at);
                    doing.verify(body.verification.as_deref());
                }
            }
            Body::AttemptLate(body) => {
                if let Some(attempt) = self.steps.of(&body.attempt).attempt(&body.attempt) {
                    attempt.late = Some(body.outcome.clone());
                }
            }
            Body::StepWaiting(body) => {
                let doing = self.steps.at(&body.step).doing(body.item);
                doing.wait(body.wait, at);
                if let Waiting::Run { child, .. } = body.wait {
                    doing.child = Some(child);
                }
            }
            Body::StepWoken(body) => {
                let doing = self.steps.at(&body.step).doing(body.item);
                doing.outputs = Some(Value::clone(&body.outputs));
                doing.end("succeeded", None, at);
            }
            Body::StepEnded(body) => {
                let error = (body.ending != Ending::Skipped).then_some(&*body.reason);
                self.steps.at(&body.step).doing(body.item).end(body.ending.as_str(), error, at);
            }
            Body::StepAnswered(body) => {
                let by = record.actor.as_str().to_owned();
                let doing = self.steps.at(&body.step).doing(body.item);
                let person = by.strip_prefix("person:").unwrap_or(&by);
                let error = match body.note.as_str() {
                    "" => format!("{person} answered that it failed"),
                    note => format!("{person} answered that it failed: {note}"),
                };
                match body.answer {
                    Answer::Succeeded => doing.end("succeeded", None, at),
                    Answer::Failed if body.tolerated => doing.end("tolerated", Some(&error), at),
                    Answer::Failed => doing.end("failed", Some(&error), at),
                    Answer::Retry => doing.enter("backoff", None),
                }
                if matches!(doing.state, "succeeded" | "tolerated") {
                    doing.outputs.get_or_insert_with(|| Value::Object(Map::new()));
                }
                doing.answered = Some(Answered { by, answer: body.answer, note: body.note.clone(), at });
            }
            Body::ItemsStarted(body) => {
                let step = self.steps.at(&body.step);
                let item =
                    |(value, item): (&Value, u32)| ItemView { item, value: value.clone(), doing: Doing::pending() };
                let shown: Vec<ItemView> = body.items.iter().zip(0..).map(item).collect();
                step.items = Some(ItemsView { count: shown.len(), states: BTreeMap::new(), shown, hidden: 0 });
                step.doing.enter("running", None);
                step.doing.started_at.get_or_insert(at);
            }
            Body::ItemsEnded(body) => {
                let doing = &mut self.steps.at(&body.step).doing;
                doing.outputs = Some(Value::Object(Map::new()));
                match &body.failure {
                    None => doing.end("succeeded", None, at),
                    Some(failure) => doing.end(failure.ending.as_str(), Some(&failure.reason), at),
                }
            }
            Body::ApprovalRequested(body) => {
                let step = self.steps.at(&body.step);
                let wait = Waiting::Approval { approval: body.approval, expires_at: body.expires_at };
                step.doing.wait(wait, at);
                step.doing.finished_at = None;
                step.question = Some(QuestionView::asked(body, at));
            }
            Body::ApprovalEscalated(body) => {
                if let Some(question) = &mut self.steps.at(&body.step).question {
                    question.escalated(&body.people);
                }
            }
            Body::ApprovalDecided(body) => {
                if let Some(question) = &mut self.steps.at(&body.step).question {
                    question.answered(&record.actor, body.verdict, at);
                }
            }
            Body::ContainmentStarted(body) => {
                let of = ContainmentView { id: body.containment, state: "over", until: body.until, error: None };
                self.steps.at(&body.step).doing(body.item).containment = Some(of);
            }
            // These are about the run as a whole, of which the summary tells, or about other things.
            _ => {}
        }
    }
}

impl Steps {
    /// The view of a step, made where it is not there yet.
    fn at(&mut self, key: &StepKey) -> &mut StepView {
        let position = self.0.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            let position = self.0.len();
            self.0.push((key.clone(), StepView::pending(position)));
            position
        });
        &mut self.0[position].1
    }

    /// What an attempt is one of.
    fn of(&mut self, attempt: &AttemptId) -> &mut Doing {
        self.at(&attempt.step).doing(attempt.item)
    }
}

impl StepView {
    fn pending(position: usize) -> Self {
        Self { position, uses: None, idempotent: None, doing: Doing::pending(), items: None, question: None }
    }

    /// The step itself, or an item of it.
    fn doing(&mut self, item: Option<u32>) -> &mut Doing {
        let item = item.and_then(|item| self.items.as_mut()?.shown.get_mut(item as usize));
        match item {
            Some(item) => &mut item.doing,
            None => &mut self.doing,
        }
    }

    /// Adds what only the state tells, and leaves out the items that are too many.
    fn complete(&mut self, state: &State, most: usize) {
        self.doing.look_up(state);
        let Some(items) = &mut self.items else { return };
        for item in &mut items.shown {
            item.doing.look_up(state);
            *items.states.entry(item.doing.state).or_insert(0) += 1;
        }
        if self.doing.state == "running" {
            let of = |states: &[&str]| states.iter().filter_map(|state| items.states.get(state)).sum::<usize>();
            let busy = of(&["running", "backoff", "verifying"]);
            if busy == 0 && of(&["waiting", "unknown"]) > 0 {
                self.doing.state = "waiting";
            }
        }
        if items.shown.len() > most {
            // Stable: in their order, of those that are not green first what has begun.
            items.shown.retain(|item| item.doing.state != "succeeded");
            items.shown.sort_by_key(|item| item.doing.state == "pending");
            items.shown.truncate(most);
            items.shown.sort_by_key(|item| item.item);
        }
        items.hidden = items.count - items.shown.len();
    }
}

impl Doing {
    const fn pending() -> Self {
        Self {
            state: "pending",
            output: None,
            outputs: None,
            error: None,
            attempts: Vec::new(),
            waiting: None,
            verifying: None,
            next_attempt_at: None,
            answered: None,
            child: None,
            containment: None,
            started_at: None,
            finished_at: None,
        }
    }

    fn enter(&mut self, state: &'static str, error: Option<&str>) {
        self.state = state;
        self.error = error.map(str::to_owned);
        self.waiting = None;
        self.verifying = None;
        self.next_attempt_at = None;
    }

    fn end(&mut self, state: &'static str, error: Option<&str>, at: Timestamp) {
        self.enter(state, error);
        self.finished_at = Some(at);
    }

    fn wait(&mut self, wait: Waiting, at: Timestamp) {
        self.enter("waiting", None);
        self.waiting = Some(wait);
        self.started_at.get_or_insert(at);
    }

    fn follow(&mut self, then: Then, error: &str, at: Timestamp) {
        match then {
            Then::Verify => self.enter("verifying", None),
            // A verification goes on.
            Then::Retry { at } if self.state == "verifying" => self.next_attempt_at = Some(at),
            Then::Retry { at } | Then::Redo { at } => {
                self.enter("backoff", None);
                self.next_attempt_at = Some(at);
            }
            Then::Ask => self.enter("unknown", Some(error)),
            Then::Fail => self.end("failed", Some(error), at),
            Then::Tolerate => self.end("tolerated", Some(error), at),
            Then::Cancel => self.end("cancelled", Some(error), at),
        }
    }

    fn verify(&mut self, verification: Option<&Verification>) {
        if let Some(Verification { call, every, deadline }) = verification {
            let every_ms = millis(*every);
            self.verifying = Some(Verifying { action: call.action.clone(), every_ms, deadline: *deadline });
        }
    }

    fn begin_attempt(&mut self, id: &AttemptId, at: Timestamp) {
        let repeats = |last: &mut AttemptView| match id.purpose {
            Purpose::Verify => last.purpose == Purpose::Verify,
            Purpose::Do => last.purpose == Purpose::Do && last.outcome == "succeeded",
            Purpose::Undo => false,
        };
        self.attempts.pop_if(repeats);
        let containment = self.containment.as_ref().filter(|_| id.purpose == Purpose::Undo).map(|of| of.id);
        self.attempts.push(AttemptView {
            purpose: id.purpose,
            containment,
            generation: id.generation,
            number: id.number,
            epoch: id.epoch,
            outcome: "running",
            error: None,
            late: None,
            scheduled_at: at,
            finished_at: None,
        });
        match id.purpose {
            Purpose::Do => {
                self.enter("running", None);
                self.started_at.get_or_insert(at);
            }
            Purpose::Verify => self.next_attempt_at = None,
            Purpose::Undo => {}
        }
    }

    fn attempt(&mut self, id: &AttemptId) -> Option<&mut AttemptView> {
        let is = |attempt: &&mut AttemptView| {
            (attempt.purpose, attempt.generation, attempt.number, attempt.epoch)
                == (id.purpose, id.generation, id.number, id.epoch)
        };
        self.attempts.iter_mut().rev().find(is)
    }

    fn finish_attempt(&mut self, id: &AttemptId, outcome: &'static str, error: Option<&str>, at: Timestamp) {
        if let Some(attempt) = self.attempt(id) {
            attempt.outcome = outcome;
            attempt.error = error.map(str::to_owned);
            attempt.finished_at = Some(at);
        }
    }

    fn look_up(&mut self, state: &State) {
        if let Some(of) = &mut self.containment
            && let Some(known) = state.inforce.get(&of.id)
        {
            of.state = known.state.as_str();
            of.until = known.until;
            of.error = known.state.error().map(ToString::to_string);
        }
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

//! What keeps a live run from going on though nothing that it needs is missing, as people are told of it.
//!
//! Looked at in a settled state: what is pending there with all that it needs over would have begun, were it not held back.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stanch_core::State;
use stanch_core::record::{Held, Waiting};
use stanch_core::run::{Run, StepRun, StepState};
use stanch_playbook::plan::Step;
use stanch_playbook::{Timestamp, Uses};

/// What keeps a run, or a part of it, from going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeldBack {
    /// What does.
    pub by: Holder,
    /// Why, in one line.
    pub why: String,
    /// Since when, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Until when, where a time ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What to do about it: a command, or that it goes on by itself.
    pub remedy: String,
}

/// What may keep a run from going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// `stanch freeze`.
    Freeze,
    /// A maintenance window.
    Maintenance,
    /// The playbook's `hold`.
    Hold,
    /// A budget that is used up.
    Budget,
    /// The playbook's `concurrency`.
    Concurrency,
    /// The playbook's `group_wait`.
    GroupWait,
    /// The playbook's `on_repeat`: an earlier run comes first.
    OnRepeat,
}

impl Holder {
    /// The word for it in lists.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Freeze => "frozen",
            Self::Maintenance => "maintenance",
            Self::Hold => "hold",
            Self::Budget => "budget",
            Self::Concurrency => "concurrency",
            Self::GroupWait => "group_wait",
            Self::OnRepeat => "on_repeat",
        }
    }
}

impl HeldBack {
    /// What keeps a live run from going on, or the run of one of its sub-playbooks; none where nothing does.
    #[must_use]
    pub fn of(run: &Run, state: &State) -> Option<Self> {
        if run.outcome.is_some() || run.cancel.is_some() {
            return None;
        }
        if run.queued {
            return Some(queued(run, state));
        }
        budget(run, state).or_else(|| side_effects(run, state)).or_else(|| child(run, state))
    }
}

fn queued(run: &Run, state: &State) -> HeldBack {
    let by_itself = || "it goes on by itself".to_owned();
    let until = run.held.as_ref().and_then(Held::until);
    let (by, why, remedy) = match &run.held {
        Some(Held::Maintenance { until, reason }) => {
            let is = |(_, window): &(_, &Arc<stanch_core::state::Window>)| {
                window.planned.to == *until && window.planned.reason == *reason
            };
            let id = state.maintenance.iter().find(is).map_or_else(|| "ID".to_owned(), |(id, _)| id.to_string());
            let why = format!("a maintenance window holds it until {}: {reason}", time(*until));
            (Holder::Maintenance, why, format!("stanch maintenance end {id}"))
        }
        Some(Held::Group { until }) => {
            let why = format!("more alerts of its incident may come until {} (group_wait)", time(*until));
            (Holder::GroupWait, why, by_itself())
        }
        Some(Held::Behind { run }) => {
            let why = "an earlier run of its playbook in its incident comes first (on_repeat)".to_owned();
            (Holder::OnRepeat, why, format!("stanch runs show {run}"))
        }
        None => {
            let most = state.plan(run.plan).and_then(|plan| plan.concurrency).unwrap_or_default();
            let why = format!("{most} runs of its playbook are live, which is the most at once (concurrency)");
            (Holder::Concurrency, why, format!("stanch runs list --playbook {}", run.playbook))
        }
    };
    HeldBack { by, why, since: Some(run.started_at), until, remedy }
}

/// A question that no `uses: approval` asks is a budget's.
fn budget(run: &Run, state: &State) -> Option<HeldBack> {
    let plan = state.plan(run.plan)?;
    run.steps.iter().zip(&plan.steps).find_map(|(step, of)| match (&step.state, &of.uses, &of.budget) {
        (_, Uses::Approval(_), _) => None,
        (StepState::Waiting { wait: Waiting::Approval { approval, .. } }, _, Some(name)) => Some(HeldBack {
            by: Holder::Budget,
            why: format!("the budget {name} does not allow {}", of.key),
            since: step.question.as_ref().map(|question| question.asked_at),
            until: None,
            remedy: format!("stanch approve {approval}"),
        }),
        _ => None,
    })
}

fn side_effects(run: &Run, state: &State) -> Option<HeldBack> {
    if state.frozen.is_none() && run.hold_until.is_none() {
        return None;
    }
    let plan = state.plan(run.plan)?;
    let phase = run.phase(plan)?;
    let waits = |(step, of): &(&Arc<StepRun>, &Step)| of.acts && of.phase == phase && could_begin(run, step, of);
    let (_, of) = run.steps.iter().zip(&plan.steps).find(waits)?;
    if let Some((by, reason, since)) = &state.frozen {
        return Some(HeldBack {
            by: Holder::Freeze,
            why: format!("{} froze side effects, such as {}, at {}: {reason}", by.as_str(), of.key, time(*since)),
            since: Some(*since),
            until: None,
            remedy: "stanch unfreeze".to_owned(),
        });
    }
    let until = run.hold_until?;
    Some(HeldBack {
        by: Holder::Hold,
        why: format!("its playbook holds side effects, such as {}, until {}", of.key, time(until)),
        since: Some(run.started_at),
        until: Some(until),
        remedy: format!("it goes on by itself; stanch runs cancel {} ends it", run.id),
    })
}

/// Whether a step, or a further item of it, lacks nothing.
fn could_begin(run: &Run, step: &StepRun, of: &Step) -> bool {
    match step.state {
        StepState::Pending => of.needs.iter().all(|need| run.steps[*need].state.is_over()),
        StepState::Items { started, live, idle, .. } => {
            let most = of.foreach.as_ref().map_or(1, |foreach| foreach.max_parallel);
            (started as usize) < step.items.len() && live - idle < most
        }
        _ => false,
    }
}

fn child(run: &Run, state: &State) -> Option<HeldBack> {
    run.started().find_map(|(_, step)| match step.state {
        StepState::Waiting { wait: Waiting::Run { child, .. } } => HeldBack::of(state.runs.get(&child)?, state),
        _ => None,
    })
}

fn time(at: Timestamp) -> String {
    at.to_chrono().format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

//! What only several playbooks together show: children that do not exist, cycles, depth, inputs, and whether children can be
//! taken back.
//!
//! Absent: places in files. A problem names its playbook and its step; both are unique.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::evaluate::type_name;
use crate::inputs::{article, fits, spelled};
use crate::name::{PlaybookName, StepKey};
use crate::nearest::nearest;
use crate::plan::{Plan, Step, Uses};

/// How many playbooks may stand in one chain, the first included.
pub const MOST_DEPTH: usize = 8;

/// A problem of a playbook among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetProblem {
    /// The playbook that is to be changed.
    pub playbook: PlaybookName,
    /// The step of it.
    pub step: StepKey,
    /// Stable, such as `unknown-playbook`.
    pub code: &'static str,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl std::fmt::Display for SetProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: error[{}]: {}", self.playbook, self.step, self.code, self.message)?;
        self.help.iter().try_for_each(|help| write!(f, "; {help}"))
    }
}

/// All problems of playbooks that are loaded together, in their order; of two with one name the first counts.
#[must_use]
pub fn check_set(plans: &[&Plan]) -> Vec<SetProblem> {
    let mut set = Set { plans, index: BTreeMap::new(), problems: Vec::new() };
    for (at, plan) in plans.iter().enumerate() {
        set.index.entry(plan.name.as_str()).or_insert(at);
    }
    let calls: Vec<Vec<Called<'_>>> = plans.iter().map(|plan| set.calls(plan)).collect();
    set.cycles_and_depth(&calls);
    set.undos(&calls);
    set.problems
}

/// A step that runs another playbook, which exists.
struct Called<'a> {
    step: &'a Step,
    child: usize,
}

struct Set<'a> {
    plans: &'a [&'a Plan],
    index: BTreeMap<&'a str, usize>,
    problems: Vec<SetProblem>,
}

impl<'a> Set<'a> {
    fn problem(&mut self, plan: &Plan, step: &Step, code: &'static str, message: String, help: Option<String>) {
        let (playbook, step) = (plan.name.clone(), step.key.clone());
        self.problems.push(SetProblem { playbook, step, code, message, help });
    }

    fn calls(&mut self, plan: &'a Plan) -> Vec<Called<'a>> {
        let mut calls = Vec::new();
        for step in &plan.steps {
            let Uses::Playbook { playbook, inputs } = &step.uses else { continue };
            let Some(child) = self.index.get(playbook.as_str()).copied() else {
                let near = nearest(playbook.as_str(), self.index.keys().copied());
                let help = near.map(|near| format!("did you mean {near}?"));
                let message = format!("no playbook is named {playbook}");
                self.problem(plan, step, "unknown-playbook", message, help);
                continue;
            };
            calls.push(Called { step, child });
            self.inputs(plan, step, self.plans[child], inputs.entries());
        }
        calls
    }

    /// A step that takes back what another playbook did: one that says how must be among those that are run.
    fn undos(&mut self, calls: &[Vec<Called<'a>>]) {
        for (at, plan) in self.plans.iter().enumerate() {
            for step in &plan.steps {
                let Uses::Undo { step: of } = &step.uses else { continue };
                let of = &plan.steps[*of];
                let Some(called) = calls[at].iter().find(|called| called.step.key == of.key) else { continue };
                if !self.can_be_undone(called.child, calls) {
                    let child = &self.plans[called.child].name;
                    let message = format!("no step of {child} says how it is taken back");
                    let help = format!("add undo: {{uses: ...}} to a step of {child}");
                    self.problem(plan, step, "no-undo", message, Some(help));
                }
            }
        }
    }

    /// Whether a playbook, or one that it runs, has a step with an undo.
    fn can_be_undone(&self, start: usize, calls: &[Vec<Called<'a>>]) -> bool {
        let (mut open, mut seen) = (vec![start], BTreeSet::new());
        while let Some(at) = open.pop() {
            if self.plans[at].steps.iter().any(|step| step.undo.is_some()) {
                return true;
            }
            if seen.insert(at) {
                open.extend(calls[at].iter().map(|called| called.child));
            }
        }
        false
    }

    fn inputs(&mut self, plan: &Plan, step: &Step, child: &Plan, given: Vec<(&str, Option<Value>)>) {
        for (name, value) in &given {
            let Some(spec) = child.inputs.get(*name) else {
                let near = nearest(name, child.inputs.keys().map(String::as_str));
                let help = near.map(|near| format!("did you mean {near}?"));
                let message = format!("{} has no input named {name}", child.name);
                self.problem(plan, step, "unknown-input", message, help);
                continue;
            };
            let Some(value) = value.as_ref().filter(|value| spec.required || !value.is_null()) else { continue };
            if !fits(spec.kind, &spelled(spec.kind, value.clone())) {
                let message =
                    format!("input {name} of {} is {}, not {}", child.name, type_name(value), article(spec.kind));
                let help = format!("give {}", article(spec.kind));
                self.problem(plan, step, "wrong-type", message, Some(help));
            }
        }
        for (name, spec) in &child.inputs {
            if spec.required && !given.iter().any(|(given, _)| given == name) {
                let message = format!("the required input {name} of {} is missing", child.name);
                let help = format!("add it to with: inputs: {{{name}: ...}}, as {}", article(spec.kind));
                self.problem(plan, step, "missing-input", message, Some(help));
            }
        }
    }

    /// Reports each cycle once, at its first playbook, and each playbook from which a chain is too long.
    fn cycles_and_depth(&mut self, calls: &[Vec<Called<'a>>]) {
        let mut walk = Walk { calls, state: vec![State::New; calls.len()], path: Vec::new(), cycles: Vec::new() };
        for at in 0..calls.len() {
            walk.visit(at);
        }
        let Walk { state, cycles, .. } = walk;
        for cycle in cycles {
            let first = cycle.first().map_or(0, |(at, _)| *at);
            let names: Vec<&str> =
                cycle.iter().map(|(at, _)| *at).chain([first]).map(|at| self.plans[at].name.as_str()).collect();
            let message = format!("these playbooks run each other: {}", names.join(" -> "));
            let (at, call) = cycle[0];
            let help = Some("remove one of these steps".to_owned());
            self.problem(self.plans[at], calls[at][call].step, "playbook-cycle", message, help);
        }
        for (at, state) in state.iter().enumerate() {
            // A longer chain is told once, where it first becomes too long.
            let State::Done { depth, deepest: Some(call) } = state else { continue };
            if *depth != MOST_DEPTH + 1 {
                continue;
            }
            let message = format!("a chain of more than {MOST_DEPTH} playbooks begins here");
            let help = Some("let one of them do what the next one does".to_owned());
            self.problem(self.plans[at], calls[at][*call].step, "too-deep", message, help);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    /// How many playbooks the longest chain from here has, and by which call it goes on.
    Done {
        depth: usize,
        deepest: Option<usize>,
    },
}

struct Walk<'a, 'b> {
    calls: &'b [Vec<Called<'a>>],
    state: Vec<State>,
    /// The playbooks that are being visited, each with the call by which the path goes on.
    path: Vec<(usize, usize)>,
    cycles: Vec<Vec<(usize, usize)>>,
}

impl Walk<'_, '_> {
    fn visit(&mut self, start: usize) {
        // A stack of its own: a set can be a chain of any length.
        if self.state[start] != State::New {
            return;
        }
        self.state[start] = State::Open;
        self.path.push((start, 0));
        while let Some((at, call)) = self.path.last().copied() {
            let Some(called) = self.calls[at].get(call) else {
                self.close(at);
                continue;
            };
            match self.state[called.child] {
                State::New => {
                    self.state[called.child] = State::Open;
                    self.path.push((called.child, 0));
                    continue;
                }
                State::Open => {
                    let from = self.path.iter().position(|(open, _)| *open == called.child).unwrap_or(0);
                    self.cycles.push(self.path[from..].to_vec());
                }
                State::Done { .. } => {}
            }
            self.next();
        }
    }

    fn next(&mut self) {
        if let Some((_, call)) = self.path.last_mut() {
            *call += 1;
        }
    }

    fn close(&mut self, at: usize) {
        let depth_of = |called: &Called<'_>| match self.state[called.child] {
            State::Done { depth, .. } => depth,
            State::New | State::Open => 0,
        };
        let deepest = self.calls[at].iter().enumerate().map(|(call, called)| (depth_of(called), call)).max();
        let depth = 1 + deepest.map_or(0, |(depth, _)| depth);
        self.state[at] = State::Done { depth, deepest: deepest.map(|(_, call)| call) };
        self.path.pop();
        self.next();
    }
}

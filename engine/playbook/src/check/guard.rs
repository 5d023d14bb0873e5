//! Warnings of steps whose side effects nothing holds, and the answers of playbooks to warnings.

use serde_json::Value;

use super::{Checker, Known};
use crate::actions;
use crate::guard::acts;
use crate::keys;
use crate::model::StepModel;
use crate::name::Phase;

/// The warning's code.
const UNGUARDED: &str = "side-effect-unguarded";
/// The keys of a step that take back or confirm what it did.
const GUARDS: [&str; 2] = ["undo", "verify"];
/// The action that lets a person look first.
const APPROVAL: &str = "approval";

impl Checker<'_> {
    /// Warns of each step that does something to the world that may not be repeated, where nothing takes it back,
    /// confirms it, or asks a person first. What stands in `detect` is taken to look only.
    pub(super) fn unguarded(&mut self, steps: &[StepModel]) {
        if self.report.has_errors() {
            return;
        }
        for (index, model) in steps.iter().enumerate() {
            let Some(known) = self.steps.get(index) else { return };
            if self.is_guarded(index, model, known, steps) {
                continue;
            }
            let place = known.node.get("uses").map_or(known.place, |uses| uses.span);
            let mut remedies: Vec<String> = GUARDS
                .iter()
                .filter(|guard| keys::STEP.iter().any(|key| key.name == **guard))
                .map(|guard| format!("give it {guard}"))
                .collect();
            if actions::find(APPROVAL).is_some() {
                remedies.push("put an approval before it".to_owned());
            }
            remedies.push("say idempotent: true where repeating it is harmless".to_owned());
            let help = format!("{}, or accept: [{UNGUARDED}] where it is meant so", remedies.join(", "));
            let message = format!(
                "{} has side effects that may not be repeated, and nothing takes them back or confirms them",
                model.uses
            );
            self.report.warning(UNGUARDED, place, message).help(help);
        }
    }

    fn is_guarded(&self, index: usize, model: &StepModel, known: &Known<'_>, steps: &[StepModel]) -> bool {
        let with = Value::Object(model.with.clone());
        if model.idempotent
            || model.phase == Phase::Detect
            || !acts(&model.uses, &with)
            || GUARDS.iter().any(|guard| known.node.get(guard).is_some())
        {
            return true;
        }
        let over_before = |other: usize| {
            steps[other].phase < model.phase
                || (steps[other].phase == model.phase && self.upstream.get(index).is_some_and(|over| over[other]))
        };
        (0..steps.len()).any(|other| steps[other].uses == APPROVAL && over_before(other))
    }

    /// Takes back the warnings that their steps answer with `accept`, and warns of answers to nothing.
    pub(super) fn accepted(&mut self) {
        for index in 0..self.steps.len() {
            let node = self.steps[index].node;
            let Some(accept) = node.get("accept") else { continue };
            for (code, span) in self.texts(accept, "accept") {
                if !self.report.retract(node.span, &code) && !self.report.has_errors() {
                    self.report
                        .warning("nothing-to-accept", span, format!("this step has no warning {code}"))
                        .help("remove it from accept");
                }
            }
        }
    }
}

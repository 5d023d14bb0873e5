//! Warnings of steps whose side effects nothing holds, and the answers of playbooks to warnings.

use super::Checker;
use crate::actions::APPROVAL;
use crate::model::StepModel;
use crate::name::Phase;

/// The warning's code.
const UNGUARDED: &str = "side-effect-unguarded";

impl Checker<'_> {
    /// Warns of each step that does something to the world that may not be repeated, where nothing takes it back,
    /// confirms it, or asks a person first. What stands in `detect` is taken to look only.
    pub(super) fn unguarded(&mut self, steps: &[StepModel]) {
        if self.report.has_errors() {
            return;
        }
        for (index, model) in steps.iter().enumerate() {
            let harmless = !model.acts() || model.idempotent || model.phase == Phase::Detect;
            if harmless || model.undo.is_some() || model.verify.is_some() || self.is_asked_about(index, steps) {
                continue;
            }
            let Some(known) = self.steps.get(index) else { return };
            let place = known.node.get("uses").map_or(known.place, |uses| uses.span);
            let name = model.alias.as_ref().map_or(&model.uses, |alias| &alias.name);
            let message = format!(
                "{name} has side effects that may not be repeated, and nothing takes them back or confirms them"
            );
            let help = format!(
                "give it undo or verify, let it need an approval, say idempotent: true where repeating it is harmless, or \
                 accept: [{UNGUARDED}] where it is meant so"
            );
            self.report.warning(UNGUARDED, place, message).help(help);
        }
    }

    /// Whether the step begins only once people have agreed: an approval of another phase does not show what this one
    /// would do.
    fn is_asked_about(&self, index: usize, steps: &[StepModel]) -> bool {
        let upstream = self.upstream.get(index);
        steps.iter().enumerate().any(|(other, step)| step.uses == APPROVAL && upstream.is_some_and(|over| over[other]))
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

//! Warnings of steps whose side effects nothing holds, and the answers of playbooks to warnings.

use super::Checker;
use super::catalogue::named_in;
use crate::actions::APPROVAL;
use crate::diagnostic::Span;
use crate::document::Node;
use crate::model::StepModel;
use crate::name::Phase;

/// The warning's code.
const UNGUARDED: &str = "side-effect-unguarded";
/// Of a step whose action of the catalogue names an alert that its playbook has not.
pub(super) const NO_ALERT: &str = "no-alert";

impl<'a> Checker<'a> {
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

    /// The warnings that an action of the catalogue answers for all steps that use it. Takes back those of the action itself, and
    /// warns of answers to what neither it nor a step of it is warned of.
    pub(super) fn accepted_of_all(&mut self, node: &'a Node, unguarded: bool) -> Vec<String> {
        let Some(accept) = node.get("accept") else { return Vec::new() };
        let mut codes = Vec::new();
        for (code, span) in self.texts(accept, "accept") {
            let of_steps = code == NO_ALERT || (code == UNGUARDED && unguarded);
            if !self.report.retract(node.span, &code) && !of_steps && !self.report.has_errors() {
                self.report
                    .warning("nothing-to-accept", span, format!("no step of this action has a warning {code}"))
                    .help("remove it from accept");
            }
            codes.push(code);
        }
        codes
    }

    /// Takes back the warnings that their steps, or the catalogue for them, answer with `accept`, and warns of answers to nothing.
    pub(super) fn accepted(&mut self) {
        for index in 0..self.steps.len() {
            let (node, key) = (self.steps[index].node, self.steps[index].place);
            // What the step lacks is told at its name.
            let all = Span { length: (node.span.offset + node.span.length).saturating_sub(key.offset), ..key };
            let own = node.get("accept").map(|accept| self.texts(accept, "accept")).unwrap_or_default();
            for (code, span) in own {
                if !self.report.retract(all, &code) && !self.report.has_errors() {
                    self.report
                        .warning("nothing-to-accept", span, format!("this step has no warning {code}"))
                        .help("remove it from accept");
                }
            }
            let named = named_in(self.catalogue, node).map(|(_, action)| action.accept.as_slice());
            for code in named.unwrap_or_default() {
                self.report.retract(all, code);
            }
        }
    }
}

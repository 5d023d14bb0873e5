//! What comes in during a test, and what people do.

use std::sync::Arc;
use std::time::Duration;

use stanch_core::alert::{AlertChange, AlertStatus};
use stanch_core::command::Person;
use stanch_core::record::{Actor, Answer, Verdict};
use stanch_core::{Command, RunId};
use stanch_playbook::StepKey;
use stanch_playbook::test_file::{Decision, EventSpec, Happening, Place};

use super::{Tester, item_of};
use crate::stimulus::Stimulus;

impl Tester<'_> {
    pub(super) fn bring_in(&mut self, stimulus: &Stimulus, place: Place, path: &str) {
        if let Stimulus::Alerts(changes) = stimulus {
            for change in changes {
                let fires = change.status == AlertStatus::Firing;
                self.first.get_or_insert_with(|| Arc::clone(&change.alert));
                self.alerts.insert(change.alert.key.clone(), (Arc::clone(&change.alert), fires));
            }
        }
        if let Err(rejected) = self.stage.simulation.command(stimulus.command()) {
            self.refusals.push(rejected.to_string());
            if !self.may_be_refused {
                self.fail(place, path, None, "to be taken", rejected);
            }
        }
    }

    pub(super) fn happen(&mut self, happening: &Happening, place: Place, at: Duration) {
        let now = self.stage.simulation.now;
        let run = self.runs().last().copied();
        let person = || Actor::person("local");
        let (path, command) = match happening {
            Happening::Answer { step, item, place, answer } => {
                let path = format!("then.answer.{step}");
                let Some((run, _, key, index)) = self.step(step) else {
                    return self.fail(*place, &path, Some(at), "a run with an unknown step", "no run has started");
                };
                let item = match item {
                    None => None,
                    Some(text) => match item_of(&run, index, text) {
                        Some(item) => Some(item),
                        None => return self.fail(*place, &path, Some(at), format!("an item {text}"), "none"),
                    },
                };
                let answer = match *answer {
                    "succeeded" => Answer::Succeeded,
                    "failed" => Answer::Failed,
                    _ => Answer::Retry,
                };
                let (run, note) = (run.id, String::new());
                let command = Command::AnswerStep { actor: person(), run, step: key, item, answer, note };
                if let Err(rejected) = self.stage.simulation.command(command) {
                    self.fail(*place, &path, Some(at), "the step to be unknown", rejected);
                }
                return;
            }
            Happening::Decide(decision) => return self.decide(decision, at),
            Happening::Undo(step, place) | Happening::Extend(step, _, place) => {
                let word = if matches!(happening, Happening::Undo(..)) { "undo" } else { "extend" };
                let path = format!("then.{word}.{step}");
                let found = self.step(step).map(|(run, _, key, _)| (run.id, key));
                let of = |(run, key): (RunId, StepKey)| {
                    let contained = self.stage.simulation.state.inforce_of(run, &key);
                    contained.map(|of| (of.since, of.id)).collect::<Vec<_>>()
                };
                let mut containments = found.map(of).unwrap_or_default();
                containments.sort_unstable();
                if containments.is_empty() {
                    return self.fail(*place, &path, Some(at), "something in force", "nothing is");
                }
                // As `on_failure: undo` does: the last first.
                for (_, containment) in containments.into_iter().rev() {
                    let (actor, reason) = (person(), String::new());
                    let command = match happening {
                        Happening::Extend(_, by, _) => {
                            Command::ExtendContainment { actor, containment, until: Some(now.plus(*by)), reason }
                        }
                        _ => Command::UndoContainment { actor, containment, reason },
                    };
                    if let Err(rejected) = self.stage.simulation.command(command) {
                        self.fail(*place, &path, Some(at), "to be possible", rejected);
                    }
                }
                return;
            }
            Happening::Freeze(reason) => ("then.freeze", Command::Freeze { actor: person(), reason: reason.clone() }),
            Happening::Maintenance { matchers, length, reason } => {
                let (actor, matchers, to) = (person(), matchers.clone(), now.plus(*length));
                let (declared, from, reason) = (None, None, reason.clone());
                ("then.maintenance", Command::PlanMaintenance { actor, declared, matchers, from, to, reason })
            }
            Happening::Unfreeze => ("then.unfreeze", Command::Unfreeze { actor: person(), reason: String::new() }),
            Happening::Resolve(labels) => {
                let chosen: Vec<_> = self
                    .alerts
                    .values_mut()
                    .filter(|(alert, fires)| {
                        *fires && labels.iter().all(|(name, value)| alert.labels.get(name) == Some(value))
                    })
                    .map(|(alert, fires)| {
                        *fires = false;
                        // A resolution that is no later than the beginning is taken for an old one.
                        let ends_at = Some(now.max(alert.starts_at.plus(Duration::from_millis(1))));
                        AlertChange { alert: Arc::clone(alert), status: AlertStatus::Resolved { ends_at } }
                    })
                    .collect();
                if chosen.is_empty() {
                    return self.fail(place, "then.resolve", Some(at), "an alert that fires", "none does");
                }
                ("then.resolve", Command::ReceiveAlerts { actor: Actor::source("test"), changes: chosen })
            }
            Happening::Fire(labels) => {
                let Some(first) = self.first.clone() else {
                    return self.fail(place, "then.fire", Some(at), "a test that begins with an alert", "it does not");
                };
                let spec = stanch_playbook::test_file::AlertSpec {
                    labels: first.labels.clone().into_iter().chain(labels.clone()).collect(),
                    annotations: first.annotations.clone(),
                    since: Duration::ZERO,
                };
                return self.emit(&EventSpec::Alerts(vec![spec]), place, "then.fire", at);
            }
            Happening::Emit(spec, place) => return self.emit(spec, *place, "then.emit", at),
            Happening::Cancel { reason, undo } => {
                let Some(run) = run else {
                    return self.fail(place, "then.cancel", Some(at), "a live run", "no run has started");
                };
                ("then.cancel", Command::CancelRun { actor: person(), run, reason: reason.clone(), undo: *undo })
            }
            Happening::Acknowledge => {
                let Some(incident) = self.incident() else {
                    return self.fail(place, "then.acknowledge", Some(at), "an open incident", "there is none");
                };
                ("then.acknowledge", Command::AcknowledgeIncident { actor: person(), incident })
            }
            Happening::Crash => return self.stage.simulation.crash(),
        };
        if let Err(rejected) = self.stage.simulation.command(command) {
            self.fail(place, path, Some(at), "to be possible", rejected);
        }
    }

    fn emit(&mut self, spec: &EventSpec, place: Place, path: &str, at: Duration) {
        self.emitted += 1;
        match Stimulus::of(spec, self.plan, self.stage.simulation.now, self.emitted, self.read) {
            Ok(stimulus) => self.bring_in(&stimulus, place, path),
            Err(reason) => self.fail(place, path, Some(at), "an event", reason),
        }
    }

    fn decide(&mut self, decision: &Decision, at: Duration) {
        let path = format!("then.{}.{}", if decision.approves { "approve" } else { "deny" }, decision.step);
        let asked = self.step(&decision.step).and_then(|(run, _, key, _)| {
            let mut questions = self.stage.simulation.state.questions().map(|(_, _, question)| &question.asked);
            questions.find(|asked| asked.run == run.id && asked.step == key).cloned()
        });
        let Some(asked) = asked else {
            return self.fail(decision.place, &path, Some(at), "a question", "nobody is asked");
        };
        let groups = asked.from.iter().filter_map(|who| who.strip_prefix("group:")).map(str::to_owned);
        let groups = decision.groups.clone().unwrap_or_else(|| groups.collect());
        let named = asked.from.iter().find(|who| !who.starts_with("group:")).cloned();
        let name = decision.by.clone().or(named).unwrap_or_else(|| "tester".to_owned());
        let command = Command::DecideApproval {
            actor: Actor::person(&name),
            person: Person { name, groups, via: "test".to_owned() },
            approval: asked.approval,
            verdict: if decision.approves { Verdict::Approved } else { Verdict::Denied },
            digest: asked.digest.to_string(),
            reason: decision.reason.clone(),
        };
        let refused = match self.stage.simulation.command(command) {
            Ok(receipt) => receipt.refused,
            Err(rejected) => Some(rejected),
        };
        if let Some(rejected) = refused {
            self.refusals.push(rejected.to_string());
            if !self.may_be_refused {
                self.fail(decision.place, &path, Some(at), "to be allowed", rejected);
            }
        }
    }
}

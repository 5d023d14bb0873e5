//! What is expected of a test, held against what is there.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use stanch_core::record::Verdict;
use stanch_core::run::StepState;
use stanch_core::{Assignment, Body, RunId};
use stanch_playbook::StepKey;
use stanch_playbook::test_file::{Expectation, Want, item_text, names};

use super::{Tester, item_of};
use crate::shown::{difference, with_marks};

impl Tester<'_> {
    pub(super) fn expect(&mut self, expectations: &[Expectation], at: Option<Duration>) {
        for one in expectations {
            if let Err((expected, seen)) = self.look_at(&one.want) {
                self.fail(one.place, &one.path, at, expected, seen);
            }
        }
    }

    /// What was wanted and what is there, where they differ.
    fn look_at(&self, want: &Want) -> Result<(), (String, String)> {
        let no_run = || "no run has started".to_owned();
        match want {
            Want::Run(state) => {
                let seen = self.run().map_or("none", |run| run.state());
                same(state, seen)
            }
            Want::Runs(count) => same(count, self.runs().len()),
            Want::Step(step, state) => {
                let (run, _, _, index) = self.step(step).ok_or_else(|| ((*state).to_owned(), no_run()))?;
                let of = &run.steps[index].state;
                let why = of.error().map(|error| format!(": {error}")).unwrap_or_default();
                same(state, of.as_str()).map_err(|(expected, seen)| (expected, format!("{seen}{why}")))
            }
            Want::Item { step, item, state } => {
                let (run, _, _, index) = self.step(step).ok_or_else(|| ((*state).to_owned(), no_run()))?;
                let of = item_of(&run, index, item).and_then(|at| run.steps[index].items.get(at as usize));
                let Some(of) = of else {
                    let all: Vec<String> =
                        run.steps[index].items.iter().filter_map(|of| of.value.as_deref()).map(item_text).collect();
                    return Err(((*state).to_owned(), format!("no such item among {}", all.join(", "))));
                };
                let why = of.state.error().map(|error| format!(": {error}")).unwrap_or_default();
                same(state, of.state.as_str()).map_err(|(expected, seen)| (expected, format!("{seen}{why}")))
            }
            Want::Asks(steps) => {
                let asked = self.stage.simulation.state.questions();
                let asked: Vec<String> = asked.map(|(_, _, of)| self.written(of.asked.run, &of.asked.step)).collect();
                set(steps, &asked)
            }
            Want::Question { step, prompt, targets, state } => self.question(step, prompt.as_deref(), targets, *state),
            Want::InForce(steps) => {
                let inforce = self.stage.simulation.state.inforce.values();
                let inforce: Vec<String> = inforce
                    .map(|of| {
                        let step = self.written(of.run, &of.step);
                        let item = of.value.as_deref().map(|value| format!("[{}]", item_text(value)));
                        format!("{step}{}", item.unwrap_or_default())
                    })
                    .collect();
                set(steps, &inforce)
            }
            Want::Order(steps) => {
                let started = self.started();
                let listed: Vec<&str> = started
                    .iter()
                    .filter_map(|key| steps.iter().find(|step| names(step, key.as_str())))
                    .map(String::as_str)
                    .collect();
                let missing: Vec<&str> =
                    steps.iter().map(String::as_str).filter(|step| !listed.contains(step)).collect();
                if listed == *steps {
                    return Ok(());
                }
                let note =
                    if missing.is_empty() { String::new() } else { format!("; never started: {}", missing.join(", ")) };
                Err((steps.join(", "), format!("{}{note}", listed.join(", "))))
            }
            Want::Calls { step, item, purpose, count, with, env } => {
                let made = self.made(step, item.as_deref(), purpose);
                calls(&made, *count, with.as_ref(), env.as_ref())
            }
            Want::Outputs(step, wanted) => {
                let (run, _, _, index) = self.step(step).ok_or_else(|| (wanted.to_string(), no_run()))?;
                agree(wanted, &run.steps[index].outputs)
            }
            Want::Inputs(wanted) => {
                let run = self.run().ok_or_else(|| (wanted.to_string(), no_run()))?;
                agree(wanted, &run.inputs)
            }
            Want::Error(step, text) => {
                let (run, _, _, index) = self.step(step).ok_or_else(|| (text.clone(), no_run()))?;
                match run.steps[index].state.error() {
                    Some(error) if error.contains(text.as_str()) => Ok(()),
                    Some(error) => Err((format!("{text:?} in it"), error.to_string())),
                    None => Err((format!("{text:?} in it"), "no error".to_owned())),
                }
            }
            Want::Message(text) => {
                let said = self.messages();
                match said.iter().any(|message| message.contains(text.as_str())) {
                    true => Ok(()),
                    false if said.is_empty() => Err((format!("{text:?}"), "nothing was said".to_owned())),
                    false => Err((
                        format!("{text:?}"),
                        said.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", "),
                    )),
                }
            }
            Want::Silence(text) => match self.messages().into_iter().find(|message| message.contains(text.as_str())) {
                Some(message) => Err((format!("nobody to say {text:?}"), format!("{message:?}"))),
                None => Ok(()),
            },
            Want::Incident(state) => {
                let seen = match self.incident() {
                    None => "none",
                    // A resolved one is forgotten after a while.
                    Some(id) => self.stage.simulation.state.incidents.get(&id).map_or("resolved", |of| of.state()),
                };
                same(state, seen)
            }
            Want::Severity(severity) => {
                let of = self.incident();
                let seen = self.stage.simulation.records.iter().rev().find_map(|record| match &record.body {
                    Body::IncidentOpened(body) if Some(body.incident) == of => Some(body.severity),
                    Body::IncidentJoined(body) if Some(body.incident) == of => Some(body.severity),
                    _ => None,
                });
                same(severity, seen.map_or("none".to_owned(), |severity| format!("{severity:?}")))
            }
            Want::Key(key) => {
                let of = self.incident();
                let seen = self.stage.simulation.records.iter().find_map(|record| match &record.body {
                    Body::IncidentOpened(body) if Some(body.incident) == of => Some(body.key.to_string()),
                    _ => None,
                });
                same(key, seen.unwrap_or_else(|| "no incident".to_owned()))
            }
            Want::Refused(text) => {
                let letters = self.stage.simulation.records.iter().filter_map(|record| match &record.body {
                    Body::DeadLettered(body) => Some(body.letter.reason.as_str()),
                    _ => None,
                });
                let reasons: Vec<&str> = letters.chain(self.refusals.iter().map(String::as_str)).collect();
                match reasons.iter().any(|reason| reason.contains(text.as_str())) {
                    true => Ok(()),
                    false if reasons.is_empty() => Err((format!("{text:?}"), "nothing was refused".to_owned())),
                    false => Err((format!("{text:?}"), reasons.join(", "))),
                }
            }
        }
    }

    /// The steps of the run in the order in which they first did something.
    fn started(&self) -> Vec<StepKey> {
        let Some(run) = self.run().map(|run| run.id) else { return Vec::new() };
        let mut started: Vec<StepKey> = Vec::new();
        for record in &self.stage.simulation.records {
            let step = match &record.body {
                Body::AttemptScheduled(body) if body.attempt.run == run => &body.attempt.step,
                Body::StepWaiting(body) if body.run == run => &body.step,
                Body::ApprovalRequested(body) if body.run == run => &body.step,
                _ => continue,
            };
            if !started.contains(step) {
                started.push(step.clone());
            }
        }
        started
    }

    /// A step as a person writes it, of the tested playbook or of another.
    fn written(&self, run: RunId, step: &StepKey) -> String {
        let name = step.as_str().split_once('.').map_or(step.as_str(), |(_, name)| name);
        match self.stage.simulation.run(run) {
            Some(run) if run.playbook != self.plan.name => format!("{}/{name}", run.playbook),
            _ => name.to_owned(),
        }
    }

    /// What a step asks or asked last.
    fn question(
        &self,
        step: &str,
        prompt: Option<&str>,
        targets: &BTreeMap<String, Value>,
        state: Option<&'static str>,
    ) -> Result<(), (String, String)> {
        let nobody = || ("a question".to_owned(), "nobody was asked".to_owned());
        let (run, _, _, index) = self.step(step).ok_or_else(nobody)?;
        let of = &run.steps[index];
        let question = of.question.as_ref().ok_or_else(nobody)?;
        if let Some(prompt) = prompt
            && !question.asked.prompt.contains(prompt)
        {
            return Err((format!("{prompt:?} in it"), format!("{:?}", question.asked.prompt)));
        }
        for (step, wanted) in targets {
            let mut of = question.asked.targets.iter();
            let Some(target) = of.find(|target| names(step, target.step.as_str())) else {
                let all: Vec<&str> = question.asked.targets.iter().map(|target| target.step.as_str()).collect();
                return Err((format!("{step} among the targets"), all.join(", ")));
            };
            agree(wanted, &with_marks(&target.with))?;
        }
        let answers = || question.answers.iter().map(|(_, verdict, _)| *verdict);
        let agreed = answers().filter(|verdict| *verdict == Verdict::Approved).count();
        let seen = match () {
            () if matches!(of.state, StepState::Waiting { .. }) => "open",
            () if answers().any(|verdict| verdict == Verdict::Denied) => "denied",
            () if agreed >= question.asked.quorum as usize => "approved",
            // Too few agreed in time, whatever follows on that.
            () => "expired",
        };
        state.map_or(Ok(()), |state| same(state, seen))
    }

    /// The attempts at something, oldest first.
    fn made(&self, step: &str, item: Option<&str>, purpose: &str) -> Vec<&Assignment> {
        let Some((run, _, key, index)) = self.step(step) else { return Vec::new() };
        let item = item.map(|text| item_of(&run, index, text));
        let wanted = |one: &&Assignment| {
            let of = &one.attempt;
            of.run == run.id
                && of.step == key
                && of.purpose.as_str() == purpose
                && item.is_none_or(|item| item.is_some() && of.item == item)
        };
        self.stage.simulation.dispatched.iter().filter(wanted).collect()
    }

    /// What slack and log steps said, over all runs, and what people were told by itself.
    fn messages(&self) -> Vec<String> {
        let said = |one: &Assignment| match one.action.as_str() {
            "slack" => {
                let text = one.with["text"].as_str().map(str::to_owned);
                text.or_else(|| one.with.get("blocks").map(Value::to_string))
            }
            "log" => one.with["message"].as_str().map(str::to_owned),
            _ => None,
        };
        let simulation = &self.stage.simulation;
        simulation.dispatched.iter().filter_map(said).chain(simulation.notices.iter().cloned()).collect()
    }
}

/// Whether those there are all wanted, and none of the wanted is missing; `step` stands for all its items.
fn set(wanted: &[String], seen: &[String]) -> Result<(), (String, String)> {
    let is = |wanted: &String, seen: &String| {
        seen == wanted || seen.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('['))
    };
    let agrees = wanted.iter().all(|wanted| seen.iter().any(|seen| is(wanted, seen)))
        && seen.iter().all(|seen| wanted.iter().any(|wanted| is(wanted, seen)));
    let shown = |list: &[String]| if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
    if agrees { Ok(()) } else { Err((shown(wanted), shown(seen))) }
}

fn calls(
    made: &[&Assignment],
    count: Option<u32>,
    with: Option<&Value>,
    env: Option<&Value>,
) -> Result<(), (String, String)> {
    let attempts = |count: usize| if count == 1 { "1 attempt".to_owned() } else { format!("{count} attempts") };
    match count {
        Some(count) if made.len() != count as usize => return Err((attempts(count as usize), attempts(made.len()))),
        None if made.is_empty() => return Err(("an attempt".to_owned(), "none".to_owned())),
        _ => {}
    }
    for (name, wanted, of) in
        [("with", with, made.last().map(|one| &one.with)), ("env", env, made.last().map(|one| &one.env))]
    {
        let (Some(wanted), Some(seen)) = (wanted, of) else { continue };
        agree(wanted, &with_marks(seen))
            .map_err(|(expected, seen)| (format!("{name}{expected}"), format!("{name}{seen}")))?;
    }
    Ok(())
}

fn same(expected: impl ToString, seen: impl ToString) -> Result<(), (String, String)> {
    let (expected, seen) = (expected.to_string(), seen.to_string());
    if expected == seen { Ok(()) } else { Err((expected, seen)) }
}

fn agree(wanted: &Value, seen: &Value) -> Result<(), (String, String)> {
    match difference(wanted, seen) {
        None => Ok(()),
        Some(found) => {
            let place = if found.place.is_empty() { String::new() } else { format!("{} = ", found.place) };
            let seen = found.seen.map_or_else(|| "nothing".to_owned(), |seen| seen.to_string());
            Err((format!("{place}{}", found.wanted), format!("{place}{seen}")))
        }
    }
}

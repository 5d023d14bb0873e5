//! Questions to people: what exactly would be done, who may say so, and what follows.

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stanch_playbook::plan::{Approval, NotifyAfter, OnTimeout, Step};
use stanch_playbook::{Expression, Plan, Timestamp, Uses};

use super::Draft;
use super::incidents::earliest_first;
use crate::command::{Person, Rejected};
use crate::id::{ApprovalId, RunId};
use crate::names::{StepNames, render};
use crate::record::{Actor, ApprovalDecided, ApprovalEscalated, ApprovalRequested, ApprovalTarget, Verdict};
use crate::run::{Place, Question, Run};

impl Draft {
    /// Asks; says whether the step is over at once.
    pub(super) fn ask(
        &mut self,
        id: RunId,
        plan: &Plan,
        index: usize,
        approval: &Approval,
        replaces: Option<ApprovalId>,
    ) -> bool {
        let Some(run) = self.state.runs.get(&id) else { return false };
        let step = &plan.steps[index];
        let names = StepNames::new(&self.state, run, plan, index.into());
        let prompt = match approval.prompt.render(&names) {
            Ok(prompt) => prompt,
            Err(error) => {
                self.fail(id, plan, index.into(), format!("with.prompt: {error}"));
                return true;
            }
        };
        let (targets, digest) = self.targets(run, plan, index);
        let starter = Some(run.started_by.clone()).filter(|by| by.as_str().starts_with("person:"));
        let request = ApprovalRequested {
            approval: ApprovalId::derive(self.state.journal, self.state.sequence.next(), self.now),
            run: id,
            step: step.key.clone(),
            prompt: prompt.into(),
            targets,
            digest,
            from: approval.from.clone(),
            quorum: approval.quorum,
            excluded: starter.filter(|_| !approval.allow_self),
            expires_at: self.expiry(step),
            escalate: earliest_first(&approval.escalate),
            replaces,
        };
        self.as_engine(|draft| draft.emit(request));
        false
    }

    /// What the steps that need this approval would do, and its digest.
    fn targets(&self, run: &Run, plan: &Plan, index: usize) -> (Arc<[ApprovalTarget]>, Arc<str>) {
        let guarded = plan.steps.iter().enumerate().filter(|(_, step)| step.needs.contains(&index));
        let targets: Arc<[ApprovalTarget]> =
            guarded.filter_map(|(at, step)| self.target(run, plan, at, step, Some(index))).collect();
        let digest = digest_of(&targets);
        (targets, digest)
    }

    /// Whether a step that would do more than its budget allows has to wait for people; asks them.
    pub(super) fn exceeds_budget(&mut self, id: RunId, plan: &Plan, index: usize, targets: usize) -> bool {
        let step = &plan.steps[index];
        let (Some(name), Some(run)) = (&step.budget, self.state.runs.get(&id)) else { return false };
        let Some(budget) = self.state.settings.budgets.get(name).cloned() else {
            self.fail(id, plan, index.into(), format!("budget: stanch.yaml has no budget named {name}"));
            return true;
        };
        let recent = |at: &&Timestamp| self.now.since(**at) < budget.per;
        let spent = self.state.spent.get(name).map_or(0, |spent| spent.iter().filter(recent).count());
        if spent + targets <= budget.most as usize {
            return false;
        }
        let target: Arc<[ApprovalTarget]> = self.target(run, plan, index, step, None).into_iter().collect();
        let digest: Arc<str> = digest_of(&target);
        // Approved for just this.
        let approved = |question: &Arc<Question>| {
            question.asked.digest == digest
                && question.answers.iter().any(|(_, verdict, _)| *verdict == Verdict::Approved)
        };
        if run.steps[index].question.as_ref().is_some_and(approved) {
            return false;
        }
        let per = stanch_playbook::time::shown_duration(budget.per);
        let prompt = format!(
            "{} would act on {targets} more; {spent} of {} in {per} are used up of the budget {name}. Do it?",
            step.key, budget.most
        );
        let request = ApprovalRequested {
            approval: ApprovalId::derive(self.state.journal, self.state.sequence.next(), self.now),
            run: id,
            step: step.key.clone(),
            prompt: prompt.into(),
            targets: target,
            digest,
            from: budget.from,
            quorum: 1,
            excluded: None,
            expires_at: None,
            escalate: Vec::new(),
            replaces: None,
        };
        self.as_engine(|draft| draft.emit(request));
        true
    }

    fn target(&self, run: &Run, plan: &Plan, at: usize, step: &Step, given: Option<usize>) -> Option<ApprovalTarget> {
        let names = StepNames { given, ..StepNames::new(&self.state, run, plan, at.into()) };
        // Left out only where that is certain: what a step does that is not over yet may still make it true.
        let skipped = step.condition.as_ref().is_some_and(|condition| {
            condition.evaluate_bool(&names) == Ok(false) && is_decided(run, plan, condition, given)
        });
        if skipped {
            return None;
        }
        let one = |names: StepNames<'_>| match &step.uses {
            Uses::Action(call) => {
                let rendered = render(call, names).map(|(with, env)| (Value::clone(&with), Value::clone(&env)));
                rendered.unwrap_or_default()
            }
            Uses::Playbook { inputs, .. } => (inputs.render(&names).unwrap_or_default(), Value::Null),
            Uses::Wait(_) | Uses::Approval(_) | Uses::Undo { .. } => (Value::Null, Value::Null),
        };
        let some = |env: &Value| env.as_object().is_some_and(|env| !env.is_empty());
        let action: Arc<str> = match &step.uses {
            Uses::Action(call) => call.alias.as_ref().map_or(call.action.as_str(), |(name, _)| name).into(),
            Uses::Playbook { playbook, .. } => format!("playbook {playbook}").into(),
            Uses::Undo { step } => format!("undo {}", plan.steps[*step].name).into(),
            Uses::Wait(_) | Uses::Approval(_) => return None,
        };
        let (with, env) = match &step.foreach {
            None => {
                let (with, env) = one(names);
                let env = if some(&env) { env } else { Value::Null };
                (with, env)
            }
            // Items are rendered as a run that has begun on them would.
            Some(foreach) => match foreach.items.evaluate(&names) {
                Ok(Value::Array(items)) => {
                    let mut of = run.clone();
                    let (mut with, mut env) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
                    for item in items {
                        Arc::make_mut(&mut of.steps[at]).items =
                            imbl::Vector::unit(Arc::new(crate::run::StepRun::item(item)));
                        let place = Place { step: at, item: Some(0) };
                        let names = StepNames { given, ..StepNames::new(&self.state, &of, plan, place) };
                        let (item_with, item_env) = one(names);
                        with.push(item_with);
                        env.push(item_env);
                    }
                    let env = if env.iter().any(some) { Value::Array(env) } else { Value::Null };
                    (Value::Array(with), env)
                }
                _ => (Value::Null, Value::Null),
            },
        };
        Some(ApprovalTarget { step: step.key.clone(), action, with: Arc::new(with), env: Arc::new(env) })
    }

    /// Whether something that a step needs was approved for other targets than it has now: then people are asked again.
    pub(super) fn asks_again(&mut self, id: RunId, plan: &Arc<Plan>, index: usize) -> bool {
        for need in &plan.steps[index].needs {
            let Uses::Approval(approval) = &plan.steps[*need].uses else { continue };
            let Some(run) = self.state.runs.get(&id) else { return false };
            let Some(question) = run.steps[*need].question.as_ref() else { continue };
            let (_, digest) = self.targets(run, plan, *need);
            if digest != question.asked.digest && !self.has_begun(run, plan, *need) {
                let replaces = Some(question.asked.approval);
                self.ask(id, plan, *need, approval, replaces);
                return true;
            }
        }
        false
    }

    /// Whether a step that an approval guards has been started: from then on the targets are what was approved.
    fn has_begun(&self, run: &Run, plan: &Plan, approval: usize) -> bool {
        let begun =
            |(step, of): (&Arc<crate::run::StepRun>, &Step)| of.needs.contains(&approval) && step.started_at.is_some();
        run.steps.iter().zip(&plan.steps).any(begun)
    }

    pub(super) fn decide_approval(
        &mut self,
        id: ApprovalId,
        person: &Person,
        verdict: Verdict,
        digest: &str,
        reason: String,
    ) -> Result<(), Rejected> {
        let (run, place, question) = self.state.question(id).ok_or(Rejected::UnknownApproval(id))?;
        let (run, question) = (Arc::clone(run), Arc::clone(question));
        let plan = self.plan_of(&run);
        may_decide(&question, &self.actor, person)?;
        if digest != &*question.asked.digest {
            return Err(Rejected::OtherTargets(id));
        }
        if let Uses::Approval(approval) = &plan.steps[place.step].uses
            && self.targets(&run, &plan, place.step).1 != question.asked.digest
        {
            // Refused, and on the record: the new question stands in the place of this one.
            self.ask(run.id, &plan, place.step, approval, Some(id));
            self.receipt.refused = Some(Rejected::OtherTargets(id));
            return Ok(());
        }
        let agreed = verdict == Verdict::Approved && question.answers.len() + 1 >= question.asked.quorum as usize;
        let asks = matches!(plan.steps[place.step].uses, Uses::Approval(_));
        let actor = self.actor.clone();
        self.emit(ApprovalDecided {
            resumes: agreed && !asks,
            approval: id,
            run: run.id,
            step: plan.steps[place.step].key.clone(),
            verdict,
            digest: question.asked.digest.clone(),
            via: person.via.clone(),
            reason: reason.clone(),
        });
        self.as_engine(|draft| {
            if verdict == Verdict::Denied {
                let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                draft.fail(run.id, &plan, place, format!("denied by {}{why}", actor.as_str()));
            } else if agreed && asks {
                let by = question.answers.iter().map(|(by, _, _)| by).chain([&actor]).map(Actor::as_str);
                draft.wake(run.id, place, &json!({"approved_by": by.collect::<Vec<_>>()}));
            }
            draft.advance(run.id);
        });
        Ok(())
    }

    /// The time of a question has come: nobody decided, and more people are told or it is over.
    pub(super) fn fire_approval(&mut self, id: RunId, plan: &Plan, place: Place, expires_at: Option<Timestamp>) {
        if expires_at.is_some_and(|at| at <= self.now) {
            self.approval_expired(id, plan, place);
        } else {
            self.escalate_approval(id, place);
        }
    }

    /// Tells those whose time has come, all of them in one record.
    fn escalate_approval(&mut self, id: RunId, place: Place) {
        let Some(question) = self.state.runs.get(&id).and_then(|run| run.at(place)?.question.as_ref()) else { return };
        let (asked, waited) = (&question.asked, self.now.since(question.asked_at));
        let due = |next: &&NotifyAfter| next.after <= waited;
        let due: Vec<&NotifyAfter> = asked.escalate.iter().skip(question.told as usize).take_while(due).collect();
        if due.is_empty() {
            return;
        }
        let escalated = ApprovalEscalated {
            approval: asked.approval,
            run: id,
            step: asked.step.clone(),
            level: question.told.saturating_add(u32::try_from(due.len()).unwrap_or(u32::MAX)),
            people: due.into_iter().flat_map(|next| next.people.clone()).collect(),
            reason: format!("nobody decided within {}", stanch_playbook::time::shown_duration(waited)),
        };
        self.emit(escalated);
    }

    fn approval_expired(&mut self, id: RunId, plan: &Plan, place: Place) {
        let Uses::Approval(approval) = &plan.steps[place.step].uses else { return };
        match approval.on_timeout {
            OnTimeout::Deny => self.fail(id, plan, place, "denied: nobody decided in time"),
            OnTimeout::Approve => self.wake(id, place, &json!({"approved_by": []})),
        }
    }
}

/// Whether the steps that a condition names are over, or taken for given.
fn is_decided(run: &Run, plan: &Plan, condition: &Expression, given: Option<usize>) -> bool {
    let mut steps = condition.references().iter().filter(|reference| reference.root == "steps");
    steps.all(|reference| {
        let named = reference.rest.first().and_then(|name| plan.steps.iter().position(|step| step.name == *name));
        named.is_some_and(|at| given == Some(at) || run.steps[at].state.is_over())
    })
}

fn digest_of(targets: &[ApprovalTarget]) -> Arc<str> {
    hex::encode(Sha256::digest(serde_json::to_vec(targets).unwrap_or_default())).into()
}

/// Whether a person may answer a question.
fn may_decide(question: &Question, actor: &Actor, person: &Person) -> Result<(), Rejected> {
    let asked = &question.asked;
    let named = |from: &String| match from.strip_prefix("group:") {
        Some(group) => person.groups.iter().any(|of| of == group),
        // Nobody knows who `local` is: no list can name it.
        None => from == &person.name && person.name != "local",
    };
    if !asked.from.is_empty() && !asked.from.iter().any(named) {
        return Err(Rejected::NotAllowed(format!(
            "{} is not among those asked: {}",
            person.name,
            asked.from.join(", ")
        )));
    }
    if asked.excluded.as_ref() == Some(actor) {
        return Err(Rejected::NotAllowed(format!("{} started the run; somebody else must decide", person.name)));
    }
    if question.answers.iter().any(|(by, _, _)| by == actor) {
        return Err(Rejected::NotAllowed(format!("{} has answered already", person.name)));
    }
    Ok(())
}

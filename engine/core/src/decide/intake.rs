//! What comes in: an alert's life, the match, the inputs.
//!
//! Every delivery is judged by what the state says of the alert, never by having been seen: a redelivery changes nothing
//! since the alert is already as it says, and a stale one is told by the episode it belongs to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use stanch_playbook::plan::Mode;
use stanch_playbook::{Names, Plan, PlaybookName, Timestamp, TriggerOn, Uses, Wait, subject_matches};

use super::Draft;
use super::letters::Unusable;
use super::start::{Begin, begin};
use crate::alert::{AlertChange, AlertSnapshot, AlertStatus};
use crate::command::{Rejected, Target};
use crate::event::Event;
use crate::names::{StepNames, TriggerNames};
use crate::record::{AlertFired, AlertResolved, Cause, EventReceived, Firing, Held, PlaybookObserved};
use crate::state::State;

/// A trigger that took an alert or an event, with what it rendered.
struct Matched {
    plan: Arc<Plan>,
    trigger: usize,
    key: Arc<str>,
}

/// The alerts of one delivery that one playbook's key brings together.
type Groups = BTreeMap<(Arc<str>, PlaybookName), (Matched, Vec<(Arc<AlertSnapshot>, Firing)>)>;

impl Draft {
    pub(super) fn receive_alerts(&mut self, changes: Vec<AlertChange>) {
        let mut groups = Groups::new();
        for change in changes {
            match change.status {
                AlertStatus::Firing => self.receive_firing(change.alert, &mut groups),
                AlertStatus::Resolved { ends_at } => self.receive_resolved(&change.alert, ends_at),
            }
        }
        self.receipt.duplicate = self.records.is_empty();
        for ((key, _), (matched, alerts)) in groups {
            self.respond(&key, &matched, &alerts);
        }
    }

    fn receive_firing(&mut self, alert: Arc<AlertSnapshot>, groups: &mut Groups) {
        let Some(firing) = judge(&self.state, &alert, self.now) else { return };
        let (matches, unusable) = self.match_alert(&alert);
        // Known and unanswered: only where a playbook could start now is its repeat worth a record.
        let inputs = |matched: &Matched| {
            let cause = cause_of_alerts(std::slice::from_ref(&alert));
            inputs_of(&matched.plan, Some(matched.trigger), &cause, Map::new())
        };
        let usable = |matched: &Matched| matched.plan.mode == Mode::Act && inputs(matched).is_ok();
        let Some(firing) = firing.or_else(|| matches.iter().any(usable).then_some(Firing::New)) else {
            let unusable_inputs = matches.iter().filter_map(|matched| {
                let playbook = matched.plan.name.clone();
                inputs(matched).err().map(|reason| Unusable { playbook, reason })
            });
            self.receipt.unusable.extend(unusable.into_iter().chain(unusable_inputs).map(|problem| problem.told()));
            return;
        };
        self.emit(AlertFired { alert: Arc::clone(&alert), firing });
        // Also where no playbook matches it any more: what it belongs to must not close while it fires.
        for incident in self.state.alerts.get(&alert.key).map(|known| known.incidents.clone()).unwrap_or_default() {
            let Some(known) = self.state.incidents.get(&incident) else { continue };
            // A resolved one whose key a later incident has stays resolved: at most one of a key is open.
            let last = self.state.incident_by_key(&known.key).is_some_and(|holder| holder.id == incident);
            if known.is_open() || (firing == Firing::Again && last) {
                self.reopen_if_closing(incident);
            }
        }
        if !self.state.awaiting.is_empty() {
            self.offer(&cause_of_alerts(std::slice::from_ref(&alert)), None);
        }
        for problem in unusable {
            self.keep_unusable_alert(&alert, &problem);
        }
        for matched in matches {
            let at = (Arc::clone(&matched.key), matched.plan.name.clone());
            groups.entry(at).or_insert_with(|| (matched, Vec::new())).1.push((Arc::clone(&alert), firing));
        }
        self.refresh_waits_of(&alert.key);
    }

    fn receive_resolved(&mut self, alert: &AlertSnapshot, ends_at: Option<Timestamp>) {
        let Some(known) = self.state.alerts.get(&alert.key) else { return };
        // An end before the present episode began belongs to an earlier one (RECEIVER 18: old resolutions come again).
        if known.resolved_at.is_some() || ends_at.is_some_and(|end| end <= known.starts_at) {
            return;
        }
        self.emit(AlertResolved { alert: alert.key.clone(), ends_at });
        self.refresh_waits_of(&alert.key);
        let incidents = self.state.alerts.get(&alert.key).map(|alert| alert.incidents.clone()).unwrap_or_default();
        for incident in incidents {
            self.settle_if_quiet(incident);
        }
    }

    /// The first trigger of each playbook that takes the alert.
    fn match_alert(&self, alert: &Arc<AlertSnapshot>) -> (Vec<Matched>, Vec<Unusable>) {
        let mut cause = None;
        let mut matches = Vec::new();
        let mut unusable = Vec::new();
        for plan in self.state.playbooks.values().filter_map(|digest| self.state.plan(*digest)) {
            for (index, trigger) in plan.triggers.iter().enumerate() {
                let TriggerOn::Alertmanager(matchers) = &trigger.on else { continue };
                if !matchers.iter().all(|matcher| matcher.is_match(&alert.labels)) {
                    continue;
                }
                let cause = cause.get_or_insert_with(|| cause_of_alerts(std::slice::from_ref(alert)));
                let fallback = || format!("alert/{}", alert.key).into();
                match take(plan, index, cause, fallback) {
                    Ok(Some(matched)) => matches.push(matched),
                    Ok(None) => continue,
                    Err(reason) => unusable.push(Unusable { playbook: plan.name.clone(), reason }),
                }
                break;
            }
        }
        (matches, unusable)
    }

    /// What one playbook does about the alerts of one key.
    fn respond(&mut self, key: &Arc<str>, matched: &Matched, alerts: &[(Arc<AlertSnapshot>, Firing)]) {
        if matched.plan.mode == Mode::Observe {
            let all: Vec<_> = alerts.iter().map(|(alert, _)| Arc::clone(alert)).collect();
            let cause = cause_of_alerts(&all);
            match inputs_of(&matched.plan, Some(matched.trigger), &cause, Map::new()) {
                Ok(inputs) => self.observe(key, &matched.plan, cause, inputs),
                Err(reason) => {
                    let problem = Unusable { playbook: matched.plan.name.clone(), reason };
                    self.keep_unusable_alert(&alerts[0].0, &problem);
                }
            }
            return;
        }
        let plan = Arc::clone(&matched.plan);
        let known = self.state.incident_by_key(key).map(|incident| (incident.id, incident.is_open()));
        let again = alerts.iter().all(|(_, firing)| *firing == Firing::Again);
        let existing = known.filter(|(_, open)| *open || again).map(|(id, _)| id);
        // An alert that the incident does not have yet is news to it, whatever the delivery said.
        let news: Vec<_> = alerts
            .iter()
            .filter(|(alert, firing)| {
                existing.is_none_or(|id| *firing == Firing::New || !self.has_alert(id, &alert.key))
            })
            .map(|(alert, _)| Arc::clone(alert))
            .collect();
        let runs = existing.map(|id| self.live_runs(id, &plan.name)).unwrap_or_default();
        let begin = begin(&plan, &runs, true).filter(|_| !news.is_empty());
        // What has not begun takes in what comes meanwhile.
        let within = runs.iter().find(|run| begin == Some(Begin::Within(run.id))).map(|run| &run.cause.alerts[..]);
        let (start, unusable) = match begin {
            Some(_) => what_starts(matched, within.unwrap_or_default(), &news),
            None => (None, Vec::new()),
        };
        // What cannot be used joins nothing, so that it stays unanswered: its repeats, or its replayed dead letter, find the
        // playbook again once that is mended.
        for (alert, reason) in &unusable {
            self.keep_unusable_alert(alert, &Unusable { playbook: plan.name.clone(), reason: reason.clone() });
        }
        let joins = |alert: &AlertSnapshot| !unusable.iter().any(|(other, _)| other.key == alert.key);
        let joining: Vec<_> = alerts.iter().map(|(alert, _)| alert).filter(|alert| joins(alert)).collect();
        let incident = match (existing, joining.first()) {
            (_, None) => return,
            (Some(id), Some(_)) => {
                self.reopen_if_closing(id);
                id
            }
            (None, Some(first)) => self.open_incident(key, &plan, Some(first)),
        };
        for alert in joining {
            self.join(incident, &plan, alert);
        }
        if !self.receipt.incidents.contains(&incident) {
            self.receipt.incidents.push(incident);
        }
        if let (Some(begin), Some((cause, inputs))) = (begin, start) {
            let held = self.maintenance_of(&news[0]).or_else(|| {
                let wait = plan.triggers[matched.trigger].group_wait;
                (!wait.is_zero()).then(|| Held::Group { until: self.now.plus(wait) })
            });
            self.begin(&plan, incident, cause, inputs, begin, held);
        }
    }

    fn observe(&mut self, key: &Arc<str>, plan: &Plan, cause: Cause, inputs: Map<String, Value>) {
        let (playbook, inputs) = (plan.name.clone(), Arc::new(Value::Object(inputs)));
        self.emit(PlaybookObserved { playbook, plan: plan.digest, key: Arc::clone(key), cause, inputs });
    }

    pub(super) fn receive_event(&mut self, event: &Arc<Event>, target: Target) -> Result<(), Rejected> {
        if self.state.seen.contains_key(&State::event_identity(event)) {
            self.receipt.duplicate = true;
            return Ok(());
        }
        let cause = Cause { event: Arc::clone(event), alerts: Arc::new([]) };
        let fallback = || format!("{}/{}", event.source, event.id).into();
        let mut matches: Vec<(Matched, Map<String, Value>)> = Vec::new();
        let mut unusable = Vec::new();
        let mut given = Map::new();
        let candidates: Vec<(Arc<Plan>, usize)> = match &target {
            Target::Subject(subject) => {
                let takes = |plan: &Arc<Plan>| {
                    let on = |trigger: &stanch_playbook::Trigger| trigger.matches_subject(subject);
                    let indexes: Vec<_> = (0..plan.triggers.len()).filter(|index| on(&plan.triggers[*index])).collect();
                    indexes.into_iter().map(|index| (Arc::clone(plan), index)).collect::<Vec<_>>()
                };
                self.loaded_plans().iter().flat_map(takes).collect()
            }
            Target::Trigger { playbook, trigger } => {
                let plan = self.loaded(playbook)?;
                if *trigger < plan.triggers.len() { vec![(plan, *trigger)] } else { Vec::new() }
            }
            Target::Playbook { playbook, inputs } => {
                let plan = self.loaded(playbook)?;
                given = inputs.clone();
                let manual = plan.triggers.iter().position(|trigger| matches!(trigger.on, TriggerOn::Manual));
                return self.receive_request(&plan, manual, cause, given);
            }
        };
        let mut taken: Vec<PlaybookName> = Vec::new();
        for (plan, index) in candidates {
            if taken.contains(&plan.name) {
                continue;
            }
            let outcome = take(&plan, index, &cause, fallback).and_then(|matched| match matched {
                Some(matched) => {
                    inputs_of(&plan, Some(index), &cause, given.clone()).map(|inputs| Some((matched, inputs)))
                }
                None => Ok(None),
            });
            match outcome {
                Ok(Some(found)) => {
                    taken.push(plan.name.clone());
                    matches.push(found);
                }
                Ok(None) => {}
                Err(reason) => unusable.push(Unusable { playbook: plan.name.clone(), reason }),
            }
        }
        // An event that no playbook could use is not marked as seen, so that its dead letter can be replayed.
        if !matches.is_empty() || unusable.is_empty() {
            self.emit(EventReceived { event: Arc::clone(event) });
        }
        if let Target::Subject(subject) = &target {
            self.offer(&cause, Some(subject));
        }
        for problem in unusable {
            let via = match &target {
                Target::Subject(subject) => format!("nats:{subject}"),
                Target::Trigger { playbook, .. } | Target::Playbook { playbook, .. } => format!("playbook:{playbook}"),
            };
            self.keep_unusable_event(via, event, &problem);
        }
        for (matched, inputs) in matches {
            self.respond_to_event(&matched.key, &matched.plan, cause.clone(), inputs);
        }
        Ok(())
    }

    /// Gives an alert, or a message on a subject, to the steps that wait for an event.
    fn offer(&mut self, cause: &Cause, subject: Option<&str>) {
        let waiting: Vec<_> = self.state.awaiting.iter().copied().collect();
        for (id, place) in waiting {
            let Some(run) = self.state.runs.get(&id) else { continue };
            let plan = self.plan_of(run);
            let Uses::Wait(Wait::Event(awaited)) = &plan.steps[place.step].uses else { continue };
            let comes = match (&awaited.on, subject, cause.alerts.first()) {
                (TriggerOn::Nats { subject: filter }, Some(subject), _) => subject_matches(filter, subject),
                (TriggerOn::Alertmanager(matchers), None, Some(alert)) => {
                    matchers.iter().all(|matcher| matcher.is_match(&alert.labels))
                }
                _ => false,
            };
            if !comes {
                continue;
            }
            let names = StepNames { cause: Some(cause), ..StepNames::new(&self.state, run, &plan, place) };
            let takes = awaited.condition.as_ref().map_or(Ok(true), |condition| condition.evaluate_bool(&names));
            match takes {
                Ok(false) => continue,
                Ok(true) => {
                    let event = names.get("event").map(Cow::into_owned).unwrap_or_default();
                    self.as_engine(|draft| draft.wake(id, place, &event));
                }
                // It stays what it is, a wait: an event whose condition cannot be evaluated is not the one.
                Err(_) => continue,
            }
            self.as_engine(|draft| draft.advance(id));
        }
    }

    /// A person's request: what does not fit is refused, not kept.
    fn receive_request(
        &mut self,
        plan: &Arc<Plan>,
        manual: Option<usize>,
        cause: Cause,
        given: Map<String, Value>,
    ) -> Result<(), Rejected> {
        let event = Arc::clone(&cause.event);
        let fallback = || -> Arc<str> { format!("{}/{}", event.source, event.id).into() };
        let key = match manual {
            Some(index) => match take(plan, index, &cause, fallback).map_err(Rejected::InvalidInputs)? {
                Some(matched) => matched.key,
                None => return Err(Rejected::InvalidInputs("the condition of the manual trigger is false".to_owned())),
            },
            None => fallback(),
        };
        let inputs = inputs_of(plan, manual, &cause, given).map_err(Rejected::InvalidInputs)?;
        self.emit(EventReceived { event });
        self.respond_to_event(&key, plan, cause, inputs);
        Ok(())
    }

    fn respond_to_event(&mut self, key: &Arc<str>, plan: &Arc<Plan>, cause: Cause, inputs: Map<String, Value>) {
        if plan.mode == Mode::Observe {
            return self.observe(key, plan, cause, inputs);
        }
        let open = self.state.incident_by_key(key).filter(|incident| incident.is_open()).map(|incident| incident.id);
        let incident = open.unwrap_or_else(|| self.open_incident(key, plan, None));
        if !self.receipt.incidents.contains(&incident) {
            self.receipt.incidents.push(incident);
        }
        if let Some(begin) = begin(plan, &self.live_runs(incident, &plan.name), false) {
            self.begin(plan, incident, cause, inputs, begin, None);
        }
    }

    fn loaded(&self, name: &PlaybookName) -> Result<Arc<Plan>, Rejected> {
        self.state.playbook(name.as_str()).cloned().ok_or_else(|| Rejected::UnknownPlaybook(name.to_string()))
    }

    fn loaded_plans(&self) -> Vec<Arc<Plan>> {
        self.state.playbooks.values().filter_map(|digest| self.state.plan(*digest)).cloned().collect()
    }
}

/// What a firing delivery is: `None` where there is nothing to do, `Some(None)` where the alert fires already and no
/// playbook knew it, so that one that was loaded since may.
fn judge(state: &State, alert: &AlertSnapshot, now: Timestamp) -> Option<Option<Firing>> {
    let Some(known) = state.alerts.get(&alert.key) else { return Some(Some(Firing::New)) };
    let settle = state.settings.settle;
    match known.resolved_at {
        // The end of the former episode was never told (RECEIVER 17); a start this much later is a new one.
        None if alert.starts_at >= known.starts_at.plus(settle) && alert.starts_at > known.starts_at => {
            Some(Some(Firing::New))
        }
        None if known.incidents.is_empty() => Some(None),
        None => None,
        Some(_) if known.earlier.contains(&alert.starts_at) => None,
        // A start no later than the known one is the same episode again (RECEIVER 12, 24), or one whose start moved (22).
        Some(resolved_at) if alert.starts_at <= known.starts_at => {
            let recent = now.since(resolved_at) <= state.settings.reopen_within;
            Some(Some(if recent { Firing::Again } else { Firing::New }))
        }
        Some(resolved_at) if now.since(resolved_at) < settle => Some(Some(Firing::Flap)),
        Some(_) => Some(Some(Firing::New)),
    }
}

/// What a run of a playbook for these alerts, beside those that it has, would start with; and the alerts that it could not be
/// evaluated for, each with the reason. One that cannot be used keeps none of the others from being answered.
#[expect(clippy::type_complexity, reason = "two lists with a reason each, used once")]
fn what_starts(
    matched: &Matched,
    known: &[Arc<AlertSnapshot>],
    news: &[Arc<AlertSnapshot>],
) -> (Option<(Cause, Map<String, Value>)>, Vec<(Arc<AlertSnapshot>, String)>) {
    let evaluate = |news: &[Arc<AlertSnapshot>]| {
        let is_new = |alert: &&Arc<AlertSnapshot>| !known.iter().any(|of| of.key == alert.key);
        let all: Vec<_> = known.iter().chain(news.iter().filter(is_new)).map(Arc::clone).collect();
        let cause = cause_of_alerts(&all);
        inputs_of(&matched.plan, Some(matched.trigger), &cause, Map::new()).map(|inputs| (cause, inputs))
    };
    let reason = match evaluate(news) {
        Ok(start) => return (Some(start), Vec::new()),
        Err(reason) => reason,
    };
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for alert in news {
        match evaluate(std::slice::from_ref(alert)) {
            Ok(_) => good.push(Arc::clone(alert)),
            Err(reason) => bad.push((Arc::clone(alert), reason)),
        }
    }
    match (!good.is_empty()).then(|| evaluate(&good)) {
        Some(Ok(start)) => (Some(start), bad),
        Some(Err(_)) => (None, news.iter().map(|alert| (Arc::clone(alert), reason.clone())).collect()),
        None => (None, bad),
    }
}

/// Whether the trigger's condition takes the cause, and the key it renders.
fn take(
    plan: &Arc<Plan>,
    trigger: usize,
    cause: &Cause,
    fallback: impl FnOnce() -> Arc<str>,
) -> Result<Option<Matched>, String> {
    let names = TriggerNames { cause };
    let of = &plan.triggers[trigger];
    if let Some(condition) = &of.condition
        && !condition.evaluate_bool(&names).map_err(|error| format!("trigger {}: if: {error}", trigger + 1))?
    {
        return Ok(None);
    }
    let key = match &of.key {
        Some(key) => {
            let key = key.render(&names).map_err(|error| format!("trigger {}: key: {error}", trigger + 1))?;
            // Strangers must not share an incident because neither has a name.
            if key.trim().is_empty() {
                return Err(format!("trigger {}: key: it is empty", trigger + 1));
            }
            key.into()
        }
        None => fallback(),
    };
    Ok(Some(Matched { plan: Arc::clone(plan), trigger, key }))
}

fn inputs_of(
    plan: &Plan,
    trigger: Option<usize>,
    cause: &Cause,
    given: Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    let mut inputs = Map::new();
    if let Some(trigger) = trigger {
        for (name, expression) in &plan.triggers[trigger].inputs {
            if given.contains_key(name) {
                continue;
            }
            let value = expression
                .evaluate(&TriggerNames { cause })
                .map_err(|error| format!("trigger {}: inputs.{name}: {error}", trigger + 1))?;
            inputs.insert(name.clone(), value);
        }
    }
    inputs.extend(given);
    plan.check_inputs(inputs).map_err(|error| error.to_string())
}

/// What starts a run of alerts that fire: they themselves, and the first one's change in `CloudEvents` terms.
///
/// # Panics
/// Where there are none.
#[must_use]
pub fn cause_of_alerts(alerts: &[Arc<AlertSnapshot>]) -> Cause {
    let first = &alerts[0];
    let event = Event {
        id: format!("{}-{}-firing", first.key.fingerprint, first.starts_at.as_millis()).into(),
        source: format!("/alertmanager/{}", first.key.source).into(),
        kind: "io.prometheus.alert.firing".into(),
        time: first.starts_at,
        subject: first.labels.get("alertname").map(|name| name.as_str().into()),
        data: Value::Null,
    };
    Cause { event: Arc::new(event), alerts: alerts.into() }
}

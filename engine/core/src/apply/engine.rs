//! The engine, its playbooks, and what holds runs back.

use std::sync::Arc;

use stanch_playbook::{Plan, PlaybookName};

use super::{Fold, IllegalTransition};
use crate::clock::{Jump, is_jump};
use crate::record::{
    ClockJumped, EngineStarted, Frozen, MaintenanceEnded, MaintenancePlanned, PlaybookLoaded, PlaybookRemoved,
};
use crate::run::Run;
use crate::state::{PinnedPlan, State, Timer, Window};

impl Fold<'_> {
    pub(super) fn engine_started(&mut self, body: &EngineStarted) {
        self.state.journal = body.journal;
        self.state.epoch = body.epoch;
        self.state.settings = body.settings.clone();
    }

    pub(super) fn playbook_loaded(&mut self, body: &PlaybookLoaded) -> Result<(), IllegalTransition> {
        if !self.state.plans.contains_key(&body.plan) {
            let plan = Plan::from_canonical(&body.canonical)
                .map_err(|error| IllegalTransition::Plan { kind: self.kind(), reason: error.to_string() })?;
            self.state.plans.insert(body.plan, PinnedPlan(Arc::new(plan)));
        }
        if let Some(old) = self.state.playbooks.insert(body.playbook.clone(), body.plan) {
            self.release_plan(old);
        }
        Ok(())
    }

    pub(super) fn playbook_removed(&mut self, body: &PlaybookRemoved) {
        if let Some(old) = self.state.playbooks.remove(&body.playbook) {
            self.release_plan(old);
        }
    }

    pub(super) fn frozen(&mut self, body: &Frozen) {
        let now = self.record.time;
        self.state.frozen = Some((self.record.actor.clone(), body.reason.as_str().into(), now));
    }

    pub(super) fn maintenance_planned(&mut self, body: &MaintenancePlanned) {
        let window = Window { planned: body.clone(), by: self.record.actor.clone() };
        self.state.timers.insert((body.to, Timer::Maintenance(body.maintenance)));
        self.state.maintenance.insert(body.maintenance, Arc::new(window));
    }

    pub(super) fn maintenance_ended(&mut self, body: &MaintenanceEnded) {
        if let Some(window) = self.state.maintenance.remove(&body.maintenance) {
            self.state.timers.remove(&(window.planned.to, Timer::Maintenance(body.maintenance)));
        }
    }

    pub(super) fn clock_jumped(&mut self, body: &ClockJumped) {
        let now = self.record.time;
        self.clock_agreed();
        if is_jump(body.by_ms) {
            let jump = Jump { by_ms: body.by_ms, since: now };
            self.state.timers.insert((jump.until(), Timer::Clock));
            self.state.clock_jump = Some(jump);
        }
    }

    pub(super) fn clock_agreed(&mut self) {
        if let Some(jump) = self.state.clock_jump.take() {
            self.state.timers.remove(&(jump.until(), Timer::Clock));
        }
    }

    pub(super) fn unwatch(&mut self, playbook: &PlaybookName, name: &str) {
        let key = (playbook.clone(), name.to_owned());
        if let Some((_, at)) = self.state.watched.remove(&key) {
            self.state.timers.remove(&(at, Timer::Watchdog(key.0, key.1)));
        }
    }

    /// Forgets a plan that no playbook and no live run uses.
    pub(super) fn release_plan(&mut self, digest: stanch_playbook::PlanDigest) {
        let current = |state: &State| state.playbooks.values().any(|used| *used == digest);
        let pins = |run: &Arc<Run>| run.plan == digest || run.children.values().any(|child| *child == digest);
        if !current(self.state) && !self.state.runs.values().any(pins) {
            self.state.plans.remove(&digest);
        }
    }
}

//! What holds runs back: maintenance windows, a freeze, the time of a group, `hold`, earlier runs, and a clock that jumped.

use std::sync::Arc;

use stanch_playbook::matcher::Matcher;
use stanch_playbook::{Plan, Timestamp};

use super::Draft;
use crate::alert::AlertSnapshot;
use crate::command::Rejected;
use crate::id::{IncidentId, MaintenanceId, RunId};
use crate::record::{ClockAgreed, Frozen, Held, MaintenanceEnded, MaintenancePlanned, RunHoldEnded, Unfrozen};

impl Draft {
    /// The maintenance window that an alert falls into now.
    pub(super) fn maintenance_of(&self, alert: &AlertSnapshot) -> Option<Held> {
        let covers = |window: &&Arc<crate::state::Window>| {
            let planned = &window.planned;
            planned.from <= self.now
                && self.now < planned.to
                && parsed(&planned.matchers).is_ok_and(|all| all.iter().all(|one| one.is_match(&alert.labels)))
        };
        let window = self.state.maintenance.values().filter(covers).max_by_key(|window| window.planned.to)?;
        let (until, reason) = (window.planned.to, window.planned.reason.clone());
        Some(Held::Maintenance { until, reason })
    }

    /// A run's own time has come: what held it is over, or it may do what has side effects.
    pub(super) fn fire_run(&mut self, id: RunId) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let (playbook, incident, held) = (run.playbook.clone(), run.incident, run.held.clone());
        let plan = self.plan_of(run);
        if matches!(held, Some(Held::Maintenance { .. })) && self.is_quiet(incident) {
            let reason = "its alerts were resolved before the maintenance was over".to_owned();
            self.emit(RunHoldEnded { run: id });
            return self.cancel(id, reason, false);
        }
        self.emit(RunHoldEnded { run: id });
        if held.is_some() {
            self.release_queued(&playbook, plan.concurrency);
        } else {
            self.advance(id);
        }
    }

    fn is_quiet(&self, incident: IncidentId) -> bool {
        let quiet = |incident: &Arc<crate::incident::Incident>| {
            !incident.alerts.is_empty() && incident.alerts.iter().all(|(_, fires)| !fires)
        };
        self.state.incidents.get(&incident).is_some_and(quiet)
    }

    pub(super) fn freeze(&mut self, reason: String) -> Result<(), Rejected> {
        if self.state.frozen.is_some() {
            return Err(Rejected::AlreadyFrozen);
        }
        self.emit(Frozen { reason });
        Ok(())
    }

    pub(super) fn unfreeze(&mut self, reason: String) -> Result<(), Rejected> {
        if self.state.frozen.is_none() {
            return Err(Rejected::NotFrozen);
        }
        self.emit(Unfrozen { reason });
        let runs: Vec<RunId> = self.state.runs.keys().copied().collect();
        self.as_engine(|draft| {
            for run in runs {
                draft.advance(run);
            }
        });
        Ok(())
    }

    /// What the clock was held for counts from now on by the wall clock; the shell's next look at it does the rest.
    pub(super) fn agree_to_clock(&mut self) -> Result<(), Rejected> {
        let jump = self.state.clock_jump.ok_or(Rejected::NoClockJump)?;
        self.emit(ClockAgreed { by_ms: jump.by_ms });
        Ok(())
    }

    pub(super) fn plan_maintenance(&mut self, window: NewWindow) -> Result<(), Rejected> {
        let NewWindow { declared, matchers, from, to, reason } = window;
        if to <= self.now {
            return Err(Rejected::InThePast);
        }
        if let Err(error) = parsed(&matchers) {
            return Err(Rejected::InvalidInputs(format!("matchers: {error}")));
        }
        if matchers.is_empty() || from >= to {
            let why = "a window needs matchers, and must begin before it ends";
            return Err(Rejected::InvalidInputs(why.to_owned()));
        }
        let same = |window: &Arc<crate::state::Window>| declared.is_some() && window.planned.declared == declared;
        if self.state.maintenance.values().any(same) {
            return Ok(());
        }
        let maintenance = MaintenanceId::derive(self.state.journal, self.state.sequence.next(), self.now);
        self.emit(MaintenancePlanned { maintenance, declared, matchers, from, to, reason });
        Ok(())
    }

    pub(super) fn end_maintenance(&mut self, maintenance: MaintenanceId) -> Result<(), Rejected> {
        if !self.state.maintenance.contains_key(&maintenance) {
            return Err(Rejected::UnknownMaintenance(maintenance));
        }
        self.emit(MaintenanceEnded { maintenance });
        // Runs that this window alone held go on.
        let held: Vec<RunId> = self
            .state
            .runs
            .values()
            .filter(|run| matches!(run.held, Some(Held::Maintenance { .. })))
            .filter(|run| run.cause.alerts.first().is_none_or(|alert| self.maintenance_of(alert).is_none()))
            .map(|run| run.id)
            .collect();
        self.as_engine(|draft| {
            for run in held {
                draft.fire_run(run);
            }
        });
        Ok(())
    }

    /// Until when a new run of a plan does nothing with side effects.
    pub(super) fn hold_until(&self, plan: &Plan) -> Option<Timestamp> {
        (!plan.hold.is_zero()).then(|| self.now.plus(plan.hold))
    }
}

/// A maintenance window to be.
pub(super) struct NewWindow {
    pub declared: Option<String>,
    pub matchers: Vec<String>,
    pub from: Timestamp,
    pub to: Timestamp,
    pub reason: String,
}

fn parsed(texts: &[String]) -> Result<Vec<Matcher>, String> {
    let parsed = texts.iter().map(|text| Matcher::parse(text).map_err(|error| error.to_string()));
    Ok(parsed.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

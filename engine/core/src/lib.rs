//! The sans-IO state machine. In reading order: a [`Command`] goes into [`decide()`], which gives [`Record`]s and
//! [`Effect`]s; [`State::apply`] folds records into a [`State`]; [`outstanding()`] says from a state alone what should be under way.
//!
//! Absent: clocks, randomness, I/O, logging. Time comes in as an argument; ids and jitter are derived from the journal's
//! id and the sequence. The state is made of persistent maps, so that a copy of it costs nothing and readers hold one.

pub mod alert;
pub mod attempt;
pub mod clock;
pub mod command;
pub mod containment;
pub mod decide;
pub mod effect;
pub mod event;
pub mod id;
pub mod incident;
pub mod notice;
pub mod record;
pub mod run;
pub mod state;

mod apply;
mod names;
mod outline;

pub use apply::{Applied, IllegalTransition};
pub use attempt::{Assignment, AttemptId, Outcome};
pub use command::{Command, Receipt, Rejected};
pub use decide::{Decision, cause_of_alerts, decide};
pub use effect::{Effect, outstanding};
pub use id::{ApprovalId, ContainmentId, DeadLetterId, Epoch, IncidentId, JournalId, MaintenanceId, RunId, Sequence};
pub use names::TriggerNames;
pub use notice::notice;
pub use record::{Actor, Body, Record, Settings};
pub use state::State;

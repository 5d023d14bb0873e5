//! YAML -> checked plan. In reading order: a text becomes a document with places, a document is
//! checked into a [`Plan`], and a plan's templates and conditions are evaluated over [`Names`].
//!
//! Absent: I/O, clocks, randomness, asynchrony. Input of any shape gives diagnostics, never a panic.

pub mod actions;
mod catalogue;
mod check;
mod compact;
pub mod diagnostic;
mod document;
pub mod evaluate;
pub mod inputs;
mod keys;
pub mod load;
pub mod matcher;
mod model;
pub mod name;
mod nearest;
pub mod plan;
mod reference;
pub mod schedule;
mod schema;
mod set;
pub mod test_file;
mod test_keys;
pub mod time;

pub use catalogue::{BROKEN_CATALOGUE, Catalogue};
pub use diagnostic::{Diagnostic, Diagnostics};
pub use evaluate::{EvaluationError, Expression, Names, Scope, Template, ValueTemplate};
pub use inputs::InputError;
pub use load::{Loaded, load, load_with};
pub use name::{ActionName, Phase, PlanDigest, PlaybookName, Severity, StepKey};
pub use plan::{Plan, PlanError, Step, Trigger, TriggerOn, Uses, Wait, subject_matches};
pub use reference::reference;
pub use schema::{catalogue_schema, schema};
pub use set::{MOST_DEPTH, SetProblem, check_set};
pub use test_file::load_tests;
pub use test_keys::test_schema;
pub use time::{InvalidDuration, Timestamp, parse_duration};

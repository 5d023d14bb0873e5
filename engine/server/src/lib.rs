//! The shell around the core: what comes in becomes commands, what is decided becomes durable, what is due is done.
//!
//! A webhook's way: [`http`] (authenticate, parse) -> `intake` (its alerts as changes) -> [`executor`] (the loop) ->
//! `stanch_core::decide` -> `store` (the journal's thread) -> an action of `stanch_workers`, and back into the executor as
//! `FinishAttempt`. NATS and schedules enter at the second hop.
//!
//! Absent: any decision about runs. Invariant: only the executor writes, and nothing leaves before it is durable.

pub mod app;
mod artifacts;
mod clock;
pub mod config;
pub mod executor;
pub mod fixture;
pub mod held;
pub mod http;
mod intake;
mod lacks;
mod nats;
mod notify;
mod people;
pub mod playbooks;
mod records;
mod reload;
mod schedules;
pub mod schema;
mod senders;
mod serve;
mod store;
mod stories;
pub mod summary;

pub use config::{Config, ConfigError, Options};
pub use serve::{Server, StartupError, start};
pub use stanch_workers::warden;
pub use store::StartError;

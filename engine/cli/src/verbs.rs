//! One file a verb.

pub mod audit;
pub mod completions;
pub mod demo;
pub mod emit;
pub mod events;
pub mod incidents;
pub mod run;
pub mod runs;
pub mod schema;
pub mod serve;
pub mod test;
pub mod validate;

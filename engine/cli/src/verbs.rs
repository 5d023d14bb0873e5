//! One file a verb.

pub mod approvals;
pub mod artifacts;
pub mod audit;
pub mod clock;
pub mod completions;
pub mod demo;
pub mod emit;
pub mod events;
pub mod explain;
pub mod freeze;
pub mod graph;
pub mod incidents;
pub mod inforce;
pub mod maintenance;
pub mod plan;
pub mod run;
pub mod runs;
pub mod schema;
pub mod serve;
pub mod test;
pub mod validate;

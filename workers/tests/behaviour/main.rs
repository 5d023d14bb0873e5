//! The actions against stand-ins on loopback, real processes and a real nats-server.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
mod exec;
mod http;
mod nats;
mod prometheus;
mod servers;
mod slack;
mod worker;

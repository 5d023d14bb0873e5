//! The actions against stand-ins on loopback, real processes and a real nats-server.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod alertmanager;
mod common;
mod email;
mod exec;
mod http;
mod kubernetes;
mod nats;
mod pagerduty;
mod prometheus;
mod report;
mod servers;
mod slack;
mod worker;

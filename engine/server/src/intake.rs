//! Stub.
use stanch_core::event::Event;
use stanch_playbook::Timestamp;
#[derive(Clone)]
pub(crate) struct Fallback {
    pub id: String,
    pub source: String,
    pub subject: String,
    pub time: Timestamp,
}
pub(crate) struct Unreadable {
    pub code: &'static str,
    pub reason: String,
}
pub(crate) fn cloud_event(_h: impl Fn(&str) -> Option<String>, _b: &[u8], _f: Fallback) -> Result<Event, Unreadable> {
    Err(Unreadable { code: "", reason: String::new() })
}

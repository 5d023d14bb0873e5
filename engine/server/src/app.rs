//! What every way in shares.

use std::sync::Arc;

use stanch_journal::{Reader, Views};
use stanch_playbook::PlaybookName;
use tokio::sync::watch;

use crate::config::Config;
use crate::executor::Handle;
use crate::people::People;
use crate::senders::Senders;

/// What every way in shares. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    /// The way into the executor, and to durable state.
    pub handle: Handle,
    /// Durable records.
    pub reader: Arc<dyn Reader>,
    /// Summaries of what is over.
    pub views: Arc<Views>,
    /// The configuration.
    pub config: Arc<Config>,
    /// How the connection to NATS stands.
    pub nats: watch::Receiver<NatsStatus>,
    /// The playbook files that could not be loaded.
    pub problems: watch::Receiver<Arc<Vec<PlaybookProblem>>>,
    /// Who may send webhooks.
    pub senders: Arc<Senders>,
    /// Who acts.
    pub people: watch::Receiver<Arc<People>>,
}

/// How the connection to NATS stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatsStatus {
    /// Nothing is configured.
    Unused,
    /// Connected.
    Connected,
    /// Not connected; it is being tried again.
    Disconnected {
        /// Why, as far as is known.
        reason: String,
    },
}

/// A playbook file that could not be loaded; what was loaded of it before stays in use.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaybookProblem {
    /// The file.
    pub file: String,
    /// The playbook whose older version stays in use, where there is one.
    pub playbook: Option<PlaybookName>,
    /// What is wrong, `file:line:column: error[code]: message`, a line each.
    pub diagnostics: Vec<String>,
}

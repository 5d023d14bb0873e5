//! The way into the loop, and to what it has made durable.

use std::sync::Arc;

use stanch_core::{Command, Receipt, Record, Rejected, RunId, State};
use stanch_playbook::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::clock::Clock;

/// What comes into the loop.
pub(super) enum Input {
    Command { command: Command, reply: oneshot::Sender<Result<Receipt, Refused>> },
    Watch { runs: Vec<RunId>, reply: oneshot::Sender<()> },
    Stop { reason: String, reply: oneshot::Sender<()> },
}

/// Why a command was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// It makes no sense in this state.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// Too much is waiting.
    #[error("the engine has too much to do; try again in a moment")]
    Overloaded,
    /// The journal does not take records now, or the engine ends.
    #[error("the engine cannot write its journal now ({0}); try again in a moment")]
    Unavailable(String),
}

/// The way into the loop, and to what it has made durable. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) durable: watch::Receiver<Arc<State>>,
    pub(super) health: watch::Receiver<Health>,
    pub(super) notices: broadcast::Sender<Arc<Record>>,
    pub(super) clock: Arc<Clock>,
}

/// Whether the journal takes records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why it does not; none where it does.
    pub journal: Option<String>,
}

impl Handle {
    /// The records from now on of which people are told, once they are durable; whoever is too slow misses the oldest.
    pub(crate) fn notices(&self) -> broadcast::Receiver<Arc<Record>> {
        self.notices.subscribe()
    }

    /// The engine's time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Carries out a command; answers once its records are durable.
    ///
    /// # Errors
    /// [`Refused`]; nothing was recorded then, except that after `Unavailable` it may have been.
    pub async fn submit(&self, command: Command) -> Result<Receipt, Refused> {
        let (reply, answer) = oneshot::channel();
        self.inputs.try_send(Input::Command { command, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Refused::Unavailable("it is stopping".to_owned()),
        })?;
        answer.await.unwrap_or_else(|_| Err(Refused::Unavailable("it is stopping".to_owned())))
    }

    /// The same, waiting for a place in the queue: for results and other inputs that must not be refused.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn submit_patiently(&self, command: Command) -> Result<Receipt, Refused> {
        let stopping = || Refused::Unavailable("it is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        self.inputs.send(Input::Command { command, reply }).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Completes once all these runs are over; at once for runs that are not live.
    pub async fn finished(&self, runs: Vec<RunId>) {
        let (reply, answer) = oneshot::channel();
        if self.inputs.send(Input::Watch { runs, reply }).await.is_ok() {
            answer.await.ok();
        }
    }

    /// The last durable state.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.durable.borrow())
    }

    /// Tells of each new durable state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<State>> {
        self.durable.clone()
    }

    /// Whether the journal takes records.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    /// Ends the loop in good order: the last batch durable, a record of the end, a snapshot.
    pub async fn stop(&self, reason: &str) {
        let (reply, answer) = oneshot::channel();
        if self.inputs.send(Input::Stop { reason: reason.to_owned(), reply }).await.is_ok() {
            answer.await.ok();
        }
    }
}

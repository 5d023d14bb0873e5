//! What runs have done, for the `report` action: from durable state and the journal.

use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use stanch_core::RunId;
use stanch_journal::Reader;
use stanch_workers::{Stories, Story};

use crate::executor::Handle;
use crate::records;

/// How many records of a run are told; of a longer one the first and the last.
const MOST: usize = 20_000;

/// The engine's own stories. The worker is made before the engine that it works for, so they are set afterwards.
#[derive(Default)]
pub(crate) struct EngineStories(OnceLock<(Handle, Arc<dyn Reader>)>);

impl EngineStories {
    /// Tells of this engine from now on.
    pub fn tell_of(&self, handle: Handle, reader: Arc<dyn Reader>) {
        self.0.set((handle, reader)).ok();
    }
}

impl Stories for EngineStories {
    fn story(&self, run: RunId) -> BoxFuture<'_, Result<Story, String>> {
        Box::pin(async move {
            let (handle, reader) = self.0.get().cloned().ok_or("the engine is still starting")?;
            let state = handle.state();
            let live = state.runs.get(&run).ok_or("the run is not live any more")?;
            let mut sequences: Vec<_> = live.records.iter().copied().collect();
            if sequences.len() > MOST {
                sequences.drain(MOST / 2..sequences.len() - MOST / 2);
            }
            let read = tokio::task::spawn_blocking(move || records::read(&*reader, &sequences));
            let records = read.await.map_err(|error| error.to_string())?;
            let records = records.map_err(|error| format!("the journal cannot be read: {error}"))?;
            Ok(Story {
                run,
                playbook: live.playbook.clone(),
                incident: state.incidents.get(&live.incident).map(|incident| (**incident).clone()),
                records,
                inforce: state.inforce.values().filter(|held| held.run == run).map(|held| (**held).clone()).collect(),
            })
        })
    }
}

//! The one thread that writes: appends a batch, brings the views up to it, and now and then writes a snapshot.
//!
//! Blocking on purpose, and on a thread of its own: the journal's flush and fsync are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stanch_core::record::{Body, Record};
use stanch_core::state::SNAPSHOT_VERSION;
use stanch_core::{IllegalTransition, Sequence, State};
use stanch_journal::{
    AppendError, Journal, OpenError, Options as JournalOptions, Reader, SledJournal, Table, Views, snapshot,
};
use stanch_playbook::Timestamp;
use tokio::sync::mpsc;

use crate::summary::{DeadLetterSummary, IncidentSummary, RunSummary};

/// The version of the views' form; another one is rebuilt.
const VIEWS_VERSION: u32 = 1;
/// How long records are kept.
const RETENTION: Duration = Duration::from_secs(400 * 24 * 3600);
/// How many records a start may have to fold at most, give or take a batch.
const RECORDS_PER_SNAPSHOT: u64 = 50_000;
/// A snapshot may take at most one part in this many of the writer's time.
const SNAPSHOT_SHARE: u32 = 20;

/// What is appended at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub expected: Sequence,
    pub records: Vec<Record>,
    pub summaries: Summaries,
    /// The state with the batch folded in.
    pub state: State,
}

/// What records change in the views, beside those that speak for themselves.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    pub runs: Vec<RunSummary>,
    pub incidents: Vec<IncidentSummary>,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// It cannot be read.
    #[error("the journal cannot be read")]
    Read(#[from] stanch_journal::ReadError),
    /// A record does not decode.
    #[error("record {sequence} cannot be read: {reason}")]
    Decode {
        /// Which.
        sequence: Sequence,
        /// Why.
        reason: String,
    },
    /// A record cannot follow on those before it.
    #[error("the journal contradicts itself at record {sequence}")]
    Fold {
        /// Which.
        sequence: Sequence,
        /// How.
        #[source]
        source: IllegalTransition,
    },
    /// The views cannot be made.
    #[error(transparent)]
    Views(#[from] stanch_journal::views::ViewError),
}

/// What a snapshot says of the oldest record that is still needed.
#[derive(serde::Deserialize)]
struct KeepFrom {
    sequence: Sequence,
    runs: Vec<KeptRun>,
    /// The time of the last record.
    time: Timestamp,
}

#[derive(serde::Deserialize)]
struct KeptRun {
    records: Vec<Sequence>,
}

impl KeepFrom {
    fn first(&self) -> Sequence {
        self.runs.iter().filter_map(|run| run.records.first().copied()).min().unwrap_or(self.sequence)
    }
}

/// The journal, its views, and the state that they fold to.
pub(crate) struct Store {
    journal: Box<dyn Journal>,
    views: Arc<Views>,
    directory: PathBuf,
    snapshot_at: Sequence,
    snapshot_took: Duration,
    snapshot_done: Instant,
}

impl Store {
    /// Opens a data directory and folds it, from the last snapshot where the views reach that far.
    pub(crate) fn open(data: &Path) -> Result<(Self, State), StartError> {
        let mut journal = SledJournal::open(data, &JournalOptions::default())?;
        let reach = journal.head().sequence;
        let directory = data.join("views");
        // What no snapshot holds must not be removed: without one everything stays.
        let keep = snapshot::read_snapshot::<KeepFrom>(&directory, SNAPSHOT_VERSION, reach);
        if let Some((_, from)) = keep {
            // By the records' own time: a clock that is years ahead at the start removes nothing.
            let now = from.time.min(crate::clock::wall());
            let removed = journal.retain(now, RETENTION, from.first())?;
            if removed > 0 {
                tracing::info!(segments = removed, "journal segments past their retention were removed");
            }
        }
        Self::assemble(Box::new(journal), directory)
    }

    /// Folds a journal, from the last snapshot that the views reach.
    pub(crate) fn assemble(journal: Box<dyn Journal>, directory: PathBuf) -> Result<(Self, State), StartError> {
        let views = Views::open(&directory, VIEWS_VERSION)?;
        let reach = journal.head().sequence.min(views.as_of()?);
        let saved = snapshot::read_snapshot::<State>(&directory, SNAPSHOT_VERSION, reach);
        if saved.is_none() && views.as_of()? > Sequence(0) {
            views.clear()?;
        }
        let (at, mut state) = saved.unwrap_or_default();
        let mut store = Self {
            journal,
            views: Arc::new(views),
            directory,
            snapshot_at: at,
            snapshot_took: Duration::ZERO,
            snapshot_done: Instant::now(),
        };
        store.catch_up(&mut state)?;
        Ok((store, state))
    }

    pub(crate) fn reader(&self) -> Arc<dyn Reader> {
        self.journal.reader()
    }

    pub(crate) fn views(&self) -> Arc<Views> {
        Arc::clone(&self.views)
    }

    pub(crate) fn id(&self) -> stanch_core::JournalId {
        self.journal.id()
    }

    /// Folds what the journal has beyond the state, and shows it in the views.
    fn catch_up(&mut self, state: &mut State) -> Result<(), StartError> {
        let reader = self.journal.reader();
        loop {
            let entries = reader.read(state.sequence.next(), 1000)?;
            if entries.is_empty() {
                return Ok(());
            }
            let mut records = Vec::with_capacity(entries.len());
            let mut summaries = Summaries::default();
            for entry in entries {
                let at = state.sequence.next();
                let record =
                    entry.record().map_err(|error| StartError::Decode { sequence: at, reason: error.to_string() })?;
                if state.sequence == Sequence(0) {
                    // Retention may have removed the beginning.
                    state.sequence = Sequence(record.sequence.0 - 1);
                }
                let applied =
                    state.apply(&record).map_err(|source| StartError::Fold { sequence: record.sequence, source })?;
                summaries.runs.extend(applied.finished.iter().map(|run| RunSummary::of(run, state)));
                summaries.incidents.extend(applied.resolved.iter().map(|incident| IncidentSummary::of(incident)));
                records.push(record);
            }
            self.show(&records, &summaries, state.sequence);
        }
    }

    /// Appends a batch; once this returns `Ok` it is durable and the views show it.
    fn append(&mut self, batch: &Batch) -> Result<(), AppendError> {
        if batch.records.is_empty() {
            return Ok(());
        }
        let head = self.journal.append(batch.expected, &batch.records)?;
        self.show(&batch.records, &batch.summaries, head.sequence);
        Ok(())
    }

    fn show(&self, records: &[Record], summaries: &Summaries, as_of: Sequence) {
        let mut puts: Vec<(Table, Vec<u8>, Vec<u8>)> = Vec::new();
        for run in &summaries.runs {
            puts.push((Table::Runs, run.id.0.as_bytes().to_vec(), to_json(run)));
        }
        for incident in &summaries.incidents {
            puts.push((Table::Incidents, incident.id.0.as_bytes().to_vec(), to_json(incident)));
        }
        for record in records {
            match &record.body {
                Body::DeadLettered(body) => {
                    let summary = DeadLetterSummary::of(record, body);
                    puts.push((Table::DeadLetters, body.id.0.as_bytes().to_vec(), to_json(&summary)));
                }
                Body::DeadLetterReplayed(body) => {
                    let key = body.id.0.as_bytes().to_vec();
                    let known = puts.iter().rev().find(|(_, put, _)| *put == key).map(|(_, _, value)| value.clone());
                    let known = known.or_else(|| self.views.get(Table::DeadLetters, &key).ok().flatten());
                    if let Some(mut summary) =
                        known.and_then(|bytes| serde_json::from_slice::<DeadLetterSummary>(&bytes).ok())
                    {
                        summary.replayed_at = Some(record.time);
                        puts.push((Table::DeadLetters, key, to_json(&summary)));
                    }
                }
                _ => {}
            }
        }
        if puts.is_empty() {
            return;
        }
        // The journal is the truth: a view that could not be written is behind, and rebuilt at the next start.
        if let Err(error) = self.views.commit(as_of, &puts) {
            tracing::error!(%error, "the views could not be written; they will be rebuilt at the next start");
        }
    }

    /// After a failed append: opens the journal again and folds what it holds beyond `state`.
    fn reopen(&mut self, state: &mut State) -> Result<(), StartError> {
        self.journal.reopen()?;
        self.catch_up(state)
    }

    fn snapshot_if_due(&mut self, state: &State) {
        let due = state.sequence.0 - self.snapshot_at.0 >= RECORDS_PER_SNAPSHOT
            && self.snapshot_done.elapsed() >= self.snapshot_took * SNAPSHOT_SHARE;
        if due {
            self.snapshot(state);
        }
    }

    fn snapshot(&mut self, state: &State) {
        if state.sequence == self.snapshot_at {
            return;
        }
        let begun = Instant::now();
        // The views say that they reach this far before the snapshot does: a start takes a snapshot that they cover.
        let written = self.views.commit(state.sequence, &[]).map_err(|error| error.to_string()).and_then(|()| {
            snapshot::write_snapshot(&self.directory, SNAPSHOT_VERSION, state.sequence, state)
                .map_err(|error| error.to_string())
        });
        match written {
            Ok(()) => self.snapshot_at = state.sequence,
            Err(error) => {
                tracing::warn!(error, "no snapshot could be written; the next start folds more of the journal")
            }
        }
        self.snapshot_took = begun.elapsed();
        self.snapshot_done = Instant::now();
    }
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("summaries have text keys alone")
}

/// What the writer is asked to do.
pub(crate) enum Order {
    Append(Box<Batch>),
    /// Open again after a failure; the state is the last durable one.
    Reopen(Box<State>),
    /// Write a last snapshot and end.
    Close(Box<State>),
}

/// What the writer answers.
pub(crate) enum Done {
    Appended(Box<Batch>),
    Failed { error: AppendError },
    Reopened(Result<Box<State>, StartError>),
    Closed,
}

/// Starts the writer's thread; orders go in, an answer comes for each.
pub(crate) fn start_writer(mut store: Store) -> (std::sync::mpsc::Sender<Order>, mpsc::UnboundedReceiver<Done>) {
    let (orders, inbox) = std::sync::mpsc::channel::<Order>();
    // At most one order is under way, so the answers are bounded by the asker.
    let (answers, outbox) = mpsc::unbounded_channel();
    let run = move || {
        while let Ok(order) = inbox.recv() {
            let (done, snapshot_of) = match order {
                Order::Append(batch) => match store.append(&batch) {
                    Ok(()) => {
                        let state = (!batch.records.is_empty()).then(|| batch.state.clone());
                        (Done::Appended(batch), state)
                    }
                    Err(error) => (Done::Failed { error }, None),
                },
                Order::Reopen(mut state) => (Done::Reopened(store.reopen(&mut state).map(|()| state)), None),
                Order::Close(state) => {
                    store.snapshot(&state);
                    (Done::Closed, None)
                }
            };
            if answers.send(done).is_err() {
                return;
            }
            if let Some(state) = snapshot_of {
                store.snapshot_if_due(&state);
            }
        }
    };
    std::thread::Builder::new().name("journal".to_owned()).spawn(run).expect("a thread can be started");
    (orders, outbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_goes_by_the_time_of_the_last_record_in_the_snapshot() {
        let mut state = State::default();
        (state.time, state.sequence) = (Timestamp::from_millis(1_789_999_000_000), Sequence(7));
        let from: KeepFrom = serde_json::from_slice(&serde_json::to_vec(&state).unwrap()).unwrap();
        assert_eq!((from.time, from.first()), (state.time, Sequence(7)));
    }
}

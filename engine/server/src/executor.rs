//! The loop: inputs in, records out, and only then effects and replies.
//!
//! One task, one closed `Input`, one batch under way at the writer. While it is being flushed the next one fills; so the
//! cost of an fsync is shared by all that came meanwhile. Nothing that a batch decided leaves before the batch is durable,
//! and readers are shown durable states alone.

mod handle;
mod letters;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use stanch_core::attempt::{AttemptId, Purpose};
use stanch_core::clock::{apart, is_jump};
use stanch_core::record::{Actor, AttemptFailed, AttemptUnknown, Body, Record, RunOutcome, Then};
use stanch_core::run::{Place, Run};
use stanch_core::{Assignment, Command, Effect, Epoch, Outcome, Receipt, RunId, State, decide, outstanding};
use stanch_journal::AppendError;
use stanch_playbook::Timestamp;
use stanch_playbook::test_file::item_text;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::handle::Input;
pub use self::handle::{Handle, Health, Refused};
use self::letters::Allowance;
use crate::clock::{Clock, Look};
use crate::store::{Batch, Done, Order, Store, start_writer};
use crate::summary::{IncidentSummary, RunSummary};

/// How many inputs may wait. At some 20 us each, a full queue is a fraction of a second of work; what comes beyond it is
/// refused with 503, which Alertmanager sends again.
const QUEUE: usize = 4096;
/// How many inputs are decided before the loop looks at the writer again.
const DRAIN: usize = 512;
/// How many records a batch holds before it stops taking inputs.
const BATCH: usize = 8192;
/// How long nothing is tried after a failed append.
const PAUSE: Duration = Duration::from_secs(1);

/// Who carries out assignments.
pub trait Dispatch: Send + Sync + 'static {
    /// Executes an assignment to its end.
    fn execute(
        &self,
        assignment: Assignment,
        cancel: CancellationToken,
    ) -> impl Future<Output = Outcome> + Send + 'static;
}

impl Dispatch for stanch_workers::Worker {
    fn execute(
        &self,
        assignment: Assignment,
        cancel: CancellationToken,
    ) -> impl Future<Output = Outcome> + Send + 'static {
        let worker = self.clone();
        async move { Self::execute(&worker, assignment, cancel).await }
    }
}

/// Starts the loop on an opened store, with at most `attempts` under way at once. The first command it should be given is
/// `StartEngine`.
pub(crate) fn start<D: Dispatch>(store: Store, state: State, clock: Clock, worker: Arc<D>, attempts: usize) -> Handle {
    let clock = Arc::new(clock);
    let (inputs, inbox) = mpsc::channel(QUEUE);
    let (publish, durable) = watch::channel(Arc::new(state.clone()));
    let (health_sender, health) = watch::channel(Health::default());
    let (orders, done) = start_writer(store);
    let (notices, _) = broadcast::channel(NOTICES);
    let handle = Handle { inputs, durable, health, notices, clock: Arc::clone(&clock) };
    let executor = Executor {
        epoch_before: state.epoch,
        state,
        clock,
        open: Open::default(),
        under_way: None,
        orders,
        publish,
        health: health_sender,
        worker,
        places: Arc::new(Semaphore::new(attempts.clamp(1, Semaphore::MAX_PERMITS))),
        cancels: HashMap::new(),
        watchers: HashMap::new(),
        letters: Allowance::new(tokio::time::Instant::now()),
        timer: None,
        paused_until: None,
        handle: handle.clone(),
        stopping: None,
    };
    tokio::spawn(executor.run(inbox, done));
    handle
}

type Reply = (oneshot::Sender<Result<Receipt, Refused>>, Result<Receipt, Refused>);

/// The batch that fills.
#[derive(Default)]
struct Open {
    batch: Batch,
    after: After,
}

/// What is let go once a batch is durable.
#[derive(Default)]
struct After {
    effects: Vec<Effect>,
    replies: Vec<Reply>,
    finished: Vec<RunId>,
    /// Attempts whose result is in. Until that is durable they count as under way, or a failed append would have them
    /// dispatched twice.
    ended: Vec<AttemptId>,
}

struct Executor<D> {
    /// The epoch of the engine before this one.
    epoch_before: Epoch,
    /// The state with everything decided folded in, durable or not.
    state: State,
    clock: Arc<Clock>,
    open: Open,
    under_way: Option<After>,
    orders: std::sync::mpsc::Sender<Order>,
    publish: watch::Sender<Arc<State>>,
    health: watch::Sender<Health>,
    worker: Arc<D>,
    /// Places for attempts under way.
    places: Arc<Semaphore>,
    cancels: HashMap<AttemptId, CancellationToken>,
    watchers: HashMap<RunId, Vec<Arc<Watcher>>>,
    letters: Allowance,
    timer: Option<Timestamp>,
    paused_until: Option<tokio::time::Instant>,
    handle: Handle,
    stopping: Option<oneshot::Sender<()>>,
}

struct Watcher(std::sync::Mutex<(usize, Option<oneshot::Sender<()>>)>);

impl<D: Dispatch> Executor<D> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Input>, mut done: mpsc::UnboundedReceiver<Done>) {
        let mut inputs = Vec::with_capacity(DRAIN);
        self.timer = self.state.next_timer();
        loop {
            let room = self.open.batch.records.len() < BATCH;
            let sleep = timer_in(self.timer, &self.clock);
            tokio::select! {
                biased;
                Some(answer) = done.recv() => {
                    if self.written(answer) {
                        return;
                    }
                }
                _ = inbox.recv_many(&mut inputs, DRAIN), if room => {
                    for input in inputs.drain(..) {
                        self.take(input);
                    }
                }
                () = sleep, if room && self.paused_until.is_none() && self.has_begun() => self.fire(),
            }
            self.send();
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Command { mut command, reply } => {
                if let Some(until) = self.paused_until {
                    if tokio::time::Instant::now() < until {
                        let why = self.health.borrow().journal.clone().unwrap_or_default();
                        reply.send(Err(Refused::Unavailable(why))).ok();
                        return;
                    }
                    self.paused_until = None;
                }
                if let Command::FinishAttempt { attempt, .. } = &command {
                    self.open.after.ended.push(attempt.clone());
                }
                if let Command::KeepDeadLetter { letter, .. } = &mut command {
                    self.letters.admit(letter, tokio::time::Instant::now());
                }
                let result = self.decide(command);
                self.open.after.replies.push((reply, result));
            }
            Input::Watch { runs, reply } => {
                let durable = self.publish.borrow();
                let live: Vec<RunId> = runs.into_iter().filter(|run| durable.runs.contains_key(run)).collect();
                if live.is_empty() {
                    reply.send(()).ok();
                    return;
                }
                let watcher = Arc::new(Watcher(std::sync::Mutex::new((live.len(), Some(reply)))));
                for run in live {
                    self.watchers.entry(run).or_default().push(Arc::clone(&watcher));
                }
            }
            Input::Stop { reason, reply } => {
                self.decide(Command::StopEngine { reason }).ok();
                self.stopping = Some(reply);
            }
        }
    }

    fn fire(&mut self) {
        self.decide(Command::FireTimers).ok();
        // More may be due than one decision fires.
        self.timer = self.state.next_timer();
    }

    /// Whether the start of this engine is decided. Before that, a timer that came due while no engine ran would claim an attempt
    /// which the start then takes for one of the engine before it, and an attempt of that one would be sent again.
    fn has_begun(&self) -> bool {
        self.state.epoch > self.epoch_before
    }

    fn decide(&mut self, command: Command) -> Result<Receipt, Refused> {
        if !self.has_begun() && !matches!(command, Command::StartEngine { .. }) {
            return Err(Refused::Unavailable("the engine has not recorded its start yet".to_owned()));
        }
        // A start comes first in any case.
        let now = if matches!(command, Command::StartEngine { .. }) { self.clock.now() } else { self.time() };
        self.decide_at(command, now)
    }

    /// The time; a jump of the wall clock is recorded before anything else is.
    fn time(&mut self) -> Timestamp {
        let Look { now, jumped } = self.clock.look();
        if let Some(by_ms) = jumped {
            self.decide_at(Command::NoteClockJump { by_ms }, now).ok();
        }
        now
    }

    fn decide_at(&mut self, command: Command, now: Timestamp) -> Result<Receipt, Refused> {
        let decision = decide(&self.state, command, now)?;
        if decision.state.clock_jump != self.state.clock_jump {
            self.clock.follow(decision.state.clock_jump.as_ref());
        }
        if self.open.batch.records.is_empty() {
            self.open.batch.expected = self.state.sequence;
        }
        self.state = decision.state;
        let runs: Vec<RunSummary> = decision.finished.iter().map(|run| self.summary(run)).collect();
        let Open { batch, after } = &mut self.open;
        batch.records.extend(decision.records);
        batch.summaries.runs.extend(runs);
        batch.summaries.incidents.extend(decision.resolved.iter().map(|incident| IncidentSummary::of(incident)));
        after.finished.extend(decision.finished.iter().map(|run| run.id));
        after.effects.extend(decision.effects);
        Ok(decision.receipt)
    }

    fn summary(&self, run: &Run) -> RunSummary {
        // The plan of the last run of a replaced playbook is gone from the newest state and still in the published one.
        let published = self.publish.borrow();
        let state = if self.state.plan(run.plan).is_some() { &self.state } else { &**published };
        RunSummary::of(run, state)
    }

    /// Gives the filled batch to the writer, if that is free.
    fn send(&mut self) {
        if self.under_way.is_some() || self.paused_until.is_some_and(|until| tokio::time::Instant::now() < until) {
            return;
        }
        let open = std::mem::take(&mut self.open);
        if open.batch.records.is_empty() {
            // Nothing to write and nothing before it that is not durable: the answers may go.
            self.release(open.after);
            if self.stopping.is_some() {
                self.order(Order::Close(Box::new(self.state.clone())));
                self.under_way = Some(After::default());
            }
            return;
        }
        let mut batch = open.batch;
        batch.state = self.state.clone();
        self.under_way = Some(open.after);
        self.order(Order::Append(Box::new(batch)));
    }

    fn order(&self, order: Order) {
        // The writer ends after this loop does.
        self.orders.send(order).ok();
    }

    /// What the writer answered; says whether the loop is over.
    fn written(&mut self, done: Done) -> bool {
        let after = self.under_way.take().unwrap_or_default();
        match done {
            Done::Appended(batch) => {
                for record in &batch.records {
                    tell(record, &batch.state);
                    if is_notice(&record.body) {
                        // Nobody may be listening.
                        let _ = self.handle.notices.send(Arc::new(record.clone()));
                    }
                }
                self.publish.send_replace(Arc::new(batch.state));
                self.health.send_if_modified(|health| health.journal.take().is_some());
                self.release(after);
            }
            Done::Failed { error } => self.failed(after, &error),
            Done::Reopened(Ok(state)) => {
                self.state = *state;
                self.clock.revert(&self.state);
                self.publish.send_replace(Arc::new(self.state.clone()));
                // A batch of unknown outcome may have been written: what it finished is over.
                let over: Vec<RunId> =
                    self.watchers.keys().filter(|run| !self.state.runs.contains_key(*run)).copied().collect();
                for run in over {
                    self.tell_watchers(run);
                }
                self.resume();
            }
            Done::Reopened(Err(error)) => {
                tracing::error!(%error, "the journal could not be opened again; trying on");
                self.health.send_modify(|health| health.journal = Some(error.to_string()));
                self.pause();
                let durable = State::clone(&self.publish.borrow());
                self.under_way = Some(After::default());
                let orders = self.orders.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(PAUSE).await;
                    orders.send(Order::Reopen(Box::new(durable))).ok();
                });
            }
            Done::Closed => {
                if let Some(reply) = self.stopping.take() {
                    reply.send(()).ok();
                }
                return true;
            }
        }
        false
    }

    /// A failed append discards all that was decided on top of it.
    fn failed(&mut self, after: After, error: &AppendError) {
        tracing::error!(%error, "an append failed; what it held was not acknowledged");
        let why = error.to_string();
        self.health.send_modify(|health| health.journal = Some(why.clone()));
        let open = std::mem::take(&mut self.open);
        for (reply, result) in after.replies.into_iter().chain(open.after.replies) {
            reply.send(result.and(Err(Refused::Unavailable(why.clone())))).ok();
        }
        self.pause();
        let durable = State::clone(&self.publish.borrow());
        self.state = durable.clone();
        self.clock.revert(&self.state);
        match error {
            AppendError::Full(_) | AppendError::Refused { .. } => self.resume(),
            AppendError::Fenced { .. } | AppendError::OutcomeUnknown(_) | AppendError::Closed => {
                self.under_way = Some(After::default());
                self.order(Order::Reopen(Box::new(durable)));
            }
        }
    }

    fn pause(&mut self) {
        self.paused_until = Some(tokio::time::Instant::now() + PAUSE);
        let inputs = self.handle.inputs.clone();
        // Wakes the loop when the pause is over, also where nobody sends anything.
        tokio::spawn(async move {
            tokio::time::sleep(PAUSE).await;
            let (reply, _) = oneshot::channel();
            inputs.send(Input::Command { command: Command::FireTimers, reply }).await.ok();
        });
    }

    /// After a failure: what is outstanding and not under way is begun.
    fn resume(&mut self) {
        if !self.has_begun() {
            return;
        }
        let effects: Vec<Effect> = outstanding(&self.state).collect();
        for effect in effects {
            let known = matches!(&effect, Effect::DispatchAttempt(assignment) if self.cancels.contains_key(&assignment.attempt));
            if !known {
                self.act(effect);
            }
        }
    }

    fn release(&mut self, after: After) {
        for effect in after.effects {
            self.act(effect);
        }
        for (reply, result) in after.replies {
            reply.send(result).ok();
        }
        for attempt in after.ended {
            self.cancels.remove(&attempt);
        }
        for run in after.finished {
            self.tell_watchers(run);
        }
    }

    fn tell_watchers(&mut self, run: RunId) {
        for watcher in self.watchers.remove(&run).unwrap_or_default() {
            let mut waiting = watcher.0.lock().expect("no holder of this lock can panic");
            waiting.0 -= 1;
            if waiting.0 == 0
                && let Some(reply) = waiting.1.take()
            {
                reply.send(()).ok();
            }
        }
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::DispatchAttempt(assignment) => {
                let cancel = CancellationToken::new();
                self.cancels.insert(assignment.attempt.clone(), cancel.clone());
                let (worker, places) = (Arc::clone(&self.worker), Arc::clone(&self.places));
                tokio::spawn(attempt(worker, places, *assignment, cancel, self.handle.clone()));
            }
            Effect::CancelAttempt(attempt) => {
                if let Some(cancel) = self.cancels.get(&attempt) {
                    cancel.cancel();
                }
            }
            Effect::ArmTimer(at) => self.timer = Some(self.state.next_timer().map_or(at, |next| next.min(at))),
        }
    }
}

/// Carries an attempt to its end and brings the result in, however long the journal does not take it.
async fn attempt<D: Dispatch>(
    worker: Arc<D>,
    places: Arc<Semaphore>,
    assignment: Assignment,
    cancel: CancellationToken,
    handle: Handle,
) {
    let id = assignment.attempt.clone();
    let outcome = {
        // The semaphore is never closed.
        let _place = places.acquire_owned().await;
        worker.execute(assignment, cancel).await
    };
    loop {
        let command = Command::FinishAttempt { attempt: id.clone(), outcome: outcome.clone() };
        match handle.submit_patiently(command).await {
            Ok(_) | Err(Refused::Rejected(_)) => return,
            Err(Refused::Overloaded | Refused::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
        }
        if handle.inputs.is_closed() {
            return;
        }
    }
}

/// How many notices wait for whoever tells people of them.
const NOTICES: usize = 1_024;

/// Whether people are told of a record beyond the log.
const fn is_notice(body: &Body) -> bool {
    matches!(
        body,
        Body::IncidentEscalated(_)
            | Body::ApprovalEscalated(_)
            | Body::IncidentUpdateDue(_)
            | Body::WatchdogBarked(_)
            | Body::ClockJumped(_)
            | Body::Frozen(_)
            | Body::Unfrozen(_)
    )
}

/// Says in the log what somebody should look at. The state is the one that the record's batch led to.
fn tell(record: &Record, state: &State) {
    match &record.body {
        Body::RunFinished(body) if body.outcome == RunOutcome::Failed => {
            tracing::warn!(run = %body.run, "a run failed; stanch runs show {} says where", body.run);
        }
        Body::AttemptUnknown(AttemptUnknown { attempt, reason, then: Then::Ask | Then::Fail, .. })
            if attempt.purpose == Purpose::Undo =>
        {
            let id = containment_of(attempt, state);
            tracing::warn!(
                run = %attempt.run,
                step = %attempt.step,
                "it is unknown whether what a step did was taken back ({reason}); look, then: stanch inforce undo|end {id}"
            );
        }
        Body::AttemptFailed(AttemptFailed { attempt, error, then: Then::Fail, .. })
            if attempt.purpose == Purpose::Undo =>
        {
            let id = containment_of(attempt, state);
            tracing::warn!(
                run = %attempt.run,
                step = %attempt.step,
                "what a step did could not be taken back and stays in force ({error}): stanch inforce undo|end {id}"
            );
        }
        Body::AttemptUnknown(AttemptUnknown { attempt, reason, then: Then::Ask, .. }) => {
            let item = attempt.item.map(|item| format!(" --item {item}")).unwrap_or_default();
            let value = item_of(attempt, state).map(|value| format!(" for {value}")).unwrap_or_default();
            tracing::warn!(
                run = %attempt.run,
                step = %attempt.step,
                "it is unknown whether a step happened{value} ({reason}); look, then: stanch runs answer {} {}{item} succeeded|failed|retry",
                attempt.run,
                attempt.step
            );
        }
        Body::ApprovalRequested(body) => tracing::warn!(
            run = %body.run,
            step = %body.step,
            approval = %body.approval,
            "a run asks: {}; stanch approve|deny {}",
            body.prompt,
            body.approval
        ),
        Body::ApprovalEscalated(body) => tracing::warn!(
            run = %body.run,
            step = %body.step,
            approval = %body.approval,
            "{}; tell {}: stanch approve|deny {}",
            body.reason,
            body.people.join(", "),
            body.approval
        ),
        Body::IncidentEscalated(body) => {
            let people =
                if body.people.is_empty() { String::new() } else { format!("; tell {}", body.people.join(", ")) };
            tracing::warn!(incident = %body.incident, "{}{people}: stanch incidents show {}", body.reason, body.incident);
        }
        Body::IncidentUpdateDue(body) => {
            tracing::info!(incident = %body.incident, "those who follow the incident should be told how it stands");
        }
        Body::WatchdogBarked(body) => tracing::warn!(
            playbook = %body.playbook,
            watchdog = %body.watchdog,
            "no run has succeeded since that of {}",
            body.nominal
        ),
        Body::PlaybookObserved(body) => {
            tracing::info!(playbook = %body.playbook, key = %body.key, "would start, and only observes");
        }
        Body::ClockJumped(body) if is_jump(body.by_ms) => tracing::warn!(
            "the wall clock is {} the engine's; what is in force and the deadlines go by the old time for 10m, or until \
             stanch clock agree",
            apart(body.by_ms)
        ),
        Body::ClockJumped(_) => tracing::info!("the wall clock is right again"),
        Body::ClockAgreed(_) => {
            tracing::warn!("{} lets the engine's clock follow the wall clock", record.actor.as_str())
        }
        Body::Frozen(body) => tracing::warn!("frozen by {}: {}", record.actor.as_str(), body.reason),
        Body::Unfrozen(_) => tracing::warn!("unfrozen by {}", record.actor.as_str()),
        Body::UndoRequested(body) if body.run.is_none() && record.actor == Actor::engine() => {
            for of in body.containments.iter().filter_map(|id| state.inforce.get(id)) {
                let item = of.value.as_ref().map(|value| format!("[{}]", item_text(value))).unwrap_or_default();
                tracing::warn!(
                    playbook = %of.playbook,
                    run = %of.run,
                    step = %of.step,
                    containment = %of.id,
                    "{}{item} of {} is taken back: {}",
                    of.step,
                    of.playbook,
                    body.reason
                );
            }
        }
        Body::DeadLettered(body) if body.letter.code == "trigger.evaluation-failed" => {
            tracing::warn!(dead_letter = %body.id, "a playbook matched and could not start: {}", body.letter.reason);
        }
        _ => {}
    }
}

/// What the item is that an attempt is for.
fn item_of(attempt: &AttemptId, state: &State) -> Option<String> {
    let run = state.runs.get(&attempt.run)?;
    let step = state.plan(run.plan)?.step_index(&attempt.step)?;
    run.at(Place { step, item: attempt.item })?.value.as_deref().map(item_text)
}

/// The id of what an attempt was to take back; it stays in force where that failed.
fn containment_of(attempt: &AttemptId, state: &State) -> String {
    let containment = state.containment_at(attempt.run, &attempt.step, attempt.item);
    containment.map_or_else(|| "ID".to_owned(), |of| of.id.to_string())
}

async fn timer_in(at: Option<Timestamp>, clock: &Clock) {
    match at {
        Some(at) => tokio::time::sleep(at.since(clock.now())).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;

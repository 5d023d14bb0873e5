//! The keys of the language: one table for the checker and the JSON Schema.

/// A key and what it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub name: &'static str,
    pub shape: Shape,
    pub doc: &'static str,
    /// Whether what it stands in is refused without it.
    pub required: bool,
}

/// What a key holds, as the schema says it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    Name,
    Text,
    Template,
    Cel,
    Bool,
    Whole {
        least: u32,
        most: u32,
    },
    Factor,
    Duration,
    Word(&'static [&'static str]),
    Any,
    /// A list of texts, or one.
    Texts,
    Matchers,
    MapOf(&'static Shape),
    Object(&'static [Key]),
    ListOf(&'static Shape),
    /// What the schema defines under a name.
    Defined(&'static str),
    /// A map of steps, or names of the catalogue.
    Phase,
    /// A cron expression, or a map of what a schedule trigger takes.
    Schedule,
    /// Durations by name, as a map or as a list of maps.
    Monitoring,
    With,
}

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, doc, required: false }
}

pub(crate) const fn required(key: Key) -> Key {
    Key { required: true, ..key }
}

pub(crate) const MOST_ATTEMPTS: u32 = 100;
/// Items of a `foreach` that are under way at once.
pub(crate) const MOST_PARALLEL: u32 = 1_000;
/// Looks of one `until`: each is an attempt that is recorded.
pub(crate) const MOST_LOOKS: u128 = 10_000;
pub(crate) const MOST_ARTIFACTS: usize = 64;
pub(crate) const MOST_PEOPLE: usize = 64;
pub(crate) const MOST_RUNS: u32 = 10_000;
pub(crate) const MOST_STEPS: usize = 1_000;
pub(crate) const MOST_TRIGGERS: usize = 64;
pub(crate) const MOST_FACTOR: f64 = 100.0;

pub(crate) const PLAYBOOK: &[Key] = &[
    required(key(
        "playbook",
        Shape::Name,
        "The playbook's name: lower-case letters, digits, and - or _ inside; at most 63 characters.",
    )),
    key("description", Shape::Text, "One sentence of what it is for."),
    key(
        "severity",
        Shape::Word(&["P0", "P1", "P2", "P3"]),
        "The severity of the incidents that it opens; P0 is the gravest.",
    ),
    key("owner", Shape::Text, "The team that answers for it."),
    key(
        "triggers",
        Shape::ListOf(&Shape::Defined("trigger")),
        "Which events start it. Without any, a person alone can.",
    ),
    key("inputs", Shape::MapOf(&Shape::Object(INPUT)), "The typed inputs of a run, by name."),
    key(
        "defaults",
        Shape::Object(DEFAULTS),
        "What holds for every action step that does not say otherwise; waits are not reached.",
    ),
    key(
        "concurrency",
        Shape::Whole { least: 1, most: MOST_RUNS },
        "How many of its runs may be live at once; the others are queued.",
    ),
    key("incident", Shape::Object(INCIDENT), "How the incidents that it opens live."),
    key(
        "mode",
        Shape::Word(MODE),
        "Whether it does what it says (act, the default), or matches, plans, shows what it would do, and does nothing (observe).",
    ),
    key(
        "hold",
        Shape::Duration,
        "How long a run waits before its first step with side effects; not at all by default.",
    ),
    key(
        "monitoring",
        Shape::Monitoring,
        "Watchdogs of its schedule, by names of their own: each tells people when no run has succeeded within that time after it was due.",
    ),
    key("steps", Shape::Phase, "The one phase of a playbook that is a routine, not the answer to an incident."),
    key("detect", Shape::Phase, "The first phase: find out what is going on."),
    key("contain", Shape::Phase, "The second phase: stop it from spreading."),
    key("eradicate", Shape::Phase, "The third phase: remove the cause."),
    key("recover", Shape::Phase, "The fourth phase: return to normal."),
    key("finally", Shape::Phase, "Steps that run in any case, after the phases; run.outcome tells how these went."),
];

/// In place of `triggers`, in a document whose entries all are playbooks with `steps`.
pub(crate) const ROUTINE: &[Key] = &[key(
    "schedule",
    Shape::Schedule,
    "When it runs: a cron expression or an alias such as @weekly, or what a schedule trigger takes.",
)];

/// A document of several playbooks.
pub(crate) const SEVERAL: &[Key] = &[required(key(
    "playbooks",
    Shape::MapOf(&Shape::Defined("named_playbook")),
    "Several playbooks, each under its name.",
))];

pub(crate) const MODE: &[&str] = &["act", "observe"];

pub(crate) const INCIDENT: &[Key] = &[
    key("key", Shape::Template, "The incident's key for every trigger that has none of its own."),
    key(
        "on_repeat",
        Shape::Word(ON_REPEAT),
        "What a new alert with the key does while a run is live: it joins (attach, the default), one more run follows (queue), the run is cancelled and a new one starts (restart), or it is not looked at (ignore).",
    ),
    key(
        "on_resolved",
        Shape::Word(ON_RESOLVED),
        "What settled alerts do to a live run: nothing (continue, the default), it is cancelled (cancel), or what runs is finished and it goes on with recover (recover).",
    ),
    key("settle", Shape::Duration, "How long all alerts must have stayed resolved; the configured time by default."),
    key("slack", Shape::Object(INCIDENT_SLACK), "Where Slack hears of it."),
    key("escalation", Shape::Object(ESCALATION), "Who is told, and when; by default as the severity says."),
];

pub(crate) const ON_REPEAT: &[&str] = &["attach", "queue", "restart", "ignore"];
pub(crate) const ON_RESOLVED: &[&str] = &["continue", "cancel", "recover"];

pub(crate) const INCIDENT_SLACK: &[Key] = &[required(key("channel", Shape::Text, "The channel's name or id."))];

pub(crate) const ESCALATION: &[Key] = &[
    key("acknowledge_within", Shape::Duration, "Within what time somebody must take notice."),
    key("update_every", Shape::Duration, "How often those who follow the incident are told how it stands."),
    key("notify", Shape::ListOf(&Shape::Object(NOTIFY)), "Who is told after what time without an acknowledgement."),
];

pub(crate) const INPUT: &[Key] = &[
    required(key(
        "type",
        Shape::Word(&["string", "bool", "int", "number", "list", "map"]),
        "The type that a value must have; number takes ints too.",
    )),
    key("required", Shape::Bool, "Whether a run without it is refused."),
    key("default", Shape::Any, "What it is where nothing is given."),
    key("description", Shape::Text, "What it is for."),
];

pub(crate) const DEFAULTS: &[Key] = &[
    key(
        "timeout",
        Shape::Duration,
        "The limit for each attempt of an action, a verification or an undo; 2m by default.",
    ),
    key("retry", Shape::Object(RETRY), "How failed attempts are repeated; the attempts of an undo are not reached."),
    key(
        "on_unknown",
        Shape::Word(ON_UNKNOWN),
        "What an attempt leads to of which nobody knows whether it happened; those of an undo are not reached.",
    ),
    key("idempotent", Shape::Bool, "Whether repeating the actions of the steps is harmless."),
    key("runs_on", Shape::Text, "The pool of workers that executes the actions."),
];

/// What an unknown outcome may lead to where nothing verifies it.
pub(crate) const ON_UNKNOWN: &[&str] = &["retry", "ask", "fail"];
/// The same for a step.
pub(crate) const STEP_ON_UNKNOWN: &[&str] = &["retry", "verify", "ask", "fail"];

pub(crate) const RETRY: &[Key] = &[
    key("max_attempts", Shape::Whole { least: 1, most: MOST_ATTEMPTS }, "All attempts, the first included."),
    key("initial_interval", Shape::Duration, "The longest first delay; 1s by default."),
    key("backoff", Shape::Factor, "What the delay is multiplied by for each further attempt; 2 by default."),
    key("max_interval", Shape::Duration, "The longest delay of all; 60s by default."),
    key(
        "jitter",
        Shape::Word(&["full", "none"]),
        "Whether a delay is drawn between zero and its length (full), or is its length.",
    ),
    key(
        "if",
        Shape::Cel,
        "CEL over result (null where the attempt gave none), error (a text) and the rest; a failed attempt is repeated only where it is true.",
    ),
];

pub(crate) const TRIGGER: &[Key] = &[
    key("alertmanager", Shape::Object(ALERTMANAGER), "Alerts whose labels satisfy the matchers."),
    key("nats", Shape::Object(NATS), "Messages on a NATS subject."),
    key("schedule", Shape::Object(SCHEDULE), "Instants of a cron expression."),
    key("manual", Shape::Object(MANUAL), "A person's request."),
    key("if", Shape::Cel, "CEL over event and alert; the trigger matches only where it is true."),
    key(
        "key",
        Shape::Template,
        "The incident's key, rendered for each alert or event; by default the alert's identity.",
    ),
    key("inputs", Shape::MapOf(&Shape::Cel), "CEL for each input, over event, alert and alerts."),
    key(
        "group_wait",
        Shape::Duration,
        "How long alerts of one key are collected before their run starts; not at all by default.",
    ),
];

pub(crate) const TRIGGER_KINDS: [&str; 4] = ["alertmanager", "nats", "schedule", "manual"];

pub(crate) const ALERTMANAGER: &[Key] = &[
    required(key(
        "matchers",
        Shape::Matchers,
        "Alertmanager's own matchers, such as alertname=\"X\" or env=~\"prod|stage\"; all must match.",
    )),
    key("if", Shape::Cel, "As beside the trigger."),
];

pub(crate) const NATS: &[Key] = &[
    required(key("subject", Shape::Text, "The subject; * stands for one token, a final > for the rest.")),
    key("if", Shape::Cel, "As beside the trigger."),
];

pub(crate) const SCHEDULE: &[Key] = &[
    required(key(
        "cron",
        Shape::Text,
        "Five fields (minute, hour, day of month, month, day of week) or an alias such as @weekly.",
    )),
    key(
        "timezone",
        Shape::Text,
        "An IANA time zone; UTC by default. A time that a change of the clock leaves out fires once, right after the gap; one that occurs twice fires once, the first time.",
    ),
    key(
        "catch_up",
        Shape::Word(&["none", "last", "all"]),
        "Which instants fire late that the engine missed; none by default.",
    ),
];

pub(crate) const MANUAL: &[Key] = &[];

/// Beside the steps' names in a phase.
pub(crate) const PHASE: &[Key] = &[key(
    "on_failure",
    Shape::Word(&["stop", "undo"]),
    "What a failed step leads to: no further step starts, and finally runs; with undo, what the phase did is taken back first, the last first.",
)];

pub(crate) const STEP: &[Key] = &[
    key("needs", Shape::Texts, "The steps of the same phase that must be over first."),
    key("if", Shape::Cel, "CEL, decided once for the step; false skips it, an error fails it."),
    key(
        "foreach",
        Shape::Cel,
        "CEL that gives a list of at most 10,000 items: the step is done for each, which is item.",
    ),
    key(
        "max_parallel",
        Shape::Whole { least: 1, most: MOST_PARALLEL },
        "How many items of foreach are under way at once; 16 by default.",
    ),
    key("fail_fast", Shape::Bool, "Whether no further item of foreach begins once one has failed; false by default."),
    required(key("uses", Shape::Text, "The action.")),
    key("with", Shape::With, "The action's parameters."),
    key("env", Shape::MapOf(&Shape::Template), "Environment of an exec; the values may hold secrets."),
    key("secrets", Shape::Texts, "The only secrets that the step, its verification and its undo may use."),
    key(
        "artifacts",
        Shape::Texts,
        "Files that an exec leaves behind and that are kept with the run: literal paths, relative to $STANCH_ARTIFACTS, a directory of the attempt's own, or to the command's directory.",
    ),
    key("runs_on", Shape::Text, "The pool of workers that executes it; a worker of the engine itself by default."),
    key("budget", Shape::Text, "The budget that its targets count against; over it, the step waits for an approval."),
    key(
        "read_only",
        Shape::Bool,
        "Whether the action only looks, and so is idempotent and goes on where a freeze or hold keeps side effects back; overrules the action's own word.",
    ),
    key("idempotent", Shape::Bool, "Whether repeating the action is harmless; overrules the action's own word."),
    key("retry", Shape::Object(RETRY), "How failed attempts are repeated."),
    key(
        "on_unknown",
        Shape::Word(STEP_ON_UNKNOWN),
        "What an attempt leads to of which nobody knows whether it happened; verify lets the step's verification tell.",
    ),
    key(
        "timeout",
        Shape::Duration,
        "The limit for each attempt; for a wait, an approval and a sub-playbook, for the whole of it.",
    ),
    key(
        "on_timeout",
        Shape::Word(&["deny", "approve"]),
        "What an approval is that nobody decided in time; deny by default.",
    ),
    key("until", Shape::Cel, "CEL over result, item and the rest; the action is repeated until it is true."),
    key("every", Shape::Duration, "How long to wait before the action is repeated for until; 10s by default."),
    key("within", Shape::Duration, "Within what time until must be true; 10m by default."),
    key("verify", Shape::Defined("verify"), "What must hold before the step is done, and how to find out."),
    key("undo", Shape::Defined("undo"), "How the step is taken back."),
    key(
        "ends",
        Shape::Texts,
        "Earlier steps whose effects are final once this one has succeeded: they are not taken back any more.",
    ),
    key(
        "outputs",
        Shape::MapOf(&Shape::Cel),
        "CEL over result and the rest, for each output; steps.<name>.outputs has them, steps.<name>.items where the step has foreach.",
    ),
    key("continue_on_error", Shape::Bool, "Whether the run goes on where the step fails."),
    key(
        "accept",
        Shape::Texts,
        "Codes of warnings about this step, such as side-effect-unguarded, that somebody looked at and that are as they should be.",
    ),
];

pub(crate) const VERIFY: &[Key] = &[
    required(key(
        "uses",
        Shape::Text,
        "The action that finds out; it is repeated, so it must be idempotent, or say that it only looks.",
    )),
    key("with", Shape::With, "The action's parameters."),
    key("env", Shape::MapOf(&Shape::Template), "Environment of an exec; the values may hold secrets."),
    key("read_only", Shape::Bool, "Says that an action only looks which by its own word does more."),
    required(key(
        "until",
        Shape::Cel,
        "CEL over result, which is the verifying action's, and the rest; only then is the step done.",
    )),
    key("every", Shape::Duration, "How long to wait between two looks; 5s by default."),
    key("within", Shape::Duration, "Within what time it must hold; 2m by default."),
    key("timeout", Shape::Duration, "The limit for each look."),
];

pub(crate) const UNDO: &[Key] = &[
    required(key("uses", Shape::Text, "The action that takes it back.")),
    key("with", Shape::With, "The action's parameters; steps.<name> of the step itself has what it gave."),
    key("env", Shape::MapOf(&Shape::Template), "Environment of an exec; the values may hold secrets."),
    key("after", Shape::Duration, "After what time it is taken back by itself, unless a person extends it."),
    key("timeout", Shape::Duration, "The limit for each attempt."),
    key("idempotent", Shape::Bool, "Whether repeating it is harmless; overrules the action's own word."),
    key(
        "retry",
        Shape::Object(RETRY),
        "How failed attempts are repeated; 5 attempts by default where it is idempotent, else 1.",
    ),
    key(
        "on_unknown",
        Shape::Word(ON_UNKNOWN),
        "What an attempt leads to of which nobody knows whether it happened; retry by default where it is idempotent, else ask.",
    ),
];

/// In `notify` of an escalation and `escalate` of an approval.
pub(crate) const NOTIFY: &[Key] = &[
    required(key("after", Shape::Duration, "After what time.")),
    required(key("people", Shape::Texts, "Who is told: people, or groups as group:name.")),
];

pub(crate) const CATALOGUE: &[Key] = &[
    key("actions", Shape::MapOf(&Shape::Defined("named_action")), "Actions, by the names that uses can give."),
    key(
        "detectors",
        Shape::MapOf(&Shape::Defined("detector")),
        "Triggers, by the names that detect of the compact form can give.",
    ),
];

pub(crate) const NAMED_ACTION: &[Key] = &[
    key("description", Shape::Text, "One sentence of what it does."),
    key(
        "inputs",
        Shape::MapOf(&Shape::Object(INPUT)),
        "The typed inputs, which a step gives in with; a default can be a template over event, alert, alerts, incident and run.",
    ),
    required(key("uses", Shape::Text, "The built-in action that it is.")),
    key("with", Shape::With, "The parameters; inputs in their templates are those of this action."),
    key("env", Shape::MapOf(&Shape::Template), "Environment of an exec; the values may hold secrets."),
    key("artifacts", Shape::Texts, "Files that an exec leaves behind, unless the step says; as in a step."),
    key("retry", Shape::Object(RETRY), "How failed attempts are repeated, unless the step says."),
    key(
        "on_unknown",
        Shape::Word(STEP_ON_UNKNOWN),
        "What an attempt leads to of which nobody knows whether it happened, unless the step says.",
    ),
    key("read_only", Shape::Bool, "Whether it only looks, unless the step says; as in a step."),
    key("idempotent", Shape::Bool, "Whether repeating it is harmless, unless the step says."),
    key("timeout", Shape::Duration, "The limit for each attempt, unless the step says."),
    key("verify", Shape::Defined("verify"), "How it is verified, unless the step says."),
    key("undo", Shape::Defined("undo"), "How it is taken back, unless the step says."),
    key(
        "ends",
        Shape::Texts,
        "Other actions of the catalogue: what earlier steps did with them is final once this one has succeeded, and not taken back any more.",
    ),
    key("outputs", Shape::MapOf(&Shape::Cel), "CEL over result, for each output; a step can add more."),
    key(
        "accept",
        Shape::Texts,
        "Codes of warnings about any step that uses it, such as side-effect-unguarded, that somebody looked at and that are as they should be.",
    ),
];

pub(crate) const DETECTOR: &[Key] = &[
    key("description", Shape::Text, "One sentence of what it detects."),
    key("alertmanager", Shape::Object(ALERTMANAGER), "Alerts whose labels satisfy the matchers."),
    key("nats", Shape::Object(NATS), "Messages on a NATS subject."),
    key("if", Shape::Cel, "CEL over event and alert; it detects only where it is true."),
    key("key", Shape::Template, "The incident's key, rendered for each alert or event."),
    key("group_wait", Shape::Duration, "How long alerts of one key are collected before the run starts."),
];

//! The keys of the language: one table for the checker and the JSON Schema.

/// A key and what it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub name: &'static str,
    pub shape: Shape,
    pub doc: &'static str,
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
    Trigger,
    Phase,
    With,
}

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, doc }
}

pub(crate) const MOST_ATTEMPTS: u32 = 100;
pub(crate) const MOST_RUNS: u32 = 10_000;
pub(crate) const MOST_STEPS: usize = 1_000;
pub(crate) const MOST_TRIGGERS: usize = 64;
pub(crate) const MOST_FACTOR: f64 = 100.0;

pub(crate) const PLAYBOOK: &[Key] = &[
    key(
        "playbook",
        Shape::Name,
        "The playbook's name: lower-case letters, digits, and - or _ inside; at most 63 characters.",
    ),
    key("description", Shape::Text, "One sentence of what it is for."),
    key(
        "severity",
        Shape::Word(&["P0", "P1", "P2", "P3"]),
        "The severity of the incidents that it opens; P0 is the gravest.",
    ),
    key("owner", Shape::Text, "The team that answers for it."),
    key("triggers", Shape::ListOf(&Shape::Trigger), "Which events start it. Without any, a person alone can."),
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
    key("detect", Shape::Phase, "The first phase: find out what is going on."),
    key("contain", Shape::Phase, "The second phase: stop it from spreading."),
    key("eradicate", Shape::Phase, "The third phase: remove the cause."),
    key("recover", Shape::Phase, "The fourth phase: return to normal."),
    key("finally", Shape::Phase, "Steps that run in any case, after the phases; run.outcome tells how these went."),
];

pub(crate) const PLAYBOOK_LATER: &[&str] = &["incident", "mode", "playbooks", "group_wait", "hold"];

pub(crate) const INPUT: &[Key] = &[
    key(
        "type",
        Shape::Word(&["string", "bool", "int", "number", "list", "map"]),
        "The type that a value must have; number takes ints too.",
    ),
    key("required", Shape::Bool, "Whether a run without it is refused."),
    key("default", Shape::Any, "What it is where nothing is given."),
    key("description", Shape::Text, "What it is for."),
];

pub(crate) const DEFAULTS: &[Key] = &[
    key("timeout", Shape::Duration, "The limit for each attempt of an action; 2m by default."),
    key("retry", Shape::Object(RETRY), "How failed attempts are repeated."),
    key("on_unknown", Shape::Word(ON_UNKNOWN), "What an attempt leads to of which nobody knows whether it happened."),
    key("idempotent", Shape::Bool, "Whether repeating the actions is harmless."),
];

const ON_UNKNOWN: &[&str] = &["retry", "ask", "fail"];

pub(crate) const RETRY: &[Key] = &[
    key("max_attempts", Shape::Whole { least: 1, most: MOST_ATTEMPTS }, "All attempts, the first included."),
    key("initial_interval", Shape::Duration, "The longest first delay."),
    key("backoff", Shape::Factor, "What the delay is multiplied by for each further attempt."),
    key("max_interval", Shape::Duration, "The longest delay of all."),
    key(
        "jitter",
        Shape::Word(&["full", "none"]),
        "Whether a delay is drawn between zero and its length (full), or is its length.",
    ),
];

pub(crate) const RETRY_LATER: &[&str] = &["if"];

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
];

pub(crate) const TRIGGER_KINDS: [&str; 4] = ["alertmanager", "nats", "schedule", "manual"];
pub(crate) const TRIGGER_LATER: &[&str] = &["group_wait", "hold", "on_repeat", "mode"];

pub(crate) const ALERTMANAGER: &[Key] = &[
    key(
        "matchers",
        Shape::Matchers,
        "Alertmanager's own matchers, such as alertname=\"X\" or env=~\"prod|stage\"; all must match.",
    ),
    key("if", Shape::Cel, "As beside the trigger."),
];

pub(crate) const NATS: &[Key] = &[
    key("subject", Shape::Text, "The subject; * stands for one token, a final > for the rest."),
    key("if", Shape::Cel, "As beside the trigger."),
];

pub(crate) const SCHEDULE: &[Key] = &[
    key(
        "cron",
        Shape::Text,
        "Five fields (minute, hour, day of month, month, day of week) or an alias such as @weekly.",
    ),
    key("timezone", Shape::Text, "An IANA time zone; UTC by default."),
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
    Shape::Word(&["stop"]),
    "What a failed step leads to: no further step starts, and finally runs.",
)];

pub(crate) const STEP: &[Key] = &[
    key("needs", Shape::Texts, "The steps of the same phase that must be over first."),
    key("if", Shape::Cel, "CEL; false skips the step, an error fails it."),
    key("uses", Shape::Text, "The action."),
    key("with", Shape::With, "The action's parameters."),
    key("env", Shape::MapOf(&Shape::Template), "Environment of an exec; the values may hold secrets."),
    key("secrets", Shape::Texts, "The only secrets that the step may use."),
    key("idempotent", Shape::Bool, "Whether repeating the action is harmless; overrules the action's own word."),
    key("retry", Shape::Object(RETRY), "How failed attempts are repeated."),
    key("on_unknown", Shape::Word(ON_UNKNOWN), "What an attempt leads to of which nobody knows whether it happened."),
    key("timeout", Shape::Duration, "The limit for each attempt; for a wait, for the whole of it."),
    key(
        "outputs",
        Shape::MapOf(&Shape::Cel),
        "CEL over result and the rest, for each output; steps.<name>.outputs has them.",
    ),
    key("continue_on_error", Shape::Bool, "Whether the run goes on where the step fails."),
    key(
        "accept",
        Shape::Texts,
        "Codes of warnings about this step that somebody looked at and that are as they should be.",
    ),
];

pub(crate) const STEP_LATER: &[&str] = &[
    "foreach",
    "max_parallel",
    "undo",
    "verify",
    "runs_on",
    "artifacts",
    "on_timeout",
    "until",
    "every",
    "within",
    "hold",
];

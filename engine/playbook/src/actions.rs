//! The built-in actions' signatures: what they take, what they give, whether repeating them is harmless.
//!
//! Absent: what they do. That is the workers' part; a wait is the core's.

use serde_json::{Map, Value};

use crate::evaluate::{CompileError, Leaf, Node, ValueTemplate};

/// What an action takes and how it behaves.
#[derive(Debug)]
pub struct Signature {
    /// The name that `uses` gives.
    pub name: &'static str,
    /// What it does, and what `result` holds.
    pub doc: &'static str,
    /// What may stand in `with`.
    pub fields: &'static [Field],
    /// At least one of these must be given.
    pub any_of: &'static [&'static str],
    /// Whether repeating it is harmless, where the step does not say.
    pub idempotence: Idempotence,
}

/// One key of `with`.
#[derive(Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// What it holds.
    pub kind: FieldKind,
    /// Whether the action needs it.
    pub required: bool,
    /// Whether templates are refused, because the value decides what is executed.
    pub literal: bool,
    /// Whether `{{ secrets.name }}` may stand in its texts.
    pub secrets: bool,
}

/// What a key of `with` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// A text; rendered values are always texts.
    Text,
    /// Any JSON.
    Any,
    /// A map of any JSON.
    Map,
    /// A map of texts, written out in the playbook.
    Texts,
    /// A list of texts whose first is literal.
    Argv,
    /// A list of any JSON.
    List,
    /// A duration such as `30s`.
    Duration,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number of at least 1.
    Whole,
    /// True or false.
    Bool,
    /// A list of people, or of groups as `group:name`.
    People,
    /// A list of `{after, people}`.
    Escalate,
    /// A map of any JSON, written out.
    Written,
    /// The name of a playbook.
    Playbook,
    /// The name of a step that can be taken back.
    Step,
    /// Literal paths, relative to the directory of the command; stands beside `with`, not in it.
    Paths,
    /// What a wait waits for: the word `resolved`, or `nats: {subject, if}`, or `alertmanager: {matchers, if}`.
    Awaited,
}

/// Whether repeating an action is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotence {
    /// Always.
    Yes,
    /// Not unless the step says so.
    No,
    /// As HTTP says of the method.
    ByMethod,
    /// Unless `operation` is this word.
    Except(&'static str),
}

const fn field(name: &'static str, kind: FieldKind, doc: &'static str) -> Field {
    Field { name, doc, kind, required: false, literal: false, secrets: false }
}

const fn required(field: Field) -> Field {
    Field { required: true, ..field }
}

const fn literal(field: Field) -> Field {
    Field { literal: true, ..field }
}

const SILENCES: &[&str] = &["create", "extend", "expire"];
const OPERATIONS: &[&str] = &["label", "cordon", "uncordon", "scale", "rollout-restart", "delete-pod"];
const KINDS: &[&str] = &["pod", "node", "namespace", "service", "deployment", "statefulset", "daemonset", "replicaset"];
const EVENTS: &[&str] = &["trigger", "acknowledge", "resolve"];
const SEVERITIES: &[&str] = &["critical", "error", "warning", "info"];
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// All built-in actions.
pub static ALL: &[Signature] = &[
    Signature {
        name: "log",
        doc: "Write a line to the engine's log. The result has message.",
        fields: &[
            required(field("message", FieldKind::Text, "The line.")),
            literal(field("level", FieldKind::Word(&["debug", "info", "warn", "error"]), "How loud; info by default.")),
        ],
        any_of: &[],
        idempotence: Idempotence::Yes,
    },
    Signature {
        name: "http",
        doc: "Send an HTTP request. The result has status, headers and body.",
        fields: &[
            literal(field("method", FieldKind::Word(METHODS), "The method; GET by default.")),
            required(field("url", FieldKind::Text, "The URL.")),
            field("query", FieldKind::Map, "Parameters of the query; a list repeats its key."),
            Field { secrets: true, ..field("headers", FieldKind::Texts, "Headers; their values may hold secrets.") },
            field("body", FieldKind::Any, "The body: a text as it is, anything else as JSON."),
        ],
        any_of: &[],
        idempotence: Idempotence::ByMethod,
    },
    Signature {
        name: "exec",
        doc: "Run a command without a shell. The result has exit_code, stdout and stderr, and artifacts as {path: {size, sha256, content_base64}}.",
        fields: &[
            required(field("argv", FieldKind::Argv, "The program and its arguments.")),
            field("stdin", FieldKind::Text, "What it reads from standard input."),
            literal(field("cwd", FieldKind::Text, "The directory to run in.")),
            literal(field(
                "artifacts",
                FieldKind::Paths,
                "The files that it leaves behind and that are kept with the run.",
            )),
        ],
        any_of: &[],
        idempotence: Idempotence::No,
    },
    Signature {
        name: "slack",
        doc: "Post a Slack message. The result has channel and ts, which are null where a webhook is configured.",
        fields: &[
            field("channel", FieldKind::Text, "The channel; the configured one by default."),
            field("text", FieldKind::Text, "The message."),
            field("blocks", FieldKind::List, "The message as Slack's blocks."),
        ],
        any_of: &["text", "blocks"],
        idempotence: Idempotence::No,
    },
    Signature {
        name: "nats.publish",
        doc: "Publish a NATS message. The result has data: where a stream took it, its stream, sequence and duplicate; else null.",
        fields: &[
            required(field("subject", FieldKind::Text, "The subject.")),
            field("data", FieldKind::Any, "The payload: a text as it is, anything else as JSON."),
            field("headers", FieldKind::Texts, "Headers of the message."),
        ],
        any_of: &[],
        idempotence: Idempotence::No,
    },
    Signature {
        name: "nats.request",
        doc: "Send a NATS request and wait for the reply. The result has data.",
        fields: &[
            required(field("subject", FieldKind::Text, "The subject.")),
            field("data", FieldKind::Any, "The payload: a text as it is, anything else as JSON."),
            field("headers", FieldKind::Texts, "Headers of the message."),
        ],
        any_of: &[],
        idempotence: Idempotence::No,
    },
    Signature {
        name: "prometheus",
        doc: "Ask Prometheus an instant query. The result has value (of the first sample, or null), samples as {labels, value}, count and empty.",
        fields: &[
            required(field("query", FieldKind::Text, "The query, in PromQL.")),
            field("url", FieldKind::Text, "The Prometheus server; the configured one by default."),
        ],
        any_of: &[],
        idempotence: Idempotence::Yes,
    },
    Signature {
        name: "alertmanager.silence",
        doc: "Create, extend or expire an Alertmanager silence. The result has id and until.",
        fields: &[
            literal(field("operation", FieldKind::Word(SILENCES), "What to do; create by default.")),
            field(
                "matchers",
                FieldKind::Any,
                "What to silence, to create: a map of labels and values, or a list of matchers.",
            ),
            field("id", FieldKind::Text, "The silence, to extend or expire."),
            field("duration", FieldKind::Duration, "How long from now on, to create or extend."),
            field("comment", FieldKind::Text, "Why; names the playbook by default."),
            field("created_by", FieldKind::Text, "Who; stanch by default."),
            field("url", FieldKind::Text, "The Alertmanager; the configured one by default."),
        ],
        any_of: &["matchers", "id"],
        idempotence: Idempotence::Yes,
    },
    Signature {
        name: "kubernetes",
        doc: "Change an object of a Kubernetes cluster. The result has kind, namespace, name, changed, before and after; of delete-pod, namespace, pods and count.",
        fields: &[
            required(literal(field("operation", FieldKind::Word(OPERATIONS), "What to do."))),
            literal(field(
                "kind",
                FieldKind::Word(KINDS),
                "The object's kind; for cordon and uncordon a node, for delete-pod a pod, for scale and rollout-restart a deployment by default.",
            )),
            field("namespace", FieldKind::Text, "The object's namespace; default by default."),
            field("name", FieldKind::Text, "The object's name."),
            field(
                "selector",
                FieldKind::Text,
                "The pods to delete, by their labels: app=web,tier!=cache; instead of name.",
            ),
            field("labels", FieldKind::Map, "The labels to set; null removes one."),
            field("replicas", FieldKind::Text, "How many replicas, to scale."),
        ],
        any_of: &["name", "selector"],
        idempotence: Idempotence::Except("delete-pod"),
    },
    Signature {
        name: "email",
        doc: "Send a mail. The result has message_id and to.",
        fields: &[
            required(field("to", FieldKind::Any, "Who gets it: an address, or a list of addresses.")),
            required(field("subject", FieldKind::Text, "The subject.")),
            required(field("text", FieldKind::Text, "The text.")),
        ],
        any_of: &[],
        idempotence: Idempotence::No,
    },
    Signature {
        name: "report",
        doc: "Tell the run so far as a text for people. The result has title and markdown.",
        fields: &[literal(field("format", FieldKind::Word(&["markdown"]), "How it is written; markdown by default."))],
        any_of: &[],
        idempotence: Idempotence::Yes,
    },
    Signature {
        name: "pagerduty",
        doc: "Trigger, acknowledge or resolve a PagerDuty alert. The result has dedup_key, status and message.",
        fields: &[
            literal(field("operation", FieldKind::Word(EVENTS), "What to do; trigger by default.")),
            field("summary", FieldKind::Text, "What is wrong, to trigger."),
            literal(field("severity", FieldKind::Word(SEVERITIES), "How bad; critical by default.")),
            field("source", FieldKind::Text, "What it is about; the playbook by default."),
            field("component", FieldKind::Text, "The part that is affected."),
            field("group", FieldKind::Text, "What the part belongs to."),
            field("details", FieldKind::Map, "Whatever else to show."),
            field("dedup_key", FieldKind::Text, "Which alert; a new one of its own by default, to trigger."),
            Field {
                secrets: true,
                ..field(
                    "routing_key",
                    FieldKind::Text,
                    "The integration's key, which may be a secret; the configured one by default.",
                )
            },
        ],
        any_of: &["summary", "dedup_key"],
        idempotence: Idempotence::Yes,
    },
    Signature {
        name: WAIT,
        doc: "Wait for a length of time, or for the incident's alerts to stay resolved.",
        fields: &[
            field("duration", FieldKind::Duration, "How long to wait."),
            literal(field(
                "for",
                FieldKind::Awaited,
                "What to wait for: resolved, or an event as a trigger has it: {nats: {subject, if}}, {alertmanager: {matchers, if}}.",
            )),
            literal(field(
                "settle",
                FieldKind::Duration,
                "How long the alerts must have stayed resolved; 30s by default.",
            )),
        ],
        any_of: &["duration", "for"],
        idempotence: Idempotence::Yes,
    },
    Signature {
        name: APPROVAL,
        doc: "Ask people whether the steps that need this one may do what they would. They see exactly what that is: what the steps that name this one in needs would do. Where its own if is false nobody is asked, and those steps start.",
        fields: &[
            required(field("prompt", FieldKind::Text, "The question.")),
            literal(field(
                "from",
                FieldKind::People,
                "Who may decide: people, or groups as group:name; by default everybody.",
            )),
            literal(field("quorum", FieldKind::Whole, "How many must agree; 1 by default.")),
            literal(field(
                "allow_self",
                FieldKind::Bool,
                "Whether whoever started the run may decide; false by default.",
            )),
            literal(field(
                "escalate",
                FieldKind::Escalate,
                "Who is told after what time without a decision: [{after: 5m, people: [ann]}].",
            )),
        ],
        any_of: &[],
        idempotence: Idempotence::Yes,
    },
    Signature {
        name: PLAYBOOK,
        doc: "Run another playbook in the same incident, and wait for its end. The result has run, outcome and steps.",
        fields: &[
            required(literal(field("playbook", FieldKind::Playbook, "The other playbook's name."))),
            field("inputs", FieldKind::Written, "Its inputs."),
        ],
        any_of: &[],
        idempotence: Idempotence::Yes,
    },
    Signature {
        name: UNDO,
        doc: "Take back what another step of this run did, the last first.",
        fields: &[required(literal(field(
            "step",
            FieldKind::Step,
            "The other step's name; it must have an undo, or run a playbook that has one.",
        )))],
        any_of: &[],
        idempotence: Idempotence::Yes,
    },
];

/// The actions that the core keeps itself.
pub const WAIT: &str = "wait";
/// A question to people.
pub const APPROVAL: &str = "approval";
/// A run of another playbook.
pub const PLAYBOOK: &str = "playbook";
/// Taking back what another step did.
pub const UNDO: &str = "undo";

/// Whether the core keeps the action itself: it has no attempts.
#[must_use]
pub fn is_kept_by_core(name: &str) -> bool {
    [WAIT, APPROVAL, PLAYBOOK, UNDO].contains(&name)
}

/// The signature of a built-in action.
#[must_use]
pub fn find(name: &str) -> Option<&'static Signature> {
    ALL.iter().find(|signature| signature.name == name)
}

impl Signature {
    /// The field of a name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Whether repeating it with these parameters is harmless.
    #[must_use]
    pub fn idempotent(&self, with: &Map<String, Value>) -> bool {
        match self.idempotence {
            Idempotence::Yes => true,
            Idempotence::No => false,
            Idempotence::Except(word) => with.get("operation").and_then(Value::as_str) != Some(word),
            Idempotence::ByMethod => {
                let method = with.get("method").and_then(Value::as_str).unwrap_or("GET");
                ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"].contains(&method)
            }
        }
    }

    /// Whether it changes anything beyond the run: looking, logging, reporting and telling people do not.
    ///
    /// Not the same as whether repeating it is harmless: isolating a host twice is, isolating it is not.
    #[must_use]
    pub fn acts(&self, with: &Map<String, Value>) -> bool {
        match self.idempotence {
            Idempotence::ByMethod => {
                let method = with.get("method").and_then(Value::as_str).unwrap_or("GET");
                !["GET", "HEAD", "OPTIONS"].contains(&method)
            }
            Idempotence::Yes | Idempotence::No | Idempotence::Except(_) => {
                !["log", "prometheus", "report", "slack", "email", "pagerduty"].contains(&self.name)
            }
        }
    }

    /// Compiles parameters that were checked.
    pub(crate) fn compile(&self, with: &Map<String, Value>) -> Result<ValueTemplate, CompileError> {
        let fields = with.iter().map(|(name, value)| {
            let leaf = self.field(name).map_or(Leaf::Text, Field::leaf);
            Ok((name.clone(), Node::tree(value, leaf)?))
        });
        fields.collect::<Result<_, _>>().map(|fields| ValueTemplate::new(Node::Map(fields)))
    }
}

impl Field {
    /// How its texts are rendered.
    pub(crate) fn leaf(&self) -> Leaf {
        match self.kind {
            FieldKind::Any | FieldKind::Map | FieldKind::Written | FieldKind::List => Leaf::Typed,
            FieldKind::Text
            | FieldKind::Texts
            | FieldKind::Argv
            | FieldKind::Duration
            | FieldKind::Word(_)
            | FieldKind::Whole
            | FieldKind::Bool
            | FieldKind::Playbook
            | FieldKind::Step
            | FieldKind::Paths
            | FieldKind::People
            | FieldKind::Escalate
            | FieldKind::Awaited => {
                if self.secrets {
                    Leaf::Secret
                } else {
                    Leaf::Text
                }
            }
        }
    }
}

/// Programs that take a script as text, and the letter of the option before it.
const INTERPRETERS: [(&str, char); 13] = [
    ("sh", 'c'),
    ("bash", 'c'),
    ("dash", 'c'),
    ("ash", 'c'),
    ("zsh", 'c'),
    ("ksh", 'c'),
    ("fish", 'c'),
    ("python", 'c'),
    ("python3", 'c'),
    ("perl", 'e'),
    ("ruby", 'e'),
    ("node", 'e'),
    ("php", 'r'),
];

/// The index of an argument that an interpreter would run as its program although a template is in it.
pub(crate) fn templated_script(argv: &[&str]) -> Option<usize> {
    let base = |text: &str| text.rsplit('/').next().unwrap_or_default().to_owned();
    let (at, letter) = argv.iter().enumerate().find_map(|(at, text)| {
        let (_, letter) = INTERPRETERS.iter().find(|(name, _)| *name == base(text))?;
        Some((at, *letter))
    })?;
    // Options come before the program: a template among them, or as the program itself, decides what runs.
    for (index, text) in argv.iter().enumerate().skip(at + 1) {
        if text.contains("{{") {
            return Some(index);
        }
        let takes_script = text.starts_with('-') && !text.starts_with("--") && text.contains(letter);
        if takes_script {
            return argv.get(index + 1).filter(|script| script.contains("{{")).map(|_| index + 1);
        }
        if !text.starts_with('-') {
            return None;
        }
    }
    None
}

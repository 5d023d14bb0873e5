//! The reference of the language, written from the tables that the checker uses.
//!
//! Its examples are documents of their own: whoever reads them can load them.

use std::fmt::Write as _;

use crate::actions::{self, Field, FieldKind, Idempotence};
use crate::evaluate::{Function, GLOBAL, OF_VALUES};
use crate::keys::{self, Key, Shape};
use crate::test_keys;

/// The reference as Markdown: every key with what it holds, what it means, and an example in the same section.
#[must_use]
pub fn reference() -> String {
    let mut out = String::new();
    page(&mut out).expect("writing to a text cannot fail");
    out
}

const HEAD: &str = "\
# The playbook language

Written from the tables that the checker uses; `STANCH_WRITE=1 cargo nextest run -p stanch-playbook` makes it again. Every
example below is loaded by a test. The keys of `stanch.yaml`, with what they hold, are in `schemas/config.schema.json` (`stanch schema config`).

A document is YAML 1.2 of at most 1 MiB: `on`, `yes` and `no` are texts, and merge keys (`<<`) and tags are refused. A text that
begins with `{{`, `!`, `@`, `*` or `&`, or holds `: `, needs quotes. Unknown and duplicate keys are errors. Durations are `30s`, `5m`,
`24h`, `1h30m` (`ms`, `s`, `m`, `h`, `d`).

Keys that carry text are *templates* ([Handlebars](https://handlebarsjs.com)); keys that compute are *CEL* ([cel.dev](https://cel.dev)).
";

const NAMES: &str = "\
## Names, templates and CEL

| name | where | what it has |
| --- | --- | --- |
| `event` | everywhere | `id`, `source`, `type`, `time`, `subject`, `data`; in `if` of a wait for an event, the awaited one |
| `alert` | where an alert can have started the run | `labels`, `annotations`, `starts_at`, `fingerprint`, `source`, `generator_url` |
| `alerts` | as `alert` | the alerts that started the run: those of its key that the incident did not have yet, of one delivery, of `group_wait`, or come while it was queued; `alert` is the first, and `incident.alerts` has all |
| `incident` | in steps | `id`, `key`, `severity`, `owner`, `title`, `alerts`, `url` |
| `run` | in steps | `id`, `playbook`, `url`, and in `finally` `outcome` |
| `inputs` | in steps; in the catalogue, those of the action | the inputs by name |
| `steps.X` | in steps that start when X is over for certain | `state`, `outputs`, `error`; `state`, `items`, `error` where X has `foreach` |
| `steps.X.items` | as `steps.X` | a list of `item`, `state`, `outputs` and `error`, in the order of the list |
| `item` | in a step with `foreach`: `with`, `env`, `until`, `retry.if`, `verify`, `undo`, `outputs` | the item |
| `result` | `outputs`, `until`, `undo`, `retry.if` | what the action gave; in `verify`, what the verifying action gave |
| `error` | `retry.if` | the text of a failed attempt |
| `secrets.X` | `headers` and `env` | an opaque mark that the worker alone resolves |

In `undo`, `steps.X` of the step itself is what it gave, of the item that is taken back where it has `foreach`; `result` is what its
action gave, which an action of the catalogue can name too. Where nobody knows whether it happened, there is no result: an undo that
needs one does not exist then.

**Templates** are strict: a name without a value is an error, found when the playbook is loaded where it can be. They are rendered once,
so braces in data stay braces. In `with`, a value that is one lone path (`\"{{ inputs.hosts }}\"`) keeps its JSON type, except in keys
that hold a text. Helpers: `json`, `count`, `join list \", \"`, `default value \"other\"`, `upper`, `lower`, `trim`, `lookup`, `len`, `eq`, `ne`, `gt`,
`gte`, `lt`, `lte`, `and`, `or`, `not`; blocks: `if`, `unless`, `each`, `with`, `raw`. A template has at most 8 KiB, and its text 256 KiB.

**CEL** has the standard library, with the functions of strings and of `math`. An expression has at most 2 KiB, 200 operators and two
comprehensions inside each other, and sees lists of at most 20,000 items. A name with a dash needs brackets: `steps['ask-each']`. A call of
a function that does not exist is refused when the playbook is loaded. In YAML's double quotes `\\n` is a line break before CEL sees it:
write `'result.stdout.split(\"\\n\")'`, in single quotes.

`parse_json(text)` is the value of a JSON text, such as `parse_json(result.stdout).items.size()`; of at most 2 MiB in one expression. A
text that is no JSON is an error.
";

type Result = std::fmt::Result;

fn page(out: &mut String) -> Result {
    out.push_str(HEAD);

    section(out, "Playbook", "A playbook answers an incident in four phases, or is a routine in one.")?;
    table(out, keys::PLAYBOOK)?;
    example(out, include_str!("reference/playbook.yaml"))?;
    example(out, include_str!("reference/routine.yaml"))?;

    section(out, "Inputs", "`inputs.<name>` of a playbook.")?;
    table(out, keys::INPUT)?;
    example(out, include_str!("reference/inputs.yaml"))?;

    section(
        out,
        "Triggers",
        "An entry of `triggers`. It listens to one of `alertmanager`, `nats`, `schedule` and `manual`; each event that it matches starts a run, or joins the incident of its key.",
    )?;
    table(out, keys::TRIGGER)?;
    part(out, "alertmanager", keys::ALERTMANAGER)?;
    part(out, "nats", keys::NATS)?;
    part(out, "schedule", keys::SCHEDULE)?;
    example(out, include_str!("reference/triggers.yaml"))?;

    section(out, "Incident", "`incident` of a playbook.")?;
    table(out, keys::INCIDENT)?;
    part(out, "slack", keys::INCIDENT_SLACK)?;
    part(out, "escalation", keys::ESCALATION)?;
    part(out, "notify (and `escalate` of an approval)", keys::NOTIFY)?;
    example(out, include_str!("reference/incident.yaml"))?;

    section(out, "Defaults", "`defaults` of a playbook.")?;
    table(out, keys::DEFAULTS)?;
    example(out, include_str!("reference/defaults.yaml"))?;

    section(
        out,
        "Phases",
        "A phase is a map of steps by name, or a list of names of the catalogue (see the compact form). Phases run in order, each a barrier; inside a phase all steps run at once, ordered by `needs` alone. Beside the steps' names stands:",
    )?;
    table(out, keys::PHASE)?;
    example(out, include_str!("reference/phase.yaml"))?;

    section(
        out,
        "Steps",
        "An action that is not idempotent is tried once, and where nobody knows whether it happened, a person is asked, unless the step says otherwise. An idempotent one has three attempts.",
    )?;
    table(out, keys::STEP)?;
    part(out, "retry", keys::RETRY)?;
    part(out, "verify", keys::VERIFY)?;
    part(out, "undo", keys::UNDO)?;
    example(out, include_str!("reference/step.yaml"))?;

    section(out, "Actions", "What `uses` can name, beside the names of the catalogue, with the keys of `with`.")?;
    for signature in actions::ALL {
        let repeated = match signature.idempotence {
            _ if actions::is_kept_by_core(signature.name) => {
                "The engine keeps it itself: it has no attempts.".to_owned()
            }
            Idempotence::Yes => "It is idempotent.".to_owned(),
            Idempotence::No => "It is not idempotent, unless the step says so.".to_owned(),
            Idempotence::ByMethod => "It is idempotent as HTTP says of its method.".to_owned(),
            Idempotence::Except(operation) => format!("It is idempotent, but for `operation: {operation}`."),
        };
        writeln!(out, "\n### {}\n\n{} {repeated}\n", signature.name, signature.doc)?;
        fields(out, signature.fields)?;
    }
    example(out, include_str!("reference/actions.yaml"))?;

    writeln!(out, "\n{}", NAMES.trim_end())?;
    let names = |of: &[Function]| of.iter().map(|of| format!("`{}`", of.name)).collect::<Vec<_>>().join(", ");
    writeln!(
        out,
        "\nThe functions are {}; and of values, such as `result.stdout.trim()`: {}.",
        names(GLOBAL),
        names(OF_VALUES)
    )?;
    example(out, include_str!("reference/names.yaml"))?;

    section(
        out,
        "The compact form",
        "A phase may be a list, or one text with commas, of names of the catalogue. They run in the order written, each once the one before is over; a name that repeats gets a suffix (`block_ip_2`). An item `wait_...: 24h` is a wait. In `detect`, a detector's name brings its trigger. One document may hold several playbooks:",
    )?;
    table(out, keys::SEVERAL)?;
    example(out, include_str!("reference/compact.yaml"))?;
    writeln!(
        out,
        "\nA document all of whose entries have `steps` holds routines, each under its name. Beside the keys of a playbook they have:\n"
    )?;
    table_rows(out, keys::ROUTINE)?;
    example(out, include_str!("reference/routines.yaml"))?;

    section(
        out,
        "The catalogue",
        "A file `*.catalogue.yaml` gives names a meaning. Actions and detectors have names of their own, which are no built-in action's.",
    )?;
    table(out, keys::CATALOGUE)?;
    part(out, "actions", keys::NAMED_ACTION)?;
    part(out, "detectors", keys::DETECTOR)?;
    writeln!(
        out,
        "\nThe templates and the conditions of an action (`outputs`, `retry.if`, `until` of its `verify`) see its inputs, which are rendered first, and no steps of a playbook. What a step says itself (`timeout`, `retry`, `read_only`, `idempotent`, `on_unknown`, `verify`, `undo`, an output of the same name) overrules the catalogue, and sees the playbook's inputs."
    )?;
    example(out, include_str!("reference/catalogue.yaml"))?;
    example(out, include_str!("reference/named.yaml"))?;

    section(
        out,
        "Tests",
        "A file `*.test.yaml` says what its author expects of playbooks; `stanch test` runs it on a virtual clock, and nothing is done. A step is written by its name, `phase.name`, or `playbook/step` for one of a sub-playbook.",
    )?;
    table(out, test_keys::FILE)?;
    part(out, "people", test_keys::PERSON)?;
    part(out, "tests", test_keys::TEST)?;
    part(out, "event (and `emit` of a moment)", test_keys::EVENT)?;
    part(out, "alert, alerts", test_keys::ALERT)?;
    part(out, "nats", test_keys::NATS)?;
    part(out, "maintenance", test_keys::MAINTENANCE)?;
    part(out, "mocks", test_keys::MOCK)?;
    writeln!(out, "\nBeside these, where it is a step's:")?;
    table(out, test_keys::STEP_MOCK)?;
    part(out, "then", test_keys::MOMENT)?;
    part(out, "approve, deny", test_keys::DECISION)?;
    part(out, "expect", test_keys::EXPECT)?;
    part(out, "approvals of expect", test_keys::ASKED)?;
    part(out, "calls of expect", test_keys::CALLS)?;
    example(out, include_str!("reference/tested.yaml"))?;
    writeln!(out, "\nTests of this playbook, and of the one under Triggers:")?;
    example(out, include_str!("reference/tests.yaml"))
}

fn section(out: &mut String, title: &str, text: &str) -> Result {
    writeln!(out, "\n## {title}\n\n{text}")
}

fn part(out: &mut String, title: &str, keys: &[Key]) -> Result {
    writeln!(out, "\n### {title}")?;
    table(out, keys)
}

fn example(out: &mut String, text: &str) -> Result {
    writeln!(out, "\n```yaml\n{}\n```", text.trim_end())
}

fn table(out: &mut String, keys: &[Key]) -> Result {
    out.push('\n');
    table_rows(out, keys)
}

fn table_rows(out: &mut String, keys: &[Key]) -> Result {
    writeln!(out, "| key | holds | |\n| --- | --- | --- |")?;
    keys.iter().try_for_each(|key| row(out, key.name, &holds(&key.shape), key.required, key.doc))
}

fn fields(out: &mut String, fields: &[Field]) -> Result {
    writeln!(out, "| key | holds | |\n| --- | --- | --- |")?;
    // Paths stand beside `with`.
    fields.iter().filter(|field| field.kind != FieldKind::Paths).try_for_each(|field| {
        let kind = field_holds(field.kind);
        let kind = if field.literal || matches!(field.kind, FieldKind::Whole | FieldKind::Bool) {
            kind
        } else {
            format!("{kind}, templates")
        };
        row(out, field.name, &kind, field.required, field.doc)
    })
}

fn row(out: &mut String, name: &str, holds: &str, required: bool, doc: &str) -> Result {
    let needed = if required { "Required. " } else { "" };
    writeln!(out, "| `{name}` | {} | {needed}{} |", holds.replace('|', "\\|"), doc.replace('|', "\\|"))
}

fn words(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn holds(shape: &Shape) -> String {
    match shape {
        Shape::Name => "a name".to_owned(),
        Shape::Text => "a text".to_owned(),
        Shape::Template => "a template".to_owned(),
        Shape::Cel => "CEL".to_owned(),
        Shape::Bool => "true or false".to_owned(),
        Shape::Whole { least, most } => format!("a whole number, {least} to {most}"),
        Shape::Factor => format!("a number, 1 to {}", keys::MOST_FACTOR),
        Shape::Duration => "a duration".to_owned(),
        Shape::Word(list) => words(list),
        Shape::Any => "any value".to_owned(),
        Shape::Texts => "a text or a list of texts".to_owned(),
        Shape::Matchers => "a matcher or a list of matchers".to_owned(),
        Shape::MapOf(inner) => format!("a map; each value: {}", holds(inner)),
        Shape::ListOf(inner) => format!("a list; each item: {}", holds(inner)),
        Shape::Object(_) | Shape::With | Shape::Defined(_) => "a map".to_owned(),
        Shape::Phase => "a map of steps, or names".to_owned(),
        Shape::Monitoring => "durations by name".to_owned(),
        Shape::Schedule => "a text or a map".to_owned(),
    }
}

fn field_holds(kind: FieldKind) -> String {
    match kind {
        FieldKind::Text => "a text".to_owned(),
        FieldKind::Any => "any value".to_owned(),
        FieldKind::Map | FieldKind::Written => "a map".to_owned(),
        FieldKind::Texts => "a map of texts".to_owned(),
        FieldKind::Argv => "a list of texts; the first is literal".to_owned(),
        FieldKind::List => "a list".to_owned(),
        FieldKind::Duration => "a duration".to_owned(),
        FieldKind::Word(list) => words(list),
        FieldKind::Whole => "a whole number, 1 to 100".to_owned(),
        FieldKind::Bool => "true or false".to_owned(),
        FieldKind::People => "a text or a list of texts".to_owned(),
        FieldKind::Escalate => "a list of `after` and `people`".to_owned(),
        FieldKind::Playbook => "a playbook's name".to_owned(),
        FieldKind::Step => "a step's name".to_owned(),
        FieldKind::Paths => "a list of paths".to_owned(),
        FieldKind::Awaited => "`resolved`, or a map of `nats` or `alertmanager`".to_owned(),
    }
}

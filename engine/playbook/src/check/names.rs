//! Templates and conditions: whether they compile, and whether what they name is there.

use serde_json::Value;

use super::Checker;
use super::identifier;
use crate::document::{Kind, Node};
use crate::evaluate::{CompileError, Expression, Leaf, Node as Compiled, ROOTS, Reference, Scope, type_name};
use crate::nearest::nearest;

/// Where a template or condition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a step.
    Step {
        /// Its index.
        at: usize,
        /// Where in it.
        part: Part,
    },
    /// In a trigger, by its kind; `alert` is there for one kind alone.
    Trigger(&'static str),
    /// In `retry.if` of the defaults.
    Defaults,
    /// In an action of the catalogue.
    Catalogue(Part),
    /// In the default of an input of such an action.
    CatalogueDefault,
}

impl Place {
    /// Whether `alert` there is not the one that started the run.
    fn brings_alert(self) -> bool {
        matches!(self, Self::Trigger(_) | Self::Step { part: Part::Awaited(_), .. })
    }
}

/// A part of a step, by what can be named in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What is decided once for the step.
    Once,
    /// What is done for each item: `with`, `env`, `verify`.
    Each,
    /// `outputs`, of the action's result.
    Outputs,
    /// `until`, of the action's result.
    Until,
    /// `retry.if`, of the result or the error of an attempt.
    Retry,
    /// The action of `verify`.
    Verify,
    /// `until` of `verify`, of the verifying action's result.
    VerifyUntil,
    /// The action of `undo`, for which the step itself is over.
    Undo,
    /// `retry.if` of `undo`.
    UndoRetry,
    /// `if` of a wait for an event, which is `event`.
    Awaited(&'static str),
}

impl Part {
    /// Whether it is done for each item of a `foreach`.
    fn of_item(self) -> bool {
        match self {
            Self::Once | Self::Awaited(_) => false,
            Self::Each
            | Self::Outputs
            | Self::Until
            | Self::Retry
            | Self::Verify
            | Self::VerifyUntil
            | Self::Undo
            | Self::UndoRetry => true,
        }
    }

    fn has_result(self) -> bool {
        matches!(self, Self::Outputs | Self::Until | Self::Retry | Self::VerifyUntil | Self::Undo | Self::UndoRetry)
    }

    fn has_error(self) -> bool {
        matches!(self, Self::Retry | Self::UndoRetry)
    }

    /// Whether the step itself is over, so that what it gave can be named.
    fn is_after(self) -> bool {
        matches!(self, Self::Undo | Self::UndoRetry)
    }
}

const ALERT: &[&str] = &["labels", "annotations", "starts_at", "fingerprint", "source", "generator_url"];
const EVENT: &[&str] = &["id", "source", "type", "time", "subject", "data"];
const INCIDENT: &[&str] = &["id", "key", "severity", "owner", "title", "alerts", "url"];
const RUN: &[&str] = &["id", "playbook", "url", "outcome"];
const STEP: &[&str] = &["state", "outputs", "error"];
const STEP_OF_ITEMS: &[&str] = &["state", "items", "error"];

impl<'a> Checker<'a> {
    /// A CEL expression's text.
    pub(super) fn cel(&mut self, node: &'a Node, place: Place) -> Option<String> {
        if matches!(node.kind, Kind::List(_) | Kind::Map(_)) {
            self.report
                .error("wrong-type", node.span, format!("expected a CEL expression, not {}", node.type_name()))
                .help("put the expression in quotes: \"['a', 'b']\"");
            return None;
        }
        let text = self.scalar(node, "a CEL expression")?;
        match Expression::compile(&text) {
            Ok(expression) => {
                self.references(expression.references(), node, &text, place);
                Some(text)
            }
            Err(error) => {
                self.compile_error("bad-expression", error, node, &text);
                None
            }
        }
    }

    /// A condition's text. One that names nothing is evaluated at once: it must give true or false.
    pub(super) fn condition(&mut self, node: &'a Node, place: Place) -> Option<String> {
        self.cel_of(node, place, "true or false", Value::is_boolean)
    }

    /// The text of CEL that gives a list, in the same way.
    pub(super) fn list_of(&mut self, node: &'a Node, place: Place) -> Option<String> {
        self.cel_of(node, place, "a list", Value::is_array)
    }

    fn cel_of(&mut self, node: &'a Node, place: Place, what: &str, fits: fn(&Value) -> bool) -> Option<String> {
        let text = self.cel(node, place)?;
        let expression = Expression::compile(&text).ok()?;
        if !expression.references().is_empty() {
            return Some(text);
        }
        let problem = match expression.evaluate(&Scope::default()) {
            Ok(value) if fits(&value) => return Some(text),
            Ok(value) => format!("it gives {}, not {what}", type_name(&value)),
            Err(error) => error.to_string(),
        };
        self.report.error("wrong-type", node.span, problem).help(
            "name what it is about, such as steps.<name>.outputs.<output>, alert.labels.<label> or inputs.<name>",
        );
        None
    }

    /// A template's text.
    pub(super) fn template(
        &mut self,
        node: &'a Node,
        leaf: Leaf,
        place: Place,
        secrets: Option<&[String]>,
    ) -> Option<String> {
        let text = self.scalar(node, "a text")?;
        self.template_text(node, &text, leaf, place, secrets).then_some(text)
    }

    /// Whether a text is a good template; `secrets` are the only ones that it may use.
    pub(super) fn template_text(
        &mut self,
        node: &'a Node,
        text: &str,
        leaf: Leaf,
        place: Place,
        secrets: Option<&[String]>,
    ) -> bool {
        let compiled = match Compiled::leaf(text, leaf) {
            Ok(compiled) => compiled,
            Err(error) => {
                self.compile_error("bad-template", error, node, text);
                return false;
            }
        };
        if let Compiled::Lone(path) = &compiled {
            let offset = text.find(path.root.as_str()).unwrap_or(0);
            let reference = Reference { root: path.root.clone(), rest: path.rest.clone(), offset };
            self.references(&[reference], node, text, place);
        }
        let (references, used) = compiled.references();
        let references: Vec<Reference> = references.into_iter().cloned().collect();
        self.references(&references, node, text, place);
        for (name, offset) in used {
            if secrets.is_some_and(|allowed| !allowed.iter().any(|secret| secret == name)) {
                let span = self.within(node, text, offset, 1);
                self.report
                    .error("secret-not-listed", span, format!("the step's secrets do not list {name}"))
                    .help(format!("add {name} to secrets, or remove secrets"));
            }
        }
        true
    }

    fn compile_error(&mut self, code: &'static str, error: CompileError, node: &Node, text: &str) {
        let span = self.within(node, text, error.offset, 1);
        self.report.error(code, span, error.message).maybe_help(error.help);
    }

    fn references(&mut self, references: &[Reference], node: &'a Node, text: &str, place: Place) {
        for reference in references {
            if self.report.is_full() {
                return;
            }
            if let Some((code, message, help)) = self.problem(reference, place) {
                let shown = std::iter::once(&reference.root).chain(&reference.rest).map(String::len).sum::<usize>();
                let span = self.within(node, text, reference.offset, shown + reference.rest.len());
                self.report.error(code, span, message).maybe_help(help);
            } else if reference.root.starts_with("alert") && !self.has_alert && !place.brings_alert() {
                let span = self.within(node, text, reference.offset, reference.root.len());
                self.report
                    .warning("no-alert", span, format!("no trigger of this playbook brings {}", reference.root))
                    .help("a run that no alert started fails here; pass what it needs as an input");
            }
        }
    }

    fn problem(&self, reference: &Reference, place: Place) -> Option<(&'static str, String, Option<String>)> {
        let root = reference.root.as_str();
        let rest: Vec<&str> = reference.rest.iter().map(String::as_str).collect();
        let usable = self.usable(place);
        if !usable.contains(&root) {
            return Some(self.unusable(root, place, &usable));
        }
        match (root, rest.as_slice()) {
            ("inputs", [name, ..]) if !self.inputs.contains_key(*name) => {
                let help = nearest(name, self.inputs.keys().map(String::as_str))
                    .map(|near| format!("did you mean inputs.{near}?"));
                Some((
                    "unknown-input",
                    format!("no input is named {name}"),
                    help.or_else(|| Some("declare it under inputs".to_owned())),
                ))
            }
            ("steps", [name, rest @ ..]) => self.step_reference(name, rest, place),
            ("alert", [part, ..]) => unknown_part(root, part, ALERT),
            ("event", [part, ..]) => unknown_part(root, part, EVENT),
            ("incident", [part, ..]) => unknown_part(root, part, INCIDENT),
            ("run", [part, ..]) => unknown_part(root, part, RUN),
            _ => None,
        }
    }

    /// The roots that can be named in a place.
    fn usable(&self, place: Place) -> Vec<&'static str> {
        let mut usable = vec!["event", "alert", "alerts"];
        match place {
            Place::Trigger("alertmanager") => return usable,
            Place::Trigger(_) => return vec!["event"],
            Place::Step { part: Part::Awaited("alertmanager"), .. } => usable.truncate(2),
            Place::Step { part: Part::Awaited(_), .. } => usable.truncate(1),
            Place::Step { .. } | Place::Defaults | Place::Catalogue(_) | Place::CatalogueDefault => {}
        }
        usable.extend(["incident", "run"]);
        match place {
            Place::Step { .. } | Place::Defaults | Place::Catalogue(_) => usable.push("inputs"),
            Place::CatalogueDefault | Place::Trigger(_) => {}
        }
        match place {
            Place::Step { at, part } => {
                usable.push("steps");
                usable.extend((part.of_item() && self.steps[at].foreach).then_some("item"));
                usable.extend(part.has_result().then_some("result"));
                usable.extend(part.has_error().then_some("error"));
            }
            Place::Defaults => usable.extend(["result", "error"]),
            Place::Catalogue(part) => {
                usable.extend(part.has_result().then_some("result"));
                usable.extend(part.has_error().then_some("error"));
            }
            Place::Trigger(_) | Place::CatalogueDefault => {}
        }
        usable
    }

    fn unusable(&self, root: &str, place: Place, usable: &[&str]) -> (&'static str, String, Option<String>) {
        match (root, place) {
            ("alert" | "alerts", Place::Trigger(kind)) => {
                let message = format!("a {kind} trigger has no {root}");
                ("no-alert", message, Some("use event, such as event.data or event.time".to_owned()))
            }
            ("alerts", Place::Step { part: Part::Awaited("alertmanager"), .. }) => {
                ("no-alert", "the wait is for one alert at a time".to_owned(), Some("use alert".to_owned()))
            }
            ("alert" | "alerts", Place::Step { part: Part::Awaited(kind), .. }) => {
                ("no-alert", format!("{kind} brings no {root}"), Some("use event, such as event.data".to_owned()))
            }
            ("item" | "steps", Place::Catalogue(_) | Place::CatalogueDefault) => {
                let help = "declare an input, and let the step give it".to_owned();
                ("unknown-name", format!("the catalogue knows no {root}; it belongs to a playbook"), Some(help))
            }
            ("inputs", Place::CatalogueDefault) => {
                let help = "use event, alert, alerts, incident or run".to_owned();
                ("unknown-name", "a default cannot name other inputs".to_owned(), Some(help))
            }
            ("item", Place::Step { at, .. }) if self.steps[at].foreach => {
                let help = "filter the list itself: foreach: \"inputs.hosts.filter(h, h != 'db-1')\"".to_owned();
                (
                    "unknown-name",
                    "item exists for each item, and this is decided once for the step".to_owned(),
                    Some(help),
                )
            }
            ("item", Place::Step { .. }) => {
                let help = "add foreach, such as foreach: inputs.hosts".to_owned();
                ("unknown-name", "item exists in a step with foreach alone".to_owned(), Some(help))
            }
            ("result", Place::Step { .. } | Place::Catalogue(_)) => {
                let help = "name it under outputs, and use steps.<name>.outputs".to_owned();
                ("unknown-name", "result exists in outputs, until, undo and retry.if alone".to_owned(), Some(help))
            }
            ("error", Place::Step { .. } | Place::Catalogue(_)) => {
                let help = "use steps.<name>.error in a later step".to_owned();
                ("unknown-name", "error exists in retry.if alone".to_owned(), Some(help))
            }
            ("secrets", _) => {
                let help = "secrets may stand in the values of headers and env and in routing_key alone".to_owned();
                ("unknown-name", "a secret cannot stand here".to_owned(), Some(help))
            }
            _ if ROOTS.contains(&root) => {
                let here = match place {
                    Place::Defaults => "the defaults",
                    Place::CatalogueDefault => "a default",
                    Place::Step { .. } | Place::Trigger(_) | Place::Catalogue(_) => "a trigger",
                };
                ("unknown-name", format!("{root} does not exist in {here}"), Some(format!("use {}", usable.join(", "))))
            }
            _ => {
                let help = match nearest(root, usable.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None if self.inputs.contains_key(root) => format!("did you mean inputs.{root}?"),
                    None if self.steps.iter().any(|step| step.name == root) => format!("did you mean steps.{root}?"),
                    None => format!("names that can be used here: {}", usable.join(", ")),
                };
                ("unknown-name", format!("nothing is named {root}"), Some(help))
            }
        }
    }

    fn step_reference(
        &self,
        name: &str,
        rest: &[&str],
        place: Place,
    ) -> Option<(&'static str, String, Option<String>)> {
        let Place::Step { at, part } = place else { return None };
        let Some(index) = self.steps.iter().position(|step| step.name == name) else {
            let near = nearest(name, self.steps.iter().map(|step| step.name)).map(|near| match identifier(near) {
                true => format!("did you mean steps.{near}?"),
                false => format!("did you mean steps[\"{near}\"]?"),
            });
            // `steps.a-b` is a subtraction in CEL: the part before the dash is what is looked up.
            let dashed =
                self.steps.iter().find(|step| step.name.split_once('-').is_some_and(|(first, _)| first == name));
            let help = dashed
                .map(|step| format!("a name with a dash needs brackets in CEL: steps[\"{}\"]", step.name))
                .or(near);
            return Some(("unknown-step", format!("no step is named {name}"), help));
        };
        if index == at && !part.is_after() {
            let help = part.has_result().then(|| "use result".to_owned());
            return Some(("step-not-run", format!("{name} is this step itself"), help));
        }
        if index != at
            && let Some(problem) = self.not_over(at, index)
        {
            return Some(problem);
        }
        let there = &self.steps[index];
        // Of the step itself, an undo sees the item that it takes back.
        let many = there.foreach && index != at;
        match rest {
            [] => None,
            ["items", ..] if many => None,
            ["items", ..] => {
                let help = "use steps.<name>.outputs".to_owned();
                Some((
                    "unknown-name",
                    format!("{name} has no items here: it has no foreach, or is one of them"),
                    Some(help),
                ))
            }
            ["outputs", ..] if many => {
                let help = format!("use steps.{name}.items.map(i, i.outputs), or steps.{name}.items[0].outputs");
                Some(("unknown-name", format!("{name} has foreach, and outputs for each item"), Some(help)))
            }
            ["outputs", output, ..] if !there.outputs.contains(output) => {
                let help = match nearest(output, there.outputs.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("add it to the outputs of {name}, such as {output}: result"),
                };
                Some(("unknown-output", format!("{name} has no output named {output}"), Some(help)))
            }
            [part, ..] => unknown_part("a step", part, if many { STEP_OF_ITEMS } else { STEP }),
        }
    }

    /// Why a step may not be over when another starts.
    pub(super) fn not_over(&self, at: usize, index: usize) -> Option<(&'static str, String, Option<String>)> {
        let (here, there) = (&self.steps[at], &self.steps[index]);
        if index == at {
            return Some(("step-not-run", format!("{} is this step itself", here.name), None));
        }
        if there.phase > here.phase {
            let message = format!("{} stands in {}, which comes after {}", there.name, there.phase, here.phase);
            return Some(("step-not-run", message, None));
        }
        if there.phase == here.phase && !self.upstream[at][index] {
            let message = format!("{} may not be over when {} starts", there.name, here.name);
            return Some(("step-not-run", message, Some(format!("add needs: [{}] to {}", there.name, here.name))));
        }
        None
    }
}

fn unknown_part(of: &str, part: &str, known: &[&str]) -> Option<(&'static str, String, Option<String>)> {
    if known.contains(&part) {
        return None;
    }
    let help = match nearest(part, known.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("it has {}", known.join(", ")),
    };
    Some(("unknown-name", format!("{of} has no {part}"), Some(help)))
}

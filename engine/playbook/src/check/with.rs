//! The parameters of an action, by its signature.

use serde_json::{Map, Value};

use super::Checker;
use super::names::{Part, Place};
use crate::actions::{APPROVAL, Field, FieldKind, Signature, WAIT, templated_script};
use crate::diagnostic::Span;
use crate::document::{Kind, Node};
use crate::evaluate::Leaf;
use crate::model::AwaitedModel;
use crate::nearest::nearest;
use crate::time::parse_duration;

/// Where a parameter is checked.
#[derive(Clone, Copy)]
struct At<'s> {
    place: Place,
    secrets: Option<&'s [String]>,
    leaf: Leaf,
}

impl<'a> Checker<'a> {
    pub(super) fn with(
        &mut self,
        signature: &'static Signature,
        node: Option<&'a Node>,
        at: Place,
        secrets: Option<&[String]>,
        place: Span,
    ) -> Map<String, Value> {
        let entries = match node {
            Some(node) if !matches!(node.kind, Kind::Null) => self.entries(node, "with"),
            _ => Some(&[][..]),
        };
        let Some(entries) = entries else { return Map::new() };
        let span = node.map_or(place, |node| Span { length: 0, ..node.span });
        let mut with = Map::new();
        for (key, node) in entries {
            let Some(field) = signature.field(&key.text) else {
                let names = signature.fields.iter().map(|field| field.name);
                let help = match nearest(&key.text, names.clone()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("{} takes {}", signature.name, names.collect::<Vec<_>>().join(", ")),
                };
                self.report
                    .error("unknown-field", key.span, format!("{} takes no {:?}", signature.name, key.text))
                    .help(help);
                continue;
            };
            let at = At { place: at, secrets, leaf: field.leaf() };
            if let Some(value) = self.field(field, node, at) {
                with.insert(key.text.clone(), value);
            }
        }
        let given = |name: &str| entries.iter().any(|(key, _)| key.text == name);
        for field in signature.fields.iter().filter(|field| field.required && !given(field.name)) {
            self.report
                .error("missing-field", span, format!("{} needs {}", signature.name, field.name))
                .help(format!("add it to with: {}", field.doc.trim_end_matches('.').to_lowercase()));
        }
        if !signature.any_of.is_empty() && !signature.any_of.iter().any(|name| given(name)) {
            self.report.error(
                "missing-field",
                span,
                format!("{} needs {}", signature.name, signature.any_of.join(" or ")),
            );
        }
        match signature.name {
            WAIT => {
                if given("duration") && given("for") {
                    self.report
                        .error("conflicting-fields", span, "a wait has a duration or waits for something, not both")
                        .help("use two steps, or give the wait a timeout");
                }
                if given("settle") && !matches!(with.get("for"), None | Some(Value::String(_)))
                    || given("settle") && !given("for")
                {
                    self.report
                        .error("conflicting-fields", span, "settle belongs to for: resolved")
                        .help("remove it, or wait for: resolved");
                }
            }
            APPROVAL => self.quorum(node, &mut with),
            _ => {}
        }
        with
    }

    fn field(&mut self, field: &'static Field, node: &'a Node, at: At<'_>) -> Option<Value> {
        if field.literal && has_template(node) {
            self.report
                .error("literal-only", node.span, format!("{} cannot hold a template", field.name))
                .help("write the value out");
            return None;
        }
        match field.kind {
            FieldKind::Text => self.template(node, at.leaf, at.place, at.secrets).map(Value::String),
            FieldKind::Any => self.any(node, at),
            FieldKind::List => self.typed(node, at, "a list", |kind| matches!(kind, Kind::List(_))),
            FieldKind::Map => self.typed(node, at, "a map", |kind| matches!(kind, Kind::Map(_))),
            FieldKind::Texts => self.text_map(field.name, node, at),
            FieldKind::Argv => self.argv(node, at),
            FieldKind::Duration => self.with_duration(node, at),
            FieldKind::Whole => self.whole(node, 1, 100).map(Value::from),
            FieldKind::Bool => self.bool(node).map(Value::from),
            FieldKind::Written => match node.kind {
                Kind::Map(_) => self.any(node, at),
                _ => {
                    let message = format!("expected a map, not {}", node.type_name());
                    self.report.error("wrong-type", node.span, message).help("write the map out: name: value");
                    None
                }
            },
            FieldKind::People => Some(self.people(node, field.name).into()),
            FieldKind::Escalate => serde_json::to_value(self.notifications(node, field.name)).ok(),
            FieldKind::Awaited => self.awaited(node, at.place),
            FieldKind::Playbook => self.playbook_name(node).map(Value::String),
            FieldKind::Step => {
                let Place::Step { at, .. } = at.place else { return None };
                self.undone(node, at).map(Value::String)
            }
            FieldKind::Paths => {
                self.report
                    .error("misplaced", node.span, format!("{} stands beside with, not in it", field.name))
                    .help(format!("write {} as a key of the step", field.name));
                None
            }
            FieldKind::Word(words) => {
                if let Kind::Text(text) = &node.kind {
                    let upper = text.to_ascii_uppercase();
                    if let Some(word) = words.iter().find(|word| **word == upper) {
                        return Some(Value::String((*word).to_owned()));
                    }
                }
                self.word(node, words).map(|word| Value::String(word.to_owned()))
            }
        }
    }

    /// How many must agree: one, and not more than there are.
    fn quorum(&mut self, node: Option<&Node>, with: &mut Map<String, Value>) {
        let quorum = with.entry("quorum").or_insert_with(|| 1.into()).as_u64().unwrap_or(1);
        let Some(Value::Array(from)) = with.get("from") else { return };
        let group = from.iter().any(|name| name.as_str().is_some_and(|name| name.starts_with("group:")));
        let count = from.len();
        if let Some(from) = node.and_then(|node| node.get("from")).filter(|_| count == 0) {
            self.report
                .error("wrong-value", from.span, "nobody may decide")
                .help("name people or groups, such as group:oncall; without from everybody may, also the anonymous local user");
        }
        let place = node.and_then(|node| node.get("quorum").or(node.get("from")));
        if let Some(place) = place.filter(|_| !group && count > 0 && quorum > count as u64) {
            self.report
                .error("wrong-value", place.span, format!("{quorum} must agree, and only {count} may decide"))
                .help("lower quorum, or name more people or a group in from");
        }
    }

    /// What a wait waits for: `resolved`, or an event as a trigger has it.
    fn awaited(&mut self, node: &'a Node, place: Place) -> Option<Value> {
        let Kind::Map(entries) = &node.kind else {
            return self.word(node, &["resolved"]).map(|word| Value::String(word.to_owned()));
        };
        let kinds = ["nats", "alertmanager"];
        let [(key, on)] = entries.as_slice() else {
            self.report
                .error("trigger-kind", node.span, "a wait waits for one thing")
                .help("write for: {nats: {subject: ...}} or for: {alertmanager: {matchers: [...]}}");
            return None;
        };
        let Some(kind) = kinds.into_iter().find(|kind| *kind == key.text) else {
            self.report
                .error("trigger-kind", key.span, format!("a wait cannot wait for {}", key.text))
                .help("wait for resolved, nats or alertmanager; for a length of time use duration");
            return None;
        };
        let model = self.on(kind, on, key.span);
        let condition = on.get("if").map(|node| {
            let place = match place {
                Place::Step { at, .. } => Place::Step { at, part: Part::Awaited(kind) },
                other => other,
            };
            self.condition(node, place)
        });
        let condition = match condition {
            Some(None) => return None,
            Some(condition) => condition,
            None => None,
        };
        serde_json::to_value(AwaitedModel { on: model?, condition }).ok()
    }

    /// A collection written out, or a lone path that gives one.
    fn typed(&mut self, node: &'a Node, at: At<'_>, what: &str, fits: fn(&Kind) -> bool) -> Option<Value> {
        let path = matches!(&node.kind, Kind::Text(text) if text.trim_start().starts_with("{{"));
        if !fits(&node.kind) && !path {
            let message = format!("expected {what}, not {}", node.type_name());
            self.report.error("wrong-type", node.span, message);
            return None;
        }
        self.any(node, at)
    }

    /// Any JSON whose texts are templates without secrets.
    pub(super) fn any_template(&mut self, node: &'a Node, place: Place) -> Option<Value> {
        self.any(node, At { place, secrets: None, leaf: Leaf::Typed })
    }

    fn any(&mut self, node: &'a Node, at: At<'_>) -> Option<Value> {
        match &node.kind {
            Kind::Text(text) => {
                self.template_text(node, text, at.leaf, at.place, at.secrets).then(|| Value::String(text.clone()))
            }
            Kind::List(items) => {
                let values: Vec<Option<Value>> = items.iter().map(|item| self.any(item, at)).collect();
                values.into_iter().collect::<Option<_>>().map(Value::Array)
            }
            Kind::Map(entries) => {
                let mut map = Map::new();
                let mut whole = true;
                for (key, node) in entries {
                    self.plain_key(key);
                    match self.any(node, at) {
                        Some(value) => drop(map.insert(key.text.clone(), value)),
                        None => whole = false,
                    }
                }
                whole.then_some(Value::Object(map))
            }
            Kind::Null | Kind::Bool(_) | Kind::Number(_) => Some(node.to_json()),
        }
    }

    fn plain_key(&mut self, key: &crate::document::Key) {
        if key.text.contains("{{") {
            self.report.error("template-in-key", key.span, "a template cannot stand in a key");
        }
    }

    /// A map of texts, written out: data must not be able to become more than a text in it.
    fn text_map(&mut self, name: &str, node: &'a Node, at: At<'_>) -> Option<Value> {
        let entries = self.entries(node, name)?;
        let mut map = Map::new();
        for (key, node) in entries {
            self.plain_key(key);
            let text = self.template(node, at.leaf, at.place, at.secrets)?;
            map.insert(key.text.clone(), Value::String(text));
        }
        Some(Value::Object(map))
    }

    fn argv(&mut self, node: &'a Node, at: At<'_>) -> Option<Value> {
        let items = match &node.kind {
            Kind::List(items) => items.as_slice(),
            Kind::Text(_) => {
                self.report
                    .error("wrong-type", node.span, "argv must be a list; a command is not run through a shell")
                    .help("write [program, argument, ...]");
                return None;
            }
            _ => self.items(node, "argv")?,
        };
        let Some(program) = items.first() else {
            self.report.error("missing-field", node.span, "argv is empty").help("begin it with the program");
            return None;
        };
        let texts: Vec<Option<String>> =
            items.iter().map(|item| self.template(item, at.leaf, at.place, at.secrets)).collect();
        let texts: Vec<String> = texts.into_iter().collect::<Option<_>>()?;
        let arguments: Vec<&str> = texts.iter().map(String::as_str).collect();
        if arguments[0].contains("{{") {
            self.report
                .error("literal-only", program.span, "a template cannot decide which program runs")
                .help("write the program out, and pass data as arguments, in env or in stdin");
        } else if arguments[0].is_empty() {
            self.report.error("wrong-value", program.span, "the program's name is empty");
        } else if let Some(script) = templated_script(&arguments) {
            self.report
                .error(
                    "shell-injection",
                    items[script].span,
                    "a template cannot stand in a script that an interpreter runs",
                )
                .help("pass it in env or stdin");
        }
        Some(texts.into_iter().map(Value::String).collect())
    }

    fn with_duration(&mut self, node: &'a Node, at: At<'_>) -> Option<Value> {
        if has_template(node) {
            return self.template(node, at.leaf, at.place, at.secrets).map(Value::String);
        }
        self.duration(node)?;
        let text = self.scalar(node, "a duration such as 30s")?;
        parse_duration(&text).ok().map(|_| Value::String(text))
    }
}

/// Whether a template stands anywhere in a value.
pub(super) fn has_template(node: &Node) -> bool {
    match &node.kind {
        Kind::Text(text) => text.contains("{{"),
        Kind::List(items) => items.iter().any(has_template),
        Kind::Map(entries) => entries.iter().any(|(_, node)| has_template(node)),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) => false,
    }
}

//! Templates before a run: what can be rendered already, and what cannot yet.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::path::Reference;
use super::value::{Node, SecretPart, ValueTemplate};
use super::{Names, Template};

/// What a tree of templates will be, as far as it can be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// The value; what cannot be rendered yet stands in it as it is written.
    pub value: Value,
    /// The names that have no value yet, sorted.
    pub open: Vec<String>,
    /// The keys of the map, where it is one, in which these stand.
    pub open_keys: BTreeSet<String>,
    /// Why some of it will not be rendered at all, each with its place.
    pub errors: Vec<String>,
}

impl ValueTemplate {
    /// Renders what has a value by the word of `known`. Secrets are shown by name.
    #[must_use]
    pub fn preview(&self, names: &dyn Names, known: &dyn Fn(&Reference) -> bool) -> Preview {
        let mut previewer = Previewer::new(names, known);
        let value = previewer.node(self.node(), &mut Vec::new());
        previewer.told(value)
    }
}

impl Template {
    /// The text, with what has a value by the word of `known` in it.
    #[must_use]
    pub fn preview(&self, names: &dyn Names, known: &dyn Fn(&Reference) -> bool) -> Preview {
        let mut previewer = Previewer::new(names, known);
        let value = Value::String(previewer.template(self, &mut Vec::new()));
        previewer.told(value)
    }
}

struct Previewer<'a> {
    names: &'a dyn Names,
    known: &'a dyn Fn(&Reference) -> bool,
    open: Vec<String>,
    open_keys: BTreeSet<String>,
    errors: Vec<String>,
}

impl<'a> Previewer<'a> {
    fn new(names: &'a dyn Names, known: &'a dyn Fn(&Reference) -> bool) -> Self {
        Self { names, known, open: Vec::new(), open_keys: BTreeSet::new(), errors: Vec::new() }
    }

    fn told(mut self, value: Value) -> Preview {
        self.open.sort();
        self.open.dedup();
        Preview { value, open: self.open, open_keys: self.open_keys, errors: self.errors }
    }

    fn node(&mut self, node: &Node, place: &mut Vec<String>) -> Value {
        match node {
            Node::Literal(value) => value.clone(),
            Node::Lone(path) => {
                let reference = Reference { root: path.root.clone(), rest: path.rest.clone(), offset: 0 };
                if !(self.known)(&reference) {
                    self.open.push(path.to_string());
                    self.open_keys.extend(place.first().cloned());
                    return Value::String(format!("{{{{ {path} }}}}"));
                }
                path.value(self.names).unwrap_or_else(|error| self.fail(place, &error.to_string()))
            }
            Node::Text(template) => Value::String(self.template(template, place)),
            Node::Secret(parts) => Value::String(
                parts
                    .iter()
                    .map(|part| match part {
                        SecretPart::Text(template) => self.template(template, place),
                        SecretPart::Secret { name, .. } => format!("{{{{ secrets.{name} }}}}"),
                    })
                    .collect(),
            ),
            Node::List(nodes) => {
                nodes.iter().enumerate().map(|(index, node)| self.under(index.to_string(), node, place)).collect()
            }
            Node::Map(nodes) => Value::Object(
                nodes
                    .iter()
                    .map(|(key, node)| (key.clone(), self.under(key.clone(), node, place)))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    fn under(&mut self, key: String, node: &Node, place: &mut Vec<String>) -> Value {
        place.push(key);
        let value = self.node(node, place);
        place.pop();
        value
    }

    fn template(&mut self, template: &Template, place: &mut [String]) -> String {
        let open: Vec<&Reference> = template.references().iter().filter(|one| !(self.known)(one)).collect();
        if !open.is_empty() {
            self.open.extend(open.into_iter().map(Reference::path));
            self.open_keys.extend(place.first().cloned());
            // What is known of it is rendered all the same, where it is no more than paths.
            let Some(parts) = template.parts() else { return template.source().to_owned() };
            let mut text = String::new();
            for part in parts {
                match part {
                    Ok(literal) => text.push_str(literal),
                    Err(path) => {
                        let reference = Reference { root: path.root.clone(), rest: path.rest.clone(), offset: 0 };
                        if !(self.known)(&reference) || path.write(self.names, &mut text).is_err() {
                            text.push_str(&format!("{{{{ {path} }}}}"));
                        }
                    }
                }
            }
            return text;
        }
        match template.render(self.names) {
            Ok(text) => text,
            Err(error) => {
                self.fail(place, &error.to_string());
                template.source().to_owned()
            }
        }
    }

    fn fail(&mut self, place: &[String], error: &str) -> Value {
        let place = place.join(".");
        self.errors.push(if place.is_empty() { error.to_owned() } else { format!("{place}: {error}") });
        Value::Null
    }
}

impl Reference {
    /// As it is written: `steps.probe.outputs.up`.
    #[must_use]
    pub fn path(&self) -> String {
        std::iter::once(&self.root).chain(&self.rest).map(String::as_str).collect::<Vec<_>>().join(".")
    }
}

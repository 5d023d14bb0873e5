//! JSON with templates for leaves: the `with` and `env` of a step.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::path::{Path, Reference};
use super::{CompileError, EvaluationError, Gathered, Names, Template};

/// A compiled tree of templates. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ValueTemplate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Node,
    roots: Vec<String>,
}

/// How a text leaf is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaf {
    /// A lone path keeps its JSON type; anything else becomes a text.
    Typed,
    /// Always a text, so that data can be nothing else.
    Text,
    /// Always a text, in which `{{ secrets.name }}` may stand.
    Secret,
}

/// A part of a tree.
#[derive(Debug, Clone)]
pub(crate) enum Node {
    Literal(Value),
    Text(Template),
    Lone(Path),
    Secret(Vec<SecretPart>),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

#[derive(Debug, Clone)]
pub(crate) enum SecretPart {
    Text(Template),
    Secret { name: String, offset: usize },
}

impl ValueTemplate {
    pub(crate) fn new(node: Node) -> Self {
        let mut roots = Vec::new();
        node.roots(&mut roots);
        roots.sort();
        roots.dedup();
        Self(Arc::new(Inner { node, roots }))
    }

    /// The value, with the names' values in it. A text that holds secrets becomes
    /// `{"secret_text": [{"text": "Bearer "}, {"secret": "edr"}]}`; rendered data never does.
    ///
    /// # Errors
    /// [`EvaluationError`] where a leaf cannot be rendered, naming its place.
    pub fn render(&self, names: &dyn Names) -> Result<Value, EvaluationError> {
        let gathered = Gathered::new(&self.0.roots, names);
        let mut place = Vec::new();
        self.0.node.render(&gathered, &mut place).map_err(|error| {
            place.reverse();
            if place.is_empty() { error } else { EvaluationError::new(format!("{}: {error}", place.join("."))) }
        })
    }

    /// Every name that it refers to, secrets aside.
    pub(crate) fn for_each_reference(&self, each: &mut dyn FnMut(&str, &[String])) {
        self.0.node.for_each_reference(each);
    }

    /// The keys of a map, each with its value where that is written out.
    pub(crate) fn entries(&self) -> Vec<(&str, Option<Value>)> {
        match &self.0.node {
            Node::Map(nodes) => nodes.iter().map(|(key, node)| (key.as_str(), node.literal())).collect(),
            _ => Vec::new(),
        }
    }

    /// The roots that it names, sorted.
    #[must_use]
    pub fn roots(&self) -> &[String] {
        &self.0.roots
    }

    pub(super) fn node(&self) -> &Node {
        &self.0.node
    }
}

impl Node {
    /// Compiles a text leaf.
    pub fn leaf(text: &str, leaf: Leaf) -> Result<Self, CompileError> {
        if let Some(parts) = secret_parts(text)? {
            return match leaf {
                Leaf::Secret => Ok(Self::Secret(parts)),
                Leaf::Typed | Leaf::Text => {
                    let offset = parts.iter().find_map(SecretPart::offset).unwrap_or(0);
                    Err(CompileError::new(offset, "a secret cannot stand here")
                        .help("secrets may stand in the values of headers and env and in routing_key alone"))
                }
            };
        }
        let template = Template::compile(text)?;
        if let Some(reference) = template.references().iter().find(|reference| reference.root == "secrets") {
            return Err(CompileError::new(reference.offset, "a secret can only stand alone in its braces")
                .help("write {{ secrets.name }} outside of helpers and blocks"));
        }
        Ok(match template.lone_path() {
            Some(path) if leaf == Leaf::Typed => Self::Lone(path.clone()),
            _ if template.is_literal() => Self::Literal(Value::String(text.to_owned())),
            _ => Self::Text(template),
        })
    }

    /// Compiles a tree, all of whose texts are leaves of one kind.
    pub fn tree(value: &Value, leaf: Leaf) -> Result<Self, CompileError> {
        match value {
            Value::String(text) => Self::leaf(text, leaf),
            Value::Array(list) => {
                list.iter().map(|item| Self::tree(item, leaf)).collect::<Result<_, _>>().map(Self::List)
            }
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| Ok((key.clone(), Self::tree(value, leaf)?)))
                .collect::<Result<_, _>>()
                .map(Self::Map),
            other => Ok(Self::Literal(other.clone())),
        }
    }

    /// The value, where nothing in it is rendered.
    fn literal(&self) -> Option<Value> {
        match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Text(_) | Self::Lone(_) | Self::Secret(_) => None,
            Self::List(nodes) => nodes.iter().map(Self::literal).collect::<Option<_>>().map(Value::Array),
            Self::Map(nodes) => {
                let entries = nodes.iter().map(|(key, node)| Some((key.clone(), node.literal()?)));
                entries.collect::<Option<_>>().map(Value::Object)
            }
        }
    }

    /// All names that it refers to (without secrets), and the secrets.
    pub fn references(&self) -> (Vec<&Reference>, Vec<(&str, usize)>) {
        match self {
            Self::Text(template) => (template.references().iter().collect(), Vec::new()),
            Self::Secret(parts) => {
                let (mut references, mut secrets) = (Vec::new(), Vec::new());
                for part in parts {
                    match part {
                        SecretPart::Text(template) => references.extend(template.references()),
                        SecretPart::Secret { name, offset } => secrets.push((name.as_str(), *offset)),
                    }
                }
                (references, secrets)
            }
            Self::Literal(_) | Self::Lone(_) | Self::List(_) | Self::Map(_) => (Vec::new(), Vec::new()),
        }
    }

    fn for_each_reference(&self, each: &mut dyn FnMut(&str, &[String])) {
        match self {
            Self::Literal(_) => {}
            Self::Lone(path) => each(&path.root, &path.rest),
            Self::Text(_) | Self::Secret(_) => {
                for reference in self.references().0 {
                    each(&reference.root, &reference.rest);
                }
            }
            Self::List(nodes) => nodes.iter().for_each(|node| node.for_each_reference(each)),
            Self::Map(nodes) => nodes.iter().for_each(|(_, node)| node.for_each_reference(each)),
        }
    }

    fn roots(&self, roots: &mut Vec<String>) {
        match self {
            Self::Literal(_) => {}
            Self::Lone(path) => roots.push(path.root.clone()),
            Self::Text(template) => roots.extend_from_slice(template.roots()),
            Self::Secret(parts) => {
                for part in parts {
                    if let SecretPart::Text(template) = part {
                        roots.extend_from_slice(template.roots());
                    }
                }
            }
            Self::List(nodes) => nodes.iter().for_each(|node| node.roots(roots)),
            Self::Map(nodes) => nodes.iter().for_each(|(_, node)| node.roots(roots)),
        }
    }

    fn render(&self, names: &dyn Names, place: &mut Vec<String>) -> Result<Value, EvaluationError> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Lone(path) => path.value(names),
            Self::Text(template) => template.render(names).map(Value::String),
            Self::Secret(parts) => {
                let parts = parts.iter().map(|part| match part {
                    SecretPart::Text(template) => Ok(json!({"text": template.render(names)?})),
                    SecretPart::Secret { name, .. } => Ok(json!({"secret": name})),
                });
                Ok(json!({"secret_text": parts.collect::<Result<Vec<_>, EvaluationError>>()?}))
            }
            Self::List(nodes) => {
                let items = nodes
                    .iter()
                    .enumerate()
                    .map(|(index, node)| node.render(names, place).inspect_err(|_| place.push(index.to_string())));
                items.collect::<Result<_, _>>().map(Value::Array)
            }
            Self::Map(nodes) => {
                let entries = nodes.iter().map(|(key, node)| {
                    let value = node.render(names, place).inspect_err(|_| place.push(key.clone()))?;
                    Ok((key.clone(), value))
                });
                entries.collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
        }
    }
}

impl SecretPart {
    fn offset(&self) -> Option<usize> {
        match self {
            Self::Secret { offset, .. } => Some(*offset),
            Self::Text(_) => None,
        }
    }
}

/// The parts of a text in which `{{ secrets.name }}` stands; `None` where it does not.
fn secret_parts(text: &str) -> Result<Option<Vec<SecretPart>>, CompileError> {
    if !text.contains("secrets") {
        return Ok(None);
    }
    let mut parts = Vec::new();
    let mut literal = 0;
    let mut from = 0;
    while let Some(open) = text[from..].find("{{").map(|at| from + at) {
        let Some(close) = text[open..].find("}}").map(|at| open + at) else { break };
        let inner = text[open + 2..close].trim();
        from = close + 2;
        let Some(name) = inner.strip_prefix("secrets.") else { continue };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if name.is_empty() || !name.bytes().all(known) {
            continue;
        }
        if literal < open {
            parts.push(SecretPart::Text(part(text, literal, open)?));
        }
        parts.push(SecretPart::Secret { name: name.to_owned(), offset: open });
        literal = from;
    }
    if parts.is_empty() {
        return Ok(None);
    }
    if literal < text.len() {
        parts.push(SecretPart::Text(part(text, literal, text.len())?));
    }
    Ok(Some(parts))
}

fn part(text: &str, from: usize, until: usize) -> Result<Template, CompileError> {
    Template::compile(&text[from..until]).map_err(|mut error| {
        error.offset += from;
        error.help.get_or_insert_with(|| "a secret cannot stand inside a block".to_owned());
        error
    })
}

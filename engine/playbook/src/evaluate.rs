//! Templates and conditions, compiled once and evaluated over the names of a run.
//!
//! Both are limited in size and depth before they are parsed, and in work while they are evaluated: what a
//! playbook or the data in it looks like never decides whether the process lives.

mod expression;
mod functions;
mod helpers;
mod path;
mod preview;
mod scan;
mod template;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

pub use expression::Expression;
pub(crate) use functions::{Function, GLOBAL, OF_VALUES};
pub use path::Reference;
pub use preview::Preview;
pub use template::Template;
pub use value::ValueTemplate;
pub(crate) use value::{Leaf, Node};

/// What templates and conditions can name: `event`, `alert`, `alerts`, `incident`, `run`, `inputs`, `steps`, `item`, `result`, `error`.
/// The conditions of an action of the catalogue ask for [`INPUTS_OF_ACTION`] where they name `inputs`.
pub trait Names {
    /// The value of a root; `None` where it does not exist here. Asked only for roots that are used.
    fn get(&self, root: &str) -> Option<Cow<'_, Value>>;
}

/// The inputs of the action of the catalogue that a step uses, as they were given to it.
pub const INPUTS_OF_ACTION: &str = "@inputs";

/// All roots of the language, `secrets` (which is never a value) among them.
pub const ROOTS: [&str; 11] =
    ["event", "alert", "alerts", "incident", "run", "inputs", "steps", "item", "result", "error", "secrets"];

/// The roots and their values as a plain map.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scope(pub BTreeMap<String, Value>);

impl Names for Scope {
    fn get(&self, root: &str) -> Option<Cow<'_, Value>> {
        self.0.get(root).map(Cow::Borrowed)
    }
}

/// Why a template or a condition has no value, in one short sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvaluationError(pub String);

impl EvaluationError {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Why a text is no template or condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The byte of the text where it is wrong.
    pub offset: usize,
}

impl CompileError {
    fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, offset }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The roots that something uses, each asked for once.
struct Gathered<'a>(Vec<(&'a str, Option<Cow<'a, Value>>)>);

impl<'a> Gathered<'a> {
    fn new(roots: &'a [String], names: &'a dyn Names) -> Self {
        Self(roots.iter().map(|root| (root.as_str(), names.get(root))).collect())
    }
}

impl Names for Gathered<'_> {
    fn get(&self, root: &str) -> Option<Cow<'_, Value>> {
        let (_, value) = self.0.iter().find(|(name, _)| *name == root)?;
        value.as_deref().map(Cow::Borrowed)
    }
}

/// What a value is, for messages.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "an int",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

//! Templates and conditions, over the names of a run.

mod expression;
mod template;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

pub use expression::Expression;
pub use template::Template;
pub use value::ValueTemplate;

/// What templates and conditions can name: `event`, `alert`, `alerts`, `incident`, `run`, `inputs`, `steps`, `item`, `result`.
pub trait Names {
    /// The value of a root; `None` where it does not exist here. Asked only for roots that are used.
    fn get(&self, root: &str) -> Option<Cow<'_, Value>>;
}

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

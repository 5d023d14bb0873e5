//! JSON with templates for leaves.

use serde_json::Value;

use super::{EvaluationError, Names};

/// A compiled tree of templates.
#[derive(Debug, Clone)]
pub struct ValueTemplate {}

impl ValueTemplate {
    /// The value, with the names' values in it.
    ///
    /// # Errors
    /// [`EvaluationError`] where a leaf cannot be rendered.
    pub fn render(&self, _names: &dyn Names) -> Result<Value, EvaluationError> {
        Ok(Value::Null)
    }
}

//! Conditions and computed values, in CEL.

use serde_json::Value;

use super::{EvaluationError, Names};

/// A compiled CEL expression.
#[derive(Debug, Clone)]
pub struct Expression {}

impl Expression {
    /// Its value.
    ///
    /// # Errors
    /// [`EvaluationError`] where it has none.
    pub fn evaluate(&self, _names: &dyn Names) -> Result<Value, EvaluationError> {
        Ok(Value::Null)
    }

    /// Its value, which must be a boolean.
    ///
    /// # Errors
    /// [`EvaluationError`] where it has none, or one of another type.
    pub fn evaluate_bool(&self, _names: &dyn Names) -> Result<bool, EvaluationError> {
        Ok(false)
    }

    /// The roots that it names.
    #[must_use]
    pub fn roots(&self) -> &[String] {
        &[]
    }
}

//! The inputs of a run, checked against their declarations.

use serde_json::{Map, Value};

use crate::plan::Plan;

/// Inputs that do not fit a playbook's declarations.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    /// The input's name.
    pub input: String,
    /// What is wrong, with the remedy.
    pub message: String,
}

impl Plan {
    /// The inputs of a run: those given, checked, and the defaults of the others.
    ///
    /// # Errors
    /// [`InputError`] for the first input that is unknown, missing or of the wrong type.
    pub fn check_inputs(&self, given: Map<String, Value>) -> Result<Map<String, Value>, InputError> {
        Ok(given)
    }
}

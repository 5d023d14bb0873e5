//! The way from a text to a plan.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::plan::{Plan, PlanError};

/// A playbook that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// Its plan.
    pub plan: Plan,
    /// What someone should look at all the same.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a playbook.
///
/// # Errors
/// All [`Diagnostics`] at once where there is an error among them.
pub fn load(_file_name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    Err(Diagnostics { list: Vec::new(), source: Arc::from(text) })
}

impl Plan {
    /// The plan whose canonical form this is.
    ///
    /// # Errors
    /// [`PlanError`] where the text is no canonical form of this version.
    pub fn from_canonical(_text: &str) -> Result<Self, PlanError> {
        Err(PlanError("not yet".into()))
    }
}

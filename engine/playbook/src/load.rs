//! The way from a text to a plan.

use std::sync::Arc;

use crate::check;
use crate::diagnostic::{Diagnostic, Diagnostics, Report, Span};
use crate::document;
use crate::plan::Plan;

/// A playbook that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// Its plan.
    pub plan: Plan,
    /// What someone should look at all the same.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks a playbook: its YAML, its keys, names, templates, conditions and order.
///
/// # Errors
/// All [`Diagnostics`] at once where there is an error among them.
pub fn load(file_name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    let mut report = Report::new(file_name);
    let model = document::parse(text, &mut report).and_then(|root| check::playbook(text, &root, &mut report));
    let refused = |report: Report| Diagnostics { list: report.into_list(), source: Arc::from(text) };
    let Some(model) = model.filter(|_| !report.has_errors()) else {
        return Err(refused(report));
    };
    let canonical = model.canonical();
    match model.plan(canonical) {
        Ok(plan) => Ok(Loaded { plan, warnings: report.into_list() }),
        // The checks above leave nothing that could fail here; if one is ever missing, it is still no panic.
        Err(error) => {
            report.error("plan", Span::default(), error.to_string());
            Err(refused(report))
        }
    }
}

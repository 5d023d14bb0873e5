//! The way from a text to a plan.

use std::sync::Arc;

use crate::catalogue::Catalogue;
use crate::check;
use crate::compact;
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
    let mut loaded = load_with(file_name, text, &Catalogue::new())?;
    match (loaded.pop(), loaded.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => {
            let mut report = Report::new(file_name);
            report.error("several-playbooks", Span::default(), "a file of one playbook is expected here");
            Err(Diagnostics { list: report.into_list(), source: Arc::from(text) })
        }
    }
}

/// Reads and checks a document of one or several playbooks, beside a catalogue that gives names a meaning.
///
/// # Errors
/// All [`Diagnostics`] at once where there is an error among them: one bad playbook refuses the document.
pub fn load_with(file_name: &str, text: &str, catalogue: &Catalogue) -> Result<Vec<Loaded>, Diagnostics> {
    let mut report = Report::new(file_name);
    let refused = |report: Report| Diagnostics { list: report.into_list(), source: Arc::from(text) };
    let Some(root) = document::parse(text, document::NODES, &mut report) else { return Err(refused(report)) };
    let mut read = Vec::new();
    for body in compact::bodies(text, root, catalogue, &mut report) {
        // Each has warnings of its own; the errors of all refuse the document.
        let mut own = Report::new(file_name);
        let model = check::playbook(text, &body, catalogue, &mut own);
        if own.has_errors() {
            report.append(own);
        } else if let Some(model) = model {
            let canonical = model.canonical();
            match model.plan(canonical) {
                Ok(plan) => read.push((plan, own)),
                // The checks above leave nothing that could fail here; if one is ever missing, it is still no panic.
                Err(error) => drop(report.error("plan", body.root.span, error.to_string())),
            }
        }
    }
    if report.has_errors() {
        read.into_iter().for_each(|(_, own)| report.append(own));
        return Err(refused(report));
    }
    let loaded = |(plan, own): (Plan, Report)| Loaded { plan, warnings: own.into_list() };
    Ok(read.into_iter().map(loaded).collect())
}

//! Alertmanager's matchers.

use std::collections::BTreeMap;

/// One matcher over labels; a missing label counts as the empty string.
#[derive(Debug, Clone)]
pub struct Matcher {}

/// A text that is no matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MatcherError {
    /// What is wrong.
    pub message: String,
}

impl Matcher {
    /// The matchers of a text such as `alertname="X", env=~"prod|stage"`, braces around it or not.
    ///
    /// # Errors
    /// [`MatcherError`] where the text is none.
    pub fn parse(_text: &str) -> Result<Vec<Self>, MatcherError> {
        Ok(Vec::new())
    }

    /// Whether the labels satisfy it.
    #[must_use]
    pub fn is_match(&self, _labels: &BTreeMap<String, String>) -> bool {
        false
    }
}

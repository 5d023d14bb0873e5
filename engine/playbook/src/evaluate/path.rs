//! Paths such as `alert.labels.cluster`, resolved without a template engine.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::{EvaluationError, Names, type_name};

/// A name that a template or condition refers to, for checks: root, further parts, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The root, such as `inputs`.
    pub root: String,
    /// The parts after it, as far as they are literal.
    pub rest: Vec<String>,
    /// The byte of the text where it begins.
    pub offset: usize,
}

/// A root and the parts after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    pub root: String,
    pub rest: Vec<String>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.root)?;
        self.rest.iter().try_for_each(|part| write!(f, ".{part}"))
    }
}

impl Path {
    /// A path of plain words and numbers, or of words in brackets; `None` for anything that needs the template engine.
    pub fn parse(text: &str) -> Option<Self> {
        let word = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        let end = text.find('.').unwrap_or(text.len());
        let root = &text[..end];
        if !super::ROOTS.contains(&root) {
            return None;
        }
        let mut rest = Vec::new();
        let mut left = &text[end..];
        while let Some(tail) = left.strip_prefix('.') {
            let (part, after) = match tail.strip_prefix('[') {
                Some(inner) => {
                    let close = inner.find(']')?;
                    (&inner[..close], &inner[close + 1..])
                }
                None => {
                    let end = tail.find('.').unwrap_or(tail.len());
                    (&tail[..end], &tail[end..])
                }
            };
            if !tail.starts_with('[') && !word(part) || part.is_empty() {
                return None;
            }
            rest.push(part.to_owned());
            left = after;
        }
        left.is_empty().then(|| Self { root: root.to_owned(), rest })
    }

    /// Calls `with` on the value.
    pub fn resolve<T>(
        &self,
        names: &dyn Names,
        with: impl FnOnce(&Value) -> Result<T, EvaluationError>,
    ) -> Result<T, EvaluationError> {
        let root = names.get(&self.root);
        let mut value = root.as_ref().map(Cow::as_ref);
        for part in &self.rest {
            value = match value {
                Some(Value::Object(map)) => map.get(part),
                Some(Value::Array(list)) => part.parse().ok().and_then(|index: usize| list.get(index)),
                _ => None,
            };
        }
        with(value.ok_or_else(|| missing(&self.to_string()))?)
    }

    /// The value as it stands.
    pub fn value(&self, names: &dyn Names) -> Result<Value, EvaluationError> {
        self.resolve(names, |value| Ok(value.clone()))
    }

    /// Appends the value's text.
    pub fn write(&self, names: &dyn Names, out: &mut String) -> Result<(), EvaluationError> {
        self.resolve(names, |value| {
            out.push_str(&as_text(value, || self.to_string())?);
            Ok(())
        })
    }
}

pub(super) fn missing(path: &str) -> EvaluationError {
    EvaluationError::new(format!("{path} has no value here"))
}

/// A value as templates print it: texts as they are, numbers and booleans as in JSON, nothing else.
pub(super) fn as_text(value: &Value, path: impl FnOnce() -> String) -> Result<Cow<'_, str>, EvaluationError> {
    match value {
        Value::String(text) => Ok(Cow::Borrowed(text)),
        Value::Number(number) => Ok(Cow::Owned(number.to_string())),
        Value::Bool(bool) => Ok(Cow::Borrowed(if *bool { "true" } else { "false" })),
        Value::Null => Err(EvaluationError::new(format!("{} is null", path()))),
        Value::Array(_) | Value::Object(_) => {
            let path = path();
            Err(EvaluationError::new(format!("{path} is {}; use {{{{json {path}}}}}", type_name(value))))
        }
    }
}

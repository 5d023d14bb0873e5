//! Reading an action's rendered parameters: each mistake is a sentence that names the field.

use std::borrow::Cow;

use serde_json::{Map, Value};
use stanch_core::Assignment;

/// The fields of `with`.
pub(crate) struct Parameters<'a>(Option<&'a Map<String, Value>>);

impl<'a> Parameters<'a> {
    /// The fields of an assignment; anything but an object counts as having none.
    pub fn of(assignment: &'a Assignment) -> Self {
        Self(assignment.with.as_object())
    }

    /// A field that is there and not null.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.and_then(|fields| fields.get(field)).filter(|value| !value.is_null())
    }

    /// A text that may be left out. Numbers and booleans count as their text.
    pub fn optional_text(&self, field: &str) -> Result<Option<Cow<'a, str>>, String> {
        match self.get(field) {
            None => Ok(None),
            Some(value) => match scalar(value) {
                Some(text) => Ok(Some(text)),
                None => Err(format!("`{field}` must be a text, not {}", kind(value))),
            },
        }
    }

    /// A text that must be there and not empty.
    pub fn text(&self, field: &str) -> Result<Cow<'a, str>, String> {
        self.optional_text(field)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| format!("`{field}` is missing or empty"))
    }

    /// An object that may be left out.
    pub fn object(&self, field: &str) -> Result<Option<&'a Map<String, Value>>, String> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(format!("`{field}` must be a map, not {}", kind(other))),
        }
    }
}

/// The text of a string, a number or a boolean.
pub(crate) fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(true) => Some(Cow::Borrowed("true")),
        Value::Bool(false) => Some(Cow::Borrowed("false")),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A text as it is; anything else as JSON.
pub(crate) fn text_or_json(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// What a value is, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

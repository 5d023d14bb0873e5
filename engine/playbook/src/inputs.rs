//! The inputs of a run, checked against their declarations.

use serde_json::{Map, Value};

use crate::evaluate::type_name;
use crate::nearest::nearest;
use crate::plan::{InputType, Plan};

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
    /// The inputs of a run: those given, checked, and the defaults of the others; null for an input that is neither
    /// given nor required and has no default. A text that spells a bool, int or number becomes one where the
    /// declaration asks for it.
    ///
    /// # Errors
    /// [`InputError`] for the first input that is unknown, missing or of the wrong type.
    pub fn check_inputs(&self, given: Map<String, Value>) -> Result<Map<String, Value>, InputError> {
        let mut inputs = Map::new();
        for (name, value) in given {
            let Some(spec) = self.inputs.get(&name) else {
                let help = match nearest(&name, self.inputs.keys().map(String::as_str)) {
                    Some(near) => format!("; did you mean {near}?"),
                    None if self.inputs.is_empty() => format!("; {} takes no inputs", self.name),
                    None => {
                        format!("; {} takes {}", self.name, self.inputs.keys().cloned().collect::<Vec<_>>().join(", "))
                    }
                };
                let message = format!("no input is named {name:?}{help}");
                return Err(InputError { input: name, message });
            };
            if value.is_null() && !spec.required {
                continue;
            }
            let value = spelled(spec.kind, value);
            if !fits(spec.kind, &value) {
                let message = format!("input {name} is {}, not {}", type_name(&value), article(spec.kind));
                return Err(InputError { input: name, message });
            }
            inputs.insert(name, value);
        }
        for (name, spec) in &self.inputs {
            if inputs.contains_key(name) {
                continue;
            }
            if spec.required {
                let message = format!("the required input {name} is missing; give it as {}", article(spec.kind));
                return Err(InputError { input: name.clone(), message });
            }
            inputs.insert(name.clone(), spec.default.clone().unwrap_or(Value::Null));
        }
        Ok(inputs)
    }
}

/// The value that a text spells, where the type asks for one and the text is exactly that.
pub(crate) fn spelled(kind: InputType, value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    let parsed = match kind {
        InputType::Bool => text.parse::<bool>().ok().map(Value::Bool),
        InputType::Int => text.parse::<i64>().ok().map(Value::from),
        InputType::Number => match text.parse::<i64>() {
            Ok(int) => Some(int.into()),
            Err(_) => text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number),
        },
        InputType::String | InputType::List | InputType::Map => None,
    };
    parsed.unwrap_or(value)
}

/// Whether a value is of a type.
pub(crate) fn fits(kind: InputType, value: &Value) -> bool {
    match kind {
        InputType::String => value.is_string(),
        InputType::Bool => value.is_boolean(),
        InputType::Int => value.is_i64() || value.is_u64(),
        InputType::Number => value.is_number(),
        InputType::List => value.is_array(),
        InputType::Map => value.is_object(),
    }
}

/// A type, for messages.
pub(crate) fn article(kind: InputType) -> &'static str {
    match kind {
        InputType::String => "a string",
        InputType::Bool => "a bool",
        InputType::Int => "an int",
        InputType::Number => "a number",
        InputType::List => "a list",
        InputType::Map => "a map",
    }
}

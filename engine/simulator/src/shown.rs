//! Values as authors write them, and the comparison with a part of them.

use serde_json::{Map, Value};

/// The value with each text that holds secrets written as in the playbook: `Bearer {{ secrets.edr }}`.
#[must_use]
pub fn with_marks(value: &Value) -> Value {
    match value {
        Value::Object(map) => match map.get("secret_text").and_then(Value::as_array) {
            Some(parts) if map.len() == 1 => Value::String(parts.iter().map(part).collect()),
            _ => Value::Object(map.iter().map(|(key, value)| (key.clone(), with_marks(value))).collect::<Map<_, _>>()),
        },
        Value::Array(list) => list.iter().map(with_marks).collect(),
        other => other.clone(),
    }
}

fn part(part: &Value) -> String {
    match (part["text"].as_str(), part["secret"].as_str()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(name)) => format!("{{{{ secrets.{name} }}}}"),
        (None, None) => String::new(),
    }
}

/// Where a value lacks what is wanted of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The place, such as `.body.hosts[0]`; empty where the values differ as wholes.
    pub place: String,
    /// What is wanted there.
    pub wanted: Value,
    /// What is there; none where nothing is.
    pub seen: Option<Value>,
}

/// The first place where `seen` is not as `wanted`: maps may hold more keys than are wanted, lists are compared item by
/// item, numbers by their value.
#[must_use]
pub fn difference(wanted: &Value, seen: &Value) -> Option<Difference> {
    match (wanted, seen) {
        (Value::Object(wanted), Value::Object(seen)) => wanted.iter().find_map(|(key, wanted)| match seen.get(key) {
            Some(seen) => difference(wanted, seen).map(|found| found.under(&format!(".{key}"))),
            None => Some(Difference { place: format!(".{key}"), wanted: wanted.clone(), seen: None }),
        }),
        (Value::Array(wanted), Value::Array(seen)) if wanted.len() == seen.len() => {
            wanted.iter().zip(seen).enumerate().find_map(|(index, (wanted, seen))| {
                difference(wanted, seen).map(|found| found.under(&format!("[{index}]")))
            })
        }
        (Value::Number(a), Value::Number(b)) if a == b || a.as_f64() == b.as_f64() => None,
        (wanted, seen) if wanted == seen => None,
        (wanted, seen) => Some(Difference { place: String::new(), wanted: wanted.clone(), seen: Some(seen.clone()) }),
    }
}

impl Difference {
    fn under(self, place: &str) -> Self {
        Self { place: format!("{place}{}", self.place), ..self }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_of_a_map_is_enough_and_a_list_is_compared_whole() {
        let seen = json!({"argv": ["a", "b"], "n": 1, "deep": {"x": [1, {"y": "z", "more": 2}]}});
        for wanted in
            [json!({}), json!({"n": 1.0}), json!({"deep": {"x": [1, {"y": "z"}]}}), json!({"argv": ["a", "b"]})]
        {
            assert_eq!(difference(&wanted, &seen), None, "{wanted}");
        }
        for (wanted, place) in [
            (json!({"argv": ["a"]}), ".argv"),
            (json!({"deep": {"x": [1, {"y": "w"}]}}), ".deep.x[1].y"),
            (json!({"m": 1}), ".m"),
            (json!([]), ""),
        ] {
            assert_eq!(difference(&wanted, &seen).unwrap().place, place);
        }
    }

    #[test]
    fn secrets_are_shown_by_name() {
        let value = json!({"headers": {"A": {"secret_text": [{"text": "Bearer "}, {"secret": "edr"}]}}});
        assert_eq!(with_marks(&value), json!({"headers": {"A": "Bearer {{ secrets.edr }}"}}));
    }
}

//! Inputs of a run as they are typed: `name=value`.

use std::str::FromStr;

use serde_json::Value;

/// One input.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its value: JSON where it reads as such, else the text itself.
    pub value: Value,
}

impl FromStr for Input {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("write it as name=value")?;
        let is_name = !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || "_-".contains(letter));
        if !is_name {
            return Err(format!("{:?} is no input's name; write it as name=value", crate::terminal::inert(name)));
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        Ok(Self { name: name.to_owned(), value })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_json_where_it_reads_as_such() {
        for (text, value) in [
            ("x=true", json!(true)),
            ("x=12", json!(12)),
            ("x=\"12\"", json!("12")),
            ("x=[\"a\",1]", json!(["a", 1])),
            ("x={\"a\": null}", json!({"a": null})),
            ("x=db-01:9100", json!("db-01:9100")),
            ("x=a=b", json!("a=b")),
            ("x=", json!("")),
            ("x=[1", json!("[1")),
            ("x=10.0.0.1", json!("10.0.0.1")),
        ] {
            assert_eq!(text.parse::<Input>().unwrap(), Input { name: "x".to_owned(), value }, "{text}");
        }
    }

    #[test]
    fn what_has_no_name_is_refused() {
        for text in ["", "x", "=1", "a b=1", "\u{1b}=1"] {
            let refusal = text.parse::<Input>().unwrap_err();
            assert!(refusal.contains("name=value") && !refusal.contains('\u{1b}'), "{text}: {refusal}");
        }
    }
}

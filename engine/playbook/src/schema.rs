//! The JSON Schema of the playbook document, from the same tables that the checker uses.

use serde_json::{Map, Value, json};

use crate::actions::{self, FieldKind, Signature};
use crate::keys::{self, Key, Shape};

/// The JSON Schema (2020-12) of a playbook, for editors: every key with a description, unknown keys refused.
///
/// It says less than the checker: names, templates, conditions and the order of steps are not in it.
#[must_use]
pub fn schema() -> Value {
    let mut root = object(keys::PLAYBOOK, &["playbook"]);
    let map = root.as_object_mut().expect("an object schema");
    map.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    map.insert("title".to_owned(), "Stanch playbook".into());
    map.insert("$defs".to_owned(), json!({"trigger": trigger(), "phase": phase(), "step": step()}));
    root
}

pub(crate) fn object(keys: &[Key], required: &[&str]) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|key| (key.name.to_owned(), described(key))).collect();
    let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn described(key: &Key) -> Value {
    let mut schema = shape(&key.shape);
    schema["description"] = key.doc.into();
    schema
}

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Name => json!({"type": "string", "pattern": "^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$"}),
        Shape::Text => json!({"type": "string"}),
        Shape::Template => json!({"type": ["string", "number", "boolean"]}),
        Shape::Cel => json!({"type": ["string", "number", "boolean"], "maxLength": 2048}),
        Shape::Bool => json!({"type": "boolean"}),
        Shape::Whole { least, most } => json!({"type": "integer", "minimum": least, "maximum": most}),
        Shape::Factor => json!({"type": "number", "minimum": 1, "maximum": keys::MOST_FACTOR}),
        Shape::Duration => duration(),
        Shape::Word(words) => json!({"enum": words}),
        Shape::Any => json!({}),
        Shape::Texts => json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
        Shape::Matchers => {
            json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]})
        }
        Shape::MapOf(inner) => json!({"type": "object", "additionalProperties": self::shape(inner)}),
        Shape::Object(keys) => object(keys, required_in(keys)),
        Shape::ListOf(inner) => json!({"type": "array", "items": self::shape(inner), "maxItems": keys::MOST_TRIGGERS}),
        Shape::Trigger => json!({"$ref": "#/$defs/trigger"}),
        Shape::Phase => json!({"$ref": "#/$defs/phase"}),
        Shape::With => json!({"type": ["object", "null"]}),
    }
}

fn required_in(keys: &'static [Key]) -> &'static [&'static str] {
    let has = |name: &str| keys.iter().any(|key| key.name == name);
    match () {
        () if has("matchers") => &["matchers"],
        () if has("subject") => &["subject"],
        () if has("cron") => &["cron"],
        () if has("required") => &["type"],
        () => &[],
    }
}

fn duration() -> Value {
    json!({"type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$", "minLength": 2})
}

fn trigger() -> Value {
    let mut schema = object(keys::TRIGGER, &[]);
    let one_of: Vec<Value> = keys::TRIGGER_KINDS.iter().map(|kind| json!({"required": [kind]})).collect();
    schema["oneOf"] = one_of.into();
    schema["properties"]["manual"] = json!({
        "type": ["object", "null"],
        "additionalProperties": false,
        "description": schema["properties"]["manual"]["description"],
    });
    schema
}

fn phase() -> Value {
    let reserved: Map<String, Value> = keys::PHASE.iter().map(|key| (key.name.to_owned(), described(key))).collect();
    // A reserved key is no step: it must not match the steps' pattern.
    let names = keys::PHASE.iter().map(|key| key.name).collect::<Vec<_>>().join("|");
    let steps = format!("^(?!({names})$)[a-z0-9_-]{{1,63}}$");
    json!({
        "type": "object",
        "properties": reserved,
        "patternProperties": {steps: {"$ref": "#/$defs/step"}},
        "additionalProperties": false,
    })
}

fn step() -> Value {
    let mut schema = object(keys::STEP, &["uses"]);
    let names: Vec<&str> = actions::ALL.iter().map(|signature| signature.name).collect();
    schema["properties"]["uses"] = json!({"enum": names, "description": "The action."});
    let with = actions::ALL.iter().map(|signature| {
        json!({
            "if": {"properties": {"uses": {"const": signature.name}}, "required": ["uses"]},
            "then": {"properties": {"with": parameters(signature)}},
        })
    });
    schema["allOf"] = with.collect();
    schema
}

fn parameters(signature: &Signature) -> Value {
    let properties: Map<String, Value> = signature
        .fields
        .iter()
        .map(|field| {
            let mut schema = match field.kind {
                FieldKind::Text => json!({"type": ["string", "number", "boolean"]}),
                FieldKind::Any => json!({}),
                FieldKind::Map => json!({"type": ["object", "string"]}),
                FieldKind::Texts => {
                    json!({"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}})
                }
                FieldKind::Argv => {
                    json!({"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}})
                }
                FieldKind::List => json!({"type": ["array", "string"]}),
                FieldKind::Duration if field.literal => duration(),
                FieldKind::Duration => json!({"type": "string"}),
                FieldKind::Word(words) => json!({"enum": words}),
            };
            schema["description"] = field.doc.into();
            (field.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<&str> = signature.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({
        "type": "object",
        "description": signature.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if !signature.any_of.is_empty() {
        let one: Vec<Value> = signature.any_of.iter().map(|name| json!({"required": [name]})).collect();
        schema["anyOf"] = one.into();
    }
    schema
}

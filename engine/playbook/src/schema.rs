//! The JSON Schema of the playbook document, from the same tables that the checker uses.

use serde_json::{Map, Value, json};

use crate::actions::{self, FieldKind, Signature};
use crate::keys::{self, Key, Shape};

/// The JSON Schema (2020-12) of a playbook, for editors: every key with a description, unknown keys refused.
///
/// It says less than the checker: names, templates, conditions and the order of steps are not in it.
#[must_use]
pub fn schema() -> Value {
    let mut root = object(keys::PLAYBOOK);
    let map = root.as_object_mut().expect("an object schema");
    map.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    map.insert("title".to_owned(), "Stanch playbook".into());
    map.insert("$defs".to_owned(), definitions());
    root
}

fn definitions() -> Value {
    let mut all = json!({
        "trigger": trigger(),
        "phase": phase(),
        "step": step(),
        "verify": calling(keys::VERIFY, |name| !actions::is_kept_by_core(name)),
        "undo": calling(keys::UNDO, |name| !actions::is_kept_by_core(name)),
    });
    for signature in actions::ALL {
        all[format!("with.{}", signature.name)] = parameters(signature);
    }
    all
}

fn object(keys: &[Key]) -> Value {
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
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
        Shape::Object(keys) => object(keys),
        Shape::ListOf(inner) => json!({"type": "array", "items": self::shape(inner), "maxItems": keys::MOST_TRIGGERS}),
        Shape::Trigger => json!({"$ref": "#/$defs/trigger"}),
        Shape::Phase => json!({"$ref": "#/$defs/phase"}),
        Shape::With => json!({"type": ["object", "null"]}),
    }
}

fn duration() -> Value {
    json!({"type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$", "minLength": 2})
}

fn trigger() -> Value {
    let mut schema = object(keys::TRIGGER);
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
    let mut schema = calling(keys::STEP, |_| true);
    schema["properties"]["verify"] = described_ref("verify", keys::STEP);
    schema["properties"]["undo"] = described_ref("undo", keys::STEP);
    schema
}

/// What `keys` describe, where `uses` is one of some actions and decides what `with` holds.
fn calling(keys: &[Key], may: fn(&str) -> bool) -> Value {
    let mut schema = object(keys);
    let doc = schema["properties"]["uses"]["description"].clone();
    let names: Vec<&str> = actions::ALL.iter().map(|signature| signature.name).filter(|name| may(name)).collect();
    let with = names.iter().map(|name| {
        json!({
            "if": {"properties": {"uses": {"const": name}}, "required": ["uses"]},
            "then": {"properties": {"with": {"$ref": format!("#/$defs/with.{name}")}}},
        })
    });
    schema["allOf"] = with.collect();
    schema["properties"]["uses"] = json!({"enum": names, "description": doc});
    schema
}

fn described_ref(name: &str, keys: &[Key]) -> Value {
    let doc = keys.iter().find(|key| key.name == name).map_or("", |key| key.doc);
    json!({"$ref": format!("#/$defs/{name}"), "description": doc})
}

fn parameters(signature: &Signature) -> Value {
    let properties: Map<String, Value> = signature
        .fields
        .iter()
        .filter(|field| field.kind != FieldKind::Paths)
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
                FieldKind::Whole => json!({"type": "integer", "minimum": 1}),
                FieldKind::Bool => json!({"type": "boolean"}),
                FieldKind::Written => json!({"type": "object"}),
                FieldKind::Playbook => shape(&Shape::Name),
                FieldKind::Step => json!({"type": "string"}),
                FieldKind::Paths | FieldKind::People => shape(&Shape::Texts),
                FieldKind::Escalate => shape(&Shape::ListOf(&Shape::Object(keys::NOTIFY))),
                FieldKind::Awaited => {
                    let event = |kind: &str| {
                        let key = keys::TRIGGER.iter().find(|key| key.name == kind).map(described);
                        json!({"type": "object", "properties": {kind: key}, "required": [kind], "additionalProperties": false})
                    };
                    json!({"oneOf": [{"const": "resolved"}, event("nats"), event("alertmanager")]})
                }
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

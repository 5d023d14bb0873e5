//! The JSON Schema of the playbook document, from the same tables that the checker uses.

use serde_json::{Map, Value, json};

use crate::actions::{self, FieldKind, Signature};
use crate::keys::{self, Key, Shape};

/// The JSON Schema (2020-12) of a document of playbooks, for editors: every key with a description, unknown keys refused.
///
/// It says less than the checker: names, templates, conditions and the order of steps are not in it.
#[must_use]
pub fn schema() -> Value {
    let forms = ["playbook", "playbooks", "routines"].map(|name| json!({"$ref": format!("#/$defs/{name}")}));
    let mut definitions = shared();
    definitions.insert("phase".to_owned(), phase());
    definitions.insert("trigger".to_owned(), trigger(keys::TRIGGER, &keys::TRIGGER_KINDS));
    definitions.insert("step".to_owned(), step());
    definitions.insert("playbook".to_owned(), object(keys::PLAYBOOK));
    let named: Vec<Key> = keys::PLAYBOOK.iter().copied().filter(|key| key.name != "playbook").collect();
    definitions.insert("named_playbook".to_owned(), object(&named));
    definitions.insert("playbooks".to_owned(), object(keys::SEVERAL));
    let steps = |key: &Key| Key { required: key.required || key.name == "steps", ..*key };
    let routine: Vec<Key> = named.iter().map(steps).chain(keys::ROUTINE.iter().copied()).collect();
    definitions.insert("routine".to_owned(), object(&routine));
    definitions.insert(
        "routines".to_owned(),
        json!({
            "description": "Playbooks that run on their schedule, each under its name.",
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {"$ref": "#/$defs/routine"},
        }),
    );
    json!({"$schema": DIALECT, "title": "Stanch playbook", "$defs": definitions, "anyOf": forms})
}

/// The JSON Schema (2020-12) of a catalogue, for editors.
#[must_use]
pub fn catalogue_schema() -> Value {
    let mut definitions = shared();
    definitions.insert("named_action".to_owned(), calling(keys::NAMED_ACTION, true, false));
    definitions.insert("detector".to_owned(), trigger(keys::DETECTOR, &["alertmanager", "nats"]));
    let mut root = object(keys::CATALOGUE);
    root["$schema"] = DIALECT.into();
    root["title"] = "Stanch catalogue".into();
    root["$defs"] = definitions.into();
    root
}

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// What both schemas define.
fn shared() -> Map<String, Value> {
    let with = actions::ALL.iter().map(|signature| (format!("with.{}", signature.name), parameters(signature)));
    let mut all: Map<String, Value> = with.collect();
    all.insert("verify".to_owned(), calling(keys::VERIFY, true, true));
    all.insert("undo".to_owned(), calling(keys::UNDO, true, true));
    all
}

pub(crate) fn object(keys: &[Key]) -> Value {
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
        Shape::Defined(name) => json!({"$ref": format!("#/$defs/{name}")}),
        Shape::Phase => json!({"$ref": "#/$defs/phase"}),
        Shape::Schedule => json!({"anyOf": [{"type": "string"}, object(keys::SCHEDULE)]}),
        Shape::Monitoring => {
            let map = json!({"type": "object", "additionalProperties": duration()});
            json!({"anyOf": [map, {"type": "array", "items": map}]})
        }
        Shape::With => json!({"type": ["object", "null"]}),
    }
}

fn duration() -> Value {
    json!({"type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$", "minLength": 2})
}

fn trigger(keys: &[Key], kinds: &[&str]) -> Value {
    let mut schema = object(keys);
    let one_of: Vec<Value> = kinds.iter().map(|kind| json!({"required": [kind]})).collect();
    schema["oneOf"] = one_of.into();
    if let Some(manual) = schema["properties"].get_mut("manual") {
        manual["type"] = json!(["object", "null"]);
    }
    schema
}

/// A map of steps, or the compact form.
fn phase() -> Value {
    let reserved: Map<String, Value> = keys::PHASE.iter().map(|key| (key.name.to_owned(), described(key))).collect();
    // A reserved key is no step: it must not match the steps' pattern.
    let names = keys::PHASE.iter().map(|key| key.name).collect::<Vec<_>>().join("|");
    let steps = format!("^(?!({names})$)[a-z0-9_-]{{1,63}}$");
    let map = json!({
        "type": "object",
        "properties": reserved,
        "patternProperties": {steps: {"$ref": "#/$defs/step"}},
        "additionalProperties": false,
    });
    let wait = json!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "patternProperties": {"^wait(_.*)?$": duration()},
        "additionalProperties": false,
    });
    let list = json!({"type": "array", "items": {"anyOf": [{"type": "string"}, wait]}, "maxItems": keys::MOST_STEPS});
    json!({"anyOf": [map, list, {"type": "string", "description": "Names of the catalogue, with commas between them."}]})
}

fn step() -> Value {
    calling(keys::STEP, false, true)
}

/// What `keys` describe, where `uses` decides what `with` holds. `workers`: only what a worker executes;
/// `named`: names of the catalogue too.
fn calling(keys: &[Key], workers: bool, named: bool) -> Value {
    let mut schema = object(keys);
    let doc = schema["properties"]["uses"]["description"].clone();
    let names = actions::ALL.iter().map(|signature| signature.name);
    let names: Vec<&str> = names.filter(|name| !workers || !actions::is_kept_by_core(name)).collect();
    let with = names.iter().map(|name| {
        json!({
            "if": {"properties": {"uses": {"const": name}}, "required": ["uses"]},
            "then": {"properties": {"with": {"$ref": format!("#/$defs/with.{name}")}}},
        })
    });
    schema["allOf"] = with.collect();
    let mut uses = match named {
        true => json!({"anyOf": [{"enum": names}, {"type": "string", "pattern": "^[a-z0-9_-]{1,63}$"}]}),
        false => json!({"enum": names}),
    };
    uses["description"] = doc;
    schema["properties"]["uses"] = uses;
    schema
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

//! The JSON Schemas and the OpenAPI document of `schemas/`, generated from the types that read and write.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use stanch_core::event::Event;
use stanch_core::record::Body;

use crate::config::Config;

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Every file of `schemas/`, by name.
#[must_use]
pub fn schemas() -> Vec<(&'static str, Value)> {
    vec![
        ("playbook.schema.json", stanch_playbook::schema()),
        ("catalogue.schema.json", stanch_playbook::catalogue_schema()),
        ("test.schema.json", stanch_playbook::test_schema()),
        ("record.schema.json", record()),
        ("event.schema.json", event()),
        ("config.schema.json", json!(schemars::schema_for!(Config))),
        ("openapi.json", crate::http::document()),
    ]
}

/// A text of `schemas/`: indented, with a final line feed.
///
/// # Panics
/// Never: a JSON value has text keys alone.
#[must_use]
pub fn text(schema: &Value) -> String {
    let mut text = serde_json::to_string_pretty(schema).expect("a JSON value has text keys alone");
    text.push('\n');
    text
}

/// One line of an export: an envelope, and the payload of its kind.
fn record() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let payloads = Body::schemas(&mut generator);
    let kinds: Vec<&str> = payloads.iter().map(|(kind, _)| *kind).collect();
    let by_kind: Vec<Value> = payloads
        .iter()
        .map(|(kind, payload)| {
            json!({
                "if": {"properties": {"envelope": {"properties": {"kind": {"const": kind}}}}},
                "then": {"properties": {"payload": payload}},
            })
        })
        .collect();
    let hash = json!({"type": "string", "pattern": "^[0-9a-f]{64}$"});
    let id = json!({"type": "string", "format": "uuid"});
    let text = json!({"type": "string"});
    let number = json!({"type": "integer", "minimum": 0});
    let described = |schema: &Value, description: &str| {
        let mut schema = schema.clone();
        schema["description"] = description.into();
        schema
    };
    let envelope: Map<String, Value> = [
        ("actor", described(&text, "who caused it: engine, source:NAME or person:NAME")),
        ("attempt", described(&number, "the attempt's number")),
        ("epoch", described(&number, "the attempt's or the engine's epoch")),
        ("incident", described(&id, "the incident")),
        ("kind", json!({"enum": kinds, "description": "what happened"})),
        ("outcome", described(&text, "the outcome, in one word")),
        ("payload", described(&hash, "SHA-256 of the salt and the payload's bytes")),
        ("plan", described(&hash, "the plan's digest")),
        ("prev", described(&hash, "the hash of the envelope before; zeros for the first")),
        ("run", described(&id, "the run")),
        ("sequence", json!({"type": "integer", "minimum": 1, "description": "its place"})),
        ("step", described(&text, "the step, phase.step")),
        ("time", json!({"type": "string", "format": "date-time", "description": "when it was decided"})),
    ]
    .into_iter()
    .map(|(name, schema)| (name.to_owned(), schema))
    .collect();
    let definitions = generator.take_definitions(true);
    json!({
        "$schema": DIALECT,
        "title": "Record",
        "description": "One line of the audit trail: what is hashed and chained, and beside it what can be deleted.",
        "type": "object",
        "required": ["envelope"],
        "properties": {
            "envelope": {
                "type": "object",
                "description": "Canonical JSON, hashed exactly as it is written here.",
                "required": ["actor", "kind", "payload", "prev", "sequence", "time"],
                "properties": envelope,
                "additionalProperties": false,
            },
            "payload": {"type": "object", "description": "The content; absent where it was deleted."},
            "salt": {"type": "string", "pattern": "^[0-9a-f]{32}$", "description": "What the payload's digest is salted with."},
        },
        "additionalProperties": false,
        "allOf": by_kind,
        "$defs": definitions,
    })
}

/// An event as it comes in: a CloudEvent, structured.
fn event() -> Value {
    let mut schema = json!(schemars::schema_for!(Event));
    schema["title"] = "CloudEvent".into();
    schema["description"] =
        "An event in CloudEvents 1.0's structured mode. Further attributes are ignored; source and id are its identity.".into();
    schema["properties"]["specversion"] = json!({"type": "string", "pattern": "^1\\."});
    schema["properties"]["datacontenttype"] = json!({"type": "string"});
    schema["properties"]["data_base64"] = json!({"type": "string", "contentEncoding": "base64"});
    schema["properties"]["time"]["description"] = "When it happened, by its sender; when it came unless given.".into();
    schema["required"] = json!(["specversion", "id", "source", "type"]);
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set `STANCH_WRITE_SCHEMAS=1` to have the files written.
    #[test]
    fn the_files_of_schemas_are_what_the_types_say() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
        let write = std::env::var_os("STANCH_WRITE_SCHEMAS").is_some();
        for (name, schema) in schemas() {
            let (path, expected) = (directory.join(name), text(&schema));
            if write {
                std::fs::write(&path, expected).unwrap();
                continue;
            }
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                found == expected,
                "{name} differs; run STANCH_WRITE_SCHEMAS=1 cargo nextest run -p stanch-server schemas"
            );
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for (name, schema) in schemas() {
            let text = schema.to_string();
            for part in text.split("\"$ref\":\"#").skip(1) {
                let pointer = part.split('"').next().unwrap();
                assert!(pointer.is_empty() || schema.pointer(pointer).is_some(), "{name}: {pointer}");
            }
        }
    }
}

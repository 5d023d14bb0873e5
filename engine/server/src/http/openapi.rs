//! Routes with their description: a route is documented where it is made, or it is not made.

use std::collections::BTreeSet;

use axum::Router;
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::routing::{self, MethodRouter};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::Shared;
use super::problem::Problem;

/// How a component's schema is asked for.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The schema of a type, by reference.
pub(super) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// What is said of an operation.
pub(super) struct Doc {
    summary: &'static str,
    query: Vec<(&'static str, &'static str)>,
    headers: Vec<(&'static str, &'static str)>,
    body: Option<(&'static str, Option<SchemaOf>)>,
    answers: Vec<(StatusCode, &'static str, Option<SchemaOf>)>,
    problems: &'static [u16],
    hidden: bool,
}

impl Doc {
    pub(super) const fn new(summary: &'static str) -> Self {
        Self {
            summary,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            answers: Vec::new(),
            problems: &[],
            hidden: false,
        }
    }

    /// Another spelling of a route that is documented already.
    pub(super) const fn hidden() -> Self {
        let mut doc = Self::new("");
        doc.hidden = true;
        doc
    }

    pub(super) fn query(mut self, name: &'static str, description: &'static str) -> Self {
        self.query.push((name, description));
        self
    }

    pub(super) fn header(mut self, name: &'static str, description: &'static str) -> Self {
        self.headers.push((name, description));
        self
    }

    /// Takes `limit` and `cursor`.
    pub(super) fn pages(self) -> Self {
        self.query("limit", "1 to 500 items; 50 unless given").query("cursor", "the next of the page before")
    }

    /// Takes `Prefer: wait=N`.
    pub(super) fn prefers(self) -> Self {
        self.header("Prefer", "wait=N: answer when the runs are over, or after N seconds (at most 300; RFC 7240)")
    }

    pub(super) fn body(mut self, media_type: &'static str, schema: Option<SchemaOf>) -> Self {
        self.body = Some((media_type, schema));
        self
    }

    pub(super) fn answer<T: JsonSchema>(mut self, status: StatusCode) -> Self {
        self.answers.push((status, "application/json", Some(schema::<T>)));
        self
    }

    /// Answers with JSON of any shape.
    pub(super) fn json(mut self) -> Self {
        self.answers.push((StatusCode::OK, "application/json", None));
        self
    }

    /// Answers with text of this media type.
    pub(super) fn lines(mut self, media_type: &'static str) -> Self {
        self.answers.push((StatusCode::OK, media_type, None));
        self
    }

    pub(super) const fn problems(mut self, problems: &'static [u16]) -> Self {
        self.problems = problems;
        self
    }
}

struct Operation {
    method: &'static str,
    path: &'static str,
    doc: Doc,
}

/// The routes in the making.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<Shared>,
    operations: Vec<Operation>,
}

impl Routes {
    pub(super) fn get<H, T>(self, path: &'static str, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        self.route("get", path, routing::get(handler), doc)
    }

    pub(super) fn post<H, T>(self, path: &'static str, handler: H, doc: Doc) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        self.route("post", path, routing::post(handler), doc)
    }

    fn route(mut self, method: &'static str, path: &'static str, route: MethodRouter<Shared>, doc: Doc) -> Self {
        self.operations.push(Operation { method, path, doc });
        Self { router: self.router.route(path, route), operations: self.operations }
    }

    pub(super) fn into_router(self) -> Router<Shared> {
        self.router
    }
}

/// The OpenAPI 3.1 document of all routes.
pub(crate) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let problem = schema::<Problem>(&mut generator);
    let mut paths: Map<String, Value> = Map::new();
    for operation in super::routes().operations.into_iter().filter(|operation| !operation.doc.hidden) {
        let described = describe(&operation, &problem, &mut generator);
        paths.entry(operation.path.replace("{*", "{")).or_insert_with(|| json!({}))[operation.method] = described;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stanch",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs incident playbooks. Errors are application/problem+json with a stable code and a remedy.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:9190"}],
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn describe(operation: &Operation, problem: &Schema, generator: &mut SchemaGenerator) -> Value {
    let Operation { method, path, doc } = operation;
    let mut parameters = Vec::new();
    for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let name = name.trim_start_matches('*');
        parameters.push(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    }
    for (place, list) in [("query", &doc.query), ("header", &doc.headers)] {
        for (name, description) in list {
            let text = json!({"type": "string"});
            parameters.push(json!({"name": name, "in": place, "description": description, "schema": text}));
        }
    }
    let mut responses = Map::new();
    for (status, media_type, schema) in &doc.answers {
        let schema = schema.map_or_else(|| json!({}), |schema| json!(schema(generator)));
        let description = status.canonical_reason().unwrap_or_default();
        let content = json!({*media_type: {"schema": schema}});
        responses.insert(status.as_str().to_owned(), json!({"description": description, "content": content}));
    }
    let own: BTreeSet<u16> = doc.answers.iter().map(|(status, ..)| status.as_u16()).collect();
    for status in doc.problems.iter().filter(|status| !own.contains(status)) {
        let code = StatusCode::from_u16(*status).ok();
        let description = code.and_then(|code| code.canonical_reason()).unwrap_or_default();
        let content = json!({"application/problem+json": {"schema": problem}});
        responses.insert(status.to_string(), json!({"description": description, "content": content}));
    }
    let mut described = json!({
        "operationId": operation_id(method, path),
        "summary": doc.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some((media_type, schema)) = doc.body {
        let schema = schema.map_or_else(|| json!({"type": "object"}), |schema| json!(schema(generator)));
        described["requestBody"] = json!({"content": {media_type: {"schema": schema}}});
    }
    described
}

/// Such as `get_api_v1_runs_id`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Engine, get};

    #[tokio::test]
    async fn the_document_is_served_and_every_reference_in_it_leads_somewhere() {
        let engine = Engine::start(&[]).await;
        let served = engine.send(get("/api/v1/openapi.json")).await.json;
        assert_eq!(served, document());
        let text = served.to_string();
        let mut references = 0;
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(served.pointer(pointer).is_some(), "{pointer}");
            references += 1;
        }
        assert!(references > 20, "{references}");
    }

    #[tokio::test]
    async fn every_documented_route_is_there() {
        let engine = Engine::start(&[]).await;
        for (path, operations) in document()["paths"].as_object().unwrap() {
            let path = path
                .replace("{id}", "01890000-0000-7000-8000-000000000000")
                .replace("{name}", "x")
                .replace("{step}", "x");
            for method in operations.as_object().unwrap().keys() {
                let request = get(&path.replace("{source}", "eu")).method(&method.to_uppercase());
                let response = engine.open(request).await;
                assert_ne!(response.status(), 405, "{method} {path}");
            }
        }
    }
}

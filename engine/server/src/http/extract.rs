//! What handlers take from a request, with problems where it does not fit.

use std::str::FromStr;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// The one parameter of the path, decoded.
pub(super) struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Path::<String>::from_request_parts(parts, state)
            .await
            .map(|Path(text)| Self(text))
            .map_err(|_| Problem::unknown("route.unknown", "the path is not UTF-8", "encode the path's parts as UTF-8"))
    }
}

impl Segment {
    /// The parameter as an id; where it is none, nothing has it.
    pub(super) fn id<T: FromStr>(&self, what: &'static str, code: &'static str) -> Result<T, Problem> {
        self.0.parse().map_err(|_| {
            let detail = format!("no {what} has this id: it is no UUID");
            Problem::unknown(code, detail, "list what there is and use an id from there")
        })
    }
}

/// The query, of which every key must be known.
pub(super) struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri).map(|Query(asked)| Self(asked)).map_err(|error| {
            let remedy = "GET /api/v1/openapi.json lists the parameters";
            Problem::new(StatusCode::BAD_REQUEST, "query.invalid", error.body_text(), remedy)
        })
    }
}

//! Bodies, read within bounds.

use std::io::Read as _;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use futures::StreamExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::intake::Unreadable;

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read and thrown away, so that the sender gets to read the answer.
const DRAINED: u64 = 256 << 20;
/// The largest body of an API request.
const API_LIMIT: usize = 1 << 20;

/// Of what takes no words: an empty body, or an empty object; likewise a query without parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Nothing {}

/// What came.
#[derive(Debug, PartialEq)]
pub(super) struct Received {
    /// The body; cut where it was too large.
    pub bytes: Bytes,
    /// How many bytes came.
    pub size: u64,
}

impl Received {
    /// Whether nothing was cut.
    pub(super) fn is_complete(&self) -> bool {
        self.bytes.len() as u64 == self.size
    }
}

/// Reads a body to its end and keeps at most `limit` bytes.
pub(super) async fn read(body: Body, limit: usize) -> Result<Received, Problem> {
    match tokio::time::timeout(PATIENCE, read_all(body, limit)).await {
        Ok(received) => received,
        Err(_) => {
            let detail = "the body did not come within 30 s";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body.timeout", detail, "send it again"))
        }
    }
}

async fn read_all(body: Body, limit: usize) -> Result<Received, Problem> {
    let mut chunks = body.into_data_stream();
    let mut first = Bytes::new();
    let mut whole: Vec<u8> = Vec::new();
    let mut size = 0u64;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            let detail = "the body ended before its announced length";
            Problem::new(StatusCode::BAD_REQUEST, "body.incomplete", detail, "send it again")
        })?;
        size += chunk.len() as u64;
        if size > DRAINED {
            break;
        }
        // Most bodies are one chunk, which is then not copied.
        if first.is_empty() && whole.is_empty() && chunk.len() <= limit {
            first = chunk;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        let room = limit.saturating_sub(whole.len());
        whole.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }
    let bytes = if whole.is_empty() { first } else { whole.into() };
    Ok(Received { bytes, size })
}

/// The body without its `Content-Encoding`: none or gzip, at most `limit` bytes afterwards.
pub(super) fn decode(headers: &HeaderMap, bytes: Bytes, limit: usize) -> Result<Bytes, Unreadable> {
    let encoding = headers.get(header::CONTENT_ENCODING).map_or(&b""[..], |value| value.as_bytes());
    if encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity") {
        return Ok(bytes);
    }
    if !encoding.eq_ignore_ascii_case(b"gzip") && !encoding.eq_ignore_ascii_case(b"x-gzip") {
        return Err(Unreadable::new("body.unknown-encoding", "the content encoding is neither gzip nor identity"));
    }
    let mut decoded = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut decoder = flate2::read::MultiGzDecoder::new(&*bytes).take(most);
    match decoder.read_to_end(&mut decoded) {
        Ok(_) if decoded.len() > limit => {
            Err(Unreadable::new("body.too-large", format!("uncompressed it is larger than {limit} bytes")))
        }
        Ok(_) => Ok(decoded.into()),
        Err(error) => Err(Unreadable::new("body.invalid-gzip", format!("the gzip stream is damaged: {error}"))),
    }
}

/// The JSON of an API request; no body at all is an empty object.
pub(super) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let received = read(body, API_LIMIT).await?;
    if !received.is_complete() {
        let remedy = "send less; an API request has at most 1 MiB";
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body.too-large", "the body is too large", remedy));
    }
    if !received.bytes.is_empty() && !is_json(&parts.headers) {
        let remedy = "send JSON and say so: Content-Type: application/json";
        let detail = "the body is not said to be JSON";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body.not-json", detail, remedy));
    }
    let bytes: &[u8] = if received.bytes.is_empty() { b"{}" } else { &received.bytes };
    let remedy = "GET /api/v1/openapi.json shows what is expected";
    let value = serde_json::from_slice(bytes).map_err(|error| {
        let (status, code) = match error.classify() {
            serde_json::error::Category::Data => (StatusCode::UNPROCESSABLE_ENTITY, "body.invalid"),
            _ => (StatusCode::BAD_REQUEST, "body.invalid-json"),
        };
        Problem::new(status, code, error.to_string(), remedy)
    })?;
    // serde takes a list for a struct, field by field.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "body.invalid", "an object is expected", remedy));
    }
    Ok(value)
}

/// The media type without its parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(headers: &HeaderMap) -> bool {
    media_type(headers) == "application/json"
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use axum::http::HeaderValue;

    use super::*;

    fn chunked(chunks: &[&'static str]) -> Body {
        let chunks: Vec<_> =
            chunks.iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes()))).collect();
        Body::from_stream(futures::stream::iter(chunks))
    }

    #[tokio::test]
    async fn a_body_is_whole_up_to_the_limit_and_cut_beyond_it() {
        for (chunks, limit, bytes, size) in [
            (&[][..], 4, "", 0),
            (&["abcd"], 4, "abcd", 4),
            (&["ab", "cd"], 4, "abcd", 4),
            (&["", "ab", "", "cd"], 4, "abcd", 4),
            (&["abcde"], 4, "abcd", 5),
            (&["ab", "cde", "f"], 4, "abcd", 6),
        ] {
            let received = read(chunked(chunks), limit).await.unwrap();
            assert_eq!((&*received.bytes, received.size), (bytes.as_bytes(), size), "{chunks:?}");
            assert_eq!(received.is_complete(), size <= 4);
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_a_problem() {
        let chunks = [Ok(Bytes::from_static(b"ab")), Err(std::io::Error::other("gone"))];
        let problem = read(Body::from_stream(futures::stream::iter(chunks)), 9).await.unwrap_err();
        assert_eq!(problem.code(), "body.incomplete");
    }

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    #[test]
    fn gzip_is_bounded_after_decompression() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("GZIP"));
        assert_eq!(&*decode(&headers, gzip(b"hello"), 5).unwrap(), b"hello");
        assert_eq!(decode(&headers, gzip(&vec![b'x'; 50 << 20]), 1000).unwrap_err().code, "body.too-large");
        assert_eq!(decode(&headers, Bytes::from_static(b"hello"), 5).unwrap_err().code, "body.invalid-gzip");
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
        assert_eq!(decode(&headers, Bytes::from_static(b"hello"), 5).unwrap_err().code, "body.unknown-encoding");
        assert_eq!(&*decode(&HeaderMap::new(), Bytes::from_static(b"hello"), 5).unwrap(), b"hello");
    }
}

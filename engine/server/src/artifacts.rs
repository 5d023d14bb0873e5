//! The files that the steps of a run left behind, found in its records.

use std::slice;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use stanch_core::Sequence;
use stanch_core::attempt::AttemptId;
use stanch_core::record::Body;
use stanch_journal::Reader;
use stanch_playbook::StepKey;

/// A file that an attempt of a step left behind.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Artifact {
    /// The step.
    pub step: StepKey,
    /// The item's number, from 0, where the step is done for each of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// What the item is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// How often a person had asked for the step to be tried again.
    pub generation: u32,
    /// The attempt's number in that generation, from 1.
    pub attempt: u32,
    /// Its path, as the step names it.
    pub path: String,
    /// How many bytes it has.
    pub size: u64,
    /// The SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
}

/// What each attempt left behind, oldest first, of the steps that are wanted; one record is in memory at a time. The sentence says
/// what could not be read.
pub(crate) fn list(
    reader: &dyn Reader,
    sequences: &[Sequence],
    wanted: impl Fn(&StepKey) -> bool,
) -> Result<Vec<Artifact>, String> {
    let mut found = Vec::new();
    let mut items: Vec<(StepKey, std::sync::Arc<[Value]>)> = Vec::new();
    for sequence in sequences {
        let Some(body) = read(reader, *sequence)? else { continue };
        if let Body::ItemsStarted(body) = body {
            items.push((body.step, body.items));
            continue;
        }
        let Some((attempt, output)) = left_by(&body).filter(|(attempt, _)| wanted(&attempt.step)) else { continue };
        let value = attempt.item.and_then(|item| {
            let (_, items) = items.iter().rev().find(|(step, _)| *step == attempt.step)?;
            items.get(item as usize).cloned()
        });
        for (path, file) in output["artifacts"].as_object().into_iter().flatten() {
            found.push(Artifact {
                step: attempt.step.clone(),
                item: attempt.item,
                value: value.clone(),
                generation: attempt.generation,
                attempt: attempt.number,
                path: path.clone(),
                size: file["size"].as_u64().unwrap_or_default(),
                sha256: file["sha256"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    Ok(found)
}

/// The bytes of a file of the last attempt that is wanted and left it behind.
pub(crate) fn content(
    reader: &dyn Reader,
    sequences: &[Sequence],
    path: &str,
    wanted: impl Fn(&AttemptId) -> bool,
) -> Result<Option<Vec<u8>>, String> {
    for sequence in sequences.iter().rev() {
        let Some(body) = read(reader, *sequence)? else { continue };
        let found = left_by(&body).filter(|(attempt, _)| wanted(attempt));
        if let Some(text) = found.and_then(|(_, output)| output["artifacts"].get(path)?["content_base64"].as_str()) {
            return STANDARD.decode(text).map(Some).map_err(|error| format!("the file is damaged: {error}"));
        }
    }
    Ok(None)
}

fn read(reader: &dyn Reader, sequence: Sequence) -> Result<Option<Body>, String> {
    let entries = reader.get(slice::from_ref(&sequence)).map_err(|error| error.to_string())?;
    let record = entries.first().map(|entry| entry.record().map_err(|error| error.to_string()));
    Ok(record.transpose()?.map(|record| record.body))
}

/// An attempt that ended, with the result that holds what it left behind.
fn left_by(body: &Body) -> Option<(&AttemptId, &Value)> {
    let (attempt, output) = match body {
        Body::AttemptSucceeded(body) => (&body.attempt, Some(&body.output)),
        Body::AttemptFailed(body) => (&body.attempt, body.output.as_ref()),
        _ => return None,
    };
    output.filter(|output| output.get("artifacts").is_some()).map(|output| (attempt, &**output))
}

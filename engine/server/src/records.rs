//! A run's records as they are looked at: whole, but for the contents of files that its steps left behind, which may be
//! megabytes each.

use std::sync::Arc;

use serde_json::Value;
use stanch_core::Sequence;
use stanch_core::record::{Body, Record};
use stanch_journal::{Entry, Reader};

/// The records at these places, one after the other, so that the contents are never in memory together; the sentence says
/// what could not be read.
pub(crate) fn read(reader: &dyn Reader, sequences: &[Sequence]) -> Result<Vec<Record>, String> {
    let mut records = Vec::with_capacity(sequences.len());
    let mut unreadable = None;
    let mut keep = |entry: Entry| match entry.record() {
        Ok(mut record) => {
            leave_out_contents(&mut record.body);
            records.push(record);
        }
        Err(error) => unreadable = Some(error.to_string()),
    };
    reader.visit(sequences, &mut keep).map_err(|error| error.to_string())?;
    unreadable.map_or(Ok(records), Err)
}

fn leave_out_contents(body: &mut Body) {
    let output = match body {
        Body::AttemptSucceeded(body) => Some(&mut body.output),
        Body::AttemptFailed(body) => body.output.as_mut(),
        _ => None,
    };
    let Some(output) = output.filter(|output| output.get("artifacts").is_some()) else { return };
    if let Some(Value::Object(files)) = Arc::make_mut(output).get_mut("artifacts") {
        for file in files.values_mut().filter_map(Value::as_object_mut) {
            file.remove("content_base64");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stanch_core::attempt::{AttemptId, Purpose};
    use stanch_core::record::{Actor, AttemptFailed, Then};
    use stanch_core::{Epoch, RunId};
    use stanch_journal::{Journal as _, MemoryJournal};
    use stanch_playbook::{StepKey, Timestamp};

    use super::*;

    #[test]
    fn a_file_is_told_by_its_size_and_digest() {
        let mut journal = MemoryJournal::new();
        let attempt = AttemptId {
            run: RunId::derive(journal.id(), Sequence(1), Timestamp::EPOCH),
            step: StepKey::new("detect.a"),
            item: None,
            purpose: Purpose::Do,
            generation: 0,
            number: 1,
            epoch: Epoch(1),
        };
        let file = json!({"size": 3, "sha256": "ab", "content_base64": "YWJj"});
        let output = json!({"exit_code": 1, "artifacts": {"a.txt": file}});
        let body = AttemptFailed { attempt, error: "x".into(), output: Some(output.into()), then: Then::Fail };
        let (actor, time) = (Actor::engine(), Timestamp::EPOCH);
        journal.append(Sequence(0), &[Record { sequence: Sequence(1), time, actor, body: body.into() }]).unwrap();
        let records = read(&*journal.reader(), &[Sequence(1), Sequence(2)]).unwrap();
        let [Record { body: Body::AttemptFailed(body), .. }] = &records[..] else { panic!("{records:?}") };
        let seen = json!({"exit_code": 1, "artifacts": {"a.txt": {"size": 3, "sha256": "ab"}}});
        assert_eq!(body.output.as_deref(), Some(&seen));
    }
}

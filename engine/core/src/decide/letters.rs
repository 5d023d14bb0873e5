//! Dead letters: what came in and could not be read, or could start nothing.

use std::sync::Arc;

use serde_json::Value;
use stanch_playbook::PlaybookName;

use super::Draft;
use crate::alert::AlertSnapshot;
use crate::event::Event;
use crate::id::DeadLetterId;
use crate::record::{DeadLetter, DeadLettered};

/// Why a trigger that took something could not start a run.
pub(super) struct Unusable {
    pub playbook: PlaybookName,
    pub reason: String,
}

impl Unusable {
    pub(super) fn told(&self) -> String {
        format!("playbook {}: {}", self.playbook, self.reason)
    }
}

impl Draft {
    pub(super) fn keep_dead_letter(&mut self, letter: DeadLetter) {
        let id = DeadLetterId::derive(self.state.journal, self.state.sequence.next(), self.now);
        self.emit(DeadLettered { id, letter: Arc::new(letter) });
        self.receipt.dead_letters.push(id);
    }

    pub(super) fn keep_unusable_alert(&mut self, alert: &AlertSnapshot, problem: &Unusable) {
        let body = serde_json::json!({
            "version": "4",
            "receiver": "dead-letter",
            "status": "firing",
            "alerts": [{
                "status": "firing",
                "labels": alert.labels,
                "annotations": alert.annotations,
                "startsAt": alert.starts_at,
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": alert.generator_url,
                "fingerprint": alert.key.fingerprint,
            }],
        });
        self.keep_unusable(format!("/webhooks/alertmanager/{}", alert.key.source), "application/json", &body, problem);
    }

    pub(super) fn keep_unusable_event(&mut self, via: String, event: &Event, problem: &Unusable) {
        let mut body = serde_json::to_value(event).unwrap_or_default();
        body["specversion"] = "1.0".into();
        self.keep_unusable(via, "application/cloudevents+json", &body, problem);
    }

    fn keep_unusable(&mut self, via: String, content_type: &str, body: &Value, problem: &Unusable) {
        let text = body.to_string();
        self.receipt.unusable.push(problem.told());
        self.keep_dead_letter(DeadLetter {
            via,
            reason: problem.told(),
            code: "trigger.evaluation-failed".to_owned(),
            content_type: Some(content_type.to_owned()),
            size: text.len() as u64,
            body: crate::record::base64(text.as_bytes()),
            complete: true,
        });
    }
}

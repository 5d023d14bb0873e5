//! How the incidents of a playbook live, and how its runs begin.

use super::Checker;
use crate::document::Node;
use crate::keys;
use crate::name::Phase;
use crate::plan::{Escalation, IncidentRules, Mode, OnRepeat, OnResolved};

impl<'a> Checker<'a> {
    /// The rules; the key is the triggers' part.
    pub(super) fn incident(&mut self, node: &'a Node) -> IncidentRules {
        let Some(entries) = self.entries(node, "incident") else { return IncidentRules::default() };
        self.known_keys(entries, keys::INCIDENT, "incident");
        let on_repeat = node.get("on_repeat").and_then(|node| self.word(node, keys::ON_REPEAT));
        let on_resolved = node.get("on_resolved").and_then(|node| self.word(node, keys::ON_RESOLVED));
        IncidentRules {
            on_repeat: match on_repeat {
                Some("queue") => OnRepeat::Queue,
                Some("restart") => OnRepeat::Restart,
                Some("ignore") => OnRepeat::Ignore,
                _ => OnRepeat::Attach,
            },
            on_resolved: match on_resolved {
                Some("cancel") => OnResolved::Cancel,
                Some("recover") => OnResolved::Recover,
                _ => OnResolved::Continue,
            },
            settle: node.get("settle").and_then(|node| self.duration(node)),
            slack_channel: node.get("slack").and_then(|node| self.slack(node)),
            escalation: node.get("escalation").and_then(|node| self.escalation(node)),
        }
    }

    /// Warns of `on_resolved: recover` where there is nothing to go on with.
    pub(super) fn recovers(&mut self, root: &Node, rules: &IncidentRules) {
        let place = root.get("incident").and_then(|node| node.get("on_resolved"));
        if let Some(place) = place.filter(|_| rules.on_resolved == OnResolved::Recover)
            && !self.steps.iter().any(|step| step.phase == Phase::Recover)
        {
            self.report
                .warning("no-recover", place.span, "the playbook has no step in recover: its runs would only end")
                .help("add steps to recover, or use on_resolved: cancel");
        }
    }

    fn slack(&mut self, node: &'a Node) -> Option<String> {
        let entries = self.entries(node, "slack")?;
        self.known_keys(entries, keys::INCIDENT_SLACK, "slack");
        let channel = self.value_of(node, "channel", "channel: \"#incidents\"")?;
        let text = self.string(channel)?;
        if text.is_empty() || text.len() > 128 || text.chars().any(char::is_whitespace) || text.contains("{{") {
            self.report
                .error("wrong-value", channel.span, format!("{text:?} is no Slack channel"))
                .help("write its name or id out, such as \"#sec-incidents\"");
            return None;
        }
        Some(text)
    }

    fn escalation(&mut self, node: &'a Node) -> Option<Escalation> {
        let entries = self.entries(node, "escalation")?;
        self.known_keys(entries, keys::ESCALATION, "escalation");
        let acknowledge_within = node.get("acknowledge_within").and_then(|node| self.duration(node));
        let update_every = node.get("update_every").and_then(|node| self.duration(node));
        let notify = node.get("notify").map(|node| self.notifications(node, "notify")).unwrap_or_default();
        Some(Escalation { acknowledge_within, update_every, notify })
    }

    pub(super) fn mode(&mut self, node: &Node) -> Option<Mode> {
        Some(match self.word(node, keys::MODE)? {
            "observe" => Mode::Observe,
            _ => Mode::Act,
        })
    }
}

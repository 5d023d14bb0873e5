//! Values of the expected type, or a problem at their place.

use std::time::Duration;

use super::Checker;
use crate::diagnostic::{Span, within};
use crate::document::{Key, Kind, Node};
use crate::keys;
use crate::nearest::nearest;
use crate::plan::NotifyAfter;
use crate::time::parse_duration;

impl<'a> Checker<'a> {
    /// The entries of a map.
    pub(super) fn entries(&mut self, node: &'a Node, what: &str) -> Option<&'a [(Key, Node)]> {
        match &node.kind {
            Kind::Map(entries) => Some(entries),
            _ => {
                let message = format!("{what} must be a map, not {}", node.type_name());
                self.report.error("wrong-type", node.span, message);
                None
            }
        }
    }

    /// The items of a list.
    pub(super) fn items(&mut self, node: &'a Node, what: &str) -> Option<&'a [Node]> {
        match &node.kind {
            Kind::List(items) => Some(items),
            _ => {
                let message = format!("{what} must be a list, not {}", node.type_name());
                self.report.error("wrong-type", node.span, message);
                None
            }
        }
    }

    /// Reports keys that the language does not know.
    pub(super) fn known_keys(&mut self, entries: &[(Key, Node)], known: &[keys::Key], what: &str) {
        for (key, _) in entries {
            if known.iter().any(|known| known.name == key.text) {
                continue;
            }
            let names = known.iter().map(|known| known.name);
            let help = match nearest(&key.text, names.clone()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known keys: {}", names.collect::<Vec<_>>().join(", ")),
            };
            self.report.error("unknown-key", key.span, format!("unknown key {:?} in {what}", key.text)).help(help);
        }
    }

    fn wrong_type(&mut self, node: &Node, wanted: &str) {
        self.report.error("wrong-type", node.span, format!("expected {wanted}, not {}", node.type_name()));
    }

    /// A text; numbers and booleans are not taken for texts.
    pub(super) fn string(&mut self, node: &Node) -> Option<String> {
        match &node.kind {
            Kind::Text(text) => Some(text.clone()),
            Kind::Number(_) | Kind::Bool(_) => {
                let quoted = format!("put it in quotes: \"{}\"", self.slice(node.span));
                self.report
                    .error("wrong-type", node.span, format!("expected a text, not {}", node.type_name()))
                    .help(quoted);
                None
            }
            _ => {
                self.wrong_type(node, "a text");
                None
            }
        }
    }

    /// A text, or the text of a number or boolean as it is written.
    pub(super) fn scalar(&mut self, node: &Node, wanted: &str) -> Option<String> {
        match &node.kind {
            Kind::Text(text) => Some(text.clone()),
            Kind::Number(number) => Some(number.to_string()),
            Kind::Bool(bool) => Some(bool.to_string()),
            Kind::Null | Kind::List(_) | Kind::Map(_) => {
                self.wrong_type(node, wanted);
                None
            }
        }
    }

    pub(super) fn bool(&mut self, node: &Node) -> Option<bool> {
        match &node.kind {
            Kind::Bool(bool) => Some(*bool),
            _ => {
                self.report
                    .error("wrong-type", node.span, format!("expected true or false, not {}", node.type_name()))
                    .help("write true or false, without quotes");
                None
            }
        }
    }

    pub(super) fn whole(&mut self, node: &Node, least: u32, most: u32) -> Option<u32> {
        let number = match &node.kind {
            Kind::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
            _ => None,
        };
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let message = format!("expected a whole number from {least} to {most}");
            self.report.error("wrong-value", node.span, message);
        }
        number
    }

    pub(super) fn factor(&mut self, node: &Node) -> Option<f64> {
        let number = match &node.kind {
            Kind::Number(number) => number.as_f64(),
            _ => None,
        };
        let number = number.filter(|number| (1.0..=keys::MOST_FACTOR).contains(number));
        if number.is_none() {
            let message = format!("expected a number from 1 to {}", keys::MOST_FACTOR);
            self.report.error("wrong-value", node.span, message);
        }
        number
    }

    /// A duration longer than nothing.
    pub(super) fn duration(&mut self, node: &Node) -> Option<Duration> {
        let text = match &node.kind {
            Kind::Text(text) => text.clone(),
            Kind::Number(_) => self.slice(node.span).to_owned(),
            _ => {
                self.wrong_type(node, "a duration such as 30s");
                return None;
            }
        };
        match parse_duration(&text) {
            Ok(duration) if duration.is_zero() => {
                self.report.error("wrong-value", node.span, "a duration must be longer than nothing");
                None
            }
            Ok(duration) => Some(duration),
            Err(error) => {
                self.report.error("wrong-value", node.span, error.to_string());
                None
            }
        }
    }

    /// One of some words.
    pub(super) fn word(&mut self, node: &Node, words: &[&'static str]) -> Option<&'static str> {
        let text = self.string(node)?;
        if let Some(word) = words.iter().find(|word| **word == text) {
            return Some(word);
        }
        let help = match nearest(&text, words.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("use one of {}", words.join(", ")),
        };
        self.report.error("wrong-value", node.span, format!("{text:?} is not one of {}", words.join(", "))).help(help);
        None
    }

    /// A list of texts, or one text; each with its place.
    pub(super) fn texts(&mut self, node: &'a Node, what: &str) -> Vec<(String, Span)> {
        if let Kind::Text(text) = &node.kind {
            return vec![(text.clone(), node.span)];
        }
        let items = self.items(node, what).unwrap_or_default();
        items.iter().filter_map(|item| Some((self.string(item)?, item.span))).collect()
    }

    /// A name of something outside of the playbook: a pool, a budget.
    pub(super) fn name(&mut self, node: &Node, what: &str) -> Option<String> {
        let text = self.string(node)?;
        let fits = (1..=63).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'));
        if !fits {
            self.report
                .error("bad-name", node.span, format!("{text:?} is no {what}'s name"))
                .help("use letters, digits, -, _ and .; at most 63 characters");
        }
        fits.then_some(text)
    }

    /// People, and groups as `group:name`.
    pub(super) fn people(&mut self, node: &'a Node, what: &str) -> Vec<String> {
        let texts = self.texts(node, what);
        if texts.len() > keys::MOST_PEOPLE {
            let message = format!("{} people; the limit is {}", texts.len(), keys::MOST_PEOPLE);
            self.report.error("too-many-people", node.span, message).help("make a group of them");
        }
        for (text, span) in &texts {
            let name = text.strip_prefix("group:").unwrap_or(text);
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@' | b'+');
            if name == "local" {
                self.report
                    .error(
                        "bad-name",
                        *span,
                        "local is whoever uses the engine without a login; nobody can be sure who that is",
                    )
                    .help("name a person or a group of stanch.yaml");
            } else if name.is_empty() || name.len() > 128 || !name.bytes().all(fits) {
                self.report
                    .error("bad-name", *span, format!("{text:?} names no person"))
                    .help("write a person's name, such as ann, or a group, such as group:sec-leads");
            }
        }
        texts.into_iter().map(|(text, _)| text).collect()
    }

    /// A list of `{after, people}`.
    pub(super) fn notifications(&mut self, node: &'a Node, what: &str) -> Vec<NotifyAfter> {
        let items = self.items(node, what).unwrap_or_default();
        if items.len() > keys::MOST_PEOPLE {
            let message = format!("{} entries; the limit is {}", items.len(), keys::MOST_PEOPLE);
            self.report.error("too-many-people", items[keys::MOST_PEOPLE].span, message);
        }
        let mut all = Vec::new();
        for item in items.iter().take(keys::MOST_PEOPLE) {
            let Some(entries) = self.entries(item, &format!("an entry of {what}")) else { continue };
            self.known_keys(entries, keys::NOTIFY, what);
            let after = self.value_of(item, "after", "after: 5m").and_then(|node| self.duration(node));
            let people = self
                .value_of(item, "people", "people: [group:sec-leads]")
                .map(|node| (node, self.people(node, "people")));
            if let Some((node, people)) = &people
                && people.is_empty()
                && matches!(&node.kind, Kind::List(items) if items.is_empty())
            {
                self.report.error("missing-value", node.span, "nobody is named").help("name people or groups");
            }
            if let (Some(after), Some((_, people))) = (after, people) {
                all.push(NotifyAfter { after, people });
            }
        }
        all
    }

    /// The value of a key that a map must have.
    pub(super) fn value_of(&mut self, node: &'a Node, name: &str, example: &str) -> Option<&'a Node> {
        let found = node.get(name);
        if found.is_none() {
            let place = Span { length: 0, ..node.span };
            self.report.error("missing-key", place, format!("{name} is missing")).help(format!("add {example}"));
        }
        found
    }

    /// The document's text at a place.
    pub(super) fn slice(&self, span: Span) -> &'a str {
        self.text.get(span.offset..span.offset + span.length).unwrap_or("")
    }

    /// The place of a byte of a scalar's text, where the document writes it out as it is; else the scalar's.
    pub(super) fn within(&self, node: &Node, text: &str, offset: usize, length: usize) -> Span {
        within(self.text, node.span, text, offset, length)
    }
}

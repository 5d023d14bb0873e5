//! The compact form, written out: phases as lists of the catalogue's names, several playbooks in one document, and
//! routines that run on a schedule.
//!
//! It becomes nodes of the ordinary form that stand at the places of what was written, so that one checker tells all.

use std::collections::HashSet;

use crate::catalogue::Catalogue;
use crate::diagnostic::{Report, Span, within};
use crate::document::{Key, Kind, Node};
use crate::keys;
use crate::name::Phase;

/// One more than a playbook may have: the checker then says that there are too many.
const MOST_ITEMS: usize = keys::MOST_STEPS + 1;

/// One playbook in the ordinary form.
pub(crate) struct Body {
    pub root: Node,
    /// The detectors that `detect` names, with their places.
    pub detectors: Vec<(String, Span)>,
}

/// The playbooks of a document; those that cannot be written out are reported and left out.
pub(crate) fn bodies(text: &str, root: Node, catalogue: &Catalogue, report: &mut Report) -> Vec<Body> {
    let mut writer = Writer { text, catalogue, report };
    let Kind::Map(entries) = &root.kind else { return vec![Body { root, detectors: Vec::new() }] };
    let has = |name: &str| entries.iter().any(|(key, _)| key.text == name);
    let roots = match () {
        () if has("playbook") => vec![root],
        () if has("playbooks") => writer.several(entries),
        () if routines(entries) => writer.routines(entries),
        () => vec![root],
    };
    roots.into_iter().map(|root| writer.body(root)).collect()
}

struct Writer<'a> {
    text: &'a str,
    catalogue: &'a Catalogue,
    report: &'a mut Report,
}

/// A name in a phase, or a wait.
struct Item {
    name: String,
    span: Span,
    wait: Option<Node>,
}

fn text_node(text: impl Into<String>, span: Span) -> Node {
    Node { kind: Kind::Text(text.into()), span }
}

fn map_node(entries: Vec<(&str, Node)>, span: Span) -> Node {
    let entries = entries.into_iter().map(|(name, node)| (Key { text: name.to_owned(), span }, node)).collect();
    Node { kind: Kind::Map(entries), span }
}

impl Writer<'_> {
    /// `playbooks:` with several by name.
    fn several(&mut self, entries: &[(Key, Node)]) -> Vec<Node> {
        let mut roots = Vec::new();
        for (key, node) in entries {
            if key.text != "playbooks" {
                self.report
                    .error("unknown-key", key.span, format!("{:?} cannot stand beside playbooks", key.text))
                    .help("write it in each of the playbooks");
                continue;
            }
            let Kind::Map(playbooks) = &node.kind else {
                self.report
                    .error("wrong-type", node.span, format!("playbooks must be a map, not {}", node.type_name()))
                    .help("write each playbook under its name");
                continue;
            };
            if playbooks.is_empty() {
                self.report.error("empty", node.span, "playbooks is empty").help("write each playbook under its name");
            }
            roots.extend(playbooks.iter().filter_map(|(name, node)| self.named(name, node)));
        }
        roots
    }

    /// A playbook under its name.
    fn named(&mut self, name: &Key, node: &Node) -> Option<Node> {
        let Kind::Map(entries) = &node.kind else {
            self.report
                .error("wrong-type", node.span, format!("{} must be a map, not {}", name.text, node.type_name()))
                .help("write its phases under it, such as contain: revoke_token, block_ip");
            return None;
        };
        if let Some((key, _)) = entries.iter().find(|(key, _)| key.text == "playbook") {
            self.report
                .error("misplaced", key.span, format!("the playbook already has the name {}", name.text))
                .help("remove playbook");
        }
        let own = (Key { text: "playbook".to_owned(), span: name.span }, text_node(name.text.clone(), name.span));
        let others = entries.iter().filter(|(key, _)| key.text != "playbook").cloned();
        Some(Node { kind: Kind::Map(std::iter::once(own).chain(others).collect()), span: node.span })
    }

    /// Playbooks that run on their schedule, in one phase named steps.
    fn routines(&mut self, entries: &[(Key, Node)]) -> Vec<Node> {
        let mut roots = Vec::new();
        for (name, node) in entries {
            if node.get("steps").is_none() {
                self.report
                    .error("missing-key", name.span, format!("{} has no steps", name.text))
                    .help("every entry of this document is a playbook, because one of them has steps");
                continue;
            }
            let Some(mut root) = self.named(name, node) else { continue };
            if node.get("schedule").is_none() && node.get("triggers").is_none() {
                self.report
                    .error("missing-key", name.span, format!("{} does not say when it runs", name.text))
                    .help("add schedule: \"@weekly\", or triggers");
            }
            if let Kind::Map(entries) = &mut root.kind {
                self.schedule(entries);
            }
            roots.push(root);
        }
        roots
    }

    /// `schedule` becomes a trigger: a cron expression, or what a schedule trigger takes.
    fn schedule(&mut self, entries: &mut Vec<(Key, Node)>) {
        let Some(at) = entries.iter().position(|(key, _)| key.text == "schedule") else { return };
        let (key, node) = entries.remove(at);
        let on = match node.kind {
            Kind::Map(_) => node,
            Kind::Text(_) => {
                let span = node.span;
                map_node(vec![("cron", node)], span)
            }
            _ => {
                self.report
                    .error("wrong-type", node.span, format!("expected a cron expression, not {}", node.type_name()))
                    .help("write schedule: \"@weekly\", or schedule: {cron: ..., timezone: ...}");
                return;
            }
        };
        let trigger = map_node(vec![("schedule", on)], key.span);
        match entries.iter_mut().find(|(key, _)| key.text == "triggers") {
            Some((_, Node { kind: Kind::List(triggers), .. })) => triggers.push(trigger),
            // No list: the checker says so.
            Some(_) => {}
            None => {
                let triggers = Node { kind: Kind::List(vec![trigger]), span: key.span };
                entries.push((Key { text: "triggers".to_owned(), span: key.span }, triggers));
            }
        }
    }

    fn body(&mut self, mut root: Node) -> Body {
        let mut detectors = Vec::new();
        if let Kind::Map(entries) = &mut root.kind {
            let mut used = names_of_steps(entries);
            for (key, node) in entries.iter_mut() {
                let Some(phase) = Phase::ALL.into_iter().find(|phase| phase.as_str() == key.text) else { continue };
                if matches!(node.kind, Kind::Map(_)) {
                    continue;
                }
                let mut items = self.items(phase, node);
                if phase == Phase::Detect {
                    let is_detector =
                        |item: &Item| item.wait.is_none() && self.catalogue.detectors.contains_key(&item.name);
                    let (found, rest): (Vec<Item>, Vec<Item>) = items.into_iter().partition(is_detector);
                    detectors.extend(found.into_iter().map(|item| (item.name, item.span)));
                    items = rest;
                }
                node.kind = Kind::Map(steps(items, &mut used));
            }
        }
        Body { root, detectors }
    }

    /// The names of a phase, in the order written.
    fn items(&mut self, phase: Phase, node: &Node) -> Vec<Item> {
        match &node.kind {
            Kind::Text(text) => {
                let mut items = Vec::new();
                let mut offset = 0;
                for part in text.split(',').take(MOST_ITEMS) {
                    let name = part.trim();
                    let start = offset + (part.len() - part.trim_start().len());
                    let span = within(self.text, node.span, text, start, name.len());
                    items.extend(self.name(phase, name, span));
                    offset += part.len() + 1;
                }
                items
            }
            Kind::List(list) => list.iter().take(MOST_ITEMS).filter_map(|item| self.item(phase, item)).collect(),
            _ => {
                self.report
                    .error(
                        "wrong-type",
                        node.span,
                        format!("{phase} must be a map or a list of steps, not {}", node.type_name()),
                    )
                    .help("write steps by name, or names of the catalogue such as revoke_token, block_ip");
                Vec::new()
            }
        }
    }

    fn name(&mut self, phase: Phase, name: &str, span: Span) -> Option<Item> {
        if name.is_empty() {
            self.report
                .error("missing-value", span, format!("a name is missing in {phase}"))
                .help("write names of the catalogue, with one comma between two");
            return None;
        }
        Some(Item { name: name.to_owned(), span, wait: None })
    }

    fn item(&mut self, phase: Phase, node: &Node) -> Option<Item> {
        match &node.kind {
            Kind::Text(text) => self.name(phase, text.trim(), node.span),
            Kind::Map(entries) => match entries.as_slice() {
                [(key, value)] if key.text == "wait" || key.text.starts_with("wait_") => {
                    Some(Item { name: key.text.clone(), span: key.span, wait: Some(value.clone()) })
                }
                _ => {
                    self.report
                        .error(
                            "wrong-type",
                            node.span,
                            format!("in the compact form of {phase} only a wait has a value"),
                        )
                        .help("write a name, or wait_for_it: 24h; to give inputs, write the phase as a map of steps");
                    None
                }
            },
            _ => {
                self.report
                    .error(
                        "wrong-type",
                        node.span,
                        format!("expected a name of the catalogue, not {}", node.type_name()),
                    )
                    .help("write a name, or wait_for_it: 24h");
                None
            }
        }
    }
}

/// Whether a document has an entry that is a playbook with steps, and none that belongs to a single playbook.
fn routines(entries: &[(Key, Node)]) -> bool {
    let known = |key: &Key| keys::PLAYBOOK.iter().any(|known| known.name == key.text);
    entries.iter().any(|(_, node)| node.get("steps").is_some()) && !entries.iter().any(|(key, _)| known(key))
}

/// The names that the phases of the ordinary form already use.
fn names_of_steps(entries: &[(Key, Node)]) -> HashSet<String> {
    let phases = entries.iter().filter(|(key, _)| Phase::ALL.iter().any(|phase| phase.as_str() == key.text));
    let steps = phases.filter_map(|(_, node)| match &node.kind {
        Kind::Map(steps) => Some(steps.iter().map(|(key, _)| key.text.clone())),
        _ => None,
    });
    steps.flatten().collect()
}

/// Steps, of which each needs the one before. A name that repeats gets a suffix.
fn steps(items: Vec<Item>, used: &mut HashSet<String>) -> Vec<(Key, Node)> {
    let mut steps: Vec<(Key, Node)> = Vec::with_capacity(items.len());
    for Item { name, span, wait } in items {
        let mut unique = name.clone();
        let mut count = 1;
        while !used.insert(unique.clone()) {
            count += 1;
            unique = format!("{name}_{count}");
        }
        let mut parts = match wait {
            Some(length) => {
                let with = map_node(vec![("duration", length)], span);
                vec![("uses", text_node("wait", span)), ("with", with)]
            }
            None => vec![("uses", text_node(name, span))],
        };
        if let Some((before, _)) = steps.last() {
            parts.push(("needs", text_node(before.text.clone(), span)));
        }
        steps.push((Key { text: unique, span }, map_node(parts, span)));
    }
    steps
}

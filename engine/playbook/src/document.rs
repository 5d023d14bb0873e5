//! A YAML text as a tree of nodes that know their places.
//!
//! Parsed once from the parser's events, so that every duplicate key and every later complaint has a place. Plain
//! scalars follow YAML 1.2's core schema: `on`, `yes` and `No` are texts.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span as YamlSpan};
use serde_json::{Map, Number, Value};

use crate::diagnostic::{Report, Span};

/// The largest document.
pub(crate) const DOCUMENT_BYTES: usize = 1024 * 1024;
const DEPTH: usize = 64;
/// Counted after aliases are followed, so that a few lines cannot become millions of nodes.
pub(crate) const NODES: usize = 20_000;
/// The same for a test file, whose thousand tests are small one by one.
pub(crate) const TEST_NODES: usize = 200_000;

/// A value with its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub kind: Kind,
    pub span: Span,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A mapping's key with its place.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub text: String,
    pub span: Span,
}

impl Node {
    /// What it is, for messages.
    pub fn type_name(&self) -> &'static str {
        match &self.kind {
            Kind::Null => "empty",
            Kind::Bool(_) => "a bool",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// The value under a key of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(name, _)| name.text == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(bool) => Value::Bool(*bool),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => Value::Object(
                entries.iter().map(|(key, node)| (key.text.clone(), node.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }
}

/// Parses a document of so many values at most; `None` where it has no tree, and `report` then says why.
pub(crate) fn parse(text: &str, most: usize, report: &mut Report) -> Option<Node> {
    if text.len() > DOCUMENT_BYTES {
        report.error(
            "too-large",
            Span::default(),
            format!("document of {} bytes; the limit is {DOCUMENT_BYTES}", text.len()),
        );
        return None;
    }
    Builder { text, report, open: Vec::new(), anchors: HashMap::new(), nodes: 0, most, root: None, seen: false }.run()
}

/// A collection whose end has not come yet.
enum Open {
    List { items: Vec<Node>, span: Span, anchor: usize },
    Map { entries: Vec<(Key, Node)>, key: Option<Key>, span: Span, anchor: usize },
}

struct Builder<'a, 'r> {
    text: &'a str,
    report: &'r mut Report,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    most: usize,
    root: Option<Node>,
    seen: bool,
}

/// What ends the parsing; already reported.
struct Stop;

impl Builder<'_, '_> {
    fn run(mut self) -> Option<Node> {
        let options = granit_parser::options! {
            emit_comments: false,
            emit_unresolved_aliases: true,
            flow_nesting_limit: DEPTH,
            block_nesting_limit: DEPTH,
        };
        let mut documents = 0;
        for next in Parser::new_from_str_with_options(self.text, options) {
            let (event, span) = match next {
                Ok(next) => next,
                Err(error) => {
                    self.syntax(&error);
                    return None;
                }
            };
            if matches!(event, Event::DocumentStart(..)) {
                documents += 1;
                if documents > 1 {
                    self.report.error(
                        "several-documents",
                        self.span(&span),
                        "a file holds one YAML document; this is a second one",
                    );
                    return None;
                }
                continue;
            }
            if self.event(event, &span).is_err() {
                return None;
            }
        }
        if let Some(deep) = self.root.as_ref().and_then(|root| deeper(root, DEPTH)) {
            self.report.error("too-deep", deep, format!("nested deeper than {DEPTH} levels, aliases followed"));
            return None;
        }
        if self.root.is_none() {
            self.report.error(
                "empty",
                Span::default(),
                "the file is empty; a playbook begins with: playbook: its-name",
            );
        }
        self.root
    }

    fn event(&mut self, event: Event<'_>, place: &YamlSpan) -> Result<(), Stop> {
        let span = self.span(place);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = match tag.as_deref() {
                    Some(tag) if tag.is_yaml_core_schema_tag("str") => Kind::Text(text.into_owned()),
                    Some(tag) => {
                        let name = tag.original();
                        self.tag(place, &span, &name);
                        Kind::Text(text.into_owned())
                    }
                    None if style == ScalarStyle::Plain => plain(&text),
                    None => Kind::Text(text.into_owned()),
                };
                self.node(Node { kind, span }, anchor, 1)
            }
            Event::SequenceStart(_, anchor, tag) => {
                if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema_tag("seq")) {
                    self.tag(place, &span, &tag.original());
                }
                self.push(Open::List { items: Vec::new(), span, anchor }, span)
            }
            Event::MappingStart(_, anchor, tag) => {
                if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema_tag("map")) {
                    self.tag(place, &span, &tag.original());
                }
                self.push(Open::Map { entries: Vec::new(), key: None, span, anchor }, span)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { items, span: start, anchor }) => {
                    self.node(Node { kind: Kind::List(items), span: start.until(span) }, anchor, 1)
                }
                Some(Open::Map { entries, span: start, anchor, .. }) => {
                    self.node(Node { kind: Kind::Map(entries), span: start.until(span) }, anchor, 1)
                }
                None => Ok(()),
            },
            Event::Alias(id) => {
                let size = self.anchors.get(&id).map_or(1, |(_, size)| *size);
                self.count(size, span)?;
                let Some((node, _)) = self.anchors.get(&id) else {
                    self.report.error("alias", span, "this alias stands inside of what it names");
                    return Err(Stop);
                };
                let node = Node { kind: node.kind.clone(), span };
                self.node(node, 0, 0)
            }
            Event::UnresolvedAlias(name) => {
                self.report
                    .error("alias", span, format!("no anchor &{name} stands before this alias"))
                    .help(format!("a text that begins with * needs quotes: \"*{name}\""));
                self.node(Node { kind: Kind::Null, span }, 0, 1)
            }
            _ => Ok(()),
        }
    }

    fn push(&mut self, open: Open, span: Span) -> Result<(), Stop> {
        if self.open.len() >= DEPTH {
            self.report.error("too-deep", span, format!("nested deeper than {DEPTH} levels"));
            return Err(Stop);
        }
        // A collection in a key's place, such as the {{ x }} of an unquoted template.
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            let template = self.text.get(span.offset.saturating_sub(1)..).is_some_and(|rest| rest.starts_with("{{"));
            let entry = self.report.error("key-not-text", span, "a key must be a text");
            if template {
                entry.help("a value that begins with {{ needs quotes: \"{{ inputs.host }}\"");
            }
            return Err(Stop);
        }
        self.open.push(open);
        Ok(())
    }

    fn count(&mut self, size: usize, span: Span) -> Result<(), Stop> {
        self.nodes += size;
        if self.nodes > self.most {
            let message = format!("more than {} values, aliases followed", self.most);
            self.report.error("too-many-nodes", span, message).help("split the file");
            return Err(Stop);
        }
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn node(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Stop> {
        self.count(size, node.span)?;
        if anchor > 0 {
            let size = count(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        match self.open.last_mut() {
            None if self.seen => {}
            None => {
                self.seen = true;
                self.root = Some(node);
            }
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                None => {
                    let text = match node.kind {
                        Kind::Text(text) => text,
                        _ => self
                            .text
                            .get(node.span.offset..node.span.offset + node.span.length)
                            .unwrap_or("")
                            .to_owned(),
                    };
                    if text == "<<" {
                        self.report
                            .error("merge-key", node.span, "merge keys (<<) are not part of the language")
                            .help("write the keys out, or give a whole value an anchor (&name) and repeat it (*name)");
                    } else if text.is_empty() {
                        self.report.error("key-not-text", node.span, "a key must be a text");
                    }
                    *key = Some(Key { text, span: node.span });
                }
                // What it stands for is missed as if it were not there.
                Some(name) if name.text == "<<" => {}
                Some(name) => {
                    if let Some((first, _)) = entries.iter().find(|(known, _)| known.text == name.text) {
                        let message = format!("{:?} is already given in line {}", name.text, first.span.line);
                        self.report.error("duplicate-key", name.span, message);
                    } else {
                        entries.push((name, node));
                    }
                }
            },
        }
        Ok(())
    }

    fn tag(&mut self, place: &YamlSpan, span: &Span, name: &str) {
        let span = place.tag_span().map_or(*span, |tag| self.span(&tag));
        self.report
            .error("tag", span, format!("the tag {name} is not part of the language"))
            .help("a value that begins with ! needs quotes: \"!inputs.drill\"");
    }

    fn syntax(&mut self, error: &granit_parser::ScanError) {
        let mark = error.marker();
        let offset = mark.byte_offset().unwrap_or(self.text.len()).min(self.text.len());
        let span = Span { offset, length: 0, line: mark.line().max(1), column: mark.col() + 1 };
        let line = self.text.lines().nth(span.line - 1).unwrap_or("");
        let help = if line.contains("{{") {
            Some("a value that begins with {{ needs quotes: \"{{ inputs.host }}\"")
        } else if line.contains('\t') {
            Some("YAML indents with spaces, not tabs")
        } else if line.contains(": @") || line.contains(": `") || line.contains(": %") {
            Some("a value that begins with @, ` or % needs quotes")
        } else if line.contains(" ? ") {
            Some("the colon of a CEL condition ends a text that has no quotes: \"inputs.a ? 'b' : 'c'\"")
        } else if line.matches(": ").count() > 1 {
            Some("a value that holds \": \" needs quotes")
        } else if line.contains(": '") || line.contains(": \"") {
            Some("an expression that begins with a quote needs other quotes around all of it: \"'a' in inputs.b\"")
        } else {
            None
        };
        let info = error.info();
        let message = info.lines().next().unwrap_or("cannot be read").to_owned();
        let entry = self.report.error("yaml-syntax", span, format!("not YAML: {message}"));
        if let Some(help) = help {
            entry.help(help);
        }
    }

    fn span(&self, span: &YamlSpan) -> Span {
        let range = span.byte_range().unwrap_or(0..0);
        let (from, mut until) = (range.start.min(self.text.len()), range.end.min(self.text.len()));
        // Block scalars end with the line break; a caret under it helps nobody.
        while until > from && self.text[..until].ends_with(['\n', '\r', ' ']) {
            until -= 1;
        }
        Span { offset: from, length: until - from, line: span.start.line().max(1), column: span.start.col() + 1 }
    }
}

/// The place of a node that lies deeper than `left` levels.
fn deeper(node: &Node, left: usize) -> Option<Span> {
    let Some(left) = left.checked_sub(1) else { return Some(node.span) };
    match &node.kind {
        Kind::List(items) => items.iter().find_map(|item| deeper(item, left)),
        Kind::Map(entries) => entries.iter().find_map(|(_, node)| deeper(node, left)),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => None,
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::List(items) => items.iter().map(count).sum(),
        Kind::Map(entries) => entries.iter().map(|(_, node)| 1 + count(node)).sum(),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => 0,
    }
}

/// A plain scalar by YAML 1.2's core schema; what JSON cannot hold (`.inf`, `.nan`) stays a text.
fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" => return Kind::Bool(true),
        "false" => return Kind::Bool(false),
        _ => {}
    }
    if !text.starts_with(|letter: char| letter.is_ascii_digit() || matches!(letter, '-' | '+' | '.')) {
        return Kind::Text(text.to_owned());
    }
    let digits = text.strip_prefix('+').unwrap_or(text);
    if let Ok(int) = digits.parse::<i64>() {
        return Kind::Number(int.into());
    }
    if let Ok(int) = digits.parse::<u64>() {
        return Kind::Number(int.into());
    }
    let radix = |prefix, radix| text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok());
    if let Some(int) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Kind::Number(int.into());
    }
    let float = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    match digits.parse::<f64>().ok().filter(|_| float).and_then(Number::from_f64) {
        Some(number) => Kind::Number(number),
        None => Kind::Text(text.to_owned()),
    }
}

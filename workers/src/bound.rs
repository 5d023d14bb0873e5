//! Keeping outputs, errors and streams within their bounds.

use std::borrow::Cow;
use std::io;

use serde_json::{Map, Value};

use crate::mask::Mask;

/// The most that an output may take as JSON, in bytes.
pub(crate) const OUTPUT: usize = 256 * 1024;
/// The most characters of an error or a reason.
const ERROR: usize = 1000;

/// Cuts the largest fields of an output until it fits, and says so with `truncated: true`. A cut field is a text.
pub(crate) fn output(value: &mut Value, limit: usize) {
    if size(value) <= limit {
        return;
    }
    let mut fields = match std::mem::take(value) {
        Value::Object(fields) => fields,
        other => Map::from_iter([("output".to_owned(), other)]),
    };
    fields.insert("truncated".to_owned(), Value::Bool(true));
    let mut sizes: Vec<_> = fields.iter().map(|(name, field)| (size(field), name.clone())).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    // The names are fixed by the actions, so cutting values alone gets there; where they are not, nothing is kept.
    for (before, name) in sizes {
        let total =
            fields.iter().map(|(name, field)| size(&Value::from(name.as_str())) + size(field) + 2).sum::<usize>() + 1;
        let Some(excess) = total.checked_sub(limit).filter(|&excess| excess > 0) else { break };
        let field = fields.get_mut(&name).expect("the name was taken from the map");
        let text = match std::mem::take(field) {
            Value::String(text) => text,
            other => other.to_string(),
        };
        *field = Value::String(cut_escaped(text, before.saturating_sub(excess + 2)));
    }
    *value = Value::Object(fields);
    if size(value) > limit {
        *value = serde_json::json!({ "truncated": true });
    }
}

/// An error that fits in a line.
pub(crate) fn error(text: String) -> String {
    let line = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text };
    match line.char_indices().nth(ERROR) {
        Some((at, _)) => format!("{} …", &line[..at]),
        None => line,
    }
}

/// The size of a value as JSON, in bytes.
pub(crate) fn size(value: &Value) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // Only a map with keys that are no texts fails, and a `Value` has none.
    serde_json::to_writer(&mut counter, value).expect("a JSON value is written to a counter");
    counter.0
}

/// The longest start of the text that takes at most `limit` bytes inside JSON's quotes.
fn cut_escaped(mut text: String, limit: usize) -> String {
    let mut used = 0;
    let end = text.char_indices().find_map(|(at, c)| {
        used += match c {
            '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
            '\0'..='\u{1f}' => 6,
            other => other.len_utf8(),
        };
        (used > limit).then_some(at)
    });
    if let Some(end) = end {
        text.truncate(end);
    }
    text
}

/// The start of a text in which no part of a secret stands before the cut: what was read beyond the limit is dropped,
/// and as much before it as a secret could reach over it.
pub(crate) fn masked_start(mask: &Mask, bytes: &[u8], complete: bool) -> String {
    let text = String::from_utf8_lossy(bytes);
    let masked = mask.text(&text);
    if complete { masked.into_owned() } else { up_to(&masked, masked.len().saturating_sub(mask.reach())).to_owned() }
}

fn up_to(text: &str, end: usize) -> &str {
    &text[..floor(text, end)]
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// What is kept of a stream of any length: its start and its end.
pub(crate) struct Stream {
    head: Vec<u8>,
    tail: std::collections::VecDeque<u8>,
    total: u64,
    mask_reach: usize,
}

impl Stream {
    /// Bytes kept of the start.
    const HEAD: usize = 48 * 1024;
    /// Bytes kept of the end: errors stand there.
    const TAIL: usize = 16 * 1024;

    /// A stream in which the secrets of `mask` may occur. More than the bounds is kept where secrets could reach over them.
    pub fn new(mask: &Mask) -> Self {
        Self { head: Vec::new(), tail: std::collections::VecDeque::new(), total: 0, mask_reach: mask.reach() }
    }

    /// Takes what came next.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (head, rest) = bytes.split_at(bytes.len().min(Self::HEAD + self.mask_reach - self.head.len()));
        self.head.extend_from_slice(head);
        let keep = Self::TAIL + self.mask_reach;
        let rest = &rest[rest.len().saturating_sub(keep)..];
        let over = (self.tail.len() + rest.len()).saturating_sub(keep);
        self.tail.drain(..over);
        self.tail.extend(rest);
    }

    /// The text without secrets, and whether some of it was left out.
    pub fn finish(mut self, mask: &Mask) -> (String, bool) {
        let left_out = self.total - (self.head.len() + self.tail.len()) as u64;
        if left_out == 0 {
            self.head.extend(self.tail);
            let text = String::from_utf8_lossy(&self.head);
            let text = match mask.text(&text) {
                Cow::Borrowed(_) => text.into_owned(),
                Cow::Owned(masked) => masked,
            };
            if text.len() <= Self::HEAD + Self::TAIL {
                return (text, false);
            }
            let end = floor(&text, text.len() - Self::TAIL);
            return (format!("{}\n[... left out ...]\n{}", up_to(&text, Self::HEAD), &text[end..]), true);
        }
        let head = masked_start(mask, &self.head, false);
        let tail = mask.text(&String::from_utf8_lossy(self.tail.make_contiguous())).into_owned();
        let tail = &tail[floor(&tail, self.mask_reach.min(tail.len()))..];
        let head = up_to(&head, Self::HEAD.min(head.len()));
        (format!("{head}\n[... {left_out} bytes left out ...]\n{tail}"), true)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_output_within_the_limit_is_left_alone() {
        let mut value = json!({"status": 200, "body": {"a": [1, 2]}});
        output(&mut value, 100);
        assert_eq!(value, json!({"status": 200, "body": {"a": [1, 2]}}));
    }

    #[test]
    fn the_largest_field_is_cut_and_the_others_stay() {
        let mut value = json!({"status": 200, "body": {"a": "x\n\u{1}é".repeat(1000)}, "headers": {"b": "c"}});
        output(&mut value, 500);
        assert!(size(&value) <= 500, "{}", size(&value));
        assert!(size(&value) > 400, "{}", size(&value));
        assert_eq!(
            (&value["status"], &value["headers"]["b"], &value["truncated"]),
            (&json!(200), &json!("c"), &json!(true))
        );
        assert!(value["body"].as_str().unwrap().starts_with("{\"a\":\"x"));
    }

    #[test]
    fn outputs_of_any_shape_fit() {
        let many: Map<String, Value> = (0..1000).map(|n| (format!("{n}\n"), json!("x".repeat(20)))).collect();
        for mut value in [json!("y".repeat(2000)), json!(vec!["\u{1}"; 700]), Value::Object(many)] {
            output(&mut value, 300);
            assert!(size(&value) <= 300);
            assert_eq!(value["truncated"], true);
        }
    }

    #[test]
    fn a_stream_keeps_its_start_and_its_end() {
        let mut stream = Stream::new(&Mask::default());
        stream.push(b"begin");
        for _ in 0..200 {
            stream.push(&[b'x'; 1000]);
        }
        stream.push(b"end");
        let (text, truncated) = stream.finish(&Mask::default());
        assert!(truncated && text.starts_with("begin") && text.ends_with("end") && text.contains("bytes left out"));
        assert!(text.len() <= 64 * 1024 + 60, "{}", text.len());
    }

    #[test]
    fn a_short_stream_is_whole() {
        let mut stream = Stream::new(&Mask::default());
        stream.push(&[b'x'; 60 * 1024]);
        assert_eq!(stream.finish(&Mask::default()), ("x".repeat(60 * 1024), false));
    }

    #[test]
    fn no_part_of_a_secret_survives_a_cut() {
        let secret = "0123456789abcdef-secret";
        let mut mask = Mask::default();
        mask.add(secret);
        for shift in 0..200 {
            let mut stream = Stream::new(&mask);
            stream.push("x".repeat(Stream::HEAD - 100 + shift).as_bytes());
            stream.push(secret.as_bytes());
            stream.push("y".repeat(100_000).as_bytes());
            stream.push(secret.as_bytes());
            stream.push("z".repeat(Stream::TAIL - 100 + shift).as_bytes());
            let (text, _) = stream.finish(&mask);
            assert!(!text.contains("0123") && !text.contains("ecret"), "shift {shift}");
        }
    }

    #[test]
    fn an_error_is_one_line_of_bounded_length() {
        let text = error("é\n".repeat(5000));
        assert!(text.chars().count() <= ERROR + 2 && !text.contains('\n'));
    }
}

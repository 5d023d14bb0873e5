//! Finding secrets in texts: in raw, base64, URL and JSON spellings.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::Value;

const MASK: &str = "***";

/// A base64 core shorter than this would hit harmless text.
const SHORTEST_CORE: usize = 5;

/// All spellings of some secrets.
#[derive(Clone, Default)]
pub(crate) struct Mask {
    /// The longest first, so that no rest of a longer one stays behind.
    spellings: Vec<String>,
}

impl Mask {
    /// Takes one more secret in.
    pub fn add(&mut self, secret: &str) {
        self.spellings.extend(spellings(secret).into_iter().filter(|spelling| !spelling.is_empty()));
        self.spellings.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        self.spellings.dedup();
    }

    pub fn is_empty(&self) -> bool {
        self.spellings.is_empty()
    }

    /// The longest spelling, in bytes: how much around a cut may hold a part of a secret.
    pub fn reach(&self) -> usize {
        self.spellings.first().map_or(0, String::len)
    }

    /// The text without secrets.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut masked = Cow::Borrowed(text);
        for spelling in &self.spellings {
            if masked.contains(spelling.as_str()) {
                masked = Cow::Owned(masked.replace(spelling.as_str(), MASK));
            }
        }
        masked
    }

    /// The bytes without secrets, whatever else they are.
    pub fn bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for spelling in &self.spellings {
            let wanted = spelling.as_bytes();
            let mut from = 0;
            while let Some(at) =
                bytes.get(from..).and_then(|rest| rest.windows(wanted.len()).position(|at| at == wanted))
            {
                bytes.splice(from + at..from + at + wanted.len(), MASK.bytes());
                from += at + MASK.len();
            }
        }
        bytes
    }

    /// Takes the secrets out of every text, key and number of a value.
    pub fn value(&self, value: &mut Value) {
        if self.is_empty() {
            return;
        }
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => {
                if let Cow::Owned(masked) = self.text(&number.to_string()) {
                    *value = Value::String(masked);
                }
            }
            Value::String(text) => {
                if let Cow::Owned(masked) = self.text(text) {
                    *text = masked;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                if fields.keys().any(|key| matches!(self.text(key), Cow::Owned(_))) {
                    *fields = std::mem::take(fields)
                        .into_iter()
                        .map(|(key, value)| (self.text(&key).into_owned(), value))
                        .collect();
                }
                fields.values_mut().for_each(|field| self.value(field));
            }
        }
    }
}

fn spellings(secret: &str) -> Vec<String> {
    let mut all = vec![secret.to_owned()];
    // A key file's lines may come back one by one.
    all.extend(secret.lines().map(str::trim).filter(|line| line.len() >= 16).map(str::to_owned));
    for raw in all.clone() {
        all.extend(base64_spellings(raw.as_bytes()));
    }
    let percent = percent_encoded(secret, false);
    all.push(percent.replace("%20", "+"));
    all.push(percent);
    let percent = percent_encoded(secret, true);
    all.push(percent.replace("%20", "+"));
    all.push(percent);
    let json = json_escaped(secret);
    all.push(json.replace('/', "\\/"));
    // Go's encoder escapes these, and Python's all that is not ASCII.
    all.push(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"));
    all.push(ascii_escaped(&json));
    all.push(json);
    all
}

/// Whole, and what is the same wherever the secret stands in a longer text (as in `user:secret`).
fn base64_spellings(secret: &[u8]) -> Vec<String> {
    let mut all = Vec::with_capacity(10);
    for engine in [&STANDARD, &URL_SAFE] {
        let whole = engine.encode(secret);
        all.push(whole.trim_end_matches('=').to_owned());
        all.push(whole);
        for before in 0..3 {
            let mut bytes = vec![0; before];
            bytes.extend_from_slice(secret);
            let encoded = engine.encode(&bytes);
            // Characters that hold bits of a neighbour.
            let start = [0, 2, 3][before];
            let end = bytes.len() * 8 / 6;
            if let Some(core) = encoded.get(start..end).filter(|core| core.len() >= SHORTEST_CORE) {
                all.push(core.to_owned());
            }
        }
    }
    all
}

fn percent_encoded(text: &str, lower: bool) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ if lower => write!(encoded, "%{byte:02x}").expect("writing to a string succeeds"),
            _ => write!(encoded, "%{byte:02X}").expect("writing to a string succeeds"),
        }
    }
    encoded
}

fn json_escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn ascii_escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(escaped, "\\u{unit:04x}").expect("writing to a string succeeds");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mask(secret: &str) -> Mask {
        let mut mask = Mask::default();
        mask.add(secret);
        mask
    }

    #[test]
    fn every_spelling_is_masked() {
        let secret = "p@ss/w\"ör d<&>+1";
        let mask = mask(secret);
        let spelled = [
            secret.to_owned(),
            STANDARD.encode(secret),
            URL_SAFE.encode(secret),
            "p%40ss%2Fw%22%C3%B6r%20d%3C%26%3E%2B1".to_owned(),
            "p%40ss%2fw%22%c3%b6r%20d%3c%26%3e%2b1".to_owned(),
            "p%40ss%2Fw%22%C3%B6r+d%3C%26%3E%2B1".to_owned(),
            "p@ss/w\\\"ör d<&>+1".to_owned(),
            "p@ss\\/w\\\"ör d<&>+1".to_owned(),
            "p@ss/w\\\"ör d\\u003c\\u0026\\u003e+1".to_owned(),
            "p@ss/w\\\"\\u00f6r d<&>+1".to_owned(),
        ];
        for text in spelled {
            assert_eq!(mask.text(&format!("a {text} b")), "a *** b", "{text}");
        }
    }

    #[test]
    fn base64_is_found_at_every_offset() {
        let mask = mask("correct horse battery");
        for user in ["u:", "us:", "use:", ""] {
            let encoded = STANDARD.encode(format!("{user}correct horse battery!!"));
            assert!(mask.text(&encoded).contains(MASK), "{user}");
            assert!(mask.text(&encoded).len() < user.len() * 2 + 16, "{user}: {}", mask.text(&encoded));
        }
    }

    #[test]
    fn keys_and_numbers_are_masked_too() {
        let mut value = json!({"a": ["x 12345678"], "12345678": {"n": 12_345_678, "other": 7}, "t": true});
        mask("12345678").value(&mut value);
        assert_eq!(value, json!({"a": ["x ***"], "***": {"n": "***", "other": 7}, "t": true}));
    }

    #[test]
    fn lines_of_a_key_are_masked_alone() {
        let mask = mask("-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----");
        assert_eq!(mask.text("line MIIEvQIBADANBgkqhkiG end"), "line *** end");
    }
}

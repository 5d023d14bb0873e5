//! Secrets by reference: resolved here alone, for the hosts they are bound to, and masked in whatever comes back.
//!
//! A secret is read when it is used, so a rotated file needs no restart. Every value that was ever read stays masked.
//! A command given a secret in its environment can send it anywhere: the binding to hosts is one for `http`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::sync::{Arc, PoisonError, RwLock};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::egress::HostPattern;
use crate::mask::Mask;
use crate::parameters::{kind, scalar};

/// The longest secret, in bytes: a key file with its chain fits.
const LONGEST: u64 = 64 * 1024;
/// Shorter ones could not be masked without mangling harmless text.
const SHORTEST: usize = 4;
/// How many values stay masked; beyond it nothing new is resolved.
const MOST_VALUES: usize = 1000;

/// One secret.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSpec {
    /// `env:NAME` or `file:PATH`.
    pub from: String,
    /// The hosts (`edr.corp`, `*.corp`) that `http` may send it to; empty: any.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// Why a secret cannot be used. Never holds its text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SecretError {
    #[error("secret {name:?} is not configured: add it under secrets in stanch.yaml")]
    Unknown { name: String },
    #[error("secret {name:?} is bound to {bound} and is not sent to {host}")]
    OtherHost { name: String, bound: String, host: String },
    #[error("{host:?} is no host pattern: write for example edr.corp or *.corp")]
    InvalidHost { host: String },
    #[error("secrets are given by reference: write env:NAME or file:PATH")]
    NotAReference,
    #[error("{reference} cannot be used: vault is not supported yet, use env: or file:")]
    VaultNotSupported { reference: String },
    #[error("{reference} cannot be read: {reason}")]
    Unreadable { reference: String, reason: String },
    #[error("{reference} has fewer than {SHORTEST} characters and could not be masked: use a longer secret")]
    TooShort { reference: String },
    #[error("more than {MOST_VALUES} different secrets were read: restart the worker")]
    TooMany,
    #[error("{0}")]
    Malformed(String),
}

/// A secret's text. Shows itself nowhere.
#[derive(Clone)]
pub struct SecretText(Arc<str>);

impl SecretText {
    /// The text itself, for where it is sent.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A rendered text, and whether secrets are in it.
pub(crate) struct Rendered<'a> {
    pub text: Cow<'a, str>,
    pub secret: bool,
}

/// The configured secrets. Cheap to clone; all clones mask the same.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Inner>);

#[derive(Default)]
struct Inner {
    entries: BTreeMap<String, Entry>,
    seen: RwLock<Seen>,
}

#[derive(Default)]
struct Seen {
    values: Vec<Arc<str>>,
    mask: Arc<Mask>,
}

struct Entry {
    reference: Reference,
    hosts: Vec<HostPattern>,
}

#[derive(Clone)]
enum Reference {
    Environment(String),
    File(String),
}

impl Secrets {
    /// The secrets of a configuration. Reads none of them yet.
    ///
    /// # Errors
    /// A reference or a host pattern of a form that is not known.
    pub fn new(specs: BTreeMap<String, SecretSpec>) -> Result<Self, SecretError> {
        let mut entries = BTreeMap::new();
        for (name, spec) in specs {
            let reference = Reference::parse(&spec.from)?;
            let hosts = spec
                .hosts
                .into_iter()
                .map(|host| HostPattern::parse(&host).ok_or(SecretError::InvalidHost { host }))
                .collect::<Result<_, _>>()?;
            entries.insert(name, Entry { reference, hosts });
        }
        Ok(Self(Arc::new(Inner { entries, seen: RwLock::default() })))
    }

    /// Reads `env:NAME` or `file:PATH` of the operator's configuration, and masks it from now on.
    ///
    /// # Errors
    /// Where it is no reference, cannot be read, or is too short to be masked.
    pub fn read(&self, reference: &str) -> Result<SecretText, SecretError> {
        self.load(&Reference::parse(reference)?)
    }

    /// The configured secrets that cannot be read now, by name, and why.
    #[must_use]
    pub fn unreadable(&self) -> Vec<(String, SecretError)> {
        let entries = self.0.entries.iter();
        entries.filter_map(|(name, entry)| Some((name.clone(), self.load(&entry.reference).err()?))).collect()
    }

    /// Reads a configured secret, for `host` where it leaves for one.
    ///
    /// # Errors
    /// Where it is not configured, bound to other hosts, or cannot be read.
    pub fn resolve(&self, name: &str, host: Option<&str>) -> Result<SecretText, SecretError> {
        let entry = self.0.entries.get(name).ok_or_else(|| SecretError::Unknown { name: shown(name) })?;
        if let Some(host) = host
            && !entry.hosts.is_empty()
            && !entry.hosts.iter().any(|pattern| pattern.matches(host))
        {
            let bound = entry.hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(SecretError::OtherHost { name: shown(name), bound, host: host.to_owned() });
        }
        self.load(&entry.reference)
    }

    /// A text or `{"secret_text": [..]}`, with its secrets in place.
    pub(crate) fn render<'a>(&self, value: &'a Value, host: Option<&str>) -> Result<Rendered<'a>, SecretError> {
        if let Some(text) = scalar(value) {
            return Ok(Rendered { text, secret: false });
        }
        let malformed = || SecretError::Malformed(format!("must be a text, not {}", kind(value)));
        let parts = value
            .as_object()
            .filter(|object| object.len() == 1)
            .and_then(|object| object.get("secret_text"))
            .and_then(Value::as_array)
            .ok_or_else(malformed)?;
        let mut text = String::new();
        let mut secret = false;
        for part in parts {
            let part = part.as_object().filter(|part| part.len() == 1).ok_or_else(malformed)?;
            if let Some(name) = part.get("secret").and_then(Value::as_str) {
                text.push_str(self.resolve(name, host)?.expose());
                secret = true;
            } else {
                text.push_str(part.get("text").and_then(Value::as_str).ok_or_else(malformed)?);
            }
        }
        Ok(Rendered { text: Cow::Owned(text), secret })
    }

    /// The text without any secret that was ever read.
    #[must_use]
    pub fn mask_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.mask().text(text)
    }

    /// Takes every secret that was ever read out of a value.
    pub fn mask_value(&self, value: &mut Value) {
        self.mask().value(value);
    }

    pub(crate) fn mask(&self) -> Arc<Mask> {
        self.0.seen.read().unwrap_or_else(PoisonError::into_inner).mask.clone()
    }

    fn load(&self, reference: &Reference) -> Result<SecretText, SecretError> {
        let text: Arc<str> = reference.read()?.into();
        let known = |seen: &Seen| seen.values.iter().any(|value| **value == *text);
        if !known(&self.0.seen.read().unwrap_or_else(PoisonError::into_inner)) {
            let mut seen = self.0.seen.write().unwrap_or_else(PoisonError::into_inner);
            if !known(&seen) {
                if seen.values.len() >= MOST_VALUES {
                    return Err(SecretError::TooMany);
                }
                Arc::make_mut(&mut seen.mask).add(&text);
                seen.values.push(text.clone());
            }
        }
        Ok(SecretText(text))
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.entries.keys()).finish()
    }
}

impl Reference {
    fn parse(text: &str) -> Result<Self, SecretError> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => {
                Ok(Self::Environment(name.to_owned()))
            }
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.to_owned())),
            Some(("vault", _)) => Err(SecretError::VaultNotSupported { reference: shown(text) }),
            // Not echoed: it may well be the secret itself.
            _ => Err(SecretError::NotAReference),
        }
    }

    fn read(&self) -> Result<String, SecretError> {
        let unreadable = |reason: String| SecretError::Unreadable { reference: self.to_string(), reason };
        let text = match self {
            Self::Environment(name) => std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => unreadable("the variable is not set".to_owned()),
                std::env::VarError::NotUnicode(_) => unreadable("it is not UTF-8".to_owned()),
            })?,
            Self::File(path) => {
                // A pipe would block whoever opens it.
                let metadata = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
                if !metadata.is_file() {
                    return Err(unreadable("it is no regular file".to_owned()));
                }
                let file = std::fs::File::open(path).map_err(|error| unreadable(error.to_string()))?;
                let mut text = String::new();
                file.take(LONGEST + 1).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
                // Editors and `echo` end a file with a line break that is no part of the secret.
                text.truncate(text.trim_end_matches(['\n', '\r']).len());
                text
            }
        };
        if text.len() as u64 > LONGEST {
            return Err(unreadable(format!("it is longer than {LONGEST} bytes")));
        }
        if text.chars().count() < SHORTEST {
            return Err(SecretError::TooShort { reference: self.to_string() });
        }
        Ok(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "env:{}", shown(name)),
            Self::File(path) => write!(f, "file:{}", shown(path)),
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, text).unwrap();
        let reference = format!("file:{}", path.display());
        (directory, reference)
    }

    fn secrets(from: &str, hosts: &[&str]) -> Secrets {
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        Secrets::new(BTreeMap::from([("edr".to_owned(), SecretSpec { from: from.to_owned(), hosts })])).unwrap()
    }

    #[test]
    fn a_mark_is_resolved_and_masked_from_then_on() {
        let (_directory, from) = file("topsecret\n");
        let secrets = secrets(&from, &[]);
        assert_eq!(secrets.mask_text("topsecret"), "topsecret");
        let value = json!({"secret_text": [{"text": "Bearer "}, {"secret": "edr"}]});
        let rendered = secrets.render(&value, None).unwrap();
        assert_eq!((rendered.text.as_ref(), rendered.secret), ("Bearer topsecret", true));
        assert_eq!(secrets.clone().mask_text("got topsecret"), "got ***");
    }

    #[test]
    fn a_rotated_value_is_read_anew_and_the_old_one_stays_masked() {
        let (directory, from) = file("first-value");
        let secrets = secrets(&from, &[]);
        secrets.resolve("edr", None).unwrap();
        std::fs::write(directory.path().join("secret"), "second-value").unwrap();
        assert_eq!(secrets.resolve("edr", None).unwrap().expose(), "second-value");
        assert_eq!(secrets.mask_text("first-value second-value"), "*** ***");
    }

    #[test]
    fn a_bound_secret_goes_to_its_hosts_alone() {
        let (_directory, from) = file("topsecret");
        let secrets = secrets(&from, &["edr.corp", "*.sec.corp"]);
        assert!(secrets.resolve("edr", Some("EDR.corp")).is_ok());
        assert!(secrets.resolve("edr", Some("a.sec.corp")).is_ok());
        let error = secrets.resolve("edr", Some("evil.corp")).unwrap_err();
        assert_eq!(error.to_string(), "secret \"edr\" is bound to edr.corp, *.sec.corp and is not sent to evil.corp");
    }

    #[test]
    fn bad_references_say_what_to_write() {
        for (from, expected) in [
            ("vault:kv/edr", "vault:kv/edr cannot be used: vault is not supported yet, use env: or file:"),
            ("hunter2", "secrets are given by reference: write env:NAME or file:PATH"),
            ("env:", "secrets are given by reference: write env:NAME or file:PATH"),
        ] {
            let spec = SecretSpec { from: from.to_owned(), hosts: vec![] };
            let error = Secrets::new(BTreeMap::from([("x".to_owned(), spec)])).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let error = Secrets::default().read("env:STANCH_TEST_NOT_SET").unwrap_err();
        assert_eq!(error.to_string(), "env:STANCH_TEST_NOT_SET cannot be read: the variable is not set");
        let (_directory, short) = file("abc");
        assert!(matches!(Secrets::default().read(&short), Err(SecretError::TooShort { .. })));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let (_directory, from) = file("topsecret");
        let secrets = secrets(&from, &[]);
        let text = secrets.resolve("edr", None).unwrap();
        assert_eq!(format!("{text:?} {secrets:?}"), "[secret] {\"edr\"}");
    }

    #[test]
    fn other_shapes_are_refused() {
        let secrets = Secrets::default();
        for value in
            [json!([1]), json!({"secret_text": 1}), json!({"secret_text": [{"x": 1}]}), json!({"a": 1}), json!(null)]
        {
            assert!(matches!(secrets.render(&value, None), Err(SecretError::Malformed(_))), "{value}");
        }
    }
}

//! The text of `stanch.yaml`: what it says, or which key is wrong, where, and what is expected there.

use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DefaultMessageFormatter, Error, Location, MessageFormatter as _, Spanned};

use super::ConfigError;

/// What a text says; the default where it is empty.
///
/// # Errors
/// [`ConfigError::Parse`] with line, column and key.
pub(super) fn parse<T: Default + for<'de> Deserialize<'de>>(path: &Path, text: &str) -> Result<T, ConfigError> {
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    let mut key = String::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            key = error.path().to_string();
            error.into_inner()
        })
    });
    read.map_err(|error| {
        let location = error.location();
        // The reader's own words for these say what it is made of, not what to write.
        let reason = match &error {
            Error::InvalidScalar { ty: "bool", .. } => "true or false is expected".to_owned(),
            Error::InvalidScalar { ty, .. } if ty.starts_with(['u', 'i']) => "a whole number is expected".to_owned(),
            Error::Unexpected { expected: "mapping start", .. } => {
                "a map is expected, as {name: value} or a line each".to_owned()
            }
            Error::Unexpected { expected: "sequence start", .. } => {
                "a list is expected, as [one, other] or a line each after -".to_owned()
            }
            error => DefaultMessageFormatter.format_message(error).into_owned(),
        };
        placed(path, location, &key, &reason)
    })
}

/// The same error with the place of its key in the text, where it is about a key that is there.
pub(super) fn place(path: &Path, text: &str, error: ConfigError) -> ConfigError {
    let ConfigError::Value { key, reason } = error else { return error };
    let steps: Vec<&str> = key.split(['.', '[']).map(|step| step.trim_end_matches(']')).collect();
    // Of a key that is not there, what it would stand in.
    let location = (1..=steps.len()).rev().find_map(|many| {
        let of = |deserializer: serde_saphyr::Deserializer<'_, '_>| At(&steps[..many]).deserialize(deserializer);
        serde_saphyr::with_deserializer_from_str_with_options(text, options(), of).ok()
    });
    placed(path, location, &key, &reason)
}

fn placed(path: &Path, location: Option<Location>, key: &str, reason: &str) -> ConfigError {
    let place = location.map(|at| format!("line {} column {}: ", at.line(), at.column())).unwrap_or_default();
    let key = if matches!(key, "" | ".") { String::new() } else { format!("{key}: ") };
    ConfigError::Parse { path: path.to_owned(), reason: format!("{place}{key}{reason}") }
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true, with_snippet: false }
}

/// Finds the place of what lies at the end of a path of keys and numbers.
struct At<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Location;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Location, D::Error> {
        match self.0 {
            [] => Spanned::<IgnoredAny>::deserialize(deserializer).map(|found| found.referenced),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Location;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Location, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if self.0.first() == Some(&key.as_str()) {
                found = Some(map.next_value_seed(At(&self.0[1..]))?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        found.ok_or_else(|| A::Error::custom("no such key"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Location, A::Error> {
        let wanted = self.0.first().and_then(|step| step.parse::<usize>().ok());
        let (mut found, mut at) = (None, 0);
        loop {
            let more = if Some(at) == wanted {
                let here = list.next_element_seed(At(&self.0[1..]))?;
                found = here;
                here.is_some()
            } else {
                list.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return found.ok_or_else(|| A::Error::custom("no such item"));
            }
            at += 1;
        }
    }
}

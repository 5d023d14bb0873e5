//! Who acts: people and their groups as `stanch.yaml` names them, and the tokens that they show.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stanch_core::record::Actor;
use stanch_workers::{SecretText, Secrets};
use subtle::ConstantTimeEq as _;

use crate::config::{Config, ConfigError};

/// Whoever shows nothing on loopback: one identity, which no list of people can name.
pub(crate) const LOCAL: &str = "local";
/// The longest name of a person or a group.
const LONGEST_NAME: usize = 64;

/// Known people and their tokens. `Default` knows nobody.
#[derive(Debug, Default)]
pub(crate) struct People {
    known: Vec<(Caller, SecretText)>,
}

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Their name.
    pub name: Arc<str>,
    /// Their groups.
    pub groups: Arc<[String]>,
    /// Whether they showed a token.
    pub by_token: bool,
}

impl Caller {
    /// Whoever showed nothing.
    pub(crate) fn local() -> Self {
        Self { name: LOCAL.into(), groups: Arc::default(), by_token: false }
    }

    /// As records name them.
    pub(crate) fn actor(&self) -> Actor {
        Actor::person(&self.name)
    }
}

/// A token that nobody has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownToken;

impl People {
    /// The people of a configuration, with their tokens read.
    ///
    /// # Errors
    /// What [`check`] finds, a token that cannot be read, and one that two people have.
    pub(crate) fn read(config: &Config, secrets: &Secrets) -> Result<Self, ConfigError> {
        check(config)?;
        let mut known: Vec<(Caller, SecretText)> = Vec::new();
        for (at, token) in config.tokens.iter().enumerate() {
            let key = format!("tokens[{at}].from");
            let text = secrets.read(&token.from).map_err(|error| ConfigError::secret(&key, &error))?;
            if let Some((other, _)) = known.iter().find(|(_, other)| other.expose() == text.expose()) {
                let reason = format!("{} has the same token; give each person one of their own", other.name);
                return Err(ConfigError::Value { key: key.into(), reason });
            }
            let groups = config.people.get(&token.person).map(|person| person.groups.clone()).unwrap_or_default();
            known.push((Caller { name: token.person.as_str().into(), groups: groups.into(), by_token: true }, text));
        }
        Ok(Self { known })
    }

    /// Who shows this `Authorization` header. Schemes other than `Bearer` are those of proxies and tell nothing.
    ///
    /// # Errors
    /// A bearer token that nobody has.
    pub(crate) fn of(&self, authorization: Option<&[u8]>) -> Result<Caller, UnknownToken> {
        let Some(shown) = authorization.and_then(bearer) else { return Ok(Caller::local()) };
        // Every token is compared, whole: how long it takes says nothing of which one is near.
        let mut found = None;
        for (caller, token) in &self.known {
            if bool::from(shown.ct_eq(token.expose().as_bytes())) {
                found = Some(caller);
            }
        }
        found.cloned().ok_or(UnknownToken)
    }
}

/// The token of a `Bearer` header; none for another scheme.
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, shown) = match authorization.iter().position(|byte| *byte == b' ') {
        Some(at) => (&authorization[..at], authorization[at..].trim_ascii()),
        None => (authorization, &b""[..]),
    };
    scheme.eq_ignore_ascii_case(b"bearer").then_some(shown)
}

/// Whether names can be told apart in records and in an approval's `from`, and every token's person is known.
///
/// # Errors
/// The first that is wrong, with its key and what would do.
pub(crate) fn check(config: &Config) -> Result<(), ConfigError> {
    let wrong = |key: String, reason: String| Err(ConfigError::Value { key: key.into(), reason });
    for (name, person) in &config.people {
        if name == LOCAL {
            let reason = "local is whoever shows no token; give the person another name".to_owned();
            return wrong("people.local".to_owned(), reason);
        }
        if let Some(id) = &person.slack
            && (id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        {
            let reason = "a member id such as U012AB3CD is expected; Slack shows it in the profile".to_owned();
            return wrong(format!("people.{name}.slack"), reason);
        }
        let names = std::iter::once((format!("people.{name}"), name));
        let groups = person.groups.iter().enumerate();
        let groups = groups.map(|(at, group)| (format!("people.{name}.groups[{at}]"), group));
        for (key, text) in names.chain(groups) {
            if !is_name(text) {
                let reason = format!(
                    "{:?} is no name; use 1 to {LONGEST_NAME} of A-Z, a-z, 0-9, '.', '_', '-', '+' and '@'",
                    crate::intake::shorten(text, LONGEST_NAME)
                );
                return wrong(key, reason);
            }
        }
    }
    let known: BTreeSet<&str> = config.people.keys().map(String::as_str).collect();
    for (at, token) in config.tokens.iter().enumerate() {
        if !known.contains(token.person.as_str()) {
            let near = nearest(&token.person, &config.people);
            let help = match near {
                Some(near) => format!("did you mean {near}?"),
                None => format!("add them: people: {{{}: {{groups: []}}}}", token.person),
            };
            let reason = format!("people names nobody {}; {help}", token.person);
            return wrong(format!("tokens[{at}].person"), reason);
        }
    }
    Ok(())
}

pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-+@".contains(letter);
    (1..=LONGEST_NAME).contains(&text.len()) && text.chars().all(allowed)
}

fn nearest<'a, T>(name: &str, known: &'a BTreeMap<String, T>) -> Option<&'a str> {
    let near = known.keys().map(|known| (strsim::damerau_levenshtein(name, known), known.as_str()));
    near.filter(|(distance, _)| *distance <= 2).min().map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str, tokens: &[(&str, &str)]) -> (Result<Config, ConfigError>, tempfile::TempDir) {
        let home = tempfile::tempdir().unwrap();
        for (name, token) in tokens {
            std::fs::write(home.path().join(name), token).unwrap();
        }
        let path = home.path().join("stanch.yaml");
        std::fs::write(&path, text.replace("HOME", &home.path().display().to_string())).unwrap();
        (Config::read(&path), home)
    }

    const TWO: &str = "people: {ann: {slack: U1, groups: [sec-oncall]}, bob: {}}\n\
                       tokens: [{person: ann, from: 'file:HOME/ann'}, {person: bob, from: 'file:HOME/bob'}]\n";

    #[test]
    fn a_token_names_its_person_and_their_groups() {
        let (config, _home) = config(TWO, &[("ann", "ann-s-token"), ("bob", "bob-s-token")]);
        let people = People::read(&config.unwrap(), &Secrets::default()).unwrap();
        let of =
            |shown: &str| people.of(Some(shown.as_bytes())).map(|caller| (caller.name.to_string(), caller.by_token));
        for shown in ["Bearer ann-s-token", "bearer  ann-s-token"] {
            assert_eq!(of(shown), Ok(("ann".to_owned(), true)));
        }
        assert_eq!(of("Bearer bob-s-token"), Ok(("bob".to_owned(), true)));
        let ann = people.of(Some(b"Bearer ann-s-token")).unwrap();
        assert_eq!((&*ann.groups, ann.actor()), (&["sec-oncall".to_owned()][..], Actor::person("ann")));
        for wrong in ["Bearer ann-s-toke", "Bearer ann-s-tokens", "Bearer", "Bearer ", "bearer x", "Bearer Ann-s-token"]
        {
            assert_eq!(of(wrong), Err(UnknownToken), "{wrong}");
        }
        // A proxy's own scheme says nothing of people.
        assert_eq!(of("Basic YW5uOng="), Ok(("local".to_owned(), false)));
        assert_eq!(people.of(None), Ok(Caller::local()));
        assert_eq!(
            People::default().of(Some(b"Bearer x")),
            Err(UnknownToken),
            "where nobody has a token, none is right"
        );
    }

    #[test]
    fn what_cannot_be_used_is_named_by_its_place() {
        for (text, place, remedy) in [
            ("people: {ann: {}}\ntokens: [{person: ana, from: 'env:X'}]\n", "tokens[0].person: ", "did you mean ann?"),
            ("tokens: [{person: ann, from: 'env:X'}]\n", "tokens[0].person: ", "add them: people: {ann: {groups: []}}"),
            ("people: {local: {}}\n", "people.local: ", "another name"),
            ("people: {ann: {slack: '@ann'}}\n", "people.ann.slack: ", "such as U012AB3CD"),
            ("people: {'group:x': {}}\n", "people.group:x: ", "use 1 to 64 of"),
            ("people: {ann: {groups: [a, 'b c']}}\n", "people.ann.groups[1]: ", "use 1 to 64 of"),
        ] {
            let error = config(text, &[]).0.unwrap_err().to_string();
            assert!(error.contains(&format!(": {place}")) && error.contains("stanch.yaml: line "), "{text}: {error}");
            assert!(error.contains(remedy), "{text}: {error}");
        }
        for (text, place) in [
            ("people: {ann: {slack: U1, group: [a]}}\n", "people.ann"),
            ("people: [ann]\n", "people: "),
            ("tokens: {ann: 'env:X'}\n", "tokens: "),
            ("tokens: [{person: ann}]\n", "tokens[0]"),
        ] {
            let error = config(text, &[]).0.unwrap_err().to_string();
            assert!(error.contains("line 1") && error.contains(place), "{text}: {error}");
        }
    }

    #[test]
    fn a_token_must_be_readable_and_of_one_person() {
        let (of_one, _home) = config(TWO, &[("ann", "the-same"), ("bob", "the-same")]);
        let error = People::read(&of_one.unwrap(), &Secrets::default()).unwrap_err().to_string();
        assert_eq!(error, "tokens[1].from: ann has the same token; give each person one of their own");
        let (missing, _home) = config(TWO, &[("ann", "ann-s-token")]);
        let error = People::read(&missing.unwrap(), &Secrets::default()).unwrap_err().to_string();
        assert!(error.starts_with("tokens[1].from: file:") && error.contains("cannot be read"), "{error}");
    }
}

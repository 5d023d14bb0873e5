//! Alertmanager's matchers: `alertname="X"`, `env=~"prod|stage"`, `!=`, `!~`, `"quoted name"="x"`.
//!
//! As there, a label that is missing is the empty string, and a regular expression must match the whole value.

use std::collections::BTreeMap;
use std::fmt;

use regex::{Regex, RegexBuilder};

const TEXT_BYTES: usize = 4 * 1024;
const REGEX_BYTES: usize = 1024 * 1024;

/// One matcher over labels; a missing label counts as the empty string.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    operator: Operator,
    value: String,
    regex: Option<Regex>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Matches,
    NotMatches,
}

/// A text that is no matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MatcherError {
    /// What is wrong.
    pub message: String,
    /// The byte of the text where it is wrong.
    pub offset: usize,
}

impl Matcher {
    /// The matchers of a text such as `alertname="X", env=~"prod|stage"`, braces around it or not.
    ///
    /// # Errors
    /// [`MatcherError`] where the text is none, holds none, or a regular expression is none or too large.
    pub fn parse(text: &str) -> Result<Vec<Self>, MatcherError> {
        if text.len() > TEXT_BYTES {
            return Err(MatcherError { message: format!("matcher longer than {TEXT_BYTES} bytes"), offset: 0 });
        }
        Parser { text, at: 0 }.matchers()
    }

    /// The label's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text, or the regular expression, that the label is compared with.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether it asks for the text rather than against it.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        matches!(self.operator, Operator::Equal | Operator::Matches)
    }

    /// Whether it compares with a regular expression.
    #[must_use]
    pub fn is_regex(&self) -> bool {
        self.regex.is_some()
    }

    /// Whether the labels satisfy it.
    #[must_use]
    pub fn is_match(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = labels.get(&self.name).map_or("", String::as_str);
        let equal = match &self.regex {
            Some(regex) => regex.is_match(label),
            None => label == self.value,
        };
        equal == matches!(self.operator, Operator::Equal | Operator::Matches)
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::Equal => "=",
            Operator::NotEqual => "!=",
            Operator::Matches => "=~",
            Operator::NotMatches => "!~",
        };
        match self.name.chars().all(plain) {
            true => write!(f, "{}{operator}{:?}", self.name, self.value),
            false => write!(f, "{:?}{operator}{:?}", self.name, self.value),
        }
    }
}

/// Whether a letter can stand outside of quotes.
fn plain(letter: char) -> bool {
    !letter.is_whitespace() && !matches!(letter, '{' | '}' | '!' | '=' | '~' | ',' | '\\' | '"' | '\'' | '`')
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn matchers(mut self) -> Result<Vec<Matcher>, MatcherError> {
        let mut matchers = Vec::new();
        self.space();
        let braced = self.eat("{");
        loop {
            self.space();
            if self.rest().is_empty() || self.rest().starts_with('}') {
                break;
            }
            matchers.push(self.matcher()?);
            self.space();
            if !self.eat(",") {
                break;
            }
        }
        if braced && !self.eat("}") {
            return Err(self.error("expected , or }"));
        }
        self.space();
        if !self.rest().is_empty() {
            return Err(self.error("expected , between matchers"));
        }
        if matchers.is_empty() {
            return Err(self.error("no matcher here; write one such as alertname=\"X\""));
        }
        Ok(matchers)
    }

    fn matcher(&mut self) -> Result<Matcher, MatcherError> {
        let name = self.word("a label's name")?;
        if name.is_empty() {
            return Err(self.error("expected a label's name"));
        }
        self.space();
        let operator = match () {
            () if self.eat("=~") => Operator::Matches,
            () if self.eat("!~") => Operator::NotMatches,
            () if self.eat("!=") => Operator::NotEqual,
            () if self.eat("=") => Operator::Equal,
            () => return Err(self.error("expected one of = != =~ !~ after the label's name")),
        };
        self.space();
        let from = self.at;
        let value = self.word("a value")?;
        let regex = match operator {
            Operator::Equal | Operator::NotEqual => None,
            Operator::Matches | Operator::NotMatches => {
                let regex = RegexBuilder::new(&format!("^(?:{value})$")).size_limit(REGEX_BYTES).build();
                Some(regex.map_err(|error| MatcherError { message: regex_error(&error), offset: from })?)
            }
        };
        Ok(Matcher { name, operator, value, regex })
    }

    /// A quoted text or a plain word, which may be empty.
    fn word(&mut self, what: &str) -> Result<String, MatcherError> {
        if !self.eat("\"") {
            let rest = self.rest();
            let end = rest.find(|letter| !plain(letter)).unwrap_or(rest.len());
            let word = rest[..end].to_owned();
            if rest[end..].starts_with(['\'', '`', '"', '\\', '~']) {
                self.at += end;
                return Err(self.error(&format!("{what} with such a letter must stand in double quotes")));
            }
            self.at += end;
            return Ok(word);
        }
        let mut word = String::new();
        let mut letters = self.rest().char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.at += at + 1;
                    return Ok(word);
                }
                '\\' => match letters.next() {
                    Some((_, 'n')) => word.push('\n'),
                    Some((_, 't')) => word.push('\t'),
                    Some((_, letter @ ('"' | '\\'))) => word.push(letter),
                    // As in Alertmanager, any other escape is kept: `\d` in a regular expression needs no doubling.
                    Some((_, letter)) => word.extend(['\\', letter]),
                    None => break,
                },
                letter => word.push(letter),
            }
        }
        Err(self.error("the quotes are not closed"))
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn error(&self, message: &str) -> MatcherError {
        MatcherError { message: message.to_owned(), offset: self.at }
    }
}

fn regex_error(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
        error => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default();
            format!("not a regular expression: {}", reason.strip_prefix("error: ").unwrap_or(reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[track_caller]
    fn check(text: &str, pairs: &[(&str, &str)], expected: bool) {
        let matchers = Matcher::parse(text).unwrap();
        assert_eq!(matchers.iter().all(|matcher| matcher.is_match(&labels(pairs))), expected, "{text} on {pairs:?}");
    }

    #[test]
    fn matchers_judge_labels_as_alertmanager_does() {
        check(r#"a="x""#, &[("a", "x")], true);
        check(r#"a="x""#, &[("a", "xy")], false);
        check(r#"a="x""#, &[], false);
        check(r#"a!="x""#, &[], true);
        check(r#"a="""#, &[], true);
        check(r#"a="""#, &[("a", "")], true);
        check(r#"a!="""#, &[], false);
        check(r#"a=~"prod|stage""#, &[("a", "stage")], true);
        check(r#"a=~"prod|stage""#, &[("a", "prod-eu")], false);
        check(r#"a=~".*""#, &[], true);
        check(r#"a=~".+""#, &[], false);
        check(r#"a!~"prod|stage""#, &[("a", "prod")], false);
        check(r#"a!~"prod|stage""#, &[], true);
        check(r#"a=~"\d+""#, &[("a", "12")], true);
        check(r#"a="x\"y\\z\n""#, &[("a", "x\"y\\z\n")], true);
    }

    #[test]
    fn several_matchers_may_stand_in_one_text() {
        check(r#"a="x", b=~"y.*""#, &[("a", "x"), ("b", "yes")], true);
        check(r#"a="x", b=~"y.*""#, &[("a", "x"), ("b", "no")], false);
        check(r#"{a="x", "foo bar"!="y",}"#, &[("a", "x"), ("foo bar", "z")], true);
        check("a=x,b=~y|z", &[("a", "x"), ("b", "z")], true);
        check("{ a = x }", &[("a", "x")], true);
        check("a=", &[], true);
    }

    #[test]
    fn texts_that_are_no_matchers_are_refused_with_their_place() {
        let errors: Vec<String> = [
            "",
            "{}",
            "a",
            "a==x",
            "=x",
            r#"a="x"#,
            r#"a="x" b="y""#,
            "a=~\"(\"",
            "a=~\"((a{1000}){1000})\"",
            "{a=x",
            "a=x}",
            "a='x'",
        ]
        .iter()
        .map(|text| {
            let error = Matcher::parse(text).unwrap_err();
            format!("{text} @{}: {error}", error.offset)
        })
        .collect();
        insta::assert_snapshot!(errors.join("\n"));
    }

    #[test]
    fn a_matcher_prints_as_it_is_read() {
        let text = r#"{"a b"!="x\\", c=~"d|e"}"#;
        let printed: Vec<String> = Matcher::parse(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(printed, [r#""a b"!="x\\""#, r#"c=~"d|e""#]);
    }
}

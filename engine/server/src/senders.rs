//! Who may send webhooks: whoever shows what `intake` of `stanch.yaml` names, a bearer token or a name and a password.

use base64::Engine as _;
use stanch_workers::{SecretText, Secrets};
use subtle::ConstantTimeEq as _;

use crate::config::{BasicConfig, ConfigError, IntakeConfig};

/// What senders of webhooks must show. `Default` asks for nothing.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    token: Option<SecretText>,
    basic: Option<(String, SecretText)>,
}

impl Senders {
    /// What the configuration asks for.
    ///
    /// # Errors
    /// A secret that cannot be read, or a name that basic authentication cannot carry.
    pub(crate) fn read(config: &IntakeConfig, secrets: &Secrets) -> Result<Self, ConfigError> {
        let secret = |key: &str, from: &str| secrets.read(from).map_err(|error| ConfigError::secret(key, &error));
        let basic = |BasicConfig { username, password }: &BasicConfig| {
            // RFC 7617, 2: the first colon ends the name.
            if username.is_empty() || username.contains(':') {
                let reason = "a name of at least one character and without a colon is expected".to_owned();
                return Err(ConfigError::Value { key: "intake.basic.username".into(), reason });
            }
            Ok((username.clone(), secret("intake.basic.password", password)?))
        };
        Ok(Self {
            token: config.token.as_deref().map(|from| secret("intake.token", from)).transpose()?,
            basic: config.basic.as_ref().map(basic).transpose()?,
        })
    }

    /// Whether an `Authorization` header's value is one of those that are asked for; true where none is.
    pub(crate) fn know(&self, authorization: &[u8]) -> bool {
        if self.token.is_none() && self.basic.is_none() {
            return true;
        }
        let (scheme, shown) = match authorization.iter().position(|byte| *byte == b' ') {
            Some(at) => (&authorization[..at], authorization[at..].trim_ascii()),
            None => (authorization, &b""[..]),
        };
        // The length is no secret; the content is compared in constant time.
        let is = |shown: &[u8], expected: &[u8]| bool::from(shown.ct_eq(expected));
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.token.as_ref().is_some_and(|token| is(shown, token.expose().as_bytes()));
        }
        let (true, Some((username, password))) = (scheme.eq_ignore_ascii_case(b"basic"), &self.basic) else {
            return false;
        };
        let shown = base64::engine::general_purpose::STANDARD.decode(shown).unwrap_or_default();
        is(&shown, format!("{username}:{}", password.expose()).as_bytes())
    }

    /// How to be known, without a secret.
    pub(crate) fn remedy(&self) -> &'static str {
        match (&self.token, &self.basic) {
            (_, None) => "send the token of intake.token as Authorization: Bearer TOKEN",
            (None, Some(_)) => {
                "send the name and the password of intake.basic (basic_auth in Alertmanager's http_config)"
            }
            (Some(_), Some(_)) => {
                "send the token of intake.token as Authorization: Bearer TOKEN, or the name and the password of intake.basic"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(token: Option<&str>, basic: Option<(&str, &str)>) -> (IntakeConfig, tempfile::TempDir) {
        let home = tempfile::tempdir().unwrap();
        let reference = |name: &str, text: &str| {
            let path = home.path().join(name);
            std::fs::write(&path, text).unwrap();
            format!("file:{}", path.display())
        };
        let token = token.map(|token| reference("token", token));
        let basic = basic.map(|(username, password)| BasicConfig {
            username: username.to_owned(),
            password: reference("password", password),
        });
        (IntakeConfig { token, basic, ..IntakeConfig::default() }, home)
    }

    #[test]
    fn who_shows_what_is_configured_is_known() {
        let basic = |text: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
        let (right, lower) = (basic("am:pa:ss"), basic("am:pa:ss").replace("Basic", "basic"));
        let wrong = [basic("am:pa:s"), basic("am:pa:sss"), basic("an:pa:ss"), basic("ampa:ss"), basic(":"), basic("")];
        let both = config(Some("t0ken"), Some(("am", "pa:ss")));
        let one = (config(Some("t0ken"), None), config(None, Some(("am", "pa:ss"))));
        let knows = |(config, _): &(IntakeConfig, _), shown: &str| {
            Senders::read(config, &Secrets::default()).unwrap().know(shown.as_bytes())
        };
        for shown in ["Bearer t0ken", "bearer  t0ken"] {
            assert_eq!([&both, &one.0, &one.1].map(|config| knows(config, shown)), [true, true, false], "{shown}");
        }
        for shown in [&right, &lower] {
            assert_eq!([&both, &one.0, &one.1].map(|config| knows(config, shown)), [true, false, true], "{shown}");
        }
        let none = ["", "Bearer", "Bearer ", "Bearer t0ke", "Basic", "Basic t0ken", "Basic =", "t0ken", "Digest t0ken"];
        for shown in none.into_iter().chain(wrong.iter().map(String::as_str)) {
            assert_eq!([&both, &one.0, &one.1].map(|config| knows(config, shown)), [false; 3], "{shown}");
        }
        assert!(knows(&config(None, None), "") && knows(&config(None, None), "Bearer x"));
    }

    #[test]
    fn what_cannot_be_used_is_named_by_its_key() {
        let read = |config: &IntakeConfig| Senders::read(config, &Secrets::default()).unwrap_err().to_string();
        let (colon, _home) = config(None, Some(("a:m", "pass")));
        assert!(read(&colon).starts_with("intake.basic.username: "), "{}", read(&colon));
        let password = "env:STANCH_TEST_NOT_SET".to_owned();
        let basic = Some(BasicConfig { username: "am".to_owned(), password });
        let unset = IntakeConfig { basic, ..IntakeConfig::default() };
        assert_eq!(
            read(&unset),
            "intake.basic.password: env:STANCH_TEST_NOT_SET cannot be read: the variable is not set"
        );
    }
}

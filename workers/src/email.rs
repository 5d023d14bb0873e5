//! `email`: one mail over SMTP.
//!
//! `to` (an address, or a list of at most 50), `subject`, `text`. Result `{message_id, to}`. The text is sent as plain text, so
//! nothing in it is markup; control characters of the subject become spaces. `Message-ID` is made of the idempotency key:
//! a second try is the same mail to whoever looks at it.
//!
//! The server is the configured one. `smtps://` is TLS from the start; `smtp://` turns it on (STARTTLS) where the server
//! offers it, and to log in it must, but on loopback, where no TLS is asked for.
//!
//! How it comes out: a mail goes to all of `to` or to none. 5xx is *failed* for good, 4xx is tried again, and so is a
//! connection that ends before the text was sent. One that ends after that, without an answer: *unknown*.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use stanch_core::{Assignment, Outcome};
use tokio::time::{Instant, timeout_at};

use crate::action::{Action, Context, failed, refused, unknown};
use crate::egress::{Egress, bare_host};
use crate::parameters::{Parameters, kind};

const CONNECT: Duration = Duration::from_secs(10);
/// For the last word of a conversation, which changes nothing.
const FAREWELL: Duration = Duration::from_secs(1);
const MOST_RECIPIENTS: usize = 50;
const LONGEST_SUBJECT: usize = 500;
const LONGEST_TEXT: usize = 1024 * 1024;

/// A mail server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailConfig {
    /// Its address: `smtps://mail.corp` (TLS, port 465) or `smtp://mail.corp:25` (STARTTLS where it is offered).
    pub smtp: String,
    /// The name to log in with; goes with `password`.
    #[serde(default)]
    pub username: Option<String>,
    /// The password, by reference (`env:NAME` or `file:PATH`).
    #[serde(default)]
    pub password: Option<String>,
    /// Whom mails come from, such as `Stanch <stanch@corp.example>`.
    pub from: String,
}

/// The action `email`.
#[derive(Debug, Clone, Copy)]
pub struct Email;

impl Action for Email {
    fn name(&self) -> &'static str {
        "email"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            context.preparing();
            match prepare(context, assignment) {
                Ok(letter) => deliver(context, &letter).await.unwrap_or_else(|outcome| outcome),
                Err(error) => refused(error),
            }
        })
    }
}

/// A mail that is ready to leave.
struct Letter {
    server: Server,
    message: Message,
    id: String,
    to: Vec<String>,
}

/// Where it is handed in.
struct Server {
    host: String,
    port: u16,
    /// TLS from the start.
    tls: bool,
    credentials: Option<Credentials>,
}

fn prepare(context: &Context, assignment: &Assignment) -> Result<Letter, String> {
    let config = context.shared.services.email.as_ref();
    let config = config.ok_or("email is not configured: set email.smtp and email.from in stanch.yaml")?;
    let from: Mailbox = config.from.parse().map_err(|_| format!("email.from is no address: {:?}", config.from))?;
    let parameters = Parameters::of(assignment);
    let to = recipients(parameters.get("to"))?;
    let subject = parameters.text("subject")?;
    let subject: String =
        subject.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(LONGEST_SUBJECT).collect();
    let text = parameters.text("text")?;
    if text.len() > LONGEST_TEXT {
        return Err("`text` exceeds 1 MiB".to_owned());
    }

    let key = assignment.idempotency_key.as_str();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    let local: String = key.chars().map(|letter| if plain(letter) { letter } else { '.' }).collect();
    let id = format!("<{}@{}>", local.trim_matches('.'), from.email.domain());
    let mut message =
        Message::builder().from(from).subject(subject).message_id(Some(id.clone())).header(ContentType::TEXT_PLAIN);
    for mailbox in &to {
        message = message.to(mailbox.clone());
    }
    let message = message.body(text.into_owned()).map_err(|error| format!("the mail cannot be written: {error}"))?;
    let to = to.iter().map(|mailbox| mailbox.email.to_string()).collect();
    Ok(Letter { server: server(context, config)?, message, id, to })
}

/// Each text is one address, so that a comma in data adds nobody.
fn recipients(given: Option<&Value>) -> Result<Vec<Mailbox>, String> {
    let address = |value: &Value| {
        let text = value.as_str().ok_or_else(|| format!("`to` must hold addresses, not {}", kind(value)))?;
        text.trim().parse::<Mailbox>().map_err(|_| format!("`to` holds no address: {text:?}"))
    };
    let found = match given {
        None => return Err("`to` is missing".to_owned()),
        Some(Value::Array(items)) => items.iter().map(address).collect::<Result<Vec<_>, _>>()?,
        Some(value) => vec![address(value)?],
    };
    match found.len() {
        0 => Err("`to` is empty".to_owned()),
        1..=MOST_RECIPIENTS => Ok(found),
        more => Err(format!("`to` holds {more} addresses, and a mail goes to at most {MOST_RECIPIENTS}: use a list")),
    }
}

fn server(context: &Context, config: &EmailConfig) -> Result<Server, String> {
    let url = Url::parse(config.smtp.trim()).map_err(|error| format!("email.smtp is no URL: {error}"))?;
    let (tls, port) = match url.scheme() {
        "smtps" => (true, 465),
        "smtp" => (false, 25),
        _ => return Err("email.smtp must begin with smtps:// or smtp://".to_owned()),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("email.smtp holds credentials: use email.username and email.password".to_owned());
    }
    let host = bare_host(url.host_str().unwrap_or_default()).to_owned();
    if host.is_empty() {
        return Err("email.smtp names no host".to_owned());
    }
    let credentials = match (&config.username, &config.password) {
        (Some(username), Some(reference)) => {
            let password = context.secrets().read(reference).map_err(|error| format!("email.password: {error}"))?;
            Some(Credentials::new(username.clone(), password.expose().to_owned()))
        }
        (None, None) => None,
        _ => return Err("email.username and email.password go together".to_owned()),
    };
    Ok(Server { host, port: url.port().unwrap_or(port), tls, credentials })
}

async fn deliver(context: &Context, letter: &Letter) -> Result<Outcome, Outcome> {
    let mut connection = connect(&letter.server).await?;
    let told = hand_over(context, &mut connection, letter).await;
    if told.is_err() && !context.nothing_sent() {
        return told;
    }
    let farewell = context.deadline.min(Instant::now() + FAREWELL);
    let _ = timeout_at(farewell, connection.abort()).await;
    told
}

async fn connect(server: &Server) -> Result<AsyncSmtpConnection, Outcome> {
    let place = format!("{}:{}", server.host, server.port);
    let tls = || {
        TlsParameters::new_rustls(server.host.clone()).map_err(|error| refused(format!("no TLS for {place}: {error}")))
    };
    let address = resolve(server).await?;
    let hello = hello();
    let wrapped = if server.tls { Some(tls()?) } else { None };
    let lost = |error: Error| said(&format!("cannot connect to {place}"), &error);
    let mut connection =
        AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT), &hello, wrapped, None).await.map_err(lost)?;
    let loopback = address.ip().is_loopback();
    if !loopback && connection.can_starttls() {
        connection.starttls(tls()?, &hello).await.map_err(lost)?;
    }
    if let Some(credentials) = &server.credentials {
        if !loopback && !connection.is_encrypted() {
            return Err(refused(format!("{place} offers no TLS, and the password is not sent without it")));
        }
        let login = connection.auth(DEFAULT_MECHANISMS, credentials).await;
        login.map_err(|error| said(&format!("{place} did not take email.username and email.password"), &error))?;
    }
    Ok(connection)
}

/// The first of the server's addresses that may be connected to.
async fn resolve(server: &Server) -> Result<SocketAddr, Outcome> {
    let found = tokio::net::lookup_host((server.host.as_str(), server.port)).await;
    let found = found.map_err(|error| failed(format!("cannot resolve {}: {error}", server.host)))?;
    let mut why = failed(format!("cannot resolve {}: no address", server.host));
    for address in found {
        match Egress::trusted().check(&server.host, address.ip()) {
            Ok(()) => return Ok(address),
            Err(error) => why = refused(error.to_string()),
        }
    }
    Err(why)
}

/// How the engine introduces itself: by the machine's name where it has a usable one.
fn hello() -> ClientId {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let known = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.';
    match !name.is_empty() && name.chars().all(known) {
        true => ClientId::Domain(name),
        false => ClientId::Domain("localhost".to_owned()),
    }
}

async fn hand_over(
    context: &Context,
    connection: &mut AsyncSmtpConnection,
    letter: &Letter,
) -> Result<Outcome, Outcome> {
    let envelope = letter.message.envelope();
    let bytes = letter.message.formatted();
    let mut options = Vec::new();
    if connection.server_info().supports_feature(Extension::EightBitMime) {
        options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    let sender = connection.command(Mail::new(envelope.from().cloned(), options)).await;
    sender.map_err(|error| said("the mail server refused the sender", &error))?;
    for recipient in envelope.to() {
        let told = connection.command(Rcpt::new(recipient.clone(), Vec::new())).await;
        told.map_err(|error| said(&format!("the mail server refused {recipient}"), &error))?;
    }
    connection.command(Data).await.map_err(|error| said("the mail server takes no mail", &error))?;
    context.sending();
    match connection.message(&bytes).await {
        Ok(_) => Ok(Outcome::Succeeded { output: json!({ "message_id": letter.id, "to": letter.to }) }),
        Err(error) if error.status().is_some() => Err(said("the mail server refused the mail", &error)),
        Err(error) => Err(unknown(format!("the mail was sent and not answered: {}", innermost(&error)))),
    }
}

/// The failure that an answer, or the lack of one, stands for while nothing was handed over.
fn said(what: &str, error: &Error) -> Outcome {
    let text = format!("{what}: {}", innermost(error));
    if error.is_permanent() || error.is_client() { refused(text) } else { failed(text) }
}

/// What a failure says without lettre's layers: the code and the text of an answer, else the system's words.
fn innermost(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = source.to_string();
        next = source.source();
    }
    match error.status() {
        Some(code) => {
            format!("{code} {}", text.chars().filter(|letter| !letter.is_control()).take(300).collect::<String>())
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_is_one_address() {
        let count = |given: Value| recipients(Some(&given)).map(|found| found.len());
        assert_eq!(count(json!("ann@corp.example")), Ok(1));
        assert_eq!(count(json!(["Ann <ann@corp.example>", "bob@corp.example"])), Ok(2));
        for given in [
            json!("a@corp.example, b@corp.example"),
            json!("a@corp.example\r\nRCPT TO:<b@corp.example>"),
            json!("<a@corp.example> BODY=8BITMIME"),
            json!(""),
            json!([]),
            json!([1]),
            json!(vec!["a@corp.example"; 51]),
        ] {
            assert!(count(given.clone()).is_err(), "{given}");
        }
    }
}

//! `email` against a stand-in SMTP server that keeps what it is told.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use stanch_workers::{EmailConfig, Services, Worker, WorkerConfig};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use crate::common::*;

/// A mail server on loopback.
struct Post {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
}

/// What it does at a command that begins with a text: answers a line, or (without one) cuts the connection.
type Trouble = (&'static str, Option<&'static str>);

impl Post {
    /// A server that takes every mail but for the trouble it has.
    async fn start(trouble: Option<Trouble>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let _ = stream.write_all(b"220 mail.corp.example ESMTP\r\n").await;
                    let mut data = false;
                    let mut line = String::new();
                    while matches!(stream.read_line(&mut line).await, Ok(1..)) {
                        let text = std::mem::take(&mut line);
                        let text = text.trim_end_matches(['\r', '\n']);
                        kept.lock().unwrap().push(text.to_owned());
                        let troubled = trouble.filter(|(at, _)| text.starts_with(at) && (!data || *at == "."));
                        let answer = match (troubled, text) {
                            (Some((_, Some(answer))), _) => answer,
                            (Some((_, None)), _) => break,
                            (None, ".") if data => "250 queued",
                            (None, _) if data => continue,
                            (None, "DATA") => "354 go on",
                            (None, text) if text.starts_with("EHLO") => {
                                "250-mail.corp.example\r\n250-8BITMIME\r\n250 AUTH PLAIN"
                            }
                            (None, text) if text.starts_with("AUTH") => "235 welcome",
                            (None, "QUIT") => "221 bye",
                            (None, _) => "250 ok",
                        };
                        data = answer.starts_with("354") || (data && text != ".");
                        let _ = stream.write_all(format!("{answer}\r\n").as_bytes()).await;
                    }
                });
            }
        });
        Self { port, lines }
    }

    fn worker(&self) -> (Worker, tempfile::TempDir) {
        let (_, file) = secret("unused", "mail-password", &[]);
        let email = EmailConfig {
            smtp: format!("smtp://127.0.0.1:{}", self.port),
            username: Some("stanch".to_owned()),
            password: Some(format!("file:{}", file.path().join("secret").display())),
            from: "Stanch <stanch@corp.example>".to_owned(),
        };
        let services = Services { email: Some(email), ..Services::default() };
        (Worker::new(WorkerConfig { services, ..WorkerConfig::default() }), file)
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

fn mail() -> Value {
    json!({"to": ["Ann <ann@corp.example>", "bob@corp.example"], "subject": "db-01", "text": "It is down."})
}

#[tokio::test]
async fn a_mail_reaches_everybody_it_is_for() {
    let post = Post::start(None).await;
    let (worker, _file) = post.worker();
    let with = json!({
        "to": ["Ann <ann@corp.example>", "bob@corp.example"],
        "subject": "db-01\r\nBcc: eve@corp.example",
        "text": "It is down.\n.\nRCPT TO:<eve@corp.example>\n<b>é</b>",
    });
    let output = succeeded(run(&worker, "email", with.clone()).await);
    assert_eq!(output["to"], json!(["ann@corp.example", "bob@corp.example"]));
    let lines = post.lines();
    let at = |start: &str| lines.iter().filter(|line| line.starts_with(start)).cloned().collect::<Vec<_>>();
    assert_eq!(at("MAIL"), ["MAIL FROM:<stanch@corp.example> BODY=8BITMIME"]);
    assert_eq!(at("RCPT TO:<ann"), ["RCPT TO:<ann@corp.example>"]);
    assert_eq!(at("RCPT TO:<bob"), ["RCPT TO:<bob@corp.example>"]);
    assert_eq!(at("AUTH PLAIN").len(), 1);
    let data = lines.iter().position(|line| line == "DATA").unwrap();
    let (commands, message) = lines.split_at(data);
    assert!(!commands.iter().any(|line| line.contains("eve@")), "{commands:?}");
    assert!(!message.iter().any(|line| line.starts_with("Bcc:")), "{message:?}");
    assert_eq!(at("Message-ID:"), [format!("Message-ID: {}", output["message_id"].as_str().unwrap())]);
    assert!(at("From:")[0].contains("<stanch@corp.example>") && at("Content-Type:")[0].contains("text/plain"));
    assert!(message.iter().any(|line| line.starts_with("..") || line.starts_with("=2E") || line.contains("base64")));

    // The same attempt is the same mail.
    assert_eq!(succeeded(run(&worker, "email", with).await)["message_id"], output["message_id"]);
}

#[tokio::test]
async fn what_the_server_says_decides_whether_it_is_tried_again() {
    let cases: [(Trouble, bool, &str); 8] = [
        (("AUTH", Some("535 5.7.8 bad credentials")), false, "did not take email.username"),
        (("MAIL", Some("550 5.7.1 not you")), false, "refused the sender: 550 5.7.1 not you"),
        (("RCPT TO:<bob", Some("550 5.1.1 no such user")), false, "refused bob@corp.example: 550"),
        (("RCPT TO:<bob", Some("451 4.2.1 greylisted")), true, "451 4.2.1 greylisted"),
        (("DATA", Some("554 no")), false, "takes no mail"),
        ((".", Some("552 5.3.4 too large")), false, "refused the mail: 552"),
        ((".", Some("452 4.3.1 disk full")), true, "452"),
        (("RCPT", None), true, "refused ann@corp.example"),
    ];
    for (trouble, retryable, expected) in cases {
        let post = Post::start(Some(trouble)).await;
        let (worker, _file) = post.worker();
        let failure = failure(run(&worker, "email", mail()).await);
        assert!(failure.retryable == retryable && failure.error.contains(expected), "{trouble:?}: {failure:?}");
        let lines = post.lines();
        assert!(
            trouble.0 == "." || trouble.0 == "DATA" || !lines.iter().any(|line| line == "DATA"),
            "{trouble:?}: {lines:?}"
        );
    }
}

#[tokio::test]
async fn a_mail_that_was_sent_and_not_answered_is_unknown() {
    let post = Post::start(Some((".", None))).await;
    let (worker, _file) = post.worker();
    assert!(unknown(run(&worker, "email", mail()).await).contains("sent and not answered"));

    // Nobody answers: before the text it has failed.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Post { port: silent.local_addr().unwrap().port(), lines: Arc::default() };
    let (worker, _file) = silent.worker();
    let outcome = run_within(&worker, 500, "email", mail()).await;
    assert!(failure(outcome).retryable);
}

#[tokio::test]
async fn what_cannot_be_sent_is_not() {
    let post = Post::start(None).await;
    let (worker, _file) = post.worker();
    for (with, expected) in [
        (json!({"subject": "a", "text": "b"}), "`to` is missing"),
        (json!({"to": "a@corp.example, b@corp.example", "subject": "a", "text": "b"}), "holds no address"),
        (json!({"to": "a@corp.example", "text": "b"}), "`subject` is missing"),
        (json!({"to": "a@corp.example", "subject": "a"}), "`text` is missing"),
    ] {
        let failure = failure(run(&worker, "email", with).await);
        assert!(!failure.retryable && failure.error.contains(expected), "{expected}: {failure:?}");
    }
    assert!(post.lines().is_empty());
    let unconfigured = failure(run(&Worker::new(WorkerConfig::default()), "email", mail()).await);
    assert!(unconfigured.error.contains("email is not configured"), "{unconfigured:?}");

    let configured = |smtp: &str, username: Option<&str>| {
        let email = EmailConfig {
            smtp: smtp.to_owned(),
            username: username.map(str::to_owned),
            password: None,
            from: "stanch@corp.example".to_owned(),
        };
        let services = Services { email: Some(email), ..Services::default() };
        Worker::new(WorkerConfig { services, ..WorkerConfig::default() })
    };
    for (smtp, username, expected) in [
        ("mail.corp", None, "email.smtp"),
        ("http://mail.corp", None, "must begin with smtps://"),
        ("smtp://a:b@mail.corp", None, "holds credentials"),
        ("smtp://127.0.0.1:1", Some("a"), "go together"),
        ("smtp://169.254.169.254", None, "always refused"),
    ] {
        let failure = failure(run(&configured(smtp, username), "email", mail()).await);
        assert!(!failure.retryable && failure.error.contains(expected), "{smtp}: {failure:?}");
    }
    let nobody = failure(run(&configured("smtp://127.0.0.1:1", None), "email", mail()).await);
    assert!(nobody.retryable && nobody.error.contains("cannot connect to 127.0.0.1:1"), "{nobody:?}");
}

//! A small HTTP/1.1 server whose answers may be as bad as real ones are: late, cut, endless, or none at all.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::own_headers;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// When its last byte was read.
    pub at: Instant,
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Received {
    /// The first header of that lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Answer in order.
    Reply {
        /// The status code.
        status: u16,
        /// Headers beside the length.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Say nothing and keep the connection.
    Hang,
    /// Reset the connection.
    Reset,
    /// Answer 200 and send a body that does not end.
    Endless,
}

impl Answer {
    /// A JSON answer.
    #[must_use]
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::Reply {
            status,
            headers: vec![("Content-Type".into(), "application/json".into())],
            body: value.to_string().into_bytes(),
        }
    }
}

/// The server. Its port closes when it is dropped.
#[derive(Debug)]
pub struct StandIn {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
}

/// An endless body ends here, lest a test that fails fills the machine.
const ENDLESS: usize = 2 << 30;

impl StandIn {
    /// Listens on a free loopback port and answers each request with what `handler` says.
    ///
    /// # Panics
    /// Where it cannot listen.
    pub fn start(handler: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, crate::free_port())).expect("the port was free a moment ago");
        let address = listener.local_addr().expect("a listener has an address");
        let stop = Arc::new(AtomicBool::new(false));
        let handler: Arc<dyn Fn(&Received) -> Answer + Send + Sync> = Arc::new(handler);
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (handler, stopped) = (Arc::clone(&handler), Arc::clone(&stopped));
                thread::spawn(move || {
                    // A peer that was killed ends its connection anyhow.
                    let _ = serve(stream, &*handler, &stopped);
                });
            }
        });
        Self { address, stop }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
    }
}

fn serve(stream: TcpStream, handler: &dyn Fn(&Received) -> Answer, stopped: &AtomicBool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        if stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        match handler(&request) {
            Answer::Reply { status, headers, body } => {
                let mut head = format!("HTTP/1.1 {status} Stand-in\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                head.push_str("\r\n");
                let mut bytes = head.into_bytes();
                bytes.extend_from_slice(&body);
                writer.write_all(&bytes)?;
                if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                    return Ok(());
                }
            }
            Answer::Hang => {
                // Ends when the other side has had enough.
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest)?;
                return Ok(());
            }
            Answer::Reset => {
                return socket2::SockRef::from(&writer).set_linger(Some(Duration::ZERO));
            }
            Answer::Endless => {
                writer
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                let mut chunk = b"4000\r\n".to_vec();
                chunk.resize(chunk.len() + 0x4000, b'.');
                chunk.extend_from_slice(b"\r\n");
                for _ in 0..ENDLESS / 0x4000 {
                    writer.write_all(&chunk)?;
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Received>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        reader.read_until(b'\n', &mut head)?;
        if head.len() == before || head.len() > 1 << 20 {
            return Ok(None);
        }
        if &head[before..] == b"\r\n" {
            break;
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(&head).map_err(io::Error::other)?;
    let mut received = Received {
        at: Instant::now(),
        method: request.method.unwrap_or_default().to_owned(),
        path: request.path.unwrap_or_default().to_owned(),
        headers: own_headers(request.headers),
        body: Vec::new(),
    };
    if received.header("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            received.body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = received.header("content-length") {
        let length: usize = length.parse().map_err(io::Error::other)?;
        received.body.resize(length, 0);
        reader.read_exact(&mut received.body)?;
    }
    received.at = Instant::now();
    Ok(Some(received))
}

//! A server with the fake engine, and a client that does nothing by itself: what is sent, and when, is up to the test.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use emu_serve::{Config, Server};
use serde_json::Value;

use crate::fake::{Counts, Fake};

/// A running server, stopped on drop.
pub struct Running {
    pub address: SocketAddr,
    pub counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The defaults, on a free port.
pub fn local() -> Config {
    Config {
        address: "127.0.0.1:0".parse().expect("an address"),
        ..Config::default()
    }
}

/// Serves the fake engine.
pub fn start(config: Config) -> Running {
    start_with(config, Fake::default())
}

/// Serves this engine.
pub fn start_with(config: Config, mut engine: Fake) -> Running {
    let server = Server::bind(config).expect("a server");
    let (address, counts) = (server.address(), engine.counts.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let thread = std::thread::spawn(move || {
        let stop = move || flag.load(Ordering::SeqCst);
        server.run(&mut engine, stop).expect("served");
    });
    Running {
        address,
        counts,
        stop,
        thread: Some(thread),
    }
}

impl Running {
    /// Asks the server to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Stops the server and waits for its end.
    pub fn end(&mut self) -> Duration {
        let clock = Instant::now();
        self.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server did not panic");
        }
        clock.elapsed()
    }

    /// Milliseconds per token or step of the engine.
    pub fn pace(&self, milliseconds: u64) {
        self.counts.pace.store(milliseconds, Ordering::SeqCst);
    }

    pub fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a timeout");
        Connection {
            reader: BufReader::new(stream),
        }
    }

    /// Sends a request with these headers and this body on a connection of its own.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answered {
        let mut connection = self.connect();
        connection.request(method, path, headers, body);
        connection.answer()
    }

    pub fn post(&self, path: &str, body: &Value) -> Answered {
        let json = [("Content-Type", "application/json")];
        self.send("POST", path, &json, body.to_string().as_bytes())
    }

    pub fn get(&self, path: &str) -> Answered {
        self.send("GET", path, &[], b"")
    }

    /// Waits until this holds.
    pub fn until(&self, what: &str, holds: impl Fn(&Counts) -> bool) {
        until(what, || holds(&self.counts));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until this holds, at most three minutes: a busy machine may fill a connection slowly.
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let clock = Instant::now();
    while !holds() {
        assert!(
            clock.elapsed() < Duration::from_secs(180),
            "not after three minutes: {what}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn write(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("written");
    }

    /// Writes, where the server may have closed the connection.
    pub fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let head = self.head(method, path, headers, body.len());
        self.write(head.as_bytes());
        // A refused body may meet a closed connection.
        let _ = self.try_write(body);
    }

    /// The head of a request with a body of this length.
    pub fn head(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        length: usize,
    ) -> String {
        let address = self.reader.get_ref().peer_addr().expect("an address");
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head += &format!("Host: {address}\r\n");
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if length > 0 || method == "POST" {
            head += &format!("Content-Length: {length}\r\n");
        }
        head + "\r\n"
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// Reads the head of a response: its status and headers.
    pub fn status(&mut self) -> (u16, Vec<(String, String)>) {
        let status = self.line();
        let status = status
            .split(' ')
            .nth(1)
            .unwrap_or_else(|| panic!("no status in {status:?}"));
        let mut headers = vec![];
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        (status.parse().expect("a number"), headers)
    }

    /// Reads one chunk of a chunked body; empty at its end.
    pub fn chunk(&mut self) -> Vec<u8> {
        let length = self.line();
        let length = usize::from_str_radix(&length, 16)
            .unwrap_or_else(|_| panic!("no length in {length:?}"));
        let mut chunk = vec![0; length + 2];
        self.reader.read_exact(&mut chunk).expect("a chunk");
        chunk.truncate(length);
        chunk
    }

    /// Reads a response.
    pub fn answer(&mut self) -> Answered {
        let (status, headers) = self.status();
        let header = |name: &str| {
            headers
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.as_str())
        };
        let mut body = vec![];
        if header("transfer-encoding") == Some("chunked") {
            loop {
                let chunk = self.chunk();
                if chunk.is_empty() {
                    break;
                }
                body.extend(chunk);
            }
        } else if let Some(length) = header("content-length") {
            body = vec![0; length.parse().expect("a length")];
            if status != 304 {
                self.reader.read_exact(&mut body).expect("a body");
            }
        }
        Answered {
            status,
            headers,
            body,
        }
    }

    /// Whether the server closes the connection.
    pub fn ended(&mut self) -> bool {
        let read = self.reader.read_to_end(&mut vec![]);
        // Reset, but not out of time.
        read.map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true)
    }
}

/// A response.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answered {
    pub fn header(&self, name: &str) -> Option<&str> {
        { self.headers.iter() }
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    /// The body of a response with status 200.
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// Checks that this is an error in OpenAI's shape. Returns status, code and parameter.
    pub fn error(&self) -> (u16, String, Option<String>) {
        let json: Value = serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", self.text()));
        assert_eq!(self.header("content-type"), Some("application/json"));
        let keys: Vec<&String> = json.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["error"]);
        let error = json["error"].as_object().expect("an object");
        let keys: Vec<&String> = error.keys().collect();
        assert_eq!(keys, ["message", "type", "param", "code"]);
        let message = error["message"].as_str().expect("a message");
        assert!(message.ends_with('.'), "no sentence: {message}");
        let kind = match self.status {
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        assert_eq!(error["type"], kind);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        (
            self.status,
            text(&error["code"]).expect("a code"),
            text(&error["param"]),
        )
    }

    /// The events of a stream, without the closing `[DONE]`.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        let text = self.text();
        let lines: Vec<&str> = text
            .split("\n\n")
            .filter(|line| !line.is_empty() && !line.starts_with(':'))
            .collect();
        let data = |line: &&str| line.strip_prefix("data: ").expect("data").to_owned();
        let mut lines: Vec<String> = lines.iter().map(data).collect();
        assert_eq!(lines.pop().as_deref(), Some("[DONE]"));
        lines
            .iter()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }
}

//! A server that answers as the hub does, with faults on request, on two ports: the hub and its content servers.

#![allow(dead_code, reason = "each test file uses a part")]

pub mod files;
mod sums;

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use emu_hub::{Address, Options, Token, parse};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sums::hex;
pub use sums::{bytes, git, sha256};

pub const OWNER: &str = "Test-Org";
pub const NAME: &str = "model_1.0";

/// What goes wrong with the next answer that has bytes of a file.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The connection is closed after this many bytes.
    Break(usize),
    /// The byte at this position of the file is changed.
    WrongByte(usize),
    /// Nothing arrives after this many bytes, but the connection stays open.
    Stall(usize),
    /// This status, with this `Retry-After`.
    Status(u16, &'static str),
    /// This many bytes more than the file has.
    Longer(usize),
    /// A range that begins one byte later.
    OtherRange,
}

/// How the server behaves.
#[derive(Clone)]
pub struct Behaviour {
    /// The token that it asks for.
    pub token: Option<&'static str>,
    /// Whether accounts have to be admitted, and are not.
    pub gated: bool,
    /// Whether it sends parts of files.
    pub ranges: bool,
    /// Whether its list has sizes and hashes.
    pub details: bool,
    /// Whether large files have an ETag of the hub's.
    pub linked: bool,
    /// Answers with this status to the request for the list, this many times.
    pub overloaded: Option<(u16, usize)>,
    /// A size that the list states for every file.
    pub stated_size: Option<u64>,
}

/// A request as received.
#[derive(Debug, Clone)]
pub struct Request {
    id: u64,
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
    /// Whether a content server got it.
    pub content: bool,
    /// Bytes of the body that were sent.
    pub sent: usize,
}

type Files = BTreeMap<String, Vec<u8>>;

struct State {
    /// Commits, the latest last, with their files.
    commits: Vec<(String, Files)>,
    /// Branches and tags besides `main`, which is the last commit.
    names: BTreeMap<String, String>,
    behaviour: Behaviour,
    faults: BTreeMap<String, VecDeque<Fault>>,
    log: Vec<Request>,
    /// Connections that are served.
    open: usize,
    content: String,
}

/// The server. It ends with the process.
pub struct Hub {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
    folder: tempfile::TempDir,
}

impl Hub {
    pub fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let (hub, endpoint) = listener();
        let (content, content_address) = listener();
        let state = Arc::new(Mutex::new(State {
            commits: vec![],
            names: BTreeMap::new(),
            behaviour: Behaviour {
                token: None,
                gated: false,
                ranges: true,
                details: true,
                linked: true,
                overloaded: None,
                stated_size: None,
            },
            faults: BTreeMap::new(),
            log: vec![],
            open: 0,
            content: content_address,
        }));
        for (listener, is_content) in [(hub, false), (content, true)] {
            let state = state.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    state.lock().expect("no test panicked here").open += 1;
                    thread::spawn(move || {
                        let _ = serve(stream, &state, is_content);
                        state.lock().expect("no test panicked here").open -= 1;
                    });
                }
            });
        }
        let folder = tempfile::tempdir().expect("a folder");
        let hub = Self {
            endpoint,
            state,
            folder,
        };
        hub.commit(files);
        hub
    }

    /// Adds a commit with exactly these files. Returns its name.
    pub fn commit(&self, files: &[(&str, Vec<u8>)]) -> String {
        let mut state = self.state();
        let name = hex(Sha1::digest(state.commits.len().to_le_bytes()).as_slice());
        let files = files
            .iter()
            .map(|(path, bytes)| ((*path).to_owned(), bytes.clone()));
        state.commits.push((name.clone(), files.collect()));
        name
    }

    pub fn name(&self, name: &str, commit: &str) {
        self.state().names.insert(name.into(), commit.into());
    }

    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state().behaviour);
    }

    /// Plans a fault of a file's next answer; several are taken in order.
    pub fn fault(&self, path: &str, fault: Fault) {
        self.state()
            .faults
            .entry(path.into())
            .or_default()
            .push_back(fault);
    }

    /// Takes all requests since the last call, when they are answered.
    pub fn log(&self) -> Vec<Request> {
        loop {
            let mut state = self.state();
            if state.open == 0 {
                return std::mem::take(&mut state.log);
            }
            drop(state);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Options with a cache of this test's own.
    pub fn options(&self) -> Options {
        let mut options = Options::new(self.folder.path().join("hub"));
        options.endpoint.clone_from(&self.endpoint);
        options.pause = Duration::from_millis(1);
        options.retries = 2;
        options
    }

    pub fn with_token(&self, token: &str) -> Options {
        let mut options = self.options();
        options.token = Token::new(token).expect("a token");
        options
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked here")
    }
}

/// The address of the repository, with this end.
pub fn address(end: &str) -> Address {
    parse(&format!("hf://{OWNER}/{NAME}{end}")).expect("an address")
}

fn is_large(path: &str) -> bool {
    [".safetensors", ".bin", ".pt", ".gguf"]
        .iter()
        .any(|end| path.ends_with(end))
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, format!("http://127.0.0.1:{port}"))
}

/// A port at which nobody listens.
pub fn nobody() -> String {
    listener().1
}

/// An answer: status, headers, body.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    fault: Option<Fault>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![],
            body: body.into(),
            fault: None,
        }
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn refusal(status: u16, code: &str, message: &str) -> Self {
        let body = json!({ "error": message }).to_string();
        let answer = Self::new(status, body);
        match code {
            "" => answer,
            code => answer
                .header("X-Error-Code", code)
                .header("X-Error-Message", message),
        }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>, content: bool) -> std::io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let id = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut range, mut token) = (None, None);
    loop {
        line.clear();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        let (name, value) = line.trim().split_once(": ").unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "range" => range = Some(value.to_owned()),
            "authorization" => token = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut answer = {
        let mut state = state.lock().expect("no test panicked here");
        state.log.push(Request {
            id,
            path: path.clone(),
            range: range.clone(),
            token: token.clone(),
            content,
            sent: 0,
        });
        state.answer(&path, range.as_deref(), token.as_deref(), content)
    };
    let fault = answer.fault;
    let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", answer.status);
    if let Some(Fault::Longer(by)) = fault {
        answer.body.extend(vec![0; by]);
    }
    head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let end = match fault {
        Some(Fault::Break(at) | Fault::Stall(at)) => at.min(answer.body.len()),
        _ => answer.body.len(),
    };
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    // A client that has enough closes the connection.
    let mut sent = 0;
    for chunk in answer.body[..end].chunks(1 << 16) {
        if stream.write_all(chunk).is_err() {
            break;
        }
        sent += chunk.len();
    }
    if let Some(Fault::Stall(_)) = fault {
        thread::sleep(Duration::from_secs(2));
    }
    let _ = stream
        .flush()
        .and_then(|()| stream.shutdown(Shutdown::Write));
    let mut state = state.lock().expect("no test panicked here");
    if let Some(request) = state.log.iter_mut().find(|request| request.id == id) {
        request.sent = sent;
    }
    Ok(())
}

impl State {
    fn answer(
        &mut self,
        path: &str,
        range: Option<&str>,
        token: Option<&str>,
        content: bool,
    ) -> Answer {
        let (route, query) = path.split_once('?').unwrap_or((path, ""));
        if content {
            return self.content_of(route, query, range);
        }
        if let Some(target) = route.strip_prefix("/loop/") {
            return Answer::new(302, "").header("Location", format!("/loop/{target}"));
        }
        let small = format!("/{}/{NAME}", OWNER.to_ascii_lowercase());
        if let Some(rest) = route.strip_prefix(&small) {
            return Answer::new(307, "").header("Location", format!("/{OWNER}/{NAME}{rest}"));
        }
        let wanted = self.behaviour.token.map(|token| format!("Bearer {token}"));
        if wanted.is_some() && token != wanted.as_deref() {
            return match token {
                None => Answer::refusal(401, "RepoNotFound", "Repository not found"),
                Some(_) => Answer::refusal(401, "", "Invalid credentials in Authorization header"),
            };
        }
        let list = format!("/api/models/{OWNER}/{NAME}/revision/");
        let file = format!("/{OWNER}/{NAME}/resolve/");
        if let Some(revision) = route.strip_prefix(&list) {
            return self.list(&revision.replace("%2F", "/"), query);
        }
        let Some((commit, path)) = route
            .strip_prefix(&file)
            .and_then(|rest| rest.split_once('/'))
        else {
            return Answer::refusal(404, "RepoNotFound", "Repository not found");
        };
        if self.behaviour.gated {
            return Answer::refusal(403, "GatedRepo", "Access to this model is restricted");
        }
        let path = path.replace("%20", " ").replace("%23", "#");
        let Some(bytes) = self
            .files(commit)
            .and_then(|files| files.get(&path))
            .cloned()
        else {
            return Answer::refusal(404, "EntryNotFound", "Entry not found");
        };
        if is_large(&path) {
            let location = format!("{}/{}/{path}?signature=abc", self.content, sha256(&bytes));
            let mut answer = Answer::new(302, "").header("Location", location);
            if self.behaviour.linked {
                answer = answer
                    .header("X-Linked-Size", bytes.len().to_string())
                    .header("X-Linked-ETag", format!("\"{}\"", sha256(&bytes)));
            }
            return answer.header("X-Repo-Commit", commit);
        }
        let etag = format!("\"{}\"", git(&bytes));
        self.bytes_of(&path, bytes, range).header("ETag", etag)
    }

    fn list(&mut self, revision: &str, query: &str) -> Answer {
        if let Some((status, times)) = &mut self.behaviour.overloaded
            && *times > 0
        {
            *times -= 1;
            return Answer::new(*status, "").header("Retry-After", "0");
        }
        let Some(commit) = self.commit_of(revision) else {
            return Answer::refusal(404, "RevisionNotFound", "Invalid rev id");
        };
        let files = self.files(&commit).cloned().unwrap_or_default();
        let details = self.behaviour.details && query == "blobs=true";
        let stated = self.behaviour.stated_size;
        let sibling = |(path, bytes): (&String, &Vec<u8>)| -> Value {
            let size = stated.unwrap_or(bytes.len() as u64);
            if !details {
                return json!({ "rfilename": path });
            }
            let lfs = json!({"sha256": sha256(bytes), "size": size, "pointerSize": 130});
            match is_large(path) {
                true => {
                    json!({"rfilename": path, "size": size, "blobId": git(b"pointer"), "lfs": lfs})
                }
                false => json!({"rfilename": path, "size": size, "blobId": git(bytes)}),
            }
        };
        let siblings: Vec<Value> = files.iter().map(sibling).collect();
        let body = json!({"id": format!("{OWNER}/{NAME}"), "sha": commit, "siblings": siblings});
        Answer::new(200, body.to_string())
    }

    fn commit_of(&self, revision: &str) -> Option<String> {
        if revision == "main" {
            return self.commits.last().map(|(name, _)| name.clone());
        }
        let known = self.commits.iter().any(|(name, _)| name == revision);
        known
            .then(|| revision.to_owned())
            .or_else(|| self.names.get(revision).cloned())
    }

    fn files(&self, commit: &str) -> Option<&Files> {
        let found = self.commits.iter().find(|(name, _)| name == commit);
        found.map(|(_, files)| files)
    }

    /// A content server knows files by their hash and wants a signature.
    fn content_of(&mut self, route: &str, query: &str, range: Option<&str>) -> Answer {
        let Some((hash, path)) = route.trim_start_matches('/').split_once('/') else {
            return Answer::new(404, "");
        };
        let files = self.commits.iter().flat_map(|(_, files)| files);
        let found = { files }.find(|(name, bytes)| *name == path && sha256(bytes) == hash);
        let Some((_, bytes)) = found else {
            return Answer::new(404, "");
        };
        if query != "signature=abc" {
            return Answer::new(403, "");
        }
        let (bytes, etag) = (bytes.clone(), format!("\"{}\"", &hash[..32]));
        self.bytes_of(path, bytes, range).header("ETag", etag)
    }

    fn bytes_of(&mut self, path: &str, mut bytes: Vec<u8>, range: Option<&str>) -> Answer {
        let fault = self.faults.get_mut(path).and_then(VecDeque::pop_front);
        if let Some(Fault::Status(status, after)) = fault {
            return Answer::new(status, "").header("Retry-After", after);
        }
        if let Some(Fault::WrongByte(at)) = fault {
            bytes[at] ^= 1;
        }
        let size = bytes.len();
        let mut answer = match range.filter(|_| self.behaviour.ranges) {
            None => Answer::new(200, bytes),
            Some(range) => {
                let (first, last) = range
                    .trim_start_matches("bytes=")
                    .split_once('-')
                    .expect("a range");
                let mut first: usize = first.parse().expect("a number");
                let last = last
                    .parse()
                    .unwrap_or(usize::MAX)
                    .min(size.saturating_sub(1));
                if let Some(Fault::OtherRange) = fault {
                    first += 1;
                }
                match bytes.get(first..=last).filter(|_| first < size) {
                    None => Answer::new(416, "").header("Content-Range", format!("bytes */{size}")),
                    Some(part) => Answer::new(206, part)
                        .header("Content-Range", format!("bytes {first}-{last}/{size}")),
                }
            }
        };
        answer.fault = fault;
        answer
    }
}

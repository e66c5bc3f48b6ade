//! Fetches pictures from http and https addresses of the public network.
//!
//! A name is resolved once, all its addresses are checked, and the connection goes to one of these very addresses, so
//! that a second answer of the name server cannot lead elsewhere. A redirect is a new address, checked alike. Proxies of the
//! environment are not used.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::address::is_public;
use crate::config::Config;
use crate::error::ServeError;

const MAX_REDIRECTS: usize = 3;

/// Why a picture could not be fetched. Nothing of the answer of a server that must not be reached is told.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address.
    #[error(
        "The picture's address cannot be used: {0}. Give an http or https address without user name and password."
    )]
    Address(&'static str),
    /// The name is unknown.
    #[error(
        "The name of the picture's address cannot be resolved. Check the address, or send the picture as a data: address."
    )]
    Unknown,
    /// An address of a private network.
    #[error(
        "The picture's address is not of the public network, so it is not fetched. Send the picture as a data: address."
    )]
    Private,
    /// No connection, or a broken one.
    #[error(
        "The picture's server could not be reached, or broke off. Send the picture as a data: address."
    )]
    Unreachable,
    /// Another status than 200.
    #[error(
        "The picture's server answered with status {0}. Check the address, or send the picture as a data: address."
    )]
    Status(u16),
    /// Too many redirects.
    #[error(
        "The picture's address redirects more than {MAX_REDIRECTS} times. Give the address of the picture itself."
    )]
    Redirects,
    /// A longer file than is read.
    #[error("The picture is too large. Send a smaller one.")]
    TooLarge,
    /// Out of time.
    #[error("The picture's server is too slow. Send the picture as a data: address.")]
    Slow,
}

impl FetchError {
    /// Stable error code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Address(_) => "invalid_image_url",
            Self::Private => "image_address_refused",
            Self::TooLarge => "image_too_large",
            _ => "image_fetch_failed",
        }
    }
}

type Resolve = dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Fetches pictures.
pub struct Fetcher {
    resolve: Box<Resolve>,
    allowed: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    tls: TlsConnector,
    max_bytes: usize,
}

impl Fetcher {
    pub fn new(config: &Config) -> Result<Self, ServeError> {
        let private = config.fetch_private;
        Ok(Self {
            resolve: Box::new(|host, port| {
                Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
            }),
            allowed: Box::new(move |address| private || is_public(address)),
            tls: TlsConnector::from(Arc::new(tls()?)),
            max_bytes: config.max_picture,
        })
    }

    /// The bytes at an address.
    pub async fn fetch(&self, address: &str) -> Result<Bytes, FetchError> {
        let mut target = Target::new(address.parse().map_err(|_| NOT_ONE)?)?;
        for _ in 0..=MAX_REDIRECTS {
            let addresses = self.addresses(&target).await?;
            let stream = connect(&addresses).await.ok_or(FetchError::Unreachable)?;
            let mut tasks = JoinSet::new();
            let response = match target.secure {
                false => ask(stream, &target, &mut tasks).await?,
                true => {
                    let name = ServerName::try_from(target.host.clone()).map_err(|_| NOT_ONE)?;
                    let stream = { self.tls.connect(name, stream).await }
                        .map_err(|_| FetchError::Unreachable)?;
                    ask(stream, &target, &mut tasks).await?
                }
            };
            match response.status().as_u16() {
                200 => return self.read(response).await,
                301 | 302 | 303 | 307 | 308 => target = target.redirected(response.headers())?,
                status => return Err(FetchError::Status(status)),
            }
        }
        Err(FetchError::Redirects)
    }

    /// Resolves a name. All its addresses must be allowed.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, FetchError> {
        let addresses = match target.host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, target.port)],
            Err(_) => { (self.resolve)(target.host.clone(), target.port).await }
                .map_err(|_| FetchError::Unknown)?,
        };
        if addresses.is_empty() {
            return Err(FetchError::Unknown);
        }
        match addresses.iter().all(|address| (self.allowed)(address.ip())) {
            true => Ok(addresses),
            false => Err(FetchError::Private),
        }
    }

    async fn read(&self, response: Response<Incoming>) -> Result<Bytes, FetchError> {
        let mut body = response.into_body();
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| FetchError::Unreachable)?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > self.max_bytes {
                    return Err(FetchError::TooLarge);
                }
                bytes.extend_from_slice(data);
            }
        }
        Ok(bytes.freeze())
    }
}

const NOT_ONE: FetchError = FetchError::Address("it is not a valid address");

/// Connects to the first address that answers.
async fn connect(addresses: &[SocketAddr]) -> Option<TcpStream> {
    for address in addresses {
        if let Ok(stream) = TcpStream::connect(address).await {
            return Some(stream);
        }
    }
    None
}

/// Sends the request. The connection ends with `tasks`.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    target: &Target,
    tasks: &mut JoinSet<()>,
) -> Result<Response<Incoming>, FetchError> {
    let broken = |_| FetchError::Unreachable;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    tasks.spawn(async {
        // Whoever reads the response sees the error.
        let _ = connection.await;
    });
    let request = Request::get(target.path.as_str())
        .header(header::HOST, target.authority.as_str())
        .header(header::ACCEPT, "image/*")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(
            header::USER_AGENT,
            concat!("emu/", env!("CARGO_PKG_VERSION")),
        )
        .body(Empty::<Bytes>::new())
        .map_err(|_| NOT_ONE)?;
    sender.send_request(request).await.map_err(broken)
}

/// A parsed address.
#[derive(Debug)]
struct Target {
    secure: bool,
    authority: Authority,
    /// Name, or address without brackets.
    host: String,
    port: u16,
    /// Path and query.
    path: String,
}

impl Target {
    fn new(uri: Uri) -> Result<Self, FetchError> {
        let secure = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            _ => return Err(FetchError::Address("it is neither http nor https")),
        };
        let authority = uri.authority().ok_or(NOT_ONE)?.clone();
        if authority.as_str().contains('@') {
            return Err(FetchError::Address("it has a user name"));
        }
        let host = authority.host();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(NOT_ONE);
        }
        let default = if secure { 443 } else { 80 };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            secure,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(default),
            path: if path.is_empty() { "/" } else { path }.to_owned(),
            authority,
        })
    }

    /// The target of a redirect: an absolute address, one without scheme, or a path.
    fn redirected(&self, headers: &HeaderMap) -> Result<Self, FetchError> {
        const WRONG: FetchError = FetchError::Address("it redirects to nowhere");
        let location = headers.get(header::LOCATION).map(HeaderValue::to_str);
        let Some(Ok(location)) = location else {
            return Err(WRONG);
        };
        let scheme = if self.secure { "https" } else { "http" };
        let absolute = if location.contains("://") {
            location.to_owned()
        } else if location.starts_with("//") {
            format!("{scheme}:{location}")
        } else if location.starts_with('/') {
            format!("{scheme}://{}{location}", self.authority)
        } else {
            let path = self.path.split('?').next().unwrap_or_default();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{}{folder}/{location}", self.authority)
        };
        Self::new(absolute.parse().map_err(|_| WRONG)?)
    }
}

/// TLS with the roots of Mozilla.
fn tls() -> Result<ClientConfig, ServeError> {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| ServeError::Tls(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::runtime::Runtime;

    use super::*;

    /// Serves the answers by path, each on a connection of its own. Returns the port.
    async fn serve(answers: HashMap<&'static str, String>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                let reading = async {
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await?);
                    }
                    Ok::<_, io::Error>(())
                };
                // A client that begins with TLS waits for an answer.
                let patience = Duration::from_secs(1);
                if !matches!(tokio::time::timeout(patience, reading).await, Ok(Ok(()))) {
                    continue;
                }
                let head = String::from_utf8(head).expect("text");
                let path = head.split(' ').nth(1).expect("a path");
                let answer = answers.get(path).cloned().unwrap_or_default();
                let answer = answer.replace("PORT", &port.to_string());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    fn answers() -> HashMap<&'static str, String> {
        let to = |place: &str| {
            format!("HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n")
        };
        let body = |body: &str| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        HashMap::from([
            ("/a.png", body("a picture")),
            ("/deep/a.png", body("a deep picture")),
            ("/large", body(&"x".repeat(1001))),
            (
                "/gone",
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".into(),
            ),
            (
                "/short",
                "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".into(),
            ),
            ("/to-path", to("/a.png")),
            ("/deep/to-file", to("a.png")),
            ("/to-name", to("http://pictures.test:PORT/a.png")),
            ("/to-name-without-scheme", to("//pictures.test:PORT/a.png")),
            ("/to-private", to("http://127.0.0.2:PORT/a.png")),
            ("/to-private-name", to("http://inner.test:PORT/a.png")),
            ("/to-file", to("file:///etc/passwd")),
            (
                "/to-nowhere",
                "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".into(),
            ),
            ("/round", to("/round")),
        ])
    }

    fn found(
        result: io::Result<Vec<SocketAddr>>,
    ) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async { result })
    }

    /// Takes 127.0.0.1 for the public network. Names: `pictures.test` is there, `inner.test` is not, and `mixed.test` is both.
    fn fetcher() -> Fetcher {
        let resolve = |host: String, port: u16| {
            let addresses: &[&str] = match host.as_str() {
                "pictures.test" => &["127.0.0.1"],
                "inner.test" => &["127.0.0.2"],
                "mixed.test" => &["127.0.0.1", "127.0.0.2"],
                "nowhere.test" => &[],
                _ => return found(Err(io::ErrorKind::NotFound.into())),
            };
            let at = |address: &&str| SocketAddr::new(address.parse().expect("an address"), port);
            found(Ok(addresses.iter().map(at).collect()))
        };
        Fetcher {
            resolve: Box::new(resolve),
            allowed: Box::new(|address| address == IpAddr::from([127, 0, 0, 1])),
            max_bytes: 1000,
            ..Fetcher::new(&Config::default()).expect("TLS")
        }
    }

    fn fetch(address: &str) -> Result<String, FetchError> {
        Runtime::new().expect("a runtime").block_on(async {
            let port = serve(answers()).await.to_string();
            let bytes = fetcher().fetch(&address.replace("PORT", &port)).await?;
            Ok::<_, FetchError>(String::from_utf8(bytes.to_vec()).expect("text"))
        })
    }

    #[test]
    fn pictures_and_redirects_are_followed() {
        for address in [
            "http://127.0.0.1:PORT/a.png",
            "HTTP://pictures.test:PORT/a.png",
            "http://pictures.test:PORT/to-path",
            "http://127.0.0.1:PORT/to-name",
            "http://127.0.0.1:PORT/to-name-without-scheme",
        ] {
            assert_eq!(fetch(address).expect(address), "a picture", "{address}");
        }
        let deep = fetch("http://127.0.0.1:PORT/deep/to-file").expect("followed");
        assert_eq!(deep, "a deep picture");
    }

    #[test]
    fn no_address_that_is_not_allowed_is_reached() {
        for address in [
            "http://127.0.0.2:PORT/a.png",
            "http://[::1]:PORT/a.png",
            "http://[::ffff:127.0.0.2]:PORT/a.png",
            "http://inner.test:PORT/a.png",
            "http://mixed.test:PORT/a.png",
            "http://127.0.0.1:PORT/to-private",
            "http://127.0.0.1:PORT/to-private-name",
        ] {
            let error = fetch(address).expect_err(address);
            assert!(matches!(error, FetchError::Private), "{address}: {error}");
            assert_eq!(error.code(), "image_address_refused");
        }
    }

    #[test]
    fn this_machine_and_the_network_around_it_are_not_public() {
        let runtime = Runtime::new().expect("a runtime");
        let fetcher = Fetcher::new(&Config::default()).expect("TLS");
        // `localhost` and the short and hexadecimal spellings are resolved by the system before the check.
        for address in [
            "http://127.0.0.1/",
            "http://localhost:1/",
            "http://10.0.0.1/",
            "http://169.254.169.254/latest/meta-data/",
            "https://192.168.0.1/",
            "http://[fd00::1]/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://127.1/",
        ] {
            let error = runtime.block_on(fetcher.fetch(address)).expect_err(address);
            assert!(
                matches!(error, FetchError::Private | FetchError::Unknown),
                "{address}: {error:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_fetched_is_an_error() {
        let code = |address: &str| fetch(address).expect_err(address).code();
        for address in [
            "http://user@127.0.0.1:PORT/a.png",
            "http://pictures.test@127.0.0.1:PORT/a.png",
            "ftp://127.0.0.1/a.png",
            "http:///a.png",
            "http://",
            "127.0.0.1",
            "http://exämple.test/",
            "http://127.0.0.1:PORT/to-file",
            "http://127.0.0.1:PORT/to-nowhere",
        ] {
            assert_eq!(code(address), "invalid_image_url", "{address}");
        }
        for address in [
            "http://127.0.0.1:PORT/gone",
            "http://127.0.0.1:PORT/nothing",
            "http://127.0.0.1:PORT/short",
            "http://127.0.0.1:PORT/round",
            "http://127.0.0.1:1/",
            "https://127.0.0.1:PORT/a.png",
            "http://unknown.test/",
            "http://nowhere.test/",
        ] {
            assert_eq!(code(address), "image_fetch_failed", "{address}");
        }
        assert_eq!(code("http://127.0.0.1:PORT/large"), "image_too_large");
    }
}

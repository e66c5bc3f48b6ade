//! Where to fetch from, as whom, and to where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hf_hub::Cache;

use crate::HubError;

/// The hub itself.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// An access token. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token; `None` for an empty one.
    ///
    /// # Errors
    /// [`HubError::Setting`] if it has characters that no token has, such as a line break.
    pub fn new(text: &str) -> Result<Option<Self>, HubError> {
        let text = text.trim();
        if !text.chars().all(|c| c.is_ascii_graphic()) {
            return Err(HubError::Setting {
                name: "HF_TOKEN",
                reason: "has a character that no token has".into(),
            });
        }
        Ok((!text.is_empty()).then(|| Self(text.into())))
    }

    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Options of every call.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server, without a slash at the end.
    pub endpoint: String,
    /// The hub's cache folder, which holds a folder `models--OWNER--NAME` for each repository.
    pub cache: PathBuf,
    /// Access token, sent to `endpoint` only.
    pub token: Option<Token>,
    /// Whether to use the cache only.
    pub offline: bool,
    /// Patterns of the files to take instead of the automatic choice. `*` matches any text, slashes included, `?` one
    /// character, and a pattern that ends with `/` a folder.
    pub include: Vec<String>,
    /// Patterns of files to leave out.
    pub exclude: Vec<String>,
    /// A folder that gets the files, without the hub's folder names. `None`: they stay in the cache.
    pub out: Option<PathBuf>,
    /// Raised to stop a transfer. What was received stays for the next one.
    pub cancel: Arc<AtomicBool>,
    /// How often a broken transfer is tried again without receiving anything.
    pub retries: u32,
    /// The pause before the first new attempt; it doubles with each one.
    pub pause: Duration,
    /// The time without a byte after which a connection counts as broken.
    pub stall: Duration,
}

impl Options {
    /// Options from the environment: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// the token file in the cache, and `HF_HUB_OFFLINE`, with the meanings that Python's `huggingface_hub` gives them.
    ///
    /// # Errors
    /// If a value is invalid, or no folder for the cache can be found.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_lookup(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    fn from_lookup(
        variable: impl Fn(&str) -> Option<String>,
        home: Option<PathBuf>,
    ) -> Result<Self, HubError> {
        let variable = |name| variable(name).filter(|value| !value.trim().is_empty());
        let folder = |name| variable(name).map(|value| expanded(&value, home.as_deref()));
        let hf_home = folder("HF_HOME").or_else(|| {
            let caches = folder("XDG_CACHE_HOME");
            let caches = caches.or_else(|| home.as_ref().map(|home| home.join(".cache")));
            Some(caches?.join("huggingface"))
        });
        let cache = folder("HF_HUB_CACHE").or_else(|| Some(hf_home.as_ref()?.join("hub")));
        let token = match variable("HF_TOKEN") {
            Some(token) => Some(token),
            None => match folder("HF_TOKEN_PATH") {
                Some(file) => std::fs::read_to_string(file).ok(),
                // `hf-hub` finds the token beside the cache folder.
                None => hf_home.and_then(|home| Cache::new(home.join("hub")).token()),
            },
        };
        let offline = variable("HF_HUB_OFFLINE").is_some_and(|value| {
            let value = value.trim().to_ascii_lowercase();
            ["1", "on", "yes", "true"].contains(&value.as_str())
        });
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.into());
        let mut options = Self::new(cache.ok_or(HubError::NoHome)?);
        options.endpoint = checked(&endpoint)?;
        options.token = token.map_or(Ok(None), |token| Token::new(&token))?;
        options.offline = offline;
        Ok(options)
    }

    /// Options for a cache folder, without a token, for the hub itself.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: DEFAULT_ENDPOINT.into(),
            cache: cache.into(),
            token: None,
            offline: false,
            include: vec![],
            exclude: vec![],
            out: None,
            cancel: Arc::default(),
            retries: 5,
            pause: Duration::from_secs(1),
            stall: Duration::from_secs(20),
        }
    }

    /// An error if the flag was raised.
    pub(crate) fn go_on(&self) -> Result<(), HubError> {
        match self.cancel.load(Ordering::Relaxed) {
            true => Err(HubError::Cancelled),
            false => Ok(()),
        }
    }

    /// Sleeps, but not beyond the moment when the flag is raised.
    pub(crate) fn wait(&self, time: Duration) -> Result<(), HubError> {
        const STEP: Duration = Duration::from_millis(50);
        let mut left = time;
        while !left.is_zero() {
            self.go_on()?;
            std::thread::sleep(left.min(STEP));
            left = left.saturating_sub(STEP);
        }
        self.go_on()
    }
}

/// The endpoint without slashes at its end.
fn checked(endpoint: &str) -> Result<String, HubError> {
    let endpoint = endpoint.trim().trim_end_matches('/');
    let host = endpoint
        .strip_prefix("https://")
        .or_else(|| endpoint.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(char::is_whitespace) => {
            Ok(endpoint.into())
        }
        _ => Err(HubError::Setting {
            name: "HF_ENDPOINT",
            reason: format!("is {endpoint}, which is no http address"),
        }),
    }
}

/// Replaces `~` at the beginning by the home folder.
fn expanded(text: &str, home: Option<&Path>) -> PathBuf {
    match (text.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            home.join(rest.trim_start_matches('/'))
        }
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(values: &[(&str, &str)]) -> Result<Options, HubError> {
        let find = |name: &str| {
            let found = values.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Options::from_lookup(find, Some("/people/e".into()))
    }

    #[test]
    fn the_environment_decides_as_in_python() {
        let plain = from(&[]).expect("defaults");
        assert_eq!(plain.endpoint, DEFAULT_ENDPOINT);
        assert_eq!(plain.cache, Path::new("/people/e/.cache/huggingface/hub"));
        assert!(!plain.offline && plain.token.is_none());

        for (values, cache) in [
            (&[("HF_HOME", "/d/hf")][..], "/d/hf/hub"),
            (&[("HF_HOME", "~/hf")], "/people/e/hf/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HF_HOME", "/d"), ("HF_HUB_CACHE", "/c")], "/c"),
            (&[("HF_HOME", " ")], "/people/e/.cache/huggingface/hub"),
        ] {
            let options = from(values).expect("options");
            assert_eq!(options.cache, Path::new(cache), "{values:?}");
        }
        for (value, offline) in [("1", true), ("TRUE", true), ("0", false), ("", false)] {
            let options = from(&[("HF_HUB_OFFLINE", value)]).expect("options");
            assert_eq!(options.offline, offline, "{value}");
        }
        let mirror = from(&[("HF_ENDPOINT", "https://mirror.example/hf//")]).expect("options");
        assert_eq!(mirror.endpoint, "https://mirror.example/hf");
        for bad in [
            "mirror.example",
            "ftp://mirror.example",
            "https://",
            "http://a b",
        ] {
            let error = from(&[("HF_ENDPOINT", bad)]).expect_err(bad);
            assert_eq!(error.code(), "hub-setting");
        }
        let homeless = Options::from_lookup(|_| None, None).expect_err("no home");
        assert_eq!(homeless.code(), "hub-no-home");
    }

    #[test]
    fn the_token_comes_from_the_variable_or_a_file_and_is_never_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = folder.path().to_str().expect("a path");
        std::fs::write(folder.path().join("token"), "hf_file\n").expect("written");
        std::fs::write(folder.path().join("other"), "hf_other").expect("written");
        let other = format!("{home}/other");
        for (values, token) in [
            (vec![("HF_HOME", home)], "hf_file"),
            (vec![("HF_HOME", home), ("HF_HUB_CACHE", "/c")], "hf_file"),
            (
                vec![("HF_HOME", home), ("HF_TOKEN_PATH", &other)],
                "hf_other",
            ),
            (vec![("HF_HOME", home), ("HF_TOKEN", " hf_env ")], "hf_env"),
        ] {
            let options = from(&values).expect("options");
            assert_eq!(options.token, Some(Token(token.into())), "{values:?}");
            assert!(!format!("{options:?}").contains("hf_"));
        }
        let error = from(&[("HF_TOKEN", "hf_a\nX-Evil: 1")]).expect_err("two lines");
        assert!(!error.to_string().contains("hf_a"));
    }

    #[test]
    fn a_pause_ends_with_the_flag() {
        let options = Options::new("/c");
        options.cancel.store(true, Ordering::Relaxed);
        let begun = std::time::Instant::now();
        let error = options.wait(Duration::from_secs(60)).expect_err("stopped");
        assert_eq!(error.code(), "cancelled");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

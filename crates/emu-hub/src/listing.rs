//! Lists the files of a repository, on the server or in the cache.

use serde::Deserialize;

use crate::address::check_path;
use crate::cache::Cache;
use crate::client::{Client, Purpose};
use crate::{Address, Entry, Hash, HubError, Listing, Options};

/// The description of a repository, as far as it is used.
#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// Lists the files of a repository, without fetching any; from the cache if the network is switched off.
///
/// # Errors
/// If the repository or the revision does not exist or may not be read, or the server cannot be reached.
pub fn listing(address: &Address, options: &Options) -> Result<Listing, HubError> {
    match options.offline {
        true => Cache::new(address, options).listing(address),
        false => remote(&Client::new(options), address),
    }
}

/// Lists the files of a repository on the server.
pub(crate) fn remote(client: &Client, address: &Address) -> Result<Listing, HubError> {
    let url = client.info_url(address);
    let purpose = Purpose {
        address,
        path: None,
    };
    let json = client.json(&url, purpose)?;
    read(json).map_err(|reason| HubError::Answer { url, reason })
}

/// Checks a server's list: its names become paths on this machine.
fn read(json: serde_json::Value) -> Result<Listing, String> {
    let info: Info = serde_json::from_value(json).map_err(|error| error.to_string())?;
    let commit = info.sha;
    if !(7..=64).contains(&commit.len()) || !commit.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err("it names no commit".into());
    }
    let mut entries = Vec::with_capacity(info.siblings.len());
    for sibling in info.siblings {
        let path = sibling.rfilename;
        if let Err(reason) = check_path(&path) {
            return Err(format!("it names a file {path:?}, and {reason}"));
        }
        let (size, etag) = match sibling.lfs {
            Some(lfs) => (lfs.size.or(sibling.size), lfs.sha256),
            None => (sibling.size, sibling.blob),
        };
        entries.push(Entry {
            path,
            size,
            hash: etag.as_deref().and_then(Hash::of),
        });
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries.dedup_by(|a, b| a.path == b.path);
    Ok(Listing { commit, entries })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_and_hashes_are_those_of_the_contents() {
        let (commit, sha, git) = ("a".repeat(40), "B".repeat(64), "c".repeat(40));
        let listing = read(json!({"sha": commit, "private": false, "siblings": [
            {"rfilename": "z.bin", "size": 134, "blobId": git, "lfs": {"sha256": sha, "size": 7, "pointerSize": 134}},
            {"rfilename": "a.json", "size": 3, "blobId": git},
            {"rfilename": "bare"},
        ]}))
        .expect("a list");
        let entry = |path: &str, size, hash| Entry {
            path: path.into(),
            size,
            hash,
        };
        assert_eq!(
            listing.entries,
            [
                entry("a.json", Some(3), Some(Hash::Git(git))),
                entry("bare", None, None),
                entry("z.bin", Some(7), Some(Hash::Sha256("b".repeat(64)))),
            ]
        );
        assert_eq!(listing.commit, commit);
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        let commit = "a".repeat(40);
        for path in [
            "../x", "/etc/x", "a/../x", "a\\x", "C:x", "", "a//b", "a\u{0}",
        ] {
            let json = json!({"sha": commit, "siblings": [{"rfilename": path}]});
            assert!(read(json).is_err(), "{path:?}");
        }
        for sha in ["", "../../x", "main"] {
            assert!(read(json!({"sha": sha, "siblings": []})).is_err(), "{sha}");
        }
        assert!(read(json!([])).is_err());
        assert!(read(json!({"sha": commit, "siblings": 3})).is_err());
    }
}

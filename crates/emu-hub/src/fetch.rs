//! Fetches a repository, or what is needed of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cache::Cache;
use crate::client::Client;
use crate::disk::{free_space, put, same_bytes};
use crate::download::{Transfer, has};
use crate::listing::remote;
use crate::{Address, Entry, HubError, Listing, Options, Progress, choose};

/// Files up to this size are copied to the target folder, where a user may edit them. Larger ones are linked.
const COPIED: u64 = 1 << 20;

/// Fetches what an address names. Returns the folder of the files, or the file if the address names one: in the cache, or in
/// [`Options::out`].
///
/// What the cache has is not fetched again. Every file is checked against the hash that the hub states. A transfer that was
/// stopped, or broke off, continues at the next call.
///
/// # Errors
/// If the repository, revision or path does not exist or may not be read; the server cannot be reached, and the cache has not all
/// of it; the disk has no room; or a file does not have its hash.
pub fn fetch(
    address: &Address,
    options: &Options,
    on: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, HubError> {
    let cache = Cache::new(address, options);
    if options.offline {
        return cached(&cache, address, options);
    }
    let client = Client::new(options);
    let listing = match remote(&client, address) {
        Ok(listing) => listing,
        Err(error @ HubError::Unreachable { .. }) => {
            let path = cached(&cache, address, options).map_err(|_| error)?;
            on(Progress::Cached {
                reason: "the server cannot be reached",
            });
            return Ok(path);
        }
        Err(error) => return Err(error),
    };
    let chosen = choose(&listing, address, options)?;
    let total = chosen.iter().filter_map(|entry| entry.size).sum();
    let missing = missing(&cache, &chosen);
    check_space(&options.cache, missing)?;
    if let Some(out) = &options.out {
        check_out(out, &cache, address, &listing, &chosen)?;
    }
    on(Progress::Chosen {
        files: chosen.len(),
        bytes: total,
        present: total.saturating_sub(missing),
    });
    let mut transfer = Transfer {
        client: &client,
        cache: &cache,
        address,
        commit: &listing.commit,
        on,
        done: 0,
        total,
    };
    for entry in &chosen {
        transfer.file(entry)?;
    }
    cache.set_revision(address, &listing.commit)?;
    place(&cache, address, options, &listing, &chosen)
}

/// The files of an earlier fetch.
fn cached(cache: &Cache, address: &Address, options: &Options) -> Result<PathBuf, HubError> {
    let listing = cache.listing(address)?;
    let lacks = |missing: String| HubError::Offline {
        address: address.to_string(),
        cache: options.cache.clone(),
        missing: format!("{missing} was never fetched"),
    };
    let chosen = choose(&listing, address, options).map_err(|error| match error {
        HubError::NoFile { path, .. } => lacks(path),
        _ => lacks("any file that fits".into()),
    })?;
    match cache.gap(&listing.commit, &chosen) {
        Some(file) => Err(lacks(file)),
        None => place(cache, address, options, &listing, &chosen),
    }
}

/// Bytes that have to be transferred.
pub(crate) fn missing(cache: &Cache, chosen: &[&Entry]) -> u64 {
    // Files of the same bytes are fetched once.
    let mut sizes = BTreeMap::new();
    for entry in chosen {
        let size = entry.size.unwrap_or(0);
        match &entry.hash {
            Some(hash) if has(&cache.blob(hash.digits()), size) => {}
            Some(hash) => {
                let begun = fs::metadata(cache.incomplete(hash.digits()));
                let begun = begun.map_or(0, |file| file.len());
                sizes.insert(hash.digits(), size.saturating_sub(begun));
            }
            None => {
                sizes.insert(&entry.path, size);
            }
        }
    }
    sizes.values().sum()
}

fn check_space(folder: &Path, needed: u64) -> Result<(), HubError> {
    match free_space(folder).filter(|free| *free < needed) {
        Some(free) => Err(HubError::Space {
            folder: folder.into(),
            needed,
            free,
        }),
        None => Ok(()),
    }
}

/// Checks, before anything is fetched, that the target folder has no other files in the way, and room where files cannot be
/// linked to the cache.
fn check_out(
    out: &Path,
    cache: &Cache,
    address: &Address,
    listing: &Listing,
    chosen: &[&Entry],
) -> Result<(), HubError> {
    let mut copies = 0;
    for entry in chosen {
        let target = out.join(inside(address, listing, &entry.path));
        let Ok(there) = fs::metadata(&target) else {
            copies += entry.size.unwrap_or(0);
            continue;
        };
        let other = entry.size.is_some_and(|size| size != there.len());
        if other || there.is_dir() {
            return Err(HubError::Exists { path: target });
        }
    }
    match one_disk(out, &cache.snapshot("")) {
        true => Ok(()),
        false => check_space(out, copies),
    }
}

/// Whether two paths are, or will be, on one file system.
#[cfg(unix)]
fn one_disk(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| {
        let path = std::path::absolute(path).ok()?;
        let mut existing = path.ancestors().filter_map(|path| fs::metadata(path).ok());
        existing.next().map(|folder| folder.dev())
    };
    device(a) == device(b)
}

#[cfg(not(unix))]
fn one_disk(_: &Path, _: &Path) -> bool {
    true
}

/// Puts the files into the target folder, if one is given. Returns what the caller wants to use.
fn place(
    cache: &Cache,
    address: &Address,
    options: &Options,
    listing: &Listing,
    chosen: &[&Entry],
) -> Result<PathBuf, HubError> {
    let snapshot = cache.snapshot(&listing.commit);
    let Some(out) = &options.out else {
        return Ok(match &address.path {
            Some(path) => snapshot.join(path),
            None => snapshot,
        });
    };
    for entry in chosen {
        options.go_on()?;
        let source = snapshot.join(&entry.path);
        let target = out.join(inside(address, listing, &entry.path));
        if target.exists() {
            match same_bytes(&source, &target) {
                Ok(true) => continue,
                Ok(false) => return Err(HubError::Exists { path: target }),
                Err(error) => return Err(HubError::io(&target, error)),
            }
        }
        // A link to the link would be of no use elsewhere.
        let bytes = fs::canonicalize(&source).map_err(|error| HubError::io(&source, error))?;
        let large = fs::metadata(&bytes).is_ok_and(|file| file.len() > COPIED);
        put(&target, |temporary| {
            if large && fs::hard_link(&bytes, temporary).is_ok() {
                return Ok(());
            }
            fs::copy(&bytes, temporary)?;
            fs::File::open(temporary)?.sync_all()
        })?;
    }
    match &address.path {
        Some(path) if is_file(listing, path) => Ok(out.join(inside(address, listing, path))),
        _ => Ok(out.clone()),
    }
}

fn is_file(listing: &Listing, path: &str) -> bool {
    listing.entries.iter().any(|entry| entry.path == path)
}

/// A path relative to the folder that the address names, or that has the file that it names.
fn inside<'p>(address: &Address, listing: &Listing, path: &'p str) -> &'p str {
    let folder = match &address.path {
        Some(named) if is_file(listing, named) => named.rsplit_once('/').map(|(folder, _)| folder),
        named => named.as_deref(),
    };
    let rest = folder.and_then(|folder| path.strip_prefix(folder)?.strip_prefix('/'));
    rest.unwrap_or(path)
}

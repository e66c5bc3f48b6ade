//! Samples of tar files, by the rule of WebDataset: the key of a sample ends at the first dot of the file name.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::Blob;
use super::blob::Stamp;
use super::find::{kind_of, name_in, walk};
use crate::DataError;
use crate::build::{Feed, Halt, Skip};
use crate::index::split;

/// Files of one key, by their extensions in lower case, in the order of the archive.
pub(crate) struct TarSample {
    pub key: String,
    pub members: Vec<(String, Blob)>,
}

impl TarSample {
    /// The first member whose extension meets a condition.
    pub fn find(&self, wanted: impl Fn(&str) -> bool) -> Option<&Blob> {
        let mut members = self.members.iter();
        members
            .find(|(extension, _)| wanted(extension))
            .map(|(_, blob)| blob)
    }

    /// The member with this extension.
    pub fn member(&self, extension: &str) -> Option<&Blob> {
        self.find(|other| other == extension)
    }

    /// What the sample has, for a skip that says what it lacks.
    pub fn contents(&self) -> String {
        let names = self.members.iter().map(|(name, _)| name.as_str());
        format!("it has {}", names.collect::<Vec<_>>().join(", "))
    }
}

/// Takes every sample of the archives of a source, with its name there. What is damaged is skipped.
pub(crate) fn each_sample<I>(
    root: &Path,
    feed: &mut Feed<I>,
    mut take: impl FnMut(&mut Feed<I>, &str, TarSample) -> Result<(), Halt>,
) -> Result<(), Halt> {
    for path in walk(root)?.iter().filter(|path| kind_of(path) == "tar") {
        let name = name_in(root, path);
        let (samples, damage) = samples(path)?;
        for sample in samples {
            let source = format!("{name}/{}", sample.key);
            take(feed, &source, sample)?;
        }
        if let Some(damage) = damage {
            feed.skip(&name, Skip::new("archive is damaged or cut short", damage))?;
        }
    }
    Ok(())
}

/// Block size of the format.
const BLOCK: u64 = 512;

/// The samples of an archive in the order of their first files, which need not lie next to each other, and what is wrong
/// with the archive's end.
pub(crate) fn samples(path: &Path) -> Result<(Vec<TarSample>, Option<String>), DataError> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let metadata = file.metadata().map_err(DataError::io("read", path))?;
    let (stamp, length) = (Stamp::of(&metadata), metadata.len());
    let name: Arc<Path> = path.into();
    let mut samples: Vec<TarSample> = vec![];
    let mut index: HashMap<String, usize> = HashMap::new();
    let mut damage = None;
    let mut end = 0;
    let mut archive = tar::Archive::new(&file);
    let entries = archive
        .entries_with_seek()
        .map_err(DataError::io("read", path))?;
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                damage = Some(format!("{error}, near byte {end}"));
                break;
            }
        };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let member = entry.path_bytes();
        let member = String::from_utf8_lossy(&member).replace('\\', "/");
        let (offset, bytes) = (entry.raw_file_position(), entry.size());
        end = offset.saturating_add(bytes);
        if end > length {
            damage = Some(format!("{member} goes on behind the end of the file"));
            break;
        }
        let Some((key, extension)) = split(member.trim_start_matches("./")) else {
            continue;
        };
        let at = *index.entry(key.to_string()).or_insert_with(|| {
            samples.push(TarSample {
                key: key.into(),
                members: vec![],
            });
            samples.len() - 1
        });
        let blob = Blob::Range {
            path: name.clone(),
            stamp,
            offset,
            bytes,
        };
        let extension = extension.to_ascii_lowercase();
        let members = &mut samples[at].members;
        // A repeated name replaces the earlier member, as tar does.
        members.retain(|(other, _)| *other != extension);
        members.push((extension, blob));
    }
    if damage.is_none() && end.next_multiple_of(BLOCK) > length {
        damage = Some("the file ends within a block".into());
    }
    Ok((samples, damage))
}

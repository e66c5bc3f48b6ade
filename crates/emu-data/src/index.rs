//! Groups the members of a shard into samples by their names.

use std::collections::{BTreeMap, HashMap};

use emu_media::image::Limits as PictureLimits;

/// Limits on the memory use of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest picture file in bytes.
    pub member_bytes: u64,
    /// Largest JSON or text member in bytes.
    pub text_bytes: u64,
    /// Largest picture dimensions.
    pub picture: PictureLimits,
    /// Maximum number of pictures per sample.
    pub pictures: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            member_bytes: 64 << 20,
            text_bytes: 4 << 20,
            picture: PictureLimits::default(),
            pictures: 256,
        }
    }
}

/// A member of a sample, and the position of its bytes in the shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// The part of the name after the key and its dot.
    pub extension: String,
    pub offset: u64,
    pub bytes: u64,
}

/// The members of a sample that are read, by type.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub json: Option<Member>,
    pub txt: Option<Member>,
    /// Pictures by number. An unnumbered picture has number 0.
    pub images: Vec<(u32, Member)>,
}

/// Consecutive members with the same key.
#[derive(Debug)]
pub(crate) struct Group {
    pub key: String,
    members: Vec<Member>,
}

/// The result of resolving a group: its members by type, or why it is not a sample.
pub(crate) enum Outcome {
    Sample(Members),
    Bad(String),
    /// The group has no text. The rest of the sample may be elsewhere in the shard.
    NoText(String),
}

/// Type of a member, by its extension.
enum Kind {
    Json,
    Text,
    Picture(u32),
    /// A text with a prefix before its format: `seg.json`.
    DottedText,
    /// A picture with a prefix that is not a number: `mask.png`.
    DottedPicture,
    Other,
}

fn kind(extension: &str) -> Kind {
    let (prefix, format) = match extension.rsplit_once('.') {
        Some((prefix, format)) => (Some(prefix), format),
        None => (None, extension),
    };
    match (format.to_ascii_lowercase().as_str(), prefix) {
        ("json", None) => Kind::Json,
        ("txt", None) => Kind::Text,
        ("json" | "txt", Some(_)) => Kind::DottedText,
        ("png" | "jpg" | "jpeg" | "webp" | "gif" | "bmp" | "tif" | "tiff", prefix) => {
            match prefix.map_or(Ok(0), str::parse) {
                Ok(number) => Kind::Picture(number),
                Err(_) => Kind::DottedPicture,
            }
        }
        _ => Kind::Other,
    }
}

/// Key and extension of a member's path. WebDataset's key ends at the first dot of the file name. `None` for hidden
/// files and files without an extension, which do not belong to any sample.
pub(crate) fn split(name: &str) -> Option<(&str, &str)> {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[start..].find('.').filter(|&dot| dot > 0)?;
    Some((&name[..start + dot], &name[start + dot + 1..]))
}

/// Collects the members of a shard in order.
#[derive(Debug, Default)]
pub(crate) struct Groups(Vec<Group>);

/// A sample's key, and its members or the reason it cannot be used.
pub type Keyed = (String, Result<Members, String>);

impl Groups {
    /// Adds a member to the sample being collected, or starts the next one.
    pub fn push(&mut self, key: &str, member: Member) {
        match self.0.last_mut() {
            Some(group) if group.key == key => group.members.push(member),
            _ => self.0.push(Group {
                key: key.into(),
                members: vec![member],
            }),
        }
    }

    /// All samples by key, in order; and the first file ignored because of the dots in its name, with the number of
    /// such files.
    pub fn finish(self, limits: &Limits) -> (Vec<Keyed>, Option<(String, usize)>) {
        let mut times: HashMap<String, usize> = HashMap::new();
        for group in &self.0 {
            *times.entry(group.key.clone()).or_default() += 1;
        }
        let mut ignored: Option<(String, usize)> = None;
        let samples = self
            .0
            .into_iter()
            .map(|group| {
                let Group { key, members } = group;
                let (outcome, dotted) = resolve(&key, members, limits);
                let outcome = match outcome {
                    Outcome::Sample(members) => {
                        if let Some(first) = dotted.first() {
                            ignored
                                .get_or_insert_with(|| (format!("{key}.{}", first.extension), 0))
                                .1 += dotted.len();
                        }
                        Ok(members)
                    }
                    Outcome::Bad(reason) => Err(reason),
                    Outcome::NoText(reason) if times.get(&key).is_some_and(|n| *n > 1) => Err(format!(
                        "{reason}; other files of this key lie elsewhere in the shard, and those of one sample have to \
                         lie next to each other (sort the archive by name)"
                    )),
                    Outcome::NoText(reason) => Err(reason),
                };
                (key, outcome)
            })
            .collect();
        (samples, ignored)
    }
}

/// Determines the role of each member. Also returns the members ignored because of the dots in their names.
fn resolve(key: &str, members: Vec<Member>, limits: &Limits) -> (Outcome, Vec<Member>) {
    let mut found = Members::default();
    let mut images: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
    let (mut dotted_texts, mut dotted_pictures) = (Vec::new(), Vec::new());
    let mut others = Vec::new();
    for member in members {
        let kind = kind(&member.extension);
        let limit = match kind {
            Kind::Other | Kind::DottedPicture => u64::MAX,
            Kind::Picture(_) => limits.member_bytes,
            Kind::Json | Kind::Text | Kind::DottedText => limits.text_bytes,
        };
        if member.bytes > limit {
            let reason = format!(
                "{key}.{} has {} bytes, more than the limit of {limit}",
                member.extension, member.bytes
            );
            return (Outcome::Bad(reason), vec![]);
        }
        match kind {
            // A repeated name replaces the earlier member, as in tar.
            Kind::Json => found.json = Some(member),
            Kind::Text => found.txt = Some(member),
            Kind::Picture(number) => {
                let same = images.entry(number).or_default();
                same.retain(|other| !other.extension.eq_ignore_ascii_case(&member.extension));
                same.push(member);
            }
            Kind::DottedText => replace(&mut dotted_texts, member),
            Kind::DottedPicture => replace(&mut dotted_pictures, member),
            Kind::Other => others.push(member.extension),
        }
    }
    let bad = |reason: String| (Outcome::Bad(reason), vec![]);

    // 1. keys with dots, which WebDataset splits at the first dot
    let no_text = found.json.is_none() && found.txt.is_none();
    let misled = match (no_text, dotted_texts.as_slice(), images.is_empty()) {
        (true, [first, _, ..], _) => Some(first),
        (_, _, true) => dotted_pictures.first(),
        _ => None,
    };
    if let Some(member) = misled {
        let extension = &member.extension;
        return bad(format!(
            "its file {key}.{extension} has more than one dot in its name, and the key of a sample ends at the first: \
             it is read as {extension:?} of the sample {key:?}. Rename the files so that no dot is in a key \
             ({}.{})",
            renamed(key, extension),
            extension.rsplit('.').next().unwrap_or_default()
        ));
    }

    // 2. the text
    let mut ignored = dotted_pictures;
    match (no_text, dotted_texts.len()) {
        (true, 1) => {
            let text = dotted_texts.pop();
            match &text {
                Some(member) if member.extension.to_ascii_lowercase().ends_with("json") => {
                    found.json = text;
                }
                _ => found.txt = text,
            }
        }
        (true, _) => {
            let others = match others.as_slice() {
                [] => String::new(),
                list => format!(" (but {})", list.join(", ")),
            };
            let reason = format!("it has neither a json nor a txt member{others}");
            return (Outcome::NoText(reason), vec![]);
        }
        (false, _) => ignored.append(&mut dotted_texts),
    }

    // 3. the pictures
    for (number, mut same) in images {
        if let [first, second, ..] = same.as_slice() {
            return bad(format!(
                "it has several pictures of number {number}: {key}.{} and {key}.{}",
                first.extension, second.extension
            ));
        }
        found
            .images
            .extend(same.pop().map(|member| (number, member)));
    }
    if found.images.len() > limits.pictures {
        return bad(format!(
            "it has {} pictures, more than the limit of {}",
            found.images.len(),
            limits.pictures
        ));
    }
    (Outcome::Sample(found), ignored)
}

/// The key that was probably intended, with its dots replaced.
fn renamed(key: &str, extension: &str) -> String {
    let file = key.rsplit('/').next().unwrap_or(key);
    match extension.rsplit_once('.') {
        Some((rest, _)) => format!("{file}-{}", rest.replace('.', "-")),
        None => file.to_string(),
    }
}

/// Adds a member, replacing one of the same name.
fn replace(members: &mut Vec<Member>, member: Member) {
    members.retain(|other| other.extension != member.extension);
    members.push(member);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(names: &[&str]) -> Vec<(String, Result<Members, String>)> {
        let mut groups = Groups::default();
        for (i, name) in names.iter().enumerate() {
            let (key, extension) = split(name).expect("a sample's file");
            let member = Member {
                extension: extension.into(),
                offset: i as u64,
                bytes: 1,
            };
            groups.push(key, member);
        }
        groups.finish(&Limits::default()).0
    }

    fn reason(names: &[&str]) -> String {
        match samples(names).swap_remove(0).1 {
            Err(reason) => reason,
            Ok(members) => panic!("{names:?} is a sample: {members:?}"),
        }
    }

    #[test]
    fn keys_end_at_the_first_dot() {
        assert_eq!(split("a/b.c/d.e.png"), Some(("a/b.c/d", "e.png")));
        assert_eq!(split("a/.hidden"), None);
        assert_eq!(split("README"), None);
    }

    #[test]
    fn keys_with_dots_are_explained_with_the_file() {
        for names in [
            &[
                "photo.v1.0.png",
                "photo.v1.0.txt",
                "photo.v1.1.png",
                "photo.v1.1.txt",
            ][..],
            &["photo.v1.0.png", "photo.v1.0.txt"],
            // numbers, which would otherwise be pictures of one sample
            &["photo.0.png", "photo.0.txt", "photo.1.png", "photo.1.txt"],
            &["folder/photo.final.jpg", "folder/photo.txt"],
        ] {
            let reason = reason(names);
            assert!(
                reason.contains("photo.") && reason.contains("ends at the first"),
                "{reason}"
            );
        }
        let first = reason(&["photo.v1.0.png", "photo.v1.0.txt"]);
        assert!(
            first.contains("photo.v1.0.png") && first.contains("photo-v1-0.png"),
            "{first}"
        );
    }

    #[test]
    fn further_files_of_a_sample_are_ignored_and_told() {
        let names = ["1.png", "1.mask.png", "1.txt", "1.seg.json", "1.npy"];
        let mut groups = Groups::default();
        for name in names {
            let (key, extension) = split(name).expect("a sample's file");
            let extension = extension.to_string();
            let (offset, bytes) = (0, 1);
            groups.push(
                key,
                Member {
                    extension,
                    offset,
                    bytes,
                },
            );
        }
        let (samples, ignored) = groups.finish(&Limits::default());
        let members = samples[0].1.as_ref().expect("a sample");
        assert_eq!((members.images.len(), members.json.is_none()), (1, true));
        assert_eq!(ignored, Some(("1.mask.png".into(), 2)));
        // the only text is used, whatever its prefix
        assert!(samples_of_one(&["1.png", "1.caption.txt"]).txt.is_some());
    }

    fn samples_of_one(names: &[&str]) -> Members {
        samples(names).swap_remove(0).1.expect("a sample")
    }

    #[test]
    fn several_pictures_of_one_number_are_no_sample() {
        assert!(reason(&["0.jpg", "0.png", "0.txt"]).contains("0.jpg and 0.png"));
        // the same name twice: the later one
        let twice = samples_of_one(&["0.png", "0.txt", "0.png"]);
        assert_eq!(twice.images[0].1.offset, 2);
        let numbered = samples_of_one(&["0.1.png", "0.0.jpg", "0.json"]);
        let numbers: Vec<u32> = numbered.images.iter().map(|image| image.0).collect();
        assert_eq!(numbers, [0, 1]);
    }

    #[test]
    fn members_that_lie_apart_are_explained() {
        let reason = reason(&["0.png", "1.png", "0.txt", "1.txt"]);
        assert!(reason.contains("next to each other"), "{reason}");
        assert!(!self::reason(&["0.png"]).contains("next to each other"));
    }
}

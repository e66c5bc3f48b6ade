//! Captions: COCO's JSON (also NoCaps), Karpathy's splits (COCO, Flickr30K), LAVIS' lists.

use serde::Deserialize;

use super::{Collector, Id, OneOrMany, Split, Unique, text, trailing_number};
use crate::tasks::error::EvalError;
use crate::tasks::files::{Folder, read_json};
use crate::tasks::problems::{ProblemKind, Problems};
use crate::tasks::question::{Question, Truth};

/// `captions_*.json` of COCO, NoCaps, and the `*_gt.json` of LAVIS.
#[derive(Deserialize)]
struct CocoFile {
    images: Vec<CocoImage>,
    #[serde(default)]
    annotations: Vec<CocoCaption>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: Id,
    file_name: Option<String>,
    open_images_id: Option<String>,
    domain: Option<String>,
}

#[derive(Deserialize)]
struct CocoCaption {
    id: Option<Id>,
    image_id: Option<Id>,
    caption: Option<String>,
}

/// `dataset_*.json` of Karpathy.
#[derive(Deserialize)]
struct KarpathyFile {
    images: Vec<KarpathyImage>,
}

#[derive(Deserialize)]
struct KarpathyImage {
    #[serde(default)]
    filepath: String,
    filename: Option<String>,
    imgid: Option<Id>,
    cocoid: Option<Id>,
    split: Option<String>,
    #[serde(default)]
    sentences: Vec<KarpathySentence>,
}

#[derive(Deserialize)]
struct KarpathySentence {
    raw: Option<String>,
}

/// An entry of LAVIS' lists: one caption or several.
#[derive(Deserialize)]
struct ListEntry {
    image: Option<String>,
    caption: Option<OneOrMany>,
}

/// A picture and its captions, whatever layout they come from.
struct Captioned {
    id: String,
    /// Possible file names of the picture.
    files: Vec<String>,
    captions: Vec<Option<String>>,
    domain: Option<String>,
}

/// COCO captions. `test`, `val` and `train` are Karpathy's splits; `val2014` and `train2014` COCO's own.
pub fn coco(folder: &Folder, split: &str) -> Result<Split, EvalError> {
    const WHAT: &str = "captions of COCO";
    match split {
        "val2014" => of_coco(
            folder,
            &folder.file(WHAT, &["captions_val2014.json"])?,
            "val2014",
        ),
        "train2014" => of_coco(
            folder,
            &folder.file(WHAT, &["captions_train2014.json"])?,
            "train2014",
        ),
        _ => of_karpathy_or_list(
            folder,
            split,
            WHAT,
            "dataset_coco.json",
            &format!("coco_karpathy_{split}.json"),
            &format!("coco_karpathy_{split}_gt.json"),
        ),
    }
}

/// Flickr30K, in Karpathy's splits.
pub fn flickr30k(folder: &Folder, split: &str) -> Result<Split, EvalError> {
    let list = format!("flickr30k_{split}.json");
    of_karpathy_or_list(
        folder,
        split,
        "captions of Flickr30K",
        "dataset_flickr30k.json",
        &list,
        "",
    )
}

/// NoCaps.
pub fn nocaps(folder: &Folder, split: &str) -> Result<Split, EvalError> {
    let names: &[&str] = match split {
        "val" => &["nocaps_val_4500_captions.json"],
        _ => &["nocaps_test_image_info.json"],
    };
    of_coco(folder, &folder.file("captions of NoCaps", names)?, split)
}

fn of_coco(folder: &Folder, path: &std::path::Path, split: &str) -> Result<Split, EvalError> {
    let file: CocoFile = read_json(path, "COCO captions")?;
    let mut problems = Problems::default();
    let mut places = Unique::new();
    let mut pictures = vec![];
    for image in file.images {
        let id = image.id.0;
        let open = image.open_images_id.map(|id| format!("{id}.jpg"));
        let files: Vec<_> = image.file_name.into_iter().chain(open).collect();
        // The same picture twice is found by the collector; its captions must not be counted twice.
        if !places.has(&id) {
            places.add(id.clone(), pictures.len(), "", &mut problems);
        }
        pictures.push(Captioned {
            id,
            files,
            captions: vec![],
            domain: image.domain,
        });
    }
    let mut seen = Unique::new();
    for caption in file.annotations {
        let name = match (&caption.id, &caption.image_id) {
            (Some(id), _) => format!("caption {id}"),
            (None, Some(image)) => format!("caption of picture {image}"),
            (None, None) => "caption without ids".to_owned(),
        };
        let Some(image) = caption.image_id else {
            problems.note(ProblemKind::Null, name);
            continue;
        };
        let Some(place) = places.get(&image.0) else {
            problems.note(ProblemKind::UnknownId, format!("{name} (picture {image})"));
            continue;
        };
        // A caption whose id was seen already is used once.
        if let Some(id) = caption.id {
            let again = seen.has(&id.0);
            seen.add(
                id.0,
                (image.0.clone(), caption.caption.clone()),
                "caption",
                &mut problems,
            );
            if again {
                continue;
            }
        }
        if let Some(picture) = pictures.get_mut(*place) {
            picture.captions.push(caption.caption);
        }
    }
    let first = |(i, picture): &(usize, Captioned)| places.get(&picture.id) == Some(i);
    let repeated = pictures.len();
    let pictures: Vec<_> = pictures
        .into_iter()
        .enumerate()
        .filter(first)
        .map(|(_, picture)| picture)
        .collect();
    for _ in pictures.len()..repeated {
        problems.note(ProblemKind::Duplicate, "a picture's entry in `images`");
    }
    let hidden = pictures.iter().all(|picture| picture.captions.is_empty());
    Ok(collect(folder, pictures, hidden, split, problems))
}

fn of_karpathy_or_list(
    folder: &Folder,
    split: &str,
    what: &'static str,
    karpathy: &str,
    list: &str,
    gt: &str,
) -> Result<Split, EvalError> {
    if let Some(path) = folder.optional(&[karpathy]) {
        let file: KarpathyFile = read_json(&path, "Karpathy's splits")?;
        let of_split = |image: &KarpathyImage| match image.split.as_deref() {
            Some("restval") => split == "train",
            Some(other) => other == split,
            None => false,
        };
        let mut problems = Problems::default();
        for (i, image) in file.images.iter().enumerate() {
            if image.split.is_none() {
                problems.note(ProblemKind::Null, format!("split of picture {i}"));
            }
        }
        let picture = |image: KarpathyImage| {
            let name = image.filename.unwrap_or_default();
            let folder = Some(image.filepath).filter(|folder| !folder.is_empty());
            Captioned {
                id: image
                    .cocoid
                    .map(|id| id.0)
                    .or_else(|| trailing_number(&name))
                    .or(image.imgid.map(|id| id.0))
                    .unwrap_or_default(),
                files: folder
                    .map(|folder| format!("{folder}/{name}"))
                    .into_iter()
                    .chain([name])
                    .collect(),
                captions: image
                    .sentences
                    .into_iter()
                    .map(|sentence| sentence.raw)
                    .collect(),
                domain: None,
            }
        };
        let pictures = file
            .images
            .into_iter()
            .filter(of_split)
            .map(picture)
            .collect();
        return Ok(collect(folder, pictures, false, split, problems));
    }
    let path = folder.file(what, &[list, karpathy])?;
    let entries: Vec<ListEntry> = read_json(&path, "a list of captions")?;
    let mut problems = Problems::default();
    let mut pictures: Vec<Captioned> = vec![];
    let mut place = std::collections::HashMap::new();
    for (i, entry) in entries.into_iter().enumerate() {
        let Some(image) = entry.image else {
            problems.note(ProblemKind::Null, format!("image of entry {i}"));
            continue;
        };
        let id = trailing_number(&image).unwrap_or_else(|| image.clone());
        let captions = entry.caption.map_or_else(Vec::new, OneOrMany::into_vec);
        // In the training lists every caption is an entry of its own.
        let at = *place.entry(id.clone()).or_insert(pictures.len());
        match pictures.get_mut(at) {
            Some(picture) if split == "train" => picture.captions.extend(captions),
            Some(picture) => {
                let same = picture.captions == captions;
                let kind = if same {
                    ProblemKind::Duplicate
                } else {
                    ProblemKind::Conflict
                };
                problems.note(kind, format!("picture {id}"));
                if !same {
                    picture.captions.clear();
                }
            }
            None => pictures.push(Captioned {
                id,
                files: vec![image],
                captions,
                domain: None,
            }),
        }
    }
    if pictures.iter().all(|picture| picture.captions.is_empty())
        && let Some(path) = folder.optional(&[gt])
    {
        add_ground_truth(
            &mut pictures,
            read_json(&path, "COCO captions")?,
            &mut problems,
        );
    }
    Ok(collect(folder, pictures, false, split, problems))
}

/// Adds the captions of LAVIS' `*_gt.json` to a list that names only pictures.
fn add_ground_truth(pictures: &mut [Captioned], file: CocoFile, problems: &mut Problems) {
    for caption in file.annotations {
        let image = caption.image_id.map(|id| id.0).unwrap_or_default();
        match pictures.iter_mut().find(|picture| picture.id == image) {
            Some(picture) => picture.captions.push(caption.caption),
            None => problems.note(
                ProblemKind::UnknownId,
                format!("caption of picture {image}"),
            ),
        }
    }
}

fn collect(
    folder: &Folder,
    pictures: Vec<Captioned>,
    hidden: bool,
    split: &str,
    problems: Problems,
) -> Split {
    let mut collector = Collector::new(problems);
    for picture in pictures {
        let name = format!("picture {}", picture.id);
        collector.expect(&picture.id);
        let mut captions = vec![];
        for (i, caption) in picture.captions.iter().enumerate() {
            let record = format!("caption {} of {name}", i + 1);
            captions.extend(text(caption.as_deref(), &record, &mut collector.problems));
        }
        if captions.is_empty() && !hidden {
            collector.problems.note(ProblemKind::NoReference, name);
            continue;
        }
        let in_split = picture.files.iter().map(|file| format!("{split}/{file}"));
        let files: Vec<_> = picture.files.iter().cloned().chain(in_split).collect();
        let wanted = picture.files.first().cloned().unwrap_or_default();
        collector.add(folder.picture(&files), &wanted, |media| {
            let truth = if hidden {
                Truth::Hidden
            } else {
                Truth::Captions(captions)
            };
            let mut question = Question::new(picture.id, media, String::new(), truth);
            question
                .groups
                .extend(picture.domain.map(|domain| ("domain", domain)));
            question
        });
    }
    collector.finish()
}

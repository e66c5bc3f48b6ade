//! The layouts of video data.

use std::path::{Path, PathBuf};

use super::clean::clean;
use super::{Clip, Item, Videos};
use crate::build::{Feed, Halt, Skip};
use crate::input::{
    Bases, Blob, CAPTION_FIELDS, VIDEO_FIELDS, Value, each_sample, name_in, rows, walk,
};

impl Videos<'_> {
    fn yield_video(
        &self,
        feed: &mut Feed<Item>,
        source: &str,
        fields: Option<&Value>,
        captions: Vec<String>,
        clip: Result<Clip, Skip>,
    ) -> Result<(), Halt> {
        let options = self.options;
        let clip = match clip {
            Ok(clip) => clip,
            Err(skip) => return feed.skip(source, skip),
        };
        if !options.filters.is_empty()
            && let Err(skip) = options.filters.check(fields.unwrap_or(&Value::Null))
        {
            return feed.skip(source, skip);
        }
        let captions = match options.clean {
            true => captions.iter().map(|caption| clean(caption)).collect(),
            false => captions,
        };
        match options.captions.choose(source, captions, options.out.seed) {
            Ok(chosen) => chosen.into_iter().try_for_each(|(name, caption)| {
                let clip = clip.clone();
                feed.item(name, Item { caption, clip })
            }),
            Err(skip) => feed.skip(source, skip),
        }
    }

    /// WebVid's CSVs, and the videos at `page_dir/videoid.mp4`.
    pub(super) fn webvid(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        let root = &self.options.source;
        for path in walk(root)? {
            if !super::is_webvid(&path)? {
                continue;
            }
            let list = name_in(root, &path);
            let home = match &self.options.videos {
                Some(folder) => folder.clone(),
                None => path.parent().unwrap_or(Path::new("")).join("videos"),
            };
            rows(&path, false, &mut |row| {
                let source = format!("{list} {}", row.place);
                let fields = match row.value {
                    Ok(fields) => fields,
                    Err(skip) => return feed.skip(source, skip),
                };
                let Some(id) = fields.text_of("videoid").filter(|id| !id.trim().is_empty()) else {
                    return feed.skip(source, Skip::plain("no videoid"));
                };
                let page = fields.text_of("page_dir").unwrap_or_default();
                let file = format!("{}.mp4", id.trim());
                // `page_dir` may be empty, or the NaN of another program
                let path = match page.trim() {
                    "" => home.join(&file),
                    page if page.eq_ignore_ascii_case("nan") => home.join(&file),
                    page => home.join(page).join(&file),
                };
                let field = self.options.captions.field.as_deref();
                let caption = fields.chosen(field, &["name"]).map(Value::texts);
                let clip = Clip::at(&path);
                self.yield_video(
                    feed,
                    &source,
                    Some(&fields),
                    caption.unwrap_or_default(),
                    clip,
                )
            })?;
        }
        Ok(())
    }

    /// Tars of videos, as video2dataset writes them.
    pub(super) fn tars(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        each_sample(&self.options.source, feed, |feed, source, sample| {
            let clip = sample.find(Clip::is_file).cloned().map(Clip::File);
            let clip = clip.ok_or_else(|| Skip::new("no video", sample.contents()));
            let beside = texts(sample.member("json"), sample.member("txt"));
            self.yield_beside(feed, source, beside, clip)
        })
    }

    /// Videos and folders of frames with texts of the same names.
    pub(super) fn files(&self, feed: &mut Feed<Item>) -> Result<(), Halt> {
        let root = &self.options.source;
        let mut clips = Clip::below(root)?;
        if root.is_dir() {
            // Pictures beside the videos are no frames.
            clips.remove(root);
        }
        for path in clips {
            let source = name_in(root, &path);
            let beside = |kind: &str| {
                let inside = format!("caption.{kind}");
                let own = match path.is_dir() {
                    true => {
                        let mut own = path.clone().into_os_string();
                        own.push(format!(".{kind}"));
                        PathBuf::from(own)
                    }
                    false => path.with_extension(kind),
                };
                Blob::file(&own).or_else(|| Blob::file(&path.join(inside)))
            };
            let found = texts(beside("json").as_ref(), beside("txt").as_ref());
            self.yield_beside(feed, &source, found, Clip::at(&path))?;
        }
        Ok(())
    }

    /// The captions of a video with a JSON object and a text beside it.
    fn yield_beside(
        &self,
        feed: &mut Feed<Item>,
        source: &str,
        beside: Result<(Option<Value>, Option<String>), Skip>,
        clip: Result<Clip, Skip>,
    ) -> Result<(), Halt> {
        let (json, text) = match beside {
            Ok(beside) => beside,
            Err(skip) => return feed.skip(source, skip),
        };
        let of_json = |names: &[&str]| {
            let field = json.as_ref().and_then(|json| json.any_field(names));
            field.map(Value::texts).unwrap_or_default()
        };
        let captions = match (&self.options.captions.field, text) {
            (Some(field), Some(text)) if field == "txt" => vec![text],
            (Some(field), _) => of_json(&[field]),
            (None, Some(text)) => vec![text],
            (None, None) => of_json(CAPTION_FIELDS),
        };
        self.yield_video(feed, source, json.as_ref(), captions, clip)
    }

    /// A list of paths and captions.
    pub(super) fn table(&self, path: &Path, feed: &mut Feed<Item>) -> Result<(), Halt> {
        let options = self.options;
        let name = name_in(&options.source, path);
        let bases = Bases::new(options.videos.as_deref(), path);
        let number = |field: &Option<String>| {
            field
                .as_ref()
                .is_some_and(|name| name.parse::<usize>().is_ok())
        };
        let numbered = number(&options.video_field) || number(&options.captions.field);
        rows(path, numbered, &mut |row| {
            let source = format!("{name} {}", row.place);
            let fields = match row.value {
                Ok(fields) => fields,
                Err(skip) => return feed.skip(source, skip),
            };
            let field = options.video_field.as_deref();
            let clip = match fields.chosen(field, VIDEO_FIELDS) {
                None => Err(Skip::new("no video field", fields.names())),
                Some(Value::Bytes(bytes)) => Ok(Clip::File(Blob::Bytes(bytes.clone()))),
                Some(value) => match value.text() {
                    Some(named) => bases
                        .find(&named)
                        .ok_or_else(|| Skip::new("video file not found", named))
                        .and_then(|path| Clip::at(&path)),
                    None => Err(Skip::plain("no video")),
                },
            };
            let field = options.captions.field.as_deref();
            let captions = fields.chosen(field, CAPTION_FIELDS).map(Value::texts);
            self.yield_video(
                feed,
                &source,
                Some(&fields),
                captions.unwrap_or_default(),
                clip,
            )
        })
    }
}

/// The JSON object and the text beside a video.
fn texts(
    json: Option<&Blob>,
    text: Option<&Blob>,
) -> Result<(Option<Value>, Option<String>), Skip> {
    let json = json.map(crate::pairs::parse).transpose()?;
    let text = text.map(crate::pairs::utf8).transpose()?;
    Ok((json, text))
}

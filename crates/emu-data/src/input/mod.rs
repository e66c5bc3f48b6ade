//! Reading of sources: files and folders, tars, tables, JSON, parquet. Nothing here knows what a sample is.

mod blob;
mod find;
mod json;
mod lookup;
mod parquet;
mod row;
mod table;
mod tars;
mod text;
mod value;

pub(crate) use blob::Blob;
pub(crate) use find::{Bases, is_any_picture, is_picture, is_video, kind_of, name_in, stem, walk};
pub(crate) use json::{first_object, rows as json_rows};
pub(crate) use lookup::{Downloads, Lookup};
pub(crate) use row::Row;
pub(crate) use table::{columns, is_table, rows};
#[cfg(test)]
pub(crate) use tars::samples as tar_samples;
pub(crate) use tars::{TarSample, each_sample};
pub(crate) use text::{decode as decode_text, open as open_text, read_text, without_gz};
pub(crate) use value::Value;

/// Names of columns that hold a picture or its path, in order of preference. Compared without regard to case.
pub(crate) const IMAGE_FIELDS: &[&str] = &[
    "image",
    "image_path",
    "img_path",
    "filepath",
    "file_path",
    "file_name",
    "filename",
    "image_file",
    "img",
    "path",
    "file",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "image_bytes",
    "bytes",
    "image_url",
    "url",
];

/// Names of columns that hold a video's path.
pub(crate) const VIDEO_FIELDS: &[&str] = &[
    "video",
    "video_path",
    "filepath",
    "file_path",
    "file_name",
    "filename",
    "video_file",
    "path",
    "file",
    "mp4",
    "videoid",
    "video_id",
];

/// Names of columns that hold a caption.
pub(crate) const CAPTION_FIELDS: &[&str] = &[
    "caption",
    "text",
    "captions",
    "title",
    "txt",
    "description",
    "sentence",
    "sentences",
    "raw",
    "prompt",
    "top_caption",
    "alt_text",
    "name",
];

#[cfg(test)]
mod tests;

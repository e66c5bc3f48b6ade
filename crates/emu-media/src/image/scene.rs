//! Object segmentation on a plain background: the bounding boxes of a drawing's objects, from its pixels alone.

use ::image::{Rgb, RgbImage, imageops};

/// A rectangle of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

/// Maximum side of the thumbnail that is analysed.
const SIDE: u32 = 128;
/// Border width is the shorter side divided by this.
const BORDER: u32 = 32;
/// Maximum difference per channel from the background colour.
const SAME: u8 = 20;
/// Fraction of the border that must match the background colour.
const PLAIN: f64 = 0.95;
/// Components at most the shorter side divided by this apart are merged.
const GAP: u32 = 42;
/// Minimum area of an object, as a fraction of the picture.
const SMALLEST: f64 = 0.006;
/// Maximum number of objects.
const MOST: usize = 4;

/// Bounding boxes of the objects on a plain background, in reading order. Empty if the background is not plain, or if there
/// are more than four objects.
pub fn objects(picture: &RgbImage) -> Vec<Area> {
    let (width, height) = picture.dimensions();
    let small = imageops::thumbnail(picture, SIDE.min(width.max(1)), SIDE.min(height.max(1)));
    let Some(background) = plain_border(&small) else {
        return vec![];
    };
    let found = parts(&small, background);
    if found.len() > MOST {
        return vec![];
    }
    // Scale back to the picture's pixels.
    let (w, h) = small.dimensions();
    let scale =
        |v: u32, from: u32, to: u32| (u64::from(v) * u64::from(to) / u64::from(from)) as u32;
    let mut areas: Vec<Area> = { found.into_iter() }
        .map(|area| {
            let (x, y) = (scale(area.x, w, width), scale(area.y, h, height));
            Area {
                x,
                y,
                width: scale(area.x + area.width, w, width) - x,
                height: scale(area.y + area.height, h, height) - y,
            }
        })
        .collect();
    areas.sort_by_key(Area::middle);
    // Sort by row only if the objects are stacked vertically.
    if !in_a_row(&areas) {
        areas.sort_by_key(|area| area.middle().1);
    }
    areas
}

/// Whether objects are arranged horizontally rather than vertically.
pub fn in_a_row(areas: &[Area]) -> bool {
    let spread = |of: fn(&Area) -> u32| {
        let (least, most) = (areas.iter().map(of).min(), areas.iter().map(of).max());
        most.zip(least).map_or(0, |(most, least)| most - least)
    };
    spread(|area| area.middle().0) >= spread(|area| area.middle().1)
}

/// Crops a square around an object, with a margin. Pixels outside the picture take the background colour.
pub fn cut(picture: &RgbImage, area: Area) -> RgbImage {
    let (width, height) = picture.dimensions();
    let side = area.width.max(area.height).max(1);
    let side = side + side / 5;
    let background = picture.get_pixel(0, 0);
    let mut square = RgbImage::from_pixel(side, side, *background);
    let part = imageops::crop_imm(
        picture,
        area.x.min(width),
        area.y.min(height),
        area.width,
        area.height,
    );
    let at = |length: u32| i64::from((side - length.min(side)) / 2);
    imageops::replace(
        &mut square,
        &part.to_image(),
        at(area.width),
        at(area.height),
    );
    square
}

impl Area {
    /// Centre of the area.
    fn middle(&self) -> (u32, u32) {
        (self.x + self.width / 2, self.y + self.height / 2)
    }

    /// Distance between two areas; 0 if they touch.
    fn gap(&self, other: &Self) -> u32 {
        let apart = |a: u32, a_length: u32, b: u32, b_length: u32| {
            b.saturating_sub(a + a_length)
                .max(a.saturating_sub(b + b_length))
        };
        let x = apart(self.x, self.width, other.x, other.width);
        let y = apart(self.y, self.height, other.y, other.height);
        x.max(y)
    }

    fn joined(&self, other: &Self) -> Self {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        let right = (self.x + self.width).max(other.x + other.width);
        let bottom = (self.y + self.height).max(other.y + other.height);
        Self {
            x,
            y,
            width: right - x,
            height: bottom - y,
        }
    }
}

fn same(a: Rgb<u8>, b: Rgb<u8>) -> bool {
    let channels = a.0.iter().zip(&b.0);
    channels.map(|(a, b)| a.abs_diff(*b)).max() <= Some(SAME)
}

/// The median border colour, if at least [`PLAIN`] of the border matches it.
fn plain_border(picture: &RgbImage) -> Option<Rgb<u8>> {
    let (w, h) = picture.dimensions();
    let ring = (w.min(h) / BORDER).max(1);
    let on_border = |x: u32, y: u32| x < ring || y < ring || x + ring >= w || y + ring >= h;
    let border: Vec<Rgb<u8>> = { picture.enumerate_pixels() }
        .filter(|(x, y, _)| on_border(*x, *y))
        .map(|(_, _, pixel)| *pixel)
        .collect();
    let median = |channel: usize| {
        let mut values: Vec<u8> = border.iter().map(|pixel| pixel.0[channel]).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied()
    };
    let colour = Rgb([median(0)?, median(1)?, median(2)?]);
    let plain = border.iter().filter(|pixel| same(**pixel, colour)).count();
    (plain as f64 >= PLAIN * border.len() as f64).then_some(colour)
}

/// Connected components of the foreground; nearby ones are merged, small ones dropped.
fn parts(picture: &RgbImage, background: Rgb<u8>) -> Vec<Area> {
    let (w, h) = picture.dimensions();
    let at = |x: u32, y: u32| (y * w + x) as usize;
    let mut open: Vec<bool> = { picture.pixels() }
        .map(|pixel| !same(*pixel, background))
        .collect();
    let mut found: Vec<(Area, usize)> = vec![];
    for y in 0..h {
        for x in 0..w {
            if !open[at(x, y)] {
                continue;
            }
            open[at(x, y)] = false;
            let (mut waiting, mut pixels) = (vec![(x, y)], 0);
            let one = Area {
                x,
                y,
                width: 1,
                height: 1,
            };
            let mut area = one;
            while let Some((x, y)) = waiting.pop() {
                pixels += 1;
                area = area.joined(&Area { x, y, ..one });
                for near_y in y.saturating_sub(1)..(y + 2).min(h) {
                    for near_x in x.saturating_sub(1)..(x + 2).min(w) {
                        if std::mem::take(&mut open[at(near_x, near_y)]) {
                            waiting.push((near_x, near_y));
                        }
                    }
                }
            }
            found.push((area, pixels));
        }
    }
    let gap = w.min(h) / GAP;
    while let Some((i, j)) = near(&found, gap) {
        let (other, pixels) = found.swap_remove(j);
        found[i] = (found[i].0.joined(&other), found[i].1 + pixels);
    }
    let least = (SMALLEST * f64::from(w) * f64::from(h)) as usize;
    found.retain(|(_, pixels)| *pixels > least);
    found.into_iter().map(|(area, _)| area).collect()
}

/// Indices `i < j` of two components to merge.
fn near(parts: &[(Area, usize)], gap: u32) -> Option<(usize, usize)> {
    let pairs = (0..parts.len()).flat_map(|i| (i + 1..parts.len()).map(move |j| (i, j)));
    { pairs }.find(|&(i, j)| parts[i].0.gap(&parts[j].0) <= gap)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLUE: Rgb<u8> = Rgb([80, 130, 220]);
    const RED: Rgb<u8> = Rgb([220, 70, 60]);

    fn drawing(boxes: &[[u32; 4]]) -> RgbImage {
        let mut picture = RgbImage::from_pixel(256, 256, BLUE);
        for [x, y, w, h] in boxes {
            for dx in 0..*w {
                for dy in 0..*h {
                    picture.put_pixel(x + dx, y + dy, RED);
                }
            }
        }
        picture
    }

    fn found(boxes: &[[u32; 4]]) -> Vec<[u32; 4]> {
        let areas = objects(&drawing(boxes)).into_iter();
        areas.map(|a| [a.x, a.y, a.width, a.height]).collect()
    }

    #[test]
    fn objects_are_found_in_reading_order() {
        let [left, right] = [[20, 100, 60, 60], [150, 90, 80, 80]];
        assert_eq!(found(&[left]), [left]);
        assert_eq!(found(&[right, left]), [left, right]);
        let [upper, lower] = [[120, 20, 60, 60], [80, 150, 60, 60]];
        assert_eq!(found(&[lower, upper]), [upper, lower]);
        assert!(in_a_row(&objects(&drawing(&[left, right]))));
        assert!(!in_a_row(&objects(&drawing(&[upper, lower]))));
        // Components that nearly touch are merged; tiny ones are dropped.
        assert_eq!(
            found(&[[40, 40, 30, 30], [74, 40, 30, 30]]),
            [[40, 40, 64, 30]]
        );
        assert_eq!(found(&[left, [200, 200, 4, 4]]), [left]);
    }

    #[test]
    fn what_is_no_drawing_has_no_objects() {
        assert!(objects(&drawing(&[])).is_empty());
        let noise = RgbImage::from_fn(100, 80, |x, y| {
            Rgb([(x * 37 % 256) as u8, (y * 91 % 256) as u8, 7])
        });
        assert!(objects(&noise).is_empty());
        let five: Vec<[u32; 4]> = (0..5).map(|i| [10 + 50 * i, 100, 30, 30]).collect();
        assert!(found(&five).is_empty());
        for (w, h) in [(1, 1), (1, 300), (3, 2)] {
            assert!(objects(&RgbImage::from_pixel(w, h, RED)).is_empty());
        }
    }

    #[test]
    fn an_object_is_cut_out_with_a_margin() {
        let picture = drawing(&[[20, 100, 60, 40]]);
        let square = cut(&picture, objects(&picture)[0]);
        assert_eq!(square.dimensions(), (72, 72));
        assert_eq!(*square.get_pixel(0, 0), BLUE);
        assert_eq!(*square.get_pixel(36, 36), RED);
        let reds = square.pixels().filter(|pixel| **pixel == RED).count();
        assert_eq!(reds, 60 * 40);
    }
}

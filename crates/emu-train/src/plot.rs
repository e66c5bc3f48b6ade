//! Draws the curves of a run as a PNG. Labels use a built-in 3 x 5 pixel font, so that no system font is needed.

use std::path::Path;

use plotters::prelude::*;

use crate::TrainError;
use crate::metrics::StepMetrics;

/// Maximum number of points per curve. Longer curves are averaged down.
const POINTS: usize = 900;
const PANEL: (u32, u32) = (480, 240);
const COLUMNS: usize = 2;

/// The curves of a run so far.
#[derive(Clone, Debug, Default)]
pub struct History {
    curves: Vec<(String, Vec<(u64, f32)>)>,
}

impl History {
    /// The curves of the given steps.
    pub fn new(steps: &[StepMetrics]) -> Self {
        let mut history = Self::default();
        steps.iter().for_each(|metrics| history.push(metrics));
        history
    }

    /// Adds a step.
    pub fn push(&mut self, metrics: &StepMetrics) {
        self.add("loss", metrics.step, metrics.loss);
        metrics
            .terms
            .iter()
            .for_each(|(name, value)| self.add(name, metrics.step, *value));
        self.add("grad norm", metrics.step, metrics.grad_norm);
        if let Some((_, rate)) = metrics.lr.first() {
            self.add("rate", metrics.step, *rate as f32);
        }
        metrics
            .eval
            .iter()
            .for_each(|(name, value)| self.add(&format!("eval {name}"), metrics.step, *value));
    }

    fn add(&mut self, name: &str, step: u64, value: f32) {
        if !value.is_finite() {
            return;
        }
        match self.curves.iter_mut().find(|(other, _)| other == name) {
            Some((_, points)) => points.push((step, value)),
            None => self.curves.push((name.into(), vec![(step, value)])),
        }
    }
}

/// Draws one panel per curve. An empty history writes no file.
///
/// # Errors
/// [`TrainError::Io`] if the file cannot be written.
pub fn draw(history: &History, path: &Path) -> Result<(), TrainError> {
    if history.curves.is_empty() {
        return Ok(());
    }
    let rows = history.curves.len().div_ceil(COLUMNS);
    let (width, height) = (PANEL.0 * COLUMNS as u32, PANEL.1 * rows as u32);
    let mut pixels = vec![255u8; (width * height * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        let drawn: Result<(), DrawingError> = area
            .split_evenly((rows, COLUMNS))
            .iter()
            .zip(&history.curves)
            .try_for_each(|(panel, (name, points))| panel_of(panel, name, points));
        drawn.map_err(|e| TrainError::Stage(format!("The curves could not be drawn: {e}.")))?;
    }
    // Written under a temporary name first, so that a reader never sees a partial file.
    let pending = path.with_extension("pending.png");
    let picture = image::RgbImage::from_raw(width, height, pixels).ok_or_else(|| {
        TrainError::Stage("The curves have another size than their picture.".into())
    })?;
    picture
        .save_with_format(&pending, image::ImageFormat::Png)
        .map_err(|e| match e {
            image::ImageError::IoError(e) => TrainError::io("write", path)(e),
            other => TrainError::other("png", other),
        })?;
    std::fs::rename(&pending, path).map_err(TrainError::io("write", path))
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;
type DrawingError = DrawingAreaErrorKind<<BitMapBackend<'static> as DrawingBackend>::ErrorType>;

fn panel_of(area: &Area, name: &str, points: &[(u64, f32)]) -> Result<(), DrawingError> {
    let points = thinned(points);
    let (low, high) = range(&points);
    let (first, last) = (
        points.first().map_or(0.0, |p| p.0),
        points.last().map_or(1.0, |p| p.0),
    );
    let (left, right, top, bottom) = (64, 12, 24, 22);
    let mut chart = ChartBuilder::on(area)
        .margin_left(left)
        .margin_right(right)
        .margin_top(top)
        .margin_bottom(bottom)
        .build_cartesian_2d(first..last.max(first + 1.0), low..high)?;
    let plot = chart.plotting_area().clone();
    for i in 0..=4 {
        let y = low + (high - low) * f64::from(i) / 4.0;
        plot.draw(&PathElement::new(
            vec![(first, y), (last.max(first + 1.0), y)],
            RGBColor(225, 225, 225),
        ))?;
        let (_, pixel) = plot.map_coordinate(&(first, y));
        let (_, origin) = area.get_base_pixel();
        write(
            area,
            &short(y),
            (left - 6, pixel - origin - 5),
            Align::Right,
        )?;
    }
    let clamped = |points: &[(f64, f64)]| {
        points
            .iter()
            .map(|&(x, y)| (x, y.clamp(low, high)))
            .collect::<Vec<_>>()
    };
    chart.draw_series(LineSeries::new(clamped(&points), RGBColor(170, 200, 235)))?;
    chart.draw_series(LineSeries::new(
        clamped(&smoothed(&points)),
        RGBColor(20, 80, 160).stroke_width(2),
    ))?;
    let (_, height) = area.dim_in_pixel();
    write(area, name, (left, 6), Align::Left)?;
    if let Some((_, y)) = smoothed(&points).last() {
        write(area, &short(*y), (PANEL.0 as i32 - right, 6), Align::Right)?;
    }
    write(
        area,
        &short(first.floor()),
        (left, height as i32 - 16),
        Align::Left,
    )?;
    write(
        area,
        &short(last.ceil()),
        (PANEL.0 as i32 - right, height as i32 - 16),
        Align::Right,
    )
}

/// At most [`POINTS`] points, each the mean of consecutive ones.
fn thinned(points: &[(u64, f32)]) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(POINTS).max(1);
    let mean = |chunk: &[(u64, f32)]| {
        let n = chunk.len() as f64;
        (
            chunk.iter().map(|p| p.0 as f64).sum::<f64>() / n,
            chunk.iter().map(|p| f64::from(p.1)).sum::<f64>() / n,
        )
    };
    points.chunks(size).map(mean).collect()
}

/// Moving average over about a thirtieth of the curve.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let keep = 1.0 - 1.0 / (points.len() as f64 / 30.0).max(1.0);
    let (mut mean, mut weight) = (0.0, 0.0);
    points
        .iter()
        .map(|&(x, y)| {
            mean = keep * mean + (1.0 - keep) * y;
            weight = keep * weight + (1.0 - keep);
            (x, mean / weight)
        })
        .collect()
}

/// Range between the first and the last percentile, with a margin. A single spike does not flatten the curve.
fn range(points: &[(f64, f64)]) -> (f64, f64) {
    let mut values: Vec<f64> = points.iter().map(|p| p.1).collect();
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 100;
    let (Some(&low), Some(&high)) = (
        values.get(cut),
        values.get(values.len().saturating_sub(cut + 1)),
    ) else {
        return (0.0, 1.0);
    };
    let margin = ((high - low) * 0.05)
        .max(high.abs().max(low.abs()) * 1e-3)
        .max(1e-9);
    (low - margin, high + margin)
}

/// A number in short form.
fn short(x: f64) -> String {
    let size = x.abs();
    match size {
        _ if size == 0.0 => "0".into(),
        _ if size >= 1e6 => format!("{:.1}m", x / 1e6),
        _ if size >= 1e4 => format!("{:.0}k", x / 1e3),
        _ if size >= 100.0 || (size >= 1.0 && x.fract() == 0.0) => format!("{x:.0}"),
        _ if size >= 1.0 => format!("{x:.2}"),
        _ if size >= 0.001 => format!("{x:.4}"),
        _ => format!("{x:.1e}"),
    }
}

enum Align {
    Left,
    Right,
}

/// Scale of the font's pixels.
const SCALE: i32 = 2;

fn write(area: &Area, text: &str, (x, y): (i32, i32), align: Align) -> Result<(), DrawingError> {
    let width = text.chars().count() as i32 * 4 * SCALE - SCALE;
    let left = if matches!(align, Align::Right) {
        x - width
    } else {
        x
    };
    let (columns, rows) = area.dim_in_pixel();
    for (i, letter) in text.chars().enumerate() {
        for row in 0..5 {
            for column in 0..3 {
                if glyph(letter) >> ((4 - row) * 3 + (2 - column)) & 1 == 0 {
                    continue;
                }
                for (dx, dy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let px = left + (i as i32 * 4 + column) * SCALE + dx;
                    let py = y + row * SCALE + dy;
                    if (0..columns as i32).contains(&px) && (0..rows as i32).contains(&py) {
                        area.draw_pixel((px, py), &RGBColor(60, 60, 60))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Five rows of three pixels: one octal digit per row, from the top.
fn glyph(letter: char) -> u16 {
    match letter.to_ascii_lowercase() {
        '0' => 0o75557,
        '1' => 0o26227,
        '2' => 0o71747,
        '3' => 0o71717,
        '4' => 0o55711,
        '5' => 0o74717,
        '6' => 0o74757,
        '7' => 0o71122,
        '8' => 0o75757,
        '9' => 0o75717,
        'a' => 0o25755,
        'b' => 0o65656,
        'c' => 0o34443,
        'd' => 0o65556,
        'e' => 0o74647,
        'f' => 0o74644,
        'g' => 0o34553,
        'h' => 0o55755,
        'i' => 0o72227,
        'j' => 0o11152,
        'k' => 0o55655,
        'l' => 0o44447,
        'm' => 0o57755,
        'n' => 0o65555,
        'o' => 0o25552,
        'p' => 0o65644,
        'q' => 0o25563,
        'r' => 0o65655,
        's' => 0o34216,
        't' => 0o72222,
        'u' => 0o55557,
        'v' => 0o55552,
        'w' => 0o55775,
        'x' => 0o55255,
        'y' => 0o55222,
        'z' => 0o71247,
        '.' => 0o00002,
        ',' => 0o00024,
        '-' => 0o00700,
        '+' => 0o02720,
        '_' => 0o00007,
        '/' => 0o11244,
        ':' => 0o02020,
        '(' => 0o12221,
        ')' => 0o42224,
        '%' => 0o51245,
        ' ' => 0,
        _ => 0o75557,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(step: u64) -> StepMetrics {
        let x = step as f32;
        StepMetrics {
            step,
            loss: 3.0 / (1.0 + x / 50.0) + (x * 0.7).sin() * 0.1,
            terms: vec![("text".into(), 2.0 - x / 1000.0), ("nan".into(), f32::NAN)],
            grad_norm: 1.0,
            lr: vec![(String::new(), 1e-3)],
            samples_per_s: 1.0,
            seconds: 0.0,
            bad_samples: 0,
            warning: None,
            eval: if step % 100 == 99 {
                vec![("accuracy".into(), x / 1000.0)]
            } else {
                vec![]
            },
        }
    }

    #[test]
    fn curves_become_a_picture() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loss.png");
        draw(&History::default(), &path).unwrap();
        assert!(!path.exists());
        // A single point, equal values and a NaN must not end a run.
        draw(&History::new(&[metrics(0)]), &path).unwrap();
        draw(
            &History::new(&(0..2000).map(metrics).collect::<Vec<_>>()),
            &path,
        )
        .unwrap();
        let picture = image::open(&path).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), (960, 720));
        let dark = picture.pixels().filter(|p| p.0[0] < 100).count();
        assert!(dark > 1000, "{dark} dark pixels");
        assert_eq!(
            draw(&History::new(&[metrics(0)]), Path::new("/nowhere/loss.png"))
                .unwrap_err()
                .code(),
            "io"
        );
    }

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (1e-5, "1.0e-5"),
            (0.5, "0.5000"),
            (2.0, "2"),
            (2.5, "2.50"),
            (123.4, "123"),
        ];
        assert!(cases.iter().all(|(x, text)| short(*x) == *text));
        assert_eq!(short(25_000.0), "25k");
    }
}

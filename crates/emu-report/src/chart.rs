//! Draws a figure of one or two runs as inline SVG.

use std::fmt::Write;

use crate::run::Curve;

/// Maximum number of spans that a curve is divided into. Of each span, the lowest and the highest value are drawn.
const SPANS: usize = 400;
/// Size of the plotted area, in SVG units.
const SIZE: (f64, f64) = (440.0, 150.0);
/// Left edge and top edge of the plotted area.
const EDGE: (f64, f64) = (64.0, 8.0);

/// The curve with at most two points a span: its extremes, in the order of their steps.
pub(crate) fn thinned(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else {
        return vec![];
    };
    if points.len() <= 2 * SPANS {
        return points.to_vec();
    }
    let width = ((last - first) / SPANS as u64) + 1;
    let spans = points.chunk_by(|(a, _), (b, _)| (a - first) / width == (b - first) / width);
    spans
        .flat_map(|span| {
            let by_value = |a: &&(u64, f64), b: &&(u64, f64)| a.1.total_cmp(&b.1);
            let low = span.iter().min_by(by_value).copied();
            let high = span.iter().max_by(by_value).copied();
            let mut both: Vec<(u64, f64)> = low.into_iter().chain(high).collect();
            both.sort_by_key(|(step, _)| *step);
            both.dedup();
            both
        })
        .collect()
}

/// A number as the page shows it: four significant digits.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".into(),
        _ if !(1e-3..1e6).contains(&size) => format!("{value:.3e}"),
        _ => {
            let digits = 3 - size.log10().floor() as i32;
            let text = format!("{value:.*}", digits.clamp(0, 6) as usize);
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text,
            }
        }
    }
}

/// The chart, with a description for screen readers; empty without points. `label` must be escaped.
pub(crate) fn svg(label: &str, curves: &[&Curve]) -> String {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let bounds = |value: fn(&(u64, f64)) -> f64| {
        all().map(value).fold(None, |bounds, value| match bounds {
            None => Some((value, value)),
            Some((low, high)) => Some((value.min(low), value.max(high))),
        })
    };
    let (Some(steps), Some(values)) = (bounds(|p| p.0 as f64), bounds(|p| p.1)) else {
        return String::new();
    };
    // A constant is drawn in the middle.
    let share = |(low, high): (f64, f64), value: f64| match high > low {
        true => (value - low) / (high - low),
        false => 0.5,
    };
    let place = |(step, value): (u64, f64)| {
        let x = EDGE.0 + SIZE.0 * share(steps, step as f64);
        let y = EDGE.1 + SIZE.1 * (1.0 - share(values, value));
        (x, y)
    };
    let (right, bottom) = (EDGE.0 + SIZE.0, EDGE.1 + SIZE.1);
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "<svg role=\"img\" aria-label=\"{label}\" viewBox=\"0 0 {:.0} {:.0}\">\
         <path class=\"frame\" d=\"M{l} {t}V{bottom}H{right}\"/>\
         <text x=\"{a}\" y=\"{c}\" class=\"y\">{}</text><text x=\"{a}\" y=\"{bottom}\" class=\"y\">{}</text>\
         <text x=\"{l}\" y=\"{d}\">{:.0}</text><text x=\"{right}\" y=\"{d}\" class=\"y\">{:.0}</text>",
        right + 8.0,
        bottom + 20.0,
        number(values.1),
        number(values.0),
        steps.0,
        steps.1,
        l = EDGE.0,
        t = EDGE.1,
        a = EDGE.0 - 6.0,
        c = EDGE.1 + 10.0,
        d = bottom + 16.0,
    );
    for (i, curve) in curves.iter().enumerate() {
        let points = thinned(&curve.points);
        if let [point] = points[..] {
            let (x, y) = place(point);
            let _ = write!(
                out,
                "<circle class=\"run{i}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>"
            );
        } else if !points.is_empty() {
            let _ = write!(out, "<polyline class=\"run{i}\" points=\"");
            for point in points {
                let (x, y) = place(point);
                let _ = write!(out, "{x:.1},{y:.1} ");
            }
            out.push_str("\"/>");
        }
    }
    out.push_str("</svg>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: impl IntoIterator<Item = (u64, f64)>) -> Curve {
        Curve {
            points: points.into_iter().collect(),
            not_finite: 0,
        }
    }

    #[test]
    fn a_long_curve_keeps_its_extremes() {
        let mut points: Vec<_> = (0..300_000).map(|i| (i, (i % 7) as f64)).collect();
        points[123_456].1 = 1000.0;
        points[200_001].1 = -1000.0;
        let thin = thinned(&points);
        assert!(thin.len() <= 2 * SPANS, "{}", thin.len());
        assert!(thin.contains(&(123_456, 1000.0)) && thin.contains(&(200_001, -1000.0)));
        assert!(thin.is_sorted_by_key(|(step, _)| *step));
        assert_eq!(thinned(&points[..800]), points[..800]);
        assert_eq!(thinned(&[]), []);
    }

    #[test]
    fn numbers_have_four_digits() {
        let shown = [0.0, 1.0, 0.25, 123.456, 1234.5, -0.012_345, 1e-5, 1e9].map(number);
        let want = [
            "0", "1", "0.25", "123.5", "1234", "-0.01235", "1.000e-5", "1.000e9",
        ];
        assert_eq!(shown, want);
    }

    #[test]
    fn a_chart_lies_in_its_frame() {
        let falling = curve([(0, 4.0), (5, 2.0), (10, 1.0)]);
        let chart = svg("loss", &[&falling]);
        assert!(
            chart.contains("points=\"64.0,8.0 284.0,108.0 504.0,158.0 \""),
            "{chart}"
        );
        assert!(chart.contains("aria-label=\"loss\""));
        // One point, a constant, nothing.
        assert!(
            svg("one", &[&curve([(3, 7.0)])])
                .contains("<circle class=\"run0\" cx=\"284.0\" cy=\"83.0\"")
        );
        assert!(svg("constant", &[&curve([(0, 7.0), (1, 7.0)])]).contains("64.0,83.0 504.0,83.0"));
        assert_eq!(svg("none", &[&curve([])]), "");
        // Two runs have one scale.
        let both = svg("both", &[&falling, &curve([(20, 8.0)])]);
        assert!(
            both.contains("64.0,93.7 174.0,")
                && both.contains("<circle class=\"run1\" cx=\"504.0\" cy=\"8.0\""),
            "{both}"
        );
    }
}

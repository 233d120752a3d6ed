//! Plots as inline SVG: lines over a plane, and ratios with their intervals.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 24.0;
const RIGHT: f64 = 16.0;
const COLOURS: [&str; 6] = ["#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a"];

/// A named line.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// Text made safe for HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Lines over a plane. `ticks` label the horizontal axis; without them it is labelled by value.
pub(super) fn lines(
    title: &str,
    unit: &str,
    lines: &[Line],
    ticks: &[(f64, String)],
    is_log: bool,
) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (x_low, x_high) = bounds(points().map(|point| point.0));
    let scale = |y: f64| if is_log { y.max(1e-4).log10() } else { y };
    let (low, y_high) = bounds(points().map(|point| scale(point.1)));
    let y_low = if is_log { low } else { 0.0 };
    let x = |value: f64| LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| {
        HEIGHT - BOTTOM - (scale(value) - y_low) / (y_high - y_low) * (HEIGHT - BOTTOM - TOP)
    };
    let mut svg = open(title, HEIGHT);
    for n in 0..=4 {
        let scaled = y_low + (y_high - y_low) * f64::from(n) / 4.0;
        let value = if is_log { 10f64.powf(scaled) } else { scaled };
        let at = y(value);
        let _ = write!(
            svg,
            "<line x1='{LEFT}' x2='{:.0}' y1='{at:.1}' y2='{at:.1}' stroke='#d0d7de'/><text x='{:.0}' y='{:.1}' text-anchor='end'>{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            number(value)
        );
    }
    let by_value: Vec<(f64, String)> = (0..=5)
        .map(|n| x_low + (x_high - x_low) * f64::from(n) / 5.0)
        .map(|value| (value, number(value)))
        .collect();
    for (value, label) in if ticks.is_empty() { &by_value } else { ticks } {
        let _ = write!(
            svg,
            "<text x='{:.1}' y='{:.0}' text-anchor='middle'>{}</text>",
            x(*value),
            HEIGHT - BOTTOM + 16.0,
            escape(label)
        );
    }
    let _ = write!(svg, "<text x='{LEFT}' y='{:.0}'>{}</text>", TOP - 10.0, escape(unit));
    for (n, line) in lines.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let path: Vec<String> = line
            .points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)))
            .collect();
        let _ = write!(
            svg,
            "<polyline fill='none' stroke='{colour}' stroke-width='1.6' points='{}'/><text x='{:.0}' y='{:.0}' fill='{colour}'>{}</text>",
            path.join(" "),
            LEFT + 60.0 + 150.0 * n as f64,
            HEIGHT - 6.0,
            escape(&line.name)
        );
    }
    svg + "</svg>"
}

/// A ratio on its own row: its value, its interval and the gate to meet.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) gate: Option<f64>,
}

/// Ratios on a logarithmic axis around one.
pub(super) fn ratios(title: &str, bars: &[Bar]) -> String {
    let ends = bars.iter().flat_map(|bar| [bar.low, bar.high, bar.value, bar.gate.unwrap_or(1.0)]);
    let (low, high) = bounds(ends.chain([1.0]).map(|value| value.max(1e-4).ln()));
    let left = 260.0;
    let x = |value: f64| left + (value.max(1e-4).ln() - low) / (high - low) * (WIDTH - left - 60.0);
    let height = 40.0 + 22.0 * bars.len() as f64;
    let mut svg = open(title, height);
    let one = x(1.0);
    let _ = write!(
        svg,
        "<line x1='{one:.1}' x2='{one:.1}' y1='20' y2='{height:.0}' stroke='#57606a' stroke-dasharray='4 3'/>"
    );
    for (n, bar) in bars.iter().enumerate() {
        let y = 36.0 + 22.0 * n as f64;
        let _ = write!(
            svg,
            "<text x='{:.0}' y='{:.1}' text-anchor='end'>{}</text><line x1='{:.1}' x2='{:.1}' y1='{y:.1}' y2='{y:.1}' stroke='{2}' stroke-width='3'/><circle cx='{:.1}' cy='{y:.1}' r='4' fill='{2}'/><text x='{:.1}' y='{:.1}'>{:.2}</text>",
            left - 8.0,
            y + 4.0,
            escape(&bar.name),
            x(bar.low),
            x(bar.high),
            x(bar.value),
            x(bar.high) + 8.0,
            y + 4.0,
            bar.value
        );
        if let Some(gate) = bar.gate {
            let at = x(gate);
            let _ = write!(
                svg,
                "<line x1='{at:.1}' x2='{at:.1}' y1='{:.1}' y2='{:.1}' stroke='#d1242f' stroke-width='2'/>",
                y - 8.0,
                y + 8.0
            );
        }
    }
    svg + "</svg>"
}

fn open(title: &str, height: f64) -> String {
    format!(
        "<figure><figcaption>{}</figcaption><svg viewBox='0 0 {WIDTH} {height:.0}' width='{WIDTH}' height='{height:.0}' role='img' font-family='sans-serif' font-size='11'>",
        escape(title)
    )
}

/// Least and greatest, never equal.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if !low.is_finite() {
        return (0.0, 1.0);
    }
    if high > low { (low, high) } else { (low - 0.5, low + 0.5) }
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 10_000.0 => format!("{:.0}k", value / 1000.0),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_out_and_nothing_is_not_a_number() {
        let line = Line { name: "<script>".into(), points: vec![(0.0, 0.0), (1.0, 5.0)] };
        let svg = lines("a & b", "ms", &[line], &[], true);
        assert!(svg.contains("&lt;script&gt;") && svg.contains("a &amp; b"));
        assert!(!svg.contains("NaN") && !lines("", "", &[], &[], false).contains("NaN"));
    }
}

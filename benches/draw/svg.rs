//! Panels with lines in them, as SVG: the same text for the same figures. A picture has a background of its own and other
//! colours where the reader prefers dark, so that it can be read on any page.

use std::fmt::Write as _;

/// How a number becomes a place on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Equal factors are equal distances.
    Log,
    /// Equal differences are.
    Linear,
}

/// A line.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What it shows.
    pub name: &'static str,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// Axes with lines between them.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What grows upwards, with its unit.
    pub title: &'static str,
    /// What grows to the right, with its unit.
    pub below: &'static str,
    /// The numbers on the axis below, and what is written there.
    pub marks: Vec<(f64, String)>,
    /// Of both axes.
    pub scales: (Scale, Scale),
    /// At most as many as there are colours.
    pub curves: Vec<Curve>,
}

const PANEL_WIDTH: f64 = 440.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 84.0;
const PLOT_HEIGHT: f64 = 220.0;
const BELOW: f64 = 50.0;
const NOTE_HEIGHT: f64 = 17.0;
/// About as wide as a character of a label.
const CHAR: f64 = 5.8;
/// More labels than this on the axis of a panel nobody reads.
const LABELS_MAX: usize = 12;
const CURVES_MAX: usize = 3;

const STYLE: &str = "text{font:11px system-ui,sans-serif;fill:#1f2328}.title{font-size:14px;font-weight:600}.panel{font-weight:600}\
.back{fill:#fff;stroke:#d1d9e0}.grid{stroke:#d1d9e0}.note{fill:#59636e}path{fill:none;stroke-width:2}.grid{stroke-width:1}\
.c0{stroke:#0072b2}.c1{stroke:#d55e00}.c2{stroke:#009e73}.m0{fill:#0072b2}.m1{fill:#d55e00}.m2{fill:#009e73}\
@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.back{fill:#0d1117;stroke:#3d444d}.grid{stroke:#3d444d}.note{fill:#9198a1}\
.c0{stroke:#56b4e9}.c1{stroke:#e69f00}.c2{stroke:#2fc69a}.m0{fill:#56b4e9}.m1{fill:#e69f00}.m2{fill:#2fc69a}}";

/// One file: a title, panels side by side, notes below.
#[must_use]
pub fn picture(title: &str, panels: &[Panel], notes: &[String]) -> String {
    #[allow(clippy::cast_precision_loss, reason = "a few")]
    let (columns, lines) = (panels.len() as f64, notes.len() as f64);
    let width = PANEL_WIDTH * columns;
    let height = TOP + PLOT_HEIGHT + BELOW + NOTE_HEIGHT * lines + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\">\n<title>{0}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" x=\".5\" y=\".5\" width=\"{1}\" height=\"{2}\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"16\" y=\"24\">{0}</text>\n",
        escape(title),
        width - 1.0,
        height - 1.0,
    );
    let mut left = 0.0;
    for panel in panels {
        draw(&mut svg, panel, left);
        left += PANEL_WIDTH;
    }
    let mut y = TOP + PLOT_HEIGHT + BELOW + 4.0;
    for note in notes {
        let _ = writeln!(svg, "<text class=\"note\" x=\"16\" y=\"{y}\">{}</text>", escape(note));
        y += NOTE_HEIGHT;
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw(svg: &mut String, panel: &Panel, left: f64) {
    // Writing to a string cannot fail.
    let (x0, y0) = (left + LEFT, TOP + PLOT_HEIGHT);
    let (right, middle) = (left + PANEL_WIDTH - RIGHT, left + (LEFT + PANEL_WIDTH - RIGHT) / 2.0);
    let title = escape(panel.title);
    let _ = writeln!(svg, "<text class=\"panel\" x=\"{}\" y=\"46\">{title}</text>", left + 16.0);
    let below = escape(panel.below);
    let _ = writeln!(
        svg,
        "<text text-anchor=\"middle\" x=\"{middle}\" y=\"{}\">{below}</text>",
        y0 + 36.0
    );
    let points = || panel.curves.iter().flat_map(|curve| &curve.points);
    let (Some(across), Some(up)) = (
        Span::of(panel.marks.iter().map(|mark| mark.0), panel.scales.0),
        Span::rounded(points().map(|point| point.1), panel.scales.1),
    ) else {
        let _ = writeln!(
            svg,
            "<text class=\"note\" text-anchor=\"middle\" x=\"{middle}\" y=\"{}\">no figures</text>",
            TOP + PLOT_HEIGHT / 2.0
        );
        return;
    };
    // A little room beside the first and the last mark.
    let x_of = |x: f64| x0 + 8.0 + across.share(x) * (right - x0 - 16.0);
    let y_of = |y: f64| y0 - up.share(y) * PLOT_HEIGHT;
    for tick in up.ticks() {
        let (y, text) = (y_of(tick), number(tick));
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{x0} {y:.1}H{right:.1}\"/><text text-anchor=\"end\" x=\"{}\" y=\"{:.1}\">{text}</text>",
            x0 - 6.0,
            y + 4.0
        );
    }
    let mut free = f64::MIN;
    for (mark, text) in &panel.marks {
        let x = x_of(*mark);
        let _ = write!(svg, "<path class=\"grid\" d=\"M{x:.1} {y0}v5\"/>");
        #[allow(clippy::cast_precision_loss, reason = "a few characters")]
        let half = text.chars().count() as f64 * CHAR / 2.0;
        if x - half >= free {
            let (y, text) = (y0 + 18.0, escape(text));
            let _ =
                write!(svg, "<text text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y}\">{text}</text>");
            free = x + half + CHAR;
        }
        svg.push('\n');
    }
    let mut legend = left + 16.0;
    for (place, curve) in panel.curves.iter().take(CURVES_MAX).enumerate() {
        let _ = writeln!(
            svg,
            "{}<text x=\"{}\" y=\"66\">{}</text>",
            marker(place, legend + 5.0, 62.0, ""),
            legend + 14.0,
            escape(curve.name)
        );
        #[allow(clippy::cast_precision_loss, reason = "a few characters")]
        let wide = curve.name.chars().count() as f64 * CHAR;
        legend += wide + 20.0;
        let places = curve.points.iter().map(|(x, y)| format!("{:.1} {:.1}", x_of(*x), y_of(*y)));
        let line = places.collect::<Vec<_>>().join("L");
        if !line.is_empty() {
            let _ = writeln!(svg, "<path class=\"c{place}\" d=\"M{line}\"/>");
        }
        for (x, y) in &curve.points {
            let told = format!("{}, {}: {}", escape(curve.name), number(*x), number(*y));
            let _ = writeln!(svg, "{}", marker(place, x_of(*x), y_of(*y), &told));
        }
    }
}

/// Told apart by their form too: a circle, a square, a square on its corner.
fn marker(place: usize, x: f64, y: f64, told: &str) -> String {
    let (half, round) = if place == 0 { (4.0, 4.0) } else { (3.5, 0.0) };
    let turned =
        if place == 2 { format!(" transform=\"rotate(45 {x:.1} {y:.1})\"") } else { String::new() };
    let title = if told.is_empty() { String::new() } else { format!("<title>{told}</title>") };
    format!(
        "<rect class=\"m{place}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{2}\" height=\"{2}\" rx=\"{round}\"{turned}>{title}</rect>",
        x - half,
        y - half,
        2.0 * half
    )
}

/// From where to where an axis goes.
#[derive(Debug, Clone, Copy)]
struct Span {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Span {
    /// Just as far as these go; on a logarithmic axis only what is above nothing has a place.
    fn of(numbers: impl Iterator<Item = f64>, scale: Scale) -> Option<Self> {
        let numbers = numbers.filter(|x| x.is_finite() && (*x > 0.0 || scale == Scale::Linear));
        let ends = numbers.map(|x| (x, x)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        ends.map(|(from, to)| Self { scale, from, to })
    }

    /// As far as these go and on to the next round number; a linear one begins with nothing.
    fn rounded(numbers: impl Iterator<Item = f64>, scale: Scale) -> Option<Self> {
        let span = Self::of(numbers, scale)?;
        Some(match scale {
            Scale::Linear => Self { scale, from: 0.0, to: round_up(span.to.max(1.0)) },
            Scale::Log => {
                let (from, to) = (round_down(span.from), round_up(span.to));
                // A line that is flat needs room above it, or it has no place.
                Self { scale, from, to: if to > from { to } else { round_up(from * 1.5) } }
            }
        })
    }

    /// 0 at its beginning, 1 at its end.
    fn share(self, x: f64) -> f64 {
        let (x, from, to) = match self.scale {
            Scale::Linear => (x, self.from, self.to),
            Scale::Log => (x.max(f64::MIN_POSITIVE).log10(), self.from.log10(), self.to.log10()),
        };
        if to > from { ((x - from) / (to - from)).clamp(0.0, 1.0) } else { 0.5 }
    }

    fn ticks(self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => (0..=5).map(|part| self.to * f64::from(part) / 5.0).collect(),
            Scale::Log => {
                let all = steps(self.from, self.to, &[1.0, 2.0, 5.0]);
                if all.len() <= LABELS_MAX { all } else { steps(self.from, self.to, &[1.0]) }
            }
        }
    }
}

/// Powers of ten times these, from here to there.
fn steps(from: f64, to: f64, times: &[f64]) -> Vec<f64> {
    // Past the rounding of what was calculated.
    let (from, to) = (from * 0.999, to * 1.001);
    let first = from.log10().floor();
    #[allow(clippy::cast_possible_truncation, reason = "an exponent of ten")]
    let decades = first as i32..=to.log10().ceil() as i32;
    let all = decades.flat_map(|decade| times.iter().map(move |by| by * 10f64.powi(decade)));
    all.filter(|step| (from..=to).contains(step)).collect()
}

/// 1, 2 or 5 times a power of ten, not below.
fn round_up(x: f64) -> f64 {
    steps(x, x * 10.0, &[1.0, 2.0, 5.0]).first().copied().unwrap_or(x)
}

/// The same, not above.
fn round_down(x: f64) -> f64 {
    steps(x / 10.0, x, &[1.0, 2.0, 5.0]).last().copied().unwrap_or(x)
}

/// Three digits, and k or M for the thousands.
pub(super) fn number(x: f64) -> String {
    let (x, unit) = match x {
        _ if x >= 999_500.0 => (x / 1e6, "M"),
        _ if x >= 9_995.0 => (x / 1e3, "k"),
        _ => (x, ""),
    };
    let decimals = match x {
        _ if x >= 99.95 => 0,
        _ if x >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{x:.decimals$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => text.as_str(),
    };
    format!("{text}{unit}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(scale: Scale, points: &[(f64, f64)]) -> Panel {
        Panel {
            title: "cost, µs",
            below: "clients",
            marks: points.iter().map(|point| (point.0, number(point.0))).collect(),
            scales: (Scale::Log, scale),
            curves: vec![Curve { name: "put <1>", points: points.to_vec() }],
        }
    }

    #[test]
    fn numbers_are_short() {
        let all = [0.0, 0.25, 1.0, 12.34, 100.0, 1024.0, 9994.0, 10_000.0, 64_250.0, 1e6, 2.5e6];
        let texts = ["0", "0.25", "1", "12.3", "100", "1024", "9994", "10k", "64.2k", "1M", "2.5M"];
        assert_eq!(all.map(number), texts);
    }

    #[test]
    fn an_axis_ends_at_round_numbers() {
        let span = Span::rounded([23.0, 180.0].into_iter(), Scale::Log).unwrap();
        assert_eq!((number(span.from), number(span.to)), ("20".into(), "200".into()));
        assert_eq!(
            span.ticks().iter().map(|x| number(*x)).collect::<Vec<_>>(),
            ["20", "50", "100", "200"]
        );
        assert!((span.share(20.0), span.share(200.0)) == (0.0, 1.0));
        let wide = Span::rounded([1.0, 1e6].into_iter(), Scale::Log).unwrap();
        assert_eq!(wide.ticks().len(), 7);
        let linear = Span::rounded([3.0, 7.0].into_iter(), Scale::Linear).unwrap();
        assert_eq!((linear.from, linear.to, linear.ticks().len()), (0.0, 10.0, 6));
        let flat = Span::rounded([100.0].into_iter(), Scale::Log).unwrap();
        assert!(flat.to > flat.from);
        assert!(Span::rounded([0.0, -1.0, f64::NAN].into_iter(), Scale::Log).is_none());
    }

    #[test]
    fn equal_factors_are_equal_distances() {
        let points = [(1.0, 10.0), (10.0, 100.0), (100.0, 1000.0)];
        let svg = picture("costs", &[panel(Scale::Log, &points)], &["a & b".into()]);
        assert!(svg.contains("d=\"M66.0 304.0L240.0 194.0L414.0 84.0\""), "{svg}");
        assert!(svg.contains("put &lt;1&gt;") && svg.contains("a &amp; b") && !svg.contains("<1>"));
        assert_eq!(svg, picture("costs", &[panel(Scale::Log, &points)], &["a & b".into()]));
        let linear = picture("costs", &[panel(Scale::Linear, &points)], &[]);
        assert_ne!(svg, linear);
    }

    #[test]
    fn without_figures_it_says_so() {
        let svg = picture("costs", &[panel(Scale::Log, &[])], &[]);
        assert!(svg.contains("no figures") && svg.ends_with("</svg>\n"), "{svg}");
    }
}

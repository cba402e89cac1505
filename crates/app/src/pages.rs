//! What pages and drawings are made of, those of the command line and that of the admin port: colours and type on light and dark,
//! texts from outside made fit, curves. Nothing in them is fetched, and nothing in them runs.

use domain::records::MetricPoint;
use domain::visible;
use std::fmt::Write;

/// The colours of pages and drawings, on light and on dark.
pub const COLOURS: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--paper:#fff;--tint:#f6f8fa;--a0:#57606a;--a1:#0b62c4;\
--a2:#b35900;--a3:#1a7f37;--a4:#8250df;--a5:#bf3989}\
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--paper:#0d1117;--tint:#151b23;--a0:#9198a1;\
--a1:#58a6ff;--a2:#f0883e;--a3:#3fb950;--a4:#bc8cff;--a5:#f778ba}}";
/// How a page looks, after [`COLOURS`]; no element needs a style of its own.
pub const STYLE: &str = "\
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}\
main{max-width:60rem;margin:0 auto;padding:1.25rem 1rem 3rem}h1{font-size:1.6rem;line-height:1.25;margin:.2rem 0 .6rem}\
h2{font-size:1.15rem;margin:2.2rem 0 .6rem}p{margin:.6rem 0;max-width:46rem}.soft,small{color:var(--soft)}small{font-size:.82rem}\
.lead{font-size:1.08rem}.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}\
th:first-child,td:first-child{text-align:left;padding-left:0}th{font-weight:600;color:var(--soft);font-size:.85rem}\
td small{display:block;white-space:nowrap}.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));\
gap:1.5rem}figure{margin:0;max-width:34rem}figcaption{color:var(--soft);font-size:.85rem}svg{width:100%;height:auto;display:block}\
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}.better{color:var(--a3);font-weight:600}.worse{color:var(--a2);font-weight:600}\
polyline[class]{fill:none}.a0{stroke:var(--a0);fill:var(--a0)}.a1{stroke:var(--a1);fill:var(--a1)}.a2{stroke:var(--a2);fill:var(--a2)}\
.a3{stroke:var(--a3);fill:var(--a3)}.a4{stroke:var(--a4);fill:var(--a4)}.a5{stroke:var(--a5);fill:var(--a5)}\
ul.key{list-style:none;padding:0;margin:.4rem 0;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;font-size:.9rem}\
ul.key svg{width:2.2rem;height:.8rem;display:inline-block;vertical-align:middle;margin-right:.35rem}\
article{border-top:1px solid var(--line);padding:.6rem 0}article p{margin:.2rem 0;overflow-wrap:anywhere}\
pre{background:var(--tint);padding:.8rem;overflow-x:auto;font-size:.82rem;line-height:1.45;white-space:pre-wrap;overflow-wrap:anywhere}\
@media(max-width:36rem){table{font-size:.78rem}th{font-size:.72rem}th,td{padding:.3rem .22rem}td small{font-size:.66rem}}\
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--tint:#fff}main{max-width:none;padding:0}\
h2,h2+p{break-after:avoid}figure,article,table,tr{break-inside:avoid}.wide{overflow:visible}body{font-size:11pt}}";

/// The width of a drawing.
pub const WIDTH: f64 = 420.0;
/// Its margin on the left, where the words of grid lines are.
pub const LEFT: f64 = 44.0;
/// Its margin on the right.
pub const RIGHT: f64 = 12.0;
/// Its margin above.
pub const TOP: f64 = 12.0;

/// The folder of the reports of `distillery run`, `NAME.html` each, in the data folder.
pub const REPORTS: &str = "reports";
/// Points of a curve at most: others between them are left out.
const POINTS_MAX: usize = 400;
/// The drawing's height and the margin beneath it, in its own units.
const HEIGHT: f64 = 220.0;
const BOTTOM: f64 = 28.0;

/// A text from outside, as it stands in a page.
pub fn html(outside: &str) -> String {
    let mut escaped = String::with_capacity(outside.len());
    for character in visible::lines(outside).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// `0.775` as `77.5%`; halves are rounded up.
pub fn percent(share: f64) -> String {
    format!("{:.1}%", (share * 1000.0).round() / 10.0)
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A line across the drawing at this height, with its words before it.
pub fn grid_line(page: &mut String, y: f64, words: &str) {
    let _ = write!(
        page,
        "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"var(--line)\" stroke-width=\"1\"/><text x=\"{:.1}\" y=\"{:.1}\" \
         text-anchor=\"end\">{words}</text>",
        WIDTH - RIGHT,
        LEFT - 6.0,
        y + 4.0,
    );
}

/// How a training went, by step.
#[derive(Debug, Clone)]
pub struct Curves {
    /// The loss of labels.
    pub label: Vec<(u64, f64)>,
    /// The loss of rationales.
    pub rationale: Vec<(u64, f64)>,
    /// The accuracy on validation rows.
    pub validation: Vec<(u64, f64)>,
}

impl Curves {
    /// Those of a run, thinned where they have many points.
    pub fn of(metrics: &[MetricPoint]) -> Self {
        let of = |name: &str| {
            let named = || metrics.iter().filter(|point| point.name == name && point.value.is_finite());
            let every = named().count().div_ceil(POINTS_MAX).max(1);
            named().step_by(every).map(|point| (point.step, point.value)).collect()
        };
        Self {
            label: of("loss_label"),
            rationale: of("loss_rationale"),
            validation: of("validation_accuracy"),
        }
    }

    /// Draws them: losses in one drawing, the accuracy in another.
    pub fn draw(&self, page: &mut String) {
        let losses =
            [("loss of labels", self.label.as_slice()), ("loss of rationales", self.rationale.as_slice())];
        page.push_str("<div class=\"charts\">");
        chart(page, "loss, by step", &losses, |value| format!("{value:.2}"));
        chart(page, "accuracy on validation rows, by step", &[("accuracy", &self.validation)], percent);
        page.push_str("</div>\n");
    }
}

/// Curves over the steps, in one drawing; nothing where they have no point.
fn chart(page: &mut String, title: &str, curves: &[(&str, &[(u64, f64)])], shown: impl Fn(f64) -> String) {
    let points = || curves.iter().flat_map(|(_, curve)| *curve);
    let Some(last) = points().map(|(step, _)| *step).max() else { return };
    let most = points().map(|(_, value)| *value).fold(0.0, f64::max);
    // Of nothing but noughts, too, the height has a measure.
    let most = if most > 0.0 { most } else { 1.0 };
    let x = |step: u64| LEFT + (WIDTH - LEFT - RIGHT) * step as f64 / last.max(1) as f64;
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / most);
    let _ =
        write!(page, "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
    for part in 0..=4_u32 {
        let value = most * f64::from(part) / 4.0;
        grid_line(page, y(value), &shown(value));
    }
    for step in [0, last / 2, last] {
        let _ = write!(
            page,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(step).min(WIDTH - 24.0),
            HEIGHT - 8.0,
            grouped(step)
        );
    }
    let mut key = Vec::new();
    for (place, (name, curve)) in (1..).zip(curves).filter(|(_, (_, curve))| !curve.is_empty()) {
        let line: Vec<String> =
            curve.iter().map(|(step, value)| format!("{:.1},{:.1}", x(*step), y(*value))).collect();
        let dash = if place == 1 { "none" } else { "7 4" };
        let _ = write!(
            page,
            "<polyline class=\"a{place}\" points=\"{}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
            line.join(" ")
        );
        key.push(if place == 1 { format!("{name} (solid)") } else { format!("{name} (dashed)") });
    }
    let key = if key.len() > 1 { format!(": {}", key.join(", ")) } else { String::new() };
    let _ = write!(page, "</svg><figcaption>{title}{key}</figcaption></figure>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_is_no_markup() {
        let found = html("<script>\"&'\u{1b}[2J</script>\nb");
        assert_eq!(found, "&lt;script&gt;&quot;&amp;&#39;\\u{1b}[2J&lt;/script&gt;\nb");
    }

    #[test]
    fn shares_are_rounded_half_up() {
        for (share, text) in [(0.0, "0.0%"), (0.7325, "73.3%"), (0.775, "77.5%"), (1.0, "100.0%")] {
            assert_eq!(percent(share), text);
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn a_curve_is_thinned() {
        let point = |step: u64, value: f64| MetricPoint { step, name: "loss_label".to_owned(), value };
        let many: Vec<MetricPoint> = (0..5_000).map(|step| point(step, 1.0)).collect();
        let curves = Curves::of(&many);
        assert!((POINTS_MAX / 2..=POINTS_MAX).contains(&curves.label.len()), "{}", curves.label.len());
        assert!(curves.rationale.is_empty());
        let mut drawn = String::new();
        chart(&mut drawn, "noughts", &[("accuracy", &[(1, 0.0), (2, 0.0)])], percent);
        assert!(drawn.contains("100.0%") && drawn.contains("50.0%"), "{drawn}");
        let few = Curves::of(&[point(10, 2.0), point(20, f64::NAN), point(30, 1.0)]);
        assert_eq!(few.label, [(10, 2.0), (30, 1.0)]);
    }
}

//! Latency against rate, as a drawing in a file of its own.

use super::tally::{Percentiles, Tally};
use super::told::{ms, rate};
use app::pages::{COLOURS, LEFT, RIGHT, TOP, WIDTH, grid_line, html};
use std::fmt::Write;

/// The drawing's height and the margin beneath it, in its own units.
const HEIGHT: f64 = 300.0;
const BOTTOM: f64 = 58.0;
/// What the words of a rate take of the width.
const RATE_WIDTH: f64 = 34.0;
/// The curves: what they show, their colour and their dashes.
const CURVES: [(&str, &str, &str); 3] = [("p99", "a2", "none"), ("p90", "a1", "7 4"), ("p50", "a0", "2 4")];

type Point = (f64, Percentiles);

/// The drawing; rates without an answer have no point.
pub(crate) fn picture(title: &str, tallies: &[Tally], knee: Option<f64>) -> String {
    let mut points: Vec<Point> =
        tallies.iter().filter_map(|tally| Some((tally.rate, tally.all.latency.percentiles()?))).collect();
    points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let scale = Scale::of(&points);
    let title = html(title);
    let mut drawn = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
         <title>{title}</title><style>{COLOURS}svg{{background:var(--paper)}}text{{font:12px system-ui,sans-serif;fill:var(--soft)}}\
         .a0{{stroke:var(--a0);fill:var(--a0)}}.a1{{stroke:var(--a1);fill:var(--a1)}}.a2{{stroke:var(--a2);fill:var(--a2)}}</style>\n"
    );
    scale.lines(&mut drawn);
    rates(&mut drawn, &points, &scale);
    if let Some(knee) = knee {
        let (x, bottom) = (scale.x(knee), HEIGHT - BOTTOM);
        let _ = write!(
            drawn,
            "<path d=\"M{x:.1} {TOP}V{bottom:.1}\" stroke=\"var(--soft)\" stroke-width=\"1\" stroke-dasharray=\"1 3\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">knee: {}</text>",
            x - 4.0,
            TOP + 10.0,
            rate(knee)
        );
    }
    for (name, class, dash) in CURVES {
        curve(&mut drawn, &points, &scale, (name, class, dash));
    }
    key(&mut drawn);
    drawn.push_str("</svg>\n");
    drawn
}

/// The rates beneath the drawing; one that would stand on the one before it is left to the words of its points.
fn rates(drawn: &mut String, points: &[Point], scale: &Scale) {
    let mut free = f64::NEG_INFINITY;
    for (at, x) in points.iter().map(|(at, _)| (*at, scale.x(*at))).filter(|(_, x)| x.is_finite()) {
        if x < free {
            continue;
        }
        free = x + RATE_WIDTH;
        let y = HEIGHT - BOTTOM + 16.0;
        let _ = write!(drawn, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{}</text>", rate(at));
    }
}

fn of(times: &Percentiles, name: &str) -> f64 {
    match name {
        "p99" => times.p99,
        "p90" => times.p90,
        _ => times.p50,
    }
}

fn curve(drawn: &mut String, points: &[Point], scale: &Scale, (name, class, dash): (&str, &str, &str)) {
    let line: Vec<String> = points
        .iter()
        .map(|(at, times)| format!("{:.1},{:.1}", scale.x(*at), scale.y(of(times, name))))
        .collect();
    let _ = write!(
        drawn,
        "\n<polyline class=\"{class}\" points=\"{}\" style=\"fill:none\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
        line.join(" ")
    );
    for (at, times) in points {
        let value = of(times, name);
        let _ = write!(
            drawn,
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"><title>{name} at {}/s: {} ms</title></circle>",
            scale.x(*at),
            scale.y(value),
            rate(*at),
            ms(value)
        );
    }
}

/// What the curves are, and the axes.
fn key(drawn: &mut String) {
    let _ = write!(
        drawn,
        "\n<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">calls per second; milliseconds upward</text>",
        LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
        HEIGHT - 24.0
    );
    for ((name, class, dash), place) in CURVES.iter().zip(0_u8..) {
        let x = LEFT + 70.0 + 80.0 * f64::from(place);
        let _ = write!(
            drawn,
            "<path class=\"{class}\" d=\"M{x:.1} {y:.1}h26\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
            x + 32.0,
            HEIGHT - 4.0,
            y = HEIGHT - 8.0,
        );
    }
}

/// Rates stand side by side in the measure of their logarithms, and so do times: both range over powers of ten.
struct Scale {
    rates: (f64, f64),
    times: (f64, f64),
}

impl Scale {
    fn of(points: &[Point]) -> Self {
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let (least, most) = values
                .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
            if least <= most { (least, most) } else { (1.0, 10.0) }
        };
        let (least, most) = range(&mut points.iter().map(|(at, _)| *at));
        let (low, _) = range(&mut points.iter().map(|(_, times)| times.p50));
        let (_, high) = range(&mut points.iter().map(|(_, times)| times.p99));
        let low = 10_f64.powf(low.max(1e-3).log10().floor());
        let high = 10_f64.powf(high.max(low * 1.001).log10().ceil());
        Self { rates: (least, most), times: (low, high) }
    }

    fn x(&self, at: f64) -> f64 {
        let (least, most) = self.rates;
        // A single rate stands in the middle.
        let share = if most > least { (at / least).ln() / (most / least).ln() } else { 0.5 };
        LEFT + 14.0 + (WIDTH - LEFT - RIGHT - 28.0) * share.clamp(0.0, 1.0)
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = self.times;
        let share = (value / low).ln() / (high / low).ln();
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - share.clamp(0.0, 1.0))
    }

    /// A line for every 1, 2 and 5 of each power of ten.
    fn lines(&self, drawn: &mut String) {
        let (low, high) = self.times;
        let (mut power, decades) = (low, (high / low).log10().round());
        while power <= high * 1.001 {
            // Where there are many powers, their fractions would stand on each other.
            let steps: &[f64] = if decades > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            for step in steps.iter().filter(|step| power * **step <= high * 1.001) {
                let value = power * step;
                let words = if value < 1.0 { format!("{value}") } else { format!("{value:.0}") };
                grid_line(drawn, self.y(value), &words);
            }
            power *= 10.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Ask;
    use crate::load::tally::{Done, End};
    use std::time::Duration;

    fn tally(rate: f64, milliseconds: &[u64]) -> Tally {
        let mut tally = Tally::new(rate, 1).unwrap();
        for took in milliseconds.iter().map(|milliseconds| Duration::from_millis(*milliseconds)) {
            let end = End::Answered(None);
            tally.add(Done { ask: Ask::Predict, end, sent: took, took, first: None, at: took }).unwrap();
        }
        tally
    }

    #[test]
    fn a_drawing_has_a_point_for_each_percentile_of_each_rate() {
        let drawn = picture("<reviews> & more", &[tally(20.0, &[9, 400]), tally(10.0, &[8])], Some(10.0));
        assert_eq!(drawn.matches("<circle").count(), 6, "{drawn}");
        assert!(drawn.contains("&lt;reviews&gt; &amp; more") && !drawn.contains("<reviews>"));
        assert!(drawn.contains("p99 at 20/s: 400 ms") || drawn.contains("p99 at 20/s: 401 ms"), "{drawn}");
        assert!(drawn.contains(">knee: 10</text>"));
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }

    #[test]
    fn rates_that_are_near_each_other_do_not_stand_on_each_other() {
        let rates = [20.0, 320.0, 480.0, 520.0, 640.0];
        let drawn = picture("load", &rates.map(|rate| tally(rate, &[5])), None);
        let is_written = |rate: &str| drawn.contains(&format!(">{rate}</text>"));
        assert_eq!(["20", "320", "480", "520"].map(is_written), [true, true, true, false], "{drawn}");
        assert_eq!(drawn.matches("<circle").count(), 15, "{drawn}");
    }

    #[test]
    fn nothing_and_one_rate_are_drawn_too() {
        for tallies in [&[][..], &[tally(5.0, &[])], &[tally(5.0, &[7])]] {
            let drawn = picture("load", tallies, None);
            assert!(
                drawn.ends_with("</svg>\n") && !drawn.contains("NaN") && !drawn.contains("inf"),
                "{drawn}"
            );
        }
    }
}

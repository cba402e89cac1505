//! Accuracy against the fraction of the rows, a curve for each arm and a line for the teacher, as SVG.

use super::words;
use crate::html::html;
use crate::report::{grouped, percent};
use app::pages::{LEFT, RIGHT, TOP, WIDTH, grid_line};
use domain::spec::StudentSize;
use domain::study::{Arm, Measured, Results};
use std::fmt::Write;

/// The drawing's height and the margin beneath it, in its own units.
const HEIGHT: f64 = 280.0;
const BOTTOM: f64 = 36.0;
/// Curves have this many colours and dashes before they repeat.
const STYLES: usize = 6;
const DASHES: [&str; STYLES] = ["2 4", "none", "7 4", "1 0", "9 3 2 3", "4 2"];

/// A chart for each size of student, and one key to all of them.
pub(super) fn charts(page: &mut String, results: &Results) {
    page.push_str("<h2>Accuracy against rows</h2>\n<ul class=\"key\">");
    for (place, arm) in arms(results).iter().enumerate() {
        let (class, dash) = style(place);
        let _ = write!(
            page,
            "<li><svg viewBox=\"0 0 36 12\" aria-hidden=\"true\"><path class=\"{class}\" d=\"M0 6H36\" stroke-width=\"3\" \
             stroke-dasharray=\"{dash}\"/></svg>{}</li>",
            html(&arm.words())
        );
    }
    if let Some(teacher) = &results.teacher {
        let _ = write!(
            page,
            "<li><svg viewBox=\"0 0 36 12\" aria-hidden=\"true\"><path stroke=\"currentColor\" d=\"M0 6H36\" \
             stroke-width=\"1\"/></svg>teacher {}, {}</li>",
            html(&teacher.name),
            percent(teacher.accuracy)
        );
    }
    page.push_str("</ul>\n<div class=\"charts\">");
    let scale = Scale::of(results);
    for size in results.sizes() {
        chart(page, results, size, &scale);
    }
    page.push_str("</div>\n");
    if results.sizes().len() > 1 {
        sizes(page, results, &scale);
    }
}

/// Accuracy on all rows against the size of the student: the sizes stand side by side, the smallest first.
fn sizes(page: &mut String, results: &Results, scale: &Scale) {
    let mut sizes: Vec<(u64, Option<StudentSize>)> = Vec::new();
    let most = scale.millionths.last().copied();
    let of_all_rows = || results.settings.iter().filter(|measured| Some(measured.setting.millionths) == most);
    for size in results.sizes() {
        let parameters = of_all_rows().filter(|measured| measured.setting.size == size);
        sizes.push((parameters.map(|measured| measured.parameters).max().unwrap_or(0), size));
    }
    sizes.sort_unstable_by_key(|(parameters, _)| *parameters);
    let arms = arms(results);
    let x = |size: Option<StudentSize>, arm: usize| {
        let place = sizes.iter().position(|(_, known)| *known == size).unwrap_or(0);
        column((place, sizes.len()), (arm, arms.len()))
    };
    let _ = write!(
        page,
        "<h2>Accuracy against size</h2>\n<div class=\"charts\"><figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"Accuracy against the size of the student\">"
    );
    scale.lines(page);
    for (place, (parameters, size)) in sizes.iter().enumerate() {
        let at = column((place, sizes.len()), (0, 1));
        let name = size.map_or("the student", StudentSize::as_str);
        let _ = write!(
            page,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text><text x=\"{at:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{}</text>",
            HEIGHT - 18.0,
            HEIGHT - 3.0,
            grouped(*parameters)
        );
    }
    for (place, arm) in arms.iter().enumerate() {
        let mut points: Vec<&Measured> =
            of_all_rows().filter(|measured| measured.setting.arm == *arm).collect();
        points.sort_by_key(|measured| measured.parameters);
        let at = |measured: &Measured| (x(measured.setting.size, place), scale.y(measured.accuracy));
        curve(page, &points, scale, place, at);
    }
    page.push_str(
        "</svg><figcaption>parameters of the student, which learns of all rows: accuracy on test rows, with 95% intervals\
         </figcaption></figure></div>\n",
    );
}

fn style(place: usize) -> (String, &'static str) {
    let place = place % STYLES;
    (format!("a{place}"), DASHES.get(place).copied().unwrap_or("none"))
}

fn arms(results: &Results) -> Vec<Arm> {
    let mut arms: Vec<Arm> = Vec::new();
    for measured in &results.settings {
        if !arms.contains(&measured.setting.arm) {
            arms.push(measured.setting.arm);
        }
    }
    arms
}

/// The heights of all charts: whole tens of percent around everything that is drawn.
struct Scale {
    least: f64,
    most: f64,
    millionths: Vec<u32>,
}

impl Scale {
    fn of(results: &Results) -> Self {
        let (lows, highs): (Vec<f64>, Vec<f64>) = results
            .settings
            .iter()
            .map(|measured| (measured.low, measured.high))
            .chain(results.teacher.iter().map(|teacher| (teacher.accuracy, teacher.accuracy)))
            .unzip();
        let least = (lows.into_iter().fold(1.0, f64::min) * 10.0).floor() / 10.0;
        let most = (highs.into_iter().fold(0.0, f64::max) * 10.0).ceil() / 10.0;
        let mut millionths: Vec<u32> =
            results.settings.iter().map(|measured| measured.setting.millionths).collect();
        millionths.sort_unstable();
        millionths.dedup();
        Self { least, most: most.max(least + 0.1), millionths }
    }

    /// A line for every ten percent.
    fn lines(&self, page: &mut String) {
        let tens = ((self.most - self.least) * 10.0).round() as u32;
        for ten in 0..=tens {
            let share = self.least + f64::from(ten) / 10.0;
            grid_line(page, self.y(share), &format!("{:.0}%", share * 100.0));
        }
    }

    fn y(&self, share: f64) -> f64 {
        TOP + (self.most - share) / (self.most - self.least) * (HEIGHT - TOP - BOTTOM)
    }

    /// Where an arm of a fraction stands.
    fn x(&self, millionths: u32, arm: usize, arms: usize) -> f64 {
        let place = self.millionths.iter().position(|known| *known == millionths).unwrap_or(0);
        column((place, self.millionths.len()), (arm, arms))
    }
}

/// Columns stand side by side in equal steps; arms a little beside each other, so that intervals do not cover.
fn column((place, places): (usize, usize), (arm, arms): (usize, usize)) -> f64 {
    let step = (WIDTH - LEFT - RIGHT) / places.max(1) as f64;
    LEFT + step * (place as f64 + 0.5) + 7.0 * (arm as f64 - (arms as f64 - 1.0) / 2.0)
}

fn chart(page: &mut String, results: &Results, size: Option<StudentSize>, scale: &Scale) {
    let title = size.map_or("the student".to_owned(), |size| format!("students of size {size}"));
    let _ = write!(
        page,
        "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Accuracy against the fraction of the train rows: \
         {title}\">"
    );
    axes(page, results, size, scale);
    if let Some(teacher) = &results.teacher {
        let y = scale.y(teacher.accuracy);
        let _ = write!(
            page,
            "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"currentColor\" stroke-width=\"1\"/>",
            WIDTH - RIGHT
        );
    }
    let arms = arms(results);
    for (place, arm) in arms.iter().enumerate() {
        let of_arm = |measured: &&Measured| measured.setting.arm == *arm && measured.setting.size == size;
        let points: Vec<&Measured> = results.settings.iter().filter(of_arm).collect();
        let at = |measured: &Measured| {
            (scale.x(measured.setting.millionths, place, arms.len()), scale.y(measured.accuracy))
        };
        curve(page, &points, scale, place, at);
    }
    let _ = write!(
        page,
        "</svg><figcaption>{title}: accuracy on test rows, with 95% intervals</figcaption></figure>"
    );
}

fn axes(page: &mut String, results: &Results, size: Option<StudentSize>, scale: &Scale) {
    scale.lines(page);
    let mut seen = Vec::new();
    for measured in results.settings.iter().filter(|measured| measured.setting.size == size) {
        let millionths = measured.setting.millionths;
        if !seen.contains(&millionths) {
            seen.push(millionths);
            let _ = write!(
                page,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                scale.x(millionths, 0, 1),
                HEIGHT - 18.0,
                words::fraction(measured.setting)
            );
        }
    }
    let _ = write!(
        page,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">of the train rows</text>",
        LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
        HEIGHT - 3.0
    );
}

/// A curve with its intervals; each point says its numbers.
fn curve(
    page: &mut String,
    points: &[&Measured],
    scale: &Scale,
    place: usize,
    at: impl Fn(&Measured) -> (f64, f64),
) {
    let (class, dash) = style(place);
    let line: Vec<String> = points
        .iter()
        .map(|measured| {
            let (x, y) = at(measured);
            format!("{x:.1},{y:.1}")
        })
        .collect();
    let _ = write!(
        page,
        "<polyline class=\"{class}\" points=\"{}\" style=\"fill:none\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
        line.join(" ")
    );
    for measured in points {
        let (x, y) = at(measured);
        let _ = write!(
            page,
            "<g class=\"{class}\"><title>{}, {}: {} ({})</title><path d=\"M{x:.1} {:.1}V{:.1}\" stroke-width=\"1.5\"/>\
             <circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/></g>",
            html(&measured.setting.arm.words()),
            words::fraction(measured.setting),
            percent(measured.accuracy),
            words::percent_interval(measured.low, measured.high),
            scale.y(measured.high),
            scale.y(measured.low),
        );
    }
}

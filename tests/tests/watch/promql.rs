//! Checks a PromQL expression: metrics and labels must be in the table, and each kind of series must be read as intended.

use domain::telemetry::{Kind, METRICS, Metric};
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
    value::ValueType,
};
use std::collections::{BTreeMap, BTreeSet};

/// The labels that every scraped series has.
const SCRAPED: [&str; 2] = ["job", "instance"];
/// Prometheus's own series, with the labels of the scrape.
const OWN: [&str; 1] = ["up"];
const BUCKET: &str = "le";
/// The series of a histogram.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

pub(crate) type Names = BTreeSet<String>;

/// The series of recording rules, with their labels.
pub(crate) type Recorded = BTreeMap<String, Names>;

/// The metrics that an expression reads, and the labels of its result.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Used {
    /// Metrics, by their names in the table.
    pub(crate) metrics: Names,
    /// Labels of the resulting series.
    pub(crate) labels: Names,
}

/// Checks an expression, and returns the first mistake.
pub(crate) fn check(text: &str, recorded: &Recorded) -> Result<Used, String> {
    let expression = parser::parse(text)?;
    let mut reader = PromqlParser { recorded, metrics: Names::new() };
    let labels = reader.walk(&expression, Around::Nothing)?;
    Ok(Used { metrics: reader.metrics, labels })
}

/// The context of a selector.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Around {
    Nothing,
    /// A function of counters.
    Growth,
    /// A function of gauges over time.
    Course,
}

struct PromqlParser<'a> {
    recorded: &'a Recorded,
    metrics: Names,
}

impl PromqlParser<'_> {
    /// Labels of the result.
    fn walk(&mut self, expression: &Expr, around: Around) -> Result<Names, String> {
        match expression {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(Names::new()),
            Expr::Paren(inner) => self.walk(&inner.expr, around),
            Expr::Unary(inner) => self.walk(&inner.expr, around),
            Expr::Subquery(inner) => self.walk(&inner.expr, around),
            Expr::VectorSelector(selector) => self.select(selector, around),
            Expr::MatrixSelector(matrix) => self.select(&matrix.vs, around),
            Expr::Call(call) => self.call(call),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, around),
            Expr::Binary(binary) => self.binary(binary, around),
            Expr::Extension(_) => Err("an extension of PromQL".to_owned()),
        }
    }

    fn select(&mut self, selector: &VectorSelector, around: Around) -> Result<Names, String> {
        let name = selector.name.as_deref().ok_or("a selector without a name")?;
        let (labels, grows) = self.series(name)?;
        match (grows, around) {
            (true, Around::Growth) | (false, Around::Nothing | Around::Course) => {}
            (true, _) => return Err(format!("`{name}` only grows: take its rate")),
            (false, _) => return Err(format!("`{name}` is a gauge: it has no rate")),
        }
        let alternatives = selector.matchers.or_matchers.iter().flatten();
        for matcher in selector.matchers.matchers.iter().chain(alternatives) {
            has(&labels, &matcher.name, name)?;
        }
        Ok(labels)
    }

    /// The labels of a series, and whether it is a counter.
    fn series(&mut self, name: &str) -> Result<(Names, bool), String> {
        if let Some(labels) = self.recorded.get(name) {
            return Ok((labels.clone(), false));
        }
        let mut labels: Names = SCRAPED.map(str::to_owned).into();
        if OWN.contains(&name) {
            return Ok((labels, false));
        }
        let (metric, part) = in_table(name).ok_or_else(|| format!("no metric is called `{name}`"))?;
        self.metrics.insert(metric.name.to_owned());
        labels.extend(metric.labels.iter().map(|label| (*label).to_owned()));
        if part == Some("_bucket") {
            labels.insert(BUCKET.to_owned());
        }
        Ok((labels, part.is_some() || metric.kind == Kind::Counter))
    }

    fn call(&mut self, call: &Call) -> Result<Names, String> {
        let name = call.func.name;
        let around = match name {
            "rate" | "irate" | "increase" => Around::Growth,
            "delta" | "idelta" | "deriv" | "predict_linear" => Around::Course,
            _ if name.ends_with("_over_time") => Around::Course,
            _ => Around::Nothing,
        };
        let mut labels = Names::new();
        for argument in &call.args.args {
            labels.extend(self.walk(argument, around)?);
        }
        if name == "histogram_quantile" && !labels.remove(BUCKET) {
            return Err("histogram_quantile of something without buckets (`le`)".to_owned());
        }
        Ok(labels)
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr, around: Around) -> Result<Names, String> {
        let inner = self.walk(&aggregate.expr, around)?;
        let (named, keeps) = match &aggregate.modifier {
            None => return Ok(Names::new()),
            Some(LabelModifier::Include(named)) => (named, true),
            Some(LabelModifier::Exclude(named)) => (named, false),
        };
        for label in &named.labels {
            has(&inner, label, "what is aggregated")?;
        }
        Ok(inner.into_iter().filter(|label| named.labels.contains(label) == keeps).collect())
    }

    fn binary(&mut self, binary: &BinaryExpr, around: Around) -> Result<Names, String> {
        let (left, right) = (self.walk(&binary.lhs, around)?, self.walk(&binary.rhs, around)?);
        let is_number = |side: &Expr| side.value_type() == ValueType::Scalar;
        if is_number(&binary.lhs) || is_number(&binary.rhs) {
            return Ok(left.into_iter().chain(right).collect());
        }
        if binary.op.to_string() == "or" {
            return Ok(left.into_iter().chain(right).collect());
        }
        let modifier = binary.modifier.as_ref();
        let (one, other) = match modifier.and_then(|modifier| modifier.matching.as_ref()) {
            None => (left.clone(), right),
            Some(LabelModifier::Exclude(named)) => {
                let kept = |side: &Names| {
                    side.iter().filter(|label| !named.labels.contains(label)).cloned().collect()
                };
                (kept(&left), kept(&right))
            }
            Some(LabelModifier::Include(named)) => {
                for label in &named.labels {
                    has(&left, label, "the left side")?;
                    has(&right, label, "the right side")?;
                }
                let on: Names = named.labels.iter().cloned().collect();
                (on.clone(), on)
            }
        };
        // Series with different labels never match: the result would always be empty.
        if one != other {
            return Err(format!("{one:?} is matched with {other:?}: they never meet"));
        }
        match modifier.map(|modifier| &modifier.card) {
            Some(VectorMatchCardinality::ManyToOne(more)) => {
                Ok(left.into_iter().chain(more.labels.iter().cloned()).collect())
            }
            _ => Ok(left),
        }
    }
}

/// The metric of a series, and its part of a histogram.
fn in_table(name: &str) -> Option<(&'static Metric, Option<&'static str>)> {
    METRICS.iter().find_map(|metric| match metric.kind {
        Kind::Counter | Kind::Gauge => (metric.name == name).then_some((metric, None)),
        Kind::Histogram(_) => {
            let part = name.strip_prefix(metric.name)?;
            PARTS.into_iter().find(|known| *known == part).map(|known| (metric, Some(known)))
        }
    })
}

/// The metric that a word refers to, if it looks like one of ours.
pub(crate) fn is_known(word: &str) -> bool {
    METRICS.iter().any(|metric| metric.name == word) || in_table(word).is_some()
}

fn has(labels: &Names, label: &str, what: &str) -> Result<(), String> {
    if labels.contains(label) { Ok(()) } else { Err(format!("{what} has no label `{label}`: {labels:?}")) }
}

fn check_words(text: &str, words: Result<&[&str], &str>) {
    let recorded = Recorded::from([("distillery:limit".to_owned(), Names::from(["job".to_owned()]))]);
    match (check(text, &recorded), words) {
        (Ok(used), Ok(labels)) => {
            assert_eq!(used.labels, labels.iter().map(|label| (*label).to_owned()).collect(), "{text}");
        }
        (Err(error), Err(words)) => assert!(error.contains(words), "{text}: {error}"),
        (got, _) => panic!("{text}: {got:?}"),
    }
}

#[test]
fn expressions_are_read_as_prometheus_reads_them() {
    let good: [(&str, &[&str]); 10] = [
        ("sum (rate(distillery_prompts_harvested_total[5m]))", &[]),
        ("sum by (verdict) (rate(distillery_prompts_harvested_total[5m])) > 0.5", &["verdict"]),
        ("rate(distillery_prompts_stale_total[5m])", &["instance", "job"]),
        (
            "histogram_quantile(0.9, sum by (le, task) (rate(distillery_inference_request_duration_seconds_bucket[5m])))",
            &["task"],
        ),
        (
            "sum (rate(distillery_harvest_write_rows_sum[5m])) / sum (rate(distillery_harvest_write_rows_count[5m]))",
            &[],
        ),
        ("max_over_time(distillery_queue_entries[5m])", &["instance", "job"]),
        ("sum (rate(distillery_rpc_requests_total{code!=\"OK\"}[5m])) or vector(0)", &[]),
        ("absent(up{job=\"harvester\"})", &["instance", "job"]),
        (
            "max by (job, instance) (distillery_process_resident_memory_bytes) / on (job) group_left () distillery:limit",
            &["instance", "job"],
        ),
        ("sum without (instance) (distillery_training_active_runs)", &["job"]),
    ];
    for (text, labels) in good {
        check_words(text, Ok(labels));
    }
    let bad = [
        (
            "sum (rate(distillery_prompts_harvest_total[5m]))",
            "no metric is called `distillery_prompts_harvest_total`",
        ),
        ("distillery_harvest_write_rows", "no metric is called"),
        ("sum (rate(http_requests_total[5m]))", "no metric is called `http_requests_total`"),
        ("sum (distillery_prompts_harvested_total)", "only grows: take its rate"),
        ("rate(distillery_queue_entries[5m])", "is a gauge: it has no rate"),
        ("max_over_time(distillery_prompts_stale_total[5m])", "only grows"),
        ("rate(distillery_prompts_stale_total{verdict=\"accepted\"}[5m])", "has no label `verdict`"),
        ("sum by (reason) (rate(distillery_prompts_harvested_total[5m]))", "has no label `reason`"),
        ("histogram_quantile(0.9, sum (rate(distillery_harvest_write_rows_bucket[5m])))", "without buckets"),
        (
            "histogram_quantile(0.9, sum by (le) (rate(distillery_harvest_write_rows_sum[5m])))",
            "has no label `le`",
        ),
        (
            "sum by (job) (rate(distillery_prompts_stale_total[5m])) / sum (rate(distillery_prompts_stale_total[5m]))",
            "they never meet",
        ),
        ("up / on (job) distillery:unknown", "no metric is called `distillery:unknown`"),
        ("sum (rate(distillery_prompts_stale_total[5m])", "unclosed"),
    ];
    for (text, words) in bad {
        check_words(text, Err(words));
    }
}

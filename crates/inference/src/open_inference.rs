//! The Open Inference Protocol, version 2: the same answers for standard clients. Rows come as tensors of text, one element
//! a row; labels, their probabilities and rationales go back as tensors of as many.

use crate::InferenceError;
use crate::served::Served;
use crate::service::{InferenceApi, ROWS_MAX, RowPrompts, ScoredAnswer, deadline};
use domain::task::LabelSet;
use domain::{Example, Task, Violation};
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use wire::open_inference as v2;
use wire::open_inference::grpc_inference_service_server::GrpcInferenceService;
use wire::open_inference::model_infer_request::InferInputTensor;
use wire::open_inference::model_infer_response::InferOutputTensor;
use wire::open_inference::model_metadata_response::TensorMetadata;

const TEXT: &str = "BYTES";
const NUMBER: &str = "FP64";

const INPUT: &str = "input";
const PREMISE: &str = "premise";
const HYPOTHESIS: &str = "hypothesis";
const CHOICES: &str = "choices";

const LABEL: &str = "label";
const PROBABILITY: &str = "probability";
const RATIONALE: &str = "rationale";

/// The protocol over the service.
pub(crate) struct OpenInference {
    pub(crate) service: Arc<InferenceApi>,
    /// `None` until the published models are loaded.
    pub(crate) loaded: watch::Receiver<Option<std::collections::BTreeMap<String, u64>>>,
}

impl OpenInference {
    fn find(&self, name: &str, version: &str) -> Result<Arc<Served>, Status> {
        let number = if version.is_empty() { Some(0) } else { version.parse::<u64>().ok() };
        let number = number.ok_or_else(|| {
            let words = "is not a version: a number such as 1, or nothing for the newest";
            wire::invalid(vec![Violation::new("version", words)])
        })?;
        Ok(self.service.registry.find(name, number)?)
    }

    fn is_ready(&self) -> bool {
        self.loaded.borrow().is_some() && !self.service.engine.is_draining()
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for OpenInference {
    async fn server_live(
        &self,
        _: Request<v2::ServerLiveRequest>,
    ) -> Result<Response<v2::ServerLiveResponse>, Status> {
        Ok(Response::new(v2::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<v2::ServerReadyRequest>,
    ) -> Result<Response<v2::ServerReadyResponse>, Status> {
        Ok(Response::new(v2::ServerReadyResponse { ready: self.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<v2::ModelReadyRequest>,
    ) -> Result<Response<v2::ModelReadyResponse>, Status> {
        let request = request.into_inner();
        let ready = match self.find(&request.name, &request.version) {
            Ok(_) => !self.service.engine.is_draining(),
            Err(status) if status.code() == tonic::Code::NotFound => false,
            Err(status) => return Err(status),
        };
        Ok(Response::new(v2::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<v2::ServerMetadataRequest>,
    ) -> Result<Response<v2::ServerMetadataResponse>, Status> {
        Ok(Response::new(v2::ServerMetadataResponse {
            name: "distillery".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: Vec::new(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<v2::ModelMetadataRequest>,
    ) -> Result<Response<v2::ModelMetadataResponse>, Status> {
        let request = request.into_inner();
        let served = self.find(&request.name, &request.version)?;
        let tensor = |name: &str, datatype: &str, shape: &[i64]| TensorMetadata {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
        };
        let mut outputs = vec![tensor(LABEL, TEXT, &[-1])];
        if served.student.codec().has_label_set() {
            outputs.push(tensor(PROBABILITY, NUMBER, &[-1]));
        }
        outputs.push(tensor(RATIONALE, TEXT, &[-1]));
        Ok(Response::new(v2::ModelMetadataResponse {
            name: served.name.clone(),
            versions: vec![served.version.to_string()],
            platform: "distillery_t5".to_owned(),
            inputs: inputs_of(&served.student.codec().task)
                .iter()
                .map(|name| tensor(name, TEXT, if *name == CHOICES { &[-1, -1] } else { &[-1] }))
                .collect(),
            outputs,
        }))
    }

    async fn model_infer(
        &self,
        request: Request<v2::ModelInferRequest>,
    ) -> Result<Response<v2::ModelInferResponse>, Status> {
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let served = self.find(&request.model_name, &request.model_version)?;
        let wanted = Wanted::read(&served, &request).map_err(wire::invalid)?;
        let is_raw = !request.raw_input_contents.is_empty();
        let declared = inputs_of(&served.student.codec().task);
        let rows = rows(&declared, request.inputs, request.raw_input_contents).map_err(wire::invalid)?;
        let answers = self.answer(&served, rows, wanted.rationale, deadline).await?;
        let mut response = v2::ModelInferResponse {
            model_name: served.name.clone(),
            model_version: served.version.to_string(),
            id: request.id,
            ..Default::default()
        };
        for column in wanted.columns(answers)? {
            column.write(is_raw, &mut response);
        }
        Ok(Response::new(response))
    }
}

impl OpenInference {
    /// One answer a row, in order. A full queue refuses the first row, and with it the call; the others wait their turn.
    async fn answer(
        &self,
        served: &Arc<Served>,
        rows: Vec<Example>,
        explain: bool,
        deadline: Option<Instant>,
    ) -> Result<Vec<ScoredAnswer>, InferenceError> {
        let asked = {
            let served = Arc::clone(served);
            self.service.prepare(usize::MAX, move || questions(&served, &rows, explain)).await?
        };
        let answers = self.service.answer_rows(served, asked, deadline).enumerate();
        answers.map(|(row, answered)| answered.map_err(|error| error.at(row))).try_collect().await
    }
}

/// The questions of every row: a row that cannot be asked is found before any is answered.
fn questions(served: &Served, rows: &[Example], explain: bool) -> Result<Vec<RowPrompts>, InferenceError> {
    let asked = |(row, example)| RowPrompts::of(served, example, explain, 0).map_err(|error| error.at(row));
    rows.iter().enumerate().map(asked).collect()
}

/// The tensors that a task reads: all of them, and no others.
fn inputs_of(task: &Task) -> Vec<&'static str> {
    if task.template.contains("example.premise") {
        return vec![PREMISE, HYPOTHESIS];
    }
    match task.labels {
        LabelSet::Choices => vec![INPUT, CHOICES],
        LabelSet::Open | LabelSet::Closed(_) => vec![INPUT],
    }
}

/// Which tensors the caller wants.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    label: bool,
    probability: bool,
    rationale: bool,
}

impl Wanted {
    /// Those that are named; all that the model has, where none is.
    fn read(served: &Served, request: &v2::ModelInferRequest) -> Result<Self, Vec<Violation>> {
        let has = |name: &str| {
            request.outputs.is_empty() || request.outputs.iter().any(|output| output.name == name)
        };
        let known = |name: &str| match name {
            LABEL | RATIONALE => true,
            PROBABILITY => served.student.codec().has_label_set(),
            _ => false,
        };
        let unknown = request.outputs.iter().filter(|output| !known(&output.name)).map(|output| {
            let words = format!("`{}` is no output of this model: ModelMetadata lists them", output.name);
            Violation::new("outputs", words)
        });
        let unknown: Vec<Violation> = unknown.collect();
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let probability = has(PROBABILITY) && served.student.codec().has_label_set();
        Ok(Self { label: has(LABEL), probability, rationale: has(RATIONALE) })
    }

    /// The answers as columns, in the order of the metadata.
    fn columns(self, answers: Vec<ScoredAnswer>) -> Result<Vec<Column>, InferenceError> {
        let (mut labels, mut probabilities, mut rationales) = (Vec::new(), Vec::new(), Vec::new());
        for answer in answers {
            probabilities.extend(answer.choice.and_then(|choice| {
                let entry = choice.probabilities.into_iter().find(|entry| entry.label == choice.label);
                entry.map(|entry| entry.probability)
            }));
            labels.push(answer.label.into_bytes());
            rationales.push(answer.rationale.into_bytes());
        }
        let rows = labels.len();
        let mut columns = Vec::new();
        if self.label {
            columns.push(Column::Texts(LABEL, labels));
        }
        if self.probability {
            if probabilities.len() != rows {
                return Err(InferenceError::Internal("a label has no probability".to_owned()));
            }
            columns.push(Column::Numbers(PROBABILITY, probabilities));
        }
        if self.rationale {
            columns.push(Column::Texts(RATIONALE, rationales));
        }
        Ok(columns)
    }
}

/// One output tensor, an element a row.
enum Column {
    Texts(&'static str, Vec<Vec<u8>>),
    Numbers(&'static str, Vec<f64>),
}

impl Column {
    /// Into the response: as raw bytes where the request came so, else by type.
    fn write(self, is_raw: bool, response: &mut v2::ModelInferResponse) {
        let (name, datatype, rows) = match &self {
            Self::Texts(name, texts) => (*name, TEXT, texts.len()),
            Self::Numbers(name, numbers) => (*name, NUMBER, numbers.len()),
        };
        let mut contents = v2::InferTensorContents::default();
        let mut raw = Vec::new();
        match self {
            Self::Texts(_, texts) if is_raw => {
                for text in texts {
                    raw.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
                    raw.extend_from_slice(&text);
                }
            }
            Self::Numbers(_, numbers) if is_raw => {
                raw = numbers.into_iter().flat_map(f64::to_le_bytes).collect();
            }
            Self::Texts(_, texts) => contents.bytes_contents = texts,
            Self::Numbers(_, numbers) => contents.fp64_contents = numbers,
        }
        response.outputs.push(InferOutputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![i64::try_from(rows).unwrap_or(i64::MAX)],
            contents: (!is_raw).then_some(contents),
            ..Default::default()
        });
        if is_raw {
            response.raw_output_contents.push(raw);
        }
    }
}

/// The rows that the input tensors hold: each of the declared ones once, and no other.
fn rows(
    declared: &[&str],
    inputs: Vec<InferInputTensor>,
    raw: Vec<Vec<u8>>,
) -> Result<Vec<Example>, Vec<Violation>> {
    check_names(declared, &inputs)?;
    let wrong = |field: &str, words: String| vec![Violation::new(field, words)];
    if !raw.is_empty() && raw.len() != inputs.len() {
        let words = format!("has {} entries for {} inputs: give one each", raw.len(), inputs.len());
        return Err(wrong("raw_input_contents", words));
    }
    let mut raw = raw.into_iter();
    let mut rows: Option<Vec<Example>> = None;
    for input in inputs {
        let name = input.name.clone();
        let field = format!("inputs.{name}");
        let width = if name == CHOICES { 2 } else { 1 };
        let (count, each) = shape(&input, width).map_err(|words| wrong(&field, words))?;
        if name == CHOICES && each == 0 {
            return Err(wrong(&field, "has no choices: give at least 2 for every row".to_owned()));
        }
        let texts = texts(input, raw.next()).map_err(|words| wrong(&field, words))?;
        if count.checked_mul(each) != Some(texts.len()) {
            let words = format!("holds {} texts, and its shape says {count} times {each}", texts.len());
            return Err(wrong(&field, words));
        }
        let rows = rows.get_or_insert_with(|| vec![Example::default(); count]);
        if rows.len() != count {
            return Err(wrong(&field, format!("has {count} rows, and another input has {}", rows.len())));
        }
        let mut texts = texts.into_iter();
        for row in rows.iter_mut() {
            match name.as_str() {
                CHOICES => row.choices = texts.by_ref().take(each).collect(),
                INPUT => row.input = texts.next().unwrap_or_default(),
                PREMISE => row.premise = texts.next(),
                HYPOTHESIS => row.hypothesis = texts.next(),
                _ => {}
            }
        }
    }
    let rows =
        rows.filter(|rows| !rows.is_empty()).ok_or_else(|| wrong("inputs", "have no rows".to_owned()))?;
    check(rows)
}

/// The inputs are the declared ones.
fn check_names(declared: &[&str], inputs: &[InferInputTensor]) -> Result<(), Vec<Violation>> {
    let mut found = Vec::new();
    for (place, input) in inputs.iter().enumerate() {
        let name = input.name.as_str();
        if !declared.contains(&name) {
            let words = format!("is not an input of this model, which reads {}", declared.join(" and "));
            found.push(Violation::new(format!("inputs.{name}"), words));
        } else if inputs.iter().take(place).any(|earlier| earlier.name == name) {
            found.push(Violation::new(format!("inputs.{name}"), "is given twice"));
        }
    }
    let absent = declared.iter().filter(|name| inputs.iter().all(|input| input.name != **name));
    found.extend(absent.map(|name| {
        let words = format!("is missing: this model reads {}", declared.join(" and "));
        Violation::new(format!("inputs.{name}"), words)
    }));
    if found.is_empty() { Ok(()) } else { Err(found) }
}

/// Every row is one that could be labelled, or every mistake of all of them is named.
fn check(rows: Vec<Example>) -> Result<Vec<Example>, Vec<Violation>> {
    let mut found = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        for violation in row.violations() {
            found.push(Violation::new(format!("rows[{place}].{}", violation.field), violation.message));
        }
    }
    if found.is_empty() { Ok(rows) } else { Err(found) }
}

/// Rows, and elements of each row, of a tensor with `width` dimensions.
fn shape(input: &InferInputTensor, width: usize) -> Result<(usize, usize), String> {
    if input.datatype != TEXT {
        return Err(format!("has the type `{}`: text is {TEXT}", input.datatype));
    }
    let sizes: Vec<usize> = input.shape.iter().filter_map(|size| usize::try_from(*size).ok()).collect();
    let (count, each) = match (sizes.as_slice(), width) {
        // A column is often sent as a matrix of one.
        ([count], 1) | ([count, 1], 1) => (*count, 1),
        ([count, each], 2) => (*count, *each),
        _ => return Err(format!("has the shape {:?}: it needs {width} dimensions from 0 on", input.shape)),
    };
    if count > ROWS_MAX {
        return Err(format!("has {count} rows: the limit of a call is {ROWS_MAX}"));
    }
    Ok((count, each))
}

/// The elements of a tensor of text.
fn texts(input: InferInputTensor, raw: Option<Vec<u8>>) -> Result<Vec<String>, String> {
    let contents = input.contents.unwrap_or_default().bytes_contents;
    let elements = match raw {
        Some(_) if !contents.is_empty() => {
            return Err("has its elements twice, here and in raw_input_contents".to_owned());
        }
        Some(raw) => elements(&raw).ok_or("has raw contents that are no texts with their lengths")?,
        None => contents,
    };
    let read =
        elements.into_iter().map(|bytes| String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned()));
    read.collect()
}

/// Elements with their lengths before them, 4 bytes each, the lowest first.
fn elements(mut raw: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    while let Some((length, rest)) = raw.split_first_chunk::<4>() {
        let (element, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        found.push(element.to_vec());
        raw = rest;
    }
    raw.is_empty().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[i64], texts: &[&str]) -> InferInputTensor {
        let bytes_contents = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        InferInputTensor {
            name: name.to_owned(),
            datatype: TEXT.to_owned(),
            shape: shape.to_vec(),
            contents: Some(v2::InferTensorContents { bytes_contents, ..Default::default() }),
            ..Default::default()
        }
    }

    fn bare(name: &str, shape: &[i64]) -> InferInputTensor {
        InferInputTensor { contents: None, ..tensor(name, shape, &[]) }
    }

    const TEXTS: &[&str] = &[INPUT];
    const WITH_CHOICES: &[&str] = &[INPUT, CHOICES];
    const PAIRS: &[&str] = &[PREMISE, HYPOTHESIS];

    #[test]
    fn tensors_are_rows() {
        let read = rows(TEXTS, vec![tensor(INPUT, &[2], &["a", "b"])], Vec::new()).unwrap();
        assert_eq!(read.iter().map(|row| row.input.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let column = rows(TEXTS, vec![tensor(INPUT, &[2, 1], &["a", "b"])], Vec::new()).unwrap();
        assert_eq!(column, read);
        let raw = rows(TEXTS, vec![bare(INPUT, &[2])], vec![b"\x01\0\0\0a\x01\0\0\0b".to_vec()]).unwrap();
        assert_eq!(raw, read);
        let choices = vec![tensor(INPUT, &[1], &["a"]), tensor(CHOICES, &[1, 2], &["x", "y"])];
        assert_eq!(rows(WITH_CHOICES, choices, Vec::new()).unwrap()[0].choices, ["x", "y"]);
        let pair = vec![tensor(PREMISE, &[1], &["p"]), tensor(HYPOTHESIS, &[1], &["h"])];
        let pair = rows(PAIRS, pair, Vec::new()).unwrap();
        assert_eq!((pair[0].premise.as_deref(), pair[0].hypothesis.as_deref()), (Some("p"), Some("h")));
    }

    #[test]
    fn what_is_no_row_is_named() {
        let check = |declared: &[&str], inputs: Vec<InferInputTensor>, raw: Vec<Vec<u8>>, wanted: &str| {
            let found = rows(declared, inputs, raw).unwrap_err();
            let words: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert!(words.join("; ").contains(wanted), "{words:?}");
        };
        let text = |inputs: Vec<InferInputTensor>, wanted: &str| check(TEXTS, inputs, vec![], wanted);
        text(vec![], "inputs.input: is missing: this model reads input");
        text(vec![tensor(INPUT, &[0], &[])], "inputs: have no rows");
        text(vec![tensor(INPUT, &[2], &["a"])], "holds 1 texts, and its shape says 2 times 1");
        text(vec![tensor(INPUT, &[-1], &["a"])], "inputs.input: has the shape [-1]");
        text(vec![tensor(INPUT, &[1, 2], &["a", "b"])], "needs 1 dimensions");
        text(vec![tensor(INPUT, &[9_999], &[])], "the limit of a call is 1000");
        text(vec![tensor(INPUT, &[1], &[""])], "rows[0].input");
        let number = InferInputTensor { datatype: "FP32".to_owned(), ..tensor(INPUT, &[1], &["a"]) };
        text(vec![number], "has the type `FP32`");
        let raw = |raw: Vec<Vec<u8>>, wanted: &str| check(TEXTS, vec![bare(INPUT, &[1])], raw, wanted);
        raw(vec![b"\xff\xff\xff\xffa".to_vec()], "no texts with their lengths");
        raw(vec![b"\x01\0\0\0\xff".to_vec()], "is not UTF-8");
        raw(vec![vec![], vec![]], "has 2 entries for 1 inputs");
        check(TEXTS, vec![tensor(INPUT, &[1], &["a"])], vec![b"\x01\0\0\0a".to_vec()], "elements twice");
        let two = vec![tensor(PREMISE, &[1], &["p"]), tensor(HYPOTHESIS, &[2], &["h", "i"])];
        check(PAIRS, two, vec![], "has 2 rows, and another input has 1");
        let choices = |shape: &[i64], wanted: &str| {
            let inputs = vec![tensor(INPUT, &[1], &["a"]), tensor(CHOICES, shape, &[])];
            check(WITH_CHOICES, inputs, vec![], wanted);
        };
        choices(&[i64::MAX, i64::MAX], "the limit of a call is 1000");
        choices(&[1_000, i64::MAX], "its shape says");
        choices(&[1, 0], "inputs.choices: has no choices: give at least 2");
    }

    #[test]
    fn inputs_are_those_of_the_metadata() {
        let check = |task: &str, names: &[&str], wanted: &[&str]| {
            let declared = inputs_of(&Task::built_in(task).unwrap());
            let inputs: Vec<InferInputTensor> = names.iter().map(|name| tensor(name, &[1], &["a"])).collect();
            let found = check_names(&declared, &inputs).err().unwrap_or_default();
            let words: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(words, wanted, "{task}: {names:?}");
        };
        check("equation", &[INPUT], &[]);
        check("choice", &[CHOICES, INPUT], &[]);
        check("esnli", &[PREMISE, HYPOTHESIS], &[]);
        check("choice", &[INPUT], &["inputs.choices: is missing: this model reads input and choices"]);
        check("nli", &[PREMISE], &["inputs.hypothesis: is missing: this model reads premise and hypothesis"]);
        let undeclared = "inputs.choices: is not an input of this model, which reads input";
        check("equation", &[INPUT, CHOICES], &[undeclared]);
        let wrong = "inputs.text: is not an input of this model, which reads input";
        check("equation", &["text"], &[wrong, "inputs.input: is missing: this model reads input"]);
        check("equation", &[INPUT, INPUT], &["inputs.input: is given twice"]);
    }

    #[test]
    fn answers_go_back_as_they_came() {
        let entry = |label: &str, probability: f64| student::LabelProbability {
            label: label.to_owned(),
            probability,
        };
        let answer = |label: &str| ScoredAnswer {
            label: label.to_owned(),
            choice: Some(student::Choice {
                label: label.to_owned(),
                probabilities: vec![entry("a", 0.25), entry("bc", 0.75)],
                log_probability: 0.0,
                tokens: 1,
            }),
            rationale: "why".to_owned(),
            log_probability: 0.0,
        };
        let wanted = Wanted { label: true, probability: true, rationale: false };
        let written = |is_raw: bool| {
            let mut response = v2::ModelInferResponse::default();
            for column in wanted.columns(vec![answer("a"), answer("bc")]).unwrap() {
                column.write(is_raw, &mut response);
            }
            response
        };
        let typed = written(false);
        assert_eq!(
            typed.outputs.iter().map(|output| output.name.as_str()).collect::<Vec<_>>(),
            [LABEL, PROBABILITY]
        );
        assert_eq!(typed.outputs[0].shape, [2]);
        assert_eq!(
            typed.outputs[0].contents.as_ref().unwrap().bytes_contents,
            [b"a".to_vec(), b"bc".to_vec()]
        );
        assert_eq!(typed.outputs[1].contents.as_ref().unwrap().fp64_contents, [0.25, 0.75]);
        assert!(typed.raw_output_contents.is_empty());
        let raw = written(true);
        assert_eq!(elements(&raw.raw_output_contents[0]).unwrap(), [b"a".to_vec(), b"bc".to_vec()]);
        assert_eq!(raw.raw_output_contents[1], [0.25_f64.to_le_bytes(), 0.75_f64.to_le_bytes()].concat());
        assert!(raw.outputs.iter().all(|output| output.contents.is_none()));
    }
}

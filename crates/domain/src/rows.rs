//! Records as the columns of a database hold them, and back. Both adapters read and write their columns through this
//! module, so that a column means one thing.
//!
//! Integers are 64 bits wide and signed, states and reasons are their names, structures are JSON.
#![allow(missing_docs, reason = "the fields of a row are the columns of the migrations")]

use crate::budget::{Account, Amount, CallBound};
use crate::completion::Parsed;
use crate::event::{Event, EventKind};
use crate::example::{Example, Row};
use crate::ids::{BatchId, CallId, CompletionKey, DatasetId, DistillationId, ModelId, PromptId, RunId};
use crate::ports::{Address, BATCH_MAX, BatchLine, PageRequest, QueuedPrompt, StoreError, StoreResult};
use crate::records::{
    Batch, Completion, Dataset, Distillation, HarvestProgress, LedgerEntry, MetricPoint, Model, PhaseSeconds,
    Prompt, Run,
};
use crate::run::{RunOutcomes, RunPlan, RunPurpose, RunResult};
use crate::spec::Spec;
use crate::state::{PromptState, Reason, Verdict};
use crate::subset::Subset;
use crate::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::str::FromStr;
use uuid::Uuid;

/// Most prompts of one row: 64 samples and a hinted one, for two purposes, with room to spare.
pub const ROW_PROMPTS_MAX: i64 = 256;

/// A count or index.
///
/// # Errors
/// The column holds a number out of its range.
pub fn number<T: TryFrom<i64>>(column: &str, number: i64) -> StoreResult<T> {
    T::try_from(number).map_err(|_| damaged(column, number))
}

/// A state or another value that is kept by its name.
///
/// # Errors
/// The column holds an unknown name.
pub fn named<T: FromStr>(column: &str, text: &str) -> StoreResult<T> {
    text.parse().map_err(|_| damaged(column, text))
}

fn named_maybe<T: FromStr>(column: &str, text: Option<&str>) -> StoreResult<Option<T>> {
    text.map(|text| named(column, text)).transpose()
}

/// A value kept as JSON.
///
/// # Errors
/// The column holds other text.
pub fn json<T: DeserializeOwned>(column: &str, text: &str) -> StoreResult<T> {
    serde_json::from_str(text).map_err(|error| damaged(column, error))
}

fn json_maybe<T: DeserializeOwned>(column: &str, text: Option<&str>) -> StoreResult<Option<T>> {
    text.map(|text| json(column, text)).transpose()
}

/// A content address.
///
/// # Errors
/// The column holds too few or too many bytes.
pub fn key(bytes: &[u8]) -> StoreResult<CompletionKey> {
    CompletionKey::from_slice(bytes).ok_or_else(|| damaged("key", format!("{} bytes", bytes.len())))
}

fn damaged(column: &str, value: impl std::fmt::Display) -> StoreError {
    StoreError::Internal(format!("column {column} holds {value}, which no version of this program wrote"))
}

/// A value as JSON.
///
/// # Errors
/// It has no such form.
pub fn to_json(value: &impl Serialize) -> StoreResult<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Internal(error.to_string()))
}

/// A value with numbers as JSON. One that is not finite would be written as `null`, and could never be read again.
///
/// # Errors
/// A number is not finite.
pub fn finite_json<T: Serialize + DeserializeOwned>(value: &T) -> StoreResult<String> {
    let text = to_json(value)?;
    let read: Result<T, _> = serde_json::from_str(&text);
    read.map_err(|_| StoreError::Invalid("a number is not finite: it cannot be kept".to_owned()))?;
    Ok(text)
}

/// A number that can be kept: finite.
///
/// # Errors
/// It is not.
pub fn finite(number: f64) -> StoreResult<f64> {
    if number.is_finite() {
        return Ok(number);
    }
    Err(StoreError::Invalid(format!("{number} is not finite: it cannot be kept")))
}

/// A number as a column holds it, in 32 or 64 bits.
///
/// # Errors
/// It is too large.
pub fn integer<T: TryFrom<u64>>(number: impl Into<u64>) -> StoreResult<T> {
    let number = number.into();
    T::try_from(number).map_err(|_| StoreError::Invalid(format!("{number} is too large")))
}

/// A limit as it is compared with what is counted. One beyond what a column can count is as good as none.
pub fn limit(limit: Option<u64>) -> i64 {
    limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(i64::MAX)
}

/// Cuts a longer list before the row that `limit` falls into; the first row stays whole in any case.
pub fn whole_rows<T>(items: &mut Vec<T>, limit: usize, row: impl Fn(&T) -> u64) {
    let (Some(first), Some(cut)) = (items.first().map(&row), items.get(limit).map(&row)) else { return };
    items.retain(|item| if cut == first { row(item) == first } else { row(item) < cut });
}

/// Where a page of a list begins: after everything that is not older than (created_at, id). The first page begins before
/// the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Milliseconds of the last item of the page before.
    pub created_at: i64,
    /// Its id.
    pub id: Uuid,
    /// Most items of the page.
    pub limit: i64,
}

impl Cursor {
    /// The place that a caller asks for.
    ///
    /// # Errors
    /// The cursor is not one that [`next`](Self::next) made.
    pub fn read(page: &PageRequest) -> StoreResult<Self> {
        let limit = page.size.clamp(1, BATCH_MAX) as i64;
        let Some(text) = &page.cursor else {
            return Ok(Self { created_at: i64::MAX, id: Uuid::max(), limit });
        };
        let parts =
            text.split_once('-').and_then(|(at, id)| Some((at.parse().ok()?, Uuid::try_parse(id).ok()?)));
        let (created_at, id) = parts.ok_or_else(|| {
            StoreError::Invalid("invalid page token; omit it to start from the first page".to_owned())
        })?;
        Ok(Self { created_at, id, limit })
    }

    /// The cursor after the last of so many items, where the page is full.
    pub fn next(&self, items: usize, last: Option<(Timestamp, Uuid)>) -> Option<String> {
        let (at, id) = last.filter(|_| items as i64 == self.limit)?;
        Some(format!("{}-{}", at.0, id.simple()))
    }
}

/// A row of `datasets`.
#[derive(Debug)]
pub struct DatasetRow {
    pub id: Uuid,
    pub name: String,
    pub state: String,
    pub rows: i64,
    pub rows_train: i64,
    pub rows_validation: i64,
    pub rows_test: i64,
    pub rows_labelled: i64,
    pub fingerprint: String,
    pub created_at: i64,
}

impl TryFrom<DatasetRow> for Dataset {
    type Error = StoreError;

    fn try_from(row: DatasetRow) -> StoreResult<Self> {
        Ok(Self {
            id: DatasetId::from_uuid(row.id),
            name: row.name,
            state: named("state", &row.state)?,
            rows: number("rows", row.rows)?,
            rows_by_split: [
                number("rows_train", row.rows_train)?,
                number("rows_validation", row.rows_validation)?,
                number("rows_test", row.rows_test)?,
            ],
            rows_labelled: number("rows_labelled", row.rows_labelled)?,
            fingerprint: row.fingerprint,
            created_at: Timestamp(row.created_at),
        })
    }
}

/// A row of `examples`.
#[derive(Debug)]
pub struct ExampleRow {
    pub row_index: i64,
    pub example: String,
}

impl TryFrom<ExampleRow> for Row {
    type Error = StoreError;

    fn try_from(row: ExampleRow) -> StoreResult<Self> {
        let example: Example = json("example", &row.example)?;
        Ok(Self { index: number("row_index", row.row_index)?, example })
    }
}

/// A row of `distillations`.
#[derive(Debug)]
pub struct DistillationRow {
    pub id: Uuid,
    pub spec: String,
    pub dataset_id: Uuid,
    pub state: String,
    pub reason: String,
    pub resume_state: Option<String>,
    pub created_at: i64,
    pub updated_at: i64,
    pub run_id: Option<Uuid>,
    pub model_id: Option<Uuid>,
    pub teacher_accuracy: Option<String>,
    pub harvest_seconds: f64,
    pub train_seconds: f64,
    pub evaluate_seconds: f64,
    pub traceparent: String,
}

impl TryFrom<DistillationRow> for Distillation {
    type Error = StoreError;

    fn try_from(row: DistillationRow) -> StoreResult<Self> {
        Ok(Self {
            id: DistillationId::from_uuid(row.id),
            spec: json("spec", &row.spec)?,
            dataset: DatasetId::from_uuid(row.dataset_id),
            state: named("state", &row.state)?,
            reason: row.reason,
            resume_state: named_maybe("resume_state", row.resume_state.as_deref())?,
            created_at: Timestamp(row.created_at),
            updated_at: Timestamp(row.updated_at),
            run: row.run_id.map(RunId::from_uuid),
            model: row.model_id.map(ModelId::from_uuid),
            teacher_accuracy: json_maybe("teacher_accuracy", row.teacher_accuracy.as_deref())?,
            seconds: PhaseSeconds {
                harvest: row.harvest_seconds,
                train: row.train_seconds,
                evaluate: row.evaluate_seconds,
            },
            traceparent: row.traceparent,
        })
    }
}

/// A row of `events`.
#[derive(Debug)]
pub struct EventRow {
    pub distillation_id: Uuid,
    pub sequence: i64,
    pub at: i64,
    pub kind: String,
}

impl TryFrom<EventRow> for Event {
    type Error = StoreError;

    fn try_from(row: EventRow) -> StoreResult<Self> {
        let kind: EventKind = json("kind", &row.kind)?;
        Ok(Self {
            distillation: DistillationId::from_uuid(row.distillation_id),
            sequence: number("sequence", row.sequence)?,
            at: Timestamp(row.at),
            kind,
        })
    }
}

/// Where an answer is, or will be: a looked-up key, the one that counts for it, and who answered under that.
#[derive(Debug)]
pub struct AddressRow {
    pub asked: Vec<u8>,
    pub key: Vec<u8>,
    pub model: Option<String>,
}

/// The addresses of these keys, in their order.
///
/// # Errors
/// A row is damaged, or there is none for a key.
pub fn addresses(keys: &[CompletionKey], rows: Vec<AddressRow>) -> StoreResult<Vec<Address>> {
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        found.insert(key(&row.asked)?, Address { key: key(&row.key)?, model: row.model });
    }
    let absent =
        |asked: &CompletionKey| StoreError::Internal(format!("the addresses after {asked} have no end"));
    keys.iter().map(|asked| found.get(asked).cloned().ok_or_else(|| absent(asked))).collect()
}

/// An answered prompt, and its completion's address.
#[derive(Debug)]
pub struct AnsweredRow {
    pub id: Uuid,
    pub row_index: i64,
    pub key: Vec<u8>,
}

/// A list of reasons as the statements compare it with one: between commas.
pub fn reasons(reasons: &[Reason]) -> String {
    reasons.iter().map(|reason| format!(",{reason},")).collect()
}

/// What a job has spent, from its row of `distillations`.
#[derive(Debug)]
pub struct SpentRow {
    pub calls: i64,
    pub cache_hits: i64,
    pub calls_paid_twice: i64,
    pub tokens_in: i64,
    pub tokens_out: i64,
    pub money_micros: i64,
    pub obstacle: String,
}

impl TryFrom<SpentRow> for HarvestProgress {
    type Error = StoreError;

    fn try_from(row: SpentRow) -> StoreResult<Self> {
        Ok(Self {
            calls: number("calls", row.calls)?,
            cache_hits: number("cache_hits", row.cache_hits)?,
            calls_paid_twice: number("calls_paid_twice", row.calls_paid_twice)?,
            tokens_in: number("tokens_in", row.tokens_in)?,
            tokens_out: number("tokens_out", row.tokens_out)?,
            money_micros: number("money_micros", row.money_micros)?,
            obstacle: row.obstacle,
            ..Self::default()
        })
    }
}

/// The calls of a job that are not ended, together: those that are being made, or those in doubt.
#[derive(Debug)]
pub struct AmountRow {
    pub distillation_id: Uuid,
    pub in_doubt: bool,
    pub calls: i64,
    pub tokens: i64,
    pub money_micros: i64,
}

impl AmountRow {
    /// The amount.
    ///
    /// # Errors
    /// A column is damaged.
    pub fn amount(&self) -> StoreResult<Amount> {
        Ok(Amount {
            calls: number("calls", self.calls)?,
            tokens: number("tokens", self.tokens)?,
            money_micros: number("money_micros", self.money_micros)?,
        })
    }

    /// Adds the amount to a job's account.
    ///
    /// # Errors
    /// A column is damaged.
    pub fn add_to(&self, account: &mut Account) -> StoreResult<()> {
        let sum = if self.in_doubt { &mut account.in_doubt } else { &mut account.open };
        *sum = sum.plus(self.amount()?);
        Ok(())
    }
}

/// How many prompts of a job are alike.
#[derive(Debug)]
pub struct GroupRow {
    pub state: String,
    pub purpose: String,
    pub verdict: Option<String>,
    pub reason: Option<String>,
    pub count: i64,
}

impl GroupRow {
    /// Counts the group in a job's progress.
    ///
    /// # Errors
    /// A column is damaged.
    pub fn count_in(&self, progress: &mut HarvestProgress) -> StoreResult<()> {
        progress.count(
            named("state", &self.state)?,
            named("purpose", &self.purpose)?,
            named_maybe("verdict", self.verdict.as_deref())?,
            named_maybe("reason", self.reason.as_deref())?,
            number("count", self.count)?,
        );
        Ok(())
    }
}

/// An entry for the queue: a row of `outbox` or `prompts` with its job's trace.
#[derive(Debug)]
pub struct QueuedPromptRow {
    pub prompt: Uuid,
    pub traceparent: String,
}

impl From<QueuedPromptRow> for QueuedPrompt {
    fn from(row: QueuedPromptRow) -> Self {
        Self { prompt: PromptId::from_uuid(row.prompt), traceparent: row.traceparent }
    }
}

/// A row of `prompts`, as far as it is a question and its lease.
#[derive(Debug)]
pub struct PromptRow {
    pub id: Uuid,
    pub distillation_id: Uuid,
    pub row_index: i64,
    pub sample: i64,
    pub profile: i64,
    pub hinted: bool,
    pub purpose: String,
    pub key: Vec<u8>,
    pub state: String,
    pub attempt: i64,
    pub failures: i64,
    pub error: String,
    /// Its lease, where it has one, ran out.
    pub expired: bool,
    pub tokens_max: i64,
    pub money_micros_max: i64,
}

impl TryFrom<PromptRow> for Prompt {
    type Error = StoreError;

    fn try_from(row: PromptRow) -> StoreResult<Self> {
        Ok(Self {
            id: PromptId::from_uuid(row.id),
            distillation: DistillationId::from_uuid(row.distillation_id),
            row: number("row_index", row.row_index)?,
            sample: number("sample", row.sample)?,
            profile: number("profile", row.profile)?,
            hinted: row.hinted,
            purpose: named("purpose", &row.purpose)?,
            key: key(&row.key)?,
            state: named("state", &row.state)?,
            attempt: number("attempt", row.attempt)?,
            failures: number("failures", row.failures)?,
            error: row.error,
        })
    }
}

/// A prompt with its lease, live or not.
#[derive(Debug)]
pub struct Held {
    pub prompt: Prompt,
    /// Its lease, where it has one, ran out.
    pub expired: bool,
    /// The most that asking it once can cost.
    pub bound: CallBound,
}

impl TryFrom<PromptRow> for Held {
    type Error = StoreError;

    fn try_from(row: PromptRow) -> StoreResult<Self> {
        Ok(Self {
            expired: row.expired,
            bound: CallBound {
                tokens: number("tokens_max", row.tokens_max)?,
                money_micros: number("money_micros_max", row.money_micros_max)?,
            },
            prompt: row.try_into()?,
        })
    }
}

/// A row of `batches`.
#[derive(Debug)]
pub struct BatchRow {
    pub id: Uuid,
    pub distillation_id: Uuid,
    pub profile: i64,
    pub state: String,
    pub submission: i64,
    pub name: String,
    pub lines: i64,
    pub note: String,
    pub created_at: i64,
    /// Milliseconds since its state last changed.
    pub in_state_ms: i64,
}

impl TryFrom<BatchRow> for Batch {
    type Error = StoreError;

    fn try_from(row: BatchRow) -> StoreResult<Self> {
        Ok(Self {
            id: BatchId::from_uuid(row.id),
            distillation: DistillationId::from_uuid(row.distillation_id),
            profile: number("profile", row.profile)?,
            state: named("state", &row.state)?,
            submission: number("submission", row.submission)?,
            name: row.name,
            lines: number("lines", row.lines)?,
            note: row.note,
            created_at: Timestamp(row.created_at),
            // Clocks of other machines may be ahead.
            in_state_ms: number("in_state_ms", row.in_state_ms.max(0))?,
        })
    }
}

/// A call of a batch with its prompt, as far as that is a question, and its row.
#[derive(Debug)]
pub struct BatchLineRow {
    pub call: Uuid,
    pub call_attempt: i64,
    pub id: Uuid,
    pub distillation_id: Uuid,
    pub row_index: i64,
    pub sample: i64,
    pub profile: i64,
    pub hinted: bool,
    pub purpose: String,
    pub key: Vec<u8>,
    pub state: String,
    pub failures: i64,
    pub error: String,
    pub example: String,
}

impl TryFrom<BatchLineRow> for BatchLine {
    type Error = StoreError;

    fn try_from(row: BatchLineRow) -> StoreResult<Self> {
        Ok(Self {
            call: CallId::from_uuid(row.call),
            prompt: Prompt {
                id: PromptId::from_uuid(row.id),
                distillation: DistillationId::from_uuid(row.distillation_id),
                row: number("row_index", row.row_index)?,
                sample: number("sample", row.sample)?,
                profile: number("profile", row.profile)?,
                hinted: row.hinted,
                purpose: named("purpose", &row.purpose)?,
                key: key(&row.key)?,
                state: named("state", &row.state)?,
                attempt: number("attempt", row.call_attempt)?,
                failures: number("failures", row.failures)?,
                error: row.error,
            },
            example: json("example", &row.example)?,
        })
    }
}

/// A row of `prompts`, as far as it says who may ask it.
#[derive(Debug)]
pub struct LeaseRow {
    pub distillation_id: Uuid,
    pub state: String,
    pub attempt: i64,
}

impl LeaseRow {
    /// Whether a lease of this attempt holds. One that ran out holds until another is taken.
    ///
    /// # Errors
    /// A column is damaged.
    pub fn holds(&self, attempt: u32) -> StoreResult<bool> {
        let state: PromptState = named("state", &self.state)?;
        Ok(state == PromptState::Leased && self.attempt == i64::from(attempt))
    }
}

/// A row of `completions`.
#[derive(Debug)]
pub struct CompletionRow {
    pub key: Vec<u8>,
    pub text: String,
    pub finish_reason: String,
    pub model: String,
    pub tokens_in: i64,
    pub tokens_out: i64,
    pub money_micros: i64,
    pub seconds: f64,
}

impl TryFrom<CompletionRow> for Completion {
    type Error = StoreError;

    fn try_from(row: CompletionRow) -> StoreResult<Self> {
        Ok(Self {
            key: key(&row.key)?,
            text: row.text,
            finish_reason: named("finish_reason", &row.finish_reason)?,
            model: row.model,
            tokens_in: number("tokens_in", row.tokens_in)?,
            tokens_out: number("tokens_out", row.tokens_out)?,
            money_micros: number("money_micros", row.money_micros)?,
            seconds: row.seconds,
        })
    }
}

/// An answered row of `prompts` with its completion.
#[derive(Debug)]
pub struct EntryRow {
    pub id: Uuid,
    pub distillation_id: Uuid,
    pub row_index: i64,
    pub sample: i64,
    pub hinted: bool,
    pub purpose: String,
    pub rationale: String,
    pub label: Option<String>,
    pub parse_reason: Option<String>,
    pub verdict: Option<String>,
    pub reason: Option<String>,
    pub weight: f64,
    pub text: String,
    pub model: String,
}

impl TryFrom<EntryRow> for LedgerEntry {
    type Error = StoreError;

    fn try_from(row: EntryRow) -> StoreResult<Self> {
        Ok(Self {
            distillation: DistillationId::from_uuid(row.distillation_id),
            prompt: PromptId::from_uuid(row.id),
            row: number("row_index", row.row_index)?,
            sample: number("sample", row.sample)?,
            hinted: row.hinted,
            purpose: named("purpose", &row.purpose)?,
            parsed: Parsed {
                rationale: row.rationale,
                label: row.label,
                reason: named_maybe("parse_reason", row.parse_reason.as_deref())?,
            },
            verdict: named_maybe("verdict", row.verdict.as_deref())?.unwrap_or(Verdict::Unjudged),
            reason: named_maybe("reason", row.reason.as_deref())?,
            weight: row.weight,
            completion: row.text,
            model: row.model,
        })
    }
}

/// A row of `runs`, with the specification of its job where it has none of its own.
#[derive(Debug)]
pub struct RunRow {
    pub id: Uuid,
    pub distillation_id: Uuid,
    pub state: String,
    pub fence: i64,
    pub trainer: String,
    pub step: i64,
    pub resume_path: String,
    pub reason: String,
    pub created_at: i64,
    pub purpose: String,
    pub study: String,
    pub cell: String,
    pub spec: String,
    pub rows_millionths: i64,
    pub rows_seed: i64,
    pub share: String,
    pub ledger_fingerprint: String,
    pub path: String,
    pub manifest_sha256: String,
    pub parameters: i64,
    pub validation: Option<String>,
    pub test: Option<String>,
    pub train_seconds: f64,
    pub evaluate_seconds: f64,
}

impl RunRow {
    fn plan(&self) -> StoreResult<RunPlan> {
        let spec: Spec = json("spec", &self.spec)?;
        let purpose = RunPurpose::read(&self.purpose, &self.study, &self.cell)
            .map_err(|violation| damaged("purpose", violation))?;
        if purpose.is_final() {
            return Ok(RunPlan::of_job(&spec));
        }
        let rows =
            Subset::of_millionths(number("rows_millionths", self.rows_millionths)?, unsigned(self.rows_seed))
                .ok_or_else(|| damaged("rows_millionths", self.rows_millionths))?;
        let share = (!self.share.is_empty()).then(|| named("share", &self.share)).transpose()?;
        Ok(RunPlan { share, ..RunPlan::new(purpose, rows, &spec) })
    }

    fn result(&self) -> StoreResult<Option<RunResult>> {
        if self.path.is_empty() {
            return Ok(None);
        }
        Ok(Some(RunResult {
            path: self.path.clone(),
            manifest_sha256: self.manifest_sha256.clone(),
            parameters: number("parameters", self.parameters)?,
            validation: json_maybe("validation", self.validation.as_deref())?,
            test: json_maybe("test", self.test.as_deref())?,
            train_seconds: self.train_seconds,
            evaluate_seconds: self.evaluate_seconds,
        }))
    }
}

/// What the column `outcomes` of a run says; nothing where it is empty.
///
/// # Errors
/// It cannot be read.
pub fn outcomes(column: Option<&str>) -> StoreResult<RunOutcomes> {
    Ok(json_maybe("outcomes", column)?.unwrap_or_default())
}

/// The outcomes of a run as the column holds them; `None` for a run that names no row.
///
/// # Errors
/// Never, for rows by number.
pub fn outcomes_column(outcomes: &RunOutcomes) -> StoreResult<Option<String>> {
    (*outcomes != RunOutcomes::default()).then(|| finite_json(outcomes)).transpose()
}

/// The bits of an unsigned number as a column holds them.
pub fn bits(number: u64) -> i64 {
    i64::from_ne_bytes(number.to_ne_bytes())
}

/// The unsigned number whose bits a column holds.
fn unsigned(bits: i64) -> u64 {
    u64::from_ne_bytes(bits.to_ne_bytes())
}

impl TryFrom<RunRow> for Run {
    type Error = StoreError;

    fn try_from(row: RunRow) -> StoreResult<Self> {
        Ok(Self {
            plan: row.plan()?,
            result: row.result()?,
            ledger_fingerprint: row.ledger_fingerprint,
            id: RunId::from_uuid(row.id),
            distillation: DistillationId::from_uuid(row.distillation_id),
            state: named("state", &row.state)?,
            fence: number("fence", row.fence)?,
            trainer: row.trainer,
            step: number("step", row.step)?,
            resume_path: row.resume_path,
            reason: row.reason,
            created_at: Timestamp(row.created_at),
        })
    }
}

/// A row of `metrics`.
#[derive(Debug)]
pub struct MetricRow {
    pub step: i64,
    pub name: String,
    pub value: f64,
}

impl TryFrom<MetricRow> for MetricPoint {
    type Error = StoreError;

    fn try_from(row: MetricRow) -> StoreResult<Self> {
        Ok(Self { step: number("step", row.step)?, name: row.name, value: row.value })
    }
}

/// A row of `models`.
#[derive(Debug)]
pub struct ModelRow {
    pub id: Uuid,
    pub name: String,
    pub version: i64,
    pub distillation_id: Uuid,
    pub run_id: Uuid,
    pub path: String,
    pub manifest_sha256: String,
    pub parameters: i64,
    pub validation: Option<String>,
    pub test: Option<String>,
    pub created_at: i64,
    pub traceparent: String,
}

impl TryFrom<ModelRow> for Model {
    type Error = StoreError;

    fn try_from(row: ModelRow) -> StoreResult<Self> {
        Ok(Self {
            id: ModelId::from_uuid(row.id),
            name: row.name,
            version: number("version", row.version)?,
            distillation: DistillationId::from_uuid(row.distillation_id),
            run: RunId::from_uuid(row.run_id),
            path: row.path,
            manifest_sha256: row.manifest_sha256,
            parameters: number("parameters", row.parameters)?,
            validation: json_maybe("validation", row.validation.as_deref())?,
            test: json_maybe("test", row.test.as_deref())?,
            created_at: Timestamp(row.created_at),
            traceparent: row.traceparent,
        })
    }
}

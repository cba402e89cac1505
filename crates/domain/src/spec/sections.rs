//! Every setting of a specification, written once.
//!
//! To add one: its line here, and its field in `spec.proto` (then `cargo xtask codegen` and `cargo xtask reference`).
//! A line reads: documentation, `required` or `optional`, key, type, default, range. Defaults follow the paper where a
//! checkpoint is fine-tuned (section 4.1 and appendix A); from scratch they are ones that learn.

use crate::named::{Value, named};
use crate::objective::Objective;
use crate::spec::field::{options, section};
use crate::spec::hint::Hint;
use serde::{Deserialize, Serialize};

named!(
    /// How the learning rate moves after warm-up.
    Schedule {
        /// It stays.
        Constant = "constant",
        /// It falls to zero in a straight line.
        Linear = "linear",
        /// It falls to zero along half a cosine.
        Cosine = "cosine",
        /// It falls with the inverse square root of the step.
        InverseSquareRoot = "inverse_square_root",
    }
);

named!(
    /// The number format of the forward and backward pass. Master weights, norms, softmax and loss are float32 always.
    Precision {
        /// bfloat16 where the device multiplies it fast, else float32; the choice is recorded in the provenance.
        Auto = "auto",
        /// float32.
        Float32 = "float32",
        /// bfloat16.
        Bfloat16 = "bfloat16",
    }
);

named!(
    /// Which label the student learns.
    LabelSource {
        /// The dataset's.
        Gold = "gold",
        /// The teacher's: no gold labels needed.
        Teacher = "teacher",
    }
);

named!(
    /// Whose rationales a train row is learnt with.
    Rationales {
        /// The row's own.
        Own = "own",
        /// Another row's, drawn with the seed, and the row's own label: a control, in which a rationale says nothing of its row.
        Shuffled = "shuffled",
    }
);

named!(
    /// The named sizes of a student that starts from scratch.
    StudentSize {
        /// About a million parameters: for tests.
        Tiny = "tiny",
        /// About three million parameters, with a small vocabulary.
        Mini = "mini",
        /// T5 v1.1 small, 60 million without its large vocabulary.
        Small = "small",
        /// T5 v1.1 base.
        Base = "base",
        /// T5 v1.1 large.
        Large = "large",
    }
);

named!(
    /// How long the teacher is asked.
    Until {
        /// About every row.
        Off = "off",
        /// About twice as many rows, from an eighth on, until short probes show that more rationales do not help.
        NoGain = "no_gain",
    }
);

named!(
    /// Which train rows are asked about before the others, with `until`.
    Select {
        /// Any, in the proportions of the labels.
        Stratified = "stratified",
        /// Up to half of them rows that the probe before gets wrong.
        Needed = "needed",
    }
);

/// Where rationales come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeacherSource {
    /// The operator's profile of this name is asked.
    Profile(String),
    /// The answers that came with the dataset are judged; no teacher is asked.
    Imported,
}

/// The profile name that means: judge what came with the data, ask no teacher.
pub const PROFILE_IMPORTED: &str = "imported";
/// The profile name that means: no rationales at all.
pub const PROFILE_NONE: &str = "none";

impl TeacherSource {
    /// The profile's name, as a user writes it.
    pub fn profile(&self) -> &str {
        match self {
            Self::Profile(name) => name,
            Self::Imported => PROFILE_IMPORTED,
        }
    }
}

impl TeacherSpec {
    /// Whether it is asked until rationales stop helping.
    pub fn stops_early(&self) -> bool {
        self.until == Until::NoGain
    }

    /// Whether prompts are asked in batches.
    pub fn is_batched(&self) -> bool {
        self.batch && self.source != TeacherSource::Imported
    }

    /// The names of the profiles to ask, the cheapest first; none for imported answers.
    pub fn profiles(&self) -> Vec<&str> {
        match (&self.source, &self.profiles) {
            (TeacherSource::Imported, _) => Vec::new(),
            (TeacherSource::Profile(_), Some(names)) => names.iter().map(String::as_str).collect(),
            (TeacherSource::Profile(name), None) => vec![name],
        }
    }
}

/// What the defaults of holes depend on, apart from the fields above them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    /// Whether the student starts from scratch.
    pub(crate) is_scratch: bool,
    /// Whether there are rationales.
    pub(crate) has_teacher: bool,
    /// The task's limit of a completion.
    pub(crate) tokens_max: u32,
}

impl Context {
    /// One default from scratch, another where a checkpoint is fine-tuned.
    fn pick<T>(self, scratch: T, tuned: T) -> T {
        if self.is_scratch { scratch } else { tuned }
    }
}

options! {
    /// Hard limits on what a distillation may spend; an absent one is no limit.
    "teacher.budget": Budget, listed by budget_fields {
        /// Most calls to the teacher (cache hits are free).
        prompts: u64;
        /// Most tokens, in and out together.
        tokens: u64;
        /// Most money, in millionths of the profile's currency.
        money_micros: u64;
    }
}

impl Copy for Budget {}

impl Value for Budget {
    const KIND: &'static str = "section";

    fn text(&self) -> String {
        self.given().into_iter().map(|(key, text)| format!("{key}={text};")).collect()
    }
}

section! {
    /// How the teacher is asked.
    "teacher": TeacherSpec {
        /// Whom to ask.
        source: TeacherSource
    } from TeacherDraft {
        /// The operator's profile to ask; `imported` judges the answers that came with the data, `none` learns labels
        /// only. Default: `imported`.
        profile: String
    }, listed by teacher_fields, with context: Context {
        /// The operator's profiles to ask, the cheapest first, in place of `profile`: each further one is asked only about
        /// rows where gold shows that the ones before are wrong.
        optional profiles: Vec<String> = None;
        /// How many train rows get a rationale (the first ones, in row order); absent for all.
        optional rows: u32 = None;
        /// Samples per example.
        required samples: u32 = 1, in 1.0..=64.0;
        /// Sampling temperature; 0 is greedy. Default: 0 for one sample, 0.7 for more.
        required temperature: f64 = if samples > 1 { 0.7 } else { 0.0 }, in 0.0..=2.0;
        /// Nucleus mass.
        required top_p: f64 = 1.0, in 0.01..=1.0;
        /// Most tokens of a completion. Default: the task's.
        required tokens_max: u32 = context.tokens_max, in 1.0..=8192.0;
        /// Whether the teacher is measured on test rows too.
        required evaluate: bool = true;
        /// Most test rows that the teacher is measured on; those without a gold label are never asked about.
        required evaluate_rows: u32 = 200;
        /// Train rows that are asked about first: where fewer than half of their answers can be read, the job pauses before
        /// the rest is paid for. 0 asks about all rows at once.
        required smoke_rows: u32 = 16, in 0.0..=4096.0;
        /// Ask through the provider's batch API: at a part of the price (`price_batch_factor` of the profile, by default half),
        /// answered within a day.
        required batch: bool = false;
        /// Rows that one call asks about: the exemplars are paid for once for all of them. Rows whose answers are not found
        /// again in the teacher's text are asked about alone.
        required rows_per_call: u32 = 1, in 1.0..=32.0;
        /// Ask about an eighth, a quarter, half and all of the train rows, and stop as soon as short probes show that more
        /// rationales do not help: `no_gain`.
        required until: Until = Until::Off;
        /// Which train rows are asked about first, with `until`.
        required select: Select = Select::Stratified;
        /// Optimiser steps of a probe of `until`. Default: a quarter of `training.steps`.
        optional probe_steps: u32 = None, in 1.0..=1e7;
        /// What may be spent.
        required budget: Budget = Budget::default();
    }
}

section! {
    /// Which completions train the student.
    "judging": Judging from JudgingDraft, listed by judging_fields, with _context: Context {
        /// Which label the student learns. Default: `gold`; where no train row has a label, `teacher`.
        required label: LabelSource = LabelSource::Gold;
        /// Keep a rationale only where its label agrees with gold. Default: true with gold labels, false with the
        /// teacher's.
        required agree: bool = label == LabelSource::Gold;
        /// Ask with the gold label given (rationalisation, Zelikman et al. 2022): `after`, where no sample agrees, or `first`.
        required hint: Hint = Hint::Off;
        /// Self-consistency: keep the rationales of the label that most samples reach, each weighted 1/kept.
        required vote: bool = false;
        /// A row's samples are asked a few at a time until the vote is decided with this probability; 1 asks all of them.
        required vote_confidence: f64 = 0.9, in 0.5..=1.0;
    }
}

impl Copy for Judging {}
impl Eq for Judging {}

options! {
    /// What the student starts from: a registered checkpoint (`base`), or from scratch.
    "student": StudentDraft, listed by student_fields {
        /// The size, from scratch only. Default: `mini`.
        size: StudentSize;
        /// Entries of the tokenizer, from scratch only. Default: 2048.
        vocabulary: u32, in 300.0..=64000.0;
        /// The registered checkpoint to start from; absent for from scratch.
        base: String;
    }
}

section! {
    /// How the student is trained.
    "training": TrainingSpec from TrainingDraft, listed by training_fields, with context: Context {
        /// What the student is trained to write. Default: `step_by_step` where there is a teacher, else `standard`.
        required objective: Objective = Objective::default_for(context.has_teacher);
        /// Whose rationales a train row is learnt with.
        required rationales: Rationales = Rationales::Own;
        /// L = alpha * L_label + (1 - alpha) * L_rationale.
        required alpha: f64 = 0.5, in 0.0..=1.0;
        /// Peak learning rate of AdamW.
        required learning_rate: f64 = context.pick(1e-3, 5e-5), in 1e-9..=10.0;
        /// How the learning rate moves after warm-up.
        required schedule: Schedule = context.pick(Schedule::Cosine, Schedule::Linear);
        /// Optimiser steps at most.
        required steps: u32 = context.pick(2_000, 10_000), in 1.0..=1e7;
        /// Steps of linear warm-up. Default: a twentieth of `steps` from scratch, none for a checkpoint.
        required warmup_steps: u32 = context.pick(steps / 20, 0), in 0.0..=1e7;
        /// Examples of one optimiser step (a label row and, where there is one, a rationale row each).
        required batch_examples: u32 = context.pick(32, 64), in 1.0..=65536.0;
        /// Most padded tokens of one forward pass; a larger batch is accumulated in parts.
        required batch_tokens_max: u32 = 16_384, in 64.0..=1e7;
        /// Inputs are cut at this many tokens.
        required input_tokens_max: u32 = 1024, in 4.0..=8192.0;
        /// Targets are cut at this many tokens.
        required target_tokens_max: u32 = 256, in 2.0..=2048.0;
        /// AdamW's decoupled weight decay.
        required weight_decay: f64 = context.pick(0.01, 0.0), in 0.0..=1.0;
        /// The global gradient norm is clipped at this value.
        required clip_norm: f64 = 1.0, in 1e-6..=1e6;
        /// Dropout; absent keeps the checkpoint's. Default from scratch: 0.
        optional dropout: f64 = context.pick(Some(0.0), None), in 0.0..=0.9;
        /// Steps between validations. Default: a tenth of `steps`.
        required evaluate_every_steps: u32 = (steps / 10).max(1), in 1.0..=1e7;
        /// Stop after this many validations without a better one, counted from the first right answer on, and where every
        /// validation row is right; 0 never stops early.
        required patience: u32 = 5, in 0.0..=1e6;
        /// Fraction of the train rows held out as validation where no validation row has a label. They are measured against
        /// the label that the student learns.
        required holdout_fraction: f64 = 0.1, in 0.001..=0.5;
        /// Steps between writes of the resume state. Default: a tenth of `steps`.
        required checkpoint_every_steps: u32 = (steps / 10).max(1), in 1.0..=1e7;
        /// The seed of everything random.
        required seed: u64 = 0;
        /// The number format of the passes.
        required precision: Precision = Precision::Auto;
    }
}

section! {
    /// The grid of `distillery study`: every objective with every fraction, seed and size, and two controls, which are in every
    /// study: `none` learns labels only, `shuffled` learns as the first objective, with other rows' rationales. Other verbs pass it
    /// over.
    "study": StudySpec from StudyDraft, listed by study_fields, with _context: () {
        /// What students are trained to write, besides the controls.
        required objectives: Vec<Objective> = vec![Objective::StepByStep];
        /// Fractions of the train rows, each above 0 and at most 1; 1 is one of them.
        required fractions: Vec<f64> = vec![0.25, 1.0];
        /// A student for each of these seeds, which draw the rows of a fraction, the weights and the order of the rows.
        required seeds: Vec<u64> = vec![0, 1, 2];
        /// Sizes of students, from scratch only. Default: the one of `[student]`.
        optional sizes: Vec<StudentSize> = None;
        /// A difference of up to this many points does not matter.
        required margin: f64 = 2.0, in 0.0..=100.0;
        /// How often, in percent, an answer has to be right that the student gives itself: rows of which it is less sure go to the
        /// teacher, and the study says below which log-probability that is, and how many rows they are. Absent: not asked.
        optional accuracy: f64 = None, in 0.0..=100.0;
    }
}

//! What encoder and decoder share: activations and products.
#![allow(unsafe_code, reason = "workers take disjoint parts of the pass's buffers")]

use crate::finish::{Floats, RowSums, Sums, activate, finish, finish_row, multiply_floats};
use crate::lanes::{Vectors, from_bfloat16};
use crate::model::Model;
use crate::plan::{FeedForward, Linear, Norm};
use crate::pool::Worker;
use crate::quantise::{Form, NormWeights, quantise};
use crate::shape::Precision;
use crate::tile::{Operands, PANEL, PANELS, ROWS, STRIDE, Tile};
use crate::workspace::{Activations, OWN_ROWS_MAX, Scratch, Workspace};
use std::ops::Range;

/// From so many rows on, workers of the encoder share rows rather than columns.
const SHARED_ROWS_MIN: usize = 128;

/// Weights that stay in the second cache: 512 KiB.
const STRIP_WORDS: usize = 128 << 10;

/// Some rows and columns of a product.
pub(crate) struct Group<'a> {
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
    /// `[rows][STRIDE]`.
    values: &'a [f32],
}

impl Group<'_> {
    /// Each row with its values.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let width = self.columns.len();
        let rows = self.values.chunks_exact(STRIDE).map(move |row| row.get(..width).unwrap_or_default());
        self.rows.clone().zip(rows)
    }
}

/// Where a product goes.
pub(crate) enum Sink<'a> {
    /// Into `projected`, whose rows are as long as the product's.
    Projected,
    /// Onto the residual stream.
    States,
    /// To a function, a group at a time.
    Each(&'a mut dyn FnMut(&Group<'_>)),
}

/// One worker's view of a pass.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Model,
    pub(crate) worker: &'a Worker<'a>,
    pub(crate) space: &'a Workspace,
    pub(crate) vectors: Vectors,
    pub(crate) tile: Tile,
    /// Rows of the pass.
    pub(crate) rows: usize,
}

/// Which numbers a product reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The residual stream.
    States,
    /// What was attended.
    Attended,
    /// The feed-forward layer's inside.
    Wide,
}

impl<'a> Pass<'a> {
    /// This worker's scratch.
    pub(crate) fn scratch(&self) -> &'a Scratch {
        #[allow(clippy::indexing_slicing, reason = "there is one for every worker")]
        &self.space.scratch[self.worker.index]
    }

    /// Reads the embeddings of `ids` into the residual stream.
    pub(crate) fn embed(&self, table: &Range<usize>, ids: &[u32]) {
        let width = self.model.plan.widths.model;
        for row in self.worker.share(self.rows, 1) {
            // SAFETY: each row is this worker's alone until the barrier.
            let states = unsafe { self.space.states.part_mut(row * width..(row + 1) * width) };
            let id = ids.get(row).copied().unwrap_or(0);
            for (state, bits) in states.iter_mut().zip(self.model.embedding(table, id)) {
                *state = from_bfloat16(*bits);
            }
        }
        self.worker.barrier();
    }

    /// The activations of all rows for `linear`. All that was written to the source lies behind a barrier.
    pub(crate) fn prepare(&self, linear: &Linear, source: Source, norm: Option<&Norm>) -> &'a Activations {
        let own = self.rows <= OWN_ROWS_MAX || self.worker.count == 1;
        let (index, rows) =
            if own { (self.worker.index, 0..self.rows) } else { (0, self.worker.share(self.rows, 1)) };
        #[allow(clippy::indexing_slicing, reason = "there is one for every worker")]
        let activations = &self.space.activations[index];
        let norm = norm.map(|norm| NormWeights {
            weights: self.model.numbers(norm),
            epsilon: self.model.shape.layer_norm_epsilon as f32,
            width: self.model.shape.d_model,
        });
        for row in rows {
            self.prepare_row(activations, linear, source, norm, row);
        }
        if !own {
            self.worker.barrier();
        }
        activations
    }

    fn prepare_row(
        &self,
        activations: &Activations,
        linear: &Linear,
        source: Source,
        norm: Option<NormWeights<'_>>,
        row: usize,
    ) {
        let source = match source {
            Source::States => &self.space.states,
            Source::Attended => &self.space.attended,
            Source::Wide => &self.space.wide,
        };
        let place = row * linear.depth..(row + 1) * linear.depth;
        let low = activations.rows * linear.depth;
        // SAFETY: nobody writes the source between two barriers in which it is prepared. The row of the activations is this
        // worker's: either the activations are, or its share of the rows. The scratch row is its own.
        unsafe {
            let form = match linear.precision {
                Precision::Int8 => Form::Bytes(activations.bytes.part_mut(place.clone())),
                Precision::Int8Wide => Form::Words(
                    activations.bytes.part_mut(place.clone()),
                    activations.bytes.part_mut(low + place.start..low + place.end),
                ),
                Precision::Bfloat16 => Form::Floats(activations.floats.part_mut(place.clone())),
            };
            let scratch = self.scratch().row.part_mut(0..linear.depth);
            let scale = quantise(self.vectors, source.part(place), norm, form, scratch);
            activations.scales.part_mut(row..row + 1).fill(scale);
        }
    }

    /// Some rows times some panels of `linear`, a group at a time. `rows` begins at a multiple of 32.
    pub(crate) fn multiply(
        &self,
        linear: &Linear,
        activations: &Activations,
        rows: Range<usize>,
        panels: Range<usize>,
        mut sink: Sink<'_>,
    ) {
        let scratch = self.scratch();
        // SAFETY: the scratch is this worker's own, and nothing else holds its parts during a product.
        let (sums, values) = unsafe {
            (scratch.sums.part_mut(0..2 * ROWS * STRIDE), scratch.values.part_mut(0..ROWS * STRIDE))
        };
        // The weights of a strip stay in the second cache while 32 rows after the other, in the first, go over them.
        let strip = (STRIP_WORDS / linear.panel_words()).max(1).next_multiple_of(PANELS);
        for first in panels.clone().step_by(strip) {
            let strip = first..(first + strip).min(panels.end);
            for row in rows.clone().step_by(ROWS) {
                let rows = row..(row + ROWS).min(rows.end);
                for panel in strip.clone().step_by(PANELS) {
                    let panels = panel..(panel + PANELS).min(strip.end);
                    self.multiply_group(
                        linear,
                        activations,
                        (rows.clone(), panels),
                        (sums, values),
                        &mut sink,
                    );
                }
            }
        }
    }

    fn multiply_group(
        &self,
        linear: &Linear,
        activations: &Activations,
        (rows, panels): (Range<usize>, Range<usize>),
        (sums, values): (&mut [i32], &mut [f32]),
        sink: &mut Sink<'_>,
    ) {
        let depth = linear.depth;
        let words = self.model.panel_words(linear, panels.clone());
        let columns = panels.start * PANEL..panels.end * PANEL;
        let numbers = self.model.numbers(&linear.scales);
        let scales = numbers.get(columns.clone()).unwrap_or_default();
        // SAFETY: activations were prepared before a barrier, or by this worker.
        let row_scales = unsafe { activations.scales.part(rows.clone()) };
        if linear.precision == Precision::Bfloat16 {
            // SAFETY: as above.
            let activations = unsafe { activations.floats.part(rows.start * depth..rows.end * depth) };
            let weights = self.model.memory.panels.get(words).unwrap_or_default();
            multiply_floats(self.vectors, &Floats { weights, depth, activations, scales }, values);
            self.sink(linear, &Group { rows, columns, values }, sink);
            return;
        }
        let weights = self.model.memory.panels.bytes(words);
        let tail = rows.start + rows.len().next_multiple_of(16);
        let (high, low) = sums.split_at_mut(ROWS * STRIDE);
        let low_plane = activations.rows;
        let product = |plane: usize, sums: &mut [i32]| {
            // SAFETY: as above; the buffer holds whole groups of rows, and what lies behind the last row is not used.
            let activations =
                unsafe { activations.bytes.part((plane + rows.start) * depth..(plane + tail) * depth) };
            self.tile.sums(&Operands { weights, depth, activations, rows: rows.len() }, sums);
        };
        product(0, high);
        let wide = linear.precision == Precision::Int8Wide;
        if wide {
            product(low_plane, low);
        }
        let column_sums = self.model.sums(linear).get(columns.clone()).unwrap_or_default();
        let sums = Sums { high, low: wide.then_some(&*low), columns: column_sums, scales, row_scales };
        match sink {
            Sink::Each(each) => {
                finish(self.vectors, &sums, values);
                each(&Group { rows, columns, values });
            }
            Sink::Projected | Sink::States => {
                self.finish_rows(linear, (rows, columns), &sums, matches!(sink, Sink::States));
            }
        }
    }

    /// Finishes a group where it belongs.
    fn finish_rows(
        &self,
        linear: &Linear,
        (rows, columns): (Range<usize>, Range<usize>),
        sums: &Sums<'_>,
        added: bool,
    ) {
        let places = if added { &self.space.states } else { &self.space.projected };
        let low_rows = sums.low.unwrap_or_default();
        let row_sums = sums.high.chunks_exact(STRIDE).zip(sums.row_scales).enumerate();
        for (row, (index, (high, row_scale))) in rows.zip(row_sums) {
            let low = low_rows.get(index * STRIDE..(index + 1) * STRIDE);
            let (columns_of, scales) = (sums.columns, sums.scales);
            let one = RowSums { high, low, columns: columns_of, scales, row_scale: *row_scale };
            let start = row * linear.columns + columns.start;
            // SAFETY: rows and columns of a group belong to one worker.
            let out = unsafe { places.part_mut(start..start + columns.len()) };
            finish_row(self.vectors, &one, added, out);
        }
    }

    fn sink(&self, linear: &Linear, group: &Group<'_>, sink: &mut Sink<'_>) {
        match sink {
            Sink::Projected => self.store(linear, group),
            Sink::States => self.add(group),
            Sink::Each(each) => each(group),
        }
    }

    /// Writes a product's group into `projected`.
    fn store(&self, linear: &Linear, group: &Group<'_>) {
        for (row, values) in group.rows() {
            let start = row * linear.columns + group.columns.start;
            // SAFETY: rows and columns of a group belong to one worker.
            let places = unsafe { self.space.projected.part_mut(start..start + values.len()) };
            places.copy_from_slice(values);
        }
    }

    /// Adds a product's group to the residual stream.
    fn add(&self, group: &Group<'_>) {
        let width = self.model.plan.widths.model;
        for (row, values) in group.rows() {
            let start = row * width + group.columns.start;
            // SAFETY: rows and columns of a group belong to one worker.
            let states = unsafe { self.space.states.part_mut(start..start + values.len()) };
            for (state, value) in states.iter_mut().zip(values) {
                *state += value;
            }
        }
    }

    fn activate(&self, group: &Group<'_>) {
        let (shape, width) = (&self.model.shape, self.model.plan.widths.wide);
        let parts = if shape.gated { 2 } else { 1 };
        let columns = group.columns.start / parts..group.columns.end / parts;
        for (row, values) in group.rows() {
            // SAFETY: rows and columns of a group belong to one worker.
            let out =
                unsafe { self.space.wide.part_mut(row * width + columns.start..row * width + columns.end) };
            activate(self.vectors, shape.activation, shape.gated, values, out);
        }
    }

    /// This worker's rows and panels of a product over all rows.
    pub(crate) fn region(&self, linear: &Linear) -> (Range<usize>, Range<usize>) {
        let panels = linear.panel_count();
        if self.rows >= SHARED_ROWS_MIN {
            return (self.worker.share(self.rows, ROWS), 0..panels);
        }
        // Two panels stay together: they may be a gate and its values.
        let unit = if panels >= 4 * PANELS * self.worker.count { PANELS } else { 2 };
        (0..self.rows, self.worker.share(panels, unit))
    }

    /// `linear` of the source, added to the residual stream; ends at a barrier.
    pub(crate) fn add_product(&self, linear: &Linear, source: Source) {
        let activations = self.prepare(linear, source, None);
        let (rows, panels) = self.region(linear);
        self.multiply(linear, activations, rows, panels, Sink::States);
        self.worker.barrier();
    }

    /// The feed-forward layer over the residual stream; ends at a barrier.
    pub(crate) fn feed_forward(&self, layer: &FeedForward) {
        let activations = self.prepare(&layer.input, Source::States, Some(&layer.norm));
        let (rows, panels) = self.region(&layer.input);
        self.multiply(&layer.input, activations, rows, panels, Sink::Each(&mut |group| self.activate(group)));
        self.worker.barrier();
        self.add_product(&layer.output, Source::Wide);
    }
}

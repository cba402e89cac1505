//! The master weights of a model in one buffer, as a trainer wants them: what runs over all weights is one call, and a pass
//! reads them where they lie.

use crate::model::Model;
use crate::weights::{Part, WeightSource, Weights};
use crate::{Compute, Error, Result};
use std::cell::RefCell;
use std::ops::Range;
use tch::{Kind, Tensor};

/// Weights that an optimiser treats alike. In the buffer they stand in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Matrices and embeddings: what a pass reads in its number format.
    Matrix,
    /// Norms, which passes read in float32, as they do the position bias.
    Norm,
    /// The relative position bias of a stack.
    PositionBias,
}

impl Group {
    /// All groups, in their order in the buffer.
    pub const ALL: [Self; 3] = [Self::Matrix, Self::Norm, Self::PositionBias];

    fn of(name: &str, weight: &Tensor) -> Self {
        if name.contains("relative_attention_bias") {
            Self::PositionBias
        } else if weight.dim() > 1 {
            Self::Matrix
        } else {
            Self::Norm
        }
    }
}

/// Where a weight stands in the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The weight's name.
    pub name: String,
    /// Its numbers.
    pub range: Range<i64>,
    /// Its shape.
    pub shape: Vec<i64>,
}

impl Span {
    /// The weight's numbers in a buffer of all weights', in its shape: a view.
    pub fn of(&self, buffer: &Tensor) -> Tensor {
        buffer.narrow(0, self.range.start, self.range.end - self.range.start).view(self.shape.as_slice())
    }
}

/// Each group that has weights, and where it stands.
type Groups = Vec<(Group, Range<i64>)>;

/// The weights of one model and their gradients, each in one float32 buffer.
///
/// Where passes compute in bfloat16, the matrices have a copy in it, which is written once a step, and gradients of their
/// own, which are added to the float32 ones after every pass.
#[derive(Debug)]
pub struct Flat {
    weights: Tensor,
    gradients: Tensor,
    spans: Vec<Span>,
    groups: Groups,
    /// The copy of the matrices and its gradients.
    cast: Option<(Tensor, Tensor)>,
}

impl Flat {
    /// Every weight, float32 `[count]`.
    pub fn weights(&self) -> &Tensor {
        &self.weights
    }

    /// Every gradient, float32 `[count]`.
    pub fn gradients(&self) -> &Tensor {
        &self.gradients
    }

    /// Where each weight stands.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Where each group stands; none is empty.
    pub fn groups(&self) -> &[(Group, Range<i64>)] {
        &self.groups
    }

    /// Before the passes of a step: gradients are nothing, and what passes read is what the weights are.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn begin(&mut self) -> Result<()> {
        tch::no_grad(|| {
            let _ = self.gradients.f_zero_()?;
            if let Some((weights, gradients)) = &mut self.cast {
                let count = weights.size().first().copied().unwrap_or(0);
                weights.f_copy_(&self.weights.f_narrow(0, 0, count)?)?;
                let _ = gradients.f_zero_()?;
            }
            Ok(())
        })
    }

    /// After each pass of a step: its gradients are among the others.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn collect(&mut self) -> Result<()> {
        let Some((_, gradients)) = &mut self.cast else { return Ok(()) };
        let count = gradients.size().first().copied().unwrap_or(0);
        Ok(kernels::collect(&mut self.gradients.f_narrow(0, 0, count)?, gradients)?)
    }
}

impl Model {
    /// Moves the weights into one buffer. From now on those of the model are views of it; the returned [`Weights`] are what
    /// passes read and what their gradients reach.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn flatten(&mut self, compute: Compute) -> Result<(Flat, Weights)> {
        let (spans, groups) = self.layout()?;
        let (kind, device) = (compute.kind(), self.device());
        let count = spans.iter().map(|span| span.range.end).max().unwrap_or(0);
        let weights = Tensor::f_zeros([count], (Kind::Float, device))?;
        let gradients = Tensor::f_zeros([count], (Kind::Float, device))?;
        let matrices = groups.iter().find(|(group, _)| *group == Group::Matrix);
        let matrices = matrices.map_or(0, |(_, range)| range.end);
        let cast = match kind {
            Kind::Float => None,
            kind => Some((
                Tensor::f_zeros([matrices], (kind, device))?,
                Tensor::f_zeros([matrices], (kind, device))?,
            )),
        };
        for span in &spans {
            let mut view = span.of(&weights);
            if let Some(weight) = self.parameter_mut(&span.name) {
                tch::no_grad(|| view.f_copy_(weight))?;
                kernels::set_gradient(&mut view, &span.of(&gradients))?;
                *weight = view;
            }
        }
        let mut flat = Flat { weights, gradients, spans, groups, cast };
        flat.begin()?;
        let find = |part: &Part| flat.leaf(part);
        let pass = WeightSource { config: self.config(), find: &find }.weights()?;
        Ok((flat, pass))
    }

    /// Where each weight will stand: by group, and within it in the order in which a pass asks for them, so that what it reads
    /// as one matrix is one.
    fn layout(&self) -> Result<(Vec<Span>, Groups)> {
        let asked = RefCell::new(Vec::new());
        let find = |part: &Part| {
            asked.borrow_mut().extend(part.names.iter().cloned());
            Ok(Tensor::new())
        };
        WeightSource { config: self.config(), find: &find }.weights()?;
        let mut asked: Vec<(Group, String, Vec<i64>)> = asked
            .into_inner()
            .into_iter()
            .filter_map(|name| {
                let weight = self.parameter(&name)?;
                Some((Group::of(&name, weight), name, weight.size()))
            })
            .collect();
        // A stable sort: within a group the order stays.
        asked.sort_by_key(|(group, ..)| *group);
        if asked.len() != self.parameters().len() {
            return Err(Error::Input("a pass does not read every weight once".to_owned()));
        }
        let (mut spans, mut groups): (Vec<Span>, Groups) = (Vec::new(), Vec::new());
        let mut start = 0;
        for (group, name, shape) in asked {
            let end = start + shape.iter().product::<i64>();
            match groups.last_mut() {
                Some((known, range)) if *known == group => range.end = end,
                _ => groups.push((group, start..end)),
            }
            spans.push(Span { name, range: start..end, shape });
            start = end;
        }
        Ok((spans, groups))
    }
}

impl Flat {
    /// What a pass reads: a leaf that requires gradients, over the buffer or its copy.
    fn leaf(&self, part: &Part) -> Result<Tensor> {
        let absent = || Error::Input(format!("the model has no weight `{}`", part.names.join("`, `")));
        let first = part.names.first().ok_or_else(absent)?;
        let last = part.names.last().ok_or_else(absent)?;
        let of = |name: &str| self.spans.iter().find(|span| span.name == name).ok_or_else(absent);
        let (first, last) = (of(first)?, of(last)?);
        // Parts are stacked along their first dimension; of one weight alone the shape stays.
        let mut shape = first.shape.clone();
        if let (Some(rows), true) = (shape.first_mut(), part.names.len() > 1) {
            *rows = -1;
        }
        let (weights, gradients) = match &self.cast {
            Some((weights, gradients)) if part.cast => (weights, gradients),
            _ => (&self.weights, &self.gradients),
        };
        let view = |buffer: &Tensor| {
            buffer
                .f_narrow(0, first.range.start, last.range.end - first.range.start)?
                .f_view(shape.as_slice())
        };
        let mut leaf = view(weights)?.f_detach()?.f_set_requires_grad(true)?;
        kernels::set_gradient(&mut leaf, &view(gradients)?)?;
        Ok(leaf)
    }
}

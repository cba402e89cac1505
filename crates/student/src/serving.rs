//! In which form a student is served on processors.

use decoder::{Precision, Precisions, Tile};
use tch::Device;

/// In which form a student answers on a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// As it was trained: crate `t5`, in float32 or bfloat16.
    Reference,
    /// Weights and activations of 8 bits.
    Int8,
    /// The same, with activations of 16 bits before the feed-forward layer's second projection, which is known for outliers.
    Int8WideOutput,
    /// Weights of 8 bits, activations of 16 bits.
    Int8Wide,
}

impl Serving {
    /// The packed forms, the fastest first.
    pub(crate) const PACKED: [Self; 3] = [Self::Int8, Self::Int8WideOutput, Self::Int8Wide];

    /// As a student's provenance names it; empty for the reference.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "",
            Self::Int8 => "int8",
            Self::Int8WideOutput => "int8_wide_output",
            Self::Int8Wide => "int8_wide",
        }
    }

    /// The form of this name. A name that is not known, of a later version, is the reference, which answers for every student.
    pub fn of(name: &str) -> Self {
        Self::PACKED.into_iter().find(|form| form.name() == name).unwrap_or(Self::Reference)
    }

    /// What serves on this device of this machine: packed forms are for processors with vectors, the reference is for all others.
    pub(crate) fn on(self, device: Device) -> Self {
        let has_vectors = Tile::detect() != Tile::Scalar;
        if device == Device::Cpu && has_vectors { self } else { Self::Reference }
    }

    pub(crate) fn precisions(self) -> Option<Precisions> {
        let int8 = Precisions::all(Precision::Int8);
        match self {
            Self::Reference => None,
            Self::Int8 => Some(int8),
            Self::Int8WideOutput => Some(Precisions { feed_forward_output: Precision::Int8Wide, ..int8 }),
            Self::Int8Wide => Some(Precisions::all(Precision::Int8Wide)),
        }
    }
}

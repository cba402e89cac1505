//! The packed form as bytes: a header, the shape, the precisions, then the four memories, all lengths of which follow from
//! the shape.

use crate::draft::Draft;
use crate::model::Model;
use crate::plan::Plan;
use crate::shape::{Activation, Precision, Precisions, Shape};
use crate::{Error, Result};

const MAGIC: [u8; 8] = *b"T5PACKED";
/// Grows with every change of the layout.
const VERSION: u32 = 1;
/// Magic, version, eleven counts, epsilon, seven flags, five precisions, the length of the whole.
const HEADER: usize = 8 + 4 + 11 * 8 + 8 + 7 + 5 + 8;

fn activation_code(activation: Activation) -> u8 {
    match activation {
        Activation::Relu => 0,
        Activation::Gelu => 1,
        Activation::GeluTanh => 2,
        Activation::Silu => 3,
    }
}

fn precision_code(precision: Precision) -> u8 {
    match precision {
        Precision::Int8 => 0,
        Precision::Int8Wide => 1,
        Precision::Bfloat16 => 2,
    }
}

impl Model {
    /// The packed form, for [`Model::from_bytes`] of the same version.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (shape, precisions) = (&self.shape, &self.precisions);
        let mut bytes = Vec::with_capacity(HEADER + self.bytes());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        for count in [
            shape.d_model,
            shape.d_kv,
            shape.d_ff,
            shape.num_layers,
            shape.num_decoder_layers,
            shape.num_heads,
            shape.vocab_size,
            shape.relative_attention_num_buckets,
            shape.relative_attention_max_distance,
            shape.decoder_start_token_id as usize,
            shape.eos_token_id as usize,
        ] {
            bytes.extend((count as u64).to_le_bytes());
        }
        bytes.extend(shape.layer_norm_epsilon.to_bits().to_le_bytes());
        bytes.push(activation_code(shape.activation));
        let flags = [shape.gated, shape.own_decoder_embedding, shape.own_head, shape.scale_decoder_outputs];
        bytes.extend(flags.map(u8::from));
        // Two bytes for later.
        bytes.extend([0, 0]);
        bytes.extend(
            [
                precisions.attention_input,
                precisions.attention_output,
                precisions.feed_forward_input,
                precisions.feed_forward_output,
                precisions.head,
            ]
            .map(precision_code),
        );
        bytes.extend(((HEADER + self.bytes()) as u64).to_le_bytes());
        bytes.extend(self.memory.panels.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(self.memory.numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(self.memory.sums.iter().flat_map(|sum| sum.to_le_bytes()));
        bytes.extend(self.memory.embeddings.iter().flat_map(|number| number.to_le_bytes()));
        bytes
    }

    /// The model of bytes that [`Model::to_bytes`] wrote.
    ///
    /// # Errors
    /// The bytes are of another kind or version, are not whole, describe no model that can be computed, or hold numbers that
    /// are not finite; there is no memory.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader { rest: bytes };
        if reader.take::<8>()? != MAGIC {
            return Err(damaged("it does not begin as one"));
        }
        let version = u32::from_le_bytes(reader.take()?);
        if version != VERSION {
            return Err(damaged(&format!("it has version {version}, and this is version {VERSION}")));
        }
        let shape = reader.shape()?;
        let precisions = reader.precisions()?;
        let plan = Plan::new(&shape, &precisions)?;
        let totals = plan.totals;
        let expected = HEADER + (totals.panels + totals.numbers + totals.sums) * 4 + totals.embeddings * 2;
        let stated = u64::from_le_bytes(reader.take()?);
        if stated != expected as u64 || bytes.len() != expected {
            let message = format!("it has {} bytes, and its shape asks for {expected}", bytes.len());
            return Err(damaged(&message));
        }
        let mut draft = Draft::new(&plan)?;
        reader.fill(draft.panels.all_mut(), u32::from_le_bytes);
        reader.fill(draft.numbers.all_mut(), f32::from_le_bytes);
        reader.fill(draft.sums.all_mut(), i32::from_le_bytes);
        reader.fill(draft.embeddings.all_mut(), u16::from_le_bytes);
        let finite = draft.numbers.all_mut().iter().all(|number| number.is_finite())
            && draft.embeddings.all_mut().iter().all(|bits| bits & 0x7f80 != 0x7f80);
        if !finite {
            return Err(damaged("a number is not finite"));
        }
        Ok(Self::assemble(shape, precisions, plan, draft))
    }
}

fn damaged(message: &str) -> Error {
    Error::Damaged(message.to_owned())
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(|| damaged("it ends in its header"))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn count(&mut self) -> Result<usize> {
        usize::try_from(u64::from_le_bytes(self.take()?)).map_err(|_| damaged("a count is too large"))
    }

    fn id(&mut self) -> Result<u32> {
        u32::try_from(self.count()?).map_err(|_| damaged("an id is too large"))
    }

    fn flag(&mut self) -> Result<bool> {
        match self.take::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(damaged("a flag is neither yes nor no")),
        }
    }

    /// The fields in the order of [`Model::to_bytes`].
    fn shape(&mut self) -> Result<Shape> {
        let mut counts = [0; 9];
        for count in &mut counts {
            *count = self.count()?;
        }
        let (start, end) = (self.id()?, self.id()?);
        let epsilon = f64::from_bits(u64::from_le_bytes(self.take()?));
        let activation = match self.take::<1>()? {
            [0] => Activation::Relu,
            [1] => Activation::Gelu,
            [2] => Activation::GeluTanh,
            [3] => Activation::Silu,
            _ => return Err(damaged("its activation is unknown")),
        };
        let [d_model, d_kv, d_ff, num_layers, num_decoder_layers, num_heads, vocab_size, buckets, distance] =
            counts;
        let shape = Shape {
            d_model,
            d_kv,
            d_ff,
            num_layers,
            num_decoder_layers,
            num_heads,
            vocab_size,
            relative_attention_num_buckets: buckets,
            relative_attention_max_distance: distance,
            layer_norm_epsilon: epsilon,
            activation,
            gated: self.flag()?,
            own_decoder_embedding: self.flag()?,
            own_head: self.flag()?,
            scale_decoder_outputs: self.flag()?,
            decoder_start_token_id: start,
            eos_token_id: end,
        };
        if self.take::<2>()? != [0, 0] {
            return Err(damaged("it says something that this version does not know"));
        }
        Ok(shape)
    }

    fn precision(&mut self) -> Result<Precision> {
        match self.take::<1>()? {
            [0] => Ok(Precision::Int8),
            [1] => Ok(Precision::Int8Wide),
            [2] => Ok(Precision::Bfloat16),
            _ => Err(damaged("a precision is unknown")),
        }
    }

    fn precisions(&mut self) -> Result<Precisions> {
        Ok(Precisions {
            attention_input: self.precision()?,
            attention_output: self.precision()?,
            feed_forward_input: self.precision()?,
            feed_forward_output: self.precision()?,
            head: self.precision()?,
        })
    }

    /// Fills `places`; the whole length was checked.
    fn fill<T, const LENGTH: usize>(&mut self, places: &mut [T], of: fn([u8; LENGTH]) -> T) {
        let (taken, rest) = self.rest.split_at_checked(places.len() * LENGTH).unwrap_or((self.rest, &[]));
        self.rest = rest;
        for (place, bytes) in places.iter_mut().zip(taken.as_chunks::<LENGTH>().0) {
            *place = of(*bytes);
        }
    }
}

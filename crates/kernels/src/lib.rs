//! C++ over libtorch for what its bindings lack: the optimiser and the norm of gradients over flat buffers, dropout by counter,
//! rows of tokens without padding, and memory that is kept for the next tensor.
//!
//! The C++ beside this file, a file for each kind of kernel, is the only C++ of the training side. It is linked against
//! `libtorch_cpu` and `libc10` alone, and has bodies for the CPU; on other devices the same functions are made of the library's operators.
//!
//! # Invariants
//!
//! - No crate of this workspace is imported.
//! - No exception crosses into Rust, and no panic into C++: what fails comes back as an error.
//! - The result is the same for every number of threads.
//!
//! # Safety
//!
//! Everything here is safe to call. The C++ reads a tensor through the pointer that its Rust value holds, only while it is
//! borrowed, and checks shapes, formats and devices itself.

#![allow(unsafe_code, reason = "calls into C++")]

use std::ffi::{CStr, c_char};
use tch::{TchError, Tensor};
use torch_sys::C_tensor;

/// The result of this crate's functions; an error has the words of the tensor library.
pub type Result<T> = std::result::Result<T, TchError>;

/// One AdamW update: see Loshchilov and Hutter 2019, algorithm 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// The learning rate.
    pub rate: f64,
    /// How much of the rate weights lose of themselves.
    pub weight_decay: f64,
    /// How much of the first moment is kept.
    pub beta_first: f64,
    /// How much of the second moment is kept.
    pub beta_second: f64,
    /// What is added to the denominator.
    pub epsilon: f64,
    /// What gradients are multiplied by: below 1 where they were clipped.
    pub scale: f64,
    /// Which update it is, from 1.
    pub step: u64,
}

/// The buffers of one update: float32, contiguous, `[count]`.
#[derive(Debug)]
pub struct Buffers<'a> {
    /// Changed.
    pub weights: &'a mut Tensor,
    /// Read.
    pub gradients: &'a Tensor,
    /// First moments, changed.
    pub firsts: &'a mut Tensor,
    /// Second moments, changed.
    pub seconds: &'a mut Tensor,
}

/// Updates weights and moments in place.
///
/// # Errors
/// The buffers do not fit each other.
pub fn adamw(buffers: Buffers<'_>, update: &Update) -> Result<()> {
    let Buffers { weights, gradients, firsts, seconds } = buffers;
    let step = i64::try_from(update.step).unwrap_or(i64::MAX);
    // SAFETY: four tensors that are borrowed for the call; the C++ checks that they are flat and of one length.
    check(unsafe {
        distillery_adamw(
            weights.as_mut_ptr(),
            gradients.as_ptr(),
            firsts.as_mut_ptr(),
            seconds.as_mut_ptr(),
            update.rate,
            update.weight_decay,
            update.beta_first,
            update.beta_second,
            update.epsilon,
            update.scale,
            step,
        )
    })
}

/// The Euclidean norm of a flat float32 buffer, summed in float64.
///
/// # Errors
/// The tensor is none.
pub fn norm(values: &Tensor) -> Result<f64> {
    let mut norm = 0.0;
    // SAFETY: a tensor that is borrowed for the call, and a number to write to.
    check(unsafe { distillery_norm(values.as_ptr(), &raw mut norm) })?;
    Ok(norm)
}

/// Adds bfloat16 gradients, `[count]`, to float32 ones, and sets them to nothing.
///
/// # Errors
/// The buffers do not fit each other.
pub fn collect(gradients: &mut Tensor, of_pass: &mut Tensor) -> Result<()> {
    // SAFETY: two tensors that are borrowed for the call; the C++ checks that they are flat and of one length.
    check(unsafe { distillery_collect(gradients.as_mut_ptr(), of_pass.as_mut_ptr()) })
}

/// Makes `gradient` the place where passes add the gradient of `weight`: both see each other's changes from now on.
///
/// # Errors
/// They differ in shape, number format or device.
pub fn set_gradient(weight: &mut Tensor, gradient: &Tensor) -> Result<()> {
    // SAFETY: two tensors that are borrowed for the call; the weight keeps a counted reference of its own to the gradient.
    check(unsafe { distillery_set_gradient(weight.as_mut_ptr(), gradient.as_ptr()) })
}

/// Where a dropout's numbers come from: they depend on nothing else, so that they are the same after a resume, and in the pass
/// back, which draws them again instead of keeping a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// One for every run and step.
    pub key: u64,
    /// Which dropout of the pass.
    pub place: u32,
    /// Which pass of the step.
    pub part: u32,
}

/// `x` with a share `rate` of its elements dropped and the others scaled up, added to `residual` where there is one. Numbers
/// have 16 bits: the rate is rounded to them, and the scale is of the rounded rate.
///
/// # Errors
/// The rate is not in `0..1`, or `residual` has another shape or number format.
pub fn dropout(x: &Tensor, residual: Option<&Tensor>, rate: f64, draw: Draw) -> Result<Tensor> {
    if !(0.0..1.0).contains(&rate) {
        return Err(TchError::Torch(format!("a dropout rate of {rate}: it must be from 0 to below 1")));
    }
    let threshold = (rate * 65536.0).round().min(65535.0) as u32;
    let residual = residual.map_or(std::ptr::null(), Tensor::as_ptr);
    let mut result = std::ptr::null_mut();
    // SAFETY: tensors that are borrowed for the call, the second of which may be null, and a place for the result, which the
    // C++ sets to a tensor of its own where it does not fail.
    check(unsafe {
        distillery_dropout(x.as_ptr(), residual, draw.key, draw.place, draw.part, threshold, &raw mut result)
    })?;
    // SAFETY: the call succeeded, so that `result` points to a tensor that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(result) })
}

/// `weight * x / sqrt(mean(x^2) + epsilon)` over the last dimension, in float32 within, on the CPU. `x` is float32 or bfloat16
/// `[.., width]`, `weight` float32 `[width]`.
///
/// # Errors
/// They do not fit each other, or are elsewhere.
pub fn layer_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    let mut result = std::ptr::null_mut();
    // SAFETY: tensors that are borrowed for the call, and a place for the result, which the C++ sets to a tensor of its own
    // where it does not fail.
    check(unsafe { distillery_layer_norm(x.as_ptr(), weight.as_ptr(), epsilon, &raw mut result) })?;
    // SAFETY: the call succeeded, so that `result` points to a tensor that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(result) })
}

/// `gelu(left) * right`, where `wide` is `[.., left | right]`, float32 or bfloat16, on the CPU; GELU in its tanh form.
///
/// # Errors
/// There are no two halves, or the tensor is elsewhere.
pub fn gate(wide: &Tensor) -> Result<Tensor> {
    let mut result = std::ptr::null_mut();
    // SAFETY: a tensor that is borrowed for the call, and a place for the result, which the C++ sets to a tensor of its own
    // where it does not fail.
    check(unsafe { distillery_gate(wide.as_ptr(), &raw mut result) })?;
    // SAFETY: the call succeeded, so that `result` points to a tensor that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(result) })
}

/// The loss of each row of `logits` at its target, float32 `[tokens]`, on the CPU: cross-entropy over the last dimension, in float32
/// within. `logits` is float32 or bfloat16 `[tokens, vocabulary]`, `targets` int64 `[tokens]`.
///
/// # Errors
/// They do not fit each other, a target is none of the vocabulary, or they are elsewhere.
pub fn token_losses(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let mut result = std::ptr::null_mut();
    // SAFETY: tensors that are borrowed for the call, and a place for the result, which the C++ sets to a tensor of its own
    // where it does not fail.
    check(unsafe { distillery_token_losses(logits.as_ptr(), targets.as_ptr(), &raw mut result) })?;
    // SAFETY: the call succeeded, so that `result` points to a tensor that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(result) })
}

/// The softmax over keys of `scores + bias + mask`, in float32 within, in the number format of `scores`, on the CPU. `scores` is
/// float32 or bfloat16 `[rows, heads, queries, keys]`, `bias` float32 `[1, heads, queries, keys]`, `mask` float32
/// `[rows, 1, 1, keys]` or `[1, 1, queries, keys]`.
///
/// # Errors
/// They do not fit each other, or are elsewhere.
pub fn attention_weights(scores: &Tensor, bias: Option<&Tensor>, mask: Option<&Tensor>) -> Result<Tensor> {
    let pointer = |tensor: Option<&Tensor>| tensor.map_or(std::ptr::null(), Tensor::as_ptr);
    let mut result = std::ptr::null_mut();
    // SAFETY: tensors that are borrowed for the call, the last two of which may be null, and a place for the result, which the C++
    // sets to a tensor of its own where it does not fail.
    check(unsafe {
        distillery_attention_weights(scores.as_ptr(), pointer(bias), pointer(mask), &raw mut result)
    })?;
    // SAFETY: the call succeeded, so that `result` points to a tensor that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(result) })
}

/// `x` `[tokens, in]` times the transpose of `weight` `[out, in]`. Where the weight has a place for its gradient
/// ([`set_gradient`]), the pass back adds to it there.
///
/// # Errors
/// They do not fit each other.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let mut result = std::ptr::null_mut();
    // SAFETY: tensors that are borrowed for the call, and a place for the result, which the C++ sets to a tensor of its own
    // where it does not fail. The pass back keeps a counted reference of its own to the weight.
    check(unsafe { distillery_linear(x.as_ptr(), weight.as_ptr(), &raw mut result) })?;
    // SAFETY: the call succeeded, so that `result` points to a tensor that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(result) })
}

/// The rows of `weight`, float32 or bfloat16 `[vocabulary, width]`, that `ids` name, `[tokens, width]`. Where the weight has a place
/// for its gradient ([`set_gradient`]), the pass back adds to those rows there, and touches no other.
///
/// # Errors
/// They do not fit each other, or an id is none of the vocabulary.
pub fn embedding(weight: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let mut result = std::ptr::null_mut();
    // SAFETY: tensors that are borrowed for the call, and a place for the result, which the C++ sets to a tensor of its own
    // where it does not fail. The pass back keeps a counted reference of its own to the weight.
    check(unsafe { distillery_embedding(weight.as_ptr(), ids.as_ptr(), &raw mut result) })?;
    // SAFETY: the call succeeded, so that `result` points to a tensor that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(result) })
}

/// The lengths of rows of tokens that lie end to end, none of which is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    lengths: Vec<i64>,
    filling: i64,
    width: i64,
}

impl Rows {
    /// Rows of these lengths; `None` where there is none, or one of them is empty.
    #[must_use]
    pub fn new(lengths: Vec<i64>) -> Option<Self> {
        let width = lengths.iter().copied().max()?;
        lengths.iter().all(|length| *length > 0).then_some(Self { lengths, filling: 0, width })
    }

    /// The same rows with tokens behind the last that belong to none, so that all are a multiple of `tokens`, and as wide as a
    /// multiple of `width`: shapes that come again are products that are prepared already.
    #[must_use]
    pub fn rounded(self, tokens: i64, width: i64) -> Self {
        let real: i64 = self.lengths.iter().sum();
        let up = |number: i64, to: i64| (number + to.max(1) - 1) / to.max(1) * to.max(1);
        Self { filling: up(real, tokens) - real, width: up(self.width, width), lengths: self.lengths }
    }

    /// Tokens of each row.
    pub fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// Tokens behind the last row that belong to none.
    pub fn filling(&self) -> i64 {
        self.filling
    }

    /// Places of each row where rows are padded.
    pub fn width(&self) -> i64 {
        self.width
    }

    /// Tokens `[tokens, PARTS * heads * size]`, a tensor for each part: `[rows, heads, width, size]`, nothing behind a row's end.
    ///
    /// # Errors
    /// There are not as many tokens as the rows have, or they have no vector for each part and head.
    pub fn spread<const PARTS: usize>(&self, tokens: &Tensor, heads: i64) -> Result<[Tensor; PARTS]> {
        let mut results = [std::ptr::null_mut(); PARTS];
        // SAFETY: a tensor and lengths that are borrowed for the call, as many as is said, and a place for each result, all of
        // which the C++ sets to tensors of their own where it does not fail.
        check(unsafe {
            distillery_spread(
                tokens.as_ptr(),
                self.lengths.as_ptr(),
                self.lengths.len() as i64,
                self.filling,
                self.width,
                PARTS as i64,
                heads,
                results.as_mut_ptr(),
            )
        })?;
        // SAFETY: the call succeeded, so that every one points to a tensor that nobody else owns.
        Ok(results.map(|result| unsafe { Tensor::from_ptr(result) }))
    }

    /// The tokens of `[rows, heads, width, size]`, end to end: `[tokens, heads * size]`. Those of no row are 0.
    ///
    /// # Errors
    /// It has not the shape of these rows.
    pub fn gather(&self, padded: &Tensor) -> Result<Tensor> {
        let mut result = std::ptr::null_mut();
        // SAFETY: a tensor and lengths that are borrowed for the call, as many as is said, and a place for the result, which the
        // C++ sets to a tensor of its own where it does not fail.
        check(unsafe {
            distillery_gather(
                padded.as_ptr(),
                self.lengths.as_ptr(),
                self.lengths.len() as i64,
                self.filling,
                self.width,
                &raw mut result,
            )
        })?;
        // SAFETY: the call succeeded, so that `result` points to a tensor that nobody else owns.
        Ok(unsafe { Tensor::from_ptr(result) })
    }
}

/// While one of these lives, the memory of tensors on the CPU is kept for the next tensors instead of being given back to the
/// system, which clears every page before it hands it out again. What is kept is bounded by a quarter of the most that was in
/// use at once; the last one to go gives it back.
#[derive(Debug)]
pub struct KeptMemory(());

impl KeptMemory {
    /// Begins to keep memory.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: it takes no arguments, and may be called at any time and from any thread.
        unsafe { distillery_hold_memory() };
        Self(())
    }
}

impl Default for KeptMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for KeptMemory {
    fn drop(&mut self) {
        // SAFETY: it takes no arguments, and this value's own hold is still there to be released.
        unsafe { distillery_release_memory() };
    }
}

fn check(words: *const c_char) -> Result<()> {
    if words.is_null() {
        return Ok(());
    }
    // SAFETY: the C++ returns null or a string that ends in 0 and stays until this thread's next call.
    let words = unsafe { CStr::from_ptr(words) };
    Err(TchError::Torch(words.to_string_lossy().into_owned()))
}

// SAFETY of every function: pointers are to tensors of the bindings and valid for the call; those that are not `const` are to
// tensors that nothing else uses meanwhile. They return null, or words that stay until the thread's next call.
unsafe extern "C" {
    fn distillery_hold_memory();
    fn distillery_release_memory();
    fn distillery_adamw(
        weights: *mut C_tensor,
        gradients: *const C_tensor,
        firsts: *mut C_tensor,
        seconds: *mut C_tensor,
        rate: f64,
        weight_decay: f64,
        beta_first: f64,
        beta_second: f64,
        epsilon: f64,
        scale: f64,
        step: i64,
    ) -> *const c_char;
    fn distillery_norm(values: *const C_tensor, norm: *mut f64) -> *const c_char;
    fn distillery_collect(gradients: *mut C_tensor, of_pass: *mut C_tensor) -> *const c_char;
    fn distillery_set_gradient(weight: *mut C_tensor, gradient: *const C_tensor) -> *const c_char;
    fn distillery_dropout(
        x: *const C_tensor,
        residual: *const C_tensor,
        key: u64,
        place: u32,
        part: u32,
        threshold: u32,
        result: *mut *mut C_tensor,
    ) -> *const c_char;
    fn distillery_layer_norm(
        x: *const C_tensor,
        weight: *const C_tensor,
        epsilon: f64,
        result: *mut *mut C_tensor,
    ) -> *const c_char;
    fn distillery_gate(wide: *const C_tensor, result: *mut *mut C_tensor) -> *const c_char;
    fn distillery_token_losses(
        logits: *const C_tensor,
        targets: *const C_tensor,
        result: *mut *mut C_tensor,
    ) -> *const c_char;
    fn distillery_attention_weights(
        scores: *const C_tensor,
        bias: *const C_tensor,
        mask: *const C_tensor,
        result: *mut *mut C_tensor,
    ) -> *const c_char;
    fn distillery_linear(
        x: *const C_tensor,
        weight: *const C_tensor,
        result: *mut *mut C_tensor,
    ) -> *const c_char;
    fn distillery_embedding(
        weight: *const C_tensor,
        ids: *const C_tensor,
        result: *mut *mut C_tensor,
    ) -> *const c_char;
    fn distillery_spread(
        tokens: *const C_tensor,
        lengths: *const i64,
        count: i64,
        filling: i64,
        width: i64,
        parts: i64,
        heads: i64,
        results: *mut *mut C_tensor,
    ) -> *const c_char;
    fn distillery_gather(
        padded: *const C_tensor,
        lengths: *const i64,
        count: i64,
        filling: i64,
        width: i64,
        result: *mut *mut C_tensor,
    ) -> *const c_char;
}

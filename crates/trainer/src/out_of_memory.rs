//! When memory runs out: the tensor library throws, `tch` panics, and a step can be tried again in smaller parts.

use crate::TrainError;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;

/// How the library says it, in lower case: CUDA's allocator, the processor's, cuBLAS and C++ itself.
const OUT_OF_MEMORY_PATTERNS: [&str; 5] =
    ["out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "std::bad_alloc"];

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// What `pass` returns; `None` where memory ran out, whether by an error or by a panic. Any other panic is resumed.
///
/// # Errors
/// Those of `pass`.
pub fn catch_out_of_memory<T>(pass: impl FnOnce() -> Result<T, TrainError>) -> Result<Option<T>, TrainError> {
    suppress_panic_output();
    GUARDED.set(true);
    // What a pass leaves half done are gradients, and those are zeroed before the next.
    let outcome = catch_unwind(AssertUnwindSafe(pass));
    GUARDED.set(false);
    match outcome {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(error)) if is_out_of_memory(&error.to_string()) => Ok(None),
        Ok(Err(error)) => Err(error),
        Err(panic) if is_out_of_memory(message(&*panic)) => Ok(None),
        Err(panic) => resume_unwind(panic),
    }
}

/// The words of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(words), _) => words,
        (None, Some(words)) => words,
        (None, None) => "a panic without words",
    }
}

fn is_out_of_memory(words: &str) -> bool {
    let words = words.to_lowercase();
    OUT_OF_MEMORY_PATTERNS.iter().any(|pattern| words.contains(pattern))
}

/// A panic that is caught and dealt with must not look like a crash on standard error; the others are printed as ever.
fn suppress_panic_output() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !(GUARDED.get() && panic.payload_as_str().is_some_and(is_out_of_memory)) {
                before(panic);
            }
        }));
    });
}

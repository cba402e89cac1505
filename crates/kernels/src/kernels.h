// What the kernels share: how they fail, how they read and write numbers, and how they sum.
//
// The kernels are what a training step needs and the Rust bindings of the tensor library lack, linked against libtorch_cpu and
// libc10 alone. Their loops are plain C++ that the compiler turns into vectors, once for each instruction set that it may meet.
// Products and sums are not contracted (build.rs), so that every one of them gives the same bits; what is summed over threads is
// summed by chunks of a fixed size, so that the number of threads does not matter either.
//
// What Rust calls has C linkage and returns null, or the words of what failed, valid until the thread's next call. Pointers to tensors
// are those that the bindings hold: they are read and never kept. Tensors that are made belong to the caller.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define EVERY_INSTRUCTION_SET __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define EVERY_INSTRUCTION_SET
#endif
#define INLINE inline __attribute__((always_inline))

namespace kernels {

// Elements that one thread takes at least: below that, waking another costs more than it saves.
constexpr int64_t GRAIN = 32768;

inline thread_local std::string last_error;

// An exception must not reach Rust: its words are kept for the thread, and a pointer to them says that it failed.
template <typename Body> const char *guarded(Body body) {
    try {
        body();
        return nullptr;
    } catch (const c10::Error &error) {
        last_error = error.what_without_backtrace();
    } catch (const std::exception &error) {
        last_error = error.what();
    } catch (...) {
        last_error = "an exception without words";
    }
    return last_error.c_str();
}

INLINE float to_float(float value) { return value; }
INLINE float to_float(uint16_t value) {
    const uint32_t bits = static_cast<uint32_t>(value) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}
INLINE void store(float value, float *to) { *to = value; }
INLINE void store(float value, uint16_t *to) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    // To the nearest, ties to even; a number that is none stays one.
    const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1)) >> 16;
    const uint32_t none = (bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : 0u;
    *to = static_cast<uint16_t>(rounded | none);
}

inline const uint16_t *bits(const at::Tensor &tensor) { return static_cast<const uint16_t *>(tensor.const_data_ptr()); }
inline uint16_t *bits_of(at::Tensor &tensor) { return static_cast<uint16_t *>(tensor.mutable_data_ptr()); }

inline void check_number(const at::Tensor &x) {
    TORCH_CHECK(x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16),
                "this kernel is made for float32 and bfloat16 on the CPU");
}

// Sums side by side: an order that a vector can follow.
constexpr int64_t SUMS = 16;

INLINE float sum_of(const float *sums) {
    float sum = 0;
    for (int64_t lane = 0; lane < SUMS; lane++) sum += sums[lane];
    return sum;
}

// e^x to about two units in the last place (Cephes), in a form that can be a vector.
INLINE float exponential(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    // Adding this number rounds to a whole one.
    const float turns = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    const float rest = (x - turns * 0.693359375f) + turns * 2.12194440e-4f;
    float sum = 1.9875691500e-4f;
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    sum = sum * rest * rest + rest + 1.0f;
    int32_t exponent;
    std::memcpy(&exponent, &sum, sizeof exponent);
    exponent += static_cast<int32_t>(turns) * (1 << 23);
    std::memcpy(&sum, &exponent, sizeof sum);
    return sum;
}

// The row's maximum and the logarithm of the sum of its exponentials.
template <typename Number> INLINE float log_sum_exp(const Number *__restrict row, int64_t width) {
    float highest[SUMS];
    for (int64_t lane = 0; lane < SUMS; lane++) highest[lane] = -INFINITY;
    int64_t at = 0;
    for (; at + SUMS <= width; at += SUMS) {
        for (int64_t lane = 0; lane < SUMS; lane++) {
            const float value = to_float(row[at + lane]);
            highest[lane] = value > highest[lane] ? value : highest[lane];
        }
    }
    for (; at < width; at++) highest[at % SUMS] = std::max(highest[at % SUMS], to_float(row[at]));
    float most = highest[0];
    for (int64_t lane = 1; lane < SUMS; lane++) most = std::max(most, highest[lane]);
    float sums[SUMS] = {};
    for (at = 0; at + SUMS <= width; at += SUMS) {
        for (int64_t lane = 0; lane < SUMS; lane++) sums[lane] += exponential(to_float(row[at + lane]) - most);
    }
    for (; at < width; at++) sums[at % SUMS] += exponential(to_float(row[at]) - most);
    // An element that is no number is lost in comparisons, and found in this sum.
    return most + std::log(sum_of(sums));
}

} // namespace kernels

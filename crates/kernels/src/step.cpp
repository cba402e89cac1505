// What a training step needs and the Rust bindings of the tensor library lack: the optimiser and the norm over flat buffers,
// dropout by counter, and rows of tokens without padding. Linked against libtorch_cpu and libc10 alone.
//
// The loops are plain C++ that the compiler turns into vectors, once for each instruction set that it may meet. Products and
// sums are not contracted (build.rs), so that every one of them gives the same bits; what is summed over threads is summed
// by chunks of a fixed size, so that the number of threads does not matter either.

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

namespace {

// Elements that one thread takes at least: below that, waking another costs more than it saves.
constexpr int64_t GRAIN = 32768;
// Elements whose squares are summed together.
constexpr int64_t CHUNK = 65536;

// ---- errors ----

thread_local std::string last_error;

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

void check_flat(const at::Tensor &tensor, const at::Tensor &like, at::ScalarType type = at::kFloat) {
    TORCH_CHECK(tensor.scalar_type() == type && tensor.is_contiguous() && tensor.dim() == 1,
                "a flat buffer must be ", type, ", contiguous and of one dimension");
    TORCH_CHECK(tensor.numel() == like.numel() && tensor.device() == like.device(),
                "flat buffers must have one length and one device");
}

// ---- AdamW ----

struct Update {
    float scale, keep, first, second_kept, second, correction, epsilon, rate;
};

EVERY_INSTRUCTION_SET
void adamw_range(float *__restrict weights, const float *__restrict gradients, float *__restrict firsts,
                 float *__restrict seconds, int64_t count, const Update *update) {
    const Update by = *update;
    for (int64_t at = 0; at < count; at++) {
        const float gradient = gradients[at] * by.scale;
        const float first = firsts[at] + by.first * (gradient - firsts[at]);
        const float second = seconds[at] * by.second_kept + gradient * gradient * by.second;
        firsts[at] = first;
        seconds[at] = second;
        const float denominator = std::sqrt(second) / by.correction + by.epsilon;
        weights[at] = weights[at] * by.keep - first / denominator * by.rate;
    }
}

// ---- the norm ----

EVERY_INSTRUCTION_SET
double sum_of_squares(const float *values, int64_t count) {
    // Sixteen sums side by side: an order that a vector can follow.
    double sums[16] = {};
    int64_t at = 0;
    for (; at + 16 <= count; at += 16) {
        for (int lane = 0; lane < 16; lane++) {
            const double value = values[at + lane];
            sums[lane] += value * value;
        }
    }
    for (; at < count; at++) {
        const double value = values[at];
        sums[at % 16] += value * value;
    }
    double sum = 0;
    for (double lane : sums) sum += lane;
    return sum;
}

// ---- dropout by counter ----

// One block of 128 elements: 16 counters of Philox 4x32 (Salmon et al. 2011) give 8 numbers of 16 bits each.
constexpr int64_t LANES = 16;
constexpr int64_t BLOCK = LANES * 8;

// Words stand in lanes of 64 bits: a product of two words is one instruction then.
INLINE void philox(uint64_t key, uint64_t block, uint32_t place, uint32_t part, uint16_t *__restrict numbers) {
    constexpr uint64_t WORD = 0xFFFFFFFF;
    uint64_t a[LANES], b[LANES], c[LANES], d[LANES];
    for (int lane = 0; lane < LANES; lane++) {
        a[lane] = (block * LANES + lane) & WORD;
        b[lane] = (block * LANES) >> 32;
        c[lane] = place;
        d[lane] = part;
    }
    uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; round++) {
        for (int lane = 0; lane < LANES; lane++) {
            const uint64_t first = static_cast<uint64_t>(static_cast<uint32_t>(a[lane])) * 0xD2511F53u;
            const uint64_t second = static_cast<uint64_t>(static_cast<uint32_t>(c[lane])) * 0xCD9E8D57u;
            a[lane] = (second >> 32) ^ b[lane] ^ low;
            c[lane] = (first >> 32) ^ d[lane] ^ high;
            b[lane] = second & WORD;
            d[lane] = first & WORD;
        }
        low += 0x9E3779B9u;
        high += 0xBB67AE85u;
    }
    for (int lane = 0; lane < LANES; lane++) {
        numbers[lane] = static_cast<uint16_t>(a[lane]);
        numbers[LANES + lane] = static_cast<uint16_t>(a[lane] >> 16);
        numbers[2 * LANES + lane] = static_cast<uint16_t>(b[lane]);
        numbers[3 * LANES + lane] = static_cast<uint16_t>(b[lane] >> 16);
        numbers[4 * LANES + lane] = static_cast<uint16_t>(c[lane]);
        numbers[5 * LANES + lane] = static_cast<uint16_t>(c[lane] >> 16);
        numbers[6 * LANES + lane] = static_cast<uint16_t>(d[lane]);
        numbers[7 * LANES + lane] = static_cast<uint16_t>(d[lane] >> 16);
    }
}

struct Draw {
    uint64_t key;
    uint32_t place, part;
    // An element falls where its number is below this, of 65,536.
    uint32_t threshold;
    float scale;
};

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

template <typename Number, bool Adds>
INLINE void drop_some(const Draw &draw, const uint16_t *numbers, int64_t length, const Number *__restrict x,
                      const Number *__restrict residual, Number *__restrict out) {
    const uint32_t threshold = draw.threshold;
    const float scale = draw.scale;
    float factors[BLOCK];
    for (int64_t at = 0; at < BLOCK; at++) factors[at] = numbers[at] >= threshold ? scale : 0.0f;
    for (int64_t at = 0; at < length; at++) {
        float value = to_float(x[at]) * factors[at];
        if (Adds) value += to_float(residual[at]);
        store(value, &out[at]);
    }
}

template <typename Number, bool Adds>
INLINE void drop_blocks(const Draw &draw, int64_t first, int64_t last, int64_t count, const Number *x,
                        const Number *residual, Number *out) {
    for (int64_t block = first; block < last; block++) {
        uint16_t numbers[BLOCK];
        philox(draw.key, static_cast<uint64_t>(block), draw.place, draw.part, numbers);
        const int64_t at = block * BLOCK;
        const Number *added = Adds ? residual + at : nullptr;
        // Nearly every block is whole, and a length that is known makes it vectors throughout.
        if (count - at >= BLOCK) {
            drop_some<Number, Adds>(draw, numbers, BLOCK, x + at, added, out + at);
        } else {
            drop_some<Number, Adds>(draw, numbers, count - at, x + at, added, out + at);
        }
    }
}

EVERY_INSTRUCTION_SET
void drop_float(const Draw *draw, int64_t first, int64_t last, int64_t count, const float *x, float *out) {
    drop_blocks<float, false>(*draw, first, last, count, x, nullptr, out);
}
EVERY_INSTRUCTION_SET
void drop_bfloat16(const Draw *draw, int64_t first, int64_t last, int64_t count, const uint16_t *x, uint16_t *out) {
    drop_blocks<uint16_t, false>(*draw, first, last, count, x, nullptr, out);
}
EVERY_INSTRUCTION_SET
void drop_add_float(const Draw *draw, int64_t first, int64_t last, int64_t count, const float *x, const float *residual,
                    float *out) {
    drop_blocks<float, true>(*draw, first, last, count, x, residual, out);
}
EVERY_INSTRUCTION_SET
void drop_add_bfloat16(const Draw *draw, int64_t first, int64_t last, int64_t count, const uint16_t *x,
                       const uint16_t *residual, uint16_t *out) {
    drop_blocks<uint16_t, true>(*draw, first, last, count, x, residual, out);
}

EVERY_INSTRUCTION_SET
void collect_range(float *__restrict gradients, uint16_t *__restrict of_pass, int64_t count) {
    for (int64_t at = 0; at < count; at++) {
        gradients[at] += to_float(of_pass[at]);
        of_pass[at] = 0;
    }
}

at::Tensor drop_on_cpu(const Draw &draw, const at::Tensor &given, const at::Tensor &residual) {
    const at::Tensor x = given.contiguous(), added = residual.defined() ? residual.contiguous() : residual;
    TORCH_CHECK(!added.defined() || (added.sizes() == x.sizes() && added.scalar_type() == x.scalar_type()),
                "what is added to must have the shape and the number format of what is dropped");
    at::Tensor out = at::empty_like(x);
    const int64_t count = x.numel(), blocks = at::divup(count, BLOCK);
    const bool wide = x.scalar_type() == at::kFloat;
    TORCH_CHECK(wide || x.scalar_type() == at::kBFloat16, "dropout is made for float32 and bfloat16");
    at::parallel_for(0, blocks, GRAIN / BLOCK, [&](int64_t first, int64_t last) {
        if (wide) {
            const float *from = x.const_data_ptr<float>();
            float *to = out.mutable_data_ptr<float>();
            if (added.defined()) {
                drop_add_float(&draw, first, last, count, from, added.const_data_ptr<float>(), to);
            } else {
                drop_float(&draw, first, last, count, from, to);
            }
        } else {
            const auto *from = static_cast<const uint16_t *>(x.const_data_ptr());
            auto *to = static_cast<uint16_t *>(out.mutable_data_ptr());
            if (added.defined()) {
                drop_add_bfloat16(&draw, first, last, count, from,
                                  static_cast<const uint16_t *>(added.const_data_ptr()), to);
            } else {
                drop_bfloat16(&draw, first, last, count, from, to);
            }
        }
    });
    return out;
}

// What fell in the pass forward is drawn again from its counter: no mask is kept.
struct DropBackward : torch::autograd::Node {
    Draw draw;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&gradients) override {
        at::AutoDispatchBelowAutograd below;
        const at::Tensor &gradient = gradients.at(0);
        if (!gradient.defined()) return {at::Tensor(), at::Tensor()};
        return {drop_on_cpu(draw, gradient, at::Tensor()), gradient};
    }
};

at::Tensor drop(const Draw &draw, const at::Tensor &x, const at::Tensor &residual) {
    if (!x.is_cpu()) {
        // Other devices draw from the library's own generator.
        const at::Tensor dropped = at::dropout(x, draw.threshold / 65536.0, true);
        return residual.defined() ? dropped + residual : dropped;
    }
    at::Tensor out;
    {
        at::AutoDispatchBelowAutograd below;
        out = drop_on_cpu(draw, x, residual);
    }
    const bool recorded = x.requires_grad() || (residual.defined() && residual.requires_grad());
    if (at::GradMode::is_enabled() && recorded) {
        std::shared_ptr<DropBackward> node(new DropBackward(), torch::autograd::deleteNode);
        node->draw = draw;
        node->set_next_edges(torch::autograd::collect_next_edges(x, residual));
        torch::autograd::set_history(out, node);
    }
    return out;
}

// ---- the norm of a layer ----

// Rows whose gradients of the weight are summed together: a fixed number, so that threads do not matter.
constexpr int64_t NORM_ROWS = 64;
constexpr int64_t SUMS = 16;

INLINE float sum_of(const float *sums) {
    float sum = 0;
    for (int64_t lane = 0; lane < SUMS; lane++) sum += sums[lane];
    return sum;
}

template <typename Number>
INLINE void norm_rows(const Number *__restrict x, const float *__restrict weight, Number *__restrict out,
                      float *__restrict scales, int64_t rows, int64_t width, float epsilon) {
    for (int64_t row = 0; row < rows; row++) {
        const Number *from = x + row * width;
        float sums[SUMS] = {};
        for (int64_t at = 0; at + SUMS <= width; at += SUMS) {
            for (int64_t lane = 0; lane < SUMS; lane++) sums[lane] += to_float(from[at + lane]) * to_float(from[at + lane]);
        }
        for (int64_t at = width / SUMS * SUMS; at < width; at++) sums[at % SUMS] += to_float(from[at]) * to_float(from[at]);
        const float scale = 1.0f / std::sqrt(sum_of(sums) / static_cast<float>(width) + epsilon);
        scales[row] = scale;
        for (int64_t at = 0; at < width; at++) store(to_float(from[at]) * scale * weight[at], &out[row * width + at]);
    }
}

// With y = w x r and r = 1 / sqrt(mean(x^2) + e): dx = r (w g - x r^2 mean(w g x)), dw = sum over rows of g x r.
template <typename Number>
INLINE void norm_rows_back(const Number *__restrict x, const float *__restrict weight, const float *__restrict scales,
                           const Number *__restrict gradient, Number *__restrict to_x, float *__restrict to_weight,
                           int64_t rows, int64_t width) {
    for (int64_t row = 0; row < rows; row++) {
        const Number *from = x + row * width, *back = gradient + row * width;
        const float scale = scales[row];
        float sums[SUMS] = {};
        for (int64_t at = 0; at + SUMS <= width; at += SUMS) {
            for (int64_t lane = 0; lane < SUMS; lane++) {
                sums[lane] += to_float(back[at + lane]) * weight[at + lane] * to_float(from[at + lane]);
            }
        }
        for (int64_t at = width / SUMS * SUMS; at < width; at++) {
            sums[at % SUMS] += to_float(back[at]) * weight[at] * to_float(from[at]);
        }
        const float pull = sum_of(sums) / static_cast<float>(width) * scale * scale;
        for (int64_t at = 0; at < width; at++) {
            const float number = to_float(from[at]), slope = to_float(back[at]);
            store(scale * (weight[at] * slope - number * pull), &to_x[row * width + at]);
            to_weight[at] += slope * number * scale;
        }
    }
}

EVERY_INSTRUCTION_SET
void norm_float(const float *x, const float *weight, float *out, float *scales, int64_t rows, int64_t width,
                float epsilon) {
    norm_rows(x, weight, out, scales, rows, width, epsilon);
}
EVERY_INSTRUCTION_SET
void norm_bfloat16(const uint16_t *x, const float *weight, uint16_t *out, float *scales, int64_t rows, int64_t width,
                   float epsilon) {
    norm_rows(x, weight, out, scales, rows, width, epsilon);
}
EVERY_INSTRUCTION_SET
void norm_back_float(const float *x, const float *weight, const float *scales, const float *gradient, float *to_x,
                     float *to_weight, int64_t rows, int64_t width) {
    norm_rows_back(x, weight, scales, gradient, to_x, to_weight, rows, width);
}
EVERY_INSTRUCTION_SET
void norm_back_bfloat16(const uint16_t *x, const float *weight, const float *scales, const uint16_t *gradient,
                        uint16_t *to_x, float *to_weight, int64_t rows, int64_t width) {
    norm_rows_back(x, weight, scales, gradient, to_x, to_weight, rows, width);
}

const uint16_t *bits(const at::Tensor &tensor) { return static_cast<const uint16_t *>(tensor.const_data_ptr()); }
uint16_t *bits_of(at::Tensor &tensor) { return static_cast<uint16_t *>(tensor.mutable_data_ptr()); }

struct NormBackward : torch::autograd::Node {
    at::Tensor x, weight, scales;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&gradients) override {
        at::AutoDispatchBelowAutograd below;
        if (!gradients.at(0).defined()) return {at::Tensor(), at::Tensor()};
        const at::Tensor gradient = gradients.at(0).contiguous();
        const int64_t width = weight.numel(), rows = scales.numel(), chunks = at::divup(rows, NORM_ROWS);
        at::Tensor to_x = at::empty_like(x), sums = at::zeros({chunks, width}, weight.options());
        float *sum = sums.mutable_data_ptr<float>();
        at::parallel_for(0, chunks, std::max<int64_t>(1, GRAIN / (NORM_ROWS * width)), [&](int64_t from, int64_t to) {
            for (int64_t chunk = from; chunk < to; chunk++) {
                const int64_t row = chunk * NORM_ROWS, count = std::min(NORM_ROWS, rows - row), at = row * width;
                const float *scale = scales.const_data_ptr<float>() + row, *by = weight.const_data_ptr<float>();
                if (x.scalar_type() == at::kFloat) {
                    norm_back_float(x.const_data_ptr<float>() + at, by, scale, gradient.const_data_ptr<float>() + at,
                                    to_x.mutable_data_ptr<float>() + at, sum + chunk * width, count, width);
                } else {
                    norm_back_bfloat16(bits(x) + at, by, scale, bits(gradient) + at, bits_of(to_x) + at,
                                       sum + chunk * width, count, width);
                }
            }
        });
        return {to_x, sums.sum(0)};
    }

    void release_variables() override {
        x.reset();
        weight.reset();
        scales.reset();
    }
};

void check_number(const at::Tensor &x) {
    TORCH_CHECK(x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16),
                "this kernel is made for float32 and bfloat16 on the CPU");
}

at::Tensor layer_norm(const at::Tensor &given, const at::Tensor &weight, float epsilon) {
    check_number(given);
    const int64_t width = weight.numel();
    TORCH_CHECK(weight.is_cpu() && weight.scalar_type() == at::kFloat && weight.is_contiguous() && weight.dim() == 1 &&
                    width > 0 && given.dim() > 0 && given.size(-1) == width,
                "a norm's weight must be float32 and as long as the rows");
    at::Tensor x, out, scales;
    {
        at::AutoDispatchBelowAutograd below;
        x = given.contiguous();
        const int64_t rows = x.numel() / width;
        out = at::empty_like(x);
        scales = at::empty({rows}, weight.options());
        at::parallel_for(0, rows, std::max<int64_t>(1, GRAIN / width), [&](int64_t from, int64_t to) {
            float *scale = scales.mutable_data_ptr<float>() + from;
            const float *by = weight.const_data_ptr<float>();
            const int64_t at = from * width;
            if (x.scalar_type() == at::kFloat) {
                norm_float(x.const_data_ptr<float>() + at, by, out.mutable_data_ptr<float>() + at, scale, to - from, width,
                           epsilon);
            } else {
                norm_bfloat16(bits(x) + at, by, bits_of(out) + at, scale, to - from, width, epsilon);
            }
        });
    }
    if (at::GradMode::is_enabled() && (given.requires_grad() || weight.requires_grad())) {
        std::shared_ptr<NormBackward> node(new NormBackward(), torch::autograd::deleteNode);
        // Without their own histories, which are the edges.
        node->x = x.detach();
        node->weight = weight.detach();
        node->scales = scales;
        node->set_next_edges(torch::autograd::collect_next_edges(given, weight));
        torch::autograd::set_history(out, node);
    }
    return out;
}

// ---- the gate of the feed-forward layer ----

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

constexpr float GELU_INNER = 0.7978845608f, GELU_CUBE = 0.044715f;

// gelu(a) = a s with s = sigmoid(2 u), u = sqrt(2 / pi) (a + 0.044715 a^3): the tanh form.
template <typename Number>
INLINE void gate_rows(const Number *__restrict wide, Number *__restrict out, int64_t rows, int64_t width) {
    for (int64_t row = 0; row < rows; row++) {
        const Number *left = wide + row * 2 * width, *right = left + width;
        Number *to = out + row * width;
        for (int64_t at = 0; at < width; at++) {
            const float a = to_float(left[at]);
            const float inner = GELU_INNER * (a + GELU_CUBE * a * a * a);
            const float share = 1.0f / (1.0f + exponential(-2.0f * inner));
            store(a * share * to_float(right[at]), &to[at]);
        }
    }
}

template <typename Number>
INLINE void gate_rows_back(const Number *__restrict wide, const Number *__restrict gradient, Number *__restrict out,
                           int64_t rows, int64_t width) {
    for (int64_t row = 0; row < rows; row++) {
        const Number *left = wide + row * 2 * width, *right = left + width, *back = gradient + row * width;
        Number *to_left = out + row * 2 * width, *to_right = to_left + width;
        for (int64_t at = 0; at < width; at++) {
            const float a = to_float(left[at]), slope = to_float(back[at]);
            const float inner = GELU_INNER * (a + GELU_CUBE * a * a * a);
            const float share = 1.0f / (1.0f + exponential(-2.0f * inner));
            const float steep = 2.0f * GELU_INNER * (1.0f + 3.0f * GELU_CUBE * a * a);
            store(slope * to_float(right[at]) * (share + a * share * (1.0f - share) * steep), &to_left[at]);
            store(slope * a * share, &to_right[at]);
        }
    }
}

EVERY_INSTRUCTION_SET
void gate_float(const float *wide, float *out, int64_t rows, int64_t width) { gate_rows(wide, out, rows, width); }
EVERY_INSTRUCTION_SET
void gate_bfloat16(const uint16_t *wide, uint16_t *out, int64_t rows, int64_t width) {
    gate_rows(wide, out, rows, width);
}
EVERY_INSTRUCTION_SET
void gate_back_float(const float *wide, const float *gradient, float *out, int64_t rows, int64_t width) {
    gate_rows_back(wide, gradient, out, rows, width);
}
EVERY_INSTRUCTION_SET
void gate_back_bfloat16(const uint16_t *wide, const uint16_t *gradient, uint16_t *out, int64_t rows, int64_t width) {
    gate_rows_back(wide, gradient, out, rows, width);
}

struct GateBackward : torch::autograd::Node {
    at::Tensor wide;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&gradients) override {
        at::AutoDispatchBelowAutograd below;
        if (!gradients.at(0).defined()) return {at::Tensor()};
        const at::Tensor gradient = gradients.at(0).contiguous();
        at::Tensor out = at::empty_like(wide);
        const int64_t width = wide.size(-1) / 2, rows = wide.numel() / (2 * width);
        at::parallel_for(0, rows, std::max<int64_t>(1, GRAIN / (4 * width)), [&](int64_t from, int64_t to) {
            const int64_t half = from * width, at = 2 * half;
            if (wide.scalar_type() == at::kFloat) {
                gate_back_float(wide.const_data_ptr<float>() + at, gradient.const_data_ptr<float>() + half,
                                out.mutable_data_ptr<float>() + at, to - from, width);
            } else {
                gate_back_bfloat16(bits(wide) + at, bits(gradient) + half, bits_of(out) + at, to - from, width);
            }
        });
        return {out};
    }

    void release_variables() override { wide.reset(); }
};

at::Tensor gate(const at::Tensor &given) {
    check_number(given);
    TORCH_CHECK(given.dim() > 0 && given.size(-1) > 0 && given.size(-1) % 2 == 0, "a gate needs two halves of one width");
    at::Tensor wide, out;
    {
        at::AutoDispatchBelowAutograd below;
        wide = given.contiguous();
        std::vector<int64_t> sizes = wide.sizes().vec();
        const int64_t width = sizes.back() / 2, rows = wide.numel() / (2 * width);
        sizes.back() = width;
        out = at::empty(sizes, wide.options());
        at::parallel_for(0, rows, std::max<int64_t>(1, GRAIN / (4 * width)), [&](int64_t from, int64_t to) {
            const int64_t half = from * width;
            if (wide.scalar_type() == at::kFloat) {
                gate_float(wide.const_data_ptr<float>() + 2 * half, out.mutable_data_ptr<float>() + half, to - from, width);
            } else {
                gate_bfloat16(bits(wide) + 2 * half, bits_of(out) + half, to - from, width);
            }
        });
    }
    if (at::GradMode::is_enabled() && given.requires_grad()) {
        std::shared_ptr<GateBackward> node(new GateBackward(), torch::autograd::deleteNode);
        node->wide = wide.detach();
        node->set_next_edges(torch::autograd::collect_next_edges(given));
        torch::autograd::set_history(out, node);
    }
    return out;
}

// ---- the loss of a token ----

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

template <typename Number>
INLINE void losses_of(const Number *logits, const int64_t *targets, float *losses, float *normalisers, int64_t rows,
                      int64_t width) {
    for (int64_t row = 0; row < rows; row++) {
        const Number *from = logits + row * width;
        normalisers[row] = log_sum_exp(from, width);
        losses[row] = normalisers[row] - to_float(from[targets[row]]);
    }
}

// d loss / d logits = softmax - 1 at the target.
template <typename Number>
INLINE void losses_back(const Number *__restrict logits, const int64_t *targets, const float *normalisers,
                        const float *gradients, Number *__restrict out, int64_t rows, int64_t width) {
    for (int64_t row = 0; row < rows; row++) {
        const Number *from = logits + row * width;
        Number *to = out + row * width;
        const float by = gradients[row], normaliser = normalisers[row];
        for (int64_t at = 0; at < width; at++) store(exponential(to_float(from[at]) - normaliser) * by, &to[at]);
        const int64_t target = targets[row];
        store((exponential(to_float(from[target]) - normaliser) - 1.0f) * by, &to[target]);
    }
}

EVERY_INSTRUCTION_SET
void losses_float(const float *logits, const int64_t *targets, float *losses, float *normalisers, int64_t rows,
                  int64_t width) {
    losses_of(logits, targets, losses, normalisers, rows, width);
}
EVERY_INSTRUCTION_SET
void losses_bfloat16(const uint16_t *logits, const int64_t *targets, float *losses, float *normalisers, int64_t rows,
                     int64_t width) {
    losses_of(logits, targets, losses, normalisers, rows, width);
}
EVERY_INSTRUCTION_SET
void losses_back_float(const float *logits, const int64_t *targets, const float *normalisers, const float *gradients,
                       float *out, int64_t rows, int64_t width) {
    losses_back(logits, targets, normalisers, gradients, out, rows, width);
}
EVERY_INSTRUCTION_SET
void losses_back_bfloat16(const uint16_t *logits, const int64_t *targets, const float *normalisers,
                          const float *gradients, uint16_t *out, int64_t rows, int64_t width) {
    losses_back(logits, targets, normalisers, gradients, out, rows, width);
}

struct LossBackward : torch::autograd::Node {
    at::Tensor logits, targets, normalisers;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&gradients) override {
        at::AutoDispatchBelowAutograd below;
        if (!gradients.at(0).defined()) return {at::Tensor()};
        const at::Tensor gradient = gradients.at(0).contiguous();
        at::Tensor out = at::empty_like(logits);
        const int64_t rows = logits.size(0), width = logits.size(1);
        at::parallel_for(0, rows, std::max<int64_t>(1, GRAIN / (4 * width)), [&](int64_t from, int64_t to) {
            const int64_t *target = targets.const_data_ptr<int64_t>() + from;
            const float *normaliser = normalisers.const_data_ptr<float>() + from;
            const float *by = gradient.const_data_ptr<float>() + from;
            const int64_t at = from * width;
            if (logits.scalar_type() == at::kFloat) {
                losses_back_float(logits.const_data_ptr<float>() + at, target, normaliser, by,
                                  out.mutable_data_ptr<float>() + at, to - from, width);
            } else {
                losses_back_bfloat16(bits(logits) + at, target, normaliser, by, bits_of(out) + at, to - from, width);
            }
        });
        return {out};
    }

    void release_variables() override {
        logits.reset();
        targets.reset();
        normalisers.reset();
    }
};

at::Tensor token_losses(const at::Tensor &given, const at::Tensor &targets) {
    check_number(given);
    TORCH_CHECK(given.dim() == 2 && given.size(1) > 0 && targets.dim() == 1 && targets.size(0) == given.size(0) &&
                    targets.scalar_type() == at::kLong && targets.is_cpu() && targets.is_contiguous(),
                "each row of logits needs a target");
    const int64_t rows = given.size(0), width = given.size(1);
    for (int64_t row = 0; row < rows; row++) {
        const int64_t target = targets.const_data_ptr<int64_t>()[row];
        TORCH_CHECK(target >= 0 && target < width, "a target of ", target, " among ", width, " logits");
    }
    at::Tensor logits, losses, normalisers;
    {
        at::AutoDispatchBelowAutograd below;
        logits = given.contiguous();
        losses = at::empty({rows}, given.options().dtype(at::kFloat));
        normalisers = at::empty_like(losses);
        at::parallel_for(0, rows, std::max<int64_t>(1, GRAIN / (4 * width)), [&](int64_t from, int64_t to) {
            const int64_t *target = targets.const_data_ptr<int64_t>() + from;
            float *loss = losses.mutable_data_ptr<float>() + from;
            float *normaliser = normalisers.mutable_data_ptr<float>() + from;
            if (logits.scalar_type() == at::kFloat) {
                losses_float(logits.const_data_ptr<float>() + from * width, target, loss, normaliser, to - from, width);
            } else {
                losses_bfloat16(bits(logits) + from * width, target, loss, normaliser, to - from, width);
            }
        });
    }
    if (at::GradMode::is_enabled() && given.requires_grad()) {
        std::shared_ptr<LossBackward> node(new LossBackward(), torch::autograd::deleteNode);
        node->logits = logits.detach();
        node->targets = targets;
        node->normalisers = normalisers;
        node->set_next_edges(torch::autograd::collect_next_edges(given));
        torch::autograd::set_history(losses, node);
    }
    return losses;
}

// ---- the weights of attention ----

// What is added to scores `[rows, heads, queries, keys]`: a position bias `[1, heads, queries, keys]`, and a mask `[rows, 1, 1, keys]`
// or `[1, 1, queries, keys]`; either may be missing.
struct Scores {
    int64_t rows, heads, queries, keys;
    const float *bias, *mask;
    // How far the mask's next row and next query are.
    int64_t mask_row, mask_query;
};

template <typename Number>
INLINE void softmax_rows(const Scores &by, const Number *__restrict scores, Number *__restrict out, int64_t from, int64_t to) {
    std::vector<float> space(static_cast<size_t>(by.keys));
    float *__restrict values = space.data();
    for (int64_t at = from; at < to; at++) {
        const int64_t query = at % by.queries, plane = at % (by.heads * by.queries), row = at / (by.heads * by.queries);
        const Number *score = scores + at * by.keys;
        for (int64_t key = 0; key < by.keys; key++) values[key] = to_float(score[key]);
        if (by.bias) {
            const float *bias = by.bias + plane * by.keys;
            for (int64_t key = 0; key < by.keys; key++) values[key] += bias[key];
        }
        if (by.mask) {
            const float *mask = by.mask + row * by.mask_row + query * by.mask_query;
            for (int64_t key = 0; key < by.keys; key++) values[key] += mask[key];
        }
        const float normaliser = log_sum_exp(values, by.keys);
        for (int64_t key = 0; key < by.keys; key++) store(exponential(values[key] - normaliser), &out[at * by.keys + key]);
    }
}

// With p the softmax and g its gradient: ds = p (g - sum(p g)), and the bias's gradient is the sum of ds over rows, in their order.
template <typename Number>
INLINE void softmax_planes_back(const Scores &by, const Number *__restrict weights, const Number *__restrict gradients,
                                Number *__restrict out, float *__restrict to_bias, int64_t from, int64_t to) {
    const int64_t stride = by.heads * by.queries * by.keys;
    for (int64_t plane = from; plane < to; plane++) {
        for (int64_t row = 0; row < by.rows; row++) {
            const int64_t at = row * stride + plane * by.keys;
            const Number *weight = weights + at, *gradient = gradients + at;
            float sums[SUMS] = {};
            int64_t key = 0;
            for (; key + SUMS <= by.keys; key += SUMS) {
                for (int64_t lane = 0; lane < SUMS; lane++) {
                    sums[lane] += to_float(weight[key + lane]) * to_float(gradient[key + lane]);
                }
            }
            for (; key < by.keys; key++) sums[key % SUMS] += to_float(weight[key]) * to_float(gradient[key]);
            const float sum = sum_of(sums);
            for (key = 0; key < by.keys; key++) {
                const float slope = to_float(weight[key]) * (to_float(gradient[key]) - sum);
                store(slope, &out[at + key]);
                if (to_bias) to_bias[plane * by.keys + key] += slope;
            }
        }
    }
}

EVERY_INSTRUCTION_SET
void softmax_float(const Scores *by, const float *scores, float *out, int64_t from, int64_t to) {
    softmax_rows(*by, scores, out, from, to);
}
EVERY_INSTRUCTION_SET
void softmax_bfloat16(const Scores *by, const uint16_t *scores, uint16_t *out, int64_t from, int64_t to) {
    softmax_rows(*by, scores, out, from, to);
}
EVERY_INSTRUCTION_SET
void softmax_back_float(const Scores *by, const float *weights, const float *gradients, float *out, float *to_bias,
                        int64_t from, int64_t to) {
    softmax_planes_back(*by, weights, gradients, out, to_bias, from, to);
}
EVERY_INSTRUCTION_SET
void softmax_back_bfloat16(const Scores *by, const uint16_t *weights, const uint16_t *gradients, uint16_t *out,
                           float *to_bias, int64_t from, int64_t to) {
    softmax_planes_back(*by, weights, gradients, out, to_bias, from, to);
}

struct SoftmaxBackward : torch::autograd::Node {
    at::Tensor weights;
    bool has_bias;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&gradients) override {
        at::AutoDispatchBelowAutograd below;
        if (!gradients.at(0).defined()) return {at::Tensor(), at::Tensor()};
        const at::Tensor gradient = gradients.at(0).contiguous();
        const Scores by = {weights.size(0), weights.size(1), weights.size(2), weights.size(3), nullptr, nullptr, 0, 0};
        at::Tensor out = at::empty_like(weights), to_bias;
        if (has_bias) to_bias = at::zeros({1, by.heads, by.queries, by.keys}, weights.options().dtype(at::kFloat));
        float *bias = has_bias ? to_bias.mutable_data_ptr<float>() : nullptr;
        const int64_t grain = std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, by.rows * by.keys));
        at::parallel_for(0, by.heads * by.queries, grain, [&](int64_t from, int64_t to) {
            if (weights.scalar_type() == at::kFloat) {
                softmax_back_float(&by, weights.const_data_ptr<float>(), gradient.const_data_ptr<float>(),
                                   out.mutable_data_ptr<float>(), bias, from, to);
            } else {
                softmax_back_bfloat16(&by, bits(weights), bits(gradient), bits_of(out), bias, from, to);
            }
        });
        return {out, to_bias};
    }

    void release_variables() override { weights.reset(); }
};

at::Tensor attention_weights(const at::Tensor &given, const at::Tensor &bias, const at::Tensor &mask) {
    check_number(given);
    TORCH_CHECK(given.dim() == 4 && given.size(3) > 0, "scores must be [rows, heads, queries, keys]");
    Scores by = {given.size(0), given.size(1), given.size(2), given.size(3), nullptr, nullptr, 0, 0};
    at::Tensor scores, out, added, hidden;
    {
        at::AutoDispatchBelowAutograd below;
        scores = given.contiguous();
        if (bias.defined()) {
            TORCH_CHECK(bias.is_cpu() && bias.scalar_type() == at::kFloat && bias.dim() == 4 && bias.size(0) == 1 &&
                            bias.size(1) == by.heads && bias.size(2) == by.queries && bias.size(3) == by.keys,
                        "a position bias must be float32 [1, heads, queries, keys]");
            added = bias.contiguous();
            by.bias = added.const_data_ptr<float>();
        }
        if (mask.defined()) {
            const bool of_rows = mask.dim() == 4 && mask.size(0) == by.rows && mask.size(2) == 1;
            const bool of_queries = mask.dim() == 4 && mask.size(0) == 1 && mask.size(2) == by.queries;
            TORCH_CHECK(mask.is_cpu() && mask.scalar_type() == at::kFloat && (of_rows || of_queries) && mask.size(1) == 1 &&
                            mask.size(3) == by.keys && !mask.requires_grad(),
                        "a mask must be float32 [rows, 1, 1, keys] or [1, 1, queries, keys], and no weight");
            hidden = mask.contiguous();
            by.mask = hidden.const_data_ptr<float>();
            by.mask_row = of_rows ? by.keys : 0;
            by.mask_query = of_rows ? 0 : by.keys;
        }
        out = at::empty_like(scores);
        const int64_t grain = std::max<int64_t>(1, GRAIN / (4 * by.keys));
        at::parallel_for(0, by.rows * by.heads * by.queries, grain, [&](int64_t from, int64_t to) {
            if (scores.scalar_type() == at::kFloat) {
                softmax_float(&by, scores.const_data_ptr<float>(), out.mutable_data_ptr<float>(), from, to);
            } else {
                softmax_bfloat16(&by, bits(scores), bits_of(out), from, to);
            }
        });
    }
    const bool learns_bias = bias.defined() && bias.requires_grad();
    if (at::GradMode::is_enabled() && (given.requires_grad() || learns_bias)) {
        std::shared_ptr<SoftmaxBackward> node(new SoftmaxBackward(), torch::autograd::deleteNode);
        node->weights = out.detach();
        node->has_bias = learns_bias;
        node->set_next_edges(torch::autograd::collect_next_edges(given, bias));
        torch::autograd::set_history(out, node);
    }
    return out;
}

// ---- projections and embeddings whose gradients go straight to their place ----

// Where passes add the gradient of a weight; undefined where there is no such place, and the gradient has to be returned.
at::Tensor place_of_gradient(const at::Tensor &weight) {
    return weight.is_leaf() && weight.requires_grad() ? weight.grad() : at::Tensor();
}

struct LinearBackward : torch::autograd::Node {
    at::Tensor x, weight;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&gradients) override {
        at::AutoDispatchBelowAutograd below;
        if (!gradients.at(0).defined()) return {at::Tensor(), at::Tensor()};
        const at::Tensor &gradient = gradients.at(0);
        const at::Tensor to_x = task_should_compute_output(0) ? gradient.mm(weight.detach()) : at::Tensor();
        if (!task_should_compute_output(1)) return {to_x, at::Tensor()};
        at::Tensor place = place_of_gradient(weight);
        if (!place.defined()) return {to_x, gradient.t().mm(x)};
        // A product that adds: neither a tensor for the product nor a pass that adds it.
        place.addmm_(gradient.t(), x);
        return {to_x, at::Tensor()};
    }

    void release_variables() override {
        x.reset();
        weight.reset();
    }
};

at::Tensor linear_in_place(const at::Tensor &x, const at::Tensor &weight) {
    TORCH_CHECK(x.dim() == 2 && weight.dim() == 2 && x.size(1) == weight.size(1), "a projection of [tokens, in] needs [out, in]");
    at::Tensor out;
    {
        at::AutoDispatchBelowAutograd below;
        out = x.mm(weight.t());
    }
    if (at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad())) {
        std::shared_ptr<LinearBackward> node(new LinearBackward(), torch::autograd::deleteNode);
        node->x = x.detach();
        node->weight = weight;
        node->set_next_edges(torch::autograd::collect_next_edges(x, weight));
        torch::autograd::set_history(out, node);
    }
    return out;
}

template <typename Number>
INLINE void add_tokens(const Number *__restrict gradients, Number *__restrict place, const int64_t *tokens, int64_t count,
                       int64_t width, float *__restrict sum) {
    for (int64_t at = 0; at < width; at++) sum[at] = to_float(place[at]);
    for (int64_t token = 0; token < count; token++) {
        const Number *gradient = gradients + tokens[token] * width;
        for (int64_t at = 0; at < width; at++) sum[at] += to_float(gradient[at]);
    }
    for (int64_t at = 0; at < width; at++) store(sum[at], &place[at]);
}

EVERY_INSTRUCTION_SET
void add_tokens_float(const float *gradients, float *place, const int64_t *tokens, int64_t count, int64_t width, float *sum) {
    add_tokens(gradients, place, tokens, count, width, sum);
}
EVERY_INSTRUCTION_SET
void add_tokens_bfloat16(const uint16_t *gradients, uint16_t *place, const int64_t *tokens, int64_t count, int64_t width,
                         float *sum) {
    add_tokens(gradients, place, tokens, count, width, sum);
}

// Adds the gradients of tokens to the rows of their ids; those of one id are summed in float32 and in their order.
void add_rows(const at::Tensor &gradient, const at::Tensor &ids, at::Tensor &place) {
    const int64_t count = ids.numel(), width = place.size(1);
    const int64_t *id = ids.const_data_ptr<int64_t>();
    std::vector<int64_t> tokens(static_cast<size_t>(count)), starts;
    for (int64_t token = 0; token < count; token++) tokens[static_cast<size_t>(token)] = token;
    std::stable_sort(tokens.begin(), tokens.end(), [&](int64_t left, int64_t right) { return id[left] < id[right]; });
    for (int64_t at = 0; at < count; at++) {
        if (at == 0 || id[tokens[static_cast<size_t>(at)]] != id[tokens[static_cast<size_t>(at) - 1]]) starts.push_back(at);
    }
    starts.push_back(count);
    const int64_t groups = static_cast<int64_t>(starts.size()) - 1;
    at::parallel_for(0, groups, std::max<int64_t>(1, GRAIN / width), [&](int64_t from, int64_t to) {
        std::vector<float> sum(static_cast<size_t>(width));
        for (int64_t group = from; group < to; group++) {
            const int64_t first = starts[static_cast<size_t>(group)], last = starts[static_cast<size_t>(group) + 1];
            const int64_t *members = tokens.data() + first, row = id[*members] * width;
            if (place.scalar_type() == at::kFloat) {
                add_tokens_float(gradient.const_data_ptr<float>(), place.mutable_data_ptr<float>() + row, members,
                                 last - first, width, sum.data());
            } else {
                add_tokens_bfloat16(bits(gradient), bits_of(place) + row, members, last - first, width, sum.data());
            }
        }
    });
}

struct EmbeddingBackward : torch::autograd::Node {
    at::Tensor weight, ids;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&gradients) override {
        at::AutoDispatchBelowAutograd below;
        if (!gradients.at(0).defined()) return {at::Tensor()};
        const at::Tensor gradient = gradients.at(0).contiguous();
        at::Tensor place = place_of_gradient(weight);
        if (place.defined() && place.is_cpu() && place.is_contiguous()) {
            add_rows(gradient, ids, place);
            return {at::Tensor()};
        }
        return {at::embedding_dense_backward(gradient, ids, weight.size(0), -1, false)};
    }

    void release_variables() override {
        weight.reset();
        ids.reset();
    }
};

at::Tensor embedding_in_place(const at::Tensor &weight, const at::Tensor &ids) {
    TORCH_CHECK(weight.dim() == 2 && ids.dim() == 1 && ids.scalar_type() == at::kLong && ids.is_contiguous() &&
                    (weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kBFloat16),
                "an embedding needs [vocabulary, width] and ids in one row");
    at::Tensor out;
    {
        at::AutoDispatchBelowAutograd below;
        // Checks the ids.
        out = weight.index_select(0, ids);
    }
    if (at::GradMode::is_enabled() && weight.requires_grad()) {
        std::shared_ptr<EmbeddingBackward> node(new EmbeddingBackward(), torch::autograd::deleteNode);
        node->weight = weight;
        node->ids = ids;
        node->set_next_edges(torch::autograd::collect_next_edges(weight));
        torch::autograd::set_history(out, node);
    }
    return out;
}

// ---- rows of tokens, end to end and padded ----

// Rows of tokens that lie end to end, and what one token holds: `parts * heads` vectors of one size. Behind the last row there may be
// tokens that belong to none, and the places of a row may be more than the longest needs: shapes that come again are products that
// are prepared already.
struct Rows {
    std::vector<int64_t> lengths;
    int64_t filling, width, parts, heads;

    int64_t count() const { return static_cast<int64_t>(lengths.size()); }
    int64_t tokens() const {
        int64_t tokens = filling;
        for (int64_t length : lengths) tokens += length;
        return tokens;
    }
};

// Copies every vector of every token to its place in `[rows, heads, width, size]` of its part, and nothing to the places
// behind a row's end; or the other way, from there to `[tokens, parts * heads * size]`.
template <bool Spreads>
void move_rows(const Rows &rows, char *tokens, const std::vector<char *> &padded, int64_t bytes) {
    const int64_t width = rows.width, stride = rows.parts * rows.heads * bytes;
    std::vector<int64_t> starts;
    int64_t start = 0;
    for (int64_t length : rows.lengths) {
        starts.push_back(start);
        start += length;
    }
    const int64_t each = rows.parts * rows.heads, grain = std::max<int64_t>(1, 4 * GRAIN / std::max<int64_t>(1, width * bytes));
    at::parallel_for(0, rows.count() * each, grain, [&](int64_t from, int64_t to) {
        for (int64_t task = from; task < to; task++) {
            const int64_t row = task / each, vector = task % each, part = vector / rows.heads, head = vector % rows.heads;
            const int64_t length = rows.lengths[static_cast<size_t>(row)];
            char *place = padded[static_cast<size_t>(part)] + (row * rows.heads + head) * width * bytes;
            char *token = tokens + starts[static_cast<size_t>(row)] * stride + vector * bytes;
            for (int64_t at = 0; at < length; at++) {
                if (Spreads) {
                    std::memcpy(place + at * bytes, token + at * stride, static_cast<size_t>(bytes));
                } else {
                    std::memcpy(token + at * stride, place + at * bytes, static_cast<size_t>(bytes));
                }
            }
            if (Spreads) std::memset(place + length * bytes, 0, static_cast<size_t>((width - length) * bytes));
        }
    });
    if (!Spreads) std::memset(tokens + start * stride, 0, static_cast<size_t>(rows.filling * stride));
}

// Where each token stands among the places of all rows, for devices that have no body of their own.
at::Tensor places(const Rows &rows, const at::Tensor &like) {
    std::vector<int64_t> places;
    const int64_t width = rows.width;
    for (int64_t row = 0; row < rows.count(); row++) {
        for (int64_t at = 0; at < rows.lengths[static_cast<size_t>(row)]; at++) places.push_back(row * width + at);
    }
    return at::tensor(places, at::kLong).to(like.device());
}

std::vector<at::Tensor> spread_now(const Rows &rows, const at::Tensor &given) {
    const int64_t vectors = rows.parts * rows.heads, size = given.size(1) / vectors, width = rows.width;
    const at::Tensor tokens = given.contiguous();
    std::vector<at::Tensor> padded;
    if (!tokens.is_cpu()) {
        const at::Tensor all = at::zeros({rows.count() * width, given.size(1)}, given.options())
                                   .index_copy(0, places(rows, given), tokens.narrow(0, 0, tokens.size(0) - rows.filling))
                                   .view({rows.count(), width, rows.parts, rows.heads, size});
        for (int64_t part = 0; part < rows.parts; part++) padded.push_back(all.select(2, part).transpose(1, 2).contiguous());
        return padded;
    }
    std::vector<char *> to;
    for (int64_t part = 0; part < rows.parts; part++) {
        padded.push_back(at::empty({rows.count(), rows.heads, width, size}, given.options()));
        to.push_back(static_cast<char *>(padded.back().mutable_data_ptr()));
    }
    // Only read: the copy has one form for both directions.
    auto *from = static_cast<char *>(const_cast<void *>(tokens.const_data_ptr()));
    move_rows<true>(rows, from, to, size * static_cast<int64_t>(given.element_size()));
    return padded;
}

at::Tensor gather_now(const Rows &rows, const std::vector<at::Tensor> &given) {
    const at::Tensor &first = given.front();
    const int64_t size = first.size(3), width = rows.width;
    if (!first.is_cpu()) {
        const at::Tensor tokens = at::stack(given, 2) // [rows, heads, parts, width, size]
                                      .permute({0, 3, 2, 1, 4})
                                      .reshape({rows.count() * width, rows.parts * rows.heads * size})
                                      .index_select(0, places(rows, first));
        return at::cat({tokens, at::zeros({rows.filling, tokens.size(1)}, tokens.options())});
    }
    at::Tensor tokens = at::empty({rows.tokens(), rows.parts * rows.heads * size}, first.options());
    std::vector<at::Tensor> whole;
    std::vector<char *> from;
    for (const at::Tensor &part : given) {
        whole.push_back(part.contiguous());
        from.push_back(static_cast<char *>(const_cast<void *>(whole.back().const_data_ptr())));
    }
    auto *to = static_cast<char *>(tokens.mutable_data_ptr());
    move_rows<false>(rows, to, from, size * static_cast<int64_t>(first.element_size()));
    return tokens;
}

// Each is the other's way back.
struct SpreadBackward : torch::autograd::Node {
    Rows rows;
    std::vector<int64_t> sizes;
    at::TensorOptions options;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&gradients) override {
        at::AutoDispatchBelowAutograd below;
        std::vector<at::Tensor> parts;
        for (const at::Tensor &gradient : gradients) {
            parts.push_back(gradient.defined() ? gradient : at::zeros(sizes, options));
        }
        return {gather_now(rows, parts)};
    }
};

struct GatherBackward : torch::autograd::Node {
    Rows rows;

    torch::autograd::variable_list apply(torch::autograd::variable_list &&gradients) override {
        at::AutoDispatchBelowAutograd below;
        if (!gradients.at(0).defined()) return {at::Tensor()};
        return {spread_now(rows, gradients.at(0)).front()};
    }
};

void check_rows(const Rows &rows) {
    TORCH_CHECK(!rows.lengths.empty() && rows.parts > 0 && rows.heads > 0 && rows.filling >= 0,
                "there must be rows, parts and heads");
    for (int64_t length : rows.lengths) TORCH_CHECK(length > 0 && length <= rows.width, "a row has no token, or too many");
}

std::vector<at::Tensor> spread(const Rows &rows, const at::Tensor &given) {
    check_rows(rows);
    TORCH_CHECK(given.dim() == 2 && given.size(0) == rows.tokens() && given.size(1) > 0 &&
                    given.size(1) % (rows.parts * rows.heads) == 0,
                "tokens must be as many as the rows have, with a vector for each part and head");
    std::vector<at::Tensor> padded;
    {
        at::AutoDispatchBelowAutograd below;
        padded = spread_now(rows, given);
    }
    if (at::GradMode::is_enabled() && given.requires_grad()) {
        std::shared_ptr<SpreadBackward> node(new SpreadBackward(), torch::autograd::deleteNode);
        node->rows = rows;
        node->sizes = padded.front().sizes().vec();
        node->options = padded.front().options();
        node->set_next_edges(torch::autograd::collect_next_edges(given));
        for (at::Tensor &part : padded) torch::autograd::set_history(part, node);
    }
    return padded;
}

at::Tensor gather(const Rows &rows, const at::Tensor &given) {
    check_rows(rows);
    TORCH_CHECK(given.dim() == 4 && given.size(0) == rows.count() && given.size(1) == rows.heads &&
                    given.size(2) == rows.width && given.size(3) > 0,
                "what is gathered must be [rows, heads, width, size]");
    at::Tensor tokens;
    {
        at::AutoDispatchBelowAutograd below;
        tokens = gather_now(rows, {given});
    }
    if (at::GradMode::is_enabled() && given.requires_grad()) {
        std::shared_ptr<GatherBackward> node(new GatherBackward(), torch::autograd::deleteNode);
        node->rows = rows;
        node->set_next_edges(torch::autograd::collect_next_edges(given));
        torch::autograd::set_history(tokens, node);
    }
    return tokens;
}
} // namespace

// What Rust calls. Every function returns null, or the words of what failed, valid until the thread's next call. Pointers to
// tensors are those that the bindings hold: they are read and never kept.
extern "C" {

// One AdamW update (Loshchilov and Hutter 2019) of flat float32 buffers of one length. `step` counts from 1.
const char *distillery_adamw(at::Tensor *weights, const at::Tensor *gradients, at::Tensor *firsts, at::Tensor *seconds,
                             double rate, double weight_decay, double beta_first, double beta_second, double epsilon,
                             double scale, int64_t step) {
    return guarded([&] {
        c10::AutoGradMode no_gradients(false);
        for (const at::Tensor *tensor : {const_cast<const at::Tensor *>(weights), gradients,
                                         const_cast<const at::Tensor *>(firsts),
                                         const_cast<const at::Tensor *>(seconds)}) {
            check_flat(*tensor, *weights);
        }
        if (!weights->is_cpu()) {
            const at::Tensor steps = at::full({}, static_cast<double>(step), weights->options());
            at::_fused_adamw_({*weights}, {*gradients * scale}, {*firsts}, {*seconds}, {}, {steps}, rate, beta_first,
                              beta_second, weight_decay, epsilon, false, false);
            return;
        }
        const double taken = static_cast<double>(step);
        const Update update = {
            static_cast<float>(scale),
            static_cast<float>(1.0 - rate * weight_decay),
            static_cast<float>(1.0 - beta_first),
            static_cast<float>(beta_second),
            static_cast<float>(1.0 - beta_second),
            static_cast<float>(std::sqrt(1.0 - std::pow(beta_second, taken))),
            static_cast<float>(epsilon),
            static_cast<float>(rate / (1.0 - std::pow(beta_first, taken))),
        };
        float *weight = weights->mutable_data_ptr<float>();
        const float *gradient = gradients->const_data_ptr<float>();
        float *first = firsts->mutable_data_ptr<float>(), *second = seconds->mutable_data_ptr<float>();
        at::parallel_for(0, weights->numel(), GRAIN, [&](int64_t from, int64_t to) {
            adamw_range(weight + from, gradient + from, first + from, second + from, to - from, &update);
        });
    });
}

// The Euclidean norm of a flat float32 buffer.
const char *distillery_norm(const at::Tensor *values, double *norm) {
    return guarded([&] {
        c10::AutoGradMode no_gradients(false);
        check_flat(*values, *values);
        if (!values->is_cpu()) {
            *norm = values->norm().item<double>();
            return;
        }
        const float *value = values->const_data_ptr<float>();
        const int64_t count = values->numel(), chunks = at::divup(count, CHUNK);
        std::vector<double> sums(static_cast<size_t>(chunks));
        at::parallel_for(0, chunks, 1, [&](int64_t from, int64_t to) {
            for (int64_t chunk = from; chunk < to; chunk++) {
                const int64_t at = chunk * CHUNK;
                sums[static_cast<size_t>(chunk)] = sum_of_squares(value + at, std::min(CHUNK, count - at));
            }
        });
        double sum = 0;
        for (double chunk : sums) sum += chunk;
        *norm = std::sqrt(sum);
    });
}

// Adds the bfloat16 gradients of a pass to the float32 ones, and sets them to nothing.
const char *distillery_collect(at::Tensor *gradients, at::Tensor *of_pass) {
    return guarded([&] {
        c10::AutoGradMode no_gradients(false);
        check_flat(*gradients, *gradients);
        check_flat(*of_pass, *gradients, at::kBFloat16);
        if (!gradients->is_cpu()) {
            gradients->add_(*of_pass);
            of_pass->zero_();
            return;
        }
        float *sum = gradients->mutable_data_ptr<float>();
        auto *added = static_cast<uint16_t *>(of_pass->mutable_data_ptr());
        at::parallel_for(0, gradients->numel(), GRAIN,
                         [&](int64_t from, int64_t to) { collect_range(sum + from, added + from, to - from); });
    });
}

// Makes `gradient` the place where passes add the gradient of `weight`.
const char *distillery_set_gradient(at::Tensor *weight, const at::Tensor *gradient) {
    return guarded([&] {
        TORCH_CHECK(weight->sizes() == gradient->sizes() && weight->scalar_type() == gradient->scalar_type() &&
                        weight->device() == gradient->device(),
                    "a gradient must have the shape, the number format and the device of its weight");
        weight->mutable_grad() = *gradient;
    });
}

// Dropout of `x`, added to `residual` where that is not null. The result is a new tensor that the caller owns.
const char *distillery_dropout(const at::Tensor *x, const at::Tensor *residual, uint64_t key, uint32_t place, uint32_t part,
                               uint32_t threshold, at::Tensor **result) {
    return guarded([&] {
        TORCH_CHECK(threshold < 65536, "a dropout rate must be below 1");
        const Draw draw = {key, place, part, threshold, 65536.0f / static_cast<float>(65536 - threshold)};
        *result = new at::Tensor(drop(draw, *x, residual ? *residual : at::Tensor()));
    });
}

// `weight * x / sqrt(mean(x^2) + epsilon)` over the last dimension, in float32 within. A new tensor that the caller owns.
const char *distillery_layer_norm(const at::Tensor *x, const at::Tensor *weight, double epsilon, at::Tensor **result) {
    return guarded([&] { *result = new at::Tensor(layer_norm(*x, *weight, static_cast<float>(epsilon))); });
}

// `gelu(left) * right` over the halves of the last dimension, GELU in its tanh form. A new tensor that the caller owns.
const char *distillery_gate(const at::Tensor *wide, at::Tensor **result) {
    return guarded([&] { *result = new at::Tensor(gate(*wide)); });
}

// The loss of each row of logits `[tokens, vocabulary]` at its target, float32 `[tokens]`. A new tensor that the caller owns.
const char *distillery_token_losses(const at::Tensor *logits, const at::Tensor *targets, at::Tensor **result) {
    return guarded([&] { *result = new at::Tensor(token_losses(*logits, *targets)); });
}

// The softmax over keys of `scores + bias + mask`; the last two may be null. A new tensor that the caller owns.
const char *distillery_attention_weights(const at::Tensor *scores, const at::Tensor *bias, const at::Tensor *mask,
                                         at::Tensor **result) {
    return guarded([&] {
        *result = new at::Tensor(attention_weights(*scores, bias ? *bias : at::Tensor(), mask ? *mask : at::Tensor()));
    });
}

// `x` `[tokens, in]` times the transpose of `weight` `[out, in]`. A new tensor that the caller owns.
const char *distillery_linear(const at::Tensor *x, const at::Tensor *weight, at::Tensor **result) {
    return guarded([&] { *result = new at::Tensor(linear_in_place(*x, *weight)); });
}

// The rows of `weight` `[vocabulary, width]` that `ids` name. A new tensor that the caller owns.
const char *distillery_embedding(const at::Tensor *weight, const at::Tensor *ids, at::Tensor **result) {
    return guarded([&] { *result = new at::Tensor(embedding_in_place(*weight, *ids)); });
}

// Tokens `[tokens, parts * heads * size]` of rows that lie end to end, as `parts` tensors `[rows, heads, width, size]`, nothing
// behind a row's end. New tensors that the caller owns.
const char *distillery_spread(const at::Tensor *tokens, const int64_t *lengths, int64_t count, int64_t filling, int64_t width,
                              int64_t parts, int64_t heads, at::Tensor **results) {
    return guarded([&] {
        const Rows rows = {std::vector<int64_t>(lengths, lengths + count), filling, width, parts, heads};
        std::vector<at::Tensor> padded = spread(rows, *tokens);
        for (size_t part = 0; part < padded.size(); part++) results[part] = new at::Tensor(padded[part]);
    });
}

// The tokens `[tokens, heads * size]` of `[rows, heads, width, size]`, end to end. A new tensor that the caller owns.
const char *distillery_gather(const at::Tensor *padded, const int64_t *lengths, int64_t count, int64_t filling, int64_t width,
                              at::Tensor **result) {
    return guarded([&] {
        TORCH_CHECK(padded->dim() == 4, "what is gathered must be [rows, heads, width, size]");
        const Rows rows = {std::vector<int64_t>(lengths, lengths + count), filling, width, 1, padded->size(1)};
        *result = new at::Tensor(gather(rows, *padded));
    });
}
}

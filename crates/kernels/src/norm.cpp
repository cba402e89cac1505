// The norm of a layer: T5's, by the root mean square, without a bias.

#include "kernels.h"

namespace kernels {
namespace {

// Rows whose gradients of the weight are summed together: a fixed number, so that threads do not matter.
constexpr int64_t NORM_ROWS = 64;
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

} // namespace

extern "C" {

// `weight * x / sqrt(mean(x^2) + epsilon)` over the last dimension, in float32 within. A new tensor that the caller owns.
const char *distillery_layer_norm(const at::Tensor *x, const at::Tensor *weight, double epsilon, at::Tensor **result) {
    return guarded([&] { *result = new at::Tensor(layer_norm(*x, *weight, static_cast<float>(epsilon))); });
}
}

} // namespace kernels

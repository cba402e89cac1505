// The weights of attention: a softmax over keys.

#include "kernels.h"

namespace kernels {
namespace {

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

} // namespace

extern "C" {

// The softmax over keys of `scores + bias + mask`; the last two may be null. A new tensor that the caller owns.
const char *distillery_attention_weights(const at::Tensor *scores, const at::Tensor *bias, const at::Tensor *mask,
                                         at::Tensor **result) {
    return guarded([&] {
        *result = new at::Tensor(attention_weights(*scores, bias ? *bias : at::Tensor(), mask ? *mask : at::Tensor()));
    });
}
}

} // namespace kernels

// The gate of the feed-forward layer.

#include "kernels.h"

namespace kernels {
namespace {

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

} // namespace

extern "C" {

// `gelu(left) * right` over the halves of the last dimension, GELU in its tanh form. A new tensor that the caller owns.
const char *distillery_gate(const at::Tensor *wide, at::Tensor **result) {
    return guarded([&] { *result = new at::Tensor(gate(*wide)); });
}
}

} // namespace kernels

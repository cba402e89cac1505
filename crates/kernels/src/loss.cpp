// The loss of a token: the cross-entropy of its logits.

#include "kernels.h"

namespace kernels {
namespace {

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

} // namespace

extern "C" {

// The loss of each row of logits `[tokens, vocabulary]` at its target, float32 `[tokens]`. A new tensor that the caller owns.
const char *distillery_token_losses(const at::Tensor *logits, const at::Tensor *targets, at::Tensor **result) {
    return guarded([&] { *result = new at::Tensor(token_losses(*logits, *targets)); });
}
}

} // namespace kernels

// Projections and embeddings whose gradients go straight to their place.

#include "kernels.h"

namespace kernels {
namespace {

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

} // namespace

extern "C" {

// `x` `[tokens, in]` times the transpose of `weight` `[out, in]`. A new tensor that the caller owns.
const char *distillery_linear(const at::Tensor *x, const at::Tensor *weight, at::Tensor **result) {
    return guarded([&] { *result = new at::Tensor(linear_in_place(*x, *weight)); });
}

// The rows of `weight` `[vocabulary, width]` that `ids` name. A new tensor that the caller owns.
const char *distillery_embedding(const at::Tensor *weight, const at::Tensor *ids, at::Tensor **result) {
    return guarded([&] { *result = new at::Tensor(embedding_in_place(*weight, *ids)); });
}
}

} // namespace kernels

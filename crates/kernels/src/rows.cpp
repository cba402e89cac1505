// Rows of tokens, end to end and padded.

#include "kernels.h"

namespace kernels {
namespace {

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

extern "C" {

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

} // namespace kernels

// Dropout by counter: what falls follows from a key, a step, a part and a place, and is drawn again in the pass backward.

#include "kernels.h"

namespace kernels {
namespace {

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

} // namespace

extern "C" {

// Dropout of `x`, added to `residual` where that is not null. The result is a new tensor that the caller owns.
const char *distillery_dropout(const at::Tensor *x, const at::Tensor *residual, uint64_t key, uint32_t place, uint32_t part,
                               uint32_t threshold, at::Tensor **result) {
    return guarded([&] {
        TORCH_CHECK(threshold < 65536, "a dropout rate must be below 1");
        const Draw draw = {key, place, part, threshold, 65536.0f / static_cast<float>(65536 - threshold)};
        *result = new at::Tensor(drop(draw, *x, residual ? *residual : at::Tensor()));
    });
}
}

} // namespace kernels

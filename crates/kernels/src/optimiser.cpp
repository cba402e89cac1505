// AdamW and the gradient norm over flat buffers.

#include "kernels.h"

namespace kernels {
namespace {

// Elements whose squares are summed together.
constexpr int64_t CHUNK = 65536;

void check_flat(const at::Tensor &tensor, const at::Tensor &like, at::ScalarType type = at::kFloat) {
    TORCH_CHECK(tensor.scalar_type() == type && tensor.is_contiguous() && tensor.dim() == 1,
                "a flat buffer must be ", type, ", contiguous and of one dimension");
    TORCH_CHECK(tensor.numel() == like.numel() && tensor.device() == like.device(),
                "flat buffers must have one length and one device");
}

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

EVERY_INSTRUCTION_SET
void collect_range(float *__restrict gradients, uint16_t *__restrict of_pass, int64_t count) {
    for (int64_t at = 0; at < count; at++) {
        gradients[at] += to_float(of_pass[at]);
        of_pass[at] = 0;
    }
}

} // namespace

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
}

} // namespace kernels

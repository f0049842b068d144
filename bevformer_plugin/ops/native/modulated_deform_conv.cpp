// The two halves of modulated deformable convolution (DCNv2) on CPUs that are no matrix products: sampling the columns,
// and passing their gradients on to image, offsets and mask. Images are float32 or bfloat16; positions, masks and sums
// are float32.
//
// Rows count the output's pixels (B, Ho, Wo). The functions work on some of the rows, so that the columns, (groups,
// rows, taps, C / groups), stay in the cache. image is (B, H, W, C), offset (B, Ho, Wo, DG, taps, 2) of (y, x) in
// pixels, mask (B, Ho, Wo, DG, taps), and the gradients of each the same, all of them contiguous.
//
// What is outside is skipped, but what is not finite is not: an offset that is no place, or a mask or gradient that is
// not finite at any place, makes what it takes part in NaN.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

namespace {

// In the order in which the caller lays them out.
struct Sizes {
    int64_t channels, height, width, out_h, out_w, kernel_h, kernel_w;
    int64_t stride_h, stride_w, padding_h, padding_w, dilation_h, dilation_w, groups, deform_groups;

    int64_t taps() const { return kernel_h * kernel_w; }
    int64_t per_group() const { return channels / groups; }
    int64_t per_deform_group() const { return channels / deform_groups; }
};

struct bfloat16 {
    uint16_t bits;
};

inline float widen(float value) { return value; }

inline float widen(bfloat16 value) {
    const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, sizeof wide);
    return wide;
}

inline void narrow(float value, float& result) { result = value; }

// Rounds to the nearest, ties to even; NaN stays NaN.
inline void narrow(float value, bfloat16& result) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    result.bits = static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

// Where a pixel of the output, or row, lies.
struct Pixel {
    int64_t row, image, y, x;

    Pixel(const Sizes& sizes, int64_t row)
        : row(row), image(row / (sizes.out_h * sizes.out_w)), y(row / sizes.out_w % sizes.out_h), x(row % sizes.out_w) {}
};

// What one tap of the kernel samples for one pixel.
struct Sample {
    bool inside = false;  // whether any corner is
    bool finite;          // whether the offset is
    float mask, fx = 0, fy = 0;
    int64_t corner[4] = {-1, -1, -1, -1};  // position in (B, H, W), the top left one first; -1 outside
    float weight[4] = {0, 0, 0, 0};

    Sample(const Sizes& sizes, const float* offset, const float* masks, const Pixel& pixel, int64_t group, int64_t tap) {
        const int64_t place = (pixel.row * sizes.deform_groups + group) * sizes.taps() + tap;
        mask = masks[place];
        const float dy = offset[2 * place], dx = offset[2 * place + 1];
        finite = std::isfinite(dy) && std::isfinite(dx);
        const float y = pixel.y * sizes.stride_h - sizes.padding_h + tap / sizes.kernel_w * sizes.dilation_h + dy;
        const float x = pixel.x * sizes.stride_w - sizes.padding_w + tap % sizes.kernel_w * sizes.dilation_w + dx;
        if (!(x > -1 && y > -1 && x < sizes.width && y < sizes.height)) return;  // also where one is not a number
        inside = true;
        const int64_t left = static_cast<int64_t>(std::floor(x)), top = static_cast<int64_t>(std::floor(y));
        fx = x - left;
        fy = y - top;
        const float wx[2] = {1 - fx, fx}, wy[2] = {1 - fy, fy};
        for (int k = 0; k < 4; ++k) {
            const int64_t row = top + k / 2, column = left + k % 2;
            const bool within = row >= 0 && row < sizes.height && column >= 0 && column < sizes.width;
            corner[k] = within ? (pixel.image * sizes.height + row) * sizes.width + column : -1;
            weight[k] = wy[k / 2] * wx[k % 2];
        }
    }
};

// Channels that belong to one deformable group and one group of the convolution.
struct Channels {
    int64_t deform_group, group, first, count;
};

// Divides the channels at the borders of all groups, and at every `most` channels.
std::vector<Channels> divide(const Sizes& sizes, int64_t most) {
    std::vector<Channels> parts;
    for (int64_t first = 0; first < sizes.channels;) {
        const int64_t deform_group = first / sizes.per_deform_group(), group = first / sizes.per_group();
        const int64_t end = std::min((deform_group + 1) * sizes.per_deform_group(), (group + 1) * sizes.per_group());
        const int64_t count = std::min(most, end - first);
        parts.push_back({deform_group, group, first, count});
        first += count;
    }
    return parts;
}

inline int64_t place_in_columns(const Sizes& sizes, const Channels& part, int64_t rows, int64_t row, int64_t tap) {
    return ((part.group * rows + row) * sizes.taps() + tap) * sizes.per_group() + part.first -
        part.group * sizes.per_group();
}

template <typename T>
void sample(const Sizes& sizes, const T* image, const float* offset, const float* mask, T* columns, int64_t first,
            int64_t last) {
    const std::vector<Channels> parts = divide(sizes, sizes.channels);
    const std::vector<T> nothing(sizes.channels, T{0});  // stands for corners outside
#pragma omp parallel for schedule(static)
    for (int64_t row = first; row < last; ++row) {
        const Pixel pixel(sizes, row);
        for (size_t p = 0; p < parts.size();) {
            size_t end = p;  // of the parts of this deformable group
            while (end < parts.size() && parts[end].deform_group == parts[p].deform_group) ++end;
            for (int64_t tap = 0; tap < sizes.taps(); ++tap) {
                const Sample at(sizes, offset, mask, pixel, parts[p].deform_group, tap);
                for (size_t q = p; q < end; ++q) {
                    const int64_t n = parts[q].count;
                    T* out = columns + place_in_columns(sizes, parts[q], last - first, row - first, tap);
                    if (!at.inside) {
                        T value;
                        narrow(at.mask * (at.finite ? 0.0f : std::numeric_limits<float>::quiet_NaN()), value);
                        std::fill(out, out + n, value);
                        continue;
                    }
                    const T* v[4];
                    float f[4];
                    for (int k = 0; k < 4; ++k) {
                        v[k] = at.corner[k] < 0 ? nothing.data() : image + at.corner[k] * sizes.channels + parts[q].first;
                        f[k] = at.mask * at.weight[k];
                    }
                    const T *v0 = v[0], *v1 = v[1], *v2 = v[2], *v3 = v[3];
                    const float f0 = f[0], f1 = f[1], f2 = f[2], f3 = f[3];
#pragma omp simd
                    for (int64_t c = 0; c < n; ++c) {
                        narrow(f0 * widen(v0[c]) + f1 * widen(v1[c]) + f2 * widen(v2[c]) + f3 * widen(v3[c]), out[c]);
                    }
                }
            }
            p = end;
        }
    }
}

constexpr int64_t CHUNK = 64;  // channels that one thread works on; fixed, so that sums do not depend on the threads

// Adds to the gradient of the image at four corners, and finds the products of the columns' gradient with them.
template <typename T, int64_t FIXED>
void pass_on(const T* grad, const T* const* v, float* const* grad_v, const float* f, float* dot, int64_t channels) {
    const int64_t n = FIXED ? FIXED : channels;
    const T *v0 = v[0], *v1 = v[1], *v2 = v[2], *v3 = v[3];
    float *g0 = grad_v[0], *g1 = grad_v[1], *g2 = grad_v[2], *g3 = grad_v[3];
    const float f0 = f[0], f1 = f[1], f2 = f[2], f3 = f[3];
    float d0 = 0, d1 = 0, d2 = 0, d3 = 0;
#pragma omp simd reduction(+ : d0, d1, d2, d3)
    for (int64_t c = 0; c < n; ++c) {
        const float g = widen(grad[c]);
        d0 += g * widen(v0[c]);
        d1 += g * widen(v1[c]);
        d2 += g * widen(v2[c]);
        d3 += g * widen(v3[c]);
        g0[c] += f0 * g;
        g1[c] += f1 * g;
        g2[c] += f2 * g;
        g3[c] += f3 * g;
    }
    dot[0] = d0;
    dot[1] = d1;
    dot[2] = d2;
    dot[3] = d3;
}

// A part of the channels is one thread's, so that no two threads add to the same gradient of the image, in any order.
// grad_image is added to; grad_offset and grad_mask are written.
template <typename T>
void gradients(const Sizes& sizes, const T* image, const float* offset, const float* mask, const T* grad_columns,
               float* grad_image, float* grad_offset, float* grad_mask, int64_t first, int64_t last) {
    const std::vector<Channels> parts = divide(sizes, CHUNK);
    const int64_t rows = last - first, taps = sizes.taps(), count = static_cast<int64_t>(parts.size());
    std::vector<float> dots(count * rows * taps * 4);
#pragma omp parallel for schedule(dynamic)
    for (int64_t p = 0; p < count; ++p) {
        const Channels& part = parts[p];
        const T nothing[CHUNK] = {};
        float unused[4][CHUNK] = {};
        for (int64_t row = first; row < last; ++row) {
            const Pixel pixel(sizes, row);
            for (int64_t tap = 0; tap < taps; ++tap) {
                const Sample at(sizes, offset, mask, pixel, part.deform_group, tap);
                const T* grad = grad_columns + place_in_columns(sizes, part, rows, row - first, tap);
                float* dot = dots.data() + ((p * rows + row - first) * taps + tap) * 4;
                if (!at.inside) {
                    float zero = at.finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();  // or NaN
                    for (int64_t c = 0; c < part.count; ++c) zero += 0 * widen(grad[c]);
                    std::fill(dot, dot + 4, zero);
                    continue;
                }
                const T* v[4];
                float *grad_v[4], f[4];
                for (int k = 0; k < 4; ++k) {
                    const int64_t place = at.corner[k] * sizes.channels + part.first;
                    v[k] = at.corner[k] < 0 ? nothing : image + place;
                    grad_v[k] = at.corner[k] < 0 ? unused[k] : grad_image + place;
                    f[k] = at.mask * at.weight[k];
                }
                if (part.count == CHUNK) {
                    pass_on<T, CHUNK>(grad, v, grad_v, f, dot, CHUNK);
                } else {
                    pass_on<T, 0>(grad, v, grad_v, f, dot, part.count);
                }
            }
        }
    }
#pragma omp parallel for schedule(static)
    for (int64_t row = first; row < last; ++row) {
        const Pixel pixel(sizes, row);
        for (int64_t group = 0; group < sizes.deform_groups; ++group) {
            for (int64_t tap = 0; tap < taps; ++tap) {
                float sum[4] = {0, 0, 0, 0};
                for (int64_t p = 0; p < count; ++p) {
                    if (parts[p].deform_group != group) continue;
                    const float* dot = dots.data() + ((p * rows + row - first) * taps + tap) * 4;
                    for (int k = 0; k < 4; ++k) sum[k] += dot[k];
                }
                const Sample at(sizes, offset, mask, pixel, group, tap);
                const int64_t place = (row * sizes.deform_groups + group) * taps + tap;
                grad_mask[place] = at.weight[0] * sum[0] + at.weight[1] * sum[1] +
                    at.weight[2] * sum[2] + at.weight[3] * sum[3];
                grad_offset[2 * place] =
                    at.mask * ((1 - at.fx) * (sum[2] - sum[0]) + at.fx * (sum[3] - sum[1]));
                grad_offset[2 * place + 1] =
                    at.mask * ((1 - at.fy) * (sum[1] - sum[0]) + at.fy * (sum[3] - sum[2]));
            }
        }
    }
}

}  // namespace

extern "C" {

void dcn_sample_float32(const Sizes* sizes, const float* image, const float* offset, const float* mask, float* columns,
                        int64_t first, int64_t last) {
    sample(*sizes, image, offset, mask, columns, first, last);
}

void dcn_sample_bfloat16(const Sizes* sizes, const bfloat16* image, const float* offset, const float* mask,
                         bfloat16* columns, int64_t first, int64_t last) {
    sample(*sizes, image, offset, mask, columns, first, last);
}

void dcn_gradients_float32(const Sizes* sizes, const float* image, const float* offset, const float* mask,
                           const float* grad_columns, float* grad_image, float* grad_offset, float* grad_mask,
                           int64_t first, int64_t last) {
    gradients(*sizes, image, offset, mask, grad_columns, grad_image, grad_offset, grad_mask, first, last);
}

void dcn_gradients_bfloat16(const Sizes* sizes, const bfloat16* image, const float* offset, const float* mask,
                            const bfloat16* grad_columns, float* grad_image, float* grad_offset, float* grad_mask,
                            int64_t first, int64_t last) {
    gradients(*sizes, image, offset, mask, grad_columns, grad_image, grad_offset, grad_mask, first, last);
}
}

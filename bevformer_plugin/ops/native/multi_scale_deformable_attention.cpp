// Multi-scale deformable attention on CPUs, float32: the definition as loops, vectorised over channels.
//
// shapes (L, 2) of (height, width), first_rows (M + 1): the rows of map m are first_rows[m] to first_rows[m + 1].
// value (M, S, H, C), locations (R, H, L, P, 2) of (x, y) in fractions of a level, weights (R, H, L, P), output
// (R, H, C). All contiguous.
//
// What is outside is skipped, but what is not finite is not: a location that is no place, or a weight or gradient that
// is not finite at any place, makes what it takes part in NaN.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace {

struct Corners {
    int64_t offset[4];  // in positions of the level; -1 outside
    float weight[4];
    float fx, fy;
};

// Bilinear corners of a location, the top left one first; false where no corner is inside.
inline bool find_corners(const float* location, int64_t height, int64_t width, Corners& corners) {
    const float x = location[0] * width - 0.5f, y = location[1] * height - 0.5f;
    if (!(x > -1 && y > -1 && x < width && y < height)) return false;  // also where one is not a number
    const int64_t left = static_cast<int64_t>(std::floor(x)), top = static_cast<int64_t>(std::floor(y));
    corners.fx = x - left;
    corners.fy = y - top;
    const float wx[2] = {1 - corners.fx, corners.fx}, wy[2] = {1 - corners.fy, corners.fy};
    for (int corner = 0; corner < 4; ++corner) {
        const int64_t row = top + corner / 2, column = left + corner % 2;
        const bool inside = row >= 0 && row < height && column >= 0 && column < width;
        corners.offset[corner] = inside ? row * width + column : -1;
        corners.weight[corner] = wy[corner / 2] * wx[corner % 2];
    }
    return true;
}

// What one sample outside all cells counts for: 0, or NaN where it is no place.
inline float outside(const float* location) {
    return std::isfinite(location[0]) && std::isfinite(location[1]) ? 0.0f : std::numeric_limits<float>::quiet_NaN();
}

// FIXED is the number of channels where it is known when compiling, or 0.
template <int FIXED>
void forward(const int64_t* shapes, const int64_t* first_rows, const float* value, const float* locations,
             const float* weights, float* output, int64_t M, int64_t S, int64_t H, int64_t channels, int64_t L,
             int64_t P) {
    const int64_t C = FIXED ? FIXED : channels;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < first_rows[M]; ++row) {
        const int64_t map = std::upper_bound(first_rows, first_rows + M + 1, row) - first_rows - 1;
        for (int64_t h = 0; h < H; ++h) {
            float fixed[FIXED ? FIXED : 1] = {0};  // the compiler keeps it in registers
            float* out = output + (row * H + h) * C;
            float* sums = FIXED ? fixed : out;
            if (!FIXED) std::fill(out, out + C, 0.0f);
            const float* level = value + (map * S * H + h) * C;
            for (int64_t l = 0; l < L; ++l) {
                const int64_t height = shapes[2 * l], width = shapes[2 * l + 1];
                for (int64_t p = 0; p < P; ++p) {
                    const int64_t sample = ((row * H + h) * L + l) * P + p;
                    Corners corners;
                    if (!find_corners(locations + 2 * sample, height, width, corners)) {
                        const float nothing = weights[sample] * outside(locations + 2 * sample);
                        if (std::isnan(nothing)) std::fill(sums, sums + C, nothing);
                        continue;
                    }
                    for (int corner = 0; corner < 4; ++corner) {
                        if (corners.offset[corner] < 0) continue;
                        const float factor = weights[sample] * corners.weight[corner];
                        const float* v = level + corners.offset[corner] * H * C;
#pragma omp simd
                        for (int64_t c = 0; c < C; ++c) sums[c] += factor * v[c];
                    }
                }
                level += height * width * H * C;
            }
            if (FIXED) std::copy(fixed, fixed + C, out);
        }
    }
}

// A map and head is one thread's, so that no two threads add to the same gradient. grad_value comes in as zeros.
template <int FIXED>
void backward(const int64_t* shapes, const int64_t* first_rows, const float* grad_output, const float* value,
              const float* locations, const float* weights, float* grad_value, float* grad_locations,
              float* grad_weights, int64_t M, int64_t S, int64_t H, int64_t channels, int64_t L, int64_t P) {
    const int64_t C = FIXED ? FIXED : channels;
#pragma omp parallel for schedule(dynamic)
    for (int64_t pair = 0; pair < M * H; ++pair) {
        const int64_t map = pair / H, h = pair % H;
        for (int64_t row = first_rows[map]; row < first_rows[map + 1]; ++row) {
            const float* grad = grad_output + (row * H + h) * C;
            float no_grad = 0;  // or NaN
            for (int64_t c = 0; c < C; ++c) no_grad += 0 * grad[c];
            int64_t start = (map * S * H + h) * C;
            for (int64_t l = 0; l < L; ++l) {
                const int64_t height = shapes[2 * l], width = shapes[2 * l + 1];
                for (int64_t p = 0; p < P; ++p) {
                    const int64_t sample = ((row * H + h) * L + l) * P + p;
                    float* grad_location = grad_locations + 2 * sample;
                    grad_weights[sample] = 0;
                    Corners corners;
                    if (!find_corners(locations + 2 * sample, height, width, corners)) {
                        grad_weights[sample] = no_grad + outside(locations + 2 * sample);
                        grad_location[0] = grad_location[1] = grad_weights[sample] * weights[sample];
                        continue;
                    }
                    float dot[4] = {0, 0, 0, 0};
                    for (int corner = 0; corner < 4; ++corner) {
                        if (corners.offset[corner] < 0) continue;
                        const int64_t place = start + corners.offset[corner] * H * C;
                        const float factor = weights[sample] * corners.weight[corner];
                        float sum = 0;
#pragma omp simd reduction(+ : sum)
                        for (int64_t c = 0; c < C; ++c) {
                            sum += grad[c] * value[place + c];
                            grad_value[place + c] += factor * grad[c];
                        }
                        dot[corner] = sum;
                    }
                    for (int corner = 0; corner < 4; ++corner) {
                        grad_weights[sample] += corners.weight[corner] * dot[corner];
                    }
                    grad_location[0] = weights[sample] * width *
                        ((1 - corners.fy) * (dot[1] - dot[0]) + corners.fy * (dot[3] - dot[2]));
                    grad_location[1] = weights[sample] * height *
                        ((1 - corners.fx) * (dot[2] - dot[0]) + corners.fx * (dot[3] - dot[1]));
                }
                start += height * width * H * C;
            }
        }
    }
}

}  // namespace

#define FOR_CHANNELS(function, ...)                          \
    switch (C) {                                             \
        case 8: return function<8>(__VA_ARGS__);             \
        case 16: return function<16>(__VA_ARGS__);           \
        case 32: return function<32>(__VA_ARGS__);           \
        default: return function<0>(__VA_ARGS__);            \
    }

extern "C" {

void msda_forward(const int64_t* shapes, const int64_t* first_rows, const float* value, const float* locations,
                  const float* weights, float* output, int64_t M, int64_t S, int64_t H, int64_t C, int64_t L,
                  int64_t P) {
    FOR_CHANNELS(forward, shapes, first_rows, value, locations, weights, output, M, S, H, C, L, P)
}

void msda_backward(const int64_t* shapes, const int64_t* first_rows, const float* grad_output, const float* value,
                   const float* locations, const float* weights, float* grad_value, float* grad_locations,
                   float* grad_weights, int64_t M, int64_t S, int64_t H, int64_t C, int64_t L, int64_t P) {
    FOR_CHANNELS(backward, shapes, first_rows, grad_output, value, locations, weights, grad_value, grad_locations,
                 grad_weights, M, S, H, C, L, P)
}
}

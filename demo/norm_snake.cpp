// AdaIN and snake in one, forward and backward, for [batch, time, channels]: torch takes eight passes over memory.
// y = u + sin(alpha u)^2 / alpha, u = gamma (x - mean) * rstd + beta, mean and rstd over time.
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

inline float load(const float* p) { return *p; }
inline float load(const uint16_t* p) {
  uint32_t bits = uint32_t(*p) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline void store(float* p, float value) { *p = value; }
inline void store(uint16_t* p, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  *p = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Odd polynomial on [-pi/2, pi/2] after taking off whole half turns; 4e-6 at worst.
inline float sine(float x) {
  float turns = std::nearbyint(x * 0.318309886f);
  float r = (x - turns * 3.140625f) - turns * 9.67653589793e-4f;
  float s = r * r;
  float y = r * (1.0f + s * (-0.16666658f + s * (8.3328241e-3f + s * (-1.9808262e-4f + s * 2.6011695e-6f))));
  return int32_t(turns) & 1 ? -y : y;
}

template <typename T, int C>
void forward(const T* x, const float* gamma, const float* beta, const float* alpha, T* y, float* mean, float* rstd,
             int64_t batch, int64_t time) {
  for (int64_t b = 0; b < batch; b++, x += time * C, y += time * C, gamma += C, beta += C, mean += C, rstd += C) {
    double total[C] = {}, squares[C] = {};
    for (int64_t t = 0; t < time;) {
      float part[C] = {}, square[C] = {};
      for (int64_t end = t + 256 < time ? t + 256 : time; t < end; t++)
        for (int c = 0; c < C; c++) {
          float v = load(x + t * C + c);
          part[c] += v;
          square[c] += v * v;
        }
      for (int c = 0; c < C; c++) total[c] += part[c], squares[c] += square[c];
    }
    float scale[C], shift[C], inverse[C];
    for (int c = 0; c < C; c++) {
      double m = total[c] / time, v = squares[c] / time - m * m;
      mean[c] = float(m);
      rstd[c] = float(1 / std::sqrt((v > 0 ? v : 0) + 1e-5));
      scale[c] = gamma[c] * rstd[c];
      shift[c] = beta[c] - mean[c] * scale[c];
      inverse[c] = 1 / alpha[c];
    }
    for (int64_t t = 0; t < time; t++)
      for (int c = 0; c < C; c++) {
        float u = load(x + t * C + c) * scale[c] + shift[c], s = sine(alpha[c] * u);
        store(y + t * C + c, u + inverse[c] * s * s);
      }
  }
}

template <typename T, int C>
void backward(const T* x, const T* dy, const float* gamma, const float* beta, const float* alpha, const float* mean,
              const float* rstd, T* dx, float* dgamma, float* dbeta, float* dalpha, int64_t batch, int64_t time) {
  for (int64_t b = 0; b < batch; b++) {
    float scale[C], shift[C], inverse[C], sum[C] = {}, sum_x[C] = {}, sum_alpha[C] = {};
    for (int c = 0; c < C; c++) {
      scale[c] = gamma[c] * rstd[c];
      shift[c] = beta[c] - mean[c] * scale[c];
      inverse[c] = 1 / alpha[c];
    }
    for (int64_t t = 0; t < time; t++)
      for (int c = 0; c < C; c++) {
        float v = load(x + t * C + c), g = load(dy + t * C + c);
        float u = v * scale[c] + shift[c], s = sine(alpha[c] * u), s2 = sine(2 * alpha[c] * u);
        float du = g * (1 + s2);
        sum[c] += du;
        sum_x[c] += du * (v - mean[c]) * rstd[c];
        sum_alpha[c] += g * inverse[c] * (u * s2 - s * s * inverse[c]);
        store(dx + t * C + c, du);
      }
    float m[C], mx[C];
    for (int c = 0; c < C; c++) {
      dbeta[c] = sum[c], dgamma[c] = sum_x[c], dalpha[c] = sum_alpha[c];
      m[c] = sum[c] / time, mx[c] = sum_x[c] / time * rstd[c];
    }
    for (int64_t t = 0; t < time; t++)
      for (int c = 0; c < C; c++) {
        float du = load(dx + t * C + c), v = load(x + t * C + c);
        store(dx + t * C + c, scale[c] * (du - m[c] - (v - mean[c]) * mx[c]));
      }
    x += time * C, dy += time * C, dx += time * C;
    gamma += C, beta += C, mean += C, rstd += C, dgamma += C, dbeta += C, dalpha += C;
  }
}

}  // namespace

#define EXPORT(NAME, T, C)                                                                                            \
  extern "C" void forward_##NAME(const T* x, const float* gamma, const float* beta, const float* alpha, T* y,         \
                                 float* mean, float* rstd, int64_t batch, int64_t time) {                             \
    forward<T, C>(x, gamma, beta, alpha, y, mean, rstd, batch, time);                                                 \
  }                                                                                                                   \
  extern "C" void backward_##NAME(const T* x, const T* dy, const float* gamma, const float* beta, const float* alpha, \
                                  const float* mean, const float* rstd, T* dx, float* dgamma, float* dbeta,           \
                                  float* dalpha, int64_t batch, int64_t time) {                                       \
    backward<T, C>(x, dy, gamma, beta, alpha, mean, rstd, dx, dgamma, dbeta, dalpha, batch, time);                    \
  }

EXPORT(float32_32, float, 32)
EXPORT(float32_64, float, 64)
EXPORT(bfloat16_32, uint16_t, 32)
EXPORT(bfloat16_64, uint16_t, 64)

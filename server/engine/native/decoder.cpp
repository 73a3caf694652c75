// A llama-shaped decoder on AVX-512 CPUs: bfloat16 or int8 weights, float32 residual stream, paged KV. Plain C interface;
// knows no torch, no requests and no sampling.
//
// A row's numbers depend on its own sequence alone: every sum runs in the same order whatever rows are computed beside it,
// in one chunk or in many.
//
// One call computes one step: all threads of one OpenMP team go through its few hundred stages, most of some ten
// microseconds. A thread goes on when a stage's tasks are done, not when the other threads have come: on a machine with
// other work a thread that the system has taken off its core would otherwise hold up the rest at every stage.
//
// Layouts. A weight matrix [N, K] is cut into tiles of 32 outputs; in a tile, bfloat16 lies as [K/2][32][2] and int8 as
// [K/4][32][4], which are the operand orders of vdpbf16ps and vpdpbusd. Keys of one block and head lie as [D/2][16][2],
// values as [16/2][D][2]: a block's 16 tokens are one register wide in the product that reads them.

#include <immintrin.h>
#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "deltas.h"
#include "numbers.h"

namespace {

constexpr int kTile = 32;        // outputs of a weight tile
constexpr int kRows = 12;        // rows of a register tile: 12 x 2 accumulators
constexpr int kBlock = 16;       // tokens of a KV block
constexpr int kGroup = 64;       // inputs that share an int8 scale
constexpr int kKeys = 512;       // keys that are scored before their values are read
constexpr int kRowsPerTask = 96; // rows of a matrix product that one task computes
constexpr int kStagesOfLayer = 12;

// ---- stages ----------------------------------------------------------------------------------------------------------

struct alignas(64) Stage {
  std::atomic<int> next{0}, done{0};
};

// One thread's way through the stages of a step; all threads see the same stages in the same order.
class Walk {
 public:
  Walk(std::vector<Stage>& stages, int threads) : stages_(stages), threads_(threads) {}

  int threads() const { return threads_; }

  // Runs task(i) for i in [0, count), each once in the whole team, `grain` at a time; returns when all are done.
  template <class Task>
  void each(int count, int grain, Task task) {
    Stage& stage = stages_[at_++];
    const int parts = (count + grain - 1) / grain;
    for (int part; (part = stage.next.fetch_add(1, std::memory_order_relaxed)) < parts;) {
      const int last = std::min(count, (part + 1) * grain);
      for (int i = part * grain; i < last; ++i) task(i);
      stage.done.fetch_add(1, std::memory_order_release);
    }
    for (int spins = 0; stage.done.load(std::memory_order_acquire) < parts; ++spins) {
      if (spins < kSpins) _mm_pause();
      else sched_yield();
    }
  }

 private:
  static constexpr int kSpins = 1000;
  std::vector<Stage>& stages_;
  const int threads_;
  size_t at_ = 0;
};

// ---- weights ---------------------------------------------------------------------------------------------------------

struct Linear {
  int inputs = 0, outputs = 0, padded_inputs = 0, tiles = 0;
  bool is_int8 = false;
  bf16* weights = nullptr;       // [tiles][padded_inputs / 2][32][2]
  uint8_t* codes = nullptr;      // [tiles][padded_inputs / 4][32][4], weight + 128
  std::vector<float> scales;     // [tiles * 32], int8 only
  std::vector<float> bias;       // [tiles * 32], or empty

  ~Linear() {
    std::free(weights);
    std::free(codes);
  }
};

// `row_of(n)` is the source row of output n, or null for padding.
template <class RowOf>
void pack(Linear& linear, int outputs, int inputs, bool is_int8, RowOf row_of) {
  linear.inputs = inputs;
  linear.outputs = outputs;
  linear.is_int8 = is_int8;
  linear.padded_inputs = is_int8 ? (inputs + kGroup - 1) / kGroup * kGroup : (inputs + 1) / 2 * 2;
  linear.tiles = (outputs + kTile - 1) / kTile;
  const int padded = linear.padded_inputs;
  if (is_int8) {
    linear.codes = allocate<uint8_t>(size_t(linear.tiles) * kTile * padded);
    linear.scales.assign(size_t(linear.tiles) * kTile, 0.f);
  } else {
    linear.weights = allocate<bf16>(size_t(linear.tiles) * kTile * padded);
  }
#pragma omp parallel for schedule(dynamic)
  for (int tile = 0; tile < linear.tiles; ++tile) {
    for (int i = 0; i < kTile; ++i) {
      const bf16* row = row_of(tile * kTile + i);
      if (!is_int8) {
        bf16* to = linear.weights + size_t(tile) * kTile * padded;
        for (int k = 0; k < padded; ++k) to[(k / 2) * 64 + i * 2 + k % 2] = row && k < inputs ? row[k] : 0;
        continue;
      }
      float largest = 0;
      for (int k = 0; row && k < inputs; ++k) largest = std::max(largest, std::fabs(to_float(row[k])));
      const float scale = largest / 127.f;
      linear.scales[tile * kTile + i] = scale;
      uint8_t* to = linear.codes + size_t(tile) * kTile * padded;
      for (int k = 0; k < padded; ++k) {
        const float value = row && k < inputs && scale > 0 ? to_float(row[k]) / scale : 0.f;
        to[(k / 4) * 128 + i * 4 + k % 4] = uint8_t(int(std::lrint(value)) + 128);
      }
    }
  }
}

// ---- matrix products -------------------------------------------------------------------------------------------------

// Rows of inputs to a product: bfloat16, or int8 codes with a scale and a sum for each group of 64.
struct Activations {
  int stride;  // elements from row to row
  const bf16* values;
  const int8_t* codes;
  const float* scales;  // [rows][stride / 64]
  const int32_t* sums;  // [rows][stride / 64]
};

// out[R][32] = a[R][inputs] times a tile.
template <int R>
void product_bf16(const bf16* a, int stride, const bf16* tile, int pairs, float* out) {
  __m512 sum[R][2];
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm512_setzero_ps();
  for (int p = 0; p < pairs; ++p) {
    const __m512bh w0 = (__m512bh)_mm512_load_si512(tile + size_t(p) * 64);
    const __m512bh w1 = (__m512bh)_mm512_load_si512(tile + size_t(p) * 64 + 32);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      int32_t pair;
      std::memcpy(&pair, a + size_t(r) * stride + p * 2, 4);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
      sum[r][0] = _mm512_dpbf16_ps(sum[r][0], x, w0);
      sum[r][1] = _mm512_dpbf16_ps(sum[r][1], x, w1);
    }
  }
  for (int r = 0; r < R; ++r) {
    _mm512_store_ps(out + r * kTile, sum[r][0]);
    _mm512_store_ps(out + r * kTile + 16, sum[r][1]);
  }
}

// The same in int8: each group's integer product, scaled by its row's scale; a tile's own scales come after.
template <int R>
void product_int8(const int8_t* a, const float* scales, const int32_t* sums, int stride, const uint8_t* tile, float* out) {
  const int groups = stride / kGroup;
  __m512 total[R][2];
  for (int r = 0; r < R; ++r) total[r][0] = total[r][1] = _mm512_setzero_ps();
  for (int g = 0; g < groups; ++g) {
    __m512i sum[R][2];
    // Codes are weight + 128: 128 times the activations' sum is taken off.
    for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm512_set1_epi32(-128 * sums[size_t(r) * groups + g]);
    const uint8_t* w = tile + size_t(g) * kGroup * kTile;
    for (int q = 0; q < kGroup / 4; ++q) {
      const __m512i w0 = _mm512_load_si512(w + q * 128);
      const __m512i w1 = _mm512_load_si512(w + q * 128 + 64);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        int32_t four;
        std::memcpy(&four, a + size_t(r) * stride + g * kGroup + q * 4, 4);
        const __m512i x = _mm512_set1_epi32(four);
        sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], w0, x);
        sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], w1, x);
      }
    }
    for (int r = 0; r < R; ++r) {
      const __m512 scale = _mm512_set1_ps(scales[size_t(r) * groups + g]);
      total[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][0]), scale, total[r][0]);
      total[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][1]), scale, total[r][1]);
    }
  }
  for (int r = 0; r < R; ++r) {
    _mm512_store_ps(out + r * kTile, total[r][0]);
    _mm512_store_ps(out + r * kTile + 16, total[r][1]);
  }
}

template <int R>
void product(const Linear& linear, const Activations& a, int row, int tile, float* out) {
  if (linear.is_int8) {
    const int groups = linear.padded_inputs / kGroup;
    product_int8<R>(a.codes + size_t(row) * a.stride, a.scales + size_t(row) * groups, a.sums + size_t(row) * groups,
                    linear.padded_inputs, linear.codes + size_t(tile) * kTile * linear.padded_inputs, out);
    for (int half = 0; half < kTile; half += 16) {
      const __m512 scale = _mm512_loadu_ps(linear.scales.data() + tile * kTile + half);
      for (int r = 0; r < R; ++r)
        _mm512_store_ps(out + r * kTile + half, _mm512_mul_ps(_mm512_load_ps(out + r * kTile + half), scale));
    }
  } else {
    product_bf16<R>(a.values + size_t(row) * a.stride, a.stride,
                    linear.weights + size_t(tile) * kTile * linear.padded_inputs, linear.padded_inputs / 2, out);
  }
}

void product_of(int rows, const Linear& linear, const Activations& a, int row, int tile, float* out) {
  switch (rows) {
    case 1: return product<1>(linear, a, row, tile, out);
    case 2: return product<2>(linear, a, row, tile, out);
    case 3: return product<3>(linear, a, row, tile, out);
    case 4: return product<4>(linear, a, row, tile, out);
    case 5: return product<5>(linear, a, row, tile, out);
    case 6: return product<6>(linear, a, row, tile, out);
    case 7: return product<7>(linear, a, row, tile, out);
    case 8: return product<8>(linear, a, row, tile, out);
    case 9: return product<9>(linear, a, row, tile, out);
    case 10: return product<10>(linear, a, row, tile, out);
    case 11: return product<11>(linear, a, row, tile, out);
    default: return product<12>(linear, a, row, tile, out);
  }
}

// `finish(row, tile, sums[32])` gets each row of each output tile once.
template <class Finish>
void multiply(Walk& walk, const Linear& linear, const Activations& a, int rows, Finish finish) {
  const int most = linear.is_int8 ? kRows / 2 : kRows;
  const int chunks = (rows + kRowsPerTask - 1) / kRowsPerTask;
  const int tasks = linear.tiles * chunks;
  walk.each(tasks, std::max(1, tasks / (walk.threads() * 8)), [&](int task) {
    const int tile = task / chunks;
    const int first = (task % chunks) * kRowsPerTask, last = std::min(rows, first + kRowsPerTask);
    alignas(64) float out[kRows * kTile];
    const int steps = (last - first + most - 1) / most;  // of like size, not one small one at the end
    for (int step = 0, row = first; step < steps; ++step) {
      const int count = (last - row) / (steps - step);
      product_of(count, linear, a, row, tile, out);
      for (int r = 0; r < count; ++r) finish(row + r, tile, out + r * kTile);
      row += count;
    }
  });
}

// ---- the model -------------------------------------------------------------------------------------------------------

struct Layer {
  std::vector<float> input_norm, mlp_norm, query_norm, key_norm;  // the last two may be empty
  Linear qkv, output, gate_up, down;
  bf16 *keys = nullptr, *values = nullptr;  // [blocks][kv_heads][...], owned by the caller
  int window = 0;                           // keys that a token sees, itself included; 0: all
};

struct Shape {
  int32_t hidden, heads, kv_heads, head_dim, inner, vocab, layers, is_int8;
  float eps, scale;
};

// A layer's linear modules, in the order in which changes are numbered: layer x kModules + module, and the head last.
enum Module { kQuery, kKey, kValue, kOutput, kGate, kUp, kDown, kModules };

int head_module(const Shape& s) { return s.layers * kModules; }

// Inputs that a module of a joint product has for itself, of one row each: rows [tokens][3].
struct OwnInputs {
  std::vector<bf16> values;
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
};

struct Model {
  Shape shape;
  std::vector<std::unique_ptr<Layer>> layers;
  std::vector<float> final_norm;
  Linear head;
  const float* rotary = nullptr;  // [positions][2][head_dim]: cosines, then sines; owned by the caller
  // What a step needs, grown to the largest step so far.
  std::vector<float> projected;
  std::vector<bf16> normed, queries, attended, inner;
  std::vector<int8_t> codes;
  std::vector<float> code_scales;
  std::vector<int32_t> code_sums;
  OwnInputs own;
  StepDeltas deltas;
};

int inputs_of_module(const Shape& s, int module) {
  if (module % kModules == kOutput && module < head_module(s)) return s.heads * s.head_dim;
  return module % kModules == kDown && module < head_module(s) ? s.inner : s.hidden;
}

bool is_computed_with_others(const Shape& s, int module) {
  return module < head_module(s) && module % kModules != kOutput && module % kModules != kDown;
}

int outputs_of_module(const Shape& s, int module) {
  if (module == head_module(s)) return s.vocab;
  switch (module % kModules) {
    case kQuery: return s.heads * s.head_dim;
    case kKey: case kValue: return s.kv_heads * s.head_dim;
    case kGate: case kUp: return s.inner;
    default: return s.hidden;
  }
}

// A run of consecutive tokens of one sequence.
struct Item {
  int32_t row, count, position;  // its first row in the step, how many, and the first one's position
  const int32_t* blocks;
};

template <class Out>
void norm_row(const float* x, const float* weight, int size, float eps, Out* out) {
  __m512 squares = _mm512_setzero_ps();
  int i = 0;
  for (; i + 16 <= size; i += 16) {
    const __m512 v = _mm512_loadu_ps(x + i);
    squares = _mm512_fmadd_ps(v, v, squares);
  }
  float sum = _mm512_reduce_add_ps(squares);
  for (int j = i; j < size; ++j) sum += x[j] * x[j];
  const float scale = 1.f / std::sqrt(sum / size + eps);
  const __m512 s = _mm512_set1_ps(scale);
  for (i = 0; i + 16 <= size; i += 16)
    store(out + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i), s), _mm512_loadu_ps(weight + i)));
  for (; i < size; ++i) store(out + i, x[i] * scale * weight[i]);
}

// int8 codes of one row, in groups of 64 with a scale each: one large activation spoils its own group only.
void quantize_row(const bf16* x, int size, int padded, int8_t* codes, float* scales, int32_t* sums) {
  for (int g = 0; g * kGroup < padded; ++g) {
    __m512 values[4];
    __m512 largest = _mm512_setzero_ps(), poison = _mm512_setzero_ps();
    for (int i = 0; i < 4; ++i) {
      const int count = std::clamp(size - g * kGroup - i * 16, 0, 16);
      const __m256i raw = _mm256_maskz_loadu_epi16(__mmask16((1u << count) - 1), x + g * kGroup + i * 16);
      values[i] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
      largest = _mm512_max_ps(largest, _mm512_abs_ps(values[i]));
      poison = _mm512_fmadd_ps(values[i], _mm512_setzero_ps(), poison);
    }
    const float top = _mm512_reduce_max_ps(largest);
    const __m512 inverse = _mm512_set1_ps(top > 0 ? 127.f / top : 0.f);
    __m512i sum = _mm512_setzero_si512();
    for (int i = 0; i < 4; ++i) {
      const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(values[i], inverse));
      sum = _mm512_add_epi32(sum, code);
      _mm_storeu_si128((__m128i*)(codes + g * kGroup + i * 16), _mm512_cvtsepi32_epi8(code));
    }
    // A row that is not a number has to stay so: its scale carries it.
    scales[g] = top / 127.f + _mm512_reduce_add_ps(poison);
    sums[g] = _mm512_reduce_add_epi32(sum);
  }
}

int row_grain(int rows, const Walk& walk) { return std::max(1, rows / (walk.threads() * 2)); }

// Where `linear` reads its input rows: `values` as they are, or what `quantize` makes of each of them.
Activations inputs_of(Model& m, const Linear& linear, const bf16* values) {
  const int stride = linear.is_int8 ? linear.padded_inputs : linear.inputs;
  return {stride, values, m.codes.data(), m.code_scales.data(), m.code_sums.data()};
}

// To be called for each row before `linear` is multiplied with them.
void quantize(Model& m, const Linear& linear, const bf16* values, int row) {
  if (!linear.is_int8) return;
  const size_t padded = linear.padded_inputs, groups = padded / kGroup;
  quantize_row(values + size_t(row) * linear.inputs, linear.inputs, int(padded), m.codes.data() + row * padded,
               m.code_scales.data() + row * groups, m.code_sums.data() + row * groups);
}

int own_row(int row, int i) { return row * StepDeltas::kTogether + i; }

// To be called for each normed row of a joint product, after `quantize`.
void scale_own_inputs(Model& m, const Linear& linear, int row, int first, int count) {
  for (int i = 0; i < count; ++i) {
    const std::vector<float>* factors = m.deltas.own_factors(row, first, i);
    if (!factors) continue;
    const size_t at = own_row(row, i), inputs = linear.inputs, padded = linear.padded_inputs, groups = padded / kGroup;
    bf16* own = m.own.values.data() + at * inputs;
    std::memcpy(own, m.normed.data() + size_t(row) * inputs, sizeof(bf16) * inputs);
    multiply_row(own, *factors);
    if (linear.is_int8)
      quantize_row(own, int(inputs), int(padded), m.own.codes.data() + at * padded, m.own.scales.data() + at * groups,
                   m.own.sums.data() + at * groups);
  }
}

// Half a tile of a joint product's i-th module, computed from the row's own inputs of that module, where it has such.
void use_own_inputs(Model& m, const Linear& linear, int row, int first, int i, int tile, int half, float* out) {
  if (!m.deltas.own_factors(row, first, i)) return;
  const Activations own{linear.is_int8 ? linear.padded_inputs : linear.inputs, m.own.values.data(), m.own.codes.data(),
                        m.own.scales.data(), m.own.sums.data()};
  alignas(64) float sums[kTile];
  product<1>(linear, own, own_row(row, i), tile, sums);
  std::memcpy(out, sums + half * kHalf, sizeof(float) * kHalf);
}

// The rows of `values` as inputs of `linear`, which is one module.
Activations ready_rows(Walk& walk, Model& m, const Linear& linear, int module, bf16* values, int rows) {
  if (linear.is_int8 || m.deltas.has_any())
    walk.each(rows, row_grain(rows, walk), [&](int row) {
      m.deltas.before(row, row, module, 1, values + size_t(row) * linear.inputs);
      quantize(m, linear, values, row);
    });
  return inputs_of(m, linear, values);
}

// Turns one head by its position; `norm` first scales it to unit root mean square where the family has that.
void rotate(const float* x, const float* rotary, const std::vector<float>& norm, int dim, float eps, float* out) {
  float scale = 1.f;
  if (!norm.empty()) {
    float sum = 0;
    for (int i = 0; i < dim; ++i) sum += x[i] * x[i];
    scale = 1.f / std::sqrt(sum / dim + eps);
  }
  float v[512];
  for (int i = 0; i < dim; ++i) v[i] = norm.empty() ? x[i] : x[i] * scale * norm[i];
  const int half = dim / 2;
  for (int i = 0; i < half; ++i) {
    out[i] = v[i] * rotary[i] - v[i + half] * rotary[dim + i];
    out[i + half] = v[i + half] * rotary[i + half] + v[i] * rotary[dim + i + half];
  }
}

// One token's key and value of one head into the cache.
void store_kv(const Shape& s, Layer& layer, const int32_t* blocks, int position, int head, const float* key,
              const float* value) {
  const int dim = s.head_dim, offset = position % kBlock;
  const size_t at = (size_t(blocks[position / kBlock]) * s.kv_heads + head) * kBlock * dim;
  bf16 *k = layer.keys + at, *v = layer.values + at;
  if (offset == 0) std::memset(v, 0, sizeof(bf16) * kBlock * dim);  // 0 x what was there before must be 0, not NaN
  for (int i = 0; i < dim; ++i) {
    k[(i / 2) * 32 + offset * 2 + i % 2] = to_bf16(key[i]);
    v[(offset / 2) * dim * 2 + i * 2 + offset % 2] = to_bf16(value[i]);
  }
}

// Queries of one token and KV head into m.queries, its key and value into the cache.
void place_token(Model& m, Layer& layer, const Item& item, int t, int head) {
  const Shape& s = m.shape;
  const int dim = s.head_dim, group = s.heads / s.kv_heads, row = item.row + t, position = item.position + t;
  const float* all = m.projected.data() + size_t(row) * (s.heads + 2 * s.kv_heads) * dim;
  const float* rotary = m.rotary + size_t(position) * 2 * dim;
  float turned[512];
  for (int g = 0; g < group; ++g) {
    const int h = head * group + g;
    rotate(all + size_t(h) * dim, rotary, layer.query_norm, dim, s.eps, turned);
    bf16* to = m.queries.data() + (size_t(row) * s.heads + h) * dim;
    for (int i = 0; i < dim; i += 16) store_bf16(to + i, _mm512_loadu_ps(turned + i));
  }
  rotate(all + size_t(s.heads + head) * dim, rotary, layer.key_norm, dim, s.eps, turned);
  store_kv(s, layer, item.blocks, position, head, turned, all + size_t(s.heads + s.kv_heads + head) * dim);
}

template <int R>
void score_block(const bf16* q, int dim, const bf16* keys, float* out, int stride) {
  __m512 sum[R];
  for (int r = 0; r < R; ++r) sum[r] = _mm512_setzero_ps();
  for (int p = 0; p < dim / 2; ++p) {
    const __m512bh k = (__m512bh)_mm512_loadu_si512(keys + p * 32);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      int32_t pair;
      std::memcpy(&pair, q + r * dim + p * 2, 4);
      sum[r] = _mm512_dpbf16_ps(sum[r], k, (__m512bh)_mm512_set1_epi32(pair));
    }
  }
  for (int r = 0; r < R; ++r) _mm512_storeu_ps(out + size_t(r) * stride, sum[r]);
}

// out[R][16] += weights[R][tokens] x values[tokens][16], for the 16 columns of a head that begin at `column`.
template <int R>
void gather_values(const bf16* weights, int stride, const bf16* values, const int32_t* blocks, int num_blocks,
                   size_t block_stride, int dim, int column, float* out) {
  __m512 sum[R];
  for (int r = 0; r < R; ++r) sum[r] = _mm512_loadu_ps(out + r * dim + column);
  for (int b = 0; b < num_blocks; ++b) {
    const bf16* v = values + size_t(blocks[b]) * block_stride + column * 2;
    for (int p = 0; p < kBlock / 2; ++p) {
      const __m512bh x = (__m512bh)_mm512_loadu_si512(v + p * dim * 2);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        int32_t pair;
        std::memcpy(&pair, weights + size_t(r) * stride + b * kBlock + p * 2, 4);
        sum[r] = _mm512_dpbf16_ps(sum[r], x, (__m512bh)_mm512_set1_epi32(pair));
      }
    }
  }
  for (int r = 0; r < R; ++r) _mm512_storeu_ps(out + r * dim + column, sum[r]);
}

// Softmax attention of R rows over the keys of their sequence, a stretch of keys at a time with a running maximum
// (online softmax, https://arxiv.org/abs/1805.02867). Row r is head `r % group` of the KV head at `positions[r]`.
template <int R>
void attend_rows(const Shape& s, const Layer& layer, const Item& item, int head, const bf16* q, const int* positions,
                 float* out) {
  const int dim = s.head_dim;
  const size_t block_stride = size_t(s.kv_heads) * kBlock * dim;
  const bf16* keys = layer.keys + size_t(head) * kBlock * dim;
  const bf16* values = layer.values + size_t(head) * kBlock * dim;
  alignas(64) float scores[R * kKeys];
  alignas(64) bf16 weights[R * kKeys];
  float highest[R], total[R];
  for (int r = 0; r < R; ++r) highest[r] = -FLT_MAX, total[r] = 0;
  std::memset(out, 0, sizeof(float) * R * dim);
  const int last = positions[R - 1];
  const int oldest = layer.window ? std::max(0, positions[0] - layer.window + 1) : 0;
  // Stretches begin at multiples of kKeys, so that a row's sums do not depend on the rows beside it.
  for (int start = oldest / kKeys * kKeys; start <= last; start += kKeys) {
    const int num_blocks = std::min(kKeys / kBlock, (last - start) / kBlock + 1), width = num_blocks * kBlock;
    const int32_t* blocks = item.blocks + start / kBlock;
    for (int b = 0; b < num_blocks; ++b)
      score_block<R>(q, dim, keys + size_t(blocks[b]) * block_stride, scores + b * kBlock, kKeys);
    for (int r = 0; r < R; ++r) {
      float* row = scores + size_t(r) * kKeys;
      const int to = std::min(width, positions[r] - start + 1);  // keys [from, to) are seen
      const int from = layer.window ? std::max(0, positions[r] - layer.window + 1 - start) : 0;
      bf16* weight = weights + size_t(r) * kKeys;
      if (to <= from) {
        std::memset(weight, 0, sizeof(bf16) * width);
        continue;
      }
      for (int i = 0; i < from; ++i) row[i] = -FLT_MAX;
      for (int i = to; i < width; ++i) row[i] = -FLT_MAX;
      const __m512 scale = _mm512_set1_ps(s.scale);
      __m512 top = _mm512_set1_ps(-FLT_MAX);
      for (int i = 0; i < width; i += 16) top = _mm512_max_ps(top, _mm512_load_ps(row + i));
      const float now = std::max(highest[r], _mm512_reduce_max_ps(top) * s.scale);
      const float shrink = std::exp(highest[r] - now);
      const __m512 peak = _mm512_set1_ps(now);
      __m512 sum = _mm512_setzero_ps();
      for (int i = 0; i < width; i += 16) {
        const __m512 raw = _mm512_load_ps(row + i);
        const __mmask16 seen = _mm512_cmp_ps_mask(raw, _mm512_set1_ps(-FLT_MAX), _CMP_NEQ_UQ);
        const __m512 e = _mm512_maskz_mov_ps(seen, exp_ps(_mm512_fmsub_ps(raw, scale, peak)));
        sum = _mm512_add_ps(sum, e);
        store_bf16(weight + i, e);
      }
      highest[r] = now;
      total[r] = total[r] * shrink + _mm512_reduce_add_ps(sum);
      for (int i = 0; i < dim; i += 16)
        _mm512_storeu_ps(out + r * dim + i, _mm512_mul_ps(_mm512_loadu_ps(out + r * dim + i), _mm512_set1_ps(shrink)));
    }
    for (int column = 0; column < dim; column += 16)
      gather_values<R>(weights, kKeys, values, blocks, num_blocks, block_stride, dim, column, out);
  }
  for (int r = 0; r < R; ++r) {
    const __m512 inverse = _mm512_set1_ps(1.f / total[r]);
    for (int i = 0; i < dim; i += 16)
      _mm512_storeu_ps(out + r * dim + i, _mm512_mul_ps(_mm512_loadu_ps(out + r * dim + i), inverse));
  }
}

void attend(Model& m, const Layer& layer, const Item& item, int head, int first, int count) {
  const Shape& s = m.shape;
  const int dim = s.head_dim, group = s.heads / s.kv_heads;
  bf16 q[kRows * 512];
  alignas(64) float out[kRows * 512];
  int positions[kRows];
  for (int r = 0; r < count; ++r) {
    const int t = (first + r) / group, h = head * group + (first + r) % group;
    positions[r] = item.position + t;
    std::memcpy(q + r * dim, m.queries.data() + (size_t(item.row + t) * s.heads + h) * dim, sizeof(bf16) * dim);
  }
  switch (count) {
#define HOTPROMPT_ROWS(n) case n: attend_rows<n>(s, layer, item, head, q, positions, out); break;
    HOTPROMPT_ROWS(1) HOTPROMPT_ROWS(2) HOTPROMPT_ROWS(3) HOTPROMPT_ROWS(4) HOTPROMPT_ROWS(5) HOTPROMPT_ROWS(6)
    HOTPROMPT_ROWS(7) HOTPROMPT_ROWS(8) HOTPROMPT_ROWS(9) HOTPROMPT_ROWS(10) HOTPROMPT_ROWS(11) HOTPROMPT_ROWS(12)
#undef HOTPROMPT_ROWS
  }
  for (int r = 0; r < count; ++r) {
    const int t = (first + r) / group, h = head * group + (first + r) % group;
    bf16* to = m.attended.data() + (size_t(item.row + t) * s.heads + h) * dim;
    for (int i = 0; i < dim; i += 16) store_bf16(to + i, _mm512_loadu_ps(out + r * dim + i));
  }
}

struct Task {
  int item, head, first, count;
};

// A step's work besides the matrix products.
struct Plan {
  std::vector<Item> items;
  std::vector<Task> placing;    // tokens of one block, all heads: the first token of a block clears it for the others
  std::vector<Task> attending;  // rows of one register tile, one head
};

std::vector<Task> placing_tasks(const std::vector<Item>& items) {
  std::vector<Task> tasks;
  for (int i = 0; i < int(items.size()); ++i)
    for (int first = 0, count; first < items[i].count; first += count) {
      count = std::min(items[i].count - first, kBlock - (items[i].position + first) % kBlock);
      tasks.push_back({i, 0, first, count});
    }
  return tasks;
}

// Attention work cut into register tiles; a token's group of heads counts as rows beside each other.
std::vector<Task> attention_tasks(const Shape& s, const std::vector<Item>& items) {
  std::vector<Task> tasks;
  const int group = s.heads / s.kv_heads;
  for (int i = 0; i < int(items.size()); ++i) {
    const int rows = items[i].count * group;
    for (int first = 0; first < rows; first += kRows)
      for (int head = 0; head < s.kv_heads; ++head) tasks.push_back({i, head, first, std::min(kRows, rows - first)});
  }
  return tasks;
}

// Normed rows as the inputs of `linear`, which is the modules [first, first + count).
Activations norm_rows(Walk& walk, Model& m, const Linear& linear, int first, int count, int rows, const float* hidden,
                      const std::vector<float>& weight) {
  const Shape& s = m.shape;
  walk.each(rows, row_grain(rows, walk), [&](int r) {
    bf16* normed = m.normed.data() + size_t(r) * s.hidden;
    norm_row(hidden + size_t(r) * s.hidden, weight.data(), s.hidden, s.eps, normed);
    m.deltas.before(r, r, first, count, normed);
    quantize(m, linear, m.normed.data(), r);
    scale_own_inputs(m, linear, r, first, count);
  });
  return inputs_of(m, linear, m.normed.data());
}

// The outputs of a tile of queries, keys and values, with their bias, after the row's delta: head sizes are multiples of
// 16.
void finish_qkv(Model& m, const Linear& qkv, int row, int first, int tile, float* out) {
  const Shape& s = m.shape;
  const int queries = s.heads * s.head_dim / kHalf, keys = s.kv_heads * s.head_dim / kHalf;
  for (int half = 2 * tile; half < 2 * tile + 2 && half < queries + 2 * keys; ++half, out += kHalf) {
    const int module = half < queries ? kQuery : half < queries + keys ? kKey : kValue;
    const int before = module == kQuery ? 0 : module == kKey ? queries : queries + keys;
    use_own_inputs(m, qkv, row, first, module, tile, half - 2 * tile, out);
    if (!qkv.bias.empty())
      for (int i = 0; i < kHalf; ++i) out[i] += qkv.bias[half * kHalf + i];
    m.deltas.after(row, row, first, module, half - before, out);
  }
}

// The same of a product that is one module.
void change_tile(Model& m, int row, int slot, int module, int tile, float* out) {
  m.deltas.after(row, slot, module, 0, 2 * tile, out);
  m.deltas.after(row, slot, module, 0, 2 * tile + 1, out + kHalf);
}

void run_layer(Walk& walk, Model& m, Layer& layer, int first_module, const Plan& plan, int tokens, float* hidden) {
  const Shape& s = m.shape;
  const int width = (s.heads + 2 * s.kv_heads) * s.head_dim;
  multiply(walk, layer.qkv, norm_rows(walk, m, layer.qkv, first_module, 3, tokens, hidden, layer.input_norm), tokens,
           [&](int row, int tile, float* out) {
             const int first = tile * kTile, count = std::min(kTile, width - first);
             float* to = m.projected.data() + size_t(row) * width + first;
             finish_qkv(m, layer.qkv, row, first_module, tile, out);
             std::memcpy(to, out, sizeof(float) * count);
           });
  walk.each(int(plan.placing.size()), 1, [&](int i) {
    const Task& task = plan.placing[i];
    for (int t = task.first; t < task.first + task.count; ++t)
      for (int head = 0; head < s.kv_heads; ++head) place_token(m, layer, plan.items[task.item], t, head);
  });
  walk.each(int(plan.attending.size()), 1, [&](int i) {
    const Task& task = plan.attending[i];
    attend(m, layer, plan.items[task.item], task.head, task.first, task.count);
  });
  const auto add_to_hidden = [&](int module) {
    return [&m, &s, hidden, module](int row, int tile, float* out) {
      const int first = tile * kTile, count = std::min(kTile, s.hidden - first);
      float* to = hidden + size_t(row) * s.hidden + first;
      change_tile(m, row, row, module, tile, out);
      for (int i = 0; i < count; ++i) to[i] += out[i];
    };
  };
  const int output = first_module + kOutput, gate = first_module + kGate, down = first_module + kDown;
  multiply(walk, layer.output, ready_rows(walk, m, layer.output, output, m.attended.data(), tokens), tokens,
           add_to_hidden(output));
  multiply(walk, layer.gate_up, norm_rows(walk, m, layer.gate_up, gate, 2, tokens, hidden, layer.mlp_norm), tokens,
           [&](int row, int tile, float* out) {  // 16 gates, then their 16 ups
             for (int i = 0; i < 2; ++i) {
               use_own_inputs(m, layer.gate_up, row, gate, i, tile, i, out + i * kHalf);
               m.deltas.after(row, row, gate, i, tile, out + i * kHalf);
             }
             const __m512 g = _mm512_load_ps(out), up = _mm512_load_ps(out + 16), one = _mm512_set1_ps(1.f);
             const __m512 e = exp_ps(_mm512_sub_ps(_mm512_setzero_ps(), g));
             store_bf16(m.inner.data() + size_t(row) * s.inner + tile * 16,
                        _mm512_div_ps(_mm512_mul_ps(g, up), _mm512_add_ps(one, e)));
           });
  multiply(walk, layer.down, ready_rows(walk, m, layer.down, down, m.inner.data(), tokens), tokens,
           add_to_hidden(down));
}

Change& change_of(const Model& m, Delta& delta, int module) {
  auto& change = delta.changes[module];
  if (!change) {
    change = std::make_unique<Change>();
    change->inputs = inputs_of_module(m.shape, module);
    change->outputs = outputs_of_module(m.shape, module);
  }
  return *change;
}

template <class T>
void grow(std::vector<T>& buffer, size_t size) {
  if (buffer.size() < size) buffer.resize(size);
}

}  // namespace

extern "C" {

Model* hotprompt_model_new(const Shape* shape) {
  auto* m = new Model;
  m->shape = *shape;
  for (int i = 0; i < shape->layers; ++i) m->layers.push_back(std::make_unique<Layer>());
  return m;
}

void hotprompt_model_free(Model* m) { delete m; }

void hotprompt_set_rotary(Model* m, const float* rotary) { m->rotary = rotary; }

// Every weight is bfloat16, row-major, [outputs][inputs]; norms are float32. They are copied. `bias`, `query_norm` and
// `key_norm` may be null.
void hotprompt_set_layer(Model* m, int index, const bf16* q, const bf16* k, const bf16* v, const float* bias,
                         const bf16* output, const bf16* gate, const bf16* up, const bf16* down, const float* input_norm,
                         const float* mlp_norm, const float* query_norm, const float* key_norm, int window) {
  const Shape& s = m->shape;
  Layer& layer = *m->layers[index];
  const int queries = s.heads * s.head_dim, keys = s.kv_heads * s.head_dim, width = queries + 2 * keys;
  pack(layer.qkv, width, s.hidden, s.is_int8, [&](int n) -> const bf16* {
    if (n < queries) return q + size_t(n) * s.hidden;
    if (n < queries + keys) return k + size_t(n - queries) * s.hidden;
    return n < width ? v + size_t(n - queries - keys) * s.hidden : nullptr;
  });
  if (bias) layer.qkv.bias.assign(bias, bias + width);
  pack(layer.output, s.hidden, queries, s.is_int8,
       [&](int n) { return n < s.hidden ? output + size_t(n) * queries : nullptr; });
  pack(layer.gate_up, 2 * s.inner, s.hidden, s.is_int8, [&](int n) -> const bf16* {
    const int unit = n / kTile * 16 + n % 16;
    return (n % kTile < 16 ? gate : up) + size_t(unit) * s.hidden;
  });
  pack(layer.down, s.hidden, s.inner, s.is_int8,
       [&](int n) { return n < s.hidden ? down + size_t(n) * s.inner : nullptr; });
  layer.input_norm.assign(input_norm, input_norm + s.hidden);
  layer.mlp_norm.assign(mlp_norm, mlp_norm + s.hidden);
  if (query_norm) layer.query_norm.assign(query_norm, query_norm + s.head_dim);
  if (key_norm) layer.key_norm.assign(key_norm, key_norm + s.head_dim);
  layer.window = window;
}

void hotprompt_set_head(Model* m, const bf16* head, const float* final_norm) {
  const Shape& s = m->shape;
  pack(m->head, s.vocab, s.hidden, s.is_int8, [&](int n) { return n < s.vocab ? head + size_t(n) * s.hidden : nullptr; });
  m->final_norm.assign(final_norm, final_norm + s.hidden);
}

void hotprompt_set_cache(Model* m, int index, bf16* keys, bf16* values) {
  m->layers[index]->keys = keys;
  m->layers[index]->values = values;
}

// Block `target` becomes a copy of `source` up to `count` tokens; the rest of its values is zero.
void hotprompt_copy_block(Model* m, int source, int target, int count) {
  const Shape& s = m->shape;
  const size_t block = size_t(s.kv_heads) * kBlock * s.head_dim;
  for (auto& layer : m->layers) {
    std::memcpy(layer->keys + target * block, layer->keys + source * block, block * sizeof(bf16));
    std::memcpy(layer->values + target * block, layer->values + source * block, block * sizeof(bf16));
    for (int head = 0; head < s.kv_heads; ++head)
      for (int t = count; t < kBlock; ++t)
        for (int i = 0; i < s.head_dim; ++i)
          layer->values[target * block + size_t(head) * kBlock * s.head_dim + (t / 2) * s.head_dim * 2 + i * 2 + t % 2] = 0;
  }
}

// A delta that changes nothing yet; to be freed by the caller, when no step uses it.
Delta* hotprompt_delta_new(const Model* m) {
  auto* delta = new Delta;
  delta->changes.resize(head_module(m->shape) + 1);
  return delta;
}

void hotprompt_delta_free(Delta* delta) { delete delta; }

// What one module of it adds: up x down, float32, row-major, [outputs][rank] and [rank][inputs]. They are copied.
void hotprompt_delta_add(const Model* m, Delta* delta, int module, const float* down, const float* up, int rank) {
  set_low_rank(change_of(*m, *delta, module), down, up, rank);
}

// What one module of it multiplies: its inputs, or its outputs, bias included.
void hotprompt_delta_scale_inputs(const Model* m, Delta* delta, int module, const float* factors) {
  Change& change = change_of(*m, *delta, module);
  set_factors(change.input_factors, factors, change.inputs, change.inputs);
  delta->has_own_inputs |= is_computed_with_others(m->shape, module);
}

void hotprompt_delta_scale_outputs(const Model* m, Delta* delta, int module, const float* factors) {
  Change& change = change_of(*m, *delta, module);
  set_factors(change.output_factors, factors, change.outputs, whole(change.outputs, kHalf));
}

// Writes one sequence's keys and values [layers][all][kv_heads][head_dim], float32, of positions [start, stop) to where a
// step would have them.
void hotprompt_write_kv(Model* m, const float* keys, const float* values, int all, int start, int stop,
                        const int32_t* blocks) {
  const Shape& s = m->shape;
  for (int layer = 0; layer < s.layers; ++layer)
    for (int position = start; position < stop; ++position)
      for (int head = 0; head < s.kv_heads; ++head) {
        const size_t from = ((size_t(layer) * all + position) * s.kv_heads + head) * s.head_dim;
        store_kv(s, *m->layers[layer], blocks, position, head, keys + from, values + from);
      }
}

// hidden [tokens][hidden] goes in as embeddings, and is overwritten. Item i is `counts[i]` rows from position
// `positions[i]` on, with its blocks at tables + i * table_stride. logits [num_logits][vocab] and states
// [num_states][hidden], the last hidden states, are of the rows that are asked for. `deltas` [tokens] has null for a row
// without one, and is null where no row has one.
void hotprompt_step(Model* m, float* hidden, int tokens, int num_items, const int32_t* positions, const int32_t* counts,
                    const int32_t* tables, int table_stride, const Delta* const* deltas, int num_logits, const int32_t* logit_rows, float* logits,
                    int num_states, const int32_t* state_rows, float* states, int threads) {
  const Shape& s = m->shape;
  Plan plan;
  for (int i = 0, row = 0; i < num_items; row += counts[i++])
    plan.items.push_back({row, counts[i], positions[i], tables + size_t(i) * table_stride});
  plan.placing = placing_tasks(plan.items);
  plan.attending = attention_tasks(s, plan.items);
  const size_t t = tokens, widest = std::max({s.hidden, s.heads * s.head_dim, s.inner}) + kGroup;
  grow(m->projected, t * (s.heads + 2 * s.kv_heads) * s.head_dim);
  grow(m->normed, t * s.hidden);
  grow(m->queries, t * s.heads * s.head_dim);
  grow(m->attended, t * s.heads * s.head_dim);
  grow(m->inner, t * s.inner);
  if (s.is_int8) {
    grow(m->codes, t * widest);
    grow(m->code_scales, t * (widest / kGroup + 1));
    grow(m->code_sums, t * (widest / kGroup + 1));
  }
  m->deltas.begin(deltas, tokens);
  if (m->deltas.has_own_inputs()) {
    const size_t rows = t * StepDeltas::kTogether, padded = s.hidden + kGroup;
    grow(m->own.values, rows * s.hidden);
    if (s.is_int8) {
      grow(m->own.codes, rows * padded);
      grow(m->own.scales, rows * (padded / kGroup + 1));
      grow(m->own.sums, rows * (padded / kGroup + 1));
    }
  }
  std::vector<Stage> stages(kStagesOfLayer * (m->layers.size() + 1));
#pragma omp parallel num_threads(threads)
  {
    Walk walk(stages, omp_get_num_threads());
    for (int i = 0; i < s.layers; ++i) run_layer(walk, *m, *m->layers[i], i * kModules, plan, tokens, hidden);
    if (num_states)
      walk.each(num_states, row_grain(num_states, walk), [&](int r) {
        norm_row(hidden + size_t(state_rows[r]) * s.hidden, m->final_norm.data(), s.hidden, s.eps,
                 states + size_t(r) * s.hidden);
      });
    walk.each(num_logits, 1, [&](int r) {
      bf16* normed = m->normed.data() + size_t(r) * s.hidden;
      norm_row(hidden + size_t(logit_rows[r]) * s.hidden, m->final_norm.data(), s.hidden, s.eps, normed);
      m->deltas.before(logit_rows[r], r, head_module(s), 1, normed);
      quantize(*m, m->head, m->normed.data(), r);
    });
    if (num_logits)
      multiply(walk, m->head, inputs_of(*m, m->head, m->normed.data()), num_logits,
               [&](int row, int tile, float* out) {
                 const int first = tile * kTile, count = std::min(kTile, s.vocab - first);
                 change_tile(*m, logit_rows[row], row, head_module(s), tile, out);
                 std::memcpy(logits + size_t(row) * s.vocab + first, out, sizeof(float) * count);
               });
  }
}

}  // extern "C"

// What adapters change in the linear modules of the rows that use them: low-rank products, and factors of inputs and
// outputs. Knows no model and no base weights.
//
// A row's numbers depend on its own adapter alone: both products run along their inputs in one order for every row.
//
// Layouts. `down` [R, K] lies as [R/8][K/32][8][32], so that one row of inputs is read along by 8 sums at once; `up` [N, R]
// as [N/16][R/2][16][2], half a weight tile after the other.

#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "numbers.h"

namespace {

constexpr int kHalf = 16;    // outputs of half a weight tile
constexpr int kRanks = 8;    // ranks that are summed side by side
constexpr int kInputs = 32;  // inputs of one instruction

inline int whole(int size, int unit) { return (size + unit - 1) / unit * unit; }

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Packed = std::unique_ptr<bf16[], Free>;

// Zeros, which is what padding is.
inline Packed packed(size_t count) {
  Packed memory(allocate<bf16>(count));
  std::memset(memory.get(), 0, count * sizeof(bf16));
  return memory;
}

// The change of one linear module; what it does not have is empty.
struct Change {
  int inputs = 0, outputs = 0;
  int rank = 0;  // a multiple of 8
  Packed down, up;
  std::vector<float> input_factors;   // [inputs]
  std::vector<float> output_factors;  // [outputs, up to a multiple of 16]
};

// Row-major float32 `down` [rank, inputs] and `up` [outputs, rank] are copied and rounded.
inline void set_low_rank(Change& change, const float* down, const float* up, int rank) {
  change.rank = whole(rank, kRanks);
  const size_t steps = whole(change.inputs, kInputs) / kInputs, pairs = change.rank / 2;
  change.down = packed(steps * kInputs * change.rank);
  change.up = packed(size_t(whole(change.outputs, kHalf)) * change.rank);
  for (int r = 0; r < rank; ++r) {
    bf16* to = change.down.get() + size_t(r / kRanks) * steps * kRanks * kInputs + r % kRanks * kInputs;
    for (int k = 0; k < change.inputs; ++k)
      to[size_t(k / kInputs) * kRanks * kInputs + k % kInputs] = to_bf16(down[size_t(r) * change.inputs + k]);
  }
  for (int n = 0; n < change.outputs; ++n) {
    bf16* to = change.up.get() + size_t(n / kHalf) * pairs * kHalf * 2 + n % kHalf * 2;
    for (int r = 0; r < rank; ++r) to[r / 2 * kHalf * 2 + r % 2] = to_bf16(up[size_t(n) * rank + r]);
  }
}

inline void set_factors(std::vector<float>& to, const float* factors, int count, int padded) {
  to.assign(padded, 1.f);
  std::copy(factors, factors + count, to.begin());
}

// One adapter's changes, by the number of the module; null for a module that it leaves alone.
struct Delta {
  std::vector<std::unique_ptr<Change>> changes;
  bool has_own_inputs = false;  // factors for the inputs of a module that others have too

  int widest() const {
    int rank = 0;
    for (const auto& change : changes)
      if (change) rank = std::max(rank, change->rank);
    return rank;
  }
};

// down x, rounded.
inline void shrink(const Change& change, const bf16* x, bf16* out) {
  const int whole_steps = change.inputs / kInputs, rest = change.inputs % kInputs;
  const bf16* down = change.down.get();
  for (int first = 0; first < change.rank; first += kRanks) {
    __m512 sum[kRanks];
    for (auto& each : sum) each = _mm512_setzero_ps();
    const auto add = [&](__m512i inputs) {
#pragma GCC unroll 8
      for (int r = 0; r < kRanks; ++r)
        sum[r] = _mm512_dpbf16_ps(sum[r], (__m512bh)inputs, (__m512bh)_mm512_load_si512(down + r * kInputs));
      down += kRanks * kInputs;
    };
    for (int k = 0; k < whole_steps; ++k) add(_mm512_loadu_si512(x + k * kInputs));
    if (rest) add(_mm512_maskz_loadu_epi16(__mmask32((1u << rest) - 1), x + whole_steps * kInputs));
    for (int r = 0; r < kRanks; ++r) out[first + r] = to_bf16(_mm512_reduce_add_ps(sum[r]));
  }
}

// The sums of 16 outputs of one row, its bias included, as its adapter has them.
inline __m512 changed(const Change& change, const bf16* shrunk, int half, __m512 sum) {
  __m512 added = _mm512_setzero_ps();
  const bf16* up = change.up.get() + size_t(half) * kHalf * change.rank;
  for (int p = 0; p < change.rank / 2; ++p) {
    int32_t pair;
    std::memcpy(&pair, shrunk + p * 2, 4);
    added = _mm512_dpbf16_ps(added, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_load_si512(up + p * kHalf * 2));
  }
  sum = _mm512_add_ps(sum, added);
  if (change.output_factors.empty()) return sum;
  return _mm512_mul_ps(sum, _mm512_loadu_ps(change.output_factors.data() + half * kHalf));
}

inline void multiply_row(bf16* x, const std::vector<float>& factors) {
  for (size_t i = 0; i < factors.size(); ++i) x[i] = to_bf16(to_float(x[i]) * factors[i]);
}

// Which delta each row of a step has, and what the products that are under way need of it.
class StepDeltas {
 public:
  // `deltas` [rows], null for a row without; or null where no row has one.
  void begin(const Delta* const* deltas, int rows) {
    deltas_ = deltas;
    widest_ = 0;
    has_own_inputs_ = false;
    if (!deltas) return;
    for (int row = 0; row < rows; ++row) {
      if (!deltas[row] || (row > 0 && deltas[row] == deltas[row - 1])) continue;
      widest_ = std::max(widest_, deltas[row]->widest());
      has_own_inputs_ |= deltas[row]->has_own_inputs;
    }
    const size_t size = size_t(rows) * kTogether * widest_;
    if (shrunk_.size() < size) shrunk_.resize(size);
  }

  static constexpr int kTogether = 3;  // modules of one product: queries, keys and values

  bool has_any() const { return deltas_ != nullptr; }
  bool has_own_inputs() const { return has_own_inputs_; }

  // What the row's inputs of the i-th of a product's modules are multiplied with, where the other modules have theirs as
  // they are; null where they are everybody's.
  const std::vector<float>* own_factors(int row, int first, int i) const {
    const Delta* delta = of(row);
    if (!delta || !delta->has_own_inputs) return nullptr;
    const Change* change = delta->changes[first + i].get();
    return change && !change->input_factors.empty() ? &change->input_factors : nullptr;
  }

  // For each row before it is multiplied with the weights of modules [first, first + count): `x` as its adapter has it.
  // `slot` is the row's number in that product. Where there are several modules, factors are left to `own_factors`: a
  // module has factors or a low-rank product, never both.
  void before(int row, int slot, int first, int count, bf16* x) {
    const Delta* delta = of(row);
    if (!delta) return;
    for (int i = 0; i < count; ++i) {
      const Change* change = delta->changes[first + i].get();
      if (!change) continue;
      if (count == 1) multiply_row(x, change->input_factors);
      shrink(*change, x, shrunk(slot, i));
    }
  }

  // For each half tile of each row of that product: the outputs from 16 x `half` on of the i-th of its modules, in place.
  void after(int row, int slot, int first, int i, int half, float* out) {
    const Delta* delta = of(row);
    const Change* change = delta ? delta->changes[first + i].get() : nullptr;
    if (change && half * kHalf < change->outputs)
      _mm512_storeu_ps(out, changed(*change, shrunk(slot, i), half, _mm512_loadu_ps(out)));
  }

 private:
  const Delta* of(int row) const { return deltas_ ? deltas_[row] : nullptr; }
  bf16* shrunk(int slot, int i) { return shrunk_.data() + (size_t(slot) * kTogether + i) * widest_; }

  const Delta* const* deltas_ = nullptr;
  int widest_ = 0;
  bool has_own_inputs_ = false;
  std::vector<bf16> shrunk_;  // [slots][3][widest rank]
};

}  // namespace

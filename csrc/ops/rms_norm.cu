// A block normalises a row: read once into registers, summed, written. Rows that cannot be read 16 bytes at a time, or are longer than
// a block's registers hold, are read twice.
#include "rms_norm.h"

#include "block.cuh"

namespace megatron_astro::ops::cuda {
namespace {

constexpr int MOST_PACKS_FORWARD = 4;
constexpr int MOST_PACKS_BACKWARD = 4;
constexpr int BACKWARD_THREADS = 512;  // with more, a thread has 64 registers, and the compiler spills
constexpr int THREADS_WHEN_LOOPING = 512;

template <typename T>
struct Row {
  const T* hidden;
  const T* residual;
  T* output;
  T* sum;

  __device__ Row(const RmsNormForward& a, int64_t row)
      : hidden(static_cast<const T*>(a.hidden) + row * a.columns),
        residual(static_cast<const T*>(a.residual) + row * a.columns),
        output(static_cast<T*>(a.output) + row * a.columns),
        sum(static_cast<T*>(a.sum) + row * a.columns) {}
};

__device__ float inverse_of(const RmsNormForward& a, int64_t row, float squares) {
  const float inverse = 1.0f / sqrtf(squares / static_cast<float>(a.columns) + a.epsilon);
  if (threadIdx.x == 0) a.inverse_rms[row] = inverse;
  return inverse;
}

template <typename T, int PACKS, bool RESIDUAL>
__global__ void __launch_bounds__(MAX_THREADS) forward_in_registers(const RmsNormForward a) {
  const int64_t num_packs = a.columns / LANES<T>;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const Row<T> at(a, row);
    uint4 kept[PACKS];
    float squares = 0;
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
      const int64_t pack_index = threadIdx.x + static_cast<int64_t>(p) * blockDim.x;
      if (pack_index >= num_packs) continue;
      const int64_t i = pack_index * LANES<T>;
      float x[LANES<T>];
      kept[p] = load_raw(at.hidden + i);
      unpack(kept[p], x);
      if constexpr (RESIDUAL) {
        float added[LANES<T>];
        load(at.residual + i, added);
#pragma unroll
        for (int k = 0; k < LANES<T>; ++k) x[k] += added[k];
        kept[p] = pack(x);
        store_raw(at.sum + i, kept[p]);
        unpack(kept[p], x);
      }
#pragma unroll
      for (int k = 0; k < LANES<T>; ++k) squares += x[k] * x[k];
    }
    const float inverse = inverse_of(a, row, reduce_block<Add>(squares));
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
      const int64_t pack_index = threadIdx.x + static_cast<int64_t>(p) * blockDim.x;
      if (pack_index >= num_packs) continue;
      const int64_t i = pack_index * LANES<T>;
      float x[LANES<T>], weight[LANES<T>];
      unpack(kept[p], x);
      load(static_cast<const T*>(a.weight) + i, weight);
#pragma unroll
      for (int k = 0; k < LANES<T>; ++k) x[k] = x[k] * inverse * weight[k];
      store(at.output + i, x);
    }
  }
}

template <typename T, bool RESIDUAL>
__global__ void __launch_bounds__(THREADS_WHEN_LOOPING) forward_looping(const RmsNormForward a) {
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const Row<T> at(a, row);
    float squares = 0;
    for (int64_t i = threadIdx.x; i < a.columns; i += blockDim.x) {
      float x = widen(at.hidden[i]);
      if constexpr (RESIDUAL) {
        store_one(at.sum + i, x + widen(at.residual[i]));
        x = widen(at.sum[i]);
      }
      squares += x * x;
    }
    const float inverse = inverse_of(a, row, reduce_block<Add>(squares));
    const T* normalised = RESIDUAL ? at.sum : at.hidden;  // a thread reads what it wrote itself
    for (int64_t i = threadIdx.x; i < a.columns; i += blockDim.x) {
      store_one(at.output + i, widen(normalised[i]) * inverse * widen(static_cast<const T*>(a.weight)[i]));
    }
  }
}

template <typename T, bool RESIDUAL>
int forward(const RmsNormForward& a, void* stream) {
  const int64_t num_packs = a.columns / LANES<T>;
  const dim3 grid = blocks(a.rows);
  if (!fits_packs<T>(a.columns, a.hidden, a.residual, a.weight, a.output, a.sum) || num_packs > MOST_PACKS_FORWARD * MAX_THREADS) {
    return launch(stream, grid, threads_for(a.columns, THREADS_WHEN_LOOPING), forward_looping<T, RESIDUAL>, a);
  }
  if (num_packs <= 256) return launch(stream, grid, threads_for(num_packs, 256), forward_in_registers<T, 1, RESIDUAL>, a);
  if (num_packs <= 512) return launch(stream, grid, threads_for(divide_up(num_packs, 2), 256), forward_in_registers<T, 2, RESIDUAL>, a);
  return launch(stream, grid, threads_for(divide_up(num_packs, 4), MAX_THREADS), forward_in_registers<T, 4, RESIDUAL>, a);
}

template <typename T>
struct GradientRow {
  const T* grad_output;
  const T* grad_sum;
  const T* hidden;
  T* grad_hidden;
  float inverse;

  __device__ GradientRow(const RmsNormBackward& a, int64_t row)
      : grad_output(static_cast<const T*>(a.grad_output) + row * a.columns),
        grad_sum(static_cast<const T*>(a.grad_sum) + row * a.columns),
        hidden(static_cast<const T*>(a.hidden) + row * a.columns),
        grad_hidden(static_cast<T*>(a.grad_hidden) + row * a.columns),
        inverse(a.inverse_rms[row]) {}
};

// A block takes every gridDim.x-th row and keeps its sums of the weight's gradient in registers until the last.
template <typename T, int PACKS, bool GRAD_SUM>
__global__ void __launch_bounds__(BACKWARD_THREADS) backward_in_registers(const RmsNormBackward a) {
  const int64_t num_packs = a.columns / LANES<T>;
  float sums[PACKS][LANES<T>] = {};
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const GradientRow<T> at(a, row);
    uint4 grads[PACKS], inputs[PACKS];
    float product = 0;
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
      const int64_t pack_index = threadIdx.x + static_cast<int64_t>(p) * blockDim.x;
      if (pack_index >= num_packs) continue;
      const int64_t i = pack_index * LANES<T>;
      grads[p] = load_raw(at.grad_output + i);
      inputs[p] = load_raw(at.hidden + i);
      float grad[LANES<T>], x[LANES<T>], weight[LANES<T>];
      unpack(grads[p], grad);
      unpack(inputs[p], x);
      load(static_cast<const T*>(a.weight) + i, weight);
#pragma unroll
      for (int k = 0; k < LANES<T>; ++k) {
        const float contribution = grad[k] * (x[k] * at.inverse);
        sums[p][k] += contribution;
        product += contribution * weight[k];
      }
    }
    const float mean = reduce_block<Add>(product) / static_cast<float>(a.columns);
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
      const int64_t pack_index = threadIdx.x + static_cast<int64_t>(p) * blockDim.x;
      if (pack_index >= num_packs) continue;
      const int64_t i = pack_index * LANES<T>;
      float grad[LANES<T>], x[LANES<T>], other[LANES<T>];
      unpack(grads[p], grad);
      unpack(inputs[p], x);
      load(static_cast<const T*>(a.weight) + i, other);
#pragma unroll
      for (int k = 0; k < LANES<T>; ++k) grad[k] = (grad[k] * other[k] - x[k] * at.inverse * mean) * at.inverse;
      if constexpr (GRAD_SUM) {
        load(at.grad_sum + i, other);
#pragma unroll
        for (int k = 0; k < LANES<T>; ++k) grad[k] += other[k];
      }
      store(at.grad_hidden + i, grad);
    }
  }
#pragma unroll
  for (int p = 0; p < PACKS; ++p) {
    const int64_t pack_index = threadIdx.x + static_cast<int64_t>(p) * blockDim.x;
    if (pack_index >= num_packs) continue;
    float* partial = a.partials + blockIdx.x * a.columns + pack_index * LANES<T>;
#pragma unroll
    for (int k = 0; k < LANES<T>; k += 4) {
      *reinterpret_cast<float4*>(partial + k) = make_float4(sums[p][k], sums[p][k + 1], sums[p][k + 2], sums[p][k + 3]);
    }
  }
}

template <typename T, bool GRAD_SUM>
__global__ void __launch_bounds__(THREADS_WHEN_LOOPING) backward_looping(const RmsNormBackward a) {
  float* partial = a.partials + blockIdx.x * a.columns;  // each thread adds to columns of its own
  for (int64_t i = threadIdx.x; i < a.columns; i += blockDim.x) partial[i] = 0;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const GradientRow<T> at(a, row);
    const T* weight = static_cast<const T*>(a.weight);
    float product = 0;
    for (int64_t i = threadIdx.x; i < a.columns; i += blockDim.x) {
      const float contribution = widen(at.grad_output[i]) * (widen(at.hidden[i]) * at.inverse);
      partial[i] += contribution;
      product += contribution * widen(weight[i]);
    }
    const float mean = reduce_block<Add>(product) / static_cast<float>(a.columns);
    for (int64_t i = threadIdx.x; i < a.columns; i += blockDim.x) {
      const float x = widen(at.hidden[i]) * at.inverse;
      float grad = (widen(at.grad_output[i]) * widen(weight[i]) - x * mean) * at.inverse;
      if constexpr (GRAD_SUM) grad += widen(at.grad_sum[i]);
      store_one(at.grad_hidden + i, grad);
    }
  }
}

constexpr int COLUMNS_A_BLOCK = WARP, ROWS_AT_ONCE = 32;

// Each warp adds every 32nd row of 32 neighbouring columns; the first warp adds what the warps have.
template <typename T>
__global__ void __launch_bounds__(MAX_THREADS) add_partials(const float* partials, int64_t num_partials, int64_t columns, T* grad_weight) {
  __shared__ float of_warps[ROWS_AT_ONCE][COLUMNS_A_BLOCK + 1];
  const int lane = static_cast<int>(threadIdx.x) % WARP, warp = static_cast<int>(threadIdx.x) / WARP;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * COLUMNS_A_BLOCK + lane;
  float sum = 0;
  if (column < columns) {
    for (int64_t index = warp; index < num_partials; index += ROWS_AT_ONCE) sum += partials[index * columns + column];
  }
  of_warps[warp][lane] = sum;
  __syncthreads();
  const float total = reduce_warp<Add>(of_warps[lane][warp]);  // warp w has column w of all warps
  const int64_t written = static_cast<int64_t>(blockIdx.x) * COLUMNS_A_BLOCK + warp;
  if (lane == 0 && written < columns) store_one(grad_weight + written, total);
}

template <typename T, int PACKS, bool GRAD_SUM>
int backward_packed(const RmsNormBackward& a, int64_t num_partials, void* stream) {
  const int threads = threads_for(divide_up(a.columns / LANES<T>, PACKS), BACKWARD_THREADS);
  return launch(stream, blocks(num_partials), threads, backward_in_registers<T, PACKS, GRAD_SUM>, a);
}

template <typename T, bool GRAD_SUM>
int backward_rows(const RmsNormBackward& a, int64_t num_partials, void* stream) {
  const int64_t num_packs = a.columns / LANES<T>;
  if (!fits_packs<T>(a.columns, a.grad_output, a.grad_sum, a.hidden, a.weight, a.grad_hidden) ||
      num_packs > MOST_PACKS_BACKWARD * BACKWARD_THREADS) {
    const int threads = threads_for(a.columns, THREADS_WHEN_LOOPING);
    return launch(stream, blocks(num_partials), threads, backward_looping<T, GRAD_SUM>, a);
  }
  if (num_packs <= 256) return backward_packed<T, 1, GRAD_SUM>(a, num_partials, stream);
  if (num_packs <= 2 * BACKWARD_THREADS) return backward_packed<T, 2, GRAD_SUM>(a, num_partials, stream);
  return backward_packed<T, MOST_PACKS_BACKWARD, GRAD_SUM>(a, num_partials, stream);
}

template <typename T, bool GRAD_SUM>
int backward(const RmsNormBackward& a, void* stream) {
  const int64_t num_partials = rms_norm_cuda_partials(a.rows);
  const int code = a.rows > 0 ? backward_rows<T, GRAD_SUM>(a, num_partials, stream) : 0;
  if (code != 0) return code;
  const dim3 grid = blocks(divide_up(a.columns, COLUMNS_A_BLOCK));
  return launch(stream, grid, WARP * ROWS_AT_ONCE, add_partials<T>, static_cast<const float*>(a.partials), num_partials, a.columns,
                static_cast<T*>(a.grad_weight));
}

template <typename T>
int backward(const RmsNormBackward& a, void* stream) {
  return a.grad_sum ? backward<T, true>(a, stream) : backward<T, false>(a, stream);
}

template <typename T>
int forward(const RmsNormForward& a, void* stream) {
  return a.residual ? forward<T, true>(a, stream) : forward<T, false>(a, stream);
}

}  // namespace

int rms_norm_forward(const RmsNormForward& arguments, void* stream) {
  return arguments.dtype == Dtype::float32 ? forward<float>(arguments, stream) : forward<BFloat16>(arguments, stream);
}

int rms_norm_backward(const RmsNormBackward& arguments, void* stream) {
  return arguments.dtype == Dtype::float32 ? backward<float>(arguments, stream) : backward<BFloat16>(arguments, stream);
}

}  // namespace megatron_astro::ops::cuda

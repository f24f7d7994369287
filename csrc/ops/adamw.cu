// Many tensors in one launch: their table goes by value in the kernel's parameters, so that nothing is copied to the device beforehand
// and a captured graph can be replayed.
#include "adamw.h"

#include <cmath>

#include "block.cuh"

namespace megatron_astro::ops::cuda {
namespace {

constexpr int THREADS = 256;
constexpr int TENSORS_A_LAUNCH = 64;  // parameters of a kernel may take 4096 bytes
constexpr int64_t PACKS_A_THREAD = 4;
constexpr int64_t UPDATES_A_BLOCK = THREADS * 4 * PACKS_A_THREAD;

// Tensors cut into chunks, a block each; first_chunk[t] counts those before tensor t.
template <typename Tensor>
struct Table {
  Tensor tensors[TENSORS_A_LAUNCH];
  int64_t first_chunk[TENSORS_A_LAUNCH + 1];
  int count = 0;

  void add(const Tensor& tensor, int64_t chunk) {
    first_chunk[0] = 0;
    tensors[count] = tensor;
    first_chunk[count + 1] = first_chunk[count] + divide_up(tensor.size, chunk);
    ++count;
  }

  __device__ int tensor_of(int64_t block) const {
    int low = 0, high = count;  // first_chunk[low] <= block < first_chunk[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (first_chunk[middle] <= block) {
        low = middle;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

// Call each(table) for runs of tensors, empty ones left out.
template <typename Tensor, typename Each>
int for_each_table(const Tensor* tensors, int64_t num_tensors, int64_t chunk, Each each) {
  Table<Tensor> table;
  for (int64_t index = 0; index < num_tensors; ++index) {
    if (tensors[index].size > 0) table.add(tensors[index], chunk);
    const bool full = table.count == TENSORS_A_LAUNCH || index + 1 == num_tensors;
    if (table.count == 0 || !full) continue;
    if (const int code = each(table); code != 0) return code;
    table.count = 0;
  }
  return 0;
}

struct AdamwSettings {
  const float* learning_rate;
  const float* step;
  const float* gradient_scale;
  double log_beta1, log_beta2;
  float beta1, beta2, rest1, rest2, epsilon, weight_decay;
};

struct AdamwNow {
  float gradient_scale, decay, step_size, second_scale;
};

__device__ inline void update(const AdamwSettings& a, const AdamwNow& now, float gradient, float& parameter, float& exp_avg,
                              float& exp_avg_sq) {
  const float g = gradient * now.gradient_scale;
  parameter *= now.decay;
  exp_avg += a.rest1 * (g - exp_avg);
  exp_avg_sq = a.beta2 * exp_avg_sq + a.rest2 * g * g;
  parameter -= now.step_size * exp_avg / (sqrtf(exp_avg_sq) * now.second_scale + a.epsilon);
}

__device__ inline void load_four(const float* from, float (&values)[4]) { load(from, values); }

__device__ inline void load_four(const BFloat16* from, float (&values)[4]) {
  const uint2 raw = *reinterpret_cast<const uint2*>(from);
  values[0] = __uint_as_float(raw.x << 16);
  values[1] = __uint_as_float(raw.x & 0xffff0000u);
  values[2] = __uint_as_float(raw.y << 16);
  values[3] = __uint_as_float(raw.y & 0xffff0000u);
}

template <typename T>
__device__ inline void update_four(const AdamwSettings& a, const AdamwNow& now, const AdamwTensor& tensor, int64_t i) {
  float gradient[4], parameter[4], exp_avg[4], exp_avg_sq[4];
  load_four(static_cast<const T*>(tensor.gradient) + i, gradient);
  load(tensor.parameter + i, parameter);
  load(tensor.exp_avg + i, exp_avg);
  load(tensor.exp_avg_sq + i, exp_avg_sq);
#pragma unroll
  for (int k = 0; k < 4; ++k) update(a, now, gradient[k], parameter[k], exp_avg[k], exp_avg_sq[k]);
  store(tensor.parameter + i, parameter);
  store(tensor.exp_avg + i, exp_avg);
  store(tensor.exp_avg_sq + i, exp_avg_sq);
  if (tensor.copy != nullptr) {
    const uint2 copied = make_uint2(narrow_two(parameter[0], parameter[1]), narrow_two(parameter[2], parameter[3]));
    *reinterpret_cast<uint2*>(static_cast<BFloat16*>(tensor.copy) + i) = copied;
  }
}

template <typename T>
__device__ inline void update_one(const AdamwSettings& a, const AdamwNow& now, const AdamwTensor& tensor, int64_t i) {
  float parameter = tensor.parameter[i], exp_avg = tensor.exp_avg[i], exp_avg_sq = tensor.exp_avg_sq[i];
  update(a, now, widen(static_cast<const T*>(tensor.gradient)[i]), parameter, exp_avg, exp_avg_sq);
  tensor.parameter[i] = parameter;
  tensor.exp_avg[i] = exp_avg;
  tensor.exp_avg_sq[i] = exp_avg_sq;
  if (tensor.copy != nullptr) store_one(static_cast<BFloat16*>(tensor.copy) + i, parameter);
}

__device__ inline bool aligned_for_four(const AdamwTensor& tensor) {
  const auto addresses = reinterpret_cast<uintptr_t>(tensor.parameter) | reinterpret_cast<uintptr_t>(tensor.exp_avg) |
                         reinterpret_cast<uintptr_t>(tensor.exp_avg_sq) | reinterpret_cast<uintptr_t>(tensor.gradient) |
                         reinterpret_cast<uintptr_t>(tensor.copy) * 2;  // its packs are of 8 bytes
  return addresses % 16 == 0;
}

template <typename T>
__global__ void __launch_bounds__(THREADS) update_chunks(const Table<AdamwTensor> table, const AdamwSettings a) {
  __shared__ AdamwNow shared_now;
  if (threadIdx.x == 0) {
    const double step = *a.step;
    const double rest1 = 1.0 - exp(step * a.log_beta1), rest2 = 1.0 - exp(step * a.log_beta2);
    shared_now.gradient_scale = *a.gradient_scale;
    shared_now.decay = 1.0f - *a.learning_rate * a.weight_decay;
    shared_now.step_size = static_cast<float>(*a.learning_rate / rest1);
    shared_now.second_scale = static_cast<float>(1.0 / sqrt(rest2));
  }
  __syncthreads();
  const AdamwNow now = shared_now;
  const int index = table.tensor_of(blockIdx.x);
  const AdamwTensor tensor = table.tensors[index];
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) - table.first_chunk[index]) * UPDATES_A_BLOCK;
  const int64_t end = tensor.size - begin < UPDATES_A_BLOCK ? tensor.size : begin + UPDATES_A_BLOCK;
  int64_t rest = begin;
  if (aligned_for_four(tensor)) {
    rest = begin + (end - begin) / 4 * 4;
    for (int64_t i = begin + threadIdx.x * 4; i < rest; i += THREADS * 4) update_four<T>(a, now, tensor, i);
  }
  for (int64_t i = rest + threadIdx.x; i < end; i += THREADS) update_one<T>(a, now, tensor, i);
}

template <typename T>
int run_adamw(const Adamw& arguments, void* stream) {
  const AdamwSettings settings{
      .learning_rate = arguments.learning_rate,
      .step = arguments.step,
      .gradient_scale = arguments.gradient_scale,
      .log_beta1 = std::log(arguments.beta1),
      .log_beta2 = std::log(arguments.beta2),
      .beta1 = static_cast<float>(arguments.beta1),
      .beta2 = static_cast<float>(arguments.beta2),
      .rest1 = static_cast<float>(1 - arguments.beta1),
      .rest2 = static_cast<float>(1 - arguments.beta2),
      .epsilon = arguments.epsilon,
      .weight_decay = arguments.weight_decay,
  };
  return for_each_table(arguments.tensors, arguments.num_tensors, UPDATES_A_BLOCK, [&](const Table<AdamwTensor>& table) {
    return launch(stream, blocks(table.first_chunk[table.count]), THREADS, update_chunks<T>, table, settings);
  });
}

template <typename T>
__device__ inline double sum_of_squares(const T* from, int64_t size) {
  double squares = 0;
  const auto add = [&](double x) { squares += x * x; };
  for_each_of_row(
      from, size, threadIdx.x, THREADS, [&](int64_t i) { add(widen(from[i])); },
      [&](int64_t i) {
        float x[LANES<T>];
        load(from + i, x);
#pragma unroll
        for (int k = 0; k < LANES<T>; ++k) add(x[k]);
      });
  return squares;
}

// The same in every thread of the first warp.
__device__ inline double add_up(double value) {
  __shared__ double of_threads[THREADS];
  of_threads[threadIdx.x] = value;
  __syncthreads();
  for (int half = THREADS / 2; half > 0; half /= 2) {
    if (static_cast<int>(threadIdx.x) < half) of_threads[threadIdx.x] += of_threads[threadIdx.x + half];
    __syncthreads();
  }
  return of_threads[0];
}

template <typename T>
__global__ void __launch_bounds__(THREADS) square_chunks(const Table<SquaredNormTensor> table, double* partials) {
  const int index = table.tensor_of(blockIdx.x);
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) - table.first_chunk[index]) * SQUARED_NORM_CHUNK;
  const int64_t left = table.tensors[index].size - begin;
  const double squares =
      sum_of_squares(static_cast<const T*>(table.tensors[index].data) + begin, left < SQUARED_NORM_CHUNK ? left : SQUARED_NORM_CHUNK);
  const double sum = add_up(squares);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(THREADS) add_chunks(const double* partials, int64_t num_chunks, double* result) {
  double sum = 0;
  for (int64_t index = threadIdx.x; index < num_chunks; index += THREADS) sum += partials[index];
  sum = add_up(sum);
  if (threadIdx.x == 0) *result = sum;
}

template <typename T>
int run_squared_norm(const SquaredNorm& a, void* stream) {
  int64_t num_chunks = 0;
  const int code = for_each_table(a.tensors, a.num_tensors, SQUARED_NORM_CHUNK, [&](const Table<SquaredNormTensor>& table) {
    const int64_t of_table = table.first_chunk[table.count];
    const int launched = launch(stream, blocks(of_table), THREADS, square_chunks<T>, table, a.partials + num_chunks);
    num_chunks += of_table;
    return launched;
  });
  if (code != 0) return code;
  return launch(stream, blocks(1), THREADS, add_chunks, static_cast<const double*>(a.partials), num_chunks, a.result);
}

}  // namespace

int adamw(const Adamw& arguments, void* stream) {
  return arguments.gradient_dtype == Dtype::float32 ? run_adamw<float>(arguments, stream) : run_adamw<BFloat16>(arguments, stream);
}

int squared_norm(const SquaredNorm& arguments, void* stream) {
  return arguments.dtype == Dtype::float32 ? run_squared_norm<float>(arguments, stream)
                                           : run_squared_norm<BFloat16>(arguments, stream);
}

}  // namespace megatron_astro::ops::cuda

// From tensors to launchers: checks that throw (STD_TORCH_CHECK becomes a RuntimeError in Python), and the choice by device.
//
// The file is the same for the library and for the tests' build that runs the .cu sources on a CPU: that one defines
// MEGATRON_ASTRO_LIBRARY as another name and MEGATRON_ASTRO_CUDA_ON_CPU, and CPU tensors then go to the cuda:: launchers.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../instruction_set.h"
#include "../launch.h"

#ifndef MEGATRON_ASTRO_LIBRARY
#define MEGATRON_ASTRO_LIBRARY megatron_astro
#endif

namespace megatron_astro::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <typename Arguments>
struct Launchers {
  void (*cpu[3])(const Arguments&);
  int (*cuda)(const Arguments&, void*);
};

#if defined(MEGATRON_ASTRO_CUDA_ON_CPU)
#define MEGATRON_ASTRO_LAUNCHERS_OF(name) \
  { {}, cuda::name }
#elif defined(MEGATRON_ASTRO_WITH_CUDA)
#define MEGATRON_ASTRO_LAUNCHERS_OF(name) \
  { {baseline::name, avx2::name, avx512::name}, cuda::name }
#else
#define MEGATRON_ASTRO_LAUNCHERS_OF(name) \
  { {baseline::name, avx2::name, avx512::name}, nullptr }
#endif

// Register functions for the devices this build serves.
#if defined(MEGATRON_ASTRO_WITH_CUDA)
#define MEGATRON_ASTRO_IMPLEMENT(...)                                             \
  STABLE_TORCH_LIBRARY_IMPL(MEGATRON_ASTRO_LIBRARY, CPU, library) { __VA_ARGS__ } \
  STABLE_TORCH_LIBRARY_IMPL(MEGATRON_ASTRO_LIBRARY, CUDA, library) { __VA_ARGS__ }
#else
#define MEGATRON_ASTRO_IMPLEMENT(...) \
  STABLE_TORCH_LIBRARY_IMPL(MEGATRON_ASTRO_LIBRARY, CPU, library) { __VA_ARGS__ }
#endif

// Run on the device of `where`; on CUDA, on its current stream.
void run_on_cuda(const Tensor& where, int (*launcher)(const void*, void*), const void* arguments);

// Whether the kernels of the .cu files will work on this tensor.
inline bool runs_cuda_kernels(const Tensor& where) {
#if defined(MEGATRON_ASTRO_CUDA_ON_CPU)
  (void)where;
  return true;
#else
  return where.is_cuda();
#endif
}

template <typename Arguments>
void run(const Tensor& where, const Launchers<Arguments>& launchers, const Arguments& arguments) {
  (void)where;
#if defined(MEGATRON_ASTRO_CUDA_ON_CPU)
  STD_TORCH_CHECK(launchers.cuda(arguments, nullptr) == 0, "the kernel failed");
#else
#if defined(MEGATRON_ASTRO_WITH_CUDA)
  if (where.is_cuda()) {
    struct Call {
      int (*launcher)(const Arguments&, void*);
      const Arguments& arguments;
    } call{launchers.cuda, arguments};
    return run_on_cuda(
        where,
        [](const void* data, void* stream) {
          const auto& wanted = *static_cast<const Call*>(data);
          return wanted.launcher(wanted.arguments, stream);
        },
        &call);
  }
#endif
  launchers.cpu[static_cast<int>(instruction_set())](arguments);
#endif
}

inline Dtype dtype_of(const Tensor& tensor, const char* name) {
  const auto type = tensor.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::BFloat16, name, " must be float32 or bfloat16");
  return type == ScalarType::Float ? Dtype::float32 : Dtype::bfloat16;
}

inline void check_contiguous(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(tensor.is_contiguous(), name, " is not contiguous; call .contiguous() first");
}

inline void check_type(const Tensor& tensor, ScalarType type, const char* name, const char* type_name) {
  STD_TORCH_CHECK(tensor.scalar_type() == type, name, " must be ", type_name);
}

inline void check_device(const Tensor& tensor, const Tensor& like, const char* name) {
  STD_TORCH_CHECK(tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index(), name,
                  " is on another device than the other tensors");
}

inline bool same_shape(const Tensor& left, const Tensor& right) {
  if (left.dim() != right.dim()) return false;
  for (int64_t axis = 0; axis < left.dim(); ++axis) {
    if (left.size(axis) != right.size(axis)) return false;
  }
  return true;
}

// Contiguous, and of the other tensor's shape, number format and device.
inline void check_like(const Tensor& tensor, const Tensor& like, const char* name) {
  check_contiguous(tensor, name);
  check_device(tensor, like, name);
  STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), name, " has another number format than the other tensors");
  STD_TORCH_CHECK(same_shape(tensor, like), name, " has another shape than the tensor it belongs to");
}

// The size of the last axis; a tensor of no axis is refused.
inline int64_t columns_of(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(tensor.dim() > 0, name, " must have at least one axis");
  return tensor.size(tensor.dim() - 1);
}

// How many rows of the last axis there are.
inline int64_t rows_of(const Tensor& tensor) {
  int64_t rows = 1;
  for (int64_t axis = 0; axis + 1 < tensor.dim(); ++axis) rows *= tensor.size(axis);
  return rows;
}

inline Tensor new_float32(const Tensor& like, std::vector<int64_t> shape) {
  return torch::stable::new_empty(like, shape, ScalarType::Float);
}

}  // namespace megatron_astro::ops

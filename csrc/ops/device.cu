#include "device.h"

#include <cuda_runtime.h>

#include <cstdio>

namespace megatron_astro::ops::cuda {

int device_count(int* count) { return static_cast<int>(cudaGetDeviceCount(count)); }

int device(int index, char* name, int name_bytes, int* capability) {
  cudaDeviceProp properties;
  const cudaError_t code = cudaGetDeviceProperties(&properties, index);
  if (code == cudaSuccess) {
    std::snprintf(name, static_cast<size_t>(name_bytes), "%s", properties.name);
    *capability = properties.major * 10 + properties.minor;
  }
  return static_cast<int>(code);
}

const char* error_text(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

}  // namespace megatron_astro::ops::cuda

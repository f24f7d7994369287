// What the library was built with and what it finds here: plain C, so that the Python module can ask it without torch's headers.
#pragma once

#if defined(__cplusplus)
extern "C" {
#endif

#define MEGATRON_ASTRO_EXPORT __attribute__((visibility("default")))

// Names of instruction sets: "baseline", "avx2", "avx512".
MEGATRON_ASTRO_EXPORT const char* megatron_astro_best_instruction_set();
MEGATRON_ASTRO_EXPORT const char* megatron_astro_instruction_set();

// 0, or -1 where the name is unknown or this processor cannot run it.
MEGATRON_ASTRO_EXPORT int megatron_astro_use_instruction_set(const char* name);

// The GPU architectures compiled in, as "80 89 90a 100"; empty in a build without CUDA.
MEGATRON_ASTRO_EXPORT const char* megatron_astro_cuda_architectures();

// How many GPUs the CUDA runtime finds; a negative number is minus a cudaError_t, and 0 in a build without CUDA.
MEGATRON_ASTRO_EXPORT int megatron_astro_cuda_device_count();

// Name ("NVIDIA H100 ...") and compute capability (major * 10 + minor) of a GPU; returns a cudaError_t.
MEGATRON_ASTRO_EXPORT int megatron_astro_cuda_device(int index, char* name, int name_bytes, int* capability);

// What a cudaError_t means.
MEGATRON_ASTRO_EXPORT const char* megatron_astro_cuda_error(int code);

#if defined(__cplusplus)
}
#endif

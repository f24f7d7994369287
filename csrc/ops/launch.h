// Every operation is a plain struct of arguments (OPERATION.h) and launchers that take it: one compiled for each of three CPU instruction
// sets (OPERATION.cpp) and one for CUDA (OPERATION.cu). Launchers check nothing: bindings/ has done so.
#pragma once

#include "dtype.h"

// The CPU launchers return when the work is done; the CUDA one returns a cudaError_t and only enqueues on the stream.
#define MEGATRON_ASTRO_LAUNCHERS(name, Arguments) \
  namespace baseline {                            \
  void name(const Arguments& arguments);          \
  }                                               \
  namespace avx2 {                                \
  void name(const Arguments& arguments);          \
  }                                               \
  namespace avx512 {                              \
  void name(const Arguments& arguments);          \
  }                                               \
  namespace cuda {                                \
  int name(const Arguments& arguments, void* stream); \
  }

// The CPU kernels on bare addresses, for tests: what a launcher does where no tensor has been checked. Plain C, as build_information.h.
#pragma once

#include "build_information.h"

#if defined(__cplusplus)
extern "C" {
#endif

// Run a launcher of the instruction set in use on its struct of arguments (OPERATION.h); -1 where none has that name.
MEGATRON_ASTRO_EXPORT int megatron_astro_launch_on_cpu(const char* launcher, const void* arguments);

#if defined(__cplusplus)
}
#endif

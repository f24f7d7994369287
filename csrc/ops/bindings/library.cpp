// The library's own face: the launch on a CUDA stream, and the plain C questions of build_information.h.
#include <cstring>

#include "../build_information.h"
#include "../device.h"
#include "tensors.h"

#if defined(MEGATRON_ASTRO_WITH_CUDA)
// Absent from a torch without CUDA, which never has a CUDA tensor to call this for.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
#endif

#if !defined(MEGATRON_ASTRO_CUDA_ARCHITECTURES)
#define MEGATRON_ASTRO_CUDA_ARCHITECTURES ""
#endif

namespace megatron_astro::ops {

void run_on_cuda(const Tensor& where, int (*launcher)(const void*, void*), const void* arguments) {
#if defined(MEGATRON_ASTRO_WITH_CUDA)
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr, "this build of torch has no CUDA");
  const torch::stable::accelerator::DeviceGuard guard(where.get_device_index());
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(where.get_device_index(), &stream));
  const int code = launcher(arguments, stream);
  STD_TORCH_CHECK(code == 0, "a CUDA kernel was not launched: ", cuda::error_text(code));
#else
  (void)where, (void)launcher, (void)arguments;
  STD_TORCH_CHECK(false, "megatron_astro was built without CUDA");
#endif
}

}  // namespace megatron_astro::ops

namespace ops = megatron_astro::ops;

const char* megatron_astro_best_instruction_set() {
  return ops::INSTRUCTION_SET_NAMES[static_cast<int>(ops::best_instruction_set())];
}

const char* megatron_astro_instruction_set() { return ops::INSTRUCTION_SET_NAMES[static_cast<int>(ops::instruction_set())]; }

int megatron_astro_use_instruction_set(const char* name) {
  for (int index = 0; index <= static_cast<int>(ops::best_instruction_set()); ++index) {
    if (std::strcmp(name, ops::INSTRUCTION_SET_NAMES[index]) == 0) {
      ops::use_instruction_set(static_cast<ops::InstructionSet>(index));
      return 0;
    }
  }
  return -1;
}

const char* megatron_astro_cuda_architectures() { return MEGATRON_ASTRO_CUDA_ARCHITECTURES; }

#if defined(MEGATRON_ASTRO_WITH_CUDA)

int megatron_astro_cuda_device_count() {
  int count = 0;
  const int code = ops::cuda::device_count(&count);
  return code == 0 ? count : -code;
}

int megatron_astro_cuda_device(int index, char* name, int name_bytes, int* capability) {
  return ops::cuda::device(index, name, name_bytes, capability);
}

const char* megatron_astro_cuda_error(int code) { return ops::cuda::error_text(code); }

#else

int megatron_astro_cuda_device_count() { return 0; }
int megatron_astro_cuda_device(int, char*, int, int*) { return -1; }
const char* megatron_astro_cuda_error(int) { return "built without CUDA"; }

#endif

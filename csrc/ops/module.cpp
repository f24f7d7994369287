// megatron_astro._ops: what the compiled operations were built with and what they find on this machine. The operations themselves are in
// _ops_kernels.so, which torch loads; this module is linked to it and must be imported after it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "../checks.h"
#include "build_information.h"

namespace py = pybind11;
namespace ma = megatron_astro;

namespace {

void use_instruction_set(const std::string& name) {
  ma::require(megatron_astro_use_instruction_set(name.c_str()) == 0, "instruction set '", name,
              "' is unknown or not one this processor runs; the best here is ", megatron_astro_best_instruction_set());
}

int cuda_device_count() {
  const int count = megatron_astro_cuda_device_count();
  ma::require(count >= 0, "the CUDA runtime answers: ", megatron_astro_cuda_error(-count));
  return count;
}

py::tuple cuda_device(int index) {
  std::vector<char> name(256);
  int capability = 0;
  const int code = megatron_astro_cuda_device(index, name.data(), static_cast<int>(name.size()), &capability);
  ma::require(code == 0, "GPU ", index, ": ", megatron_astro_cuda_error(code));
  return py::make_tuple(std::string(name.data()), capability);
}

}  // namespace

PYBIND11_MODULE(_ops, module) {
  module.doc() = "Build information and device queries of the fused operations; signatures and meaning in _ops.pyi.";
  module.def("best_instruction_set", &megatron_astro_best_instruction_set);
  module.def("instruction_set", &megatron_astro_instruction_set);
  module.def("use_instruction_set", &use_instruction_set, py::arg("name"));
  module.def("cuda_architectures", &megatron_astro_cuda_architectures);
  module.def("cuda_device_count", &cuda_device_count);
  module.def("cuda_device", &cuda_device, py::arg("index"));
}

// megatron_astro._ops: what the compiled operations were built with and what they find on this machine. The operations themselves are in
// _ops_kernels.so, which torch loads; this module is linked to it and must be imported after it.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "../checks.h"
#include "adamw.h"
#include "build_information.h"
#include "cross_entropy.h"
#include "raw_launch.h"
#include "rms_norm.h"
#include "swiglu.h"

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

// Hooks for tests: kernels on bare addresses. An address is checked for what the kernels rely on, that it is a multiple of an element's size.

namespace ops = megatron_astro::ops;
using Address = uint64_t;

ops::Dtype dtype_of(const std::string& name) {
  ma::require(name == "float32" || name == "bfloat16", "dtype is '", name, "'; the kernels compute in float32 and bfloat16");
  return name == "float32" ? ops::Dtype::float32 : ops::Dtype::bfloat16;
}

template <typename T = void>
T* at(Address address, const char* name, uint64_t item_bytes) {
  ma::require(address != 0, name, " is at address 0");
  ma::require(address % item_bytes == 0, name, " is at address ", address, ", which is no multiple of ", item_bytes,
              ", the size of an element");
  return reinterpret_cast<T*>(address);  // NOLINT
}

uint64_t bytes_of(ops::Dtype dtype) { return dtype == ops::Dtype::float32 ? 4 : 2; }

void check_sizes(int64_t rows, int64_t columns) {
  ma::require(rows >= 0 && columns >= 0, "there cannot be ", rows, " rows of ", columns, " columns");
}

template <typename Arguments>
void launch(const char* launcher, const Arguments& arguments) {
  ma::require(megatron_astro_launch_on_cpu(launcher, &arguments) == 0, "no launcher is called ", launcher);
}

void raw_rms_norm_forward(Address hidden, Address weight, Address output, Address inverse_rms, int64_t rows, int64_t columns,
                          float epsilon, const std::string& dtype_name) {
  check_sizes(rows, columns);
  const ops::Dtype dtype = dtype_of(dtype_name);
  const uint64_t bytes = bytes_of(dtype);
  launch("rms_norm_forward",
         ops::RmsNormForward{at(hidden, "hidden", bytes), nullptr, at(weight, "weight", bytes), at(output, "output", bytes), nullptr,
                             at<float>(inverse_rms, "inverse_rms", 4), rows, columns, epsilon, dtype});
}

void raw_swiglu_forward(Address gate_up, Address output, int64_t rows, int64_t columns, const std::string& dtype_name) {
  check_sizes(rows, columns);
  const ops::Dtype dtype = dtype_of(dtype_name);
  const uint64_t bytes = bytes_of(dtype);
  launch("swiglu_forward", ops::SwigluForward{at(gate_up, "gate_up", bytes), at(output, "output", bytes), rows, columns, dtype});
}

void raw_swiglu_backward(Address grad_output, Address gate_up, Address grad_gate_up, int64_t rows, int64_t columns,
                         const std::string& dtype_name) {
  check_sizes(rows, columns);
  const ops::Dtype dtype = dtype_of(dtype_name);
  const uint64_t bytes = bytes_of(dtype);
  launch("swiglu_backward", ops::SwigluBackward{at(grad_output, "grad_output", bytes), at(gate_up, "gate_up", bytes),
                                                at(grad_gate_up, "grad_gate_up", bytes), rows, columns, dtype});
}

void raw_cross_entropy_gradient(Address logits, Address labels, Address maximum, Address total, Address grad_losses, int64_t rows,
                                int64_t columns, const std::string& dtype_name) {
  check_sizes(rows, columns);
  const ops::Dtype dtype = dtype_of(dtype_name);
  launch("cross_entropy_gradient",
         ops::CrossEntropyGradient{at(logits, "logits", bytes_of(dtype)), at<int64_t>(labels, "labels", 8),
                                   at<float>(maximum, "maximum", 4), at<float>(total, "total", 4),
                                   at<float>(grad_losses, "grad_losses", 4), rows, columns, 0, -100, dtype});
}

void raw_adamw(Address parameter, Address gradient, Address exp_avg, Address exp_avg_sq, Address copy, int64_t size,
               float learning_rate, float step, const std::string& gradient_dtype) {
  check_sizes(1, size);
  const ops::Dtype dtype = dtype_of(gradient_dtype);
  const ops::AdamwTensor tensor{at<float>(parameter, "parameter", 4), at(gradient, "gradient", bytes_of(dtype)),
                                at<float>(exp_avg, "exp_avg", 4),     at<float>(exp_avg_sq, "exp_avg_sq", 4),
                                at(copy, "copy", 2),                  size};
  const float no_scale = 1;
  launch("adamw", ops::Adamw{&tensor, 1, &learning_rate, &step, &no_scale, 0.9, 0.95, 1e-8f, 0.1f, dtype});
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
  module.def("raw_rms_norm_forward", &raw_rms_norm_forward);
  module.def("raw_swiglu_forward", &raw_swiglu_forward);
  module.def("raw_swiglu_backward", &raw_swiglu_backward);
  module.def("raw_cross_entropy_gradient", &raw_cross_entropy_gradient);
  module.def("raw_adamw", &raw_adamw);
}

#include "../swiglu.h"

#include "tensors.h"

namespace megatron_astro::ops {
namespace {

int64_t half_columns(const Tensor& gate_up) {
  check_contiguous(gate_up, "gate_up");
  const int64_t both = columns_of(gate_up, "gate_up");
  STD_TORCH_CHECK(both % 2 == 0, "gate_up's last axis has ", both, " elements; gates and ups must be as many");
  return both / 2;
}

Tensor swiglu(const Tensor& gate_up) {
  const int64_t columns = half_columns(gate_up), rows = rows_of(gate_up);
  std::vector<int64_t> shape(gate_up.sizes().begin(), gate_up.sizes().end());
  shape.back() = columns;
  const Tensor output = torch::stable::new_empty(gate_up, shape);
  const SwigluForward arguments{gate_up.data_ptr(), output.data_ptr(), rows, columns, dtype_of(gate_up, "gate_up")};
  if (rows * columns > 0) run<SwigluForward>(gate_up, MEGATRON_ASTRO_LAUNCHERS_OF(swiglu_forward), arguments);
  return output;
}

Tensor swiglu_backward(const Tensor& grad_output, const Tensor& gate_up) {
  const int64_t columns = half_columns(gate_up), rows = rows_of(gate_up);
  check_contiguous(grad_output, "grad_output");
  check_device(grad_output, gate_up, "grad_output");
  STD_TORCH_CHECK(grad_output.scalar_type() == gate_up.scalar_type(), "grad_output has another number format than gate_up");
  STD_TORCH_CHECK(columns_of(grad_output, "grad_output") == columns && rows_of(grad_output) == rows,
                  "grad_output must have half of gate_up's last axis and as many rows");
  const Tensor grad_gate_up = torch::stable::empty_like(gate_up);
  const SwigluBackward arguments{grad_output.data_ptr(), gate_up.data_ptr(), grad_gate_up.data_ptr(), rows, columns,
                                 dtype_of(gate_up, "gate_up")};
  if (rows * columns > 0) run<SwigluBackward>(gate_up, MEGATRON_ASTRO_LAUNCHERS_OF(swiglu_backward), arguments);
  return grad_gate_up;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(MEGATRON_ASTRO_LIBRARY, library) {
  library.def("swiglu(Tensor gate_up) -> Tensor");
  library.def("swiglu_backward(Tensor grad_output, Tensor gate_up) -> Tensor");
}

MEGATRON_ASTRO_IMPLEMENT(  //
    library.impl("swiglu", TORCH_BOX(&swiglu)); library.impl("swiglu_backward", TORCH_BOX(&swiglu_backward));)

}  // namespace megatron_astro::ops

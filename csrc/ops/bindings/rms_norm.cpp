#include "../rms_norm.h"

#include "tensors.h"

namespace megatron_astro::ops {
namespace {

struct Shape {
  int64_t rows, columns;
};

Shape check_norm(const Tensor& hidden, const Tensor& weight) {
  check_contiguous(hidden, "hidden");
  check_contiguous(weight, "weight");
  check_device(weight, hidden, "weight");
  const int64_t columns = columns_of(hidden, "hidden");
  STD_TORCH_CHECK(weight.dim() == 1 && weight.size(0) == columns, "weight must be [", columns, "], the size of hidden's last axis");
  STD_TORCH_CHECK(columns > 0, "hidden's last axis is empty");
  STD_TORCH_CHECK(weight.scalar_type() == hidden.scalar_type(), "weight has another number format than hidden");
  return {rows_of(hidden), columns};
}

Tensor launch_forward(const Tensor& hidden, const Tensor* residual, const Tensor& weight, const Tensor& output, const Tensor* sum,
                      double epsilon) {
  const Shape shape = check_norm(hidden, weight);
  const Tensor inverse_rms = new_float32(hidden, {shape.rows});
  const RmsNormForward arguments{
      .hidden = hidden.data_ptr(),
      .residual = residual ? residual->data_ptr() : nullptr,
      .weight = weight.data_ptr(),
      .output = output.data_ptr(),
      .sum = sum ? sum->data_ptr() : nullptr,
      .inverse_rms = static_cast<float*>(inverse_rms.data_ptr()),
      .rows = shape.rows,
      .columns = shape.columns,
      .epsilon = static_cast<float>(epsilon),
      .dtype = dtype_of(hidden, "hidden"),
  };
  if (shape.rows > 0) run<RmsNormForward>(hidden, MEGATRON_ASTRO_LAUNCHERS_OF(rms_norm_forward), arguments);
  return inverse_rms;
}

std::tuple<Tensor, Tensor> rms_norm(const Tensor& hidden, const Tensor& weight, double epsilon) {
  const Tensor output = torch::stable::empty_like(hidden);
  return {output, launch_forward(hidden, nullptr, weight, output, nullptr, epsilon)};
}

std::tuple<Tensor, Tensor, Tensor> add_rms_norm(const Tensor& hidden, const Tensor& residual, const Tensor& weight, double epsilon) {
  check_like(residual, hidden, "residual");
  const Tensor output = torch::stable::empty_like(hidden), sum = torch::stable::empty_like(hidden);
  return {output, sum, launch_forward(hidden, &residual, weight, output, &sum, epsilon)};
}

std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& grad_output, const std::optional<Tensor>& grad_sum, const Tensor& hidden,
                                             const Tensor& weight, const Tensor& inverse_rms) {
  const Shape shape = check_norm(hidden, weight);
  check_like(grad_output, hidden, "grad_output");
  if (grad_sum) check_like(*grad_sum, hidden, "grad_sum");
  check_contiguous(inverse_rms, "inverse_rms");
  check_device(inverse_rms, hidden, "inverse_rms");
  check_type(inverse_rms, ScalarType::Float, "inverse_rms", "float32");
  STD_TORCH_CHECK(inverse_rms.numel() == shape.rows, "inverse_rms must have one number a row of hidden");
  const int64_t num_partials = runs_cuda_kernels(hidden) ? rms_norm_cuda_partials(shape.rows) : rms_norm_partials(shape.rows);
  const Tensor partials = new_float32(hidden, {num_partials, shape.columns});
  const Tensor grad_hidden = torch::stable::empty_like(hidden), grad_weight = torch::stable::empty_like(weight);
  const RmsNormBackward arguments{
      .grad_output = grad_output.data_ptr(),
      .grad_sum = grad_sum ? grad_sum->data_ptr() : nullptr,
      .hidden = hidden.data_ptr(),
      .weight = weight.data_ptr(),
      .inverse_rms = static_cast<const float*>(inverse_rms.data_ptr()),
      .grad_hidden = grad_hidden.data_ptr(),
      .grad_weight = grad_weight.data_ptr(),
      .partials = static_cast<float*>(partials.data_ptr()),
      .rows = shape.rows,
      .columns = shape.columns,
      .dtype = dtype_of(hidden, "hidden"),
  };
  run<RmsNormBackward>(hidden, MEGATRON_ASTRO_LAUNCHERS_OF(rms_norm_backward), arguments);  // no rows: the weight's gradient is zero
  return {grad_hidden, grad_weight};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(MEGATRON_ASTRO_LIBRARY, library) {
  library.def("rms_norm(Tensor hidden, Tensor weight, float epsilon) -> (Tensor output, Tensor inverse_rms)");
  library.def(
      "add_rms_norm(Tensor hidden, Tensor residual, Tensor weight, float epsilon) -> (Tensor output, Tensor sum, Tensor inverse_rms)");
  library.def(
      "rms_norm_backward(Tensor grad_output, Tensor? grad_sum, Tensor hidden, Tensor weight, Tensor inverse_rms)"
      " -> (Tensor grad_hidden, Tensor grad_weight)");
}

MEGATRON_ASTRO_IMPLEMENT(  //
  library.impl("rms_norm", TORCH_BOX(&rms_norm));
  library.impl("add_rms_norm", TORCH_BOX(&add_rms_norm));
  library.impl("rms_norm_backward", TORCH_BOX(&rms_norm_backward));)

}  // namespace megatron_astro::ops

#include "../adamw.h"

#include "tensors.h"

namespace megatron_astro::ops {
namespace {

using Tensors = std::vector<Tensor>;

void check_list(const Tensors& list, const Tensors& parameters, ScalarType type, const char* name, const char* type_name) {
  STD_TORCH_CHECK(list.size() == parameters.size(), name, " must have one tensor a parameter: ", parameters.size(), ", not ",
                  list.size());
  for (size_t index = 0; index < list.size(); ++index) {
    check_contiguous(list[index], name);
    check_device(list[index], parameters[0], name);
    check_type(list[index], type, name, type_name);
    STD_TORCH_CHECK(list[index].numel() == parameters[index].numel(), name, "[", index, "] has another size than its parameter");
  }
}

const float* number(const Tensor& tensor, const Tensor& like, const char* name) {
  check_device(tensor, like, name);
  check_type(tensor, ScalarType::Float, name, "float32");
  STD_TORCH_CHECK(tensor.numel() == 1, name, " must be one number");
  return static_cast<const float*>(tensor.data_ptr());
}

void adamw_(const Tensors& parameters, const Tensors& gradients, const Tensors& exp_avgs, const Tensors& exp_avg_sqs,
            const Tensors& copies, const Tensor& learning_rate, const Tensor& step, const Tensor& gradient_scale, double beta1,
            double beta2, double epsilon, double weight_decay) {
  if (parameters.empty()) return;
  check_list(parameters, parameters, ScalarType::Float, "parameters", "float32");
  check_list(exp_avgs, parameters, ScalarType::Float, "exp_avgs", "float32");
  check_list(exp_avg_sqs, parameters, ScalarType::Float, "exp_avg_sqs", "float32");
  STD_TORCH_CHECK(!gradients.empty(), "gradients must have one tensor a parameter");
  const Dtype gradient_dtype = dtype_of(gradients[0], "gradients");
  check_list(gradients, parameters, gradients[0].scalar_type(), "gradients", "all float32 or all bfloat16");
  if (!copies.empty()) check_list(copies, parameters, ScalarType::BFloat16, "copies", "bfloat16");
  std::vector<AdamwTensor> tensors(parameters.size());
  for (size_t index = 0; index < tensors.size(); ++index) {
    tensors[index] = {static_cast<float*>(parameters[index].data_ptr()),
                      gradients[index].data_ptr(),
                      static_cast<float*>(exp_avgs[index].data_ptr()),
                      static_cast<float*>(exp_avg_sqs[index].data_ptr()),
                      copies.empty() ? nullptr : copies[index].data_ptr(),
                      parameters[index].numel()};
  }
  const Adamw arguments{
      .tensors = tensors.data(),
      .num_tensors = static_cast<int64_t>(tensors.size()),
      .learning_rate = number(learning_rate, parameters[0], "learning_rate"),
      .step = number(step, parameters[0], "step"),
      .gradient_scale = number(gradient_scale, parameters[0], "gradient_scale"),
      .beta1 = beta1,
      .beta2 = beta2,
      .epsilon = static_cast<float>(epsilon),
      .weight_decay = static_cast<float>(weight_decay),
      .gradient_dtype = gradient_dtype,
  };
  run<Adamw>(parameters[0], MEGATRON_ASTRO_LAUNCHERS_OF(adamw), arguments);
}

Tensor squared_norm(const Tensors& tensors) {
  STD_TORCH_CHECK(!tensors.empty(), "there is no tensor to take the norm of");
  std::vector<SquaredNormTensor> described(tensors.size());
  int64_t num_chunks = 0;
  for (size_t index = 0; index < tensors.size(); ++index) {
    check_contiguous(tensors[index], "tensors");
    check_device(tensors[index], tensors[0], "tensors");
    check_type(tensors[index], tensors[0].scalar_type(), "tensors", "all of one number format");
    described[index] = {tensors[index].data_ptr(), tensors[index].numel()};
    num_chunks += (described[index].size + SQUARED_NORM_CHUNK - 1) / SQUARED_NORM_CHUNK;
  }
  const Tensor result = torch::stable::new_empty(tensors[0], {}, ScalarType::Double);
  const Tensor partials = torch::stable::new_empty(tensors[0], {num_chunks}, ScalarType::Double);
  const SquaredNorm arguments{
      .tensors = described.data(),
      .num_tensors = static_cast<int64_t>(described.size()),
      .result = static_cast<double*>(result.data_ptr()),
      .partials = static_cast<double*>(partials.data_ptr()),
      .dtype = dtype_of(tensors[0], "tensors"),
  };
  run<SquaredNorm>(tensors[0], MEGATRON_ASTRO_LAUNCHERS_OF(squared_norm), arguments);
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(MEGATRON_ASTRO_LIBRARY, library) {
  library.def(
      "adamw_(Tensor(a!)[] parameters, Tensor[] gradients, Tensor(b!)[] exp_avgs, Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] copies,"
      " Tensor learning_rate, Tensor step, Tensor gradient_scale, float beta1, float beta2, float epsilon, float weight_decay) -> ()");
  library.def("squared_norm(Tensor[] tensors) -> Tensor");
}

MEGATRON_ASTRO_IMPLEMENT(  //
    library.impl("adamw_", TORCH_BOX(&adamw_)); library.impl("squared_norm", TORCH_BOX(&squared_norm));)

}  // namespace megatron_astro::ops

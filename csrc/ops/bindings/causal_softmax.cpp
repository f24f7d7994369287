#include "../causal_softmax.h"

#include "tensors.h"

namespace megatron_astro::ops {
namespace {

struct Shape {
  int64_t matrices, queries, keys;
};

Shape check_scores(const Tensor& scores, const char* name) {
  check_contiguous(scores, name);
  STD_TORCH_CHECK(scores.dim() >= 2, name, " must be [..., queries, keys]");
  const int64_t queries = scores.size(scores.dim() - 2), keys = scores.size(scores.dim() - 1);
  STD_TORCH_CHECK(keys >= queries, name, " has ", queries, " queries and only ", keys, " keys: the first queries would see none");
  return {queries > 0 ? rows_of(scores) / queries : 0, queries, keys};
}

Tensor causal_softmax(const Tensor& scores, double scale) {
  const Shape shape = check_scores(scores, "scores");
  const Tensor probabilities = torch::stable::empty_like(scores);
  const CausalSoftmaxForward arguments{
      .scores = scores.data_ptr(),
      .probabilities = probabilities.data_ptr(),
      .matrices = shape.matrices,
      .queries = shape.queries,
      .keys = shape.keys,
      .scale = static_cast<float>(scale),
      .dtype = dtype_of(scores, "scores"),
  };
  if (scores.numel() > 0) run<CausalSoftmaxForward>(scores, MEGATRON_ASTRO_LAUNCHERS_OF(causal_softmax_forward), arguments);
  return probabilities;
}

Tensor causal_softmax_backward(const Tensor& grad_probabilities, const Tensor& probabilities, double scale) {
  const Shape shape = check_scores(probabilities, "probabilities");
  check_like(grad_probabilities, probabilities, "grad_probabilities");
  const Tensor grad_scores = torch::stable::empty_like(probabilities);
  const CausalSoftmaxBackward arguments{
      .grad_probabilities = grad_probabilities.data_ptr(),
      .probabilities = probabilities.data_ptr(),
      .grad_scores = grad_scores.data_ptr(),
      .matrices = shape.matrices,
      .queries = shape.queries,
      .keys = shape.keys,
      .scale = static_cast<float>(scale),
      .dtype = dtype_of(probabilities, "probabilities"),
  };
  if (probabilities.numel() > 0) run<CausalSoftmaxBackward>(probabilities, MEGATRON_ASTRO_LAUNCHERS_OF(causal_softmax_backward), arguments);
  return grad_scores;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(MEGATRON_ASTRO_LIBRARY, library) {
  library.def("causal_softmax(Tensor scores, float scale) -> Tensor");
  library.def("causal_softmax_backward(Tensor grad_probabilities, Tensor probabilities, float scale) -> Tensor");
}

MEGATRON_ASTRO_IMPLEMENT(  //
    library.impl("causal_softmax", TORCH_BOX(&causal_softmax));
    library.impl("causal_softmax_backward", TORCH_BOX(&causal_softmax_backward));)

}  // namespace megatron_astro::ops

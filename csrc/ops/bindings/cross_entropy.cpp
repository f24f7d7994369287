#include "../cross_entropy.h"

#include "tensors.h"

namespace megatron_astro::ops {
namespace {

void check_rows(const Tensor& logits, const Tensor& labels) {
  check_contiguous(logits, "logits");
  check_contiguous(labels, "labels");
  check_device(labels, logits, "labels");
  check_type(labels, ScalarType::Long, "labels", "int64");
  STD_TORCH_CHECK(logits.dim() == 2 && logits.size(1) > 0, "logits must be [rows, vocabulary], the vocabulary not empty");
  STD_TORCH_CHECK(labels.dim() == 1 && labels.size(0) == logits.size(0), "labels must be [rows]");
}

const float* row_statistic(const Tensor& tensor, const Tensor& logits, const char* name) {
  check_contiguous(tensor, name);
  check_device(tensor, logits, name);
  check_type(tensor, ScalarType::Float, name, "float32");
  STD_TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == logits.size(0), name, " must be [rows]");
  return static_cast<const float*>(tensor.data_ptr());
}

Tensor cross_entropy_statistics(const Tensor& logits, const Tensor& labels, int64_t first_label, int64_t ignored_label) {
  check_rows(logits, labels);
  const int64_t rows = logits.size(0);
  const Tensor statistics = new_float32(logits, {3, rows});
  const CrossEntropyStatistics arguments{
      .logits = logits.data_ptr(),
      .labels = static_cast<const int64_t*>(labels.data_ptr()),
      .statistics = static_cast<float*>(statistics.data_ptr()),
      .rows = rows,
      .columns = logits.size(1),
      .first_label = first_label,
      .ignored_label = ignored_label,
      .dtype = dtype_of(logits, "logits"),
  };
  if (rows > 0) run<CrossEntropyStatistics>(logits, MEGATRON_ASTRO_LAUNCHERS_OF(cross_entropy_statistics), arguments);
  return statistics;
}

void cross_entropy_gradient_(const Tensor& logits, const Tensor& labels, const Tensor& maximum, const Tensor& sum,
                             const Tensor& grad_losses, int64_t first_label, int64_t ignored_label) {
  check_rows(logits, labels);
  const CrossEntropyGradient arguments{
      .logits = logits.data_ptr(),
      .labels = static_cast<const int64_t*>(labels.data_ptr()),
      .maximum = row_statistic(maximum, logits, "maximum"),
      .sum = row_statistic(sum, logits, "sum"),
      .grad_losses = row_statistic(grad_losses, logits, "grad_losses"),
      .rows = logits.size(0),
      .columns = logits.size(1),
      .first_label = first_label,
      .ignored_label = ignored_label,
      .dtype = dtype_of(logits, "logits"),
  };
  if (arguments.rows > 0) run<CrossEntropyGradient>(logits, MEGATRON_ASTRO_LAUNCHERS_OF(cross_entropy_gradient), arguments);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(MEGATRON_ASTRO_LIBRARY, library) {
  library.def("cross_entropy_statistics(Tensor logits, Tensor labels, int first_label, int ignored_label) -> Tensor");
  library.def(
      "cross_entropy_gradient_(Tensor(a!) logits, Tensor labels, Tensor maximum, Tensor sum, Tensor grad_losses, int first_label,"
      " int ignored_label) -> ()");
}

MEGATRON_ASTRO_IMPLEMENT(  //
    library.impl("cross_entropy_statistics", TORCH_BOX(&cross_entropy_statistics));
    library.impl("cross_entropy_gradient_", TORCH_BOX(&cross_entropy_gradient_));)

}  // namespace megatron_astro::ops

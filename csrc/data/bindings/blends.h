// Blends of datasets.
#pragma once

#include <algorithm>

#include "../blending.h"
#include "arrays.h"

namespace megatron_astro {

namespace {

std::unique_ptr<Blend> proportional_blend(const Array<int64_t>& weights) {
  const auto weight_view = view(weights, "weights");
  return std::make_unique<ProportionalBlend>(std::vector<int64_t>(weight_view.begin(), weight_view.end()));
}

std::unique_ptr<Blend> greedy_blend(const Array<int16_t>& datasets, const Array<int64_t>& samples, int64_t num_datasets) {
  return std::make_unique<Keeping<GreedyBlend>>(std::vector<py::object>{datasets, samples}, view(datasets, "datasets"), view(samples, "samples"), num_datasets);
}

py::tuple greedy_indices(const Array<double>& weights, int64_t num_samples) {
  const auto weight_view = view(weights, "weights");
  GreedyIndices built = without_gil([&] { return build_greedy_blend(weight_view, num_samples); });
  return py::make_tuple(to_array(std::move(built.datasets)), to_array(std::move(built.samples)));
}

py::array locate_draws(const Blend& blend, int64_t first, int64_t count) {
  return to_rows(without_gil([&] {
    std::vector<Draw> draws;
    draws.reserve(allocation(checked_product(std::max<int64_t>(count, 0), sizeof(Draw))) / sizeof(Draw));
    blend.locate(first, count, draws);
    return draws;
  }));
}

}  // namespace

inline void bind_blends(py::module_& module) {
  py::class_<Blend>(module, "Blend").def("locate", &locate_draws, py::arg("first"), py::arg("count"));
  module.def("proportional_blend", &proportional_blend, py::arg("weights").noconvert());
  module.def("greedy_blend", &greedy_blend, py::arg("datasets").noconvert(), py::arg("samples").noconvert(), py::arg("num_datasets"));
  module.def("build_greedy_blend", &greedy_indices, py::arg("weights").noconvert(), py::arg("num_samples"));
}

}  // namespace megatron_astro

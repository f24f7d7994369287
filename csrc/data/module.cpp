// megatron_astro._data: numpy arrays in, numpy arrays out. Arrays are taken as they are (noconvert): a wrong dtype or a strided view
// is a TypeError, never a silent copy. The GIL is released while an index is built.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

#include "../checks.h"
#include "indices.h"

namespace py = pybind11;
namespace ma = megatron_astro;

void register_texts(py::module_& module);  // text_bindings.cpp

namespace {

template <typename Item>
using Array = py::array_t<Item, py::array::c_style>;

template <typename Item>
std::span<const Item> view(const Array<Item>& array, const char* name) {
  ma::require(array.ndim() == 1, name, " has ", array.ndim(), " dimensions; give a 1-D array");
  const auto address = reinterpret_cast<std::uintptr_t>(array.data());
  ma::require(address % alignof(Item) == 0, name, " is not aligned to ", alignof(Item), " bytes; copy it first");
  return {array.data(), static_cast<std::size_t>(array.size())};
}

// Hand a vector's memory to numpy without copying it.
py::array to_array(ma::Index&& values, std::vector<py::ssize_t> shape) {
  auto owned = std::make_unique<ma::Index>(std::move(values));
  const int64_t* data = owned->data();
  const py::capsule owner(owned.get(), [](void* pointer) { delete static_cast<ma::Index*>(pointer); });
  owned.release();
  return py::array_t<int64_t>(std::move(shape), data, owner);
}

py::array to_array(ma::Index&& values) {
  const auto size = static_cast<py::ssize_t>(values.size());
  return to_array(std::move(values), {size});
}

py::array to_rows(ma::Index&& values) {
  const auto num_rows = static_cast<py::ssize_t>(values.size() / 2);
  return to_array(std::move(values), {num_rows, 2});
}

template <typename Build>
auto without_gil(Build build) {
  const py::gil_scoped_release release;
  return build();
}

template <typename Length>
py::array sample_index(const Array<Length>& lengths, const Array<int64_t>& documents, int64_t seq_length) {
  const auto length_view = view(lengths, "lengths");
  const auto document_view = view(documents, "documents");
  return to_rows(without_gil([&] { return ma::build_sample_index<Length>(length_view, document_view, seq_length); }));
}

py::array permutation(int64_t size, uint64_t seed, uint64_t stream) {
  return to_array(without_gil([&] { return ma::build_permutation(size, seed, stream); }));
}

py::array document_index(const Array<int64_t>& documents, int64_t num_epochs, bool separate_final_epoch, uint32_t seed) {
  const auto document_view = view(documents, "documents");
  return to_array(without_gil([&] { return ma::build_document_index(document_view, num_epochs, separate_final_epoch, seed); }));
}

py::array shuffle_index(int64_t num_samples, int64_t total_size, uint32_t seed) {
  return to_array(without_gil([&] { return ma::build_shuffle_index(num_samples, total_size, seed); }));
}

py::tuple exact_indices(const Array<int32_t>& lengths, const Array<int64_t>& documents, int64_t num_samples, int64_t seq_length,
                        uint32_t seed) {
  const auto length_view = view(lengths, "lengths");
  const auto document_view = view(documents, "documents");
  ma::ExactIndices built =
      without_gil([&] { return ma::build_exact_indices(length_view, document_view, num_samples, seq_length, seed); });
  return py::make_tuple(to_array(std::move(built.documents)), to_rows(std::move(built.samples)), to_array(std::move(built.shuffle)));
}

py::tuple to_tuple(ma::Blend&& blend) {
  return py::make_tuple(to_array(std::move(blend.datasets)), to_array(std::move(blend.samples)));
}

py::tuple blending_index(const Array<double>& weights, int64_t num_samples) {
  const auto weight_view = view(weights, "weights");
  return to_tuple(without_gil([&] { return ma::build_blending_index(weight_view, num_samples); }));
}

py::tuple exhaustive_blending_index(const Array<int64_t>& sizes) {
  const auto size_view = view(sizes, "sizes");
  return to_tuple(without_gil([&] { return ma::build_exhaustive_blending_index(size_view); }));
}

}  // namespace

PYBIND11_MODULE(_data, module) {
  module.doc() = "Sample, document, shuffle and blending indices in 64-bit integers; signatures and meaning in _data.pyi.";
  const auto lengths = py::arg("lengths").noconvert();
  const auto documents = py::arg("documents").noconvert();
  module.def("build_sample_index", &sample_index<int32_t>, lengths, documents, py::arg("seq_length"));
  module.def("build_sample_index", &sample_index<int64_t>, lengths, documents, py::arg("seq_length"));
  module.def("build_permutation", &permutation, py::arg("size"), py::arg("seed"), py::arg("stream"));
  module.def("build_document_index", &document_index, documents, py::arg("num_epochs"), py::arg("separate_final_epoch"),
             py::arg("seed"));
  module.def("build_shuffle_index", &shuffle_index, py::arg("num_samples"), py::arg("total_size"), py::arg("seed"));
  module.def("build_exact_indices", &exact_indices, lengths, documents, py::arg("num_samples"), py::arg("seq_length"),
             py::arg("seed"));
  module.def("build_blending_index", &blending_index, py::arg("weights").noconvert(), py::arg("num_samples"));
  module.def("build_exhaustive_blending_index", &exhaustive_blending_index, py::arg("sizes").noconvert());
  register_texts(module);
}

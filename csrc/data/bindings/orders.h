// Orders of samples: exact, chunked and flat.
#pragma once

#include "../exact.h"
#include "../order.h"
#include "../permutation.h"
#include "arrays.h"

namespace megatron_astro {

namespace {

using Bounds = Array<int64_t>;

Documents documents_of(const Bounds& bounds) { return Documents(view(bounds, "bounds")); }

template <typename Numbers>
py::array rows_of(Numbers&& numbers, py::ssize_t columns) {
  return std::visit([&](auto&& vector) { return to_array(std::move(vector), columns); }, std::forward<Numbers>(numbers));
}

py::tuple exact_indices(const Array<int32_t>& lengths, int64_t num_samples, int64_t seq_length, uint32_t seed) {
  const auto length_view = view(lengths, "lengths");
  ExactIndices built = without_gil([&] { return build_exact_indices(length_view, num_samples, seq_length, seed); });
  return py::make_tuple(to_array(std::move(built.documents)), rows_of(std::move(built.rows), 2), rows_of(std::move(built.shuffle), 0));
}

template <typename Number>
bool take(const py::array& array, const char* name, int num_dimensions, std::span<const Number>& found) {
  if (!py::isinstance<Array<Number>>(array)) return false;
  found = view(py::reinterpret_borrow<Array<Number>>(array), name, num_dimensions);
  return true;
}

template <typename Row>
std::unique_ptr<Order> exact_order_of(std::vector<py::object> kept, Documents documents, int64_t seq_length,
                                      std::span<const int32_t> order, std::span<const Row> rows, const py::array& shuffle) {
  std::span<const uint32_t> short_numbers;
  std::span<const int64_t> numbers;
  if (take(shuffle, "shuffle", 1, short_numbers))
    return std::make_unique<Keeping<ExactOrder<Row, uint32_t>>>(std::move(kept), documents, seq_length, order, rows, short_numbers);
  if (take(shuffle, "shuffle", 1, numbers))
    return std::make_unique<Keeping<ExactOrder<Row, int64_t>>>(std::move(kept), documents, seq_length, order, rows, numbers);
  throw py::type_error("incompatible shuffle: give a contiguous array of uint32 or int64");
}

std::unique_ptr<Order> exact_order(const Bounds& bounds, int64_t seq_length, const Array<int32_t>& documents, const py::array& rows,
                                   const py::array& shuffle) {
  const auto order = view(documents, "documents");
  std::vector<py::object> kept{bounds, documents, rows, shuffle};
  std::span<const int32_t> short_rows;
  std::span<const int64_t> long_rows;
  if (take(rows, "rows", 2, short_rows))
    return exact_order_of(std::move(kept), documents_of(bounds), seq_length, order, short_rows, shuffle);
  if (take(rows, "rows", 2, long_rows))
    return exact_order_of(std::move(kept), documents_of(bounds), seq_length, order, long_rows, shuffle);
  throw py::type_error("incompatible rows: give a contiguous array of int32 or int64");
}

std::unique_ptr<Order> chunked_order(const Bounds& bounds, int64_t seq_length, int64_t chunk_documents, uint64_t seed, uint64_t stream) {
  return std::make_unique<Keeping<ChunkedOrder>>(std::vector<py::object>{bounds}, documents_of(bounds), seq_length, chunk_documents, seed,
                                                 stream);
}

std::unique_ptr<Order> flat_order(const Bounds& bounds, int64_t seq_length) {
  return std::make_unique<Keeping<FlatOrder>>(std::vector<py::object>{bounds}, documents_of(bounds), seq_length);
}

py::array permutation(int64_t size, uint64_t seed, uint64_t stream) {
  require(size >= 0, "size is ", size, "; it cannot be negative");
  return to_array(without_gil([&] {
    std::vector<int64_t> places(allocation(size));
    const KeyedPermutation permuted(size, Key::of_seed(seed).with(stream));
    for (int64_t place = 0; place < size; ++place) places[as_size(place)] = permuted(place);
    return places;
  }));
}

py::array locate_sample(const Order& order, int64_t sample) {
  require(sample >= 0, "sample is ", sample, "; it cannot be negative");
  return to_rows(without_gil([&] {
    Pieces pieces;
    order.locate(sample, pieces);
    return pieces;
  }));
}

}  // namespace

inline void bind_orders(py::module_& module) {
  py::class_<Order>(module, "Order")
      .def("locate", &locate_sample, py::arg("sample"))
      .def_property_readonly("num_samples", &Order::num_samples);
  const auto bounds = py::arg("bounds").noconvert();
  const auto seq_length = py::arg("seq_length");
  module.def("flat_order", &flat_order, bounds, seq_length);
  module.def("chunked_order", &chunked_order, bounds, seq_length, py::arg("chunk_documents"), py::arg("seed"), py::arg("stream"));
  module.def("exact_order", &exact_order, bounds, seq_length, py::arg("documents").noconvert(), py::arg("rows").noconvert(),
             py::arg("shuffle").noconvert());
  module.def("permutation", &permutation, py::arg("size"), py::arg("seed"), py::arg("stream"));
  module.def("build_exact_indices", &exact_indices, py::arg("lengths").noconvert(), py::arg("num_samples"), seq_length,
             py::arg("seed"));
}

}  // namespace megatron_astro

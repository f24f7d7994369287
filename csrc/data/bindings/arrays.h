// numpy arrays in and out. Arrays are taken as they are (noconvert): a wrong dtype or a strided view is a TypeError, never a silent copy.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "../../checks.h"

namespace megatron_astro {

namespace py = pybind11;

template <typename Item>
using Array = py::array_t<Item, py::array::c_style>;

// All items of an array with the given number of dimensions.
template <typename Item>
std::span<const Item> view(const Array<Item>& array, const char* name, int num_dimensions = 1) {
  require(array.ndim() == num_dimensions, name, " has ", array.ndim(), " dimensions; give a ", num_dimensions, "-D array");
  const auto address = reinterpret_cast<std::uintptr_t>(array.data());
  require(address % alignof(Item) == 0, name, " is not aligned to ", alignof(Item), " bytes; copy it first");
  return {array.data(), static_cast<std::size_t>(array.size())};
}

// Hand a vector's memory to numpy without copying it, as rows of `columns` numbers; 0: one dimension.
template <typename Row, typename Number = Row>
py::array to_array(std::vector<Row>&& values, py::ssize_t columns = 0) {
  auto owned = std::make_unique<std::vector<Row>>(std::move(values));
  const auto* data = reinterpret_cast<const Number*>(owned->data());
  const auto size = static_cast<py::ssize_t>(owned->size() * (sizeof(Row) / sizeof(Number)));
  const py::capsule owner(owned.get(), [](void* pointer) { delete static_cast<std::vector<Row>*>(pointer); });
  owned.release();
  if (columns == 0) return py::array_t<Number>({size}, data, owner);
  return py::array_t<Number>({size / columns, columns}, data, owner);
}

// Structures of int64 numbers, one a row.
template <typename Row>
py::array to_rows(std::vector<Row>&& rows) {
  static_assert(sizeof(Row) % sizeof(int64_t) == 0);
  return to_array<Row, int64_t>(std::move(rows), sizeof(Row) / sizeof(int64_t));
}

// An object together with the arrays whose memory it reads. (pybind11 3.1's keep_alive crashes the interpreter when a call's arguments
// are refused, before there is a result.)
template <typename Object>
class Keeping : public Object {
 public:
  template <typename... Arguments>
  explicit Keeping(std::vector<py::object> kept, Arguments&&... arguments)
      : Object(std::forward<Arguments>(arguments)...), kept_(std::move(kept)) {}

 private:
  std::vector<py::object> kept_;
};

template <typename Build>
auto without_gil(Build build) {
  const py::gil_scoped_release release;
  return build();
}

}  // namespace megatron_astro

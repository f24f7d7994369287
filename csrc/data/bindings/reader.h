// The reader of batches.
#pragma once

#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <tuple>

#include "../reader.h"
#include "arrays.h"

namespace megatron_astro {

namespace {

// Name, ids, order of one dataset.
using DatasetTuple = std::tuple<std::string, py::array, py::object>;

template <typename Id>
bool take(const py::array& ids, std::optional<Ids>& found) {
  if (!py::isinstance<Array<Id>>(ids)) return false;
  found = view(py::reinterpret_borrow<Array<Id>>(ids), "ids");
  return true;
}

Ids ids_of(const py::array& ids) {
  std::optional<Ids> found;
  const bool taken = take<uint8_t>(ids, found) || take<int8_t>(ids, found) || take<uint16_t>(ids, found) || take<int16_t>(ids, found) ||
                     take<int32_t>(ids, found) || take<int64_t>(ids, found);
  if (!taken) throw py::type_error("incompatible ids: give a contiguous array of uint8, int8, uint16, int16, int32 or int64");
  return *found;
}

template <typename Held>
const Held* held_by(const py::object& object, const char* name) {
  const auto* held = object.cast<const Held*>();  // None becomes a null pointer
  if (held == nullptr) throw py::type_error(std::string("incompatible ") + name + ": None");
  return held;
}

// A reader and the Python objects whose memory it reads.
class OwningReader {
 public:
  OwningReader(std::vector<DatasetTuple> datasets, py::object blend, int64_t seq_length, int64_t vocabulary_size)
      : kept_(std::move(datasets)),
        kept_blend_(std::move(blend)),
        reader_(datasets_of(kept_), held_by<Blend>(kept_blend_, "blend"), seq_length, vocabulary_size) {}

  py::array read(int64_t first, Array<int64_t>& ids) const {
    view(ids, "ids", 2);
    require(ids.shape(1) == reader_.sample_tokens(), "ids has rows of ", ids.shape(1), "; a sample has ", reader_.sample_tokens());
    const std::span<int64_t> written(ids.mutable_data(), static_cast<std::size_t>(ids.size()));
    return to_rows(without_gil([&] { return reader_.read(first, written); }));
  }

 private:
  static std::vector<Dataset> datasets_of(const std::vector<DatasetTuple>& tuples) {
    std::vector<Dataset> datasets;
    for (const auto& [name, ids, order] : tuples) datasets.push_back({name, ids_of(ids), held_by<Order>(order, "order")});
    return datasets;
  }

  std::vector<DatasetTuple> kept_;
  py::object kept_blend_;
  SampleReader reader_;
};

}  // namespace

inline void bind_reader(py::module_& module) {
  py::class_<OwningReader>(module, "SampleReader")
      .def(py::init<std::vector<DatasetTuple>, py::object, int64_t, int64_t>(), py::arg("datasets"), py::arg("blend"),
           py::arg("seq_length"), py::arg("vocabulary_size"))
      .def("read", &OwningReader::read, py::arg("first"), py::arg("ids").noconvert());
}

}  // namespace megatron_astro

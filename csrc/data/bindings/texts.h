// Texts and files: the encoder, checksums, gathering documents.
#pragma once

#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "../crc32c.h"
#include "../encoder.h"
#include "arrays.h"

namespace megatron_astro {

namespace {

py::array crc32c_of_blocks(const Array<uint8_t>& bytes, int64_t block_size, const std::string& implementation) {
  const auto byte_view = view(bytes, "bytes");
  return to_array(without_gil(
      [&] { return crc32c_blocks(byte_view, block_size, implementation.empty() ? crc32c_implementations().front() : implementation); }));
}

// One span of bytes after another, from several sources; every span is checked against its source before the first is copied.
py::array_t<uint8_t> gather_spans(const std::vector<Array<uint8_t>>& sources, const Array<int64_t>& numbers, const Array<int64_t>& starts,
                                  const Array<int64_t>& sizes) {
  const auto number = view(numbers, "numbers"), start = view(starts, "starts"), size = view(sizes, "sizes");
  require(number.size() == start.size() && number.size() == size.size(), "numbers, starts and sizes differ in length");
  std::vector<std::span<const uint8_t>> from;
  for (const auto& source : sources) from.push_back(view(source, "a source"));
  int64_t total = 0;
  for (std::size_t at = 0; at < number.size(); ++at) {
    require(0 <= number[at] && number[at] < length_of(from), "span ", at, " is in source ", number[at], " of ", from.size());
    const int64_t available = length_of(from[as_size(number[at])]);
    require(0 <= start[at] && start[at] <= available && 0 <= size[at] && size[at] <= available - start[at], "span ", at, " runs from ",
                start[at], " for ", size[at], " bytes, but its source has ", available);
    total = checked_add(total, size[at]);
  }
  py::array_t<uint8_t> gathered(static_cast<py::ssize_t>(total));
  uint8_t* to = gathered.mutable_data();
  const py::gil_scoped_release release;
  for (std::size_t at = 0; at < number.size(); ++at) {
    if (size[at] == 0) continue;
    std::memcpy(to, from[as_size(number[at])].data() + start[at], as_size(size[at]));
    to += size[at];
  }
  return gathered;
}

std::array<int32_t, 256> byte_table(const Array<int32_t>& byte_ids, int32_t least) {
  const auto ids = view(byte_ids, "byte_ids");
  require(ids.size() == 256 && std::all_of(ids.begin(), ids.end(), [&](int32_t id) { return id >= least; }),
              "byte_ids must hold 256 ids, none below ", least);
  std::array<int32_t, 256> table{};
  std::copy(ids.begin(), ids.end(), table.begin());
  return table;
}

Merges merges_of(const std::vector<Array<int32_t>>& merges) {
  require(merges.size() == 4, "merges holds ", merges.size(), " arrays; give lefts, rights, ranks and results");
  return {view(merges[0], "lefts"), view(merges[1], "rights"), view(merges[2], "ranks"), view(merges[3], "results")};
}

NamedIds named(const std::vector<std::pair<py::bytes, int32_t>>& tokens) {
  NamedIds ids;
  for (const auto& [text, id] : tokens) ids.emplace_back(std::string(text), id);
  return ids;
}

using Added = std::vector<std::pair<py::bytes, int32_t>>;

AddedTokens added_of(const Added& tokens, const std::vector<py::bytes>& refused) {
  return {named(tokens), std::vector<std::string>(refused.begin(), refused.end())};
}

std::unique_ptr<Encoder> byte_level_encoder(const std::vector<Array<int32_t>>& merges, const Array<int32_t>& byte_ids,
                                                const Added& whole_words, const Added& added, const std::vector<py::bytes>& refused,
                                                const std::string& family, bool digits_apart, int64_t longest_number,
                                                const Array<uint8_t>& classes) {
  require(family == "gpt2" || family == "gpt4", "family is ", family, "; it must be gpt2 or gpt4");
  const auto class_view = view(classes, "classes");
  const NamedIds words = named(whole_words);
  ByteLevel byte_level{
      Splitter(family == "gpt4" ? SplitFamily::gpt4 : SplitFamily::gpt2, digits_apart, longest_number,
                   std::vector<uint8_t>(class_view.begin(), class_view.end())),
      byte_table(byte_ids, ByteLevel::kNoToken), {words.begin(), words.end()}};
  return std::make_unique<Encoder>(merges_of(merges), added_of(added, refused), std::move(byte_level), std::nullopt);
}

std::unique_ptr<Encoder> character_encoder(const std::vector<Array<int32_t>>& merges, const Array<int32_t>& byte_ids,
                                               const Array<int32_t>& character_ids, const Added& added,
                                               const std::vector<py::bytes>& refused, int64_t prefix) {
  require(0 <= prefix && prefix <= 3, "prefix is ", prefix, "; it must lie between 0 and 3");
  const auto ids = view(character_ids, "character_ids");
  Characters characters{static_cast<Prefix>(prefix), {ids.begin(), ids.end()}, byte_table(byte_ids, 0)};
  return std::make_unique<Encoder>(merges_of(merges), added_of(added, refused), std::nullopt, std::move(characters));
}

// All ids end to end, and how many each text has: -1 for a text that the encoder refuses.
py::tuple encode_batch(Encoder& encoder, const std::vector<py::str>& texts) {
  Symbols ids;
  std::vector<int64_t> lengths;
  for (const auto& text : texts) {
    py::ssize_t size = 0;
    const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (bytes == nullptr) throw py::error_already_set();
    const std::size_t before = ids.size();
    const bool done = encoder.encode({bytes, static_cast<std::size_t>(size)}, ids);
    lengths.push_back(done ? static_cast<int64_t>(ids.size() - before) : -1);
  }
  return py::make_tuple(to_array(std::move(ids)), to_array(std::move(lengths)));
}

}  // namespace

inline void bind_texts(py::module_& module) {
  module.def("crc32c_implementations", &crc32c_implementations);
  module.def("crc32c_blocks", &crc32c_of_blocks, py::arg("bytes").noconvert(), py::arg("block_size"), py::arg("implementation") = "");
  module.def("gather_spans", &gather_spans, py::arg("sources"), py::arg("numbers").noconvert(), py::arg("starts").noconvert(),
             py::arg("sizes").noconvert());
  py::class_<Encoder>(module, "Encoder").def("encode_batch", &encode_batch, py::arg("texts"));
  module.def("byte_level_encoder", &byte_level_encoder, py::arg("merges"), py::arg("byte_ids").noconvert(), py::arg("whole_words"),
             py::arg("added"), py::arg("refused"), py::arg("family"), py::arg("digits_apart"), py::arg("longest_number"),
             py::arg("classes").noconvert());
  module.def("character_encoder", &character_encoder, py::arg("merges"), py::arg("byte_ids").noconvert(),
             py::arg("character_ids").noconvert(), py::arg("added"), py::arg("refused"), py::arg("prefix"));
}

}  // namespace megatron_astro

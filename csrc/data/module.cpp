// megatron_astro._data. All bindings are one compilation: pybind11 costs several seconds in each.
#include "bindings/blends.h"
#include "bindings/orders.h"
#include "bindings/reader.h"
#include "bindings/texts.h"

PYBIND11_MODULE(_data, module) {
  module.doc() = "Orders of samples, blends of datasets, the reader of batches, checksums and encoders; signatures and meaning in _data.pyi.";
  megatron_astro::bind_orders(module);
  megatron_astro::bind_blends(module);
  megatron_astro::bind_reader(module);
  megatron_astro::bind_texts(module);
}

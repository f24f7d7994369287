#include "bindings.h"

PYBIND11_MODULE(_data, module) {
  module.doc() = "Orders of samples, blends of datasets, and the reader of batches; signatures and meaning in _data.pyi.";
  megatron_astro::bind_orders(module);
  megatron_astro::bind_blends(module);
  megatron_astro::bind_reader(module);
}

// What each file of bindings adds to megatron_astro._data.
#pragma once

#include <pybind11/pybind11.h>

namespace megatron_astro {

void bind_orders(pybind11::module_& module);
void bind_blends(pybind11::module_& module);
void bind_reader(pybind11::module_& module);
void bind_texts(pybind11::module_& module);

}  // namespace megatron_astro

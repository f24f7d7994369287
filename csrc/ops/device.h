// Questions about CUDA that only a .cu file can answer (device.cu); a build without CUDA has none of them.
#pragma once

namespace megatron_astro::ops::cuda {

int device_count(int* count);
int device(int index, char* name, int name_bytes, int* capability);
const char* error_text(int code);

}  // namespace megatron_astro::ops::cuda

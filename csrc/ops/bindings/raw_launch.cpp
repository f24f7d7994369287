#include "../raw_launch.h"

#include <cstring>

#include "../adamw.h"
#include "../cross_entropy.h"
#include "../instruction_set.h"
#include "../rms_norm.h"
#include "../swiglu.h"

namespace megatron_astro::ops {
namespace {

struct Entry {
  const char* name;
  void (*run)(InstructionSet set, const void* arguments);
};

template <typename Arguments, void (*Baseline)(const Arguments&), void (*Avx2)(const Arguments&), void (*Avx512)(const Arguments&)>
void run(InstructionSet set, const void* arguments) {
  constexpr void (*LAUNCHERS[])(const Arguments&) = {Baseline, Avx2, Avx512};
  LAUNCHERS[static_cast<int>(set)](*static_cast<const Arguments*>(arguments));
}

#define MEGATRON_ASTRO_ENTRY(name, Arguments) \
  { #name, run<Arguments, baseline::name, avx2::name, avx512::name> }

constexpr Entry ENTRIES[] = {
    MEGATRON_ASTRO_ENTRY(rms_norm_forward, RmsNormForward),
    MEGATRON_ASTRO_ENTRY(swiglu_forward, SwigluForward),
    MEGATRON_ASTRO_ENTRY(swiglu_backward, SwigluBackward),
    MEGATRON_ASTRO_ENTRY(cross_entropy_gradient, CrossEntropyGradient),
    MEGATRON_ASTRO_ENTRY(adamw, Adamw),
};

}  // namespace
}  // namespace megatron_astro::ops

int megatron_astro_launch_on_cpu(const char* launcher, const void* arguments) {
  using namespace megatron_astro::ops;
  for (const Entry& entry : ENTRIES) {
    if (std::strcmp(launcher, entry.name) == 0) {
      entry.run(instruction_set(), arguments);
      return 0;
    }
  }
  return -1;
}

#include "instruction_set.h"

#include <atomic>

namespace megatron_astro::ops {

namespace {

std::atomic<InstructionSet>& in_use() {
  static std::atomic<InstructionSet> value{best_instruction_set()};
  return value;
}

}  // namespace

InstructionSet best_instruction_set() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx2 && avx512) return InstructionSet::avx512;
  if (avx2) return InstructionSet::avx2;
#endif
  return InstructionSet::baseline;
}

InstructionSet instruction_set() { return in_use().load(std::memory_order_relaxed); }

void use_instruction_set(InstructionSet chosen) { in_use().store(chosen, std::memory_order_relaxed); }

}  // namespace megatron_astro::ops

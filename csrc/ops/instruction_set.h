// Which of the three compilations of the CPU kernels runs in this process.
#pragma once

namespace megatron_astro::ops {

enum class InstructionSet : int { baseline = 0, avx2 = 1, avx512 = 2 };

constexpr const char* INSTRUCTION_SET_NAMES[] = {"baseline", "avx2", "avx512"};

// The best this processor and operating system can run.
InstructionSet best_instruction_set();

// The one in use: the best, unless a test chose another.
InstructionSet instruction_set();

// Use another from now on, in this process; the caller has checked that it is not above the best.
void use_instruction_set(InstructionSet chosen);

}  // namespace megatron_astro::ops

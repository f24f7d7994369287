#include "crc32c.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "../checks.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#define CRC_TARGET __attribute__((target("sse4.2")))
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#define CRC_TARGET __attribute__((target("+crc")))
#endif

namespace megatron_astro {

namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected
constexpr uint32_t kOnes = 0xFFFFFFFF;
constexpr std::size_t kLanes = 3;  // an instruction takes three cycles and a new one may start each cycle

using Bytes = std::span<const uint8_t>;
using Table = std::array<uint32_t, 256>;

constexpr Table make_table() {
  Table table{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
    table[byte] = value;
  }
  return table;
}

constexpr Table kTable = make_table();

uint32_t crc_by_table(Bytes block) {
  uint32_t crc = kOnes;
  for (const uint8_t byte : block) crc = (crc >> 8) ^ kTable[(crc ^ byte) & 0xFF];
  return crc ^ kOnes;
}

#if defined(CRC_TARGET)

#if defined(__x86_64__)
bool has_crc_instructions() { return __builtin_cpu_supports("sse4.2") != 0; }
CRC_TARGET inline uint64_t step8(uint64_t crc, uint64_t word) { return _mm_crc32_u64(crc, word); }
CRC_TARGET inline uint64_t step1(uint64_t crc, uint8_t byte) { return _mm_crc32_u8(static_cast<uint32_t>(crc), byte); }
#else
bool has_crc_instructions() { return (getauxval(AT_HWCAP) & (1UL << 7)) != 0; }  // HWCAP_CRC32
CRC_TARGET inline uint64_t step8(uint64_t crc, uint64_t word) { return __crc32cd(static_cast<uint32_t>(crc), word); }
CRC_TARGET inline uint64_t step1(uint64_t crc, uint8_t byte) { return __crc32cb(static_cast<uint32_t>(crc), byte); }
#endif

inline uint64_t load8(const uint8_t* bytes) {
  uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}

CRC_TARGET uint32_t crc_by_instructions(Bytes block) {
  uint64_t crc = kOnes;
  std::size_t at = 0;
  for (; at + 8 <= block.size(); at += 8) crc = step8(crc, load8(block.data() + at));
  for (; at < block.size(); ++at) crc = step1(crc, block[at]);
  return static_cast<uint32_t>(crc) ^ kOnes;
}

// Three neighbouring blocks, of `size` bytes each (a multiple of 8), side by side.
CRC_TARGET void crc_of_three(const uint8_t* bytes, std::size_t size, uint32_t* results) {
  uint64_t first = kOnes, second = kOnes, third = kOnes;
  for (std::size_t at = 0; at < size; at += 8) {
    first = step8(first, load8(bytes + at));
    second = step8(second, load8(bytes + size + at));
    third = step8(third, load8(bytes + 2 * size + at));
  }
  results[0] = static_cast<uint32_t>(first) ^ kOnes;
  results[1] = static_cast<uint32_t>(second) ^ kOnes;
  results[2] = static_cast<uint32_t>(third) ^ kOnes;
}

#else
bool has_crc_instructions() { return false; }
uint32_t crc_by_instructions(Bytes block) { return crc_by_table(block); }
void crc_of_three(const uint8_t*, std::size_t, uint32_t*) {}
#endif

}  // namespace

std::vector<std::string> crc32c_implementations() {
  if (has_crc_instructions()) return {"instructions", "table"};
  return {"table"};
}

std::vector<uint32_t> crc32c_blocks(Bytes bytes, int64_t block_size, const std::string& implementation) {
  require(block_size > 0 && block_size % 8 == 0, "block_size is ", block_size, "; it must be a positive multiple of 8");
  const auto known = crc32c_implementations();
  require(std::find(known.begin(), known.end(), implementation) != known.end(), "this machine has no CRC-32C by ", implementation);
  const bool by_instructions = implementation != "table";
  const std::size_t size = as_size(block_size);
  const std::size_t num_blocks = bytes.size() / size + (bytes.size() % size != 0 ? 1 : 0);
  std::vector<uint32_t> crcs(num_blocks);
  std::size_t number = 0;
  if (by_instructions) {
    for (; (number + kLanes) * size <= bytes.size(); number += kLanes) crc_of_three(bytes.data() + number * size, size, &crcs[number]);
  }
  for (; number < num_blocks; ++number) {
    const Bytes block = bytes.subspan(number * size, std::min(size, bytes.size() - number * size));
    crcs[number] = by_instructions ? crc_by_instructions(block) : crc_by_table(block);
  }
  return crcs;
}

}  // namespace megatron_astro

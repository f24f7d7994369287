// CRC-32C (Castagnoli; RFC 3720 appendix B.4) of every block of a run of bytes: what the sidecar of a dataset holds.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace megatron_astro {

// The implementations this processor can run, fastest first; the last is "table", which any can.
std::vector<std::string> crc32c_implementations();
std::vector<uint32_t> crc32c_blocks(std::span<const uint8_t> bytes, int64_t block_size, const std::string& implementation);

}  // namespace megatron_astro

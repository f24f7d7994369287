// Checks for everything that crosses from Python into C++: they throw, they never assert (Python builds define NDEBUG).
// pybind11 turns std::invalid_argument into ValueError and std::overflow_error into OverflowError; neither needs the GIL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <sstream>
#include <stdexcept>

namespace megatron_astro {

// Throw std::invalid_argument with the parts written one after another, unless the condition holds.
template <typename... Parts>
void require(bool holds, const Parts&... parts) {
  if (holds) [[likely]] return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

inline int64_t checked_add(int64_t left, int64_t right) {
  int64_t sum = 0;
  if (__builtin_add_overflow(left, right, &sum)) throw std::overflow_error("a sum of sizes does not fit 64 bits");
  return sum;
}

inline int64_t checked_product(int64_t left, int64_t right) {
  int64_t product = 0;
  if (__builtin_mul_overflow(left, right, &product)) throw std::overflow_error("a product of sizes does not fit 64 bits");
  return product;
}

// A size or index that the caller has checked to be non-negative.
inline std::size_t as_size(int64_t value) { return static_cast<std::size_t>(value); }

// How many numbers of up to 64 bits to allocate; more than an address space of 2^47 bytes holds is a MemoryError in Python, as it is
// where the allocation itself fails.
inline std::size_t allocation(int64_t numbers) {
  if (numbers > int64_t{1} << 44) throw std::bad_alloc();
  return as_size(numbers);
}

// The length of a container; a container cannot be longer than 2^63 - 1 bytes.
template <typename Container>
int64_t length_of(const Container& container) {
  return static_cast<int64_t>(container.size());
}

}  // namespace megatron_astro

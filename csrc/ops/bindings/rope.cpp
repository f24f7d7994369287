#include "../rope.h"

#include "tensors.h"

namespace megatron_astro::ops {
namespace {

void check_heads(const Tensor& tensor, const Tensor& query, const char* name) {
  STD_TORCH_CHECK(tensor.dim() == 4, name, " must be [sequence, batch, heads, head size]");
  STD_TORCH_CHECK(tensor.stride(3) == 1 || tensor.size(3) == 1, name, "'s last axis is not contiguous; call .contiguous() first");
  STD_TORCH_CHECK(tensor.scalar_type() == query.scalar_type(), name, " has another number format than query");
  STD_TORCH_CHECK(tensor.size(0) == query.size(0) && tensor.size(1) == query.size(1) && tensor.size(3) == query.size(3), name,
                  " must have query's sequence, batch and head size");
  check_device(tensor, query, name);
}

RopeTensor describe(const Tensor& input, const Tensor& output) {
  return {input.data_ptr(),
          output.data_ptr(),
          input.size(2),
          {input.stride(0), input.stride(1), input.stride(2)},
          {output.stride(0), output.stride(1), output.stride(2)}};
}

void turn(const Tensor& query, const Tensor& key, const Tensor& query_out, const Tensor& key_out, const Tensor& inverse_frequencies,
          const std::optional<Tensor>& cu_seqlens, int64_t position_offset, bool backward) {
  check_heads(query, query, "query");
  check_heads(key, query, "key");
  const int64_t head_size = query.size(3);
  STD_TORCH_CHECK(head_size % 2 == 0 && head_size <= ROPE_LARGEST_HEAD, "the head size is ", head_size, "; it must be even and at most ",
                  ROPE_LARGEST_HEAD);
  check_contiguous(inverse_frequencies, "inverse_frequencies");
  check_device(inverse_frequencies, query, "inverse_frequencies");
  check_type(inverse_frequencies, ScalarType::Float, "inverse_frequencies", "float32");
  STD_TORCH_CHECK(inverse_frequencies.numel() == head_size / 2, "inverse_frequencies must have half the head size");
  if (cu_seqlens) {
    check_contiguous(*cu_seqlens, "cu_seqlens");
    check_device(*cu_seqlens, query, "cu_seqlens");
    check_type(*cu_seqlens, ScalarType::Int, "cu_seqlens", "int32");
    STD_TORCH_CHECK(cu_seqlens->dim() == 1 && cu_seqlens->numel() >= 2, "cu_seqlens must be [number of sequences + 1]");
  }
  const Rope arguments{
      .query = describe(query, query_out),
      .key = describe(key, key_out),
      .inverse_frequencies = static_cast<const float*>(inverse_frequencies.data_ptr()),
      .cu_seqlens = cu_seqlens ? static_cast<const int32_t*>(cu_seqlens->data_ptr()) : nullptr,
      .num_sequences = cu_seqlens ? cu_seqlens->numel() - 1 : 1,
      .position_offset = position_offset,
      .sequence = query.size(0),
      .batch = query.size(1),
      .head_size = head_size,
      .backward = backward,
      .dtype = dtype_of(query, "query"),
  };
  if (query.numel() + key.numel() > 0) run<Rope>(query, MEGATRON_ASTRO_LAUNCHERS_OF(rope), arguments);
}

// In place, what lies at two places of a tensor would be turned twice.
void check_own_memory(const Tensor& tensor, const char* name) {
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) {
    STD_TORCH_CHECK(tensor.size(axis) <= 1 || tensor.stride(axis) != 0, name, " repeats its memory along axis ", axis,
                    "; call .contiguous() first");
  }
}

void rope_(const Tensor& query, const Tensor& key, const Tensor& inverse_frequencies, const std::optional<Tensor>& cu_seqlens,
           int64_t position_offset, bool backward) {
  check_own_memory(query, "query");
  check_own_memory(key, "key");
  STD_TORCH_CHECK(query.numel() == 0 || query.data_ptr() != key.data_ptr(), "query and key are the same memory; give a copy of one");
  turn(query, key, query, key, inverse_frequencies, cu_seqlens, position_offset, backward);
}

Tensor new_contiguous(const Tensor& like) {
  return torch::stable::new_empty(like, std::vector<int64_t>(like.sizes().begin(), like.sizes().end()));
}

std::tuple<Tensor, Tensor> rope_out_of_place(const Tensor& query, const Tensor& key, const Tensor& inverse_frequencies,
                                             const std::optional<Tensor>& cu_seqlens, int64_t position_offset, bool backward) {
  const Tensor query_out = new_contiguous(query), key_out = new_contiguous(key);
  turn(query, key, query_out, key_out, inverse_frequencies, cu_seqlens, position_offset, backward);
  return {query_out, key_out};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(MEGATRON_ASTRO_LIBRARY, library) {
  library.def(
      "rope_(Tensor(a!) query, Tensor(b!) key, Tensor inverse_frequencies, Tensor? cu_seqlens, int position_offset, bool backward)"
      " -> ()");
  library.def(
      "rope(Tensor query, Tensor key, Tensor inverse_frequencies, Tensor? cu_seqlens, int position_offset, bool backward)"
      " -> (Tensor query, Tensor key)");
}

MEGATRON_ASTRO_IMPLEMENT(  //
    library.impl("rope_", TORCH_BOX(&rope_)); library.impl("rope", TORCH_BOX(&rope_out_of_place));)

}  // namespace megatron_astro::ops

#include "backends/cpu/bfloat16_gemm.h"

#include <algorithm>
#include <compare>
#include <cstddef>
#include <dnnl.hpp>
#include <map>
#include <type_traits>
#include <unordered_map>
#include <vector>

#include "backends/cpu/bfloat16_pack.h"
#include "backends/cpu/elements.h"
#include "backends/cpu/info.h"
#include "backends/cpu/one_thread.h"
#include "backends/cpu/widened_gemm.h"
#include "core/check.h"
#include "core/memory.h"

// oneDNN's matmul primitive, compiled once for each size and kept by the thread that runs it. It is
// always compiled for one thread: how K is cut, and with it the bits, depends on their number.
namespace regla::cpu {
namespace {

using dnnl::memory;

/// Sizes that a thread keeps; beyond these it begins anew.
constexpr size_t kMostKept = 512;
/// A number of rows of A by which the form of B is chosen, whatever rows then come.
constexpr int64_t kRowsOfForm = 256;

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::stream& stream_of_thread() {
  thread_local dnnl::stream stream(engine());
  return stream;
}

/// What a product is compiled for.
struct Sizes {
  int64_t M, N, K;
  bool transpose_a = false, has_bias = false, to_bfloat16 = false;
  auto operator<=>(const Sizes&) const = default;
};

/// A matrix [rows, columns], or the transposed of one that is stored so.
memory::desc matrix(memory::data_type type, int64_t rows, int64_t columns, bool transposed) {
  return {{rows, columns}, type, transposed ? memory::format_tag::ba : memory::format_tag::ab};
}

/// Version 2 has a description of the operation between, version 3 none.
template <class Matmul = dnnl::matmul>
auto described(const Sizes& s, const memory::desc& b) {
  constexpr auto kNarrow = memory::data_type::bf16, kWide = memory::data_type::f32;
  const memory::desc a = matrix(kNarrow, s.M, s.K, s.transpose_a);
  const memory::desc c = matrix(s.to_bfloat16 ? kNarrow : kWide, s.M, s.N, false);
  const memory::desc bias =
      s.has_bias ? memory::desc({1, s.N}, kWide, memory::format_tag::ab) : memory::desc();
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const OneThread guard;
  using Description = typename Matmul::primitive_desc;
  if constexpr (requires { typename Matmul::desc; }) {
    return Description(typename Matmul::desc(a, b, bias, c), attributes, engine());
  } else {
    return Description(engine(), a, b, bias, c, attributes);
  }
}

/// The form in which a product of these sizes reads B fastest.
const memory::desc& form_of(int64_t N, int64_t K) {
  thread_local std::map<std::pair<int64_t, int64_t>, memory::desc> forms;
  const auto found = forms.find({N, K});
  if (found != forms.end()) return found->second;
  if (forms.size() >= kMostKept) forms.clear();
  const memory::desc any({K, N}, memory::data_type::bf16, memory::format_tag::any);
  const Sizes sizes = {.M = kRowsOfForm, .N = N, .K = K};
  return forms[{N, K}] = described(sizes, any).weights_desc();
}

/// The form that `pack_pairs` gives.
memory::desc pairs_of(int64_t N, int64_t K) {
  static_assert(kPackedRows == 32 && kPackedColumns == 64);
  return {{K, N}, memory::data_type::bf16, memory::format_tag::BA16a64b2a};
}

/// Memory of a thread for what runs on it, for each use its own.
enum Use { kOfPrimitive, kCopyOfA, kTileOfC };
template <Use use>
void* scratch(size_t bytes) {
  thread_local std::vector<std::byte> buffer;
  if (buffer.size() < bytes) buffer.resize(bytes);
  return buffer.data();
}

/// What the calls below throw, as an error of this library.
template <class F>
void run_onednn(F&& f) {
  try {
    f();
  } catch (const dnnl::error& error) {
    if (error.status == dnnl_out_of_memory) throw MemoryError("[matmul] out of memory in oneDNN");
    fail("[matmul] oneDNN refused a product of BF16: ", error.message);
  }
}

/// A primitive with the memory objects that it is called with.
class Compiled {
 public:
  explicit Compiled(const Sizes& sizes) {
    const auto description = described(sizes, form_of(sizes.N, sizes.K));
    primitive_ = dnnl::matmul(description);
    add(DNNL_ARG_SRC, description.src_desc());
    add(DNNL_ARG_WEIGHTS, description.weights_desc());
    if (sizes.has_bias) add(DNNL_ARG_BIAS, description.bias_desc());
    add(DNNL_ARG_DST, description.dst_desc());
    scratch_bytes_ = description.scratchpad_desc().get_size();
    if (scratch_bytes_ > 0) add(DNNL_ARG_SCRATCHPAD, description.scratchpad_desc());
  }

  template <class C>
  void run(const PackedProduct<C>& p) {
    set(DNNL_ARG_SRC, p.a);
    set(DNNL_ARG_WEIGHTS, p.b.data);
    if (p.bias != nullptr) set(DNNL_ARG_BIAS, p.bias);
    set(DNNL_ARG_DST, p.c);
    if (scratch_bytes_ > 0) set(DNNL_ARG_SCRATCHPAD, scratch<kOfPrimitive>(scratch_bytes_));
    const OneThread guard;
    primitive_.execute(stream_of_thread(), arguments_);
  }

 private:
  void add(int argument, const memory::desc& description) {
    arguments_[argument] = memory(description, engine(), nullptr);
  }
  void set(int argument, const void* data) {
    arguments_[argument].set_data_handle(const_cast<void*>(data));
  }

  dnnl::matmul primitive_;
  std::unordered_map<int, memory> arguments_;
  size_t scratch_bytes_ = 0;
};

/// Where rows of A and of C follow each other without a gap: oneDNN is slow with any other.
template <class C>
void multiply_dense(const PackedProduct<C>& p) {
  thread_local std::map<Sizes, Compiled> kept;
  const Sizes sizes = {.M = p.M,
                       .N = p.b.N,
                       .K = p.b.K,
                       .transpose_a = p.transpose_a,
                       .has_bias = p.bias != nullptr,
                       .to_bfloat16 = std::is_same_v<C, BFloat16>};
  auto found = kept.find(sizes);
  if (found == kept.end()) {
    if (kept.size() >= kMostKept) kept.clear();
    found = kept.emplace(sizes, sizes).first;
  }
  found->second.run(p);
}

/// The rows of A as they are stored, without gaps between them.
const BFloat16* dense_rows(int64_t rows, int64_t size, const BFloat16* a, int64_t pitch) {
  if (pitch == size || rows <= 1) return a;
  auto* out = static_cast<BFloat16*>(scratch<kCopyOfA>(static_cast<size_t>(rows * size) * 2));
  for (int64_t r = 0; r < rows; ++r) std::copy_n(a + r * pitch, size, out + r * size);
  return out;
}

template <class C>
void multiply_by_instructions(PackedProduct<C> p) {
  const int64_t N = p.b.N, K = p.b.K, rows = p.transpose_a ? K : p.M,
                size = p.transpose_a ? p.M : K;
  p.a = dense_rows(rows, size, p.a, p.a_pitch);
  const bool is_dense = p.c_pitch == N || p.M <= 1;
  const bool is_fast = std::is_same_v<C, BFloat16> || p.c_is_in_cache;
  if (is_fast && is_dense && !p.accumulate) return multiply_dense(p);
  // oneDNN's kernel goes over C in strips of 64 columns, at which memory is slow: it gets a piece
  // of memory that stays in a cache.
  auto* sums = static_cast<float*>(scratch<kTileOfC>(static_cast<size_t>(p.M * N) * 4));
  multiply_dense(PackedProduct<float>{.M = p.M,
                                      .transpose_a = p.transpose_a,
                                      .a = p.a,
                                      .a_pitch = size,
                                      .b = p.b,
                                      .bias = p.bias,
                                      .c = sums,
                                      .c_pitch = N,
                                      .accumulate = false});
  const Output<float> c(p.c, p.accumulate);
  for (int64_t r = 0; r < p.M; ++r) {
    const float* row = sums + r * N;
    c.write(r * p.c_pitch, N, [=](int64_t j) { return row[j]; });
  }
}

/// On all threads: nothing is computed, so that their number does not matter.
void pack_by_instructions(const PackedB& b, bool transposed, const BFloat16* from, int64_t pitch) {
  if (form_of(b.N, b.K) == pairs_of(b.N, b.K)) {
    return pack_pairs(transposed, b.N, b.K, from, pitch, static_cast<BFloat16*>(b.data));
  }
  const memory::dims strides = transposed ? memory::dims{1, pitch} : memory::dims{pitch, 1};
  const memory::desc stored({b.K, b.N}, memory::data_type::bf16, strides);
  memory in(stored, engine(), const_cast<BFloat16*>(from));
  memory out(form_of(b.N, b.K), engine(), b.data);
  dnnl::reorder(in, out).execute(stream_of_thread(), in, out);
}

template <class C>
void multiply_in_either_way(const PackedProduct<C>& p) {
  if (p.b.way == BFloat16Way::Widened) return multiply_widened(p);
  run_onednn([&] { multiply_by_instructions(p); });
}

bool has_instructions(dnnl::cpu_isa set) {
  const auto all = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  return (all & static_cast<unsigned>(set)) == static_cast<unsigned>(set);
}

}  // namespace

BFloat16Way bfloat16_way() {
  static const BFloat16Way way = has_instructions(dnnl::cpu_isa::avx512_core_bf16)
                                     ? BFloat16Way::Instructions
                                     : BFloat16Way::Widened;
  return way;
}

const char* bfloat16_products() {
  if (bfloat16_way() == BFloat16Way::Widened) return "widened to F32";
  return has_instructions(dnnl::cpu_isa::avx512_core_amx) ? "AMX" : "AVX-512 BF16";
}

int64_t PackedB::bytes(BFloat16Way way, int64_t N, int64_t K) {
  int64_t size = widened_bytes(N, K);
  if (way == BFloat16Way::Instructions) {
    run_onednn([&] { size = static_cast<int64_t>(form_of(N, K).get_size()); });
  }
  return (size + 63) / 64 * 64;
}

void PackedB::pack(bool transposed, const BFloat16* b, int64_t pitch) const {
  if (way == BFloat16Way::Widened) return pack_widened(*this, transposed, b, pitch);
  run_onednn([&] { pack_by_instructions(*this, transposed, b, pitch); });
}

void multiply_packed(const PackedProduct<float>& product) { multiply_in_either_way(product); }
void multiply_packed(const PackedProduct<BFloat16>& product) { multiply_in_either_way(product); }

}  // namespace regla::cpu

#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "backends/cuda/scalar_math.cuh"

// The instructions behind products of small BF16 tiles (sm_80 and later), each by one name: loads
// of tiles into shared memory behind the arithmetic, fragments out of shared memory, and the
// product of a 16 x 16 and a 16 x 8 tile with sums in F32.
//
// Fragments of a warp, for lane l with group g = l / 4 and member m = l % 4 (PTX ISA, "Matrix
// fragments for mma.m16n8k16"). Each register holds two neighbouring elements, the first one low:
//   A [16, 16]  a[0]: (g, 2m)  a[1]: (g + 8, 2m)  a[2]: (g, 2m + 8)  a[3]: (g + 8, 2m + 8)
//   B [16, 8]   b[0]: (2m, g) and (2m + 1, g)     b[1]: (2m + 8, g) and (2m + 9, g)
//   C [16, 8]   c[0], c[1]: (g, 2m), (g, 2m + 1)  c[2], c[3]: (g + 8, 2m), (g + 8, 2m + 1)
// So the C of a product, rounded, is an A (two of them side by side) or a B (of its transpose) of
// the next.
namespace regla::cuda {

/// Two neighbouring elements of a fragment.
__device__ inline uint32_t packed(float first, float second) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(first, second);
  return reinterpret_cast<const uint32_t&>(both);
}
__device__ inline float2 unpacked(uint32_t both) {
  return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(both));
}

/// c += a b
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// The same for a 16 x 8 and an 8 x 8 tile: the first two registers of a and the first one of b.
__device__ inline void multiply_add(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(b));
}

/// c = a b
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.f));
}
__device__ inline void multiply(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a0), "r"(a1), "r"(b), "f"(0.f));
}

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// Four 8 x 8 tiles of 16-bit elements: lane l gives the address of row l % 8 of tile l / 8, 16
/// bytes that begin at a multiple of 16. Register i is what lane l holds of tile i: (l / 4, 2 (l %
/// 4)) and the next.
__device__ inline void load_tiles(uint32_t (&to)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
}
__device__ inline void load_tiles(uint32_t (&to)[4], const void* row) {
  load_tiles(to, shared_address(row));
}
/// The same with every tile transposed.
__device__ inline void load_tiles_transposed(uint32_t (&to)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(row)
               : "memory");
}
__device__ inline void load_tiles_transposed(uint32_t (&to)[4], const void* row) {
  load_tiles_transposed(to, shared_address(row));
}
/// An 8 x 8 tile in registers, transposed.
__device__ inline uint32_t transposed(uint32_t tile) {
  uint32_t out;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(tile));
  return out;
}

/// Begins to copy 16 bytes to shared memory, or zeros where they are not there.
__device__ inline void copy_ahead(uint32_t to, const void* from, bool is_there = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(is_there ? 16 : 0)
               : "memory");
}
__device__ inline void copy_ahead(void* to, const void* from, bool is_there = true) {
  copy_ahead(shared_address(to), from, is_there);
}
/// The same for 4 bytes.
__device__ inline void copy_word_ahead(void* to, const void* from, bool is_there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(is_there ? 4 : 0)
               : "memory");
}
/// Ordinary accesses by such an address.
__device__ inline void put_shared(uint32_t to, uint32_t v) {
  asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}
__device__ inline uint4 get_shared(uint32_t from) {
  uint4 v;
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(from)
               : "memory");
  return v;
}
/// Ends a group of such copies.
__device__ inline void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until no more than the N latest groups of this thread are under way. Others' copies are
/// seen after a barrier.
template <int N>
__device__ inline void await_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/// Has these numbers computed before what comes after it and does not move: a wait, a copy.
template <int N, int M>
__device__ inline void complete(float (&x)[N][M]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int j = 0; j < M; ++j) asm volatile("" : "+f"(x[i][j]));
  }
}

}  // namespace regla::cuda

// Goes before every kernel: number types, conversions and the few instructions that CUDA C has no name for.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;
#define KERNEL extern "C" __global__ void
#define INLINE __device__ __forceinline__
#ifndef EMULATED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) u8 name[]
#else
#define DYNAMIC_SHARED(name) u8* name = E().dynamic_shared
#endif

// ptx
INLINE u16 f32_to_bf16(float x) {
  u16 r;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
INLINE u16 f32_to_f16(float x) {
  u16 r;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
  return r;
}
INLINE float f16_to_f32(u16 x) {
  float r;
  asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x));
  return r;
}
INLINE u32 pack_bf16(float lo, float hi) {
  u32 r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
INLINE u32 pack_f16(float lo, float hi) {
  u32 r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
  return r;
}
INLINE float fast_exp2(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
INLINE float fast_log2(float x) {
  float r;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}
INLINE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }
INLINE void copy_async16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
// Zero-fills the 16 bytes when not valid.
INLINE void copy_async16_or_zero(void* shared, const void* global, bool valid) {
  int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
}
INLINE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
INLINE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}
// Four 8x8 matrices of 16-bit elements: lane i gives the address of row i % 8 of matrix i / 8.
INLINE void load_matrix4(u32 (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p)) : "memory");
}
INLINE void load_matrix4_transposed(u32 (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p)) : "memory");
}
INLINE void mma_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
INLINE void mma_f16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// end of ptx

// Element types as stored in memory; arithmetic is in float.
struct bf16 { u16 bits; };
struct f16 { u16 bits; };
typedef float f32;
typedef int i32;

INLINE float bf16_to_f32(u16 x) { return __uint_as_float((u32)x << 16); }
INLINE float value(bf16 x) { return bf16_to_f32(x.bits); }
INLINE float value(f16 x) { return f16_to_f32(x.bits); }
INLINE float value(float x) { return x; }
INLINE float value(int x) { return (float)x; }
INLINE float value(u8 x) { return (float)x; }
INLINE void put(bf16& out, float x) { out.bits = f32_to_bf16(x); }
INLINE void put(f16& out, float x) { out.bits = f32_to_f16(x); }
INLINE void put(float& out, float x) { out = x; }
INLINE void put(int& out, float x) { out = (int)x; }
INLINE void put(u8& out, float x) { out = (u8)x; }

// N consecutive elements, moved with the widest accesses that their alignment allows.
template <typename T, int N>
struct __align__(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) Pack { T at[N]; };

INLINE float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}
INLINE float warp_max(float x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
// Sum (or maximum) over a block of whole warps; every thread gets the result. `scratch` holds 32 floats.
template <bool IS_MAX>
INLINE float block_reduce(float x, float* scratch) {
  const int warps = blockDim.x >> 5, lane = threadIdx.x & 31;
  x = IS_MAX ? warp_max(x) : warp_sum(x);
  if (warps == 1) return x;
  __syncthreads();
  if (lane == 0) scratch[threadIdx.x >> 5] = x;
  __syncthreads();
  x = lane < warps ? scratch[lane] : (IS_MAX ? -__int_as_float(0x7f800000) : 0.f);
  return IS_MAX ? warp_max(x) : warp_sum(x);
}

// The counter-based random word of tensor/random.ts.
INLINE u32 mix32(u32 x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}
INLINE u32 hash32(u32 key, u32 counter) { return mix32(mix32(counter ^ (key * 0x9e3779b9u)) ^ key); }

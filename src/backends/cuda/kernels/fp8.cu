// 8-bit floats (e4m3: 4 bits of exponent, 3 of mantissa, largest 448) with a float32 factor for each row.
// https://arxiv.org/abs/2209.05433. S: storage of what is encoded; T: of what is decoded.
#define LARGEST 448.f

#ifndef EMULATED
// Two numbers, rounded to the nearest; larger ones become the largest.
INLINE u16 encode2(float a, float b) {
  u16 r;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(b), "f"(a));
  return r;
}
#else
INLINE u32 encode1(float x) {
  const u32 sign = __float_as_uint(x) >> 31 << 7;
  const float size = fminf(fabsf(x), LARGEST);
  const int exponent = size < 0.015625f ? -6 : (int)(__float_as_uint(size) >> 23) - 127;
  const int steps = (int)rintf(size * __uint_as_float((u32)(127 + 3 - exponent) << 23));
  return sign | (u32)(((exponent + 6) << 3) + steps);
}
INLINE u16 encode2(float a, float b) { return (u16)(encode1(a) | encode1(b) << 8); }
#endif

INLINE float decode1(u32 code) {
  const u32 exponent = code >> 3 & 15, mantissa = code & 7;
  const float size = exponent ? __uint_as_float((exponent + 120) << 23 | mantissa << 20) : mantissa * 0.001953125f;
  return code >> 7 ? -size : size;
}

INLINE uint2 encode8(const Pack<S, 8>& pack, float inverse) {
  u32 words[2];
#pragma unroll
  for (int e = 0; e < 2; e++)
    words[e] = encode2(value(pack.at[4 * e]) * inverse, value(pack.at[4 * e + 1]) * inverse) |
               (u32)encode2(value(pack.at[4 * e + 2]) * inverse, value(pack.at[4 * e + 3]) * inverse) << 16;
  return make_uint2(words[0], words[1]);
}
INLINE float top_of(const Pack<S, 8>& pack, float top) {
#pragma unroll
  for (int e = 0; e < 8; e++) top = fmaxf(top, fabsf(value(pack.at[e])));
  return top;
}

// One block a row of `columns` (a multiple of 8), rows of x `ld` apart: codes without gaps, scales[row] = largest / 448.
// PACKS: eights that a thread keeps in registers, as many as cover a row; 0: the row is read twice.
KERNEL __launch_bounds__(256) fp8_rows(const S* x, u8* codes, float* scales, int columns, int ld) {
  __shared__ float scratch[32];
  const Pack<S, 8>* row = (const Pack<S, 8>*)(x + (i64)blockIdx.x * ld);
  uint2* out = (uint2*)(codes + (i64)blockIdx.x * columns);
  const int packs = columns / 8;
  float top = 0.f;
#if PACKS
  Pack<S, 8> kept[PACKS];
#pragma unroll
  for (int j = 0; j < PACKS; j++) {
    const int i = j * 256 + threadIdx.x;
    kept[j] = row[i < packs ? i : 0];
  }
#pragma unroll
  for (int j = 0; j < PACKS; j++) top = top_of(kept[j], top);
#else
  for (int i = threadIdx.x; i < packs; i += 256) top = top_of(row[i], top);
#endif
  top = block_reduce<true>(top, scratch);
  const float inverse = top > 0.f ? LARGEST / top : 0.f;
#if PACKS
#pragma unroll
  for (int j = 0; j < PACKS; j++) {
    const int i = j * 256 + threadIdx.x;
    if (i < packs) out[i] = encode8(kept[j], inverse);
  }
#else
  for (int i = threadIdx.x; i < packs; i += 256) out[i] = encode8(row[i], inverse);
#endif
  if (threadIdx.x == 0) scales[blockIdx.x] = top / LARGEST;
}

// tops[c] = largest absolute value of column c, where it is more than what is there. A thread takes 64 rows of a column.
KERNEL __launch_bounds__(256) column_tops(const float* x, u32* tops, int rows, int columns) {
  const int c = blockIdx.x * 256 + threadIdx.x;
  if (c >= columns) return;
  float top = 0.f;
  for (int r = blockIdx.y * 64; r < min(rows, (int)blockIdx.y * 64 + 64); r++) top = fmaxf(top, fabsf(x[(i64)r * columns + c]));
  atomicMax(tops + c, __float_as_uint(top));
}

// codes (columns, rows) of the transpose of x, with a factor for each column of x. Tiles of 32 by 32; 256 threads.
KERNEL __launch_bounds__(256) fp8_columns(const float* x, const float* tops, u8* codes, float* scales, int rows, int columns) {
  __shared__ float tile[32][33];
  const int c0 = blockIdx.x * 32, r0 = blockIdx.y * 32, lane = threadIdx.x & 31, part = threadIdx.x >> 5;
  for (int i = part; i < 32; i += 8)
    tile[i][lane] = r0 + i < rows && c0 + lane < columns ? x[(i64)(r0 + i) * columns + c0 + lane] : 0.f;
  __syncthreads();
  for (int i = part; i < 32; i += 8) {
    if (c0 + i >= columns) break;
    const float top = tops[c0 + i], inverse = top > 0.f ? LARGEST / top : 0.f;
    if (r0 + lane < rows) codes[(i64)(c0 + i) * rows + r0 + lane] = (u8)encode2(tile[lane][i] * inverse, 0.f);
    if (r0 == 0 && lane == 0) scales[c0 + i] = top / LARGEST;
  }
}

// Rows of `columns` elements (a multiple of 8) into rows `ld` apart.
KERNEL __launch_bounds__(256) fp8_decode(const u8* codes, const float* scales, T* out, int rows, int columns, int ld) {
  const u32 packs = columns / 8, total = (u32)rows * packs;
  for (u32 i = blockIdx.x * 256u + threadIdx.x; i < total; i += gridDim.x * 256u) {
    const u32 row = i / packs;
    const Pack<u8, 8> from = ((const Pack<u8, 8>*)codes)[i];
    Pack<T, 8> pack;
#pragma unroll
    for (int e = 0; e < 8; e++) put(pack.at[e], decode1(from.at[e]) * scales[row]);
    *(Pack<T, 8>*)(out + (u64)row * ld + i % packs * 8) = pack;
  }
}

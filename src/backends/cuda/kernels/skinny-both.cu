// Both adapter products of a layer's gradient x (T, F), which is read once: x * w^T (T, SHORT) for w (SHORT, F), and
// x^T * u (F, SHORT) for u (T, SHORT). Goes behind skinny.cu. SHORT is at most 32; TILES_AHEAD: tiles in
// shared memory. BLOCKS: blocks that a multiprocessor is to hold.
#define WIDE 512    // features of a block: 64 a warp
#define TOKENS 32   // tokens of a tile

// Up to four gradients that one launch takes.
struct BothParts {
  const u16* x[4];
  const u16* w[4];
  const u16* u[4];
  int features[4];
  // first block of each part
  int start[4];
};

// Parts of the sums: low (gridDim.x, T, SHORT) of x * w^T over a block's features, high (gridDim.y, gridDim.x * WIDE,
// SHORT) of x^T * u over a block's tokens. A warp keeps its 64 features' piece of w and of the second sum in registers;
// the warps' pieces of the first sum are added up in shared memory after each tile.
KERNEL __launch_bounds__(256, BLOCKS) skinny_both(const __grid_constant__ BothParts parts, int count, int T, int ldx, int ldu,
                                          float* low, float* high) {
  constexpr int XROW = WIDE + 8, UROW = SHORT + 8, RROW = SHORT + 4, STAGE = TOKENS * (XROW + UROW);
  DYNAMIC_SHARED(stages);
  float* pieces = (float*)((u16*)stages + TILES_AHEAD * STAGE);  // 8 warps x TOKENS x RROW
  int part = 0;
  while (part + 1 < count && (int)blockIdx.x >= parts.start[part + 1]) part++;
  const int f0 = (blockIdx.x - parts.start[part]) * WIDE, F = parts.features[part];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = 2 * (lane & 3);
  const int tiles = (T + TOKENS - 1) / TOKENS, per = (tiles + gridDim.y - 1) / gridDim.y;
  const int first = blockIdx.y * per, end = min(tiles, first + per);
  const u16* xs = parts.x[part] + f0;
  const u16* us = parts.u[part];
  auto load = [&](int tile, int stage) {
    u16* sx = (u16*)stages + stage * STAGE;
    u16* su = sx + TOKENS * XROW;
    for (int i = threadIdx.x; i < TOKENS * (WIDE / 8); i += 256) {
      const int row = i / (WIDE / 8), t = tile * TOKENS + row, f = i % (WIDE / 8) * 8;
      const bool valid = tile < end && t < T && f0 + f < F;
      copy_async16_or_zero(sx + row * XROW + f, valid ? xs + (i64)t * ldx + f : us, valid);
    }
    for (int i = threadIdx.x; i < TOKENS * TILES; i += 256) {
      const int row = i / TILES, t = tile * TOKENS + row, n = i % TILES * 8;
      const bool valid = tile < end && t < T;
      copy_async16_or_zero(su + row * UROW + n, us + (valid ? (i64)t * ldu + n : 0), valid);
    }
    copy_commit();
  };
  u32 w[4][TILES][2];
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int f = f0 + warp * 64 + k * 16 + c + 8 * i;
        w[k][n][i] = f < F ? *(const u32*)(parts.w[part] + (i64)(n * 8 + g) * F + f) : 0u;
      }
  float wide[4][TILES][4];
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int n = 0; n < TILES; n++) wide[k][n][0] = wide[k][n][1] = wide[k][n][2] = wide[k][n][3] = 0.f;
#pragma unroll
  for (int s = 0; s < TILES_AHEAD - 1; s++) load(first + s, s);
  for (int tile = first; tile < end; tile++) {
    copy_wait<TILES_AHEAD - 2>();
    __syncthreads();
    load(tile + TILES_AHEAD - 1, (tile - first + TILES_AHEAD - 1) % TILES_AHEAD);
    const u16* sx = (u16*)stages + (tile - first) % TILES_AHEAD * STAGE;
    const u16* su = sx + TOKENS * XROW;
#pragma unroll
    for (int m = 0; m < TOKENS / 16; m++) {
      float sum[TILES][4];
      u32 u[TILES + 1][2];
#pragma unroll
      for (int n = 0; n < TILES; n++) sum[n][0] = sum[n][1] = sum[n][2] = sum[n][3] = 0.f;
#pragma unroll
      for (int n = 0; n < TILES; n += 2) {
        u32 b[4];
        // the last of an odd number of tiles is read twice
        load_matrix4_transposed(b, su + (m * 16 + (lane & 15)) * UROW + n * 8 + (n + 1 < TILES ? 8 * (lane >> 4) : 0));
        u[n][0] = b[0], u[n][1] = b[1], u[n + 1][0] = b[2], u[n + 1][1] = b[3];
      }
#pragma unroll
      for (int k = 0; k < 4; k++) {
        u32 a[4];
        load_matrix4(a, sx + (m * 16 + (lane & 15)) * XROW + warp * 64 + k * 16 + 8 * (lane >> 4));
#pragma unroll
        for (int n = 0; n < TILES; n++) MMA(sum[n], a, w[k][n][0], w[k][n][1]);
        load_matrix4_transposed(a, sx + (m * 16 + (lane >> 4) * 8 + (lane & 7)) * XROW + warp * 64 + k * 16 + ((lane >> 3) & 1) * 8);
#pragma unroll
        for (int n = 0; n < TILES; n++) MMA(wide[k][n], a, u[n][0], u[n][1]);
      }
#pragma unroll
      for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 2; i++)
          *(float2*)(pieces + (warp * TOKENS + m * 16 + g + 8 * i) * RROW + n * 8 + c) = make_float2(sum[n][2 * i], sum[n][2 * i + 1]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < TOKENS * SHORT / 2; i += 256) {
      const int row = i / (SHORT / 2), n = i % (SHORT / 2) * 2, t = tile * TOKENS + row;
      float2 sum = make_float2(0.f, 0.f);
#pragma unroll
      for (int j = 0; j < 8; j++) {
        const float2 piece = *(const float2*)(pieces + (j * TOKENS + row) * RROW + n);
        sum.x += piece.x, sum.y += piece.y;
      }
      if (t < T) *(float2*)(low + ((i64)blockIdx.x * T + t) * SHORT + n) = sum;
    }
  }
  copy_wait<0>();
  float* mine = high + (i64)(blockIdx.y * gridDim.x + blockIdx.x) * WIDE * SHORT;
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
      for (int i = 0; i < 2; i++)
        *(float2*)(mine + (warp * 64 + k * 16 + g + 8 * i) * SHORT + n * 8 + c) = make_float2(wide[k][n][2 * i], wide[k][n][2 * i + 1]);
}

struct BothSums {
  u16* low[4];
  float* high[4];
  int features[4];
  int start[4];
};

INLINE void add_to(float4& sum, const float4& x) { sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w; }

// Adds the parts up, always in the same order: low (T, SHORT), rows ld_low apart, and high (F, SHORT) += factor * sum.
// `blocks` and `splits` are the grid of skinny_both. A thread takes four neighbouring elements.
KERNEL __launch_bounds__(256) skinny_both_sums(const __grid_constant__ BothSums parts, int count, int blocks, int splits,
                                               int T, int ld_low, float factor, const float* low, const float* high) {
  constexpr int PACKS = SHORT / 4;
  const i64 index = (i64)blockIdx.x * 256 + threadIdx.x, lows = (i64)count * T * PACKS;
  const int n = (int)(index % PACKS) * 4;
  float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
  if (index < lows) {
    const int row = (int)(index / PACKS), part = row / T, t = row % T;
    const int end = part + 1 < count ? parts.start[part + 1] : blocks;
#pragma unroll 8
    for (int b = parts.start[part]; b < end; b++) add_to(sum, *(const float4*)(low + ((i64)b * T + t) * SHORT + n));
    u16* at = parts.low[part] + (i64)t * ld_low + n;
    *(uint2*)at = make_uint2(PUT_HALF(sum.x) | (u32)PUT_HALF(sum.y) << 16, PUT_HALF(sum.z) | (u32)PUT_HALF(sum.w) << 16);
    return;
  }
  const i64 f = (index - lows) / PACKS;
  if (f >= (i64)blocks * WIDE) return;
  int part = 0;
  while (part + 1 < count && f / WIDE >= parts.start[part + 1]) part++;
  const i64 row = f - (i64)parts.start[part] * WIDE;
  if (row >= parts.features[part]) return;
#pragma unroll 4
  for (int s = 0; s < splits; s++) add_to(sum, *(const float4*)(high + ((i64)s * blocks * WIDE + f) * SHORT + n));
  float4* at = (float4*)(parts.high[part] + row * SHORT + n);
  const float4 before = *at;
  *at = make_float4(before.x + factor * sum.x, before.y + factor * sum.y, before.z + factor * sum.z, before.w + factor * sum.w);
}

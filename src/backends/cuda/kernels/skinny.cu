// Products with one short side, as LoRA needs them: bound by reading the long matrix once.
// SHORT: the short side (a multiple of 8, at most 64). USE_F16: f16 elements instead of bf16.
#define TILES (SHORT / 8)
#if USE_F16
#define MMA mma_f16
#define PUT_HALF f32_to_f16
#else
#define MMA mma_bf16
#define PUT_HALF f32_to_bf16
#endif

// Up to four products that one launch computes.
struct RowParts {
  const u16* x[4];
  const u16* w[4];
  u16* out[4];
  int K[4];
  int ldw[4];
};

// out (T, SHORT) = x (T, K) * w (SHORT, K)^T for part blockIdx.y. One block: 32 rows; its 8 warps share out K in steps of 32.
// Fragments come straight from memory: lane (g, c) takes 8 neighbouring elements of K from row g, which the matrix
// instruction may see in any order as long as both operands agree.
KERNEL __launch_bounds__(256) skinny_rows(const __grid_constant__ RowParts parts, int T, int ldx, int ldo) {
  DYNAMIC_SHARED(sums);
  float* partial = (float*)sums;  // 8 warps x 32 rows x SHORT
  const int part = blockIdx.y, K = parts.K[part], ldw = parts.ldw[part];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, c = lane & 3;
  const int row = blockIdx.x * 32;
  const u16* x[4];
#pragma unroll
  for (int i = 0; i < 4; i++) x[i] = parts.x[part] + (i64)min(row + g + 8 * i, T - 1) * ldx + c * 8;
  const u16* w = parts.w[part] + (i64)g * ldw + c * 8;
  float acc[2][TILES][4];
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int n = 0; n < TILES; n++) acc[m][n][0] = acc[m][n][1] = acc[m][n][2] = acc[m][n][3] = 0.f;
#pragma unroll 4
  for (int k = warp * 32; k < K; k += 256) {
    uint4 a[4], b[TILES];
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = *(const uint4*)(x[i] + k);
#pragma unroll
    for (int n = 0; n < TILES; n++) b[n] = *(const uint4*)(w + (i64)n * 8 * ldw + k);
#pragma unroll
    for (int m = 0; m < 2; m++) {
      const u32 first[4] = {a[2 * m].x, a[2 * m + 1].x, a[2 * m].y, a[2 * m + 1].y};
      const u32 second[4] = {a[2 * m].z, a[2 * m + 1].z, a[2 * m].w, a[2 * m + 1].w};
#pragma unroll
      for (int n = 0; n < TILES; n++) {
        MMA(acc[m][n], first, b[n].x, b[n].y);
        MMA(acc[m][n], second, b[n].z, b[n].w);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < 2; m++)
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        float* at = partial + (warp * 32 + m * 16 + g + 8 * i) * SHORT + n * 8 + 2 * c;
        at[0] = acc[m][n][2 * i];
        at[1] = acc[m][n][2 * i + 1];
      }
  __syncthreads();
  for (int i = threadIdx.x; i < 32 * SHORT; i += 256) {
    float sum = 0.f;
#pragma unroll
    for (int j = 0; j < 8; j++) sum += partial[j * 32 * SHORT + i];
    const int t = row + i / SHORT;
    if (t < T) parts.out[part][(i64)t * ldo + i % SHORT] = PUT_HALF(sum);
  }
}

// Up to four gradients that one launch computes.
struct TokenParts {
  const u16* x[4];
  const u16* g[4];
  float* out[4];
  int features[4];
  // first block of 64 features of each part
  int start[4];
};

// out += factor * x (T, F)^T * g (T, SHORT): out[f * stride_f + n * stride_n]. One block: 64 features, one of gridDim.y
// parts of the tokens. Parts are added up by the last block to finish, always in the same order.
KERNEL __launch_bounds__(128) skinny_tokens(const __grid_constant__ TokenParts parts, int count, int T, int ldx, int ldg, int stride_f, int stride_n,
                                            float factor, float* partial, u32* counters) {
  constexpr int XROW = 72, GROW = SHORT + 8, STAGES = 4;
  DYNAMIC_SHARED(stages);
  __shared__ u32 last;
  int part = 0;
  while (part + 1 < count && (int)blockIdx.x >= parts.start[part + 1]) part++;
  const int f0 = (blockIdx.x - parts.start[part]) * 64, F = parts.features[part];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int tiles = (T + 63) / 64, per = (tiles + gridDim.y - 1) / gridDim.y;
  const int first = blockIdx.y * per, end = min(tiles, first + per);
  const u16* xs = parts.x[part] + f0;
  const u16* gs = parts.g[part];
  auto load = [&](int tile, int stage) {
    u16* sx = (u16*)stages + stage * 64 * (XROW + GROW);
    u16* sg = sx + 64 * XROW;
    for (int i = threadIdx.x; i < 64 * 8; i += 128) {
      const int t = tile * 64 + i / 8, f = i % 8 * 8;
      const bool valid = tile < end && t < T && f0 + f < F;
      copy_async16_or_zero(sx + i / 8 * XROW + f, xs + (valid ? (i64)t * ldx + f : 0), valid);
    }
    for (int i = threadIdx.x; i < 64 * TILES; i += 128) {
      const int t = tile * 64 + i / TILES, n = i % TILES * 8;
      const bool valid = tile < end && t < T;
      copy_async16_or_zero(sg + i / TILES * GROW + n, gs + (valid ? (i64)t * ldg + n : 0), valid);
    }
    copy_commit();
  };
  float acc[TILES][4];
#pragma unroll
  for (int n = 0; n < TILES; n++) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0.f;
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) load(first + s, s);
  for (int tile = first; tile < end; tile++) {
    copy_wait<STAGES - 2>();
    __syncthreads();
    load(tile + STAGES - 1, (tile - first + STAGES - 1) % STAGES);
    const u16* sx = (u16*)stages + (tile - first) % STAGES * 64 * (XROW + GROW);
    const u16* sg = sx + 64 * XROW;
#pragma unroll
    for (int kk = 0; kk < 4; kk++) {
      u32 a[4];
      load_matrix4_transposed(a, sx + (kk * 16 + (lane >> 4) * 8 + (lane & 7)) * XROW + warp * 16 + ((lane >> 3) & 1) * 8);
#pragma unroll
      for (int n = 0; n + 1 < TILES; n += 2) {
        u32 b[4];
        load_matrix4_transposed(b, sg + (kk * 16 + (lane & 15)) * GROW + n * 8 + 8 * (lane >> 4));
        MMA(acc[n], a, b[0], b[1]);
        MMA(acc[n + 1], a, b[2], b[3]);
      }
      if (TILES % 2 == 1) {
        u32 b[4];
        load_matrix4_transposed(b, sg + (kk * 16 + (lane & 15)) * GROW + (TILES - 1) * 8);
        MMA(acc[TILES - 1], a, b[0], b[1]);
      }
    }
  }
  copy_wait<0>();
  const int g = lane >> 2, c = 2 * (lane & 3);
  const int splits = gridDim.y;
  float* mine = partial + ((i64)blockIdx.x * splits + blockIdx.y) * 64 * SHORT;
  float* out = parts.out[part];
#pragma unroll
  for (int n = 0; n < TILES; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int f = warp * 16 + g + 8 * (i >> 1), at = n * 8 + c + (i & 1);
      if (splits > 1) mine[f * SHORT + at] = acc[n][i];
      else if (f0 + f < F) out[(i64)(f0 + f) * stride_f + (i64)at * stride_n] += factor * acc[n][i];
    }
  if (splits == 1) return;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(counters + blockIdx.x, 1u) == splits - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  const float* all = partial + (i64)blockIdx.x * splits * 64 * SHORT;
  for (int i = threadIdx.x; i < 64 * SHORT; i += 128) {
    // neighbouring threads write neighbouring elements of the output
    const int f = stride_f == 1 ? i % 64 : i / SHORT, n = stride_f == 1 ? i / 64 : i % SHORT;
    float sum = 0.f;
    for (int j = 0; j < splits; j++) sum += all[j * 64 * SHORT + f * SHORT + n];
    if (f0 + f < F) out[(i64)(f0 + f) * stride_f + (i64)n * stride_n] += factor * sum;
  }
  if (threadIdx.x == 0) counters[blockIdx.x] = 0;
}

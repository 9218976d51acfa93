// Flash attention on tensor cores (mma.sync): online softmax forward; deterministic backward in two kernels.
// https://arxiv.org/abs/2307.08691
// q (B, T, H, D), k and v (B, S, Hk, D) with any token stride; lse and delta (B, H, T) in float32.
// Key s is seen by query t when s <= t + S - T (causal), s > t + S - T - window, and their segments are equal.
// Compile with D, USE_F16 for f16 instead of bf16, and MT: 16-row tiles a warp of the forward kernel holds.
#if USE_F16
#define PACK2 pack_f16
#define MMA mma_f16
#else
#define PACK2 pack_bf16
#define MMA mma_bf16
#endif
#define ROW (D + 8)  // shared row of D elements, padded so that 8 rows fall into different banks
#define KT (D / 16)  // steps of 16 along D
#define NEVER (-__int_as_float(0x7f800000))

struct Shape {
  int B, T, S, H, Hk, causal, window;
  int ldq, ldk, ldv, ldo;
  float scale;  // times log2(e): scores are in base 2
};

// Rows [first, first + ROWS) of a token-strided matrix into shared memory; rows from `limit` on become zero.
template <int ROWS, int THREADS>
INLINE void load_rows(u16* shared, const u16* global, int ld, int first, int limit) {
  constexpr int CHUNKS = D / 8;
#pragma unroll
  for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
    const int row = i / CHUNKS, chunk = i % CHUNKS;
    const bool valid = first + row < limit;
    copy_async16_or_zero(shared + row * ROW + chunk * 8, global + (i64)(valid ? first + row : 0) * ld + chunk * 8, valid);
  }
}

// Fragments: `a_rows` for the left operand (16 rows x 16), `b_rows` for a right operand stored as rows of the
// output column (n, k), `b_columns` for one stored as (k, n).
INLINE void a_rows(u32 (&a)[4], const u16* tile, int row, int column) {
  const int lane = threadIdx.x & 31;
  load_matrix4(a, tile + (row + (lane & 15)) * ROW + column + 8 * (lane >> 4));
}
INLINE void b_rows(u32 (&b)[4], const u16* tile, int n, int k) {
  const int lane = threadIdx.x & 31;
  load_matrix4(b, tile + (n + (lane & 7) + 8 * (lane >> 4)) * ROW + k + 8 * ((lane >> 3) & 1));
}
INLINE void b_columns(u32 (&b)[4], const u16* tile, int k, int n) {
  const int lane = threadIdx.x & 31;
  load_matrix4_transposed(b, tile + (k + (lane & 15)) * ROW + n + 8 * (lane >> 4));
}
// Accumulators of two neighbouring 8-column tiles as the left operand of the next product.
INLINE void a_from_accumulators(u32 (&a)[4], const float (&x)[4], const float (&y)[4]) {
  a[0] = PACK2(x[0], x[1]);
  a[1] = PACK2(x[2], x[3]);
  a[2] = PACK2(y[0], y[1]);
  a[3] = PACK2(y[2], y[3]);
}

INLINE bool visible(const Shape& shape, int t, int s, int segment_t, int segment_s) {
  const int last = t + shape.S - shape.T;
  return s < shape.S && segment_t == segment_s && (!shape.causal || s <= last) &&
         (shape.window <= 0 || s > last - shape.window);
}
// Range of keys that any of the queries [t0, t1) may see.
INLINE void key_range(const Shape& shape, int t0, int t1, int& first, int& end) {
  const int shift = shape.S - shape.T;
  end = shape.causal ? min(shape.S, max(0, t1 + shift)) : shape.S;
  first = shape.window > 0 ? max(0, t0 + shift - shape.window + 1) : 0;
}
// Whether every pair in the tile is visible but for segments.
INLINE bool is_inner(const Shape& shape, int t0, int t1, int s0, int s1) {
  const int shift = shape.S - shape.T;
  return s1 <= shape.S && t1 <= shape.T && (!shape.causal || s1 - 1 <= t0 + shift) &&
         (shape.window <= 0 || s0 > t1 - 1 + shift - shape.window);
}

#define BN 64  // keys a tile

// O and lse. One block: 4 warps x 16*MT queries of one head.
KERNEL __launch_bounds__(128) attention_forward(const u16* q, const u16* k, const u16* v, const int* segments_q,
                                                const int* segments_k, u16* o, float* lse, Shape shape) {
  constexpr int BM = 64 * MT, NT = BN / 8;
  DYNAMIC_SHARED(memory);
  u16* sq = (u16*)memory;
  u16* sk = sq + BM * ROW;
  u16* sv = sk + BN * ROW;
  int* seg = (int*)(sv + BN * ROW);
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, g = lane >> 2, c = 2 * (lane & 3);
  const int t0 = (gridDim.x - 1 - blockIdx.x) * BM, h = blockIdx.y, b = blockIdx.z;  // longest rows first
  const int hk = h / (shape.H / shape.Hk);
  const u16* kb = k + (i64)b * shape.S * shape.ldk + hk * D;
  const u16* vb = v + (i64)b * shape.S * shape.ldv + hk * D;
  int first, end;
  key_range(shape, t0, min(t0 + BM, shape.T), first, end);
  const int j0 = first / BN, j1 = (end + BN - 1) / BN;

  load_rows<BM, 128>(sq, q + (i64)b * shape.T * shape.ldq + h * D, shape.ldq, t0, shape.T);
  if (j0 < j1) load_rows<BN, 128>(sk, kb, shape.ldk, j0 * BN, shape.S);
  copy_commit();
  float acc[MT][D / 8][4], top[MT][2], sum[MT][2];
  int segment_t[MT][2];
#pragma unroll
  for (int m = 0; m < MT; m++) {
#pragma unroll
    for (int n = 0; n < D / 8; n++) acc[m][n][0] = acc[m][n][1] = acc[m][n][2] = acc[m][n][3] = 0.f;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      top[m][i] = NEVER;
      sum[m][i] = 0.f;
      const int t = t0 + warp * 16 * MT + m * 16 + g + 8 * i;
      segment_t[m][i] = segments_q && t < shape.T ? segments_q[b * shape.T + t] : 0;
    }
  }
  for (int j = j0; j < j1; j++) {
    const int s0 = j * BN;
    load_rows<BN, 128>(sv, vb, shape.ldv, s0, shape.S);
    copy_commit();
    if (segments_k && tid < BN) seg[tid] = s0 + tid < shape.S ? segments_k[b * shape.S + s0 + tid] : 0;
    copy_wait<1>();
    __syncthreads();
    float s[MT][NT][4];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
      for (int n = 0; n < NT; n++) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0.f;
#pragma unroll
    for (int kk = 0; kk < KT; kk++) {
      u32 a[MT][4];
#pragma unroll
      for (int m = 0; m < MT; m++) a_rows(a[m], sq, warp * 16 * MT + m * 16, kk * 16);
#pragma unroll
      for (int n = 0; n < NT; n += 2) {
        u32 f[4];
        b_rows(f, sk, n * 8, kk * 16);
#pragma unroll
        for (int m = 0; m < MT; m++) {
          MMA(s[m][n], a[m], f[0], f[1]);
          MMA(s[m][n + 1], a[m], f[2], f[3]);
        }
      }
    }
    __syncthreads();
    if (j + 1 < j1) load_rows<BN, 128>(sk, kb, shape.ldk, s0 + BN, shape.S);
    copy_commit();
    const bool masked = segments_k || !is_inner(shape, t0, t0 + BM, s0, s0 + BN);
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int t = t0 + warp * 16 * MT + m * 16 + g + 8 * i;
        float high = top[m][i];
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
          for (int e = 0; e < 2; e++) {
            float& x = s[m][n][2 * i + e];
            x *= shape.scale;
            const int at = n * 8 + c + e;
            if (masked && !visible(shape, t, s0 + at, segment_t[m][i], segments_k ? seg[at] : 0)) x = NEVER;
            high = fmaxf(high, x);
          }
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 1));
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 2));
        const float base = high == NEVER ? 0.f : high;  // a row without keys so far
        const float rescale = fast_exp2(top[m][i] - base);
        float total = 0.f;
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
          for (int e = 0; e < 2; e++) {
            float& x = s[m][n][2 * i + e];
            x = fast_exp2(x - base);
            total += x;
          }
        sum[m][i] = sum[m][i] * rescale + total;
        top[m][i] = high;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
          acc[m][n][2 * i] *= rescale;
          acc[m][n][2 * i + 1] *= rescale;
        }
      }
    copy_wait<1>();
    __syncthreads();
#pragma unroll
    for (int kk = 0; kk < BN / 16; kk++) {
      u32 a[MT][4];
#pragma unroll
      for (int m = 0; m < MT; m++) a_from_accumulators(a[m], s[m][2 * kk], s[m][2 * kk + 1]);
#pragma unroll
      for (int n = 0; n < D / 8; n += 2) {
        u32 f[4];
        b_columns(f, sv, kk * 16, n * 8);
#pragma unroll
        for (int m = 0; m < MT; m++) {
          MMA(acc[m][n], a[m], f[0], f[1]);
          MMA(acc[m][n + 1], a[m], f[2], f[3]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float total = sum[m][i];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      const float inverse = total > 0.f ? 1.f / total : 0.f;
      const int t = t0 + warp * 16 * MT + m * 16 + g + 8 * i;
      if (t >= shape.T) continue;
      if (c == 0) lse[((i64)b * shape.H + h) * shape.T + t] = total > 0.f ? top[m][i] + fast_log2(total) : -NEVER;
      u16* row = o + ((i64)b * shape.T + t) * shape.ldo + h * D;
#pragma unroll
      for (int n = 0; n < D / 8; n++)
        *(u32*)(row + n * 8 + c) = PACK2(acc[m][n][2 * i] * inverse, acc[m][n][2 * i + 1] * inverse);
    }
}

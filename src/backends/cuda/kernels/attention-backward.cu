// Backward of attention.cu. delta = rowsum(dO * O); P = exp2(S - lse); dV = Pt dO; dS = P * (dO Vt - delta);
// dK = scale dSt Q; dQ = scale dS K. lse is in base 2 and +infinity for a query that sees no key.
struct Strides {
  int dout, dq, dk, dv;
  float scale;  // plain, without log2(e)
};

// One warp a (token, head).
KERNEL attention_delta(const u16* o, const u16* dout, float* delta, Shape shape, Strides strides) {
  const int index = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (index >= shape.B * shape.T * shape.H) return;
  const int h = index % shape.H, token = index / shape.H;
  const u16* x = o + (i64)token * shape.ldo + h * D;
  const u16* y = dout + (i64)token * strides.dout + h * D;
  float sum = 0.f;
  for (int i = lane; i < D; i += 32) {
#if USE_F16
    sum += f16_to_f32(x[i]) * f16_to_f32(y[i]);
#else
    sum += bf16_to_f32(x[i]) * bf16_to_f32(y[i]);
#endif
  }
  sum = warp_sum(sum);
  const int b = token / shape.T, t = token % shape.T;
  if (lane == 0) delta[((i64)b * shape.H + h) * shape.T + t] = sum;
}

template <int N>
INLINE void clear(float (&x)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++) x[n][0] = x[n][1] = x[n][2] = x[n][3] = 0.f;
}
// out (16 x 64) = rows of `left` from `row` times the rows of `right`.
INLINE void scores(float (&out)[8][4], const u16* left, int row, const u16* right) {
  clear(out);
#pragma unroll
  for (int kk = 0; kk < KT; kk++) {
    u32 a[4], f[4];
    a_rows(a, left, row, kk * 16);
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      b_rows(f, right, n * 8, kk * 16);
      MMA(out[n], a, f[0], f[1]);
      MMA(out[n + 1], a, f[2], f[3]);
    }
  }
}
// acc (16 x D) += x (16 x 64, accumulator layout) times `right` (64 x D).
INLINE void accumulate(float (&acc)[D / 8][4], const float (&x)[8][4], const u16* right) {
#pragma unroll
  for (int kk = 0; kk < 4; kk++) {
    u32 a[4], f[4];
    a_from_accumulators(a, x[2 * kk], x[2 * kk + 1]);
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
      b_columns(f, right, kk * 16, n * 8);
      MMA(acc[n], a, f[0], f[1]);
      MMA(acc[n + 1], a, f[2], f[3]);
    }
  }
}
INLINE void store_rows(u16* out, int ld, int row, int limit, const float (&acc)[D / 8][4], float factor) {
  const int lane = threadIdx.x & 31, g = lane >> 2, c = 2 * (lane & 3);
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (row + g + 8 * i >= limit) continue;
    u16* at = out + (i64)(row + g + 8 * i) * ld + c;
#pragma unroll
    for (int n = 0; n < D / 8; n++) *(u32*)(at + n * 8) = PACK2(acc[n][2 * i] * factor, acc[n][2 * i + 1] * factor);
  }
}

// dK and dV of 64 keys of one key head; loops over the query heads that share it, so nothing is added up later.
// WANT selects the outputs (1: dK, 2: dV, 3: both): two passes when both accumulators do not fit in registers.
template <int WANT>
INLINE void keys_backward(const u16* q, const u16* k, const u16* v, const int* segments_q, const int* segments_k,
                          const float* lse, const float* delta, const u16* dout, u16* dk, u16* dv, const Shape& shape,
                          const Strides& strides) {
  DYNAMIC_SHARED(tiles);
  u16* sk = (u16*)tiles;
  u16* sv = sk + 64 * ROW;
  u16* sq = sv + 64 * ROW;
  u16* sd = sq + 64 * ROW;
  float* slse = (float*)(sd + 64 * ROW);
  float* sdelta = slse + 64;
  int* seg = (int*)(sdelta + 64);
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, g = lane >> 2, c = 2 * (lane & 3);
  const int s0 = blockIdx.x * 64, hk = blockIdx.y, b = blockIdx.z, group = shape.H / shape.Hk;
  const int shift = shape.S - shape.T;
  load_rows<64, 128>(sk, k + (i64)b * shape.S * shape.ldk + hk * D, shape.ldk, s0, shape.S);
  load_rows<64, 128>(sv, v + (i64)b * shape.S * shape.ldv + hk * D, shape.ldv, s0, shape.S);
  const int first = shape.causal ? max(0, s0 - shift) : 0;
  const int end = shape.window > 0 ? min(shape.T, max(0, min(s0 + 64, shape.S) - 1 - shift + shape.window)) : shape.T;
  int segment_s[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int s = s0 + warp * 16 + g + 8 * i;
    segment_s[i] = segments_k && s < shape.S ? segments_k[b * shape.S + s] : 0;
  }
  float acc_k[WANT & 1 ? D / 8 : 1][4], acc_v[WANT & 2 ? D / 8 : 1][4];
  clear(acc_k);
  clear(acc_v);
  for (int h = hk * group; h < (hk + 1) * group; h++)
    for (int j = first / 64; j < (end + 63) / 64; j++) {
      const int t0 = j * 64;
      __syncthreads();
      load_rows<64, 128>(sq, q + (i64)b * shape.T * shape.ldq + h * D, shape.ldq, t0, shape.T);
      load_rows<64, 128>(sd, dout + (i64)b * shape.T * strides.dout + h * D, strides.dout, t0, shape.T);
      copy_commit();
      if (tid < 64) {
        const int t = t0 + tid;
        const i64 at = ((i64)b * shape.H + h) * shape.T + t;
        slse[tid] = t < shape.T ? lse[at] : -NEVER;
        sdelta[tid] = t < shape.T ? delta[at] : 0.f;
        seg[tid] = segments_q && t < shape.T ? segments_q[b * shape.T + t] : 0;
      }
      copy_wait<0>();
      __syncthreads();
      float p[8][4], dp[8][4];
      scores(p, sk, warp * 16, sq);
      const bool masked = segments_q || !is_inner(shape, t0, t0 + 64, s0, s0 + 64);
#pragma unroll
      for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int at = n * 8 + c + (i & 1), s = s0 + warp * 16 + g + 8 * (i >> 1);
          const bool seen = !masked || visible(shape, t0 + at, s, seg[at], segment_s[i >> 1]);
          p[n][i] = seen ? fast_exp2(p[n][i] * shape.scale - slse[at]) : 0.f;
        }
      if constexpr ((WANT & 2) != 0) accumulate(acc_v, p, sd);
      if constexpr ((WANT & 1) != 0) {
        scores(dp, sv, warp * 16, sd);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
          for (int i = 0; i < 4; i++) p[n][i] *= dp[n][i] - sdelta[n * 8 + c + (i & 1)];
        accumulate(acc_k, p, sq);
      }
    }
  const int row = s0 + warp * 16;
  if constexpr ((WANT & 1) != 0)
    store_rows(dk + (i64)b * shape.S * strides.dk + hk * D, strides.dk, row, shape.S, acc_k, strides.scale);
  if constexpr ((WANT & 2) != 0)
    store_rows(dv + (i64)b * shape.S * strides.dv + hk * D, strides.dv, row, shape.S, acc_v, 1.f);
}

KERNEL __launch_bounds__(128)
    attention_keys_backward(const u16* q, const u16* k, const u16* v, const int* segments_q, const int* segments_k,
                            const float* lse, const float* delta, const u16* dout, u16* dk, u16* dv, Shape shape,
                            Strides strides) {
#if D <= 128
  keys_backward<3>(q, k, v, segments_q, segments_k, lse, delta, dout, dk, dv, shape, strides);
#else
  keys_backward<1>(q, k, v, segments_q, segments_k, lse, delta, dout, dk, dv, shape, strides);
  __syncthreads();
  keys_backward<2>(q, k, v, segments_q, segments_k, lse, delta, dout, dk, dv, shape, strides);
#endif
}

// dQ of 64 queries of one head.
KERNEL __launch_bounds__(128)
    attention_queries_backward(const u16* q, const u16* k, const u16* v, const int* segments_q, const int* segments_k,
                               const float* lse, const float* delta, const u16* dout, u16* dq, Shape shape,
                               Strides strides) {
  DYNAMIC_SHARED(tiles);
  u16* sq = (u16*)tiles;
  u16* sd = sq + 64 * ROW;
  u16* sk = sd + 64 * ROW;
  u16* sv = sk + 64 * ROW;
  int* seg = (int*)(sv + 64 * ROW);
  const int tid = threadIdx.x, warp = tid >> 5, lane = tid & 31, g = lane >> 2, c = 2 * (lane & 3);
  const int t0 = (gridDim.x - 1 - blockIdx.x) * 64, h = blockIdx.y, b = blockIdx.z, hk = h / (shape.H / shape.Hk);
  load_rows<64, 128>(sq, q + (i64)b * shape.T * shape.ldq + h * D, shape.ldq, t0, shape.T);
  load_rows<64, 128>(sd, dout + (i64)b * shape.T * strides.dout + h * D, strides.dout, t0, shape.T);
  float row_lse[2], row_delta[2];
  int segment_t[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int t = t0 + warp * 16 + g + 8 * i;
    const i64 at = ((i64)b * shape.H + h) * shape.T + t;
    row_lse[i] = t < shape.T ? lse[at] : -NEVER;
    row_delta[i] = t < shape.T ? delta[at] : 0.f;
    segment_t[i] = segments_q && t < shape.T ? segments_q[b * shape.T + t] : 0;
  }
  float acc[D / 8][4];
  clear(acc);
  int first, end;
  key_range(shape, t0, min(t0 + 64, shape.T), first, end);
  for (int j = first / 64; j < (end + 63) / 64; j++) {
    const int s0 = j * 64;
    __syncthreads();
    load_rows<64, 128>(sk, k + (i64)b * shape.S * shape.ldk + hk * D, shape.ldk, s0, shape.S);
    load_rows<64, 128>(sv, v + (i64)b * shape.S * shape.ldv + hk * D, shape.ldv, s0, shape.S);
    copy_commit();
    if (tid < 64) seg[tid] = segments_k && s0 + tid < shape.S ? segments_k[b * shape.S + s0 + tid] : 0;
    copy_wait<0>();
    __syncthreads();
    float p[8][4], dp[8][4];
    scores(p, sq, warp * 16, sk);
    scores(dp, sd, warp * 16, sv);
    const bool masked = segments_k || !is_inner(shape, t0, t0 + 64, s0, s0 + 64);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int at = n * 8 + c + (i & 1), t = t0 + warp * 16 + g + 8 * (i >> 1);
        const bool seen = !masked || visible(shape, t, s0 + at, segment_t[i >> 1], seg[at]);
        const float probability = seen ? fast_exp2(p[n][i] * shape.scale - row_lse[i >> 1]) : 0.f;
        p[n][i] = probability * (dp[n][i] - row_delta[i >> 1]);
      }
    accumulate(acc, p, sk);
  }
  store_rows(dq + (i64)b * shape.T * strides.dq + h * D, strides.dq, t0 + warp * 16, shape.T, acc, strides.scale);
}

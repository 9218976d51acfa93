// 4-bit normal floats with doubly quantized scales, in the layout of bitsandbytes, and 8-bit integers a row.
// https://arxiv.org/abs/2305.14314. Elements are flattened; a byte holds two codes, the first in its high half.
// T: storage of what is decoded.

__device__ const float NF4[16] = {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                                  -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                                  0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
                                  0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

INLINE u32 nearest_nf4(float x) {
  u32 code = 0;
#pragma unroll
  for (int i = 0; i < 15; i++) code += x > (NF4[i] + NF4[i + 1]) * 0.5f;
  return code;
}

// One warp a block of 64 elements.
KERNEL nf4_quantize(const float* x, u8* codes, float* scales, int blocks) {
  const int block = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (block >= blocks) return;
  const float a = x[(i64)block * 64 + 2 * lane], b = x[(i64)block * 64 + 2 * lane + 1];
  const float scale = warp_max(fmaxf(fabsf(a), fabsf(b)));
  const float inverse = scale > 0.f ? 1.f / scale : 0.f;
  codes[(i64)block * 32 + lane] = (u8)(nearest_nf4(a * inverse) << 4 | nearest_nf4(b * inverse));
  if (lane == 0) scales[block] = scale;
}

// mean[0] = mean of n values. One block of 512 threads.
KERNEL __launch_bounds__(512) mean_of(const float* x, float* mean, int n) {
  __shared__ float scratch[32];
  float sum = 0.f;
  for (int i = threadIdx.x; i < n; i += 512) sum += x[i];
  sum = block_reduce<false>(sum, scratch);
  if (threadIdx.x == 0) mean[0] = sum / n;
}

// Scales less their mean as nearest entries of the sorted 256-entry `map`, one factor for each 256. 256 threads.
KERNEL __launch_bounds__(256) quantize_scales(const float* scales, const float* mean, const float* map, u8* codes, float* factors, int n) {
  __shared__ float scratch[32];
  const int i = blockIdx.x * 256 + threadIdx.x;
  const float x = i < n ? scales[i] - mean[0] : 0.f;
  const float factor = block_reduce<true>(fabsf(x), scratch);
  if (threadIdx.x == 0) factors[blockIdx.x] = factor;
  if (i >= n) return;
  const float target = factor > 0.f ? x / factor : 0.f;
  int low = 0, high = 255;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (map[middle] <= target) low = middle;
    else high = middle;
  }
  codes[i] = (u8)(target - map[low] <= map[high] - target ? low : high);
}

// Rows of `columns` elements (a multiple of 8) into rows `ld` apart; eight elements a thread.
KERNEL __launch_bounds__(256) nf4_decode(const u8* codes, const u8* scale_codes, const float* factors, const float* mean,
                                         const float* map, T* out, int rows, int columns, int ld) {
  __shared__ float table[16];
  if (threadIdx.x < 16) table[threadIdx.x] = NF4[threadIdx.x];
  __syncthreads();
  const u32 packs = columns / 8, total = (u32)rows * packs;
  const float offset = mean[0];
  for (u32 i = blockIdx.x * 256u + threadIdx.x; i < total; i += gridDim.x * 256u) {
    const u32 word = ((const u32*)codes)[i], block = i / 8;
    const float scale = map[scale_codes[block]] * factors[block / 256] + offset;
    Pack<T, 8> pack;
#pragma unroll
    for (int e = 0; e < 8; e++) put(pack.at[e], table[word >> (e / 2 * 8 + (e % 2 ? 0 : 4)) & 15] * scale);
    *(Pack<T, 8>*)(out + (u64)(i / packs) * ld + i % packs * 8) = pack;
  }
}

// One block a row: codes = round(127 x / largest), scales[row] = largest / 127.
KERNEL __launch_bounds__(256) int8_quantize(const float* x, signed char* codes, float* scales, int columns) {
  __shared__ float scratch[32];
  const i64 start = (i64)blockIdx.x * columns;
  float top = 0.f;
  for (int c = threadIdx.x; c < columns; c += 256) top = fmaxf(top, fabsf(x[start + c]));
  top = block_reduce<true>(top, scratch);
  const float inverse = top > 0.f ? 127.f / top : 0.f;
  for (int c = threadIdx.x; c < columns; c += 256) codes[start + c] = (signed char)rintf(x[start + c] * inverse);
  if (threadIdx.x == 0) scales[blockIdx.x] = top / 127.f;
}

KERNEL __launch_bounds__(256) int8_decode(const signed char* codes, const float* scales, T* out, int rows, int columns, int ld) {
  const u32 packs = columns / 8, total = (u32)rows * packs;
  for (u32 i = blockIdx.x * 256u + threadIdx.x; i < total; i += gridDim.x * 256u) {
    const u32 row = i / packs;
    const Pack<signed char, 8> from = ((const Pack<signed char, 8>*)codes)[i];
    Pack<T, 8> pack;
#pragma unroll
    for (int e = 0; e < 8; e++) put(pack.at[e], (float)from.at[e] * scales[row]);
    *(Pack<T, 8>*)(out + (u64)row * ld + i % packs * 8) = pack;
  }
}

// Moves of whole rows. T: storage of the values.

// out (rows, C) = sum of updates (count, C) whose id is the row; in order of appearance, so deterministic.
// One block a row: the ids are scanned by all threads, matching rows are added one after another.
KERNEL scatter_rows(const T* updates, const int* ids, T* out, int count, int C, int ld_updates, int ld_out) {
  __shared__ int found[256];
  const int row = blockIdx.x;
  for (int c0 = 0; c0 < C; c0 += 2048) {
    float sum[8] = {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};
    for (int start = 0; start < count; start += 256) {
      const int at = start + threadIdx.x;
      const int match = at < count && ids[at] == row;
      if (!__syncthreads_or(match)) continue;
      found[threadIdx.x] = match;
      __syncthreads();
      for (int i = 0; i < 256 && start + i < count; i++) {
        if (!found[i]) continue;
#pragma unroll
        for (int j = 0; j < 8; j++) {
          const int c = c0 + j * 256 + threadIdx.x;
          if (c < C) sum[j] += value(updates[(i64)(start + i) * ld_updates + c]);
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const int c = c0 + j * 256 + threadIdx.x;
      if (c < C) put(out[(i64)row * ld_out + c], sum[j]);
    }
  }
}

// Rotates pairs (x[i], x[i + R/2]) of each head by the row's angles; features from R on are copied.
// One thread a pair of a head. x and out may be the same memory. ld: elements from token to token.
KERNEL rope(const T* x, const float* cosines, const float* sines, T* out, int N, int H, int D, int half, int ld_x,
            int ld_out) {
  const int pairs = half + (D - 2 * half);  // the rest is handled one feature a thread
  const i64 index = (i64)blockIdx.x * 256 + threadIdx.x;
  if (index >= (i64)N * H * pairs) return;
  const int i = index % pairs, h = index / pairs % H, n = index / pairs / H;
  const T* from = x + (i64)n * ld_x + h * D;
  T* to = out + (i64)n * ld_out + h * D;
  if (i >= half) {
    to[half + i] = from[half + i];
    return;
  }
  const float c = cosines[n * half + i], s = sines[n * half + i];
  const float a = value(from[i]), b = value(from[i + half]);
  put(to[i], a * c - b * s);
  put(to[i + half], b * c + a * s);
}

// The same, eight pairs a thread with 16-byte accesses, HEADS heads one after another with the same angles: half, D
// and the strides are multiples of 8, D = 2 * half.
#define HEADS 4
KERNEL rope_wide(const T* x, const float* cosines, const float* sines, T* out, int N, int H, int D, int half, int ld_x,
                 int ld_out) {
  const u32 packs = half / 8, groups = (H + HEADS - 1) / HEADS;
  const u32 index = blockIdx.x * 256u + threadIdx.x;
  if (index >= (u32)N * groups * packs) return;
  const u32 i = index % packs * 8, first = index / packs % groups * HEADS, n = index / packs / groups;
  const Pack<float, 8> c = *(const Pack<float, 8>*)(cosines + n * half + i), s = *(const Pack<float, 8>*)(sines + n * half + i);
#pragma unroll
  for (u32 h = first; h < first + HEADS; h++) {
    if (h >= (u32)H) break;
    const T* from = x + (i64)n * ld_x + h * D + i;
    T* to = out + (i64)n * ld_out + h * D + i;
    const Pack<T, 8> a = *(const Pack<T, 8>*)from, b = *(const Pack<T, 8>*)(from + half);
    Pack<T, 8> low, high;
#pragma unroll
    for (int e = 0; e < 8; e++) {
      put(low.at[e], value(a.at[e]) * c.at[e] - value(b.at[e]) * s.at[e]);
      put(high.at[e], value(b.at[e]) * c.at[e] + value(a.at[e]) * s.at[e]);
    }
    *(Pack<T, 8>*)to = low;
    *(Pack<T, 8>*)(to + half) = high;
  }
}

// Copies (rows, columns) of S elements into T elements, times `factor`.
KERNEL convert_rows(const S* from, T* to, int rows, int columns, int ld_from, int ld_to, float factor) {
  const u64 total = (u64)rows * columns;
  for (u64 i = (u64)blockIdx.x * 256 + threadIdx.x; i < total; i += (u64)gridDim.x * 256) {
    const u64 row = i / columns, c = i % columns;
    put(to[row * ld_to + c], value(from[row * ld_from + c]) * factor);
  }
}

// Writes rows (B, count, inner), ld_from elements from row to row, into slots from offset[0] on of a cache whose
// batch entries are ld_to apart.
KERNEL append_rows(const T* from, T* to, const int* offset, int batch, int count, int inner, int ld_from, int ld_to) {
  const u32 total = (u32)batch * count * inner;
  for (u32 i = blockIdx.x * 256u + threadIdx.x; i < total; i += gridDim.x * 256u) {
    const u32 row = i / inner, at = i % inner, b = row / count, slot = offset[0] + row % count;
    to[(u64)b * ld_to + (u64)slot * inner + at] = from[(u64)row * ld_from + at];
  }
}

// Fills memory with random numbers in [-1, 1) as T, as times of matrix products depend on what they multiply.
KERNEL fill_random(T* out, i64 n) {
  for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < n; i += (i64)gridDim.x * 256)
    put(out[i], (float)(int)hash32(1u, (u32)i) * (1.f / 2147483648.f));
}

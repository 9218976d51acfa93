// Cross-entropy of rows of logits, which become d(loss)/d(logits) in place when GRADIENT is 1.
// loss[row] = weight * (log sum exp(logits) - logits[target]);  d = weight * (softmax - onehot).
// One block of 512 threads a row. V is the row's length, ld its stride; VEC elements at a time.
KERNEL __launch_bounds__(512) cross_entropy_rows(T* logits, const int* targets, const float* weights, float* loss, int V, int ld) {
  __shared__ float scratch[32];
  const int row = blockIdx.x, tid = threadIdx.x;
  T* x = logits + (i64)row * ld;
  const float weight = weights[row];
  const int target = targets[row];
  float high = -__int_as_float(0x7f800000), sum = 0.f;
  for (int c0 = tid * VEC; c0 < V; c0 += 512 * VEC) {
    const Pack<T, VEC> pack = *(const Pack<T, VEC>*)(x + c0);
    float top = value(pack.at[0]);
#pragma unroll
    for (int e = 1; e < VEC; e++) top = fmaxf(top, value(pack.at[e]));
    const float now = fmaxf(high, top);
    sum *= __expf(high - now);
#pragma unroll
    for (int e = 0; e < VEC; e++) sum += __expf(value(pack.at[e]) - now);
    high = now;
  }
  const float all = block_reduce<true>(high, scratch);
  sum = high == -__int_as_float(0x7f800000) ? 0.f : sum * __expf(high - all);
  __syncthreads();
  sum = block_reduce<false>(sum, scratch);
  const float log_sum = all + logf(sum);
  if (tid == 0) loss[row] = weight * (log_sum - value(x[target]));
#if GRADIENT
  __syncthreads();
  for (int c0 = tid * VEC; c0 < V; c0 += 512 * VEC) {
    Pack<T, VEC> pack = *(const Pack<T, VEC>*)(x + c0);
#pragma unroll
    for (int e = 0; e < VEC; e++)
      put(pack.at[e], weight * (__expf(value(pack.at[e]) - log_sum) - (c0 + e == target ? 1.f : 0.f)));
    *(Pack<T, VEC>*)(x + c0) = pack;
  }
#endif
}

// out[0] = sum of n values, in a fixed order. One block of 512 threads.
KERNEL __launch_bounds__(512) sum_all(const float* x, float* out, int n) {
  __shared__ float scratch[32];
  float sum = 0.f;
  for (int i = threadIdx.x; i < n; i += 512) sum += x[i];
  sum = block_reduce<false>(sum, scratch);
  if (threadIdx.x == 0) out[0] = sum;
}

// Clipping by the global norm and AdamW over all trainable parameters, which lie one after another in one array.

// What changes at every update, in device memory so that a captured graph can be replayed.
struct Update {
  float rate, beta1, beta2, eps, decay, correction1, correction2, max_norm;
  // 1 / the factor that the gradients carry
  float inverse_scale;
};
// One parameter: its range, and where copies in the precision of matrix products go (0: nowhere), as it is and
// transposed.
struct Segment {
  i64 start;
  u64 copy, transposed;
  int size, columns, ld, ld_transposed;
  float factor, rate_scale;
};

// Partial sums of squares: one float a block.
KERNEL __launch_bounds__(256) square_sums(const float* gradients, float* sums, i64 n) {
  __shared__ float scratch[32];
  float sum = 0.f;
  for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < n; i += (i64)gridDim.x * 256) sum += gradients[i] * gradients[i];
  sum = block_reduce<false>(sum, scratch);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// norm[0] = square root of the sum of `blocks` partial sums, without the factor that the gradients carry.
KERNEL __launch_bounds__(256) gradient_norm(const float* sums, float* norm, const Update* update, int blocks) {
  __shared__ float scratch[32];
  float sum = 0.f;
  for (int i = threadIdx.x; i < blocks; i += 256) sum += sums[i];
  sum = block_reduce<false>(sum, scratch);
  if (threadIdx.x == 0) norm[0] = sqrtf(sum) * update->inverse_scale;
}

INLINE void store_copy(const Segment& segment, int i, float p) {
  const u64 row = i / segment.columns, column = i % segment.columns;
  if (segment.copy) put(((T*)segment.copy)[row * segment.ld + column], p * segment.factor);
  if (segment.transposed) put(((T*)segment.transposed)[column * segment.ld_transposed + row], p * segment.factor);
}

// Blocks of 1024 elements; blocks[b] gives the segment and the first element inside it. Clears the gradients.
// A norm that is no finite number changes nothing else.
KERNEL __launch_bounds__(256)
    adamw(float* parameters, float* gradients, float* first, float* second, const Segment* segments, const int2* blocks,
          const Update* update, const float* norm) {
  const int2 block = blocks[blockIdx.x];
  const Segment segment = segments[block.x];
  const Update u = *update;
  const bool is_finite = norm[0] <= 3.4e38f;
  const float clip = fminf(1.f, u.max_norm / (norm[0] + 1e-6f)) * u.inverse_scale;
  const float rate = u.rate * segment.rate_scale;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const int i = block.y + j * 256 + threadIdx.x;
    if (i >= segment.size) continue;
    const i64 at = segment.start + i;
    if (!is_finite) {
      gradients[at] = 0.f;
      continue;
    }
    const float g = gradients[at] * clip;
    const float m = u.beta1 * first[at] + (1.f - u.beta1) * g;
    const float v = u.beta2 * second[at] + (1.f - u.beta2) * g * g;
    const float step = (m / u.correction1) / (sqrtf(v / u.correction2) + u.eps);
    const float p = parameters[at] * (1.f - rate * u.decay) - rate * step;
    first[at] = m;
    second[at] = v;
    gradients[at] = 0.f;
    parameters[at] = p;
    store_copy(segment, i, p);
  }
}

// Writes the copies from the parameters as they are.
KERNEL __launch_bounds__(256) copy_parameters(const float* parameters, const Segment* segments, const int2* blocks) {
  const int2 block = blocks[blockIdx.x];
  const Segment segment = segments[block.x];
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const int i = block.y + j * 256 + threadIdx.x;
    if (i < segment.size) store_copy(segment, i, parameters[segment.start + i]);
  }
}

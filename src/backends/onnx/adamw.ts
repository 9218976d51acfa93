import type { AdamWStep } from "../backend.ts";

/** A trainable parameter and what its optimizer remembers; arrays of one length. */
export interface TrainedArrays {
  readonly value: Float32Array;
  readonly gradient: Float32Array;
  readonly average: Float32Array;
  readonly averageOfSquares: Float32Array;
}

/** L2 norm of all `gradients` together, summed in float64. */
export function globalNorm(gradients: Iterable<Float32Array>): number {
  let sum = 0;
  for (const gradient of gradients)
    for (let i = 0; i < gradient.length; i++) sum += gradient[i]! * gradient[i]!;
  return Math.sqrt(sum);
}

/** Factor that brings gradients of norm `norm` within `maxNorm`, as torch.nn.utils.clip_grad_norm_. */
export function clipFactor(norm: number, maxNorm: number): number {
  return Math.min(1, maxNorm / (norm + 1e-6));
}

/**
 * One AdamW update in place, as torch.optim.AdamW: float64 arithmetic on float32 storage.
 * `clip` multiplies the gradient, `scale` the learning rate. https://arxiv.org/abs/1711.05101
 */
export function adamw(
  { value, gradient, average, averageOfSquares }: TrainedArrays,
  { step, learningRate, betas: [beta1, beta2], eps, weightDecay }: AdamWStep,
  clip: number,
  scale: number,
): void {
  const rate = learningRate * scale;
  const keep = 1 - rate * weightDecay;
  const stepSize = rate / (1 - beta1 ** step);
  const correction = 1 / Math.sqrt(1 - beta2 ** step);
  const new1 = 1 - beta1;
  const new2 = 1 - beta2;
  for (let i = 0; i < value.length; i++) {
    const g = gradient[i]! * clip;
    const m = average[i]! + (g - average[i]!) * new1;
    const v = averageOfSquares[i]! * beta2 + g * g * new2;
    average[i] = m;
    averageOfSquares[i] = v;
    value[i] = value[i]! * keep - (stepSize * m) / (Math.sqrt(v) * correction + eps);
  }
}

/** `into` += `from`, element by element. */
export function accumulate(into: Float32Array, from: Float32Array): void {
  for (let i = 0; i < into.length; i++) into[i]! += from[i]!;
}

import type { Program, Tensors } from "../backends/backend.ts";
import { LorikeetError } from "../errors.ts";
import { toFloat32 } from "../tensor/convert.ts";
import { Random } from "../tensor/random.ts";
import type { Shape } from "../tensor/shape.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import type { Sampler } from "./sampler.ts";

/** One image that is sampled. */
export interface SampleRun {
  readonly sampler: Sampler;
  /** Standard normal, (1, C, h, w). */
  readonly start: Tensor;
  /** The condition's feeds for one row: the prompt's and, with guidance, those of the negative prompt. */
  readonly condition: Tensors;
  readonly negative: Tensors | undefined;
  /** How far to go from what the negative prompt gives through what the prompt gives: 1 is the prompt alone. */
  readonly guidance: number;
  /** Adds noise at each step, where the sampler does. */
  readonly random: Random;
  /** Called after each step. */
  readonly onStep?: (done: number, total: number) => void;
}

/**
 * Latents (1, C, h, w) that `denoise` leads to from noise, with classifier-free guidance.
 * https://arxiv.org/abs/2207.12598
 * @param denoise program of a denoising graph with output `output`, for two rows (negative, prompt) or one
 * @throws LorikeetError `non-finite-latents`
 */
export async function sampleLatents(denoise: Program, run: SampleRun): Promise<Tensor> {
  const { sampler, start, condition, negative, guidance, random } = run;
  const rows = negative ? stackedFeeds([negative, condition]) : condition;
  const count = negative ? 2 : 1;
  const shape: Shape = [count, ...start.shape.slice(1)];
  const { timesteps, initNoiseSigma } = sampler;
  let x: Float32Array = toFloat32(start).map((value) => value * initNoiseSigma);
  for (const [i, t] of timesteps.entries()) {
    const scaled = sampler.scaleInput(x, i);
    const sample = new Float32Array(count * scaled.length);
    for (let row = 0; row < count; row++) sample.set(scaled, row * scaled.length);
    const timestep = tensor("f32", [count], new Float32Array(count).fill(t));
    const feeds = { ...rows, sample: tensor("f32", shape, sample), timestep };
    const { output } = await denoise.run(feeds);
    const said = guided(toFloat32(output!), scaled.length, guidance);
    const noise = new Float32Array(x.length).map(() => random.normal());
    x = sampler.step(said, x, i, noise);
    if (!x.every(Number.isFinite)) throw notFinite(i, t);
    run.onStep?.(i + 1, timesteps.length);
  }
  return tensor("f32", start.shape, x);
}

/** The feeds of several rows one under another. */
export function stackedFeeds(rows: readonly Tensors[]): Record<string, Tensor> {
  const names = Object.keys(rows[0]!);
  return Object.fromEntries(names.map((name) => [name, stacked(rows.map((row) => row[name]!))]));
}

/** Tensors of one shape (1, …) as one, (count, …). */
export function stacked(parts: readonly Tensor[]): Tensor {
  const first = parts[0]!;
  const size = first.data.length;
  const data = new (first.data.constructor as Float32ArrayConstructor)(size * parts.length);
  for (const [i, { data: values }] of parts.entries()) data.set(values as Float32Array, i * size);
  return tensor(first.dtype, [parts.length, ...first.shape.slice(1)], data);
}

/** Standard normal noise of `shape` from `seed`. */
export function startNoise(seed: number, shape: Shape): Tensor {
  const random = new Random(seed).fork("start");
  const size = shape.reduce((product, dim) => product * dim, 1);
  return tensor(
    "f32",
    shape,
    new Float32Array(size).map(() => random.normal()),
  );
}

/** negative + guidance · (prompt − negative), where both are there. */
function guided(output: Float32Array, size: number, guidance: number): Float32Array {
  if (output.length === size) return output;
  const [negative, prompt] = [output.subarray(0, size), output.subarray(size)];
  return negative.map((value, i) => value + guidance * (prompt[i]! - value));
}

function notFinite(step: number, t: number): LorikeetError {
  return new LorikeetError(
    "non-finite-latents",
    `Expected finite latents, got NaN or infinity after step ${step + 1} (t = ${t})`,
    {
      hint: "Lower the adapter's weight or the guidance; a half-precision model or adapter may also have overflowed when it was saved.",
    },
  );
}

/** Pixels (1, 3, H, W) around [−1, 1] as bytes, row by row, red, green and blue of each pixel. */
export function toRgb(pixels: Tensor): Uint8Array {
  const [, , H, W] = pixels.shape as [number, number, number, number];
  const values = toFloat32(pixels);
  const plane = H * W;
  const out = new Uint8Array(3 * plane);
  for (let c = 0; c < 3; c++)
    for (let i = 0; i < plane; i++) {
      const value = Math.min(1, Math.max(0, values[c * plane + i]! / 2 + 0.5));
      out[3 * i + c] = Math.round(255 * value);
    }
  return out;
}

/** The inverse of `toRgb`: bytes of an image as pixels (1, 3, H, W) in [−1, 1]. */
export function fromRgb(bytes: Uint8Array, width: number, height: number): Tensor {
  const plane = width * height;
  const out = new Float32Array(3 * plane);
  for (let i = 0; i < plane; i++)
    for (let c = 0; c < 3; c++) out[c * plane + i] = bytes[3 * i + c]! / 127.5 - 1;
  return tensor("f32", [1, 3, height, width], out);
}

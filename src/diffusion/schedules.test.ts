import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { diffusionFolder, farthest, readTensors } from "../../test/support/diffusion.ts";
import { tensor, type Tensor } from "../tensor/tensor.ts";
import {
  addNoise,
  minSnrWeight,
  noiseSchedule,
  signalToNoise,
  velocity,
} from "./noise-schedule.ts";
import { createSampler, type SamplerName } from "./sampler.ts";
import { schedulerConfig } from "./scheduler-config.ts";

interface Runs {
  readonly trajectories: Readonly<
    Record<
      string,
      { scheduler: string; steps: number; eta?: number; config: Readonly<Record<string, unknown>> }
    >
  >;
  readonly training: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

const folder = join(diffusionFolder, "schedules");
const runs = JSON.parse(await readFile(join(folder, "runs.json"), "utf8")) as Runs;
const expected = await readTensors("schedules/expected.safetensors");
const names: Readonly<Record<string, SamplerName>> = {
  DDIMScheduler: "ddim",
  EulerDiscreteScheduler: "euler",
  DPMSolverMultistepScheduler: "dpm++",
};
const values = (name: string): Float32Array => expected.get(name)!.data as Float32Array;
const numbers = (name: string): number[] => Array.from(expected.get(name)!.data, Number);
const asTensor = (data: Float32Array, { shape }: Tensor): Tensor => tensor("f32", shape, data);

describe("training schedules are diffusers'", () => {
  it.each(Object.entries(runs.training))("%s", (name, json) => {
    const config = schedulerConfig({ _class_name: "DDPMScheduler", ...json });
    const schedule = noiseSchedule(config);
    const get = (key: string): Tensor => expected.get(`betas-${name}.${key}`)!;
    // rescaled betas are quotients of small differences: f32 keeps five digits of the last ones
    expect(farthest(asTensor(schedule.betas, get("betas")), get("betas"))).toBeLessThan(1e-5);
    const bars = asTensor(schedule.alphasCumprod, get("alphas_cumprod"));
    expect(farthest(bars, get("alphas_cumprod"))).toBeLessThan(1e-6);
    const row = (key: string, i: number): Float32Array =>
      values(`betas-${name}.${key}`).subarray(16 * i, 16 * i + 16);
    const cells = (data: Float32Array): Tensor => tensor("f32", [16], data);
    for (const [i, t] of numbers(`betas-${name}.timesteps`).entries()) {
      const [clean, noise] = [row("clean", i), row("noise", i)];
      const noisy = cells(addNoise(schedule, clean, noise, t));
      expect(farthest(noisy, cells(row("noisy", i)))).toBeLessThan(1e-5);
      const turned = cells(velocity(schedule, clean, noise, t));
      expect(farthest(turned, cells(row("velocity", i)))).toBeLessThan(1e-5);
      const near = (got: number, want: number): void => {
        if (Number.isNaN(want)) expect(got).toBe(1);
        else expect(Math.abs(got - want)).toBeLessThanOrEqual(1e-4 * Math.abs(want) + 1e-7);
      };
      near(signalToNoise(schedule, t), Number(get("snr").data[i]));
      const at = { t, gamma: 5 };
      near(minSnrWeight(schedule, "epsilon", at), Number(get("min_snr.epsilon").data[i]));
      near(minSnrWeight(schedule, "v_prediction", at), Number(get("min_snr.v_prediction").data[i]));
    }
  });
});

describe("samplers go the way of diffusers'", () => {
  it.each(Object.entries(runs.trajectories))("%s", (name, { scheduler, steps, eta, config }) => {
    const read = schedulerConfig({ _class_name: scheduler, ...config });
    const sampler = createSampler(names[scheduler]!, read, { steps, eta: eta ?? 0 });
    const times = numbers(`${name}.timesteps`);
    expect(sampler.timesteps).toHaveLength(times.length);
    for (const [i, t] of times.entries()) expect(sampler.timesteps[i]).toBeCloseTo(t, 2);
    const sigma = values(`${name}.init_noise_sigma`)[0]!;
    expect(Math.abs(sampler.initNoiseSigma - sigma)).toBeLessThan(1e-5 * sigma);
    const pattern = values("pattern");
    const rows = (key: string, i: number): Float32Array =>
      values(`${name}.${key}`).subarray(64 * i, 64 * i + 64);
    let x: Float32Array = values("start").map((value) => value * sampler.initNoiseSigma);
    for (let i = 0; i < steps; i++) {
      const scaled = sampler.scaleInput(x, i);
      close(scaled, rows("model_inputs", i), `input ${i}`);
      const time = 0.1 * Math.cos(sampler.timesteps[i]! / 100);
      const output = scaled.map((value, j) => 0.9 * Math.tanh(value + pattern[j]!) + time);
      x = sampler.step(output, x, i, eta ? rows("variance_noise", i) : undefined);
      close(x, rows("samples", i + 1), `after step ${i}`);
    }
  });
});

/** Equal to 2e-4 of the largest value: f32 on diffusers' side, noise levels of up to 4096. */
function close(got: Float32Array, want: Float32Array, what: string): void {
  const largest = Math.max(1, ...want.map(Math.abs));
  const error = Math.max(...got.map((value, i) => Math.abs(value - want[i]!)));
  expect(error / largest, what).toBeLessThan(2e-4);
}

it("names every field of a schedule that is malformed or not built", () => {
  const json = { thresholding: true, beta_start: "small", prediction_type: "flow" };
  expect(() => schedulerConfig(json)).toThrow(
    'thresholding true, beta_start "small", prediction_type "flow"',
  );
});

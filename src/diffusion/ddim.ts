import type { NoiseSchedule } from "./noise-schedule.ts";
import type { Sampler } from "./sampler.ts";
import type { SchedulerConfig } from "./scheduler-config.ts";
import { spacedTimesteps } from "./timesteps.ts";

/** Denoising diffusion implicit models; `eta` 1 is as random as DDPM. https://arxiv.org/abs/2010.02502 eq. 12, 16 */
export function ddimSampler(
  { alphasCumprod }: NoiseSchedule,
  config: SchedulerConfig,
  { steps, eta }: { steps: number; eta: number },
): Sampler {
  const timesteps = spacedTimesteps(config, config.timestepSpacing ?? "leading", steps);
  const stride = Math.floor(config.trainTimesteps / steps);
  const final = config.setAlphaToOne ? 1 : alphasCumprod[0]!;
  return {
    timesteps,
    initNoiseSigma: 1,
    scaleInput: (sample) => sample,
    step(output, sample, i, noise) {
      const now = alphasCumprod[timesteps[i]!]!;
      const next = timesteps[i]! >= stride ? alphasCumprod[timesteps[i]! - stride]! : final;
      const variance = ((1 - next) / (1 - now)) * (1 - now / next);
      const deviation = eta * Math.sqrt(variance);
      const [signal, direction] = [Math.sqrt(next), Math.sqrt(1 - next - deviation ** 2)];
      const split = predictions(config, now);
      return sample.map((x, j) => {
        const { clean, noise: predicted } = split(output[j]!, x);
        const added = deviation > 0 ? deviation * noise![j]! : 0;
        return signal * clean + direction * predicted + added;
      });
    },
  };
}

/** The clean sample and the noise that a network's output means, where the squared signal is `bar`. */
function predictions(
  { predictionType, clipRange = Infinity }: SchedulerConfig,
  bar: number,
): (output: number, x: number) => { clean: number; noise: number } {
  const [a, b] = [Math.sqrt(bar), Math.sqrt(1 - bar)];
  const clip = (value: number): number => Math.min(clipRange, Math.max(-clipRange, value));
  if (predictionType === "epsilon")
    return (output, x) => ({ clean: clip((x - b * output) / a), noise: output });
  if (predictionType === "sample")
    return (output, x) => ({ clean: clip(output), noise: (x - a * output) / b });
  return (output, x) => ({ clean: clip(a * x - b * output), noise: a * output + b * x });
}

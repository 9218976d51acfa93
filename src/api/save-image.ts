import { packageVersion } from "../host/package-version.ts";
import { writePng } from "../host/png-file.ts";
import type { SamplerName } from "../diffusion/sampler.ts";
import type { ImageSettings, MadeImage } from "./imagine.ts";

/** The samplers' names in AUTOMATIC1111. */
const TITLES: Readonly<Record<SamplerName, string>> = {
  ddim: "DDIM",
  euler: "Euler",
  "dpm++": "DPM++ 2M",
};

/**
 * Writes `image` as a PNG file that says how it was made: `parameters`, as AUTOMATIC1111 and its relatives read it, and
 * `lorikeet`, the settings as JSON.
 * @throws LorikeetError `disk-full`, `read-only`, `permission-denied`
 */
export async function saveImage(image: MadeImage, path: string): Promise<void> {
  await writePng(path, image, imageTexts(image.settings));
}

/** The texts of a PNG file with an image of `settings`, by keyword. */
export function imageTexts(settings: ImageSettings): Record<string, string> {
  return {
    parameters: parametersText(settings),
    lorikeet: JSON.stringify({ version: packageVersion(), ...settings }),
  };
}

/** Prompt with its adapters, negative prompt, settings: a line for each. */
function parametersText(settings: ImageSettings): string {
  const { prompt, negativePrompt, adapters, width, height } = settings;
  const loras = adapters.map(({ name, weight }) => ` <lora:${name}:${weight}>`);
  const fields: readonly [string, string | number][] = [
    ["Steps", settings.steps],
    ["Sampler", TITLES[settings.sampler]],
    ["CFG scale", settings.guidance],
    ["Seed", settings.seed],
    ["Size", `${width}x${height}`],
    ["Model", settings.model],
    ["Version", `lorikeet ${packageVersion()}`],
  ];
  return [
    prompt + loras.join(""),
    ...(negativePrompt === "" ? [] : [`Negative prompt: ${negativePrompt}`]),
    fields.map(([name, value]) => `${name}: ${value}`).join(", "),
  ].join("\n");
}

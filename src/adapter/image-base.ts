/** @file Which kind of base an image adapter, or a model, belongs to: told by the width of its text and its blocks. */

/** Stable Diffusion 1.x, 2.x, XL. */
export type ImageBase = "sd1" | "sd2" | "sdxl";

const WIDTHS: Readonly<Record<number, ImageBase>> = { 768: "sd1", 1024: "sd2", 2048: "sdxl" };
const NAMES: Readonly<Record<ImageBase, string>> = {
  sd1: "Stable Diffusion 1",
  sd2: "Stable Diffusion 2",
  sdxl: "Stable Diffusion XL",
};

/** The base that `modules`, with their numbers of input features, are of; undefined when they do not tell. */
export function imageBaseOf(modules: Iterable<readonly [string, number]>): ImageBase | undefined {
  let base: ImageBase | undefined;
  for (const [module, inFeatures] of modules) {
    if (/\.attn2\.to_[kv]$/.test(module) && WIDTHS[inFeatures]) return WIDTHS[inFeatures];
    // SD 1 and 2 have one layer in a block and no attention at the start of the way up
    if (/^text_encoder_2\.|^unet\.up_blocks\.0\.attentions|transformer_blocks\.[1-9]/.test(module))
      base = "sdxl";
  }
  return base;
}

/** `Stable Diffusion XL (text 2048 wide)`. */
export function describeImageBase(base: ImageBase): string {
  const [width] = Object.entries(WIDTHS).find(([, name]) => name === base)!;
  return `${NAMES[base]} (text ${width} wide)`;
}

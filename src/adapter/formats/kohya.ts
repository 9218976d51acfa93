import { LorikeetError } from "../../errors.ts";
import { faultsError } from "../../formats/faults.ts";
import { SDXL_LAYOUT, type UnetLayout } from "../../formats/stable-diffusion/unet-names.ts";
import { convert } from "../../tensor/convert.ts";
import { formatShape, type Shape } from "../../tensor/shape.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import type { Adapter } from "../adapter.ts";
import { type AdaptedModule, adapterOfModules, pairOf } from "../adapter-modules.ts";
import { baseOfAdapter, imageModules } from "../image-adapter.ts";
import { fromKohyaName, toKohyaName } from "./kohya-names.ts";
import { type LoraFile, METADATA } from "./lora-file.ts";

/** Where diffusers' metadata is kept: diffusers refuses files that have it and alphas. */
const KEPT = `lorikeet_${METADATA}`;

const PARTS: Readonly<Record<string, string>> = {
  "lora_down.weight": "lora_A.weight",
  "lora_up.weight": "lora_B.weight",
  dora_scale: "lora_magnitude_vector",
};

/** Whether a file with `names` is kohya's. */
export function isKohya(names: Iterable<string>): boolean {
  for (const name of names) if (/^lora_(unet|te1|te2|te)_/.test(name)) return true;
  return false;
}

/**
 * The adapter in a file of kohya's sd-scripts (also what ComfyUI and AUTOMATIC1111 share): `lora_unet_….lora_down.weight`,
 * `.lora_up.weight`, `.alpha`; an alpha that is absent or 0 counts as the rank.
 * https://github.com/kohya-ss/sd-scripts/blob/main/networks/lora.py
 * @throws LorikeetError `unsupported-lora-variant` for LyCORIS' other decompositions; `adapter-tensors` for unknown keys
 */
export function adapterFromKohya(
  { tensors, metadata }: LoraFile,
  layout: UnetLayout = SDXL_LAYOUT,
): Adapter {
  const found = new Map<string, { parts: Map<string, Tensor>; alpha: number | undefined }>();
  const unknown: string[] = [];
  for (const [key, value] of tensors) {
    const [, name, part] = /^([^.]+)\.(.+)$/.exec(key) ?? [];
    const module = name === undefined ? undefined : fromKohyaName(name, layout);
    if (module === undefined || (part !== "alpha" && !PARTS[part!])) {
      unknown.push(key);
      continue;
    }
    const entry = found.get(module) ?? { parts: new Map<string, Tensor>(), alpha: undefined };
    found.set(module, entry);
    if (part === "alpha") entry.alpha = Number(convert(value, "f32").data[0]) || undefined;
    else entry.parts.set(PARTS[part!]!, part === "dora_scale" ? asMagnitude(key, value) : value);
  }
  refuseUnknown(unknown);
  const { [KEPT]: kept, ...others } = metadata;
  return adapterOfModules(found, {
    metadata: { ...others, ...(kept !== undefined && { [METADATA]: kept }) },
  });
}

/**
 * `adapter` as kohya's file, each module with its alpha.
 * @throws LorikeetError `adapter-tensors` for modules of other models, and for biases, which kohya's files have none of
 */
export function adapterToKohya(
  adapter: Adapter,
  { isXl, layout = SDXL_LAYOUT }: { isXl: boolean; layout?: UnetLayout },
): LoraFile {
  const tensors = new Map<string, Tensor>();
  const faults: string[] = [];
  const modules = imageModules(adapter);
  for (const [module, { parts, alpha }] of modules) {
    const name = toKohyaName(module, { isXl, layout });
    if (name === undefined || parts.has("lora_B.bias")) {
      faults.push(module);
      continue;
    }
    const { a, b } = pairOf(parts);
    tensors.set(`${name}.alpha`, tensor("f32", [], Float32Array.of(alpha!)));
    tensors.set(`${name}.lora_down.weight`, a);
    tensors.set(`${name}.lora_up.weight`, b);
    const magnitude = parts.get("lora_magnitude_vector");
    if (magnitude) tensors.set(`${name}.dora_scale`, asDoraScale(magnitude, a.shape));
  }
  if (faults.length > 0)
    throw faultsError(
      "adapter-tensors",
      "an adapter of a Stable Diffusion pipeline without biases",
      faults,
      "Save it as PEFT's instead.",
    );
  return { tensors, metadata: metadataOf(adapter, modules, isXl) };
}

function metadataOf(
  adapter: Adapter,
  modules: ReadonlyMap<string, AdaptedModule>,
  isXl: boolean,
): Readonly<Record<string, string>> {
  const { config } = adapter;
  const { [METADATA]: kept, ...others } = adapter.metadata ?? {};
  const hasConvolutions = [...modules.values()].some(
    ({ parts }) => (pairOf(parts).a.shape[2] ?? 1) > 1,
  );
  const isV2 = !isXl && baseOfAdapter(adapter) === "sd2";
  return {
    ss_network_module: "networks.lora",
    ss_network_dim: String(config.r),
    ss_network_alpha: String(config.alpha),
    ss_base_model_version: isXl ? "sdxl_base_v1-0" : isV2 ? "sd_v2" : "sd_v1",
    ss_v2: isV2 ? "True" : "False",
    ...(hasConvolutions && { ss_network_args: JSON.stringify({ conv_dim: String(config.r) }) }),
    ...others,
    ...(kept !== undefined && { [KEPT]: kept }),
  };
}

/**
 * (out, 1) and (out, 1, 1, 1) as PEFT has them: (out) and (1, out, 1, 1).
 * @throws LorikeetError `unsupported-lora-variant` for the norms of LyCORIS over outputs, (1, in)
 */
function asMagnitude(key: string, value: Tensor): Tensor {
  if (value.shape.length > 1 && value.shape[0] === 1 && value.data.length > 1)
    throw new LorikeetError(
      "unsupported-lora-variant",
      `Expected DoRA's norms for each output, (out, 1), got ${key} of ${formatShape(value.shape)}, one for each input`,
      { hint: "LyCORIS trains DoRA of this kind with wd_on_out=True." },
    );
  const out = value.data.length;
  return tensor(value.dtype, value.shape.length > 2 ? [1, out, 1, 1] : [out], value.data);
}

function asDoraScale(value: Tensor, down: Shape): Tensor {
  const shape = [value.data.length, ...down.slice(1).map(() => 1)];
  return tensor(value.dtype, shape, value.data);
}

function refuseUnknown(unknown: readonly string[]): void {
  if (unknown.length === 0) return;
  const other = unknown.find((key) => /\.(hada_|lokr_|lora_mid|oft_|on_input|diff)/.test(key));
  if (other !== undefined)
    throw new LorikeetError(
      "unsupported-lora-variant",
      `Expected plain LoRA, got a decomposition of LyCORIS: ${other}`,
      { hint: "Merge it into the model with its own tool and use the merged model." },
    );
  throw faultsError(
    "adapter-tensors",
    "the keys of a LoRA for a UNet and its text encoders",
    unknown,
    "Adapters of FLUX, SD 3 and video models are not supported.",
  );
}

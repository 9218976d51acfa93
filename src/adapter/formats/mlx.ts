import { LorikeetError } from "../../errors.ts";
import { faultsError } from "../../formats/faults.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import { type Adapter, peftKey } from "../adapter.ts";
import { adapterModules, pairOf } from "../adapter-modules.ts";
import { changesBase } from "../init/initial-part.ts";
import { lora } from "../lora-config.ts";
import { siteOf } from "../targets.ts";

/** An adapter as mlx-lm stores it: adapter_config.json and the tensors of adapters.safetensors. */
export interface MlxAdapter {
  readonly config: Readonly<Record<string, unknown>>;
  readonly tensors: ReadonlyMap<string, Tensor>;
}

const LAYER = /^(.*\.layers\.)(\d+)\.(.+)$/;

/**
 * `adapter` for mlx-lm: lora_a (in, r), lora_b (r, out), one rank and one scale for all. Smaller ranks are filled with
 * zeros and other scales go into lora_b, which changes nothing of what is computed.
 * https://github.com/ml-explore/mlx-lm/blob/main/mlx_lm/tuner/lora.py
 * @param layerCount layers of the base: mlx-lm counts adapted layers from the last
 * @throws LorikeetError `unsupported-mlx` listing what mlx-lm has no place for
 */
export function adapterToMlx(adapter: Adapter, layerCount: number): MlxAdapter {
  const modules = adapterModules(adapter);
  const faults = [...modules.whole.keys(), ...modules.rows.keys()].map((name) => `trained weight ${name}`); // prettier-ignore
  if (changesBase(adapter.config.init)) faults.push(`${String(adapter.config.init)}, which changes the base first`); // prettier-ignore
  for (const [module, parts] of modules.lora) {
    if (!LAYER.test(module)) faults.push(`${module}: not in a layer of the model`);
    if (parts.has("lora_B.bias")) faults.push(`${module}: a bias of B`);
    if (pairOf(parts).a.shape.length !== 2) faults.push(`${module}: a convolution`);
  }
  if (faults.length > 0)
    throw faultsError("unsupported-mlx", "an adapter that mlx-lm can apply", faults, "Merge it instead: lorikeet merge."); // prettier-ignore
  const entries = [...modules.lora];
  const sites = entries.map(([module]) => siteOf(adapter.config, module));
  const rank = Math.max(...entries.map(([, parts]) => pairOf(parts).a.shape[0]!));
  const scale = sites[0]!.scale;
  const tensors = new Map<string, Tensor>();
  for (const [index, [module, parts]] of entries.entries()) {
    const { a, b } = pairOf(parts);
    const factor = sites[index]!.scale / scale;
    tensors.set(`${module}.lora_a`, padded(transposed(a), [a.shape[1]!, rank]));
    tensors.set(`${module}.lora_b`, padded(scaled(transposed(b), factor), [rank, b.shape[0]!]));
    const magnitude = parts.get("lora_magnitude_vector");
    if (magnitude) tensors.set(`${module}.m`, magnitude);
  }
  const found = entries.map(([module]) => LAYER.exec(module)!);
  const first = Math.min(...found.map((match) => Number(match[2])));
  const config = {
    fine_tune_type: adapter.config.useDora ? "dora" : "lora",
    num_layers: layerCount - first,
    lora_parameters: {
      keys: [...new Set(found.map((match) => match[3]!))],
      rank,
      scale,
      dropout: adapter.config.dropout,
    },
    ...(adapter.config.baseModel !== undefined && { model: adapter.config.baseModel }),
  };
  return { config, tensors };
}

/**
 * An adapter of mlx-lm as PEFT's: alpha = scale · rank.
 * @throws LorikeetError `adapter-config` when the configuration names no scale; `adapter-tensors` for unknown tensors
 */
export function adapterFromMlx({ config, tensors }: MlxAdapter): Adapter {
  const parameters = (config["lora_parameters"] ?? {}) as Readonly<Record<string, unknown>>;
  const scale = parameters["scale"] ?? config["scale"];
  if (typeof scale !== "number")
    throw new LorikeetError("adapter-config", "Expected adapter_config.json of mlx-lm to give lora_parameters.scale, found none", { hint: "Take the adapter_config.json that mlx_lm wrote, or add {\"lora_parameters\": {\"scale\": …}} of the run." }); // prettier-ignore
  const out = new Map<string, Tensor>();
  const names = new Map([
    ["lora_a", "lora_A.weight"],
    ["lora_b", "lora_B.weight"],
    ["m", "lora_magnitude_vector"],
  ]);
  const modules = new Set<string>();
  const unknown: string[] = [];
  let rank = 0;
  for (const [key, value] of tensors) {
    const [, module, part] = /^(.+)\.([^.]+)$/.exec(key) ?? [];
    const name = names.get(part ?? "");
    if (module === undefined || name === undefined || value.shape.length > 2) unknown.push(key);
    else {
      modules.add(module);
      if (part === "lora_a") rank = Math.max(rank, value.shape[1]!);
      out.set(peftKey(module, name), part === "m" ? value : transposed(value));
    }
  }
  if (unknown.length > 0)
    throw faultsError("adapter-tensors", "only lora_a, lora_b and m of linear layers", unknown, "Fused weights and experts of mlx-lm are not supported."); // prettier-ignore
  return {
    config: lora({
      r: rank,
      alpha: scale * rank,
      dropout: Number(parameters["dropout"] ?? 0),
      targetModules: [...modules],
      useDora: config["fine_tune_type"] === "dora",
      ...(typeof config["model"] === "string" && { baseModel: config["model"] }),
    }),
    tensors: out,
  };
}

function transposed(source: Tensor): Tensor {
  const [rows, columns] = source.shape as [number, number];
  const values = toFloat32(source);
  const out = new Float32Array(values.length);
  for (let i = 0; i < rows; i++)
    for (let j = 0; j < columns; j++) out[j * rows + i] = values[i * columns + j]!;
  return tensor("f32", [columns, rows], out);
}

function scaled(source: Tensor, factor: number): Tensor {
  if (factor === 1) return source;
  return tensor("f32", source.shape, toFloat32(source).map((value) => value * factor)); // prettier-ignore
}

/** `source` in the upper left of zeros. */
function padded(source: Tensor, shape: readonly [number, number]): Tensor {
  const [rows, columns] = source.shape as [number, number];
  if (rows === shape[0] && columns === shape[1]) return source;
  const out = new Float32Array(shape[0] * shape[1]);
  const values = toFloat32(source);
  for (let i = 0; i < rows; i++)
    out.set(values.subarray(i * columns, (i + 1) * columns), i * shape[1]);
  return tensor("f32", shape, out);
}

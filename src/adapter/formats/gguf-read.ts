import { LorikeetError } from "../../errors.ts";
import { faultsError } from "../../formats/faults.ts";
import { getNumber, getString } from "../../formats/gguf/metadata.ts";
import { asGgufArchitecture, type GgufArchitecture, toHfName } from "../../formats/gguf/names.ts";
import { undoGgufTransform } from "../../formats/gguf/transform.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { Adapter } from "../adapter.ts";
import { type AdaptedModule, adapterOfModules } from "../adapter-modules.ts";
import { type GgufAdapter, type GgufAdapterBase, headsOf } from "./gguf.ts";

/**
 * An adapter file of llama.cpp as PEFT's; llama.cpp scales by alpha / rank of each tensor, and by 1 without an alpha.
 * @param config the base's config.json, which says how rows of query and key heads are ordered. Without it they stay as
 * they are: good for looking at, not for use.
 * @throws LorikeetError `unsupported-gguf` for a file that is no LoRA adapter; `adapter-tensors` listing tensors of no
 * known layer; `unsupported-architecture`
 */
export function adapterFromGguf(
  { metadata, tensors }: GgufAdapter,
  config: GgufAdapterBase["config"] | undefined,
): Adapter {
  const kind = [getString(metadata, "general.type"), getString(metadata, "adapter.type")].join(" ");
  if (kind !== "adapter lora")
    throw new LorikeetError(
      "unsupported-gguf",
      `Expected a GGUF file whose general.type is "adapter" and adapter.type "lora", got "${kind}"`,
      { hint: "A GGUF file of a whole model goes where a model is asked for: --model." },
    );
  const architecture = asGgufArchitecture(getString(metadata, "general.architecture"));
  const alpha = getNumber(metadata, "adapter.lora.alpha") || undefined; // 0 is none, too
  const modules = new Map<string, AdaptedModule & { readonly parts: Map<string, Tensor> }>();
  const unknown: string[] = [];
  for (const [name, value] of tensors) {
    const placed = placeOf(name, value, { architecture, config });
    if (!placed) {
      unknown.push(name);
      continue;
    }
    const own = modules.get(placed.module) ?? { parts: new Map<string, Tensor>(), alpha };
    modules.set(placed.module, own);
    own.parts.set(placed.part, placed.value);
  }
  if (unknown.length > 0)
    throw faultsError("adapter-tensors", `only LoRA tensors of ${architecture}'s layers`, unknown, "The file is damaged, or of a variant that is not supported."); // prettier-ignore
  const name = getString(metadata, "general.base_model.0.name");
  return adapterOfModules(modules, { taskType: "CAUSAL_LM", ...(name !== undefined && { baseModel: name }) }); // prettier-ignore
}

/** Module, PEFT's part and value of the tensor `name`; undefined for one that is no LoRA factor of a known layer. */
function placeOf(
  name: string,
  value: Tensor,
  { architecture, config }: { architecture: GgufArchitecture; config: GgufAdapterBase["config"] | undefined }, // prettier-ignore
): { module: string; part: string; value: Tensor } | undefined {
  const [, weight = "", letter] = /^(.+)\.lora_([ab])$/.exec(name) ?? [];
  const found = toHfName(architecture, weight);
  if (!found || letter === undefined) return undefined;
  const module = found.name.replace(/\.weight$/, "");
  const factor = letter.toUpperCase();
  if (weight.startsWith("token_embd.")) {
    const turned = letter === "a" ? undoGgufTransform(value, "transpose", NO_HEADS) : value;
    return { module, part: `lora_embedding_${factor}`, value: turned };
  }
  const isPermuted = letter === "b" && found.transform.startsWith("permute");
  const ordered = isPermuted && config ? undoGgufTransform(value, found.transform, headsOf(config)) : value; // prettier-ignore
  return { module, part: `lora_${factor}.weight`, value: ordered };
}

const NO_HEADS = { heads: 1, keyValueHeads: 1 };

import { describe, expect, it } from "vitest";
import { loraTargets } from "../../models/lora-targets.ts";
import { causalLM } from "../../models/registry.ts";
import { loraCandidates } from "../../passes/lora.ts";
import { Random } from "../../tensor/random.ts";
import { tensor, type Tensor } from "../../tensor/tensor.ts";
import { toFloat32 } from "../../tensor/convert.ts";
import { type Adapter, peftKey } from "../adapter.ts";
import { adapterModules, pairOf } from "../adapter-modules.ts";
import { lora, type LoraConfig } from "../lora-config.ts";
import { resolveTargets, siteOf } from "../targets.ts";
import { adapterToGguf, type GgufAdapterBase } from "./gguf.ts";
import { adapterFromGguf } from "./gguf-read.ts";

const config = {
  model_type: "llama",
  vocab_size: 16,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
  tie_word_embeddings: false,
};

function baseOf(modelType: string): GgufAdapterBase {
  const own = { ...config, model_type: modelType };
  const model = causalLM(own, { batch: 1, length: 1 });
  return { config: own, layers: loraCandidates([model.head(model.hidden)]) };
}

function adapterOn({ layers }: GgufAdapterBase, options: Partial<LoraConfig>): Adapter {
  const settings = lora({ r: 4, alpha: 8, targetModules: "all-linear", ...options });
  const tensors = new Map<string, Tensor>();
  for (const [module, { rank }] of resolveTargets(settings, layers, loraTargets("llama"))) {
    const layer = layers.find((candidate) => candidate.module === module)!;
    const random = new Random(3).fork(module);
    const normal = (shape: number[]): Tensor =>
      tensor("f32", shape, Float32Array.from({ length: shape[0]! * shape[1]! }, () => random.normal())); // prettier-ignore
    tensors.set(peftKey(module, "lora_A.weight"), normal([rank, layer.inFeatures]));
    tensors.set(peftKey(module, "lora_B.weight"), normal([layer.outFeatures, rank]));
  }
  return { config: settings, tensors };
}

/** scale · B of each module, and A: what an adapter does, however its scale is told. */
function effects(adapter: Adapter): Map<string, number[]> {
  const { lora: modules } = adapterModules(adapter);
  return new Map(
    [...modules].map(([module, parts]) => {
      const { a, b } = pairOf(parts);
      const { scale } = siteOf(adapter.config, module);
      return [module, [...toFloat32(a), ...toFloat32(b).map((value) => value * scale)]];
    }),
  );
}

const variants: [string, Partial<LoraConfig>][] = [
  ["one rank and alpha", {}],
  ["ranks by pattern", { rankPattern: { q_proj: 2, down_proj: 6 } }],
  ["alphas by pattern", { alphaPattern: { "1.self_attn.v_proj": 32 } }],
  ["a rank-stabilised scale", { useRslora: true }],
];

describe.each(["llama", "qwen2"])("a GGUF adapter of %s read again", (modelType) => {
  it.each(variants)("does the same: %s", (_, options) => {
    const base = baseOf(modelType);
    const adapter = adapterOn(base, options);
    const again = adapterFromGguf(adapterToGguf(adapter, base), base.config);
    const [want, got] = [effects(adapter), effects(again)];
    expect([...got.keys()].sort()).toEqual([...want.keys()].sort());
    for (const [module, values] of want)
      got.get(module)!.forEach((value, i) => {
        expect(value, `${module} ${i}`).toBeCloseTo(values[i]!, 5);
      });
  });
});

it("rows of query heads are those of the file unless the base is known", () => {
  const base = baseOf("llama");
  const stored = adapterToGguf(adapterOn(base, {}), base);
  const key = peftKey("model.layers.0.self_attn.q_proj", "lora_B.weight");
  const raw = adapterFromGguf(stored, undefined).tensors.get(key)!;
  expect(raw.data).toEqual(stored.tensors.get("blk.0.attn_q.weight.lora_b")!.data);
  expect(adapterFromGguf(stored, base.config).tensors.get(key)!.data).not.toEqual(raw.data);
});

it("refuses a whole model, an unknown architecture, and tensors of no layer", () => {
  const base = baseOf("llama");
  const { metadata, tensors } = adapterToGguf(adapterOn(base, {}), base);
  const without = (key: string): typeof metadata => new Map([...metadata].filter(([name]) => name !== key)); // prettier-ignore
  const read = (file: { metadata: typeof metadata; tensors: typeof tensors }) => (): Adapter =>
    adapterFromGguf(file, base.config);
  expect(read({ metadata: without("general.type"), tensors })).toThrow("general.type");
  const other = new Map(metadata).set("general.architecture", { type: "string", value: "rwkv" });
  expect(read({ metadata: other, tensors })).toThrow('got "rwkv"');
  const strange = new Map(tensors).set("blk.0.ssm_in.weight.lora_a", tensor("f32", [1], new Float32Array(1))); // prettier-ignore
  expect(read({ metadata, tensors: strange })).toThrow("blk.0.ssm_in.weight.lora_a");
});

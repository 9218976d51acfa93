import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { type Adapter, decodeAdapter, encodeAdapter, peftKey } from "../src/adapter/adapter.ts";
import { resolveTargets } from "../src/adapter/targets.ts";
import { interpret } from "../src/backends/reference/interpret.ts";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import { topological } from "../src/ir/graph.ts";
import type { Node } from "../src/ir/node.ts";
import type { HfConfig } from "../src/models/config.ts";
import { causalLM } from "../src/models/registry.ts";
import { crossEntropy } from "../src/ops/cross-entropy.ts";
import { gatherRows } from "../src/ops/gather-rows.ts";
import { input, isTrainable } from "../src/ops/leaf.ts";
import { checkpoint } from "../src/passes/checkpoint.ts";
import { cse } from "../src/passes/cse.ts";
import { gradient } from "../src/passes/gradient.ts";
import { insertLora, loraCandidates } from "../src/passes/lora.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";

const root = join(import.meta.dirname, "..");
const golden = join(import.meta.dirname, "golden");
let weights: ReadonlyMap<string, Tensor>;
let config: HfConfig;

beforeAll(async () => {
  const model = join(root, "models/storyteller-6m");
  weights = (await decodeSafetensors(await readFile(join(model, "model.safetensors")))).tensors;
  config = JSON.parse(await readFile(join(model, "config.json"), "utf8")) as HfConfig;
});

async function adapterOf(name: string, folder: string): Promise<Adapter> {
  const path = join(golden, name, folder);
  return decodeAdapter(
    await readFile(join(path, "adapter_config.json"), "utf8"),
    await readFile(join(path, "adapter_model.safetensors")),
  );
}

const [B, T] = [2, 40];

/** The adapted model: logits of every token, and the mean loss of the next one. */
function build(adapter: Adapter): { logits: Node; loss: Node; params: Node[] } {
  const model = causalLM(config, { batch: B, length: T });
  const plain = model.head(model.hidden);
  const sites = resolveTargets(adapter.config, loraCandidates([plain]), {
    defaults: [],
    head: "lm_head",
  });
  const [logits] = insertLora([plain], sites, { nameOf: peftKey }) as [Node];
  const R = B * (T - 1);
  const rows = gatherRows(logits, input("loss_rows", [R], "i64"));
  const loss = crossEntropy(rows, input("targets", [R], "i64"), input("loss_weights", [R]));
  return { logits, loss, params: topological([logits]).filter(isTrainable) };
}

function feedsOf(ids: Tensor): Record<string, Tensor> {
  const rows = Array.from({ length: B * T }, (_, i) => i).filter((i) => i % T < T - 1);
  return {
    input_ids: ids,
    position_ids: tensor(
      "f64",
      [B, T],
      Float64Array.from({ length: B * T }, (_, i) => i % T),
    ),
    loss_rows: tensor("f64", [rows.length], Float64Array.from(rows)),
    targets: tensor(
      "f64",
      [rows.length],
      Float64Array.from(rows, (i) => Number(ids.data[i + 1])),
    ),
    loss_weights: tensor("f64", [rows.length], new Float64Array(rows.length).fill(1 / rows.length)),
  };
}

// the two small cases here, in float64; test/golden.onnx.test.ts has all five on the default engine
describe.each(["patterns", "layers"])("PEFT golden values: %s", (name) => {
  it("adapter logits, loss and every gradient, with and without checkpointing", async () => {
    const want = (await decodeSafetensors(await readFile(join(golden, name, "golden.safetensors"))))
      .tensors;
    const adapter = await adapterOf(name, "adapter");
    const { logits, loss, params } = build(adapter);
    expect(new Set(params.map((param) => param.name))).toEqual(new Set(adapter.tensors.keys()));
    const result = gradient(loss, params);
    const again = checkpoint(result.loss, result.gradients);
    const roots = cse([logits, result.loss, ...result.gradients, again[0]!]);
    const feeds = feedsOf(want.get("input_ids")!);
    const values = interpret(
      roots,
      (leaf) => feeds[leaf] ?? adapter.tensors.get(leaf) ?? weights.get(leaf)!,
    );

    const tokens = [...want.get("logit_tokens")!.data].map(Number);
    const V = logits.shape[1]!;
    toFloat64(want.get("adapter_logits")!).forEach((value, i) => {
      const column = tokens[i % tokens.length]!;
      expect(
        Math.abs(values[0]!.data[Math.floor(i / tokens.length) * V + column]! - value),
      ).toBeLessThan(1e-4);
    });
    expect(Math.abs(values[1]!.data[0]! - Number(want.get("loss")!.data[0]))).toBeLessThan(1e-5);
    params.forEach((param, i) => {
      const got = values[2 + i]!.data;
      const norm = Number(want.get(`grad_norm.${param.name!}`)!.data[0]);
      expect(Math.abs(Math.hypot(...got) - norm)).toBeLessThan(1e-4 * norm);
      const known = want.get(`grad.${param.name!}`);
      if (!known) return;
      const error = Math.hypot(...toFloat64(known).map((value, j) => value - got[j]!));
      expect(error).toBeLessThan(1e-4 * norm);
    });
    expect(values.at(-1)!.data).toEqual(values[2]!.data);
  });

  it("adapter files are written as they were read, byte for byte", async () => {
    const path = join(golden, name, "adapter");
    const encoded = encodeAdapter(await adapterOf(name, "adapter"));
    expect(JSON.parse(encoded.config)).toEqual(
      JSON.parse(await readFile(join(path, "adapter_config.json"), "utf8")),
    );
    expect(
      Buffer.from(encoded.weights).equals(await readFile(join(path, "adapter_model.safetensors"))),
    ).toBe(true);
  });
});

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { peftKey } from "../src/adapter/adapter.ts";
import { type Dense, product } from "../src/adapter/linear-algebra.ts";
import { initialAdapter } from "../src/adapter/initial-adapter.ts";
import { type AdapterJson, parsePeftConfig } from "../src/adapter/peft-config.ts";
import { loadModel } from "../src/api/load-model.ts";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import type { Tensor } from "../src/tensor/tensor.ts";

const folder = join(import.meta.dirname, "fixtures");
interface Case {
  readonly config: AdapterJson;
  readonly loftq_iter: number;
}
const cases = JSON.parse(readFileSync(join(folder, "loftq.json"), "utf8")) as Record<string, Case>;
const { tensors } = await decodeSafetensors(readFileSync(join(folder, "loftq.safetensors")));

function dense(value: Tensor): Dense {
  const [rows, columns] = value.shape as [number, number];
  return { rows, columns, data: toFloat64(value) };
}

function largest(got: Float64Array, want: Float64Array): number {
  return want.reduce((most, value, i) => Math.max(most, Math.abs(value - got[i]!)), 0);
}

describe.each(Object.entries(cases))("LoftQ, %s", (name, { config, loftq_iter }) => {
  it("leaves PEFT's base, starts with its B·A, and gives its logits", async () => {
    const base = await loadModel(join(folder, "models/llama"), { threads: 1 });
    const lora = parsePeftConfig({
      ...config,
      peft_type: "LORA",
      init_lora_weights: "loftq",
      loftq_config: { loftq_bits: 4, loftq_iter },
    });
    const start = await initialAdapter(lora, base.base, { seed: 1 });
    const model = base.withAdapter(start);
    const prefix = `${name}.base.`;
    const modules = [...tensors.keys()].filter((key) => key.startsWith(prefix));
    expect(start.tensors.size).toBe(2 * modules.length);
    for (const module of modules.map((key) => key.slice(prefix.length))) {
      // the levels of NF4 times the largest value of a block, in float32
      const left = toFloat64(await model.weights.read(`${module}.weight`));
      expect(largest(left, toFloat64(tensors.get(prefix + module)!)), module).toBeLessThan(1e-7);
      const [a, b] = ["lora_A", "lora_B"].map((part) => dense(start.tensors.get(peftKey(module, `${part}.weight`))!)); // prettier-ignore
      const delta = toFloat64(tensors.get(`${name}.delta.${module}`)!);
      expect(largest(product(b!, a!).data, delta), module).toBeLessThan(1e-6);
    }
    const ids = tensors.get("input_ids")!;
    const length = ids.shape[1]!;
    const rows = Array.from({ length: ids.shape[0]! }, (_, row) => Array.from(ids.data.subarray(row * length, (row + 1) * length) as never, Number)); // prettier-ignore
    const logits = toFloat64(await model.logits(rows));
    expect(largest(logits, toFloat64(tensors.get(`${name}.logits`)!))).toBeLessThan(1e-4);
    await model.dispose();
  });
});

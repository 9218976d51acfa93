import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { adapterModules, pairOf } from "../src/adapter/adapter-modules.ts";
import type { Adapter } from "../src/adapter/adapter.ts";
import { type Dense, product } from "../src/adapter/linear-algebra.ts";
import { plainLora } from "../src/adapter/plain-lora.ts";
import { siteOf } from "../src/adapter/targets.ts";
import { loadModel } from "../src/api/load-model.ts";
import { unmerge } from "../src/api/unmerge.ts";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import { loadAdapterFolder } from "../src/host/adapter-files.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import type { Tensor } from "../src/tensor/tensor.ts";

const fixtures = join(import.meta.dirname, "fixtures");

/** ΔW of each module, by name. */
function changes(adapter: Adapter): Map<string, Float64Array> {
  const dense = ({ shape, data, dtype }: Tensor): Dense => ({ rows: shape[0]!, columns: shape[1]!, data: toFloat64({ shape, data, dtype }) }); // prettier-ignore
  return new Map(
    [...adapterModules(adapter).lora].map(([module, parts]) => {
      const { a, b } = pairOf(parts);
      const { scale } = siteOf(adapter.config, module);
      return [module, product(dense(b), dense(a)).data.map((value) => scale * value)];
    }),
  );
}

describe.each(["init-pissa", "init-olora"])("%s as plain LoRA of the untouched base", (name) => {
  it("has PEFT's rank, alpha and changes of every weight, and its logits", async () => {
    const folder = join(fixtures, "adapters", name);
    const base = await loadModel(join(fixtures, "models/llama"), { threads: 1 });
    const adapter = await loadAdapterFolder(join(folder, "adapter"));
    const { sites } = base.withAdapter(adapter).plan;
    const plain = await plainLora(adapter, base.weights, { layers: base.layers, sites });
    const theirs = await loadAdapterFolder(join(folder, "converted"));
    expect(plain.config).toMatchObject({ init: true, r: theirs.config.r, alpha: theirs.config.alpha }); // prettier-ignore
    const [got, want] = [changes(plain), changes(theirs)];
    expect([...got.keys()].sort()).toEqual([...want.keys()].sort());
    for (const [module, delta] of want) {
      const error = Math.hypot(...delta.map((x, i) => x - got.get(module)![i]!));
      // PEFT's decomposition is float32
      expect(error / Math.hypot(...delta), module).toBeLessThan(1e-4);
    }
    const { tensors } = await decodeSafetensors(await readFile(join(folder, "expected.safetensors"))); // prettier-ignore
    const ids = tensors.get("input_ids")!;
    const length = ids.shape[1]!;
    const rows = Array.from({ length: ids.shape[0]! }, (_, b) => Array.from(ids.data.subarray(b * length, (b + 1) * length) as never, Number)); // prettier-ignore
    const model = base.withAdapter(plain);
    const logits = toFloat64(await model.logits(rows));
    const expected = toFloat64(tensors.get("converted_logits")!);
    // PEFT's SVD is float32, which moves its own logits by 1.1e-4
    const bound = name === "init-pissa" ? 2e-4 : 1e-4;
    expect(Math.max(...expected.map((x, i) => Math.abs(x - logits[i]!)))).toBeLessThan(bound);
    await model.dispose();
  });
});

it.each(["init-pissa", "init-olora"])(
  "%s is not taken out of a merged model as it is",
  async (name) => {
    const base = await loadModel(join(fixtures, "models/llama"));
    const adapter = await loadAdapterFolder(join(fixtures, "adapters", name, "adapter"));
    const out = join(tmpdir(), `lorikeet-unmerged-${name}`);
    await expect(unmerge(base, adapter, out)).rejects.toMatchObject({
      code: "cannot-unmerge",
      hint: expect.stringContaining("--plain") as string,
    });
    expect(existsSync(out)).toBe(false);
  },
);

it("refuses LoftQ, whose base is quantized", async () => {
  const base = await loadModel(join(fixtures, "models/llama"));
  const adapter = await loadAdapterFolder(join(fixtures, "adapters/init-olora/adapter"));
  const loftq = { ...adapter, config: { ...adapter.config, init: "loftq" as const } };
  const layers = { layers: base.layers, sites: new Map() };
  await expect(plainLora(loftq, base.weights, layers)).rejects.toMatchObject({
    code: "plain-lora",
  });
});

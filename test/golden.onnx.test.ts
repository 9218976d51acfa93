import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeAdapter } from "../src/adapter/adapter.ts";
import { lossFeeds } from "../src/api/feeds.ts";
import { createModel, type Model } from "../src/api/model.ts";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import { openFolder } from "../src/host/open-checkpoint.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import { trainingGraph } from "../src/train/plan.ts";
import type { Tensor } from "../src/tensor/tensor.ts";

const golden = join(import.meta.dirname, "golden");
let base: Model;

beforeAll(async () => {
  base = createModel(await openFolder(join(import.meta.dirname, "../models/storyteller-6m")));
});
afterAll(() => base.dispose());

async function values(path: string): Promise<ReadonlyMap<string, Tensor>> {
  return (await decodeSafetensors(await readFile(path))).tensors;
}

async function withAdapter(name: string, folder: string): Promise<Model> {
  const path = join(golden, name, folder);
  const config = await readFile(join(path, "adapter_config.json"), "utf8");
  return base.withAdapter(
    await decodeAdapter(config, await readFile(join(path, "adapter_model.safetensors"))),
  );
}

function rowsOf({ shape, data }: Tensor): number[][] {
  const T = shape[1]!;
  return Array.from({ length: shape[0]! }, (_, b) =>
    Array.from(data.subarray(b * T, (b + 1) * T) as never, Number),
  );
}

/** Largest absolute difference between `logits` [B, T, V] at the columns `tokens` and `want` [B, T, n]. */
function logitError(logits: Tensor, want: Tensor, tokens: readonly number[]): number {
  const V = logits.shape[2]!;
  return toFloat64(want).reduce((largest, value, i) => {
    const at = Math.floor(i / tokens.length) * V + tokens[i % tokens.length]!;
    return Math.max(largest, Math.abs(Number(logits.data[at]) - value));
  }, 0);
}

it("base logits", async () => {
  const want = await values(join(golden, "base.safetensors"));
  const logits = await base.logits(rowsOf(want.get("input_ids")!));
  const tokens = [...want.get("logit_tokens")!.data].map(Number);
  expect(logitError(logits, want.get("base_logits")!, tokens)).toBeLessThan(1e-4);
});

describe.each(["lora", "rslora", "dora", "patterns", "layers"])(
  "PEFT golden values on the default engine: %s",
  (name) => {
    let model: Model;
    let want: ReadonlyMap<string, Tensor>;
    beforeAll(async () => {
      model = await withAdapter(name, "adapter");
      want = await values(join(golden, name, "golden.safetensors"));
    });
    afterAll(() => model.dispose());

    it("adapter logits", async () => {
      const tokens = [...want.get("logit_tokens")!.data].map(Number);
      const logits = await model.logits(rowsOf(want.get("input_ids")!));
      expect(logitError(logits, want.get("adapter_logits")!, tokens)).toBeLessThan(1e-4);
    });

    it("loss and every gradient", async () => {
      const { loss, gradients } = await model.lossAndGradients({
        inputIds: rowsOf(want.get("input_ids")!),
      });
      expect(Math.abs(loss - Number(want.get("loss")!.data[0]))).toBeLessThan(1e-5);
      expect(new Set(gradients.keys())).toEqual(new Set(model.adapter!.tensors.keys()));
      for (const [key, gradient] of gradients) {
        const stored = want.get(`grad_norm.${key}`) ?? want.get(`grad_norm.${key}.weight`);
        const norm = Number(stored!.data[0]);
        expect(Math.abs(Math.hypot(...toFloat64(gradient)) - norm), key).toBeLessThan(1e-4 * norm);
        const known = want.get(`grad.${key}`) ?? want.get(`grad.${key}.weight`);
        if (!known) continue;
        const error = Math.hypot(
          ...toFloat64(known).map((value, i) => value - Number(gradient.data[i])),
        );
        expect(error, key).toBeLessThan(1e-4 * norm);
      }
    });

    it("the loss of ten AdamW steps, and the adapter after them", async () => {
      const rows = rowsOf(want.get("input_ids")!);
      const feeds = lossFeeds(rows, rows);
      const after = await withAdapter(name, "adapter_after10");
      const engine = await model.openEngine();
      const shape = {
        batch: rows.length,
        length: rows[0]!.length,
        rows: feeds["targets"]!.shape[0]!,
        hasSegments: false,
      };
      const program = await engine.compile(trainingGraph(model.plan, shape));
      for (const [i, loss] of toFloat64(want.get("losses10")!).entries()) {
        const got = await program.run(feeds);
        expect(Math.abs(Number(got["loss"]!.data[0]) - loss)).toBeLessThan(1e-4);
        await engine.applyGradients({
          step: i + 1,
          learningRate: 1e-3,
          betas: [0.9, 0.999],
          eps: 1e-8,
          weightDecay: 0.01,
          maxGradNorm: Infinity,
        });
      }
      for (const [key, value] of after.adapter!.tensors) {
        const got = toFloat64(await engine.get(key));
        const error = Math.hypot(...toFloat64(value).map((x, j) => x - got[j]!));
        // Adam divides by the gradient's own size, so where it is near zero float32 noise moves a weight by up to a step
        expect(error, key).toBeLessThan(5e-3 * Math.hypot(...toFloat64(value)));
      }
      await engine.dispose();
    });
  },
);

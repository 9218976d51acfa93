/**
 * @file How long it takes to put another adapter in the place of a loaded one, without compiling anything: a bank of
 * adapters (openAdapters) on storyteller-6m, ranks padded to the bank's. Run by hand; prints a Markdown table.
 *
 *   node --import ./scripts/typescript.js bench/adapter-swap.ts [MODEL] > bench/results/adapter-swap.md
 */
import { cpus } from "node:os";
import { type Adapter, peftKey } from "../src/adapter/adapter.ts";
import { lora } from "../src/adapter/lora-config.ts";
import { openAdapters } from "../src/api/adapters.ts";
import { loadModel } from "../src/api/load-model.ts";
import type { Model } from "../src/api/model.ts";
import { Random } from "../src/tensor/random.ts";
import { tensor, type Tensor } from "../src/tensor/tensor.ts";

const ROUNDS = 40;
const WARM_UP = 5;

/** An adapter on every linear layer, its factors normal. */
function randomAdapter(model: Model, r: number, seed: string): Adapter {
  const tensors = new Map<string, Tensor>();
  for (const { module, inFeatures, outFeatures, kind } of model.layers) {
    if (kind !== "linear" || !module.includes(".layers.")) continue;
    for (const [part, shape] of [
      ["lora_A.weight", [r, inFeatures]],
      ["lora_B.weight", [outFeatures, r]],
    ] as const) {
      const random = new Random(1).fork(seed + module + part);
      const values = Float32Array.from({ length: shape[0] * shape[1] }, () => 0.02 * random.normal()); // prettier-ignore
      tensors.set(peftKey(module, part), tensor("f32", shape, values));
    }
  }
  return { config: lora({ r, alpha: r, targetModules: "all-linear" }), tensors };
}

function medianOf(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

interface Row {
  readonly bank: number;
  readonly rank: number;
  readonly load: number;
  readonly swap: readonly number[];
  readonly choose: number;
}

async function measure(model: Model, bank: number, rank: number): Promise<Row> {
  const adapters = await openAdapters(model, { rank: bank });
  const [one, other] = [randomAdapter(model, rank, "one"), randomAdapter(model, rank, "other")];
  const timed = async (work: () => Promise<void> | void): Promise<number> => {
    const start = performance.now();
    await work();
    return performance.now() - start;
  };
  try {
    const load = await timed(() => adapters.loadAdapter("writer", one));
    const before = await adapters.logits([[1, 2, 3]], ["writer"]);
    const swap: number[] = [];
    for (let round = 0; round < WARM_UP + ROUNDS; round++)
      swap.push(
        await timed(() => adapters.replaceAdapter("writer", round % 2 === 0 ? other : one)),
      );
    await adapters.replaceAdapter("writer", other);
    const after = await adapters.logits([[1, 2, 3]], ["writer"]);
    if (after.data.every((value, i) => value === before.data[i]))
      throw new Error("nothing changed");
    const choose = await timed(() => adapters.setAdapter("writer"));
    return { bank, rank, load, swap: swap.slice(WARM_UP), choose };
  } finally {
    await adapters.dispose();
  }
}

const [reference = "storyteller-6m"] = process.argv.slice(2);
const model = await loadModel(reference);
const rows: Row[] = [];
for (const [bank, rank] of [
  [8, 8],
  [16, 8],
  [64, 8],
  [64, 16],
  [64, 64],
] as const)
  // prettier-ignore
  rows.push(await measure(model, bank, rank));
const lines = rows.map(({ bank, rank, load, swap, choose }) =>
  `| ${[bank, rank, load.toFixed(1), medianOf(swap).toFixed(1), Math.max(...swap).toFixed(1), choose.toFixed(2)].join(" | ")} |`); // prettier-ignore
process.stdout.write(`# Swapping adapters

${reference}, adapters on all ${model.layers.filter(({ module }) => module.includes(".layers.")).length} linear layers, onnx-cpu, ${cpus()[0]!.model.trim()}, ${cpus().length} threads. Milliseconds; a swap puts the tensors of another adapter of the
same rank into the running engine, the median and the longest of ${ROUNDS}. No program is compiled; logits differ afterwards.

| rank of the bank | rank of the adapter | first load | swap, median | longest | choosing a loaded one |
| ---------------- | ------------------- | ---------- | ------------ | ------- | --------------------- |
${lines.join("\n")}
`);

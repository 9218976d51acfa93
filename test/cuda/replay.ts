/** @file A thousand replays of a step in deterministic mode give the same bits. */
import { cudaEngine } from "../../src/backends/cuda/engine.ts";
import { Random } from "../../src/tensor/random.ts";
import { sizeOf } from "../../src/tensor/shape.ts";
import { tensor } from "../../src/tensor/tensor.ts";
import { trainableParameters, trainingGraph, type TrainPlan } from "../../src/train/plan.ts";
import { type Check, storyteller } from "./check.ts";

const REPLAYS = 1000;
const [B, T] = [4, 96];
const MODULES = ["q_proj", "k_proj", "v_proj", "o_proj"].map((name) => `self_attn.${name}`);
const LAYERS = ["gate_proj", "up_proj", "down_proj"].map((name) => `mlp.${name}`);

async function checkReplays(precision: "bf16" | "f32"): Promise<string> {
  const { config, source } = await storyteller();
  const shared = { rank: 8, scale: 2, dropout: 0.1, useDora: false, loraBias: false };
  const count = Number(config["num_hidden_layers"]);
  const modules = Array.from({ length: count }, (_, i) =>
    [...MODULES, ...LAYERS].map((name) => `model.layers.${i}.${name}`),
  ).flat();
  const sites = new Map(modules.map((module) => [module, { module, ...shared }]));
  const plan: TrainPlan = { config, sites, trainsWeight: () => false, checkpointing: false };
  const engine = cudaEngine(source, { precision, deterministic: true });
  const random = new Random(4);
  const parameters = trainableParameters(plan);
  for (const { name, shape } of parameters) {
    const data = Float32Array.from({ length: sizeOf(shape) }, () => 0.05 * random.normal());
    await engine.set(name!, tensor("f32", shape, data));
  }
  const rows = B * T;
  const shape = { batch: B, length: T, rows, hasSegments: true };
  const program = await engine.compile(trainingGraph(plan, shape));
  const wholes = (sizes: readonly number[], f: (i: number) => number): ReturnType<typeof tensor> =>
    tensor(
      "i32",
      sizes,
      Int32Array.from({ length: sizeOf(sizes) }, (_, i) => f(i)),
    );
  const feeds = {
    input_ids: wholes([B, T], (i) => (i * 37) % 6000),
    position_ids: wholes([B, T], (i) => (i % T) % 50),
    segments: wholes([B, T], (i) => Math.floor((i % T) / 50)),
    loss_rows: wholes([rows], (i) => i),
    targets: wholes([rows], (i) => (i * 91) % 6000),
    loss_weights: tensor("f32", [rows], new Float32Array(rows).fill(1 / rows)),
    dropout_seed: wholes([], () => 7),
  };
  const readBits = async (): Promise<Int32Array[]> => {
    await engine.clearGradients();
    const { loss } = await program.run(feeds);
    const all = [loss!];
    for (const { name } of parameters) all.push(await engine.get(`${name!}.grad`));
    return all.map(({ data }) => new Int32Array(data.buffer, data.byteOffset, data.length));
  };
  const first = await readBits();
  for (let i = 1; i < REPLAYS; i++) {
    const again = await readBits();
    const at = again.findIndex((bits, k) => bits.some((word, j) => word !== first[k]![j]));
    if (at >= 0)
      throw new Error(
        `replay ${i + 1}: expected the bits of the first, ${at === 0 ? "the loss" : parameters[at - 1]!.name!} differs`,
      );
  }
  await program.dispose();
  await engine.dispose();
  return `loss and ${parameters.length} gradients, ${REPLAYS} times the same bits`;
}

export const checks: readonly Check[] = (["bf16", "f32"] as const).map((precision) => ({
  name: `replays ${precision}`,
  run: () => checkReplays(precision),
}));

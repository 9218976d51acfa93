import { describe, expect, it } from "vitest";
import { topological } from "../src/ir/graph.ts";
import type { Node } from "../src/ir/node.ts";
import { decodeLatents, encodeImage } from "../src/models/autoencoder-kl.ts";
import { clipText, clipWeightName, pooledPosition } from "../src/models/clip-text.ts";
import type { HfConfig } from "../src/models/config.ts";
import { unet2dCondition } from "../src/models/unet2d-condition.ts";
import { input, isFrozen, isTrainable } from "../src/ops/leaf.ts";
import { mul } from "../src/ops/mul.ts";
import { reduceSum } from "../src/ops/reduce-sum.ts";
import { gradient } from "../src/passes/gradient.ts";
import { unfreeze } from "../src/passes/unfreeze.ts";
import { int64 } from "../src/api/feeds.ts";
import { toFloat64 } from "../src/tensor/convert.ts";
import type { Tensor } from "../src/tensor/tensor.ts";
import { createOnnxEngine } from "../src/backends/onnx/engine.ts";
import {
  type DiffusionPart,
  diffusionPart,
  farthest,
  feedsOf,
  runOnce,
} from "./support/diffusion.ts";

/** f32 on both sides; the largest outputs are about 5. */
const TOLERANCE = 1e-4;
const norm = (value: Tensor): number => Math.hypot(...toFloat64(value));

const UNET_FEEDS = ["sample", "timestep", "encoder_hidden_states"];

function unetOf({ config, expected }: DiffusionPart): Node {
  const leaf = (name: string): Node => input(name, expected.get(name)!.shape);
  return unet2dCondition(config, {
    sample: leaf("sample"),
    timestep: leaf("timestep"),
    text: leaf("encoder_hidden_states"),
    ...(expected.has("time_ids") && { pooledText: leaf("text_embeds"), timeIds: leaf("time_ids") }),
  });
}

describe.each(["sd1", "sd2", "sdxl"])("the UNet of %s", (name) => {
  it("computes what diffusers computes, and its gradients", async () => {
    const part = await diffusionPart(`${name}/unet`);
    const { expected, weights, tensors } = part;
    const output = unetOf(part);
    const used = topological([output]).filter(isFrozen);
    expect(new Set(used.map((leaf) => leaf.name))).toEqual(new Set(tensors.keys()));
    const wanted = [...expected.keys()].filter((key) => key.startsWith("grad."));
    const loss = reduceSum(mul(output, output), { axes: [0, 1, 2, 3] });
    const names = new Set(wanted.map((key) => key.slice("grad.".length)));
    const [y, root] = unfreeze([output, loss], (weight) => names.has(weight)) as [Node, Node];
    const params = topological([root]).filter(isTrainable);
    const result = gradient(root, params);
    const feeds = feedsOf(expected, [
      ...UNET_FEEDS,
      ...(expected.has("time_ids") ? ["text_embeds", "time_ids"] : []),
    ]);
    const engine = createOnnxEngine({ weights, threads: 1 });
    for (const param of params) await engine.set(param.name!, tensors.get(param.name!)!);
    const program = await engine.compile({
      outputs: { y },
      gradients: Object.fromEntries(params.map((param, i) => [param.name!, result.gradients[i]!])),
    });
    const outputs = await program.run(feeds);
    expect(farthest(outputs["y"]!, expected.get("output")!)).toBeLessThan(TOLERANCE);
    for (const param of params) {
      const want = expected.get(`grad.${param.name!}`)!;
      const got = await engine.get(`${param.name!}.grad`);
      expect(farthest(got, want), param.name).toBeLessThan(TOLERANCE * norm(want));
    }
    await engine.dispose();
  });
});

describe("the autoencoder of sd1", () => {
  it("encodes pixels to moments and decodes latents as diffusers does", async () => {
    const { config, weights, tensors, expected } = await diffusionPart("sd1/vae");
    const leaf = (name: string): Node => input(name, expected.get(name)!.shape);
    const moments = encodeImage(config, leaf("pixels"));
    const pixels = decodeLatents(config, leaf("latents"));
    const used = topological([moments, pixels]).filter(isFrozen);
    expect(new Set(used.map(({ name }) => name))).toEqual(new Set(tensors.keys()));
    const graph = { outputs: { moments, decoded: pixels }, gradients: {} };
    const { outputs } = await runOnce(weights, graph, feedsOf(expected, ["pixels", "latents"]));
    for (const name of ["moments", "decoded"])
      expect(farthest(outputs[name]!, expected.get(name)!), name).toBeLessThan(TOLERANCE);
  });
});

describe.each([
  ["sd1/text_encoder", "pooler_output"],
  ["sdxl/text_encoder_2", "text_embeds"],
])("the text encoder %s", (folder, pooledName) => {
  it("computes what transformers computes, with and without the prefix of its weights", async () => {
    for (const strip of [false, true]) {
      const { config, weights, expected } = await diffusionPart(folder, (name) =>
        clipWeightName(strip ? name.replace(/^text_model\./, "") : name),
      );
      const ids = expected.get("input_ids")!;
      const [batch, length] = ids.shape as [number, number];
      const text = clipText(config, {
        ids: input("input_ids", ids.shape, "i64"),
        pooledRows: input("pooled_rows", [batch], "i64"),
      });
      const outputs = {
        last_hidden_state: text.hidden,
        penultimate: text.layers.at(-2)!,
        [pooledName]: text.pooled!,
      };
      const rows = rowsOf(ids).map((row, i) => i * length + pooledPosition(row, config));
      const feeds = { input_ids: ids, pooled_rows: int64([batch], rows) };
      const got = await runOnce(weights, { outputs, gradients: {} }, feeds);
      for (const name of Object.keys(outputs))
        expect(farthest(got.outputs[name]!, expected.get(name)!), name).toBeLessThan(TOLERANCE);
    }
  });
});

function rowsOf({ shape, data }: Tensor): number[][] {
  const [batch, length] = shape as [number, number];
  const ids = Array.from(data as BigInt64Array, Number);
  return Array.from({ length: batch }, (_, i) => ids.slice(i * length, (i + 1) * length));
}

it("variants that are not built are refused with their fields", async () => {
  const { config } = await diffusionPart("sd1/unet");
  const refused =
    (changes: HfConfig): (() => unknown) =>
    () => {
      const leaf = (name: string, shape: number[]): Node => input(name, shape);
      return unet2dCondition(
        { ...config, ...changes },
        {
          sample: leaf("sample", [1, 4, 8, 8]),
          timestep: leaf("timestep", [1]),
          text: leaf("text", [1, 9, 32]),
        },
      );
    };
  expect(refused({ class_embed_type: "timestep", encoder_hid_dim: 4 })).toThrow(
    'class_embed_type "timestep", encoder_hid_dim 4',
  );
  expect(refused({ down_block_types: ["AttnDownBlock2D"] })).toThrow("CrossAttnDownBlock2D");
  expect(refused({ attention_head_dim: 4 })).not.toThrow();
});

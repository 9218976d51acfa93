/** @file The base models of the interop grid, and what Lorikeet computes with them. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Adapter, peftKey } from "../../src/adapter/adapter.ts";
import { attach, type Attachment, noAttachment } from "../../src/adapter/attach.ts";
import { changedBase } from "../../src/adapter/changed-base.ts";
import type { FamilyTargets } from "../../src/adapter/targets.ts";
import { int64 } from "../../src/api/feeds.ts";
import { createModel } from "../../src/api/model.ts";
import { openEngine } from "../../src/api/open-engine.ts";
import type { Tensors } from "../../src/backends/backend.ts";
import { decodeSafetensors } from "../../src/formats/safetensors.ts";
import { openWeights } from "../../src/host/checkpoint.ts";
import { type Checkpoint, openFolder } from "../../src/host/open-checkpoint.ts";
import type { Node } from "../../src/ir/node.ts";
import { loraTargets } from "../../src/models/lora-targets.ts";
import { encoderModel, encoderModelTypes } from "../../src/models/registry.ts";
import { insertLora, type LoraCandidate, loraCandidates } from "../../src/passes/lora.ts";
import { unfreeze } from "../../src/passes/unfreeze.ts";
import { convert } from "../../src/tensor/convert.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { convNet } from "./conv-net.ts";

/** What make_peft_grid.py says of a case. */
export interface CaseFacts {
  readonly name: string;
  readonly base: string;
  readonly adapter_name: string;
  readonly adapter_folder: string;
}

/** A base model with the batch that its logits are compared on. */
export interface InteropBase {
  readonly checkpoint: Checkpoint;
  readonly layers: readonly LoraCandidate[];
  readonly family: FamilyTargets;
  /** Logits on the batch, of these weights and this adapter. */
  logits(checkpoint: Checkpoint, adapter?: Adapter): Promise<Tensor>;
}

/** The base `name` (a folder of test/fixtures/models, or `conv`) with the batch in `expected`. */
export async function interopBase(
  name: string,
  grid: string,
  expected: ReadonlyMap<string, Tensor>,
): Promise<InteropBase> {
  if (name === "conv") return convBase(join(grid, "base/conv"), expected);
  const checkpoint = await openFolder(join(import.meta.dirname, "../fixtures/models", name));
  return encoderModelTypes.includes(String(checkpoint.config["model_type"]))
    ? encoderBase(checkpoint, expected)
    : causalBase(checkpoint, expected);
}

/** The tensors of a safetensors file. */
export async function tensorsOf(path: string): Promise<ReadonlyMap<string, Tensor>> {
  return (await decodeSafetensors(await readFile(path))).tensors;
}

function causalBase(checkpoint: Checkpoint, expected: ReadonlyMap<string, Tensor>): InteropBase {
  const ids = expected.get("input_ids")!;
  const [batch, length] = ids.shape as [number, number];
  const flat = Array.from(ids.data as ArrayLike<bigint>, Number);
  const rows = Array.from({ length: batch }, (_, b) => flat.slice(b * length, (b + 1) * length));
  const { layers, family } = createModel(checkpoint);
  return {
    checkpoint,
    layers,
    family,
    async logits(weights, adapter) {
      const base = createModel(weights);
      const model = adapter ? base.withAdapter(adapter) : base;
      try {
        return await model.logits(rows);
      } finally {
        await model.dispose();
      }
    },
  };
}

function encoderBase(checkpoint: Checkpoint, expected: ReadonlyMap<string, Tensor>): InteropBase {
  const ids = expected.get("input_ids")!;
  const [batch, length] = ids.shape as [number, number];
  const { logits } = encoderModel(checkpoint.config, { batch, length });
  const positions = Array.from({ length: batch * length }, (_, i) => i % length);
  const types = expected.get("token_type_ids");
  const feeds = {
    input_ids: ids,
    position_ids: int64(ids.shape, positions),
    segments: expected.get("attention_mask")!,
    ...(types && { token_type_ids: types }),
  };
  const family = loraTargets(String(checkpoint.config["model_type"]));
  return graphBase(checkpoint, family, { root: logits, feeds });
}

async function convBase(
  folder: string,
  expected: ReadonlyMap<string, Tensor>,
): Promise<InteropBase> {
  const checkpoint: Checkpoint = {
    name: "conv",
    path: folder,
    config: { model_type: "conv-net" },
    weights: await openWeights(folder),
    tokenizer: undefined,
    tokenizerConfig: undefined,
    generationConfig: undefined,
    chatTemplate: undefined,
  };
  const x = expected.get("x")!;
  const family = { defaults: [], head: "" };
  return graphBase(checkpoint, family, { root: convNet(x.shape), feeds: { x } });
}

function graphBase(
  checkpoint: Checkpoint,
  family: FamilyTargets,
  { root, feeds }: { root: Node; feeds: Tensors },
): InteropBase {
  const layers = loraCandidates([root]);
  return {
    checkpoint,
    layers,
    family,
    async logits({ weights }, adapter) {
      const attachment = adapter ? attach(adapter, layers, family) : noAttachment;
      const { sites } = attachment;
      const own = adapter ? changedBase(weights, adapter, { layers, sites }) : weights;
      const engine = await openEngine(own);
      try {
        for (const [name, value] of attachment.values)
          await engine.set(name, convert(value, "f32"));
        const program = await engine.compile({
          outputs: { logits: adapted(root, attachment) },
          gradients: {},
        });
        return (await program.run(feeds))["logits"]!;
      } finally {
        await engine.dispose();
      }
    },
  };
}

function adapted(root: Node, { sites, trainsWeight }: Attachment): Node {
  const inserted = insertLora([root], sites, { nameOf: peftKey });
  return unfreeze(inserted, trainsWeight)[0]!;
}

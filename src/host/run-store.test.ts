import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { lora } from "../adapter/lora-config.ts";
import { tensor } from "../tensor/tensor.ts";
import { freshState, type RunState } from "../train/setup.ts";
import { loadAdapterFolder, saveAdapter } from "./adapter-files.ts";
import { claimOutput, latestCheckpoint, saveCheckpoint } from "./run-store.ts";
import { checkTrainConfig } from "./train-config-read.ts";

const storage = { save: saveAdapter, load: loadAdapterFolder };
const value = tensor("f32", [2, 3], Float32Array.of(1, 2, 3, 4, 5, 6));
let root: string;

beforeAll(async () => (root = await mkdtemp(join(tmpdir(), "lorikeet-store-"))));
afterAll(() => rm(root, { recursive: true }));

function save(folder: string, state: Partial<RunState>, limit: number): Promise<string> {
  const key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
  const adapter = { config: lora({ r: 2 }), tensors: new Map([[key, value]]) };
  const optimizer = new Map([[`${key}.exp_avg`, value]]);
  return saveCheckpoint(folder, { adapter, optimizer, state: { ...freshState, ...state } }, limit, storage); // prettier-ignore
}

test("checkpoints are read as they were written; only the newest are kept", async () => {
  const folder = join(root, "kept");
  for (const step of [2, 4, 10]) await save(folder, { step }, 2);
  expect((await readdir(folder)).sort()).toEqual(["checkpoint-10", "checkpoint-4"]);
  const latest = await latestCheckpoint(folder, storage);
  expect(latest?.state).toMatchObject({ step: 10 });
  expect([...latest!.adapter.tensors.values()][0]!.data).toEqual(value.data);
  expect([...latest!.optimizer.values()][0]!.data).toEqual(value.data);
});

test("saving a step again changes its state alone: there is a whole checkpoint at any moment", async () => {
  const folder = join(root, "again");
  const path = await save(folder, { step: 3 }, 1);
  const { ino } = await stat(join(path, "adapter_model.safetensors"));
  expect(await save(folder, { step: 3, evalsSinceBest: 1 }, 1)).toBe(path);
  expect((await stat(join(path, "adapter_model.safetensors"))).ino).toBe(ino);
  expect((await latestCheckpoint(folder, storage))?.state).toMatchObject({ step: 3, evalsSinceBest: 1 }); // prettier-ignore
});

test("a run that has saved nothing yet is one: another one does not take its folder", async () => {
  const folder = await mkdtemp(join(root, "begun-"));
  const claim = (settings: object = {}): Promise<void> =>
    claimOutput(folder, checkTrainConfig({ data: "chats.jsonl", ...settings }));
  await writeFile(join(folder, "metrics.jsonl"), "");
  await claim();
  await writeFile(join(folder, "metrics.jsonl"), "{}\n");
  await expect(claim()).rejects.toMatchObject({ code: "output-exists" });
  await claim({ resume: true });
  await claim({ overwrite: true });
  expect(await readdir(folder)).toEqual([]);
});

test("what a killed run was writing is gone when the next one claims the folder", async () => {
  const folder = await mkdtemp(join(root, "killed-"));
  const left = ["train-config.yaml.60191050.tmp", "adapter_model.safetensors.0a1b2c3d.tmp"];
  const others = ["notes.tmp", "mine.60191050.tmp"];
  for (const name of [...left, ...others]) await writeFile(join(folder, name), "");
  await save(folder, { step: 2 }, 2);
  await mkdir(join(folder, "checkpoint-3.tmp"));
  await claimOutput(folder, checkTrainConfig({ data: "chats.jsonl", resume: true }));
  expect((await readdir(folder)).sort()).toEqual(["checkpoint-2", ...others].sort());
});

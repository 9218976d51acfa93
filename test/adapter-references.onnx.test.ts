import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AdapterInspection } from "../src/api/inspection.ts";
import { loadModel } from "../src/api/load-model.ts";
import type { Model } from "../src/api/model.ts";
import { decodeSafetensors } from "../src/formats/safetensors.ts";
import { loadAnyAdapter } from "../src/host/adapter-formats.ts";
import { toFloat32 } from "../src/tensor/convert.ts";
import { lorikeet } from "./support/command.ts";

const ADAPTER = join(import.meta.dirname, "golden/patterns/adapter_after10");
const BASE = "storyteller-6m";
let scratch: string;
const before = { ...process.env };

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "lorikeet-references-"));
  await cp(ADAPTER, join(scratch, "named/story"), { recursive: true });
  const snapshot = join(scratch, "hub/models--someone--stories/snapshots/0123");
  await cp(ADAPTER, snapshot, { recursive: true });
  await mkdir(join(snapshot, "../../refs"));
  await writeFile(join(snapshot, "../../refs/main"), "0123");
  for (const format of ["gguf", "mlx"])
    await lorikeet("convert", ADAPTER, "--to", format, "-o", at(format === "gguf" ? "a.gguf" : "mlx")); // prettier-ignore
  await lorikeet("convert", at("a.gguf"), "--to", "peft", "-o", at("from-gguf"), "-m", BASE);
  await lorikeet("convert", at("mlx"), "--to", "peft", "-o", at("from-mlx"));
  await lorikeet("merge", "-a", ADAPTER, "-m", BASE, "-o", at("want"), "--dtype", "f32");
  process.env["HF_HUB_OFFLINE"] = "1";
  process.env["HF_HUB_CACHE"] = join(scratch, "hub");
});
afterAll(async () => {
  for (const name of ["HF_HUB_OFFLINE", "HF_HUB_CACHE"])
    if (before[name] === undefined) Reflect.deleteProperty(process.env, name);
    else process.env[name] = before[name];
  await rm(scratch, { recursive: true });
});

function at(name: string): string {
  return join(scratch, name);
}

async function weightsOf(folder: string): Promise<ReadonlyMap<string, Float32Array>> {
  const { tensors } = await decodeSafetensors(await readFile(join(folder, "model.safetensors")));
  return new Map([...tensors].map(([name, value]) => [name, toFloat32(value)]));
}

describe("--adapter", () => {
  it.each([
    ["a folder of PEFT with another adapter's name", "named"],
    ["a hub id", "someone/stories"],
    ["a GGUF file", "a.gguf"],
    ["a folder of mlx-lm", "mlx"],
    ["what GGUF became as PEFT", "from-gguf"],
    ["what mlx-lm became as PEFT", "from-mlx"],
  ])("%s merges to the same weights, to 1e-6", async (_, name) => {
    const out = at(`merged-${name.replace("/", "-")}`);
    const adapter = name === "someone/stories" ? name : at(name);
    const told = await lorikeet("merge", "-a", adapter, "-m", BASE, "-o", out, "--dtype", "f32");
    expect(told.code, told.err).toBe(0);
    const [want, got] = [await weightsOf(at("want")), await weightsOf(out)];
    expect([...got.keys()].sort()).toEqual([...want.keys()].sort());
    let most = 0;
    for (const [key, values] of want)
      values.forEach((value, i) => (most = Math.max(most, Math.abs(value - got.get(key)![i]!))));
    expect(most).toBeLessThan(1e-6);
  });

  it("a hub id generates, and inspect reads it", async () => {
    const flags = ["--prompt", "Once", "--max-new-tokens", "6"];
    const there = await lorikeet("generate", "-a", "someone/stories", "-m", BASE, ...flags);
    const here = await lorikeet("generate", "-a", ADAPTER, "-m", BASE, ...flags);
    expect(there.code, there.err).toBe(0);
    expect(there.out).toBe(here.out);
    const seen = await lorikeet("inspect", "someone/stories", "--json");
    expect((JSON.parse(seen.out) as AdapterInspection).layers).toHaveLength(3);
    const none = await lorikeet("generate", "-a", "no/body", "-m", BASE, ...flags);
    expect(none.err).toContain("hub-offline");
  });

  it("a GGUF adapter without its base is refused with what to do", async () => {
    const { err, code } = await lorikeet("merge", "-a", at("a.gguf"), "-o", at("baseless"));
    expect(code).toBe(1);
    expect(err).toContain("missing-base");
  });
});

it("an adapter that mlx-lm trained has mlx-lm's logits, as it is and converted for PEFT", async () => {
  const folder = join(import.meta.dirname, "fixtures/mlx");
  const { tensors } = await decodeSafetensors(await readFile(join(folder, "expected.safetensors")));
  const [ids, want] = [tensors.get("input_ids")!, toFloat32(tensors.get("logits_last")!)];
  const [count, length] = ids.shape as [number, number];
  const rows = Array.from({ length: count }, (_, b) => Array.from(ids.data.subarray(b * length, (b + 1) * length), Number)); // prettier-ignore
  const told = await lorikeet("convert", folder, "--to", "peft", "-o", at("from-trained"));
  expect(told.code, told.err).toBe(0);
  const base = await loadModel(BASE);
  const lastOf = async (model: Model): Promise<Float32Array> => {
    const { data, shape } = await model.logits(rows);
    const size = shape[2]!;
    await model.dispose();
    return Float32Array.from(want, (_, i) => Number(data[(Math.floor(i / size) + 1) * length * size - size + (i % size)])); // prettier-ignore
  };
  const worst = (got: Float32Array): number => got.reduce((most, value, i) => Math.max(most, Math.abs(value - want[i]!)), 0); // prettier-ignore
  for (const reference of [folder, at("from-trained")])
    expect(worst(await lastOf(base.withAdapter(await loadAnyAdapter(reference))))).toBeLessThan(1e-4); // prettier-ignore
  expect(worst(await lastOf(base))).toBeGreaterThan(1e-2);
});

it("convert --plain: a PiSSA adapter as plain LoRA of twice the rank, which merges without its base being changed first", async () => {
  const fixtures = join(import.meta.dirname, "fixtures");
  const [pissa, base] = [join(fixtures, "adapters/init-pissa/adapter"), join(fixtures, "models/llama")]; // prettier-ignore
  const told = await lorikeet("convert", pissa, "--to", "peft", "--plain", "-m", base, "-o", at("plain")); // prettier-ignore
  expect(told.code, told.err).toBe(0);
  const seen = JSON.parse((await lorikeet("inspect", at("plain"), "--json")).out) as AdapterInspection; // prettier-ignore
  expect([seen.r, seen.alpha]).toEqual([8, 16]);
  for (const [name, adapter] of [["pissa-merged", pissa], ["plain-merged", at("plain")]] as const)
    expect((await lorikeet("merge", "-a", adapter, "-m", base, "-o", at(name))).code).toBe(0);
  const [one, other] = [await weightsOf(at("pissa-merged")), await weightsOf(at("plain-merged"))];
  for (const [key, values] of one) expect(other.get(key)).toEqual(values);
}); // prettier-ignore

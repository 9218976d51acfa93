import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Adapter, decodeAdapter } from "../adapter/adapter.ts";
import { combine } from "../adapter/combine.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type Adapters, openAdapters } from "./adapters.ts";
import { openSession } from "./generate.ts";
import { loadModel } from "./load-model.ts";
import type { Model } from "./model.ts";

let base: Model;
let bank: Adapters;
const loaded: Record<string, Adapter> = {};
const ids = [5, 80, 212, 9, 31, 77, 140, 3];

beforeAll(async () => {
  base = await loadModel("storyteller-6m");
  bank = await openAdapters(base, { rank: 48 });
  for (const name of ["lora", "rslora", "patterns", "dora"]) {
    const folder = join(import.meta.dirname, "../../test/golden", name, "adapter");
    loaded[name] = await decodeAdapter(
      await readFile(join(folder, "adapter_config.json"), "utf8"),
      await readFile(join(folder, "adapter_model.safetensors")),
    );
  }
  await bank.loadAdapter("lora", loaded["lora"]!);
  await bank.loadAdapter("rslora", loaded["rslora"]!);
});
afterAll(async () => {
  await bank.dispose();
  await base.dispose();
});

/** Logits of one row, which `adapter` alone gives. */
async function alone(adapter?: Adapter): Promise<Tensor> {
  const model = adapter ? base.withAdapter(adapter) : base;
  const logits = await model.logits([ids]);
  if (adapter) await model.dispose();
  return logits;
}

/** Largest difference between row `row` of `logits` and a single row. */
function difference(logits: Tensor, row: number, want: Tensor): number {
  let most = 0;
  for (let i = 0; i < want.data.length; i++)
    most = Math.max(
      most,
      Math.abs(Number(logits.data[row * want.data.length + i]) - Number(want.data[i])),
    );
  return most;
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "none",
    (error: unknown) => (error as { code: string }).code,
  );
}

it("mixes adapters, weights and the bare base in one batch", async () => {
  const choices = ["lora", null, "rslora", { lora: 0.5, rslora: -1 }] as const;
  const logits = await bank.logits([ids, ids, ids, ids], choices);
  const both = combine([loaded["lora"]!, loaded["rslora"]!], {
    weights: [0.5, -1],
    combinationType: "cat",
  });
  expect(difference(logits, 0, await alone(loaded["lora"]))).toBeLessThan(1e-4);
  expect(difference(logits, 1, await alone())).toBe(0);
  expect(difference(logits, 2, await alone(loaded["rslora"]))).toBeLessThan(1e-4);
  expect(difference(logits, 3, await alone(both))).toBeLessThan(1e-4);
  expect(difference(logits, 0, await alone())).toBeGreaterThan(0.1);
});

it("acts as chosen until something else is chosen, disabled or deleted", async () => {
  expect(bank.active).toEqual({});
  bank.setAdapter("lora");
  const want = await alone(loaded["lora"]);
  expect(difference(await bank.logits([ids]), 0, want)).toBeLessThan(1e-4);
  bank.disableAdapters();
  expect(difference(await bank.logits([ids]), 0, await alone())).toBe(0);
  bank.enableAdapters();
  bank.renameAdapter("lora", "story");
  expect(bank.active).toEqual({ story: 1 });
  expect(bank.names).toEqual(["rslora", "story"]);
  expect(difference(await bank.logits([ids]), 0, want)).toBeLessThan(1e-4);
  await bank.deleteAdapter("story");
  expect(bank.active).toEqual({});
  expect(difference(await bank.logits([ids]), 0, await alone())).toBe(0);
  await bank.loadAdapter("lora", loaded["lora"]!);
});

it("puts one adapter in another's place, also one of other ranks on fewer layers", async () => {
  await bank.loadAdapter("swapped", loaded["rslora"]!);
  await bank.replaceAdapter("swapped", loaded["patterns"]!);
  const logits = await bank.logits([ids, ids], ["swapped", "lora"]);
  expect(difference(logits, 0, await alone(loaded["patterns"]))).toBeLessThan(1e-4);
  expect(difference(logits, 1, await alone(loaded["lora"]))).toBeLessThan(1e-4);
  await bank.deleteAdapter("swapped");
});

it("answers a batch of prompts as each alone is answered", async () => {
  const prompts = ["Once upon a time", "The little dog", "One day"];
  const choices = ["lora", null, "rslora"];
  const answers = prompts.map(() => [] as number[]);
  const options = { maxNewTokens: 12 };
  for await (const { row, id } of bank.generate(
    prompts.map((prompt, i) => ({ prompt, adapter: choices[i]! })),
    options,
  ))
    answers[row]!.push(id);
  for (const [row, prompt] of prompts.entries()) {
    const name = choices[row];
    const model = name ? base.withAdapter(loaded[name]!) : base;
    const session = await openSession(model);
    const want: number[] = [];
    for await (const { id } of session.generate(prompt, options)) want.push(id);
    await session.dispose();
    expect(answers[row], prompt).toEqual(want);
  }
});

it("answers one batch, and a session one prompt, at a time", async () => {
  const session = await openSession(base);
  const options = { maxNewTokens: 4 };
  for (const answer of [
    () => session.generate("Once", options),
    () => bank.generate([{ prompt: "Once" }], options),
  ]) {
    const first = answer();
    const want = (await first.next()).value!.id;
    expect(await codeOf(answer().next())).toBe("session-busy");
    await first.return();
    for await (const { id } of answer()) {
      expect(id).toBe(want);
      break; // leaving the loop ends the answer
    }
  }
  await session.dispose();
});

it("refuses what cannot share a bank, with the remedy, and keeps what it holds", async () => {
  expect(await codeOf(bank.loadAdapter("dora", loaded["dora"]!))).toBe("bank-adapter");
  expect(await codeOf(bank.loadAdapter("lora", loaded["rslora"]!))).toBe("adapter-name");
  expect(await codeOf(bank.replaceAdapter("nobody", loaded["lora"]!))).toBe("adapter-name");
  expect(await codeOf(bank.deleteAdapter("nobody"))).toBe("adapter-name");
  expect(() => bank.setAdapter("larra")).toThrow('Expected a loaded adapter, got "larra"');
  expect(() => bank.setAdapter({ lora: NaN })).toThrow('factor of adapter "lora", got NaN');
  expect(await codeOf(bank.logits([ids], ["lora", null]))).toBe("shape");
  for await (const token of bank.generate([])) expect(token).toBe("nothing");
  for (let i = 0; i < 8; i++) {
    const code = await codeOf(bank.loadAdapter(`more-${i}`, loaded["lora"]!));
    if (code === "none") continue;
    expect(code).toBe("bank-full");
    break;
  }
  const narrow = await openAdapters(base, { rank: 16, targetModules: ["q_proj"] });
  expect(await codeOf(narrow.loadAdapter("lora", loaded["lora"]!))).toBe("bank-adapter");
  await narrow.dispose();
  const logits = await bank.logits([ids], ["lora"]);
  expect(difference(logits, 0, await alone(loaded["lora"]))).toBeLessThan(1e-4);
});

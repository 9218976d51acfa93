import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { exampleWriter } from "../data/example-store.ts";
import { Random } from "../tensor/random.ts";
import { spillingWords } from "./spilling-words.ts";

function examples(count: number): { inputIds: Int32Array; labelMask: Uint8Array }[] {
  const random = new Random(3);
  return Array.from({ length: count }, () => {
    const length = 1 + random.integer(3000);
    return {
      inputIds: Int32Array.from({ length }, () => random.integer(2 ** 30)),
      labelMask: Uint8Array.from({ length }, () => random.integer(2)),
    };
  });
}

const equal = (a: ArrayBufferView, b: ArrayBufferView): boolean =>
  Buffer.compare(Buffer.from(a.buffer), Buffer.from(b.buffer)) === 0;

it.each([0, 1000, 200_000, 2 ** 26])(
  "keeps samples alike with %d words in memory and the rest in a file",
  async (limit) => {
    const folder = mkdtempSync(join(tmpdir(), "words-"));
    const samples = examples(300);
    const writer = exampleWriter(spillingWords(limit, folder));
    for (const [i, sample] of samples.entries()) await writer.append(sample, i);
    const store = await writer.finish();
    const differing = samples.map(async (sample, i) => {
      const { inputIds, labelMask } = await store.read(i);
      const isSame = equal(inputIds, sample.inputIds) && equal(labelMask, sample.labelMask);
      return isSame ? [] : [i];
    });
    expect((await Promise.all(differing)).flat()).toEqual([]);
    await store.dispose();
    expect(readdirSync(folder)).toEqual([]);
    rmSync(folder, { recursive: true });
  },
);

it("gives the same fingerprint wherever samples are kept", async () => {
  const prints = [0, 2 ** 26].map(async (limit) => {
    const writer = exampleWriter(spillingWords(limit));
    for (const sample of examples(10)) await writer.append(sample, 0);
    const store = await writer.finish();
    await store.dispose();
    return store.fingerprint;
  });
  expect(new Set(await Promise.all(prints)).size).toBe(1);
});

it("says so when the temporary folder can't be written", async () => {
  const words = spillingWords(0, "/nowhere/at/all");
  await expect(words.append(Int32Array.of(1))).rejects.toMatchObject({ code: "file-not-found" });
});

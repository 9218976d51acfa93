import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { previewPieces } from "./preview.ts";
import { createTokenizer } from "./tokenizer.ts";

const file = new URL("../../models/storyteller-6m/tokenizer.json", import.meta.url);
const tokenizer = createTokenizer({ tokenizer: JSON.parse(readFileSync(file, "utf8")) as object });

it("cuts a sample where training begins and ends", () => {
  const ids = [...tokenizer.encode("<|im_start|>Hi"), ...tokenizer.encode(" there<|im_end|>")];
  const trained = ids.map((_, i) => (i >= ids.length - 2 ? 1 : 0));
  const example = { inputIds: Int32Array.from(ids), labelMask: Uint8Array.from(trained) };
  expect(previewPieces(example, tokenizer)).toEqual([
    { text: "<|im_start|>Hi", isTrained: false, tokens: ids.length - 2 },
    { text: " there<|im_end|>", isTrained: true, tokens: 2 },
  ]);
});

it("keeps characters whole that are spread over tokens of both kinds", () => {
  const ids = tokenizer.encode("😀!");
  expect(ids.length).toBeGreaterThan(2);
  const labelMask = Uint8Array.from(ids, (_, i) => (i === 0 ? 0 : 1));
  const pieces = previewPieces({ inputIds: Int32Array.from(ids), labelMask }, tokenizer);
  expect(pieces.map(({ text }) => text)).toEqual(["", "😀!"]);
  const cut = { inputIds: Int32Array.from(ids.slice(0, 1)), labelMask: Uint8Array.of(0) };
  expect(previewPieces(cut, tokenizer).map(({ text }) => text)).toEqual(["\ufffd"]);
});

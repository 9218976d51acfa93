import { expect, it } from "vitest";
import sharp from "sharp";
import { addPngText, readPngText } from "./png-text.ts";

it("texts stand in a PNG that other programs still read", async () => {
  const raw = { width: 3, height: 2, channels: 3 } as const;
  const pixels = Uint8Array.from({ length: 18 }, (_, i) => 14 * i);
  const png = await sharp(pixels, { raw }).png().toBuffer();
  const texts = { parameters: "a cat\nSteps: 5", comment: "ein Vögel 🐦" };
  const written = addPngText(png, texts);
  expect(readPngText(written)).toEqual(texts);
  expect(readPngText(png)).toEqual({});
  const { data } = await sharp(written).raw().toBuffer({ resolveWithObject: true });
  expect([...data]).toEqual([...pixels]);
  // sharp reports comments of PNG files, and refuses chunks with a wrong checksum
  const { comments } = await sharp(written, { failOn: "warning" }).metadata();
  expect(comments).toContainEqual({ keyword: "parameters", text: texts.parameters });
  expect(() => readPngText(pixels)).toThrow("Expected a PNG image");
});
